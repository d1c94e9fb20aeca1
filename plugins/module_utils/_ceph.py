# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `ceph` command."""

from __future__ import annotations

import subprocess
from typing import Any, Mapping, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


class Cluster:
    """The `ceph` command with the login of its options."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._timeout = options["timeout"]
        self._command = ["ceph", "--connect-timeout", str(self._timeout)]
        for option, flag in (("ceph_conf", "--conf"), ("ceph_keyring", "--keyring"), ("ceph_id", "--id")):
            if options[option]:
                self._command += [flag, options[option]]

    def ask(self, *arguments: str) -> Tuple[int, str, str]:
        try:
            done = subprocess.run(
                [*self._command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self._timeout + 5, check=False
            )
        except FileNotFoundError:
            raise PoolsError("There is no `ceph` command on this host.", "Install ceph-common.") from None
        except subprocess.TimeoutExpired:
            raise PoolsError(
                "The Ceph cluster did not answer within {0} s (at: {1}).".format(self._timeout + 5, " ".join(arguments)),
                "Look at `ceph status`: is there a monitor, a metadata server, and for subvolumes a manager?",
            ) from None
        return done.returncode, done.stdout, done.stderr

    def tell(self, *arguments: str) -> str:
        code, said, wrong = self.ask(*arguments)
        if code:
            raise PoolsError("`ceph {0}` failed: {1}.".format(" ".join(arguments), " ".join(wrong.split()).rstrip(".")))
        return said

    def fsid(self, wanted: str) -> str:
        """The cluster's id.

        :raises PoolsError: it is not the one that is wanted. Empty takes any.
        """
        found = self.tell("fsid").strip()
        if wanted and found != wanted:
            raise PoolsError(
                "The `ceph` command of this host speaks to cluster {0}, not to {1}. Nothing was changed.".format(found, wanted),
                "Correct ceph_conf or cluster_fsid.",
            )
        return found

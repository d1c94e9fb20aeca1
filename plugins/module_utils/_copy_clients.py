# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where PostgreSQL's clients are on this machine: they need no server beside them."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from typing import List, NamedTuple, Optional

from ._binaries import VARIABLE
from ._errors import PoolsError

_PROGRAMS = ("pg_dump", "pg_restore")


class Clients(NamedTuple):
    directory: str
    major: int

    def program(self, name: str) -> str:
        return os.path.join(self.directory, name)


def find(bin_dir: str, source_major: int, target_major: int) -> Clients:
    """The clients of the target's major, or else the oldest that are not older than either server.

    :raises PoolsError: there are none.
    """
    needed = max(source_major, target_major)
    named = [bin_dir] if bin_dir else [place for place in [os.environ.get(VARIABLE, "")] if place]
    places = named if bin_dir else named + _installed()
    found = [clients for clients in map(_clients, places) if clients]
    fitting = sorted((clients for clients in found if clients.major >= needed), key=lambda one: one.major)
    if fitting:
        return fitting[0]
    there = ", ".join("{0} in {1}".format(one.major, one.directory) for one in found) or "none"
    raise PoolsError(
        "pg_dump and pg_restore of PostgreSQL {0} or newer are needed on this host; found: {1}{2}.".format(
            needed, there, " (looked in {0})".format(bin_dir) if bin_dir else ""
        ),
        "Install PostgreSQL's clients of major {0} (Debian: postgresql-client-{0}), or name their directory by bin_dir.".format(needed),
    )


def _installed() -> List[str]:
    on_path = shutil.which("pg_restore")
    places = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
    return places + ([os.path.dirname(os.path.realpath(on_path))] if on_path else [])


def _clients(directory: str) -> Optional[Clients]:
    if not all(os.access(os.path.join(directory, name), os.X_OK) for name in _PROGRAMS):
        return None
    said = subprocess.run(
        [os.path.join(directory, "pg_dump"), "-V"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False
    ).stdout.decode("utf-8", "replace")
    match = re.search(r"PostgreSQL\) (\d+)", said)
    return Clients(directory, int(match.group(1))) if match else None

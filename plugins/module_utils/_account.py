# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unprivileged user that a local PostgreSQL runs as, and running a program as that user."""

from __future__ import annotations

import os
import pwd
import subprocess
from typing import Any, List, NamedTuple, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


class Account(NamedTuple):
    name: str
    uid: int
    gid: int
    # True when this process is another user and has to become this one.
    switch: bool


def account(run_as: str = "") -> Account:
    """Who PostgreSQL runs as: the user asked for, or the caller, or for root the first of postgres and nobody."""
    me = os.geteuid()
    if run_as:
        found = _entry(run_as)
    elif me != 0:
        found = pwd.getpwuid(me)
    else:
        found = _entry("postgres", "nobody")
    if found.pw_uid == 0:
        raise PoolsError("PostgreSQL refuses to run as root.", "Set run_as to an unprivileged user.")
    if me not in (0, found.pw_uid):
        raise PoolsError(
            "PostgreSQL was asked to run as '{0}', but only root can start a program as another user.".format(run_as),
            "Leave run_as empty, or become root.",
        )
    return Account(found.pw_name, found.pw_uid, found.pw_gid, me != found.pw_uid)


def _entry(*names: str) -> pwd.struct_passwd:
    for name in names:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PoolsError(
        "There is no user '{0}' on this machine.".format("' or '".join(names)), "Set run_as to one there is."
    )


def run(who: Account, args: List[str], timeout: float, stdin: Any = subprocess.DEVNULL) -> Tuple[int, str]:
    """Run a program as that user; its exit code and what it said.

    The environment is made new: PG* variables would redirect PostgreSQL's programs, a locale would translate what
    they say, and whatever secrets the caller's environment holds would live on in the postmaster's.
    """

    def become() -> None:
        os.umask(0o077)
        if who.switch:
            os.initgroups(who.name, who.gid)
            os.setgid(who.gid)
            os.setuid(who.uid)

    try:
        done = subprocess.run(  # pylint: disable=subprocess-popen-preexec-fn
            args,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.path.dirname(args[0]) + ":/usr/bin:/bin", "LC_ALL": "C", "HOME": "/"},
            cwd="/",
            preexec_fn=become,
            start_new_session=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PoolsError("{0} did not end within {1:.0f} seconds.".format(args[0], timeout)) from None
    except OSError as error:
        raise PoolsError(
            "User '{0}' cannot run {1}: {2}.".format(who.name, args[0], error.strerror),
            "The user needs leave to read the program and to pass through every directory above it.",
        ) from error
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's own programs, at work on one server's directory as its unprivileged user."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import run
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._binaries import Binaries
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_dir import CONF, ServerDirectory


class ServerPrograms:
    def __init__(self, binaries: Binaries, directory: ServerDirectory, deadline: float) -> None:
        self.binaries = binaries
        self.dir = directory
        self.deadline = deadline

    def initialise(self, files: Dict[str, str], user: str, password: str, encoding: str, locale: str) -> None:
        """Make the data directory, complete with its configuration, beside its place and then move it there."""
        place = self.dir.unfinished()
        # The password goes by a file that has no name and is gone when its last reader is.
        secret = os.memfd_create("password")
        try:
            os.fchmod(secret, 0o600)
            os.fchown(secret, self.dir.who.uid, self.dir.who.gid)
            os.write(secret, (password + "\n").encode("utf-8"))
            os.lseek(secret, 0, os.SEEK_SET)
            code, said = self._run(
                "initdb",
                *("-D", place, "-U", user, "--pwfile=/dev/stdin", "-A", "scram-sha-256", "-E", encoding),
                *("--locale=" + locale, "--lc-messages=C", "-k", "--no-instructions"),
                stdin=secret,
            )
        finally:
            os.close(secret)
        if code:
            raise PoolsError("initdb of {0} failed: {1}".format(self.dir.data, "\n".join(said.splitlines()[-6:])))
        self.refuse_bad(files[CONF], place)
        with open(os.path.join(place, "postgresql.conf"), "a", encoding="utf-8") as stream:
            stream.write("\ninclude '{0}'\n".format(CONF))
        self.dir.write(files, place)
        os.rename(place, self.dir.data)

    def refuse_bad(self, conf: str, data: str = "") -> None:
        """Have PostgreSQL itself judge the settings before they replace those it runs with."""
        name = self.dir.candidate(conf)
        try:
            code, said = self._run("postgres", "-D", data or self.dir.data, "-c", "config_file=" + name, "-C", "port")
        finally:
            os.unlink(name)
        if code:
            lines = [line.replace(name, "settings") for line in said.splitlines() if "contains errors" not in line]
            raise PoolsError("PostgreSQL refuses the settings: {0}".format("\n".join(lines)), "Nothing was changed.")

    def start(self) -> None:
        log = self.dir.open_log()
        self.dir.clear_stale_pid()
        code, _said = self._run("pg_ctl", "start", "-D", self.dir.data, "-l", self.dir.log, *self._waiting())
        if code:
            lines = self.dir.last_log_lines(log)
            state = "is still starting" if self.dir.postmaster() else "did not start"
            raise PoolsError(
                "The PostgreSQL in {0} {1}. The last lines of {2}: {3}".format(
                    self.dir.path, state, self.dir.log, lines
                )
            )

    def stop(self) -> None:
        code, said = self._run("pg_ctl", "stop", "-D", self.dir.data, "-m", "fast", *self._waiting())
        if code and self.dir.postmaster():
            raise PoolsError("The PostgreSQL in {0} did not stop: {1}".format(self.dir.path, said))

    def _waiting(self) -> Tuple[str, ...]:
        return ("-s", "-w", "-t", str(max(1, int(self.deadline - time.monotonic()))))

    def _run(self, program: str, *arguments: str, **more: Any) -> Tuple[int, str]:
        # pg_ctl keeps its own time; a few seconds more let it say what it waited for.
        limit = max(1.0, self.deadline - time.monotonic()) + 5
        return run(self.dir.who, [self.binaries.program(program), *arguments], limit, **more)

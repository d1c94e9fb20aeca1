# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process backend: a local PostgreSQL brought to a wanted state, from whatever an earlier run left."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _server_conf
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._binaries import Binaries, find
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._listeners import refuse_taken
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_dir import CONF, HBA, ServerDirectory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_programs import ServerPrograms
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_session import NotYetError, ServerSession


class Wanted(NamedTuple):
    path: str
    port: int
    admin_password: str
    settings: Dict[str, Any]
    hba: List[str]
    admin_user: str = "postgres"
    listen_addresses: str = "127.0.0.1"
    bin_dir: str = ""
    run_as: str = ""
    locale: str = "C.UTF-8"
    encoding: str = "UTF8"
    archive_path: str = ""
    timeout: float = 180.0

    @property
    def host(self) -> str:
        return reachable(self.listen_addresses)


def reachable(listen_addresses: str) -> str:
    """An address of this machine at which a server that listens there answers."""
    first = listen_addresses.split(",", 1)[0].strip()
    return {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(first, first)


def ensure(wanted: Wanted, state: str, check: bool = False) -> Dict[str, Any]:
    """Bring a server to a state (started, stopped or absent); what was done, or with check what would be."""
    process = _Process(wanted, check)
    steps: Dict[str, Callable[[], None]] = {
        "started": process.started,
        "stopped": process.stopped,
        "absent": process.absent,
    }
    with process.dir.locked(wanted.timeout, create=state == "started" and not check):
        process.look()
        steps[state]()
    return process.result()


class _Process:
    def __init__(self, wanted: Wanted, check: bool) -> None:
        self.wanted = wanted
        self.check = check
        self.who = account(wanted.run_as)
        self.dir = ServerDirectory(wanted.path, self.who)
        self.deadline = time.monotonic() + wanted.timeout
        self.actions: List[str] = []
        self.before: Dict[str, Any] = {}
        self.after: Dict[str, Any] = {}
        self.binaries: Optional[Binaries] = None
        self.version: Optional[int] = None
        self.archived_to: Optional[str] = None
        self.found: Dict[str, Optional[str]] = {}

    def look(self) -> None:
        self.major = self.dir.major() if self.dir.exists() else None
        running = self.major is not None and self.dir.postmaster() is not None
        self.found = {name: self.dir.read(name) if self.major is not None else None for name in (HBA, CONF)}
        self.before = {"state": "absent" if self.major is None else "started" if running else "stopped"}
        self.before["settings"] = _server_conf.parse(self.found[CONF] or "")
        self.before["hba"] = (self.found[HBA] or "").splitlines() if self.found[CONF] else []
        self.after = dict(self.before)

    def result(self) -> Dict[str, Any]:
        running = self.dir.postmaster() if self.after["state"] == "started" else None
        return {
            "changed": bool(self.actions),
            "actions": self.actions,
            "host": self.wanted.host,
            "port": self.wanted.port,
            "version": self.version,
            "data_directory": self.dir.data,
            "pid": running.pid if running else None,
            "bin_dir": self.binaries.directory if self.binaries else None,
            "archive": self.archived_to,
            "diff": {"before": self.before, "after": self.after},
        }

    # --- states

    def started(self) -> None:
        if not self.wanted.admin_password:
            raise PoolsError("A server is not started without admin_password.")
        self.binaries = find(self.wanted.bin_dir, self.major)
        self.version = self.binaries.version
        hba = _server_conf.render_hba(self.wanted.hba)
        conf = _server_conf.render(
            _server_conf.normal(self.wanted.settings), self.wanted.listen_addresses, self.wanted.port, hba
        )
        # The settings last: their marker stands for both files.
        files = {HBA: hba, CONF: conf}
        self.after = {"state": "started", "settings": _server_conf.parse(conf), "hba": hba.splitlines()}
        running = self.dir.postmaster() if self.major is not None else None
        if running is None or running.port != self.wanted.port:
            refuse_taken(self.wanted.listen_addresses, self.wanted.port)
        if self.major is None:
            self._step("initialise the data directory", lambda: self._initialise(files))
            self.found = dict(files)
        session = self._session() if running else None
        if session is None:
            if self.found != files:
                self._step("write the configuration", lambda: self._write(files))
            self._step("start", self._programs().start)
        else:
            with session:
                session.refuse_other(self.dir.data)
                restart = self._apply_to_running(session, files)
            if not restart:
                return
            self._step("restart", lambda: self._restart(files))
        if not self.check:
            with self._answering() as session:
                self.version = session.version

    def stopped(self) -> None:
        if self.before["state"] == "started":
            self._step("stop", self._programs().stop)
            self.after["state"] = "stopped"

    def absent(self) -> None:
        self.stopped()
        if self.dir.exists():
            self._step("archive the directory", self._archive)
        self.after = {"state": "absent", "settings": {}, "hba": []}

    # --- steps

    def _step(self, action: str, work: Callable[[], Any]) -> None:
        self.actions.append(action)
        if not self.check:
            work()

    def _initialise(self, files: Dict[str, str]) -> None:
        wanted = self.wanted
        self._programs().initialise(files, wanted.admin_user, wanted.admin_password, wanted.encoding, wanted.locale)

    def _programs(self) -> ServerPrograms:
        if self.binaries is None:
            self.binaries = find(self.wanted.bin_dir, self.major)
        return ServerPrograms(self.binaries, self.dir, self.deadline)

    def _write(self, files: Dict[str, str]) -> None:
        self._programs().refuse_bad(files[CONF])
        self.dir.write(files)

    def _apply_to_running(self, session: ServerSession, files: Dict[str, str]) -> bool:
        """Write and load what differs; whether a restart has to follow."""
        self.version = session.version
        changed = _changed(self.before["settings"], self.after["settings"])
        own = sorted(self.after["settings"])
        if self.found != files:
            self._step("write the configuration", lambda: self._write_checked(session, files))
        elif session.marker == self.after["settings"][_server_conf.MARKER]:
            return session.restart_wanted(own, [])
        if self.check:
            restart = session.restart_wanted(own, changed)
        else:
            with self._reloaded(session) as fresh:
                restart = fresh.restart_wanted(own + changed, [])
        if not restart:
            self.actions.append("reload")
        return restart

    def _write_checked(self, session: ServerSession, files: Dict[str, str]) -> None:
        self._write(files)
        errors = session.hba_errors()
        if errors:
            self.dir.write({name: text for name, text in self.found.items() if text is not None})
            raise PoolsError("PostgreSQL refuses hba: {0}".format("; ".join(errors)), "The lines before are in force.")

    def _restart(self, files: Dict[str, str]) -> None:
        programs = self._programs()
        programs.stop()
        try:
            programs.start()
        except PoolsError as error:
            if self.found == files or self.found[CONF] is None:
                raise
            self.dir.write({name: text for name, text in self.found.items() if text is not None})
            programs.start()
            raise PoolsError(error.problem, "The settings before are in force again.") from error

    def _archive(self) -> None:
        self.archived_to = self.dir.archive(self.wanted.archive_path)

    # --- sessions

    def _session(self) -> Optional[ServerSession]:
        """A session with the PostgreSQL that runs, or None when none does or it ended while it was asked."""
        while True:
            running = self.dir.postmaster()
            if running is None:
                return None
            host = reachable(running.host) if running.host else self.wanted.host
            try:
                return ServerSession(
                    host,
                    running.port or self.wanted.port,
                    self.wanted.admin_user,
                    self.wanted.admin_password,
                    self.dir.path,
                )
            except NotYetError as error:
                if time.monotonic() > self.deadline:
                    raise PoolsError(
                        "The PostgreSQL in {0} does not answer: {1}.".format(self.dir.path, error),
                        "Its log is {0}.".format(self.dir.log),
                    ) from error
            time.sleep(0.05)

    def _answering(self) -> ServerSession:
        session = self._session()
        if session is None:
            raise PoolsError(
                "The PostgreSQL in {0} ended.".format(self.dir.path), "Its log is {0}.".format(self.dir.log)
            )
        session.refuse_other(self.dir.data)
        return session

    def _reloaded(self, session: ServerSession) -> ServerSession:
        session.reload()
        while True:
            fresh = self._answering()
            if fresh.loaded != session.loaded:
                return fresh
            with fresh:
                if time.monotonic() > self.deadline:
                    raise PoolsError("The PostgreSQL in {0} does not load its configuration.".format(self.dir.path))
            time.sleep(0.02)


def _changed(before: Dict[str, str], after: Dict[str, str]) -> List[str]:
    return [name for name in sorted(set(before) | set(after)) if before.get(name) != after.get(name)]

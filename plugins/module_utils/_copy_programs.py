# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_dump and pg_restore, which copy all of a database but its rows, and its large objects."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

from . import _connection
from ._copy_clients import Clients
from ._copy_options import without_own_options
from ._copy_session import APPLICATION_NAME, KEEPALIVES, OPTIONS, Side
from ._errors import PoolsError
from ._tenant_sql import LOCK_TIMEOUT_SECONDS

# An archive has no rows, yet a matview's refresh is in it only when the rows are asked for too.
_ALL_BUT_ROWS = ("--section=pre-data", "--section=post-data", "--no-blobs")
_LEFT_OUT = ("--no-publications", "--no-subscriptions")
_FIRST = re.compile(r"^\d+; \d+ \d+ SCHEMA ")
_EXTENSION = re.compile(r"^\d+; \d+ \d+ EXTENSION ")
# Attaching a partition's index locks tables and indexes in another order than a foreign key, a trigger or a plan over the same partitions does: beside
# these, two jobs of pg_restore wait for one another, and one is ended. So it comes alone, and after it whatever needs all indexes or is for the end.
_ATTACHED = re.compile(r"^\d+; \d+ \d+ INDEX ATTACH ")
_AFTER_INDEXES = re.compile(r"^\d+; \d+ \d+ (FK CONSTRAINT|COMMENT|SECURITY LABEL|EVENT TRIGGER|MATERIALIZED VIEW DATA) ")
# From 17 on pg_restore sets it, and a server before 17 knows no such thing. No harm is done.
_UNKNOWN_SETTING = 'unrecognized configuration parameter "transaction_timeout"'
_SHOWN_LINES = 12
# Few enough that their locks fit into any server's table of locks.
_IN_ONE_TRANSACTION = 100


class Programs:
    """The two programs at work on one copy. Passwords reach them by a file that has no name."""

    def __init__(
        self, clients: Clients, source: Side, target: Side, target_major: int, deadline: float, settings: Sequence[str], check: Callable[[], None]
    ) -> None:
        self._clients = clients
        self._source = source
        self._target = target
        self._deadline = deadline
        self._check = check
        self._settings = list(settings)
        self._lenient = clients.major >= 17 > target_major
        self._told: Dict[int, int] = {}
        # In memory: a copy that is killed leaves nothing behind, and a dump may hold the passwords of foreign servers.
        self._archive = os.memfd_create("archive")

    def close(self) -> None:
        os.close(self._archive)

    def dump(self, snapshot: str) -> None:
        """Everything but the rows, as the snapshot sees it, into the archive."""
        arguments = ["--format=custom", "--compress=1", "--file=" + _path(self._archive), *_ALL_BUT_ROWS, *self._dumping(snapshot)]
        with self._started(self._source, "pg_dump", arguments) as process:
            self._await(process, "pg_dump", self._source)
        archive = os.pread(self._archive, os.fstat(self._archive).st_size, 0)
        restorable = without_own_options(archive)
        if restorable != archive:
            os.pwrite(self._archive, restorable, 0)

    def restore_schemas(self) -> None:
        """The schemas alone, so that extensions can be made in them before anything that rests on an extension."""
        self._restore_listed("schemas", [line for line in self._listed() if _FIRST.match(line)])

    def restore_tables(self) -> None:
        """All else that has to be there before the rows."""
        self._restore_listed("tables", [line for line in self._listed() if not _FIRST.match(line) and not _EXTENSION.match(line)], "--section=pre-data")

    def restore_rest(self, jobs: int) -> None:
        """Indexes, constraints, triggers, policies; matviews are filled."""
        turns: List[List[str]] = [[], [], []]
        for line in self._listed():
            turns[1 if _ATTACHED.match(line) else 2 if _AFTER_INDEXES.match(line) else 0].append(line)
        for doing, lines, at_once in zip(("building indexes", "attaching indexes", "building constraints"), turns, (jobs, 1, jobs)):
            if lines:
                with _kept("\n".join(lines) + "\n") as listed:
                    arguments = ["--section=post-data", "--jobs={0}".format(at_once), "--use-list=" + _path(listed), _path(self._archive)]
                    self._restore(arguments, doing, listed)

    def stream_large_objects(self, snapshot: str, stopped: Callable[[], bool]) -> None:
        """Large objects with owner, grants and comment, from server to server."""
        # A pattern without a dot is of the search_path alone, which is empty.
        no_tables = ["--exclude-table=*.*", "--exclude-table-data=*.*"]
        dumping = ["--format=custom", "--compress=0", "--data-only", "--blobs", *no_tables, *self._dumping(snapshot)]
        with contextlib.ExitStack() as stack:
            reading = stack.enter_context(self._started(self._source, "pg_dump", dumping, stdout=subprocess.PIPE))
            writing = stack.enter_context(self._started(self._target, "pg_restore", self._restoring([]), stdin=reading.stdout))
            # Then only the restore holds the pipe's end: when it fails, the dump ends too.
            if reading.stdout:
                reading.stdout.close()
            code, said = self._ended(writing, stopped)
            try:
                self._check_restore(code, said, "copying large objects")
            except PoolsError:
                self._blame_dump(reading)
                raise
            self._await(reading, "pg_dump", self._source)

    # --- arguments

    def _dumping(self, snapshot: str) -> List[str]:
        wait = "--lock-wait-timeout={0}s".format(LOCK_TIMEOUT_SECONDS)
        return ["--no-password", "--quote-all-identifiers", "--snapshot=" + snapshot, wait, *_LEFT_OUT]

    def _restoring(self, arguments: Sequence[str]) -> List[str]:
        exit_early = [] if self._lenient else ["--exit-on-error"]
        return ["--no-password", *exit_early, *_LEFT_OUT, *arguments]

    def _restore_listed(self, what: str, lines: Sequence[str], *more: str) -> None:
        if not lines:
            return
        in_one = [] if self._lenient or self._clients.major < 17 else ["--transaction-size={0}".format(_IN_ONE_TRANSACTION)]
        with _kept("\n".join(lines) + "\n") as listed:
            self._restore([*in_one, *more, "--use-list=" + _path(listed), _path(self._archive)], "making " + what, listed)

    def _listed(self) -> List[str]:
        said = subprocess.run(
            [self._clients.program("pg_restore"), "--list", _path(self._archive)],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            pass_fds=[self._archive],
            check=True,
        ).stdout.decode("utf-8", "surrogateescape")
        return [line for line in said.split("\n") if line and not line.startswith(";")]

    # --- processes

    @contextlib.contextmanager
    def _started(self, side: Side, name: str, arguments: Sequence[str], *descriptors: int, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A program with its login; it does not outlive the block."""
        known, password = _login(side)
        env = {key: os.environ[key] for key in ("PATH", "HOME", "PGPASSFILE", "PGSERVICEFILE") if key in os.environ}
        options = OPTIONS + " -c lock_timeout={0}s".format(LOCK_TIMEOUT_SECONDS)
        env.update(LC_ALL="C", PGOPTIONS=" ".join([options, *("-c " + setting for setting in self._settings if side is self._target)]))
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        with contextlib.ExitStack() as stack:
            secret = stack.enter_context(_kept("*:*:*:*:{0}\n".format(escaped)))
            authority = stack.enter_context(_kept(side.login.get("ca_certificate") or ""))
            # What it says goes into a file: nobody reads a pipe while it works, and a full one would stop it.
            said = stack.enter_context(_kept(""))
            if password:
                env["PGPASSFILE"] = _path(secret)
            if side.login.get("ca_certificate"):
                known["sslrootcert"] = _path(authority)
            command = [self._clients.program(name), "--dbname=" + _conninfo(known), *arguments]
            streams = dict({"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}, **more)
            process = subprocess.Popen(command, env=env, stderr=said, pass_fds=[secret, authority, self._archive, *descriptors], **streams)
            self._told[process.pid] = said
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _ended(self, process: subprocess.Popen[bytes], stopped: Callable[[], bool] = lambda: False) -> Tuple[int, str]:
        """Its exit code and what it said, once it has ended."""
        while process.poll() is None:
            self._check()
            if stopped():
                raise PoolsError("The copy was stopped.")
            if time.monotonic() > self._deadline:
                raise PoolsError("The copy did not end within its timeout.", "Give it more by timeout, or more jobs.")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        return process.returncode, self._said(process)

    def _await(self, process: subprocess.Popen[bytes], name: str, side: Side) -> None:
        code, said = self._ended(process)
        if code:
            raise PoolsError("{0} of the {1} failed: {2}".format(name, side.where, _short(said, code)))

    def _blame_dump(self, reading: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A dump that lost its reader says only that; one that failed first is the cause.
            if reading.wait(5) not in (0, -13) and "Broken pipe" not in self._said(reading):
                raise PoolsError("pg_dump of the {0} failed: {1}".format(self._source.where, _short(self._said(reading), reading.returncode)))

    def _restore(self, arguments: Sequence[str], doing: str, *descriptors: int) -> None:
        with self._started(self._target, "pg_restore", self._restoring(arguments), *descriptors) as process:
            self._check_restore(*self._ended(process), doing)

    def _said(self, process: subprocess.Popen[bytes]) -> str:
        with open(self._told[process.pid], "rb", closefd=False) as stream:
            stream.seek(0)
            return stream.read().decode("utf-8", "replace")

    def _check_restore(self, code: int, said: str, doing: str) -> None:
        if not code:
            return
        errors = [line for line in said.splitlines() if "error:" in line]
        if self._lenient and code == 1 and errors and all(_UNKNOWN_SETTING in line for line in errors):
            return
        raise PoolsError(
            "pg_restore into the {0} failed at {1}: {2}".format(self._target.where, doing, _short(said, code)),
            "Mend what it names on the source or the target, and copy again.",
        )


def _login(side: Side) -> Tuple[Dict[str, Any], str]:
    """libpq's words for it, and the password by itself."""
    known: Dict[str, Any] = _connection.libpq_arguments(side.login)
    password = known.pop("password", None) or os.environ.get("PGPASSWORD", "")
    known.update(dbname=side.database, connect_timeout=_connection.DEFAULT_CONNECT_TIMEOUT, fallback_application_name=APPLICATION_NAME, **KEEPALIVES)
    return known, password


def _conninfo(known: Mapping[str, Any]) -> str:
    return " ".join("{0}='{1}'".format(key, str(value).replace("\\", "\\\\").replace("'", "\\'")) for key, value in known.items())


def _path(descriptor: int) -> str:
    """By which a program that inherits it opens it anew."""
    return "/dev/fd/{0}".format(descriptor)


@contextlib.contextmanager
def _kept(text: str) -> Iterator[int]:
    """A file without a name, that only its owner can read."""
    descriptor = os.memfd_create("kept")
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
        yield descriptor
    finally:
        os.close(descriptor)


def _short(said: str, code: int) -> str:
    # A statement may be a function of a thousand lines; the object's name and the error stand before it.
    lines = [line.strip() for line in said.splitlines() if line.strip() and _UNKNOWN_SETTING not in line]
    return " ".join(line[:300] for line in lines[:_SHOWN_LINES]) or "it ended with {0}.".format(code)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many servers asked side by side by one thread, each within a limit of its own, whatever becomes of the others.

A host may swallow packets, refuse, take the connection and stay silent, send garbage, or hang within a query: nothing here waits for one of them.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import queue
import re
import resource
import select
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Generator, List, Mapping, Optional, Sequence, Tuple, Union

from ._connection import actor

try:
    import psycopg2
    import psycopg2.extensions
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Open at the same time. Where all of 1,000 servers hang for 5 s, it is over in 25 s.
PARALLEL = 200
# Begun at once, and only when nobody else is ready: a busy machine then begins fewer, in place of keeping many beyond their limit.
_BATCH = 16
# A lookup that hangs holds up one of these and no server that is known by its address.
_LOOKUPS = 32
_ADDRESSES = 4
# libpq's number for a connection whose TCP handshake is still to come (ConnStatusType).
_TCP_PENDING = 2
# Where OpenSSL, the files of certificates and Python itself need their own.
_OTHER_FILES = 64

# Whether it serves. The last but one reads a table through the server's cache, the last that table's file itself: a server whose storage is gone
# takes connections and answers from memory for a long time.
_VITAL = """SELECT row_to_json(found) FROM (SELECT current_setting('server_version_num')::int AS server_version_num,
    pg_is_in_recovery() AS in_recovery, current_setting('data_directory') AS data_directory,
    ARRAY(SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1) AS databases,
    (SELECT count(*) FROM pg_class) AS relations,
    octet_length(pg_read_binary_file(pg_relation_filepath('pg_class'), 0, 8192)) AS page_bytes) AS found"""
# From memory alone.
_STATE = """SELECT row_to_json(found) FROM (SELECT
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS connections_used,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections_allowed,
    (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::bigint FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS oldest_transaction_seconds,
    (SELECT max(age(datfrozenxid)) FROM pg_database) AS wraparound_age,
    current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max_age,
    coalesce((SELECT json_agg(json_build_object('name', slot_name, 'retained_bytes', pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)))
        FROM pg_replication_slots WHERE NOT active), '[]') AS slots_inactive) AS found"""
# Last, and allowed to fail: it looks at every file of every database.
_SIZE = "SELECT row_to_json(found) FROM (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint AS database_bytes FROM pg_database) AS found"

Wait = Optional[Tuple[int, int]]
Steps = Generator[Wait, None, None]


@dataclass(frozen=True)
class Target:
    """A server: ``login`` has libpq's keywords beside host and port, ``ca_certificate`` what it is trusted by as PEM."""

    host: str
    port: int
    login: Mapping[str, Any] = field(repr=False)
    ca_certificate: str = field(default="", repr=False)


@dataclass
class Answer:
    """What one server said. It serves where ``asked`` is true and ``problem`` is empty.

    ``unmeasured`` says why some of ``facts`` are missing from a server that serves.
    """

    asked: bool = True
    problem: str = ""
    latency_ms: Optional[float] = None
    facts: Dict[str, Any] = field(default_factory=dict)
    unmeasured: str = ""

    @property
    def serves(self) -> bool:
        return self.asked and not self.problem


def sweep(targets: Sequence[Target], timeout: float, limit: float, parallel: int = PARALLEL) -> List[Answer]:
    """Ask them all, each for *timeout* seconds at most and all together for *limit*; the answers in their order."""
    probes = [_Probe(target, timeout) for target in targets]
    waiting = collections.deque(probes)
    running: List[_Probe] = []
    parallel = _as_many_as_files(min(parallel, len(probes)))
    end = time.monotonic() + limit
    with _Names([target.host for target in targets]) as names, _CertificateFiles() as files:
        try:
            while (waiting or running) and time.monotonic() < end:
                room = min(parallel - len(running), len(waiting), _BATCH)
                ready = _ready(running, names, 0 if room else min([end] + [probe.deadline for probe in running]))
                if room and not ready:
                    ready = [waiting.popleft() for _each in range(room)]
                    for probe in ready:
                        probe.begin(names, files)
                    running.extend(ready)
                for probe in ready:
                    probe.step()
                now = time.monotonic()
                for probe in running:
                    if not probe.done and probe.deadline <= now:
                        probe.expire()
                running = [probe for probe in running if not probe.done]
        finally:
            for probe in [*running, *waiting]:
                probe.abandon()
    return [probe.answer for probe in probes]


def _ready(running: Sequence[_Probe], names: _Names, until: float) -> List[_Probe]:
    """Those that can go on, waiting for the first of them until that moment."""
    poll = select.poll()
    poll.register(names.woken, select.POLLIN)
    by_file = {}
    for probe in running:
        if probe.waits is not None:
            by_file[probe.waits[0]] = probe
            poll.register(probe.waits[0], select.POLLIN if probe.waits[1] == psycopg2.extensions.POLL_READ else select.POLLOUT)
    found = [number for number, _event in poll.poll(max(0, math.ceil((until - time.monotonic()) * 1000)))]
    ready = [by_file[number] for number in found if number in by_file]
    if names.woken.fileno() in found:
        names.drain()
        ready += [probe for probe in running if probe.waits is None]
    return ready


class _Probe:
    """One server being asked: a generator that yields what it waits for, a descriptor and libpq's direction or, for its name, None."""

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self.timeout = timeout
        self.answer = Answer()
        self.waits: Wait = None
        self.done = False
        self.deadline = self._began = 0.0
        self._stage = "The name {0!r} was not resolved".format(target.host)
        self._connection: Any = None

    def begin(self, names: _Names, files: _CertificateFiles) -> None:
        self._began = time.monotonic()
        self.deadline = self._began + self.timeout
        self._steps = self._talk(names, files)

    def step(self) -> None:
        try:
            self.waits = next(self._steps)
        except StopIteration:
            self.done = True
        except psycopg2.Error as error:
            self._end("{0} port {1}: {2}".format(self.target.host, self.target.port, _sentence(error)))

    def expire(self) -> None:
        """Its time is up."""
        self._steps.close()
        self._end("{0} within {1:g} s.".format(self._stage, self.timeout))

    def abandon(self) -> None:
        """The sweep's time is up, which says nothing about the server."""
        if self.deadline:
            self._steps.close()
        if self.answer.latency_ms is None:
            self.answer.asked = False
            self._end("The check of all servers ended before this one had its time.")
        else:
            self._end("the check of all servers ended")

    def _end(self, problem: str) -> None:
        self.done = True
        if self.answer.latency_ms is None:
            self.answer.problem = problem
        else:
            self.answer.unmeasured = problem

    def _talk(self, names: _Names, files: _CertificateFiles) -> Steps:
        while names.found(self.target.host) is None:
            yield None
        addresses = names.found(self.target.host)
        if not isinstance(addresses, list):
            self.answer.problem = "The name {0!r} is not known here: {1}.".format(self.target.host, addresses)
            return
        where = "{0} port {1}".format(self.target.host, self.target.port)
        self._stage = "No connection to {0}".format(where)
        self._connection = psycopg2.connect(async_=True, **self._arguments(addresses, files))
        try:
            yield from self._settled("{0} took the connection and did not let in".format(where))
            self._stage = "{0} let in and did not answer a query".format(where)
            with self._connection.cursor() as cursor:
                yield from self._ask(cursor, _VITAL)
                if self.answer.facts["in_recovery"]:
                    self.answer.problem = "{0} is in recovery and takes no writes.".format(where)
                    return
                self.answer.latency_ms = round((time.monotonic() - self._began) * 1000, 1)
                self._stage = "not all of it was answered"
                yield from self._ask(cursor, _STATE)
                self._stage = "the size of its databases was not found"
                yield from self._ask(cursor, _SIZE)
        finally:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()

    def _ask(self, cursor: Any, question: str) -> Steps:
        cursor.execute(question)
        yield from self._settled(self._stage)
        self.answer.facts.update(cursor.fetchone()[0])

    def _settled(self, stage: str) -> Steps:
        while True:
            state = self._connection.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            if self._connection.info.status != _TCP_PENDING:
                self._stage = stage
            yield self._connection.fileno(), state

    def _arguments(self, addresses: List[str], files: _CertificateFiles) -> Dict[str, Any]:
        # Given with its addresses, libpq looks up no name, for which it would stop the whole thread; the name is what a certificate is checked by.
        arguments = dict(
            self.target.login,
            host=",".join([self.target.host] * len(addresses)),
            hostaddr=",".join(addresses),
            port=self.target.port,
            application_name=actor()[:63],
            client_encoding="UTF8",
            # What a server goes on with after we have left ends there too.
            options="-c search_path=pg_catalog -c statement_timeout={0}".format(max(1, int(self.timeout * 1000))),
        )
        if psycopg2.extensions.libpq_version() >= 120000:
            arguments["gssencmode"] = "disable"
        if self.target.ca_certificate:
            arguments["sslrootcert"] = files.path(self.target.ca_certificate)
        return arguments


class _Names:
    """The addresses of names, looked up by threads of their own: a lookup has no limit, and a thread that hangs in one is left behind."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.woken, self._waker = socket.socketpair()
        self.woken.setblocking(False)
        self._waker.setblocking(False)
        self._found: Dict[str, Union[List[str], str]] = {}
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        unknown = []
        for host in dict.fromkeys(hosts):
            try:
                self._found[host] = _addresses(host, socket.AI_NUMERICHOST)
            except (OSError, UnicodeError):
                unknown.append(host)
                self._wanted.put(host)
        self._threads = [threading.Thread(target=self._look_up, daemon=True) for _each in unknown[:_LOOKUPS]]

    def __enter__(self) -> _Names:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._wanted.get_nowait()
        self.woken.close()
        self._waker.close()

    def found(self, host: str) -> Union[List[str], str, None]:
        """Its addresses, or why it has none, or None as long as that is not known."""
        return self._found.get(host)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.woken.recv(4096):
                pass

    def _look_up(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                host = self._wanted.get_nowait()
                try:
                    self._found[host] = _addresses(host, 0)
                except (OSError, UnicodeError) as error:
                    self._found[host] = str(getattr(error, "strerror", None) or error)
                # Full, it wakes already; closed, the sweep is over.
                with contextlib.suppress(OSError):
                    self._waker.send(b"x")


def _addresses(host: str, flags: int) -> List[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(one[4][0]) for one in found))[:_ADDRESSES]


class _CertificateFiles:
    """Certificates as files for as long as a sweep lasts: libpq takes them in no other way."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postgres-pools-ca-")
        self._paths: Dict[str, str] = {}

    def __enter__(self) -> _CertificateFiles:
        return self

    def __exit__(self, *unused: object) -> None:
        self._folder.cleanup()

    def path(self, certificates: str) -> str:
        if certificates not in self._paths:
            path = os.path.join(self._folder.name, "{0}.pem".format(len(self._paths)))
            with open(path, "w", encoding="ascii") as stream:
                stream.write(certificates)
            self._paths[certificates] = path
        return self._paths[certificates]


def _as_many_as_files(wanted: int) -> int:
    """As many connections as this process may have open; a refused descriptor would look like a refused connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(wanted, soft - _OTHER_FILES))
    return wanted


def _sentence(error: psycopg2.Error) -> str:
    """The driver's message on one line, without its advice and without what a stranger at the port may have sent to spoil it."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    words = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\uffff]+", " ", " ".join(lines)).split()).rstrip(".")
    return "{0}.".format(words[:300] or type(error).__name__)

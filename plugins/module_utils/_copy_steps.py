# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a copy, in their order: all of it out of one snapshot."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from . import _copy_catalog as catalog
from . import _copy_dress as dress
from . import _copy_extensions as extensions
from ._copy_clients import find
from ._copy_crew import Crew, close
from ._copy_plan import Part, Table, parts
from ._copy_preflight import Findings
from ._copy_programs import Programs
from ._copy_progress import Progress
from ._copy_session import Side, execute
from ._copy_stream import Stream

try:
    from psycopg2 import sql
except ImportError:
    pass  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_LOCKED_AT_ONCE = 500
# Raises a PoolsError when there is no more use in going on.
Check = Callable[[], None]


class Orders(NamedTuple):
    replace: bool = False
    jobs: int = 2
    maintenance_work_mem: Optional[str] = None
    timeout: int = 0
    bin_dir: Optional[str] = None
    target_free_bytes: Optional[int] = None
    target_budget_bytes: Optional[int] = None
    progress_file: Optional[str] = None
    refuse_code: bool = False
    ignore_follower: bool = False


class Steps:
    """*source* is a session in the source's database that becomes the coordinator, *server* one in the target's own database."""

    def __init__(self, source: Side, target: Side, orders: Orders, found: Findings, coordinator: Any, server: Any, progress: Progress, check: Check) -> None:
        self._source = source
        self._target = target
        self._orders = orders
        self._found = found
        self._coordinator = coordinator
        self._server = server
        self._progress = progress
        self._check = check
        self._deadline = time.monotonic() + orders.timeout if orders.timeout else float("inf")
        self._tables: List[Table] = []
        self._made: List[str] = []
        self._sequences = 0
        majors = coordinator.server_version // 10000, server.server_version // 10000
        settings = ["maintenance_work_mem=" + orders.maintenance_work_mem] if orders.maintenance_work_mem else []
        clients = find(orders.bin_dir or "", *majors)
        self._programs = Programs(clients, source, target, majors[1], self._deadline, settings, check)

    def close(self) -> None:
        self._programs.close()

    def run(self) -> None:
        enter = self._progress.enter
        enter("schema")
        with self._source.blame("taking a snapshot"):
            snapshot = self._hold()
        self._programs.dump(snapshot)
        with self._target.blame("making roles and the database"):
            self._make_place()
        self._programs.restore_schemas()
        with self._target.session() as inside:
            self._found.warnings.extend(extensions.make_extensions(self._coordinator, inside))
        self._programs.restore_tables()
        enter("rows")
        self._copy_rows(snapshot)
        with self._source.blame("reading sequences"):
            sequences = catalog.sequences(self._coordinator)
            self._coordinator.rollback()
        with self._target.session() as inside:
            extensions.set_sequences(inside, sequences)
        self._sequences = len(sequences)
        enter("indexes")
        self._programs.restore_rest(self._orders.jobs)
        enter("statistics")
        self._analyze()
        enter("settings")
        with self._target.blame("setting limits and grants"):
            self._dress()

    def result(self) -> Dict[str, Any]:
        return {
            "bytes": sum(table.size for table in self._tables) + self._found.facts["large_object_bytes"],
            "tables": len(self._tables),
            "sequences": self._sequences,
            "roles": self._made,
            "large_objects": self._found.facts["large_objects"],
        }

    def _hold(self) -> str:
        """A snapshot to copy from, and locks that keep every table as it is in it until the rows have been read."""
        coordinator = self._coordinator
        coordinator.autocommit = False
        coordinator.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with coordinator.cursor() as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            snapshot = str(cursor.fetchone()[0])
        self._tables = catalog.tables(coordinator)
        names = [sql.Identifier(table.schema, table.name) for table in self._tables]
        for start in range(0, len(names), _LOCKED_AT_ONCE):
            listed = sql.SQL(", ").join(sql.SQL("ONLY ") + name for name in names[start : start + _LOCKED_AT_ONCE])
            execute(coordinator, sql.SQL("LOCK TABLE {0} IN ACCESS SHARE MODE").format(listed))
        return snapshot

    def _make_place(self) -> None:
        name, owner, server = self._target.database, self._target.owner, self._server
        roles = self._found.roles
        names = [role["name"] for role in roles]
        self._made, warnings = dress.make_roles(server, roles, owner, name)
        warnings += dress.make_memberships(server, catalog.members(self._coordinator, names), names)
        self._found.warnings.extend(warnings)
        if self._found.there:
            dress.drop_database(server, name)
        dress.make_database(server, self._found.database, name, owner)

    def _copy_rows(self, snapshot: str) -> None:
        crew = Crew(self._deadline, self._check)
        facts = self._found.facts
        work = parts(self._tables, self._orders.jobs)
        tasks: List[Tuple[int, Callable[[Stream], None]]] = [(part.size, _copying(part)) for part in work]
        self._progress.expect(len(self._tables), sum(part.size for part in work) + facts["large_object_bytes"])
        if facts["large_objects"]:
            tasks.append((facts["large_object_bytes"], lambda _stream: self._copy_large_objects(snapshot, crew)))
        tasks.sort(key=lambda task: -task[0])
        streams: List[Stream] = []
        try:
            encoding = self._found.database["encoding"]
            for number in range(max(1, min(self._orders.jobs, len(tasks)))):
                streams.append(Stream(number, self._source, self._target, snapshot, encoding, self._progress))
            connections = [connection for stream in streams for connection in stream.connections]
            crew.work([task for _size, task in tasks], streams, connections)
        finally:
            for stream in streams:
                stream.close()

    def _copy_large_objects(self, snapshot: str, crew: Crew) -> None:
        self._programs.stream_large_objects(snapshot, crew.stopped)
        self._progress.done(-1, self._found.facts["large_object_bytes"], 0)

    def _analyze(self) -> None:
        sessions: List[Any] = []
        try:
            with self._target.blame("making statistics"):
                sessions = [self._target.connect()]
                found = catalog.to_analyze(sessions[0])
                while len(sessions) < min(self._orders.jobs, len(found)):
                    sessions.append(self._target.connect())
                Crew(self._deadline, self._check).work(extensions.analyzing(found), sessions, sessions)
        finally:
            close(sessions)

    def _dress(self) -> None:
        warnings = self._found.warnings
        # What comes now makes all that was written before it durable too.
        execute(self._server, "SET synchronous_commit = on")
        for role in self._found.roles:
            # A superuser's password and limits are the server's matter, not this database's.
            is_owner = role["name"] == self._target.owner
            if (is_owner or role["name"] in self._made) and not role["rolsuper"]:
                warnings.extend(dress.dress_role(self._server, role, password=is_owner))
        dress.unmark_roles(self._server, self._found.roles, self._made)
        warnings.extend(dress.dress_database(self._server, self._found.database, self._target.database))


def _copying(part: Part) -> Callable[[Stream], None]:
    return lambda stream: stream.copy(part)

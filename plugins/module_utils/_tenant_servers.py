# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many tenant databases on many servers: servers side by side, several databases of each at a time."""

from __future__ import annotations

import itertools
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _tenant_plan as plan
from . import _tenant_sql as server_sql
from ._errors import PoolsError
from ._tenant import IN_USE, Database, Found, Wanted, check_apart
from ._tenant_wall import plan_doors

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# A thread waits on the network nearly all its time; this many servers are worked on at once.
MAX_SERVERS = 16
_ATTEMPTS = 3
# Somebody without our lock came between reading and doing, or a session was slow to go: look again.
_LOOK_AGAIN = frozenset(
    [
        "23505",  # unique_violation: two CREATE ROLE at once
        "42710",  # duplicate_object
        "42P04",  # duplicate_database
        "42704",  # undefined_object
        "3D000",  # invalid_catalog_name
        "55006",  # object_in_use
        "XX000",  # internal_error: "tuple concurrently updated"
    ]
)


@dataclass
class Outcome:
    """What became of one database, or of one server's own doors (``wanted`` is None)."""

    host: str
    port: int
    wanted: Optional[Wanted] = None
    steps: List[plan.Step] = field(default_factory=list)
    error: Optional[str] = None

    @property
    def actions(self) -> List[str]:
        return list(dict.fromkeys(step.words for step in self.steps if step.words))

    @property
    def changed(self) -> bool:
        return bool(self.actions)


@dataclass(frozen=True)
class Server:
    """A server with the login to it (options ``login_*``) and what is wanted there."""

    params: Mapping[str, Any] = field(repr=False)
    wanted: Tuple[Wanted, ...]

    @property
    def host(self) -> str:
        return self.params.get("login_host") or self.params.get("login_unix_socket") or "localhost"

    @property
    def port(self) -> int:
        return int(self.params.get("login_port") or 5432)


@dataclass(frozen=True)
class Orders:
    """What to do everywhere."""

    state: str
    max_parallel: int = 4
    require_wall: bool = True
    check_mode: bool = False


def group(items: Sequence[Tuple[Mapping[str, Any], Wanted]]) -> List[Server]:
    """Put databases with the same host and port together.

    :raises PoolsError: a name comes twice on one server, or one server has two logins.
    """
    servers: Dict[Tuple[str, int], Server] = {}
    for params, wanted in items:
        new = Server(params, (wanted,))
        key = (new.host, new.port)
        known = servers.setdefault(key, replace(new, wanted=()))
        if known.params != params:
            raise PoolsError(
                f"{new.host} port {new.port} is given with two logins, one of them for database {wanted.name!r}.",
                "Give all databases of one server the same login_user and login_password.",
            )
        servers[key] = replace(known, wanted=(*known.wanted, wanted))
    for server in servers.values():
        check_apart(server.wanted, f"{server.host} port {server.port}")
        admin = server.params.get("login_user")
        for wanted in server.wanted:
            if admin in (wanted.name, wanted.owner, wanted.quarantine_name):
                raise PoolsError(
                    f"{admin!r} is the administrator of {server.host} port {server.port}.", "Choose another name."
                )
    return list(servers.values())


def converge(servers: Sequence[Server], orders: Orders) -> List[Outcome]:
    """Bring every database to ``orders.state``. One server's trouble stops no other: it is in ``Outcome.error``."""
    if not servers:
        return []
    with ThreadPoolExecutor(max_workers=min(len(servers), MAX_SERVERS)) as pool:
        return [
            outcome
            for outcomes in pool.map(lambda server: _converge_server(server, orders), servers)
            for outcome in outcomes
        ]


def _converge_server(server: Server, orders: Orders) -> List[Outcome]:
    doors = Outcome(server.host, server.port)
    outcomes = [Outcome(server.host, server.port, wanted) for wanted in server.wanted]
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def with_connection(outcome: Outcome, work: Callable[[Any, Outcome], None]) -> None:
        connection = None
        try:
            try:
                connection = idle.get_nowait()
            except queue.Empty:
                connection = server_sql.connect(server.params)
            _again(connection, outcome, work)
        except PoolsError as error:
            outcome.error = str(error)
        except psycopg2.Error as error:
            outcome.error = server_sql.reason(error)
        if connection is not None and not connection.closed:
            idle.put(connection)

    try:
        with_connection(doors, lambda connection, outcome: _converge_doors(connection, server, orders, outcome))
        if not doors.error:
            with ThreadPoolExecutor(max_workers=min(len(outcomes), orders.max_parallel)) as pool:
                list(
                    pool.map(
                        lambda one: with_connection(one, lambda link, it: _converge_one(link, server, orders, it)),
                        outcomes,
                    )
                )
    finally:
        while not idle.empty():
            idle.get_nowait().close()
    return [doors, *outcomes]


def _again(connection: Any, outcome: Outcome, work: Callable[[Any, Outcome], None]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            work(connection, outcome)
            return
        except psycopg2.Error as error:
            if error.pgcode not in _LOOK_AGAIN or attempt == _ATTEMPTS:
                raise


def _converge_doors(connection: Any, server: Server, orders: Orders, outcome: Outcome) -> None:
    found = server_sql.read_server(connection)
    server_sql.check_server(connection, found, orders.require_wall and orders.state in IN_USE)
    if orders.state not in IN_USE:
        return
    bus_wanted = any(wanted.bus for wanted in server.wanted)
    steps = plan_doors(found["public"], found["bus"], bus_wanted)
    if orders.check_mode or not steps:
        outcome.steps.extend(steps)
        return
    with server_sql.lock(connection, ""):
        found = server_sql.read_server(connection)
        steps = plan_doors(found["public"], found["bus"], bus_wanted)
        server_sql.run(connection, steps)
    outcome.steps.extend(steps)


def _converge_one(connection: Any, server: Server, orders: Orders, outcome: Outcome) -> None:
    if outcome.wanted is None:
        raise ValueError("an outcome without a database is a server's own")
    job = _Job(connection, server, outcome.wanted, outcome, orders.check_mode)
    states = {"present": job.make, "closed": job.close, "quarantined": job.quarantine, "restored": job.restore, "absent": job.drop}
    work = states[orders.state]
    if orders.check_mode:
        work()
        return
    with server_sql.lock(connection, outcome.wanted.name):
        work()


@dataclass
class _Job:
    """One database being brought to its state, over the administrator's *connection* to its server."""

    connection: Any
    server: Server
    wanted: Wanted
    outcome: Outcome
    check_mode: bool

    def make(self) -> None:
        wanted = self.wanted
        found = self._find(wanted.name, wanted.owner)
        database = found.databases.get(wanted.name)
        steps = plan.plan_roles(wanted, found)
        if database is None and wanted.extensions:
            server_sql.check_extensions(self.connection, wanted.extensions)
        self._run(self.connection, steps + plan.plan_database(wanted, found))
        if wanted.extensions:
            self._furnish(database)
        self._run(self.connection, plan.plan_opening(wanted, database))

    def quarantine(self) -> None:
        wanted = self.wanted
        found = self._find(wanted.name, wanted.owner, str(wanted.quarantine_name), wanted.quarantine_owner)
        self._run(self.connection, plan.plan_quarantine(wanted, found))

    def close(self) -> None:
        self._run(self.connection, plan.plan_closing(self.wanted, self._find(self.wanted.name, self.wanted.owner)))

    def restore(self) -> None:
        wanted = self.wanted
        found = self._find(wanted.name, wanted.owner, str(wanted.quarantine_name), wanted.quarantine_owner)
        steps = plan.plan_return(wanted, found)
        self._run(self.connection, steps)
        if not (steps and self.check_mode):
            self.make()

    def drop(self) -> None:
        wanted = self.wanted
        parked = (wanted.quarantine_name, wanted.quarantine_owner) if wanted.quarantine_name else ()
        self._run(self.connection, plan.plan_absence(wanted, self._find(wanted.name, wanted.owner, *parked)))

    def _find(self, *names: str) -> Found:
        return server_sql.read_found(self.connection, names)

    def _furnish(self, database: Optional[Database]) -> None:
        if self.check_mode and (database is None or not database.allows_connections):
            # Nobody can look inside: a new one gets all its extensions, a closed one is taken to have them.
            self._run(None, plan.plan_inside(self.wanted, None) if database is None else [])
            return
        inside = server_sql.connect(self.server.params, self.wanted.name)
        try:
            if database is not None:
                database = replace(database, **server_sql.read_inside(inside))
            steps = plan.plan_inside(self.wanted, database)
            if steps and database is not None:
                server_sql.check_extensions(self.connection, self.wanted.extensions)
            self._run(inside, steps)
        finally:
            inside.close()

    def _run(self, connection: Any, steps: Sequence[plan.Step]) -> None:
        """Run steps in order, neighbours of the same kind together, and note each as done."""
        for _unused, group_of_steps in itertools.groupby(steps, key=lambda step: step.where):
            batch = list(group_of_steps)
            if not self.check_mode:
                server_sql.run(connection, batch)
            self.outcome.steps.extend(batch)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves online between servers of two majors, with somebody who writes through all of it and comes back wherever the tenant is."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

import psycopg2
from copy_fixture import BIN_DIRS
from environment import Environment, Outcome, Run, connect, environment
from test_migrate import LEASED, Tenant

# What a table without a key makes of it is in most of these tests: counted has none.
ONLINE = {"mode": "online", "full_identity": True}
_FOLLOWS = """
SELECT 'slot ' || slot_name AS what FROM pg_replication_slots UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ '^pools_follow_'
UNION ALL SELECT 'subscription ' || subname FROM pg_subscription"""
_INSIDE = """
SELECT 'publication ' || pubname AS what FROM pg_publication
UNION ALL SELECT 'replica identity of ' || relname FROM pg_class WHERE relkind = 'r' AND relreplident = 'f'"""


class Online:
    """One environment with servers of both majors, where there are two."""

    def __init__(self, scratch: Environment) -> None:
        self.scratch = scratch
        self.older, self.newer = (path or scratch.facts["bin_dir"] for path in (BIN_DIRS[0], BIN_DIRS[-1]))

    def start(self, playbook: str, variables: Dict[str, Any], bin_dir: str = "", more_env: Optional[Dict[str, str]] = None) -> Run:
        process = {"bin_dir": bin_dir or self.newer, "run_as": self.scratch.facts["run_as"]}
        env = dict({"POSTGRES_POOLS_BIN_DIR": self.newer}, **(more_env or {}))
        return self.scratch.start(playbook, dict(LEASED, postgres_pools_process=process, **variables), more_env=env)

    def play(self, playbook: str, variables: Dict[str, Any], bin_dir: str = "", more_env: Optional[Dict[str, str]] = None) -> Outcome:
        return self.start(playbook, variables, bin_dir, more_env).wait(300)

    def left(self) -> List[str]:
        """What follows anything on any server, or was changed for it."""
        found = []
        for server in self.scratch.servers():
            for database in ["postgres", *(one["name"] for one in self.scratch.contents(server)["databases"] if one["datallowconn"])]:
                with contextlib.closing(self.scratch.connect(server, database)) as connection, connection.cursor() as cursor:
                    cursor.execute(_FOLLOWS if database == "postgres" else _INSIDE)
                    found += ["{0}: {1}".format(server["name"], what) for (what,) in cursor.fetchall()]
        return found

    def ask(self, server: str, statement: str, database: str = "postgres") -> List[Tuple[Any, ...]]:
        (row,) = self.scratch.rows("SELECT * FROM db_servers WHERE name = %s", (server,))
        with contextlib.closing(self.scratch.connect(row, database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


@contextlib.contextmanager
def online_environment() -> Iterator[Online]:
    with environment() as scratch:
        made = Online(scratch.ready())
        made.play("provision_pool", {"server": "postgres-pool-old"}, made.older).succeeded()
        made.play("provision_pool", {"server": "postgres-pool-a"}).succeeded()
        made.play("provision_pool", {"server": "postgres-pool-b"}).succeeded()
        # A worker that lost its server comes back while a test still waits.
        for server in scratch.servers():
            with contextlib.closing(scratch.connect(server)) as connection, connection.cursor() as cursor:
                cursor.execute("ALTER SYSTEM SET wal_retrieve_retry_interval = '500ms'")
                cursor.execute("SELECT pg_reload_conf()")
        try:
            yield made
        finally:
            scratch.forget_servers()


class Lasting:
    """Commits numbered rows, each with a ticket of a sequence, over one connection after the other: the tenant may be anywhere.

    What was sent and not answered is looked for when there is a connection again, since it may have been committed.
    """

    def __init__(self, tenant: Tenant, place: Optional[Dict[str, Any]] = None, pause: float = 0.002) -> None:
        self.acknowledged = int(tenant.do("SELECT coalesce(max(number), 0) FROM numbered")[0][0])
        self.gaps: List[float] = []
        self.errors = 0
        self._tenant = tenant
        self._place = place
        self._pause = pause
        self._password = str(tenant.scratch.password(tenant.id))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.failed: Optional[BaseException] = None

    def _open(self) -> Any:
        row = self._place or self._tenant.row
        return connect(row["host"], row["port"], row["database_name"], row["role_name"], self._password)

    def _write(self) -> None:
        connection, last = None, time.monotonic()
        while not self._end.is_set():
            try:
                if connection is None:
                    connection = self._open()
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT coalesce(max(number), 0) FROM numbered")
                        highest = cursor.fetchone()[0]
                    assert highest in (self.acknowledged, self.acknowledged + 1), (highest, self.acknowledged)
                    self.acknowledged = highest
                with connection.cursor() as cursor:
                    cursor.execute(
                        "WITH ticket AS (INSERT INTO tickets DEFAULT VALUES RETURNING id), one AS (UPDATE counted SET number = number + 1)"
                        " INSERT INTO numbered SELECT %s, id FROM ticket",
                        (self.acknowledged + 1,),
                    )
                self.acknowledged += 1
                now = time.monotonic()
                self.gaps.append(now - last)
                last = now
            except psycopg2.Error:
                self.errors += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.02)
            except BaseException as error:
                self.failed = error
                return
            time.sleep(self._pause)

    def __enter__(self) -> Lasting:
        self._thread.start()
        self.wait_for(20)
        return self

    def wait_for(self, more: int, seconds: float = 60) -> None:
        wanted, deadline = self.acknowledged + more, time.monotonic() + seconds
        while self.acknowledged < wanted:
            assert not self.failed and time.monotonic() < deadline, "it does not write: {0!r}".format(self.failed)
            time.sleep(0.02)

    def __exit__(self, *unused: object) -> None:
        self._end.set()
        self._thread.join(20)
        assert not self.failed, self.failed

    @property
    def longest(self) -> float:
        return max(self.gaps)


def writing_tenant(online: Online, server: str, rows: int = 2000) -> Tenant:
    """A tenant on *server*, with some rows that nobody changes any more."""
    tenant = Tenant(online.scratch)
    if tenant.row["server"] != server:
        online.play("migrate", {"instance_id": tenant.id, "target": server}).succeeded()
    tenant.do(
        "DROP TABLE numbered; CREATE TABLE numbered (number bigint PRIMARY KEY, ticket bigint UNIQUE); CREATE TABLE tickets (id bigserial PRIMARY KEY);"
        "CREATE TABLE still AS SELECT n AS id, repeat('x', 100) AS told FROM generate_series(1, {0}) n; ALTER TABLE still ADD PRIMARY KEY (id)".format(rows)
    )
    return tenant


def whole(tenant: Tenant, acknowledged: int) -> None:
    """All that was acknowledged is there, once, no ticket was given twice and none is given that was."""
    count, highest, tickets, counted = tenant.do("SELECT count(*), max(number), count(DISTINCT ticket), (SELECT number FROM counted) FROM numbered")[0]
    assert acknowledged > 0 and count == highest == tickets == counted == acknowledged, (count, highest, tickets, counted, acknowledged)
    ((given, most),) = tenant.do("SELECT nextval('tickets_id_seq'), (SELECT max(id) FROM tickets)")
    assert given > most

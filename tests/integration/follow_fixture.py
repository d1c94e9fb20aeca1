# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's database that is followed between two real PostgreSQL servers, somebody who goes on writing, and what may be left behind."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, Tuple

import psycopg2
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _compare, _follow
from copy_fixture import Pair, login, parameters

DATABASE, OWNER, PASSWORD = 'Followed "db"', "followed_user", "Followed1Password2"
SCHEMA = """
CREATE SEQUENCE public.ticket;
CREATE TABLE public.commits (writer int, number int, ticket bigint NOT NULL DEFAULT nextval('public.ticket'), filler text, PRIMARY KEY (writer, number));
CREATE INDEX ON public.commits (ticket);
CREATE TABLE public.accounts (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO public.accounts SELECT i, 0 FROM generate_series(1, 50) i;
CREATE TABLE public.parted (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
CREATE TABLE public.parted_0 PARTITION OF public.parted FOR VALUES IN (0);
CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES IN (1);
CREATE TABLE public."Key less" (a int, b text);
INSERT INTO public."Key less" SELECT i % 10, 'old' FROM generate_series(1, 100) i;
CREATE TABLE public.by_index (a int NOT NULL, b text);
CREATE UNIQUE INDEX by_index_a ON public.by_index (a);
ALTER TABLE public.by_index REPLICA IDENTITY USING INDEX by_index_a;
CREATE TABLE public.lost_index (a int NOT NULL);
CREATE UNIQUE INDEX lost ON public.lost_index (a);
ALTER TABLE public.lost_index REPLICA IDENTITY USING INDEX lost;
DROP INDEX public.lost;
INSERT INTO public.commits SELECT 0, i, nextval('public.ticket'), repeat('x', 100) FROM generate_series(1, 20000) i;
CREATE MATERIALIZED VIEW public.totals AS SELECT writer, count(*) AS commits FROM public.commits GROUP BY writer;
"""


def make(pair: Pair) -> None:
    """A tenant's database as it is on a server with a wall: nobody but its gate's members gets in."""
    gate = (
        "CREATE ROLE {owner} LOGIN PASSWORD '%s'; CREATE ROLE {database} NOLOGIN; GRANT {database} TO {owner};"
        "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0; REVOKE ALL ON DATABASE {database} FROM PUBLIC" % PASSWORD
    )
    pair.run(pair.source, gate, DATABASE, OWNER)
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)


def forget(pair: Pair) -> None:
    for server in (pair.source, pair.target):
        if query(server, "postgres", "SELECT count(*) FROM pg_database WHERE datname = %s", DATABASE)[0][0]:
            for statement in ("DISABLE", "SET (slot_name = NONE)"):
                for (name,) in query(server, DATABASE, "SELECT subname FROM pg_subscription"):
                    run(server, DATABASE, "ALTER SUBSCRIPTION {0} {1}".format(name, statement))
            for (name,) in query(server, DATABASE, "SELECT subname FROM pg_subscription"):
                run(server, DATABASE, "DROP SUBSCRIPTION " + name)
    for server in (pair.source, pair.target):
        run(server, "postgres", "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
        run(server, "postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    ours = "SELECT rolname FROM pg_roles WHERE rolname ~ '^pools_'"
    pair.forget(DATABASE, OWNER, DATABASE, *{name for server in (pair.source, pair.target) for (name,) in query(server, "postgres", ours)})


def query(server: Any, database: str, statement: str, *values: Any) -> List[Tuple[Any, ...]]:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def run(server: Any, database: str, statement: str) -> None:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def as_owner(server: Any) -> Any:
    return server.connect(DATABASE, OWNER, PASSWORD)


def given(pair: Pair, **more: Any) -> Dict[str, Any]:
    base = parameters(pair, DATABASE, OWNER, target=dict(login(pair.target), database=DATABASE, owner=OWNER))
    base.update(state="started", full_identity=True, wal_limit_bytes=1 << 30, lag_bytes=1 << 20, timeout=60, switch_timeout=10, drop_roles=True)
    base.update(fence_timeout=0.5, compare=False, ignore=[])
    return dict(base, **more)


def backwards(pair: Pair, **more: Any) -> Dict[str, Any]:
    there = given(pair)
    return dict(there, source=there["target"], target=there["source"], **more)


def follow(pair: Pair, **more: Any) -> Dict[str, Any]:
    return _follow.carry_out(given(pair, **more), False)


def left(pair: Pair) -> Dict[str, List[Any]]:
    """All that following may leave on either server, by ways that share nothing with it."""
    found: Dict[str, List[Any]] = {}
    for word, server in (("source", pair.source), ("target", pair.target)):
        found[word] = query(
            server,
            "postgres",
            "SELECT 'slot', slot_name::text FROM pg_replication_slots UNION ALL SELECT 'role', rolname FROM pg_roles WHERE rolname ~ '^pools_'"
            " UNION ALL SELECT 'subscription', subname FROM pg_subscription UNION ALL SELECT 'origin', roname FROM pg_replication_origin",
        )
        if query(server, "postgres", "SELECT count(*) FROM pg_database WHERE datname = %s", DATABASE)[0][0]:
            found[word] += query(server, DATABASE, "SELECT 'publication', pubname FROM pg_publication")
            found[word] += query(server, DATABASE, "SELECT 'full', oid::regclass::text FROM pg_class WHERE relreplident = 'f'")
            found[word] += query(server, DATABASE, "SELECT 'access', datacl::text FROM pg_database WHERE datacl::text ~ 'pools_'")
            acl = query(server, "postgres", "SELECT relreplident FROM pg_class WHERE relname = 'by_index'")
            assert acl in ([], [("i",)])
        elif word == "target":
            found[word] += query(server, "postgres", "SELECT 'role', rolname FROM pg_roles WHERE rolname IN (%s, %s)", DATABASE, OWNER)
    return found


def has_nothing_left(pair: Pair, copy: bool = False) -> None:
    assert left(pair) == {"source": [], "target": []}, left(pair)
    assert pair.has_database(DATABASE) == copy


def differences(pair: Pair) -> List[Any]:
    # In the place that was let go of they are as old as they were; where it was drained to they were filled anew.
    for server in (pair.source, pair.target):
        run(server, DATABASE, "REFRESH MATERIALIZED VIEW public.totals")
    options = {"jobs": 1, "data": "checksum", "ignore": [], "max_differences": 20, "role_map": {}}
    there = given(pair)
    return list(_compare.compare(_compare.login(there, "source"), _compare.login(there, "target"), options)["differences"])


class Writer:
    """Commits numbered rows, and changes others, until it is told to stop; it knows what was acknowledged."""

    def __init__(self, server: Any, number: int) -> None:
        self.number = number
        self.commits = 0
        self.failures: List[str] = []
        self._connection = as_owner(server)
        self._connection.autocommit = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(30)
        self._connection.close()

    def write(self, commits: int = 0) -> None:
        """So many, or until it is stopped."""
        while not self._ended.is_set() and not (commits and self.commits >= commits):
            with self._connection, self._connection.cursor() as cursor:
                values = {"writer": self.number, "number": self.commits + 1, "account": self.commits % 50 + 1, "day": self.commits % 2}
                cursor.execute("INSERT INTO public.commits (writer, number, filler) VALUES (%(writer)s, %(number)s, repeat('y', 200))", values)
                cursor.execute("UPDATE public.accounts SET balance = balance + 1 WHERE id = %(account)s", values)
                cursor.execute("INSERT INTO public.parted VALUES (%(writer)s * 1000000 + %(number)s, %(day)s)", values)
                cursor.execute('UPDATE public."Key less" SET b = %(number)s WHERE a = %(day)s', values)
                cursor.execute("INSERT INTO public.by_index VALUES (%(writer)s * 1000000 + %(number)s, '')", values)
                cursor.execute("INSERT INTO public.lost_index VALUES (%(number)s)", values)
                cursor.execute("DELETE FROM public.by_index WHERE a = %(writer)s * 1000000 + %(number)s - 3", values)
            self.commits += 1
            if not commits:
                time.sleep(0.005)

    def _write(self) -> None:
        try:
            self.write()
        except psycopg2.Error as error:
            self.failures.append(str(error))

    def arrived(self, server: Any) -> bool:
        """Whether each acknowledged commit is there once, and no other."""
        rows = query(server, DATABASE, "SELECT number FROM public.commits WHERE writer = %s ORDER BY 1", self.number)
        return not self.failures and [number for (number,) in rows] == list(range(1, self.commits + 1))


def wait_for(what: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


KILLED = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
import importlib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _follow
room, name, after = json.loads(sys.argv[2])
module = importlib.import_module("ansible_collections.saasodoo.postgres_pools.plugins.module_utils." + room)
where, _dot, name = name.rpartition(".")
owner = getattr(module, where) if where else module
real = getattr(owner, name)
def killed(*arguments, **named):
    if after:
        real(*arguments, **named)
    os.kill(os.getpid(), 9)
setattr(owner, name, killed)
_follow.carry_out(json.load(sys.stdin), False)
"""


def killed(given_to_it: Dict[str, Any], room: str, name: str, after: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps([one for one in sys.path if one]), json.dumps([room, name, after])],
        input=json.dumps(given_to_it),
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr

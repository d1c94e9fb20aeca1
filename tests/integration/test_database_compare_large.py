# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""database_compare on much: two million rows in bounded memory, and three thousand tables."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import zoo_fixture as zoo
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._compare import compare, login
from postgres_fixture import RunningServer, running_server

OWNER = "large_owner"
ROWS = 2000000
TABLES = 3000
# Beside what a session needs to be there at all. The table is four times as large.
MEMORY_LIMIT = 64 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def call(server: RunningServer, source: str, target: str) -> Dict[str, Any]:
    where = {"login_host": server.host, "login_port": server.port, "login_user": server.user, "login_password": server.password}
    params: Dict[str, Any] = {"role_map": {}, "data": "checksum", "jobs": 2, "ignore": [], "max_differences": 20}
    params.update(source=dict(where, database=source), target=dict(where, database=target))
    return compare(login(params, "source"), login(params, "target"), params)


def make(server: RunningServer, *statements: str) -> None:
    """Databases one and two, which hold the same."""
    zoo.forget(server, ["one", "two"])
    zoo.make(server, "one", OWNER)
    with contextlib.closing(server.connect("one")) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    run(server, "postgres", "CREATE DATABASE two TEMPLATE one OWNER " + OWNER)


def run(server: RunningServer, database: str, statement: str) -> None:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def anonymous(pid: str) -> int:
    """The memory of its own that a process has, in bytes; what all of PostgreSQL shares is not in it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/{0}/status".format(pid)).read_text(), re.M)
        return int(found.group(1)) * 1024 if found else 0
    return 0


class Watch:
    """The most memory that this process took more than before, and that any session of the server took."""

    def __init__(self, server: RunningServer) -> None:
        self.children = Path("/proc/{0}/task/{0}/children".format(server.pid))
        self.first = anonymous("self")
        self.here = self.there = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self) -> None:
        while not self.done.wait(0.02):
            self.here = max(self.here, anonymous("self") - self.first)
            self.there = max([self.there, *(anonymous(pid) for pid in self.children.read_text().split())])

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.done.set()
        self.thread.join()


def test_two_million_rows_are_compared_in_bounded_memory(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    # 256 MB. Half of it lies in one table of short rows, half of it in TOAST.
    make(
        server,
        "CREATE TABLE visits AS SELECT i AS id, md5(i::text) AS token, i * 0.01 AS amount, timestamptz '2024-01-01' + i * interval '1 s' AS at"
        " FROM generate_series(1, {0}) i".format(ROWS),
        "CREATE TABLE pages (id integer, content text)",
        "ALTER TABLE pages ALTER COLUMN content SET STORAGE EXTERNAL",
        "INSERT INTO pages SELECT i, repeat(md5(i::text), 32768) FROM generate_series(1, 100) i",
        "SELECT lo_from_bytea(1000 + i, decode(repeat(md5(i::text), 65536), 'hex')) FROM generate_series(1, 20) i",
    )
    with Watch(server) as watch:
        found = call(server, "one", "two")
    assert (found["equal"], found["rows"]) == (True, ROWS + 100)
    assert found["bytes"] > 3 * MEMORY_LIMIT
    with capsys.disabled():
        print(
            "\n{rows} rows, {0:.0f} MB compared in {seconds:.1f} s; memory here {1:.1f} MB, of one session {2:.1f} MB".format(
                found["bytes"] / 1e6, watch.here / 1e6, watch.there / 1e6, **found
            )
        )
    assert max(watch.here, watch.there) < MEMORY_LIMIT
    run(server, "two", "UPDATE visits SET token = overlay(token placing 'x' from 32) WHERE id = {0}".format(ROWS // 2))
    run(server, "two", "DELETE FROM pages WHERE id = 77; INSERT INTO pages SELECT 77, overlay(repeat(md5('77'), 32768) placing 'x' from 500000)")
    assert [(one["name"], one["what"]) for one in call(server, "one", "two")["differences"]] == [
        ("public.pages", "checksum"),
        ("public.visits", "checksum"),
    ]


def test_three_thousand_tables_are_compared(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    zoo.forget(server, ["one", "two"])
    zoo.fill(server, "one", OWNER, tables=TABLES)
    run(server, "postgres", "CREATE DATABASE two TEMPLATE one OWNER " + OWNER)
    zoo.settle(server, "two", OWNER)
    started = time.monotonic()
    found = call(server, "one", "two")
    assert found["differences"] == []
    with capsys.disabled():
        print("\n{tables} tables compared in {0:.1f} s".format(time.monotonic() - started, **found))
    names: List[str] = [table["name"] for table in found["proof"]["tables"]]
    assert len(names) == found["tables"] > TABLES
    run(server, "two", "UPDATE zoo.small_02999 SET note = 'A2999' WHERE note = 'a2999'")
    assert [(one["name"], one["what"]) for one in call(server, "one", "two")["differences"]] == [("zoo.small_02999", "checksum")]

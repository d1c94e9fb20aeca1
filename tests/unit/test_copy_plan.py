# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a copy is planned, and how it is told of."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_clients import find
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_crew import Crew
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_plan import (
    SPLIT_BYTES,
    Table,
    alterations,
    in_order,
    parts,
    setting_values,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_progress import Progress
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def table(name: str, size: int, pages: int = 0, **more: Any) -> Table:
    return Table("public", name, ("a",), size, pages or size // 8192, True, **more)


def test_the_largest_comes_first() -> None:
    planned = parts([table("small", 1), table("large", 100), table("middle", 50)], 2)
    assert [part.table.name for part in planned] == ["large", "middle", "small"]
    assert all(part.whole for part in planned)


def test_a_straggler_is_cut_without_gap_or_overlap() -> None:
    big = table("big", SPLIT_BYTES * 3, pages=1001)
    planned = parts([big, table("small", 10)], 2)
    pieces = sorted((part for part in planned if part.table is big), key=lambda part: part.first)
    assert len(pieces) == 4 and not any(part.whole for part in pieces)
    assert pieces[0].first == 0 and pieces[-1].last is None
    assert [part.last for part in pieces[:-1]] == [part.first for part in pieces[1:]]


@pytest.mark.parametrize(
    ("jobs", "tables"),
    [
        (1, [table("big", SPLIT_BYTES * 3)]),
        (2, [table("big", SPLIT_BYTES - 1)]),
        # Two of one size are one for each worker.
        (2, [table("one", SPLIT_BYTES * 2), table("two", SPLIT_BYTES * 2)]),
        (2, [table("of an extension", SPLIT_BYTES * 2, condition="WHERE a > 1")]),
    ],
)
def test_what_holds_nobody_up_is_not_cut(jobs: int, tables: List[Table]) -> None:
    assert all(part.whole for part in parts(tables, jobs))


@pytest.mark.parametrize(
    ("name", "value", "items"),
    [
        ("work_mem", "7MB", ["7MB"]),
        ("application_name", 'a, "b"', ['a, "b"']),
        ("search_path", '"$user", public', ["$user", "public"]),
        ("search_path", '"A ""b"", c",Public', ['A "b", c', "public"]),
        ("search_path", '""', [""]),
        ("search_path", "", [""]),
        ("temp_tablespaces", "a,b", ["a", "b"]),
    ],
)
def test_settings_that_are_lists_stay_lists(name: str, value: str, items: List[str]) -> None:
    assert setting_values(name, value) == items


def test_a_list_that_is_none_is_refused() -> None:
    with pytest.raises(PoolsError, match="search_path"):
        setting_values("search_path", '"open')


def grant(grantor: str, grantee: str, privilege: str = "CONNECT", grantable: bool = False) -> Dict[str, Any]:
    return {"grantor": grantor, "grantee": grantee, "privilege": privilege, "grantable": grantable}


def test_who_hands_on_has_got_it_before() -> None:
    acl = [grant("c", "d"), grant("b", "c", grantable=True), grant("owner", "b", grantable=True), grant("owner", "owner")]
    assert [one.grantee for one in in_order("owner", acl)] == ["b", "owner", "c", "d"]


def test_a_grant_by_a_stranger_is_kept() -> None:
    assert [one.grantee for one in in_order("owner", [grant("gone", "d"), grant("owner", "b")])] == ["b", "d"]


def function(**more: Any) -> Dict[str, Any]:
    return dict({"volatility": "s", "parallel": "s", "strict": True, "definer": False, "leakproof": False}, **more)


def test_what_was_altered_of_a_function() -> None:
    assert alterations(function(), function(), True) == []
    assert alterations(function(volatility="i"), function(), True) == ["IMMUTABLE"]
    altered = function(volatility="v", parallel="u", strict=False, definer=True, leakproof=True)
    assert alterations(altered, function(), True) == [
        *("VOLATILE", "PARALLEL UNSAFE", "CALLED ON NULL INPUT", "SECURITY DEFINER", "LEAKPROOF"),
    ]


def test_another_version_differs_by_itself() -> None:
    assert alterations(function(volatility="v", parallel="u"), function(), False) == []
    assert alterations(function(volatility="i", parallel="u"), function(), False) == ["IMMUTABLE"]


# --- who works


def test_the_crew_does_each_task_once_in_order() -> None:
    done: List[int] = []
    tasks: List[Callable[[Any], None]] = [lambda _worker, number=number: done.append(number) for number in range(100)]
    Crew(float("inf")).work(tasks, ["one"], [])
    assert done == list(range(100))


def test_the_first_failure_stops_the_crew_and_is_told() -> None:
    begun: List[str] = []
    held = threading.Event()

    class Connection:
        def cancel(self) -> None:
            held.set()

    def waits(_worker: Any) -> None:
        begun.append("waits")
        assert held.wait(10)
        raise PoolsError("canceled")

    def fails(_worker: Any) -> None:
        begun.append("fails")
        raise PoolsError("the cause")

    with pytest.raises(PoolsError, match="the cause"):
        Crew(float("inf")).work([waits, fails, lambda _worker: begun.append("never")], [1, 2], [Connection()])
    assert begun == ["waits", "fails"]


def test_the_crew_gives_up_in_time() -> None:
    over = threading.Event()

    class Connection:
        def cancel(self) -> None:
            over.set()

    with pytest.raises(PoolsError, match="timeout"):
        Crew(time.monotonic() + 0.1).work([lambda _worker: over.wait(10)], [1], [Connection()])


def test_the_crew_stops_when_there_is_no_more_use() -> None:
    over = threading.Event()

    class Connection:
        def cancel(self) -> None:
            over.set()

    def useless() -> None:
        raise PoolsError("taken over")

    with pytest.raises(PoolsError, match="taken over"):
        Crew(float("inf"), useless).work([lambda _worker: over.wait(10)], [1], [Connection()])


# --- what is told


def test_progress_never_says_more_than_all(tmp_path: Path) -> None:
    told: List[Dict[str, Any]] = []
    with Progress(str(tmp_path / "progress"), told.append) as progress:
        progress.enter("rows")
        progress.expect(2, 100)
        progress.flows(0, 70)
        progress.flows(1, 70)
        assert progress.shown() == {"phase": "rows", "tables": 2, "tables_done": 0, "bytes": 100, "bytes_done": 100}
        progress.done(0, 40, 1)
        progress.flows(1, 10)
        assert progress.shown()["bytes_done"] == 50
    assert list(progress.seconds) == ["rows"]
    assert told[-1] == json.loads((tmp_path / "progress").read_text()) == dict(progress.shown(), phase="ended")


def test_a_progress_file_that_cannot_be_is_no_failure(tmp_path: Path) -> None:
    with Progress(str(tmp_path / "none" / "progress")) as progress:
        progress.enter("rows")
    assert list(tmp_path.iterdir()) == []


def test_a_listener_that_fails_is_asked_again() -> None:
    asked: List[Dict[str, Any]] = []

    def fails(shown: Dict[str, Any]) -> None:
        asked.append(shown)
        raise OSError("nobody there")

    with Progress("", fails) as progress:
        progress.enter("rows")
    assert asked[-1]["phase"] == "ended" and len(asked) > 1


# --- with what


def clients(folder: Path, major: int) -> str:
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text("#!/bin/sh\necho '{0} (PostgreSQL) {1}.4'\n".format(name, major))
        (folder / name).chmod(0o755)
    return str(folder)


def test_clients_are_not_older_than_either_server(tmp_path: Path) -> None:
    sixteen = clients(tmp_path / "16", 16)
    assert find(sixteen, 15, 16) == (sixteen, 16)
    with pytest.raises(PoolsError, match=r"of PostgreSQL 18 or newer .* found: 16 in"):
        find(sixteen, 15, 18)
    with pytest.raises(PoolsError, match="found: none"):
        find(str(tmp_path), 15, 15)


def test_the_oldest_clients_that_fit_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [clients(tmp_path / str(major), major) for major in (15, 18, 17)]
    monkeypatch.setattr("ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_clients._installed", lambda: places)
    monkeypatch.delenv("POSTGRES_POOLS_BIN_DIR", raising=False)
    assert find("", 15, 16).major == 17
    assert find("", 15, 15).major == 15

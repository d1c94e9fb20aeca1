# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a copy that follows while somebody writes, and the way back that is made ready before the switch."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _follow,
    _follow_back,
    _follow_changes,
    _follow_ends,
    _follow_proof,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from copy_fixture import Pair, pairs, running_pair
from follow_fixture import (
    DATABASE,
    OWNER,
    Writer,
    as_owner,
    backwards,
    differences,
    follow,
    forget,
    given,
    has_nothing_left,
    killed,
    left,
    make,
    query,
    run,
    wait_for,
)

PAIRS = pairs()
KEYS = """
CREATE TYPE public.mood AS ENUM ('glad', 'sad'); CREATE DOMAIN public.code AS char(4);
CREATE TABLE public."By 100% ""odd"" one" ("a %% b" public.code, "when" timestamptz, "how" public.mood, PRIMARY KEY ("how", "a %% b", "when"), held bytea);
INSERT INTO public."By 100% ""odd"" one" SELECT 'k' || i, timestamptz '2024-02-29 12:00:00.000001+05' + i * interval '1 day',
  (ARRAY['glad', 'sad'])[i % 2 + 1]::public.mood, '\\x00ff' FROM generate_series(1, 9) i;
CREATE TABLE public.by_bytes (a bytea, b numeric, c uuid, d float8, e text COLLATE "C", PRIMARY KEY (a, b, c, d, e));
INSERT INTO public.by_bytes SELECT decode(md5(i::text), 'hex'), i / 7.0, md5(i::text)::uuid, i / 3.0::float8, E'it''s \\\\ ' || i FROM generate_series(1, 9) i;
CREATE TABLE public.emptied (a int PRIMARY KEY); INSERT INTO public.emptied SELECT generate_series(1, 9);
CREATE TABLE public.many (a int PRIMARY KEY); INSERT INTO public.many SELECT generate_series(1, 9);
"""
CHANGE = """
UPDATE public."By 100% ""odd"" one" SET "when" = "when" + interval '1 hour' WHERE "how" = 'sad'; UPDATE public."By 100% ""odd"" one" SET held = '\\x01';
DELETE FROM public.by_bytes WHERE b < 0.5; UPDATE public.by_bytes SET d = d * 2 WHERE b > 1;
TRUNCATE public.emptied; INSERT INTO public.emptied VALUES (20); INSERT INTO public.many SELECT generate_series(10, 60);
DELETE FROM public."Key less" WHERE a = 5
"""


@pytest.fixture(scope="module", params=PAIRS, ids=lambda one: one.name)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with running_pair(request.param, {"wal_retrieve_retry_interval": "500ms"}) as running:
        yield running


@pytest.fixture
def scratch(pair: Pair) -> Iterator[Pair]:
    forget(pair)
    make(pair)
    yield pair
    forget(pair)


@pytest.fixture
def once(pair: Pair, request: pytest.FixtureRequest) -> Pair:
    """What majors have no part in is tried between the first pair alone."""
    if pair.name != PAIRS[0].name:
        pytest.skip("seen from major to major")
    found: Pair = request.getfixturevalue("scratch")
    return found


def own(pair: Pair, statements: str) -> None:
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute(statements)


@contextlib.contextmanager
def put_aside(pair: Pair) -> Iterator[Dict[str, Any]]:
    """The old database under another name, as nobody can enter it, and its owner too."""
    moved = DATABASE + "_moved"
    names = [one.replace('"', '""') for one in (DATABASE, moved)]
    run(pair.source, "postgres", 'ALTER DATABASE "{0}" RENAME TO "{1}"'.format(*names))
    run(pair.source, "postgres", 'ALTER DATABASE "{1}" CONNECTION LIMIT 0'.format(*names))
    run(pair.source, "postgres", "ALTER ROLE {0} RENAME TO {0}_moved; ALTER ROLE {0}_moved NOLOGIN CONNECTION LIMIT 0".format(OWNER))
    try:
        yield dict(given(pair)["source"], database=moved, owner=OWNER + "_moved")
    finally:
        for (name,) in query(pair.source, moved, "SELECT subname FROM pg_subscription"):
            for text in ("ALTER SUBSCRIPTION {0} DISABLE", "ALTER SUBSCRIPTION {0} SET (slot_name = NONE)", "DROP SUBSCRIPTION {0}"):
                run(pair.source, moved, text.format(name))
        run(pair.source, "postgres", 'ALTER DATABASE "{1}" RENAME TO "{0}"'.format(*names))
        run(pair.source, "postgres", "ALTER ROLE {0}_moved RENAME TO {0}; ALTER ROLE {0} LOGIN CONNECTION LIMIT -1".format(OWNER))


def whats(result: Dict[str, Any]) -> List[str]:
    return [one["what"] for one in result["problems"]]


def test_all_is_compared_while_writers_go_on_and_what_they_changed_at_the_end(
    scratch: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, with a way back made ready before the switch; the old database then bears another name; and back, with a thousand commits."""
    pair = scratch
    monkeypatch.setattr(_follow_changes, "MOST_KEYS", 40)
    own(pair, KEYS)
    assert follow(pair)["changed"]
    here = _follow_ends.ends(given(pair))
    with Writer(pair.source, 1) as first, Writer(pair.source, 2) as second:
        assert whats(follow(pair, state="drained", compare=True))[-1] == "proof"
        wait_for(lambda: first.commits > 20)
        assert _follow_back.prepare(here, given(pair))["changed"]
        compared = follow(pair, state="compared")
        assert (compared["problems"], compared["changed"], compared["proof"]["equal"]) == ([], True, True)
        during = first.commits
        wait_for(lambda: first.commits > during + 20)
    own(pair, CHANGE)
    # The owner's own settings are looked at again.
    run(pair.source, "postgres", "ALTER ROLE {0} SET work_mem = '5MB'".format(OWNER))
    drained = follow(pair, state="drained", compare=True)
    assert (drained["problems"], drained["changed"], drained["proof"]["equal"]) == ([], True, True)
    at_switch = drained["proof"]["at_switch"]
    with capsys.disabled():
        print("\n{0}: {1} {2} {3}".format(pair.name, compared["seconds"], drained["seconds"], at_switch))
    # One truncated, one of more keys than are looked up, and two without a key.
    assert at_switch["whole_tables"] >= 4 and at_switch["tables"] == 11 and at_switch["counted"] == []
    assert _follow_back.begin(here, given(pair))["changed"]
    # Nothing but what the way back needs.
    assert {(one["kind"], one["what"]) for one in differences(pair)} <= {
        *((kind, "existence") for kind in ("publication", "comment", "role")),
        ("table", "replica identity"),
        ("database", "acl"),
    }
    third = Writer(pair.target, 3)
    third.write(500)
    with put_aside(pair) as old:
        there = dict(backwards(pair), target=old)
        back = _follow_ends.ends(there)
        assert not _follow_back.alive(back)
        assert _follow_back.link(back, there) and not _follow_back.link(back, there)
        assert _follow_back.alive(back)
        third.write(1000)
        third.stop()
        compared = _follow.carry_out(dict(there, state="compared"), False)
        assert compared["changed"], compared["msg"]
        returned = _follow.carry_out(dict(there, state="drained", compare=True), False)
        assert (returned["problems"], returned["changed"]) == ([], True)
        rows = query(pair.source, old["database"], "SELECT count(*), max(number), count(*) = count(DISTINCT ticket) FROM public.commits WHERE writer = 3")
        assert rows == [(1000, 1000, True)] and not third.failures
        assert query(pair.source, old["database"], "SELECT max(ticket) < nextval('public.ticket') FROM public.commits") == [(True,)]
    assert first.arrived(pair.target) and second.arrived(pair.target)
    has_nothing_left(pair, copy=True)


def test_what_differs_is_found_before_the_source_is_let_go(once: Pair) -> None:
    pair = once
    follow(pair)
    # By somebody who may enter the copy, as nobody of the tenant's may.
    run(pair.target, DATABASE, "UPDATE public.commits SET filler = 'other' WHERE number = 7")
    refused = follow(pair, state="compared")
    assert (whats(refused), refused["changed"]) == (["unequal"], False) and "public.commits" in refused["msg"]
    assert whats(follow(pair, state="drained", compare=True)) == ["proof"]
    run(pair.target, DATABASE, "UPDATE public.commits SET filler = repeat('x', 100) WHERE number = 7")
    assert follow(pair, state="compared")["changed"]
    own(pair, "UPDATE public.commits SET filler = 'changed' WHERE number IN (8, 9); INSERT INTO public.\"Key less\" VALUES (77, 'new')")
    wait_for(lambda: query(pair.target, DATABASE, "SELECT count(*) FROM public.commits WHERE filler = 'changed'") == [(2,)])
    for there, remedy in (
        ("UPDATE public.commits SET filler = 'lost' WHERE number = 9", "UPDATE public.commits SET filler = 'changed' WHERE number = 9"),
        ("DELETE FROM public.commits WHERE number = 8", "INSERT INTO public.commits VALUES (0, 8, 8, 'changed')"),
        ("INSERT INTO public.\"Key less\" VALUES (77, 'new')", "DELETE FROM public.\"Key less\" WHERE ctid IN (SELECT max(ctid) FROM public.\"Key less\")"),
    ):
        run(pair.target, DATABASE, there)
        refused = follow(pair, state="drained", compare=True)
        assert (whats(refused), refused["changed"], refused["proof"]["equal"]) == (["unequal"], False, False), there
        run(pair.target, DATABASE, remedy)
    run(pair.target, DATABASE, "CREATE INDEX more ON public.commits (filler)")
    assert whats(follow(pair, state="drained", compare=True)) == ["unequal"]
    # It is followed on all the time, and the proof can be had anew.
    run(pair.target, DATABASE, "DROP INDEX public.more")
    assert follow(pair, state="compared")["changed"] and follow(pair, state="drained", compare=True)["changed"]
    assert differences(pair) == []
    has_nothing_left(pair, copy=True)


def test_no_writer_waits_for_the_comparison(once: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those of a table without a key, and no longer than they were said to; whoever holds one for long is not waited for by the others."""
    pair = once
    monkeypatch.setattr(_follow_proof, "_PAUSES", (0.5,))
    follow(pair)
    longest: Dict[str, float] = {}
    ended = threading.Event()

    def write(statements: str) -> None:
        with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
            while not ended.is_set():
                begun = time.monotonic()
                cursor.execute(statements)
                longest[statements] = max(longest.get(statements, 0.0), time.monotonic() - begun)
                time.sleep(0.002)

    # Two tables in one transaction, and two transactions that take them in turn.
    with_keys = "UPDATE public.accounts SET balance = balance + 1 WHERE id = 3; INSERT INTO public.commits SELECT 5, count(*) FROM public.commits"
    without = "UPDATE public.\"Key less\" SET b = 'new' WHERE a = 3"
    threads = [threading.Thread(target=write, args=(one,), daemon=True) for one in (with_keys, without)]
    with contextlib.closing(as_owner(pair.source)) as holding, holding.cursor() as cursor:
        cursor.execute("BEGIN; UPDATE public.\"Key less\" SET b = 'held' WHERE a = 1")
        for thread in threads:
            thread.start()
        with pytest.raises(PoolsError, match=r"tries there was no 0\.3 s in which nobody"):
            follow(pair, state="compared", fence_timeout=0.3, timeout=3)
        assert "proof" not in str(left(pair))
        threading.Timer(2, lambda: run_commit(holding)).start()
        compared = follow(pair, state="compared", fence_timeout=0.3, timeout=20)
    ended.set()
    for thread in threads:
        thread.join()
    assert compared["changed"] and compared["proof"]["equal"] and compared["proof"]["since"]["whole_tables"] == 1
    assert longest[with_keys] < 0.25 < longest[without] < 0.9
    assert follow(pair, state="drained", compare=True)["changed"]
    assert differences(pair) == []
    has_nothing_left(pair, copy=True)


def run_commit(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("COMMIT")


def test_what_writes_without_a_session_stands_against_the_switch(once: Pair) -> None:
    pair = once
    own(pair, "CREATE TABLE public.later (a int PRIMARY KEY)")
    follow(pair)
    assert follow(pair, state="compared")["changed"]
    own(pair, "BEGIN; INSERT INTO public.later VALUES (1); PREPARE TRANSACTION 'open'")
    assert whats(follow(pair, state="drained", compare=True)) == ["prepared transaction"]
    own(pair, "COMMIT PREPARED 'open'")
    # As a superuser may: it is in the publication no more.
    name = query(pair.source, DATABASE, "SELECT pubname FROM pg_publication")[0][0]
    run(pair.source, DATABASE, "ALTER PUBLICATION {0} DROP TABLE public.later".format(name))
    assert whats(follow(pair, state="drained", compare=True)) == ["publication"]
    assert whats(follow(pair, state="compared")) == ["publication"]
    follow(pair, state="absent")
    run(pair.source, DATABASE, "CREATE SUBSCRIPTION tenants CONNECTION 'dbname=none' PUBLICATION none WITH (connect = false, slot_name = 'tenants_slot')")
    run(pair.source, DATABASE, "ALTER SUBSCRIPTION tenants ENABLE")
    assert "subscription" in whats(follow(pair, state="checked", fail=False))
    run(pair.source, DATABASE, "ALTER SUBSCRIPTION tenants DISABLE")
    assert "subscription" not in whats(follow(pair, state="checked", fail=False))


def test_values_that_a_definition_changed_and_changed_back_are_found(once: Pair) -> None:
    pair = once
    own(pair, "CREATE TABLE public.prices (a int PRIMARY KEY, b numeric(10,2)); INSERT INTO public.prices VALUES (1, 1.25)")
    follow(pair)
    own(pair, "ALTER TABLE public.prices ALTER b TYPE numeric(10,0); ALTER TABLE public.prices ALTER b TYPE numeric(10,2)")
    assert whats(follow(pair, state="compared")) == ["definitions"]
    refused = follow(pair, state="drained")
    assert whats(refused) == ["definitions"] and "columns" in refused["msg"]
    assert follow(pair, state="watched")["given_up"]
    has_nothing_left(pair)


def test_killed_while_it_compares_or_makes_the_way_back_ready(once: Pair) -> None:
    pair = once
    follow(pair)
    for step in (("_follow_link", "copy_slot", True), ("_follow_proof", "marked", True), ("_follow_rows", "compare", False)):
        killed(given(pair, state="compared"), *step)
        own(pair, "SET statement_timeout = '12s'; UPDATE public.accounts SET balance = 1 WHERE id = 1")
        assert "_proof" in str(left(pair))
        assert whats(follow(pair, state="drained", compare=True)) == ["proof"]
    assert follow(pair, state="compared")["changed"]
    for step in (("_follow_proof", "rest", True), ("_follow_clean", "unlink", False)):
        killed(given(pair, state="drained", compare=True), *step)
    assert follow(pair, state="watched")["caught_up"]
    here = _follow_ends.ends(given(pair))
    assert _follow_back.prepare(here, given(pair))["changed"]
    follow(pair, state="absent")
    has_nothing_left(pair)


def test_a_proof_slot_that_keeps_too_much_is_given_up_too(once: Pair) -> None:
    pair = once
    follow(pair)
    assert follow(pair, state="compared")["changed"]
    own(pair, "INSERT INTO public.commits SELECT 9, i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 20000) i")
    wait_for(lambda: query(pair.target, DATABASE, "SELECT count(*) FROM public.commits WHERE writer = 9") == [(20000,)])
    wait_for(lambda: follow(pair, state="watched", lag_bytes=0)["caught_up"])
    given_up = follow(pair, state="watched", lag_bytes=0, wal_limit_bytes=1 << 20)
    assert given_up["given_up"] and whats(given_up) == ["retained WAL"]
    has_nothing_left(pair)


def test_a_fence_that_fails_leaves_no_lock(once: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = once
    follow(pair)

    def broken(*_given: Any) -> bool:
        raise psycopg2.OperationalError("gone")

    monkeypatch.setattr(_follow_proof._follow_catalog, "reached", broken)
    with Writer(pair.source, 1) as writer:
        wait_for(lambda: writer.commits > 5)
        with pytest.raises(PoolsError):
            follow(pair, state="compared")
    monkeypatch.undo()
    assert "_proof" not in str(left(pair))
    own(pair, "SET statement_timeout = '2s'; UPDATE public.accounts SET balance = 1 WHERE id = 1")
    assert follow(pair, state="absent")["changed"]
    has_nothing_left(pair)

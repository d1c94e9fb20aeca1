# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module database_copy between two real PostgreSQL servers: what arrives, and what stands against a copy."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import zoo_fixture
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _compare,
    _copy,
    _copy_clients,
    _copy_plan,
    _copy_preflight,
    _copy_programs,
    _copy_steps,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_report import answer, arrange
from copy_fixture import Pair, pairs, parameters, running_pair
from picture_fixture import Picture, around, picture, refresh, rows

ROOT = Path(__file__).resolve().parents[2]
DATABASE, OWNER = 'Copied "db"', "copied_user"


@pytest.fixture(scope="module", params=pairs(), ids=lambda one: one.name)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with running_pair(request.param) as running:
        yield running


@pytest.fixture
def scratch(pair: Pair) -> Iterator[Pair]:
    """An empty database of the owner's on the source, and nothing of either on the target."""
    pair.forget(DATABASE, OWNER)
    for statement in ("CREATE ROLE {owner} LOGIN PASSWORD 'Copied1Password2'", "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0"):
        pair.run(pair.source, statement, DATABASE, OWNER)
    yield pair
    pair.forget(DATABASE, OWNER)


@pytest.fixture
def no_zoo(pair: Pair) -> Iterator[Pair]:
    """Without a zoo and its roles on either server, before and after."""

    def forget() -> None:
        pair.forget("zoo", "zoo_owner", zoo_fixture.READER, zoo_fixture.WRITER)

    forget()
    yield pair
    forget()


def copied(pair: Pair, **more: Any) -> Dict[str, Any]:
    return _copy.carry_out(parameters(pair, DATABASE, OWNER, **more), False)


def as_owner(pair: Pair, statements: str) -> None:
    """In the source's database, by its owner."""
    with contextlib.closing(pair.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION AUTHORIZATION {0}; {1}".format(OWNER, statements))


def one(server: Any, database: str, statement: str, *values: Any) -> Any:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchone()[0]


def seen(pair: Pair, server: Any, database: str) -> Picture:
    clients = _copy_clients.find(pair.bin_dir, 15, pair.target.version // 10000)
    return picture(server, database, clients, pair.source.version // 10000 == pair.target.version // 10000)


def test_the_zoo_arrives_whole(no_zoo: Pair) -> None:
    """Every kind of object, seen by pg_dump, by digests of all rows, and by what a dump forgets."""
    pair, database, owner = no_zoo, "zoo", "zoo_owner"
    zoo_fixture.fill(pair.source, database, owner)
    with contextlib.closing(zoo_fixture.temporary(pair.source, database)):
        result = _copy.carry_out(parameters(pair, database, owner), False)
    assert (result["changed"], result["failed"], result["problems"]) == (True, False, [])
    there = seen(pair, pair.source, database)
    # Its materialized views may have been stale; in a copy they are filled anew.
    refresh(pair.source, database)
    there = there._replace(rows=rows(pair.source, database))
    here = seen(pair, pair.target, database)
    assert here.rows == there.rows
    assert here.around == there.around
    assert here.schema == there.schema
    assert result["tables"] > 30 and result["sequences"] > 10 and result["large_objects"] > 0
    assert one(pair.target, database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == one(
        pair.source, database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    )
    # Statistics are there before the first query.
    unseen = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'm') AND relispopulated AND reltuples < 0 AND relnamespace = 'zoo'::regnamespace"
    assert one(pair.target, database, unseen) == 0
    assert one(pair.target, database, "SELECT count(*) FROM pg_statistic_ext_data") > 0
    options = {"jobs": 2, "data": "checksum", "ignore": [], "max_differences": 20, "role_map": {}}
    given = parameters(pair, database, owner)
    given["target"] = dict(given["target"], database=database, owner=owner)
    compared = _compare.compare(_compare.login(given, "source"), _compare.login(given, "target"), options)
    assert compared["differences"] == [] and compared["equal"]
    assert sorted(result["roles"]) == sorted([owner, zoo_fixture.READER, zoo_fixture.WRITER])
    dropped = _copy.carry_out(dict(given, state="absent", force=True, drop_roles=True, roles=result["roles"]), False)
    assert len(dropped["actions"]) == 4 and dropped["warnings"] == []


def test_three_thousand_tables(no_zoo: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    pair, database, owner = no_zoo, "zoo", "zoo_owner"
    if pair.name != pairs()[0].name:
        pytest.skip("it was seen from major to major")
    zoo_fixture.fill(pair.source, database, owner, tables=3000)
    result = _copy.carry_out(parameters(pair, database, owner), False)
    with capsys.disabled():
        print("\n3,000 tables, {0}: {1:.1f} s {2}".format(pair.name, sum(result["seconds"].values()), result["seconds"]))
    assert result["tables"] > 3000
    assert zoo_fixture.counts(pair.target, database) == zoo_fixture.counts(pair.source, database)
    assert one(pair.target, database, "SELECT nextval('zoo.small_02999_id_seq')") == 4


def test_a_big_table_goes_in_pieces(scratch: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row at the edges is lost or doubled, also with rows that were moved, and pages that are empty."""
    monkeypatch.setattr(_copy_plan, "SPLIT_BYTES", 65536)
    as_owner(
        scratch,
        "CREATE TABLE public.big AS SELECT i, repeat('x', i %% 200) AS fill, ARRAY[i] AS a FROM generate_series(1, 60000) i;"
        " DELETE FROM public.big WHERE i %% 3 = 0 OR i BETWEEN 20000 AND 40000; UPDATE public.big SET fill = 'moved' WHERE i %% 5 = 0;".replace("%%", "%"),
    )
    planned: List[Any] = []
    real = _copy_plan.parts
    monkeypatch.setattr(_copy_steps, "parts", lambda *arguments: planned.append(real(*arguments)) or planned[-1])
    copied(scratch, jobs=3)
    assert len(planned[0]) == 6
    digest = "SELECT count(*) || ' ' || sum(i) || ' ' || md5(string_agg(fill, ',' ORDER BY i)) FROM public.big"
    assert one(scratch.target, DATABASE, digest) == one(scratch.source, DATABASE, digest)


def test_nothing_is_at_work_beside_the_attaching_of_indexes(scratch: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It and a foreign key's proof, or a trigger, would lock the same partitions in different orders."""
    as_owner(
        scratch,
        "CREATE TABLE public.p (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); CREATE INDEX ON public.p (a); CREATE TABLE public.p1 PARTITION OF public.p"
        " FOR VALUES FROM (0) TO (10); CREATE TABLE public.f (id int REFERENCES public.p); INSERT INTO public.p VALUES (1, 1); INSERT INTO public.f VALUES (1)",
    )
    turns: List[Any] = []
    real = _copy_programs.Programs._restore

    def listening(self: Any, arguments: List[str], doing: str, *descriptors: int) -> None:
        if "--section=post-data" in arguments:
            turns.append((arguments, os.pread(descriptors[0], 1 << 20, 0).decode().splitlines()))
        real(self, arguments, doing, *descriptors)

    monkeypatch.setattr(_copy_programs.Programs, "_restore", listening)
    copied(scratch, jobs=2)
    attaching = [any(" INDEX ATTACH " in line for line in lines) for _arguments, lines in turns]
    assert attaching == [False, True, False]
    assert "--jobs=1" in turns[1][0] and all(" INDEX ATTACH " in line for line in turns[1][1])
    assert any(" FK CONSTRAINT " in line for line in turns[2][1])
    unfinished = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert one(scratch.target, DATABASE, unfinished) == 0
    assert one(scratch.target, DATABASE, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") >= 1


def test_progress_is_told(scratch: Pair, tmp_path: Path) -> None:
    as_owner(scratch, "CREATE TABLE public.t AS SELECT i FROM generate_series(1, 200000) i")
    told: List[Dict[str, Any]] = []
    result = _copy.carry_out(parameters(scratch, DATABASE, OWNER, progress_file=str(tmp_path / "progress")), False, told.append)
    last = json.loads((tmp_path / "progress").read_text())
    assert last == told[-1] == {"phase": "ended", "tables": 1, "tables_done": 1, "bytes": result["bytes"], "bytes_done": result["bytes"]}
    assert (tmp_path / "progress").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["progress"]


def test_a_copy_whose_move_was_taken_over_ends(scratch: Pair) -> None:
    as_owner(scratch, "CREATE TABLE public.t AS SELECT i FROM generate_series(1, 1000) i")

    def taken() -> None:
        raise _copy.PoolsError("The move was taken over.")

    with pytest.raises(_copy.PoolsError, match="taken over"):
        _copy.carry_out(parameters(scratch, DATABASE, OWNER), False, None, taken)


def test_the_module_as_a_task(scratch: Pair, tmp_path: Path) -> None:
    """Checked, in check mode, copied, refused, thrown away, and nothing more to throw away."""
    as_owner(scratch, "CREATE TABLE public.t AS SELECT 1 AS a")
    base = {key: value for key, value in parameters(scratch, DATABASE, OWNER).items() if value not in (None, "")}
    absent = {"target": dict(base["target"], database=DATABASE, owner=OWNER), "state": "absent", "drop_roles": True}
    calls = [
        ("checked", dict(base, state="checked"), False),
        ("would_copy", base, True),
        ("copied", base, False),
        ("again", base, False),
        ("whole", absent, False),
        ("would_drop", dict(absent, force=True, roles=[OWNER]), True),
        ("dropped", dict(absent, force=True, roles=[OWNER]), False),
        ("nothing", absent, False),
    ]
    told = tmp_path / "told"
    tasks: List[Dict[str, Any]] = [
        {"name": name, "saasodoo.postgres_pools.database_copy": given, "check_mode": check, "diff": True, "register": name, "ignore_errors": True}
        for name, given, check in calls
    ]
    tasks.append({"ansible.builtin.copy": {"content": "{{ {%s} | to_json }}" % ", ".join("'%s': %s" % (name, name) for name, _given, _check in calls)}})
    tasks[-1]["ansible.builtin.copy"].update(dest=str(told), mode="0600")
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.yml").touch(mode=0o600)
    (tmp_path / "play.yml").write_text(json.dumps(play))
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build"), ANSIBLE_HOME=str(tmp_path), ANSIBLE_NOCOLOR="1")
    env.update(ANSIBLE_CONFIG=str(tmp_path / "none.cfg"), ANSIBLE_PYTHON_INTERPRETER=sys.executable)
    (tmp_path / "none.cfg").touch()
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-vvv", "-i", "localhost,", str(tmp_path / "play.yml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scratch.source.password not in done.stdout + done.stderr
    found = json.loads(told.read_text())
    changed = {name: found[name]["changed"] for name, _given, _check in calls}
    assert [name for name, whether in changed.items() if whether] == ["would_copy", "copied", "would_drop", "dropped"]
    assert [name for name in changed if found[name].get("failed")] == ["again", "whole"]
    assert found["checked"]["problems"] == [] and found["checked"]["facts"]["large_objects"] == 0
    assert found["copied"]["tables"] == 1 and set(found["copied"]["seconds"]) == {"preflight", "schema", "rows", "indexes", "statistics", "settings"}
    assert "replace=true" in found["again"]["msg"] and found["again"]["problems"][0]["what"] == "target"
    assert "force=true" in found["whole"]["msg"]
    drops = ["database {0} dropped".format(DATABASE), "role {0} dropped".format(OWNER)]
    assert found["would_drop"]["actions"] == found["dropped"]["actions"] == drops
    assert found["would_copy"]["diff"] == found["copied"]["diff"] and found["copied"]["diff"]["after"]
    assert not scratch.has_database(DATABASE)


# --- what is there already


def test_a_database_made_for_the_tenant_is_taken(scratch: Pair) -> None:
    """As allocate.yml leaves it: gate, owner, extensions and nothing in it. Afterwards tenant_database has nothing to do."""
    target = scratch.target
    login = {"login_host": target.host, "login_port": target.port, "login_user": target.user, "login_password": target.password}
    wanted = dict(login, state="present", max_parallel=1, require_wall=True, connect_timeout=10)

    def bring(where: Any) -> Dict[str, Any]:
        here = dict(wanted, login_host=where.host, login_port=where.port, login_password=where.password)
        return answer(*arrange(dict(here, databases=[{"name": "tenant_1", "password": "Copied1Password2", "connection_limit": 3}]), False))

    scratch.forget("tenant_1", "tenant_1_user", "tenant_1")
    for server in (scratch.source, target):
        assert not bring(server)["failed"]
    with contextlib.closing(scratch.source.connect("tenant_1")) as connection, connection.cursor() as cursor:
        cursor.execute("SET ROLE tenant_1_user; CREATE TABLE public.res (name text); CREATE INDEX ON public.res (public.unaccent(name))")
        cursor.execute("INSERT INTO public.res VALUES ('é')")
    result = _copy.carry_out(parameters(scratch, "tenant_1", "tenant_1_user"), False)
    assert result["changed"] and not result["failed"]
    assert around(target, "tenant_1") == around(scratch.source, "tenant_1")
    assert one(target, "tenant_1", "SELECT public.unaccent(name) FROM public.res") == "e"
    after = bring(target)
    assert not after["failed"] and after["databases"][0]["actions"] == []
    # The tenant comes in with its own password, over the wall.
    with contextlib.closing(target.connect("tenant_1", "tenant_1_user", "Copied1Password2")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM public.res")
    scratch.forget("tenant_1", "tenant_1_user", "tenant_1")


def test_what_holds_something_is_not_replaced_unasked(scratch: Pair) -> None:
    as_owner(scratch, "CREATE TABLE public.t AS SELECT 1 AS a")
    scratch.run(scratch.target, "CREATE ROLE {owner}", DATABASE, OWNER)
    scratch.run(scratch.target, "CREATE DATABASE {database} OWNER {owner}", DATABASE, OWNER)
    with contextlib.closing(scratch.target.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.precious (a int)")
    result = copied(scratch)
    assert result["failed"] and not result["changed"] and "holds something" in result["msg"]
    assert one(scratch.target, DATABASE, "SELECT to_regclass('public.precious')::text") == "precious"
    assert copied(scratch, replace=True)["tables"] == 1
    assert one(scratch.target, DATABASE, "SELECT to_regclass('public.precious')::text") is None


def test_somebody_elses_database_is_never_replaced_nor_dropped(scratch: Pair) -> None:
    scratch.run(scratch.target, "CREATE DATABASE {database}", DATABASE, OWNER)
    result = copied(scratch, replace=True)
    assert result["failed"] and "belongs to postgres" in result["msg"]
    with pytest.raises(_copy.PoolsError, match="never replaced or dropped"):
        copied(scratch, state="absent", force=True)
    assert scratch.has_database(DATABASE)


# --- what stands against a copy


def problems(pair: Pair, **more: Any) -> Dict[str, str]:
    result = copied(pair, state="checked", fail=False, **more)
    assert not result["failed"] and not result["changed"]
    return {problem["what"]: problem["problem"] + " " + problem["remedy"] for problem in result["problems"]}


def test_nothing_stands_against_a_quiet_database(scratch: Pair) -> None:
    as_owner(scratch, "CREATE TABLE public.t (a text COLLATE \"C\"); CREATE UNLOGGED TABLE public.u ()")
    assert problems(scratch) == {}
    assert copied(scratch, state="checked")["facts"]["unlogged_tables"] == 1


def test_each_thing_that_stands_against_a_copy_is_named(scratch: Pair, tmp_path: Path) -> None:
    as_owner(scratch, "CREATE TABLE public.locked (a int); CREATE TABLE public.t (a int)")
    scratch.run(scratch.source, "DROP ROLE IF EXISTS mighty; CREATE ROLE mighty REPLICATION BYPASSRLS", DATABASE, OWNER)
    with contextlib.ExitStack() as stack:
        inside = stack.enter_context(contextlib.closing(scratch.source.connect(DATABASE)))
        cursor = inside.cursor()
        # The slot first: it waits for all that is open.
        cursor.execute("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
        stack.callback(cursor.execute, "SELECT pg_drop_replication_slot('reader')")
        cursor.execute("GRANT SELECT ON public.t TO mighty")
        stack.callback(cursor.execute, "REVOKE ALL ON public.t FROM mighty; DROP ROLE mighty")
        cursor.execute("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'half done'")
        stack.callback(cursor.execute, "ROLLBACK PREPARED 'half done'")
        cursor.execute("CREATE PUBLICATION told FOR ALL TABLES")
        stack.callback(cursor.execute, "ROLLBACK")
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE public.locked IN ACCESS EXCLUSIVE MODE")
        found = problems(scratch, target_free_bytes=1000, bin_dir=str(tmp_path))
        warnings = copied(scratch, state="checked", fail=False)["warnings"]
    assert "mighty" in found["role"] and "REPLICATION, BYPASSRLS" in found["role"]
    assert "half done" in found["prepared transaction"]
    assert "public.locked" in found["lock"]
    assert "1000 bytes" in found["space"]
    assert str(tmp_path) in found["clients"] and str(scratch.target.version // 10000) in found["clients"]
    assert any("told" in warning and "not copied" in warning for warning in warnings)
    assert "The target's databases take" in problems(scratch, target_budget_bytes=20_000_000)["space"]
    assert "space" not in problems(scratch, target_budget_bytes=1 << 40)
    assert set(found) == {"role", "prepared transaction", "lock", "space", "clients", "replication slot"}


def test_an_extension_or_a_locale_that_the_target_lacks(scratch: Pair) -> None:
    lacking = "adminpack"
    if not one(scratch.source, "postgres", "SELECT count(*) FROM pg_available_extensions WHERE name = %s", lacking):
        pytest.skip("the source has no extension that the target lacks")
    with contextlib.closing(scratch.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION adminpack")
    if one(scratch.target, "postgres", "SELECT count(*) FROM pg_available_extensions WHERE name = %s", lacking):
        assert problems(scratch) == {}
    else:
        assert lacking in problems(scratch)["extension"]


def test_a_locale_is_asked_of_the_target(pair: Pair) -> None:
    with contextlib.closing(pair.target.connect()) as server:
        for provider, name, known in (("c", "C", True), ("c", "xx_YY.UTF-8", False), ("b", "C.UTF-8", True)):
            said = _copy_preflight.locale_refusal(server, {"provider": provider, "lc_collate": name, "lc_ctype": name, "locale": name})
            assert (said == "") == known, said
            assert known or "xx_YY" in said


def test_the_way_back_to_an_older_server_is_refused(scratch: Pair) -> None:
    if scratch.source.version // 10000 == scratch.target.version // 10000:
        pytest.skip("both are of one major")
    backwards = Pair(scratch.name, scratch.target, scratch.source, scratch.bin_dir)
    scratch.run(scratch.target, "CREATE ROLE {owner}", DATABASE, OWNER)
    scratch.run(scratch.target, "CREATE DATABASE {database} OWNER {owner}", DATABASE, OWNER)
    scratch.run(scratch.source, "DROP DATABASE {database}", DATABASE, OWNER)
    assert "older than the source" in problems(backwards)["version"]


def test_arguments_that_cannot_be(scratch: Pair) -> None:
    for more, said in (
        ({"jobs": 0}, "jobs is 0"),
        ({"source": dict(parameters(scratch, DATABASE, OWNER)["source"], database="gone")}, "gone"),
        ({"source": dict(parameters(scratch, DATABASE, OWNER)["source"], database="")}, "source has no database"),
        ({"source": dict(parameters(scratch, DATABASE, OWNER)["source"], database="postgres")}, "server's own"),
        ({"target": dict(parameters(scratch, DATABASE, OWNER)["target"], login_password="wrong")}, "password authentication failed"),
        ({"target": dict(parameters(scratch, DATABASE, OWNER)["source"], login_host="localhost"), "replace": True}, "the same database"),
    ):
        with pytest.raises(_copy.PoolsError, match=said):
            copied(scratch, **more)


def test_a_table_that_the_target_refuses_is_named(scratch: Pair) -> None:
    """A function that finds its table by the caller's search_path, which a restore never has."""
    as_owner(
        scratch,
        "CREATE TABLE public.known (a int); CREATE FUNCTION public.is_known(int) RETURNS boolean LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM 1 FROM known; RETURN true; END'; CREATE TABLE public.checked (a int CHECK (public.is_known(a)));"
        " INSERT INTO public.checked VALUES (1)",
    )
    with pytest.raises(_copy.PoolsError, match=r'target .*writing table public\.checked: .*"known" does not exist'):
        copied(scratch)
    # What is left says so, keeps everybody out, and is replaced or dropped without more ado.
    assert one(scratch.target, "postgres", "SELECT datconnlimit FROM pg_database WHERE datname = %s", DATABASE) == 0
    assert copied(scratch, state="absent", drop_roles=True)["actions"] == ["database {0} dropped".format(DATABASE), "role {0} dropped".format(OWNER)]
    assert copied(scratch, state="absent", drop_roles=True)["changed"] is False


def test_the_copy_is_given_up_in_time(scratch: Pair) -> None:
    as_owner(scratch, "CREATE TABLE public.t (a int); INSERT INTO public.t SELECT generate_series(1, 1000)")
    with contextlib.closing(scratch.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        # The worker waits for it where no preflight looks: on the target, which is slow to take a row.
        cursor.execute(
            "CREATE FUNCTION public.slow(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN true; END';"
            "ALTER TABLE public.t ADD CONSTRAINT slow CHECK (a > 5 OR public.slow(a)) NOT VALID"
        )
        cursor.execute("UPDATE pg_constraint SET convalidated = true WHERE conname = 'slow'")
    begun = time.monotonic()
    with pytest.raises(_copy.PoolsError, match="timeout"):
        copied(scratch, timeout=2)
    assert time.monotonic() - begun < 5

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's own code that a restore would run as superuser: it does, so a copy that is told to look for it refuses it."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _copy
from copy_fixture import Pair, pairs, parameters, running_pair

DATABASE, OWNER = "coded", "coded_user"
# What a tenant can make: nothing is in it, for nobody looks into it. The other one says by whom it was run.
_EVIL = "CREATE FUNCTION evil(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$"
_WRITES = """CREATE TABLE ran (by text);
CREATE FUNCTION evil(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran VALUES (current_setting('is_superuser')); RETURN true; END $$"""


@pytest.fixture(scope="module", params=pairs(), ids=lambda majors: majors.name)
def servers(request: Any) -> Iterator[Pair]:
    with running_pair(request.param) as pair:
        yield pair


@pytest.fixture
def tenant(servers: Pair) -> Iterator[Pair]:
    servers.run(servers.source, "CREATE ROLE {owner} LOGIN", DATABASE, OWNER)
    servers.run(servers.source, "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0", DATABASE, OWNER)
    servers.run(servers.target, "CREATE ROLE {owner} LOGIN", DATABASE, OWNER)
    yield servers
    servers.forget(DATABASE, OWNER)


def do(pair: Pair, statements: str, side: str = "source") -> List[Any]:
    """As the tenant, whom nothing of it may ask for more than it has."""
    with contextlib.closing(getattr(pair, side).connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute('SET SESSION AUTHORIZATION "{0}"'.format(OWNER))
        cursor.execute(statements)
        return list(cursor.fetchall()) if cursor.description else []


def problems(pair: Pair) -> Dict[str, str]:
    told = _copy.carry_out(parameters(pair, DATABASE, OWNER, state="checked", fail=False, refuse_code=True), False)
    return {one["what"]: one["problem"] for one in told["problems"]}


def test_without_looking_it_runs_as_superuser(tenant: Pair) -> None:
    do(tenant, _WRITES + "; CREATE TABLE t (i int); INSERT INTO t VALUES (1); ALTER TABLE t ADD CONSTRAINT c CHECK (evil(i)); TRUNCATE ran")
    told = _copy.carry_out(parameters(tenant, DATABASE, OWNER, refuse_code=True), False)
    assert told["failed"] and "CHECK constraint c of public.t" in told["msg"] and not tenant.has_database(DATABASE)
    assert not _copy.carry_out(parameters(tenant, DATABASE, OWNER), False)["failed"]
    assert do(tenant, "SELECT by FROM ran", "target") == [("on",)]


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (_EVIL + "; CREATE TABLE t (i int CONSTRAINT own CHECK (evil(i)))", "CHECK constraint own of public.t"),
        (_EVIL + "; CREATE DOMAIN d AS int CONSTRAINT inner_one CHECK (evil(VALUE))", "CHECK constraint inner_one of public.d"),
        (_EVIL + "; CREATE TABLE t (i int, g boolean GENERATED ALWAYS AS (evil(i)) STORED)", "generated column g of public.t"),
        (
            _EVIL + "; CREATE FUNCTION worse(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT evil($1)';"
            " CREATE OPERATOR ~~~> (FUNCTION = worse, LEFTARG = int, RIGHTARG = int); CREATE TABLE t (i int CONSTRAINT c CHECK (i ~~~> 1))",
            "CHECK constraint c of public.t",
        ),
        ("CREATE TABLE t (i int CONSTRAINT c CHECK (query_to_xml('SELECT evil(1)', true, true, '') IS NOT NULL))", "CHECK constraint c of public.t"),
        ("CREATE TABLE t (i text CONSTRAINT c CHECK (pg_read_file(i) IS NOT NULL))", "CHECK constraint c of public.t"),
        ("CREATE TABLE t (i text CONSTRAINT c CHECK (set_config('a.b', i, false) <> ''))", "CHECK constraint c of public.t"),
        ("CREATE TABLE t (i text CONSTRAINT c CHECK (i = ANY (ARRAY[current_setting('a.b', true), 'x'])))", "CHECK constraint c of public.t"),
        (
            "CREATE TYPE mood AS ENUM ('a'); CREATE FUNCTION cast_it(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$SELECT '1'::json$$;"
            " CREATE CAST (mood AS json) WITH FUNCTION cast_it(mood)",
            "cast from public.mood to json",
        ),
    ],
)
def test_it_is_found(tenant: Pair, statements: str, named: str) -> None:
    do(tenant, statements)
    assert named in problems(tenant).get("code", "")


def test_what_only_computes_is_let_through(tenant: Pair) -> None:
    # Code that a restore runs as nobody but the table's owner, or not at all, is no matter.
    do(tenant, _EVIL + "; CREATE TABLE t (i int DEFAULT evil(1)::int, at timestamptz, name text, low text GENERATED ALWAYS AS (lower(name) || 'x') STORED,"
       " CHECK (i > 0 AND i IN (1, 2, 3)), CHECK (at <= now() OR at > date_trunc('day', at)), CHECK (name ~ '^[a-z]' AND length(name) < 20));"
       " CREATE INDEX ON t (evil(i)); CREATE MATERIALIZED VIEW m AS SELECT evil(1); CREATE DOMAIN short AS text CHECK (length(VALUE) < 9)")  # fmt: skip
    with contextlib.closing(tenant.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION citext; CREATE TABLE c (name citext CHECK (name <> 'x' AND citext_eq(name, name)))")
    assert "code" not in problems(tenant)

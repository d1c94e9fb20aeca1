# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module database_compare: a copy of the zoo is equal, and whatever one changes in it is found and named."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest
import zoo_fixture as zoo
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _compare, _compare_rows, _compare_session
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._compare import compare, login
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from postgres_fixture import RunningServer, free_port, running_server

ROOT = Path(__file__).resolve().parents[2]
OWNER = 'Zoo "owner"'
# One that needs quoting wherever it is used.
DATABASE = 'Zoo "db" %s'
# The same, as SQL has it.
DB = '"Zoo ""db"" %s"'
ROLE = '"Zoo ""owner"""'
BIN_DIRS = [one for one in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if one] or [""]
# Two majors are the hard case; of one and the same there is the newest.
MIXED, NEWEST, OLDEST = (BIN_DIRS[0], BIN_DIRS[-1]), (BIN_DIRS[-1], BIN_DIRS[-1]), (BIN_DIRS[0], BIN_DIRS[0])
NO_TRIGGERS = "SET session_replication_role = replica; "


def side(server: RunningServer, database: str, **more: Any) -> Dict[str, Any]:
    where = {"login_host": server.host, "login_port": server.port, "login_user": server.user, "login_password": server.password}
    return dict(where, database=database, **more)


def call(source: Dict[str, Any], target: Dict[str, Any], **more: Any) -> Dict[str, Any]:
    params: Dict[str, Any] = {"role_map": {}, "data": "checksum", "jobs": 2, "ignore": [], "max_differences": 500}
    params.update(source=source, target=target, **more)
    return compare(login(params, "source"), login(params, "target"), params)


def run(server: RunningServer, database: str, *statements: str) -> None:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


class Pair(NamedTuple):
    source: RunningServer
    target: RunningServer

    def fresh(self) -> None:
        """The target once more as it was restored."""
        zoo.forget(self.target, [DATABASE])
        run(self.target, "postgres", "CREATE DATABASE {0} TEMPLATE restored OWNER {1}".format(DB, ROLE))
        zoo.settle(self.target, DATABASE, OWNER)

    def call(self, **more: Any) -> Dict[str, Any]:
        return call(side(self.source, DATABASE), side(self.target, DATABASE), **more)


def on(*pairs: Tuple[str, str]) -> Any:
    """Servers of these majors, source and target."""
    return pytest.mark.parametrize(
        "pair", sorted(set(pairs)), indirect=True, scope="module", ids=lambda pair: "-".join(Path(one).parent.name or "found" for one in pair)
    )


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with running_server(folder, request.param[0]) as source, running_server(folder, request.param[1]) as target:
        zoo.fill(source, DATABASE, OWNER, tables=20)
        zoo.dump_and_restore(source, target, DATABASE, OWNER, folder, to="restored")
        made = Pair(source, target)
        made.fresh()
        yield made


@on(OLDEST, MIXED, NEWEST)
def test_a_restored_zoo_is_equal(pair: Pair) -> None:
    with contextlib.closing(zoo.temporary(pair.target, DATABASE)):
        result = pair.call()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_compare, "PROBE", "SELECT random()")
            assert pair.call()["differences"] == []
    assert (result["differences"], result["difference_count"], result["equal"]) == ([], 0, True)
    # By a second way: the rows there are, counted one table after the other.
    counted = zoo.counts(pair.source, DATABASE)
    assert counted == zoo.counts(pair.target, DATABASE)
    assert (result["tables"], result["rows"]) == (len(counted), sum(counted.values()))
    proof = json.loads(json.dumps(result["proof"]))
    assert proof["equal"] and proof["table_count"] == len(proof["tables"]) == len(counted)
    for digest in ("schema_digest", "tables_digest", "sequences_digest", "large_objects"):
        assert proof["source"][digest] == proof["target"][digest]
    assert proof["source"]["large_objects"]["count"] == 4
    assert zoo.VERIFIER not in json.dumps(result)


@on(MIXED)
def test_where_rows_and_columns_lie_does_not_matter(pair: Pair) -> None:
    run(
        pair.target,
        DATABASE,
        NO_TRIGGERS + "UPDATE zoo.wide SET hash = hash WHERE id % 3 = 0; UPDATE zoo.own_types SET id = id",
        "VACUUM FULL zoo.wide",
        "ALTER TABLE zoo.doubles ADD COLUMN passing integer; ALTER TABLE zoo.doubles DROP COLUMN passing; CLUSTER zoo.wide",
        # A NaN has many forms, and a dump knows one.
        "UPDATE zoo.scalars SET f8 = float8 'Infinity' - float8 'Infinity' WHERE f8 = 'NaN'",
        # An ACL that says what goes without saying, and one that says nothing more.
        "GRANT SELECT ON zoo.notes TO zoo_reader; REVOKE SELECT ON zoo.notes FROM zoo_reader",
        "GRANT SELECT (note) ON zoo.notes TO zoo_reader; REVOKE SELECT (note) ON zoo.notes FROM zoo_reader; GRANT SELECT ON zoo.notes TO zoo_reader",
    )
    assert pair.call()["differences"] == []


@on(MIXED)
def test_tables_read_in_pieces_by_many_sessions_add_up_to_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.fresh()
    run(pair.target, DATABASE, "VACUUM FULL zoo.wide", "SELECT lo_put(100001, 600000, lo_get(100001, 600000, 3000))")
    whole = pair.call(jobs=1)["proof"]
    monkeypatch.setattr(_compare_rows, "PIECE_BYTES", 100000)
    found = pair.call(jobs=5)
    assert found["differences"] == []
    assert found["proof"]["tables"] == whole["tables"]
    assert [found["proof"][one]["large_objects"] for one in ("source", "target")] == [whole["source"]["large_objects"]] * 2
    run(pair.target, DATABASE, "DELETE FROM zoo.wide WHERE ctid = (SELECT max(ctid) FROM zoo.wide)", "SELECT lo_put(100001, 799999, '\\x00')")
    assert [(one["name"], one["what"]) for one in pair.call(jobs=5)["differences"]] == [
        ("zoo.wide", "rows"),
        ("zoo.wide", "checksum"),
        ("100001", "content"),
    ]


class Plant(NamedTuple):
    """A difference made on the target; what must be found is exactly this: kind, name, what."""

    sql: str
    found: List[Tuple[str, str, str]]
    undo: Optional[str] = None
    # Since 18 each NOT NULL is a constraint with a name.
    since_18: Tuple[Tuple[str, str, str], ...] = ()


def rows_of(name: str, kind: str = "table") -> List[Tuple[str, str, str]]:
    return [(kind, name, "rows"), (kind, name, "checksum")]


def content_of(name: str) -> List[Tuple[str, str, str]]:
    return [("table", name, "checksum")]


QUOTED = '"Zoo ""quoted"".döts; %s %"'
AWKWARD = QUOTED + '."Table ""with"" \'quotes\', dots. and: \\ $1 %(x)s"'
PLANTS = {
    # rows
    "row missing": Plant("DELETE FROM zoo.wide WHERE id = 7777", rows_of("zoo.wide")),
    "row doubled": Plant("INSERT INTO zoo.wide SELECT * FROM zoo.wide WHERE id = 7777", rows_of("zoo.wide")),
    "row doubled for another": Plant(
        "DELETE FROM zoo.doubles WHERE b = 'two' AND \"A new name\" = 2; INSERT INTO zoo.doubles VALUES (1, 'one')", content_of("zoo.doubles")
    ),
    "row without columns": Plant("INSERT INTO zoo.no_columns DEFAULT VALUES", rows_of("zoo.no_columns")),
    "byte in bytea": Plant("UPDATE zoo.storage SET c = set_byte(c, 500000, get_byte(c, 500000) # 1) WHERE d = 2", content_of("zoo.storage")),
    "character in a long text": Plant("UPDATE zoo.storage SET a = overlay(a placing 'z' from 1000000) WHERE d = 3", content_of("zoo.storage")),
    "character that looks the same": Plant("UPDATE zoo.own_types SET bytes = U&'e\\0301' WHERE bytes = 'é'", content_of("zoo.own_types")),
    "NULL for empty": Plant("UPDATE zoo.doubles SET b = NULL WHERE b = ''", content_of("zoo.doubles")),
    "NULL for the text NULL": Plant('UPDATE zoo.scalars SET ta = \'{{a,"b,c"},{"NULL","\\"q\\\\"}}\' WHERE id = 100', content_of("zoo.scalars")),
    "last bit of a float": Plant("UPDATE zoo.scalars SET f8 = 0.3 WHERE id = 100", content_of("zoo.scalars")),
    "sign of zero": Plant("UPDATE zoo.scalars SET f8 = 0 WHERE f8 = 0", content_of("zoo.scalars")),
    "zeros after the point": Plant("UPDATE zoo.scalars SET n = n * 1.0 WHERE n BETWEEN 1 AND 1e31", content_of("zoo.scalars")),
    "jsonb key": Plant("UPDATE zoo.scalars SET jb = jb - 'b' || '{\"c\": 1}' WHERE id = 100", content_of("zoo.scalars")),
    "spaces in json": Plant('UPDATE zoo.scalars SET j = \'{"b": 1, "a": [1, null]}\' WHERE id = 100', content_of("zoo.scalars")),
    "digits that fold": Plant("UPDATE zoo.own_types SET id = id << 32 WHERE id = 2", content_of("zoo.own_types")),
    "days for a month": Plant("UPDATE zoo.scalars SET iv = iv + '30 days' - interval '1 month' WHERE id = 100", content_of("zoo.scalars")),
    "another label": Plant("UPDATE zoo.own_types SET feels = 'ok' WHERE feels = 'sad'", content_of("zoo.own_types")),
    "case where case does not matter": Plant("UPDATE zoo.caseless_names SET name = 'B' WHERE name = 'b'", content_of("zoo.caseless_names")),
    "microsecond": Plant("UPDATE zoo.scalars SET tstz = tstz - interval '1 microsecond' WHERE isfinite(tstz)", content_of("zoo.scalars")),
    "values swapped between rows": Plant("UPDATE zoo.wide w SET hash = md5((27 - id)::text) WHERE id IN (13, 14)", content_of("zoo.wide")),
    "values swapped between columns": Plant('UPDATE zoo.doubles SET b = \'2\', "A new name" = 2 WHERE "A new name" = 3', content_of("zoo.doubles")),
    "field of a composite": Plant('UPDATE zoo.own_types SET home."House No." = 6 WHERE id = 1', content_of("zoo.own_types")),
    "unlogged row": Plant("DELETE FROM zoo.unlogged WHERE note IS NULL", rows_of("zoo.unlogged")),
    "row behind row-level security": Plant("UPDATE zoo.secrets SET secret = 'told' WHERE id = 30", content_of("zoo.secrets")),
    "row in a partition": Plant(
        NO_TRIGGERS + "UPDATE zoo.events_2024_eu_1 SET detail = '{}' WHERE id = (SELECT min(id) FROM zoo.events_2024_eu_1)", content_of("zoo.events_2024_eu_1")
    ),
    "row in an awkward table": Plant("UPDATE " + AWKWARD + ' SET "row" = \'Y\' WHERE "select" = 1', content_of(AWKWARD)),
    "stale materialized view": Plant(
        NO_TRIGGERS + "CREATE TEMPORARY TABLE kept AS SELECT * FROM zoo.events WHERE region = 'us'; DELETE FROM zoo.events WHERE region = 'us';"
        " REFRESH MATERIALIZED VIEW zoo.totals; INSERT INTO zoo.events SELECT * FROM kept",
        rows_of("zoo.totals", "materialized view"),
    ),
    "materialized view emptied": Plant(
        "REFRESH MATERIALIZED VIEW zoo.totals_of_totals WITH NO DATA",
        [("materialized view", "zoo.totals_of_totals", "populated"), *rows_of("zoo.totals_of_totals", "materialized view")],
    ),
    "generated column": Plant(
        "ALTER TABLE zoo.generated ALTER COLUMN gross DROP EXPRESSION; UPDATE zoo.generated SET gross = 1 WHERE id = 1",
        [*content_of("zoo.generated"), ("column", "zoo.generated.gross", "default"), ("column", "zoo.generated.gross", "generated")],
    ),
    # sequences and large objects
    "sequence's value": Plant("SELECT setval('zoo.owned', 9000000001)", [("sequence", "zoo.owned", "last value")]),
    "sequence not called": Plant("SELECT setval('zoo.owned', 9000000000, false)", [("sequence", "zoo.owned", "is called")]),
    "sequence's step": Plant("ALTER SEQUENCE zoo.unowned INCREMENT 11", [("sequence", "zoo.unowned", "parameters")]),
    "sequence's owner column": Plant("ALTER SEQUENCE zoo.owned OWNED BY NONE", [("sequence", "zoo.owned", "owned by")]),
    "identity's value": Plant(
        "ALTER TABLE zoo.scalars ALTER COLUMN id RESTART WITH 101",
        [("sequence", "zoo.scalars_id_seq", "last value"), ("sequence", "zoo.scalars_id_seq", "is called")],
    ),
    "byte of a large object": Plant("SELECT lo_put(100001, 700000, '\\x77')", [("large object", "100001", "content")]),
    "large object longer by a zero": Plant("SELECT lo_put(100003, 16, '\\x00')", [("large object", "100003", "content")]),
    "large object's pages swapped": Plant(
        NO_TRIGGERS + "SELECT lo_put(100001, 0, lo_get(100001, 1, 2047)); SELECT lo_put(100001, 2047, '\\x00')", [("large object", "100001", "content")]
    ),
    "large object missing": Plant("SELECT lo_unlink(100002)", [("large object", "100002", "existence")]),
    "large object's privileges": Plant("REVOKE UPDATE ON LARGE OBJECT 100001 FROM zoo_reader", [("large object", "100001", "acl")]),
    "large object's owner": Plant("ALTER LARGE OBJECT 100002 OWNER TO zoo_reader", [("large object", "100002", "owner"), ("large object", "100002", "acl")]),
    "large object's comment": Plant("COMMENT ON LARGE OBJECT 100001 IS 'small'", [("comment", "large object 100001", "text")]),
    # privileges and owners
    "grant": Plant("GRANT TRUNCATE ON zoo.notes TO zoo_reader", [("table", "zoo.notes", "acl")]),
    "grant option": Plant("REVOKE GRANT OPTION FOR SELECT ON zoo.plain FROM zoo_reader", [("view", "zoo.plain", "acl")]),
    "column's grant": Plant("GRANT SELECT (label) ON zoo.generated TO zoo_reader", [("column", "zoo.generated.label", "acl")]),
    "CONNECT revoked": Plant("REVOKE CONNECT ON DATABASE " + DB + " FROM zoo_reader", [("database", "", "acl")]),
    "CONNECT for all": Plant("GRANT CONNECT ON DATABASE " + DB + " TO PUBLIC", [("database", "", "acl")]),
    "default privileges": Plant(
        "ALTER DEFAULT PRIVILEGES FOR ROLE " + ROLE + " IN SCHEMA zoo REVOKE SELECT ON TABLES FROM zoo_reader",
        [("default privileges", 'Zoo "owner" in schema zoo on tables', "existence")],
    ),
    "privilege on a system's function": Plant(
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) TO PUBLIC",
        [("system privileges", "pg_catalog.pg_sleep(double precision)", "existence")],
    ),
    "privilege on an extension's function": Plant(
        "GRANT EXECUTE ON FUNCTION public.similarity(text, text) TO PUBLIC", [("extension function", "public.similarity(text,text)", "acl")]
    ),
    "table's owner": Plant("ALTER TABLE zoo.doubles OWNER TO zoo_reader", [("table", "zoo.doubles", "owner"), ("table", "zoo.doubles", "acl")]),
    "function's owner": Plant(
        "ALTER FUNCTION zoo.longer(text, text) OWNER TO zoo_reader",
        [("function", "zoo.longer(text,text)", "owner"), ("function", "zoo.longer(text,text)", "acl")],
    ),
    # the database and its roles
    "database's connection limit": Plant("ALTER DATABASE " + DB + " CONNECTION LIMIT -1", [("database", "", "connection limit")]),
    "database's setting": Plant("ALTER DATABASE " + DB + " SET work_mem = '8MB'", [("setting", "work_mem", "value")]),
    "database's setting gone": Plant("ALTER DATABASE " + DB + " RESET DateStyle", [("setting", "DateStyle", "existence")]),
    "database's comment": Plant("COMMENT ON DATABASE " + DB + " IS NULL", [("database", "", "comment")]),
    "role's setting in the database": Plant(
        "ALTER ROLE " + ROLE + " IN DATABASE " + DB + " SET lock_timeout = '4s'", [("setting", 'role Zoo "owner": lock_timeout', "value")]
    ),
    "role's setting": Plant(
        "ALTER ROLE " + ROLE + " SET temp_file_limit = '2GB'",
        [("role", 'Zoo "owner"', "settings")],
        "ALTER ROLE " + ROLE + " RESET ALL; ALTER ROLE " + ROLE + " SET temp_file_limit = '1GB'; ALTER ROLE " + ROLE + " SET statement_timeout = '1h'",
    ),
    "role's connection limit": Plant(
        "ALTER ROLE " + ROLE + " CONNECTION LIMIT 8", [("role", 'Zoo "owner"', "connection limit")], "ALTER ROLE " + ROLE + " CONNECTION LIMIT 7"
    ),
    "role's right to set a parameter": Plant(
        "GRANT SET ON PARAMETER log_min_messages TO zoo_reader",
        [("role", "zoo_reader", "parameters")],
        "REVOKE ALL ON PARAMETER log_min_messages FROM zoo_reader",
    ),
    "role's attribute": Plant("ALTER ROLE zoo_reader CREATEDB", [("role", "zoo_reader", "create databases")], "ALTER ROLE zoo_reader NOCREATEDB"),
    "role's password": Plant(
        "ALTER ROLE " + ROLE + " PASSWORD 'AnotherPassword1'",
        [("role", 'Zoo "owner"', "verifier")],
        "ALTER ROLE " + ROLE + " PASSWORD '" + zoo.VERIFIER + "'",
    ),
    "role's membership": Plant("REVOKE zoo_reader FROM " + ROLE, [("role", 'Zoo "owner"', "roles")], "GRANT zoo_reader TO " + ROLE),
    # tables
    "table missing": Plant("DROP TABLE zoo.storage", [("table", "zoo.storage", "existence")]),
    "table more": Plant("CREATE TABLE zoo.more (id serial PRIMARY KEY)", [("table", "zoo.more", "existence"), ("sequence", "zoo.more_id_seq", "existence")]),
    "logged": Plant("ALTER TABLE zoo.unlogged SET LOGGED", [("table", "zoo.unlogged", "persistence"), ("sequence", "zoo.unlogged_id_seq", "persistence")]),
    # The rows are the same.
    "columns' order": Plant(
        "ALTER TABLE zoo.storage ADD COLUMN c2 bytea; UPDATE zoo.storage SET c2 = c; ALTER TABLE zoo.storage DROP COLUMN c;"
        " ALTER TABLE zoo.storage RENAME COLUMN c2 TO c",
        [("column", "zoo.storage." + name, "position") for name in ("c", "d", '"E"', "added")],
    ),
    "type's modifier": Plant("ALTER TABLE zoo.scalars ALTER COLUMN ts TYPE timestamp(6)", [("column", "zoo.scalars.ts", "type")]),
    "default": Plant("ALTER TABLE zoo.notes ALTER COLUMN author SET DEFAULT 'x'", [("column", "zoo.notes.author", "default")]),
    "NOT NULL dropped": Plant(
        "ALTER TABLE zoo.eggs ALTER COLUMN hen DROP NOT NULL",
        [("column", "zoo.eggs.hen", "not null")],
        since_18=(("constraint", "eggs_hen_not_null on zoo.eggs", "existence"),),
    ),
    "compression": Plant("ALTER TABLE zoo.storage ALTER COLUMN b SET COMPRESSION DEFAULT", [("column", "zoo.storage.b", "compression")]),
    "storage": Plant("ALTER TABLE zoo.storage ALTER COLUMN a SET STORAGE EXTENDED", [("column", "zoo.storage.a", "storage")]),
    "statistics target": Plant("ALTER TABLE zoo.storage ALTER COLUMN d SET STATISTICS 400", [("column", "zoo.storage.d", "statistics target")]),
    "storage parameter": Plant("ALTER TABLE zoo.storage SET (fillfactor = 81)", [("table", "zoo.storage", "options")]),
    "TOAST's parameter": Plant("ALTER TABLE zoo.storage RESET (toast.autovacuum_enabled)", [("table", "zoo.storage", "toast options")]),
    "replica identity": Plant("ALTER TABLE zoo.doubles REPLICA IDENTITY DEFAULT", [("table", "zoo.doubles", "replica identity")]),
    "identity": Plant("ALTER TABLE zoo.generated ALTER COLUMN id SET GENERATED ALWAYS", [("column", "zoo.generated.id", "identity")]),
    "inheritance": Plant("ALTER TABLE zoo.child NO INHERIT zoo.other_parent", [("table", "zoo.child", "parents"), ("column", "zoo.child.extra", "local")]),
    "row-level security off": Plant("ALTER TABLE zoo.secrets DISABLE ROW LEVEL SECURITY", [("table", "zoo.secrets", "row security")]),
    "row-level security not forced": Plant("ALTER TABLE zoo.secrets NO FORCE ROW LEVEL SECURITY", [("table", "zoo.secrets", "row security forced")]),
    "policy": Plant('ALTER POLICY "Reader %" ON zoo.secrets USING (id < 11)', [("policy", '"Reader %" on zoo.secrets', "using")]),
    "policy's roles": Plant('ALTER POLICY "Reader %" ON zoo.secrets TO zoo_reader', [("policy", '"Reader %" on zoo.secrets', "roles")]),
    "constraint not valid": Plant(
        "ALTER TABLE zoo.empty DROP CONSTRAINT empty_price_check; ALTER TABLE zoo.empty ADD CONSTRAINT empty_price_check CHECK (price >= 0) NOT VALID",
        [("constraint", "empty_price_check on zoo.empty", "definition"), ("constraint", "empty_price_check on zoo.empty", "validated")],
    ),
    "foreign key missing": Plant(
        "ALTER TABLE zoo.hens DROP CONSTRAINT hens_egg",
        [("constraint", "hens_egg on zoo.hens", "existence"), ("comment", "table constraint hens_egg on zoo.hens", "existence")],
    ),
    "foreign key's triggers disabled": Plant("ALTER TABLE zoo.unproved DISABLE TRIGGER ALL", [("constraint", "unproved_hen on zoo.unproved", "its triggers")]),
    "index missing": Plant("DROP INDEX zoo.generated_brin", [("index", "zoo.generated_brin", "existence")]),
    "index invalid": Plant(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'zoo.generated_hash'::regclass", [("index", "zoo.generated_hash", "valid")]
    ),
    "index otherwise": Plant(
        "DROP INDEX zoo.wide_id; CREATE INDEX wide_id ON zoo.wide (id DESC)",
        [("index", "zoo.wide_id", "definition"), ("index", "zoo.wide_id", "clustered on")],
    ),
    "trigger disabled": Plant("ALTER TABLE zoo.notes DISABLE TRIGGER stamp_first", [("trigger", "stamp_first on zoo.notes", "enabled")]),
    "trigger always": Plant("ALTER TABLE zoo.notes ENABLE TRIGGER stamp_always", [("trigger", "stamp_always on zoo.notes", "enabled")]),
    "rule missing": Plant("DROP RULE copy_insert ON zoo.notes", [("rule", "copy_insert on zoo.notes", "existence")]),
    "comment": Plant("COMMENT ON COLUMN zoo.scalars.f8 IS 'nearly'", [("comment", "table column zoo.scalars.f8", "text")]),
    # the rest of the schema
    "view": Plant(
        "CREATE OR REPLACE VIEW zoo.plain AS SELECT id, net, gross FROM zoo.generated WHERE net > 11 ORDER BY id", [("view", "zoo.plain", "definition")]
    ),
    "view's option": Plant("ALTER VIEW zoo.joined RESET (security_barrier)", [("view", "zoo.joined", "options")]),
    "enum's label": Plant("ALTER TYPE zoo.mood RENAME VALUE 'sad' TO 'blue'", [("type", "zoo.mood", "labels"), *content_of("zoo.own_types")]),
    "domain's check": Plant("ALTER DOMAIN zoo.code DROP CONSTRAINT code_form", [("constraint", "code_form on domain zoo.code", "existence")]),
    "function's body": Plant(
        "CREATE OR REPLACE FUNCTION zoo.after() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL ; END'", [("function", "zoo.after()", "body")]
    ),
    "function's setting": Plant("ALTER FUNCTION zoo.who() RESET work_mem", [("function", "zoo.who()", "settings")]),
    "function's security": Plant("ALTER FUNCTION zoo.who() SECURITY INVOKER", [("function", "zoo.who()", "security definer")]),
    "unaccent's volatility": Plant("ALTER FUNCTION public.unaccent(text) STABLE", [("extension function", "public.unaccent(text)", "volatility")]),
    "extension missing": Plant(
        "DROP EXTENSION citext CASCADE",
        [
            ("extension", "citext", "existence"),
            ("comment", "extension citext", "existence"),
            ("column", "zoo.scalars.ci", "existence"),
            *content_of("zoo.scalars"),
        ],
    ),
    "event trigger": Plant("ALTER EVENT TRIGGER zoo_watch_drop ENABLE", [("event trigger", "zoo_watch_drop", "enabled")]),
    "operator missing": Plant(
        "DROP OPERATOR zoo.>># (text, text)",
        [
            ("operator", "zoo.>>#(text,text)", "existence"),
            ("operator", "zoo.<<#(text,text)", "commutator"),
            ("comment", "operator zoo.>>#(pg_catalog.text,pg_catalog.text)", "existence"),
        ],
    ),
    "aggregate": Plant(
        "CREATE OR REPLACE AGGREGATE zoo.multiply (double precision) (SFUNC = float8mul, STYPE = double precision, INITCOND = '2')",
        [("aggregate", "zoo.multiply(double precision)", "aggregate")],
    ),
    "cast missing": Plant("DROP CAST (zoo.mood AS integer)", [("cast", "(zoo.mood AS integer)", "existence")]),
    "text search mapping": Plant(
        "ALTER TEXT SEARCH CONFIGURATION zoo.english_plain DROP MAPPING FOR asciiword",
        [("text search configuration", "zoo.english_plain", "mappings")],
    ),
    "statistics object": Plant("ALTER STATISTICS zoo.generated_stats SET STATISTICS 10", [("statistics", "zoo.generated_stats", "statistics target")]),
    "schema's privileges": Plant("REVOKE USAGE ON SCHEMA zoo FROM zoo_reader", [("schema", "zoo", "acl")]),
    "schema public's owner": Plant("ALTER SCHEMA public OWNER TO zoo_reader", [("schema", "public", "owner"), ("schema", "public", "acl")]),
}


def ground(plant: Plant) -> Set[str]:
    """The tables and other things that a plant is about: two of them on the same ground could not be told apart."""
    names = {name.rpartition(" on ")[2] for _kind, name, _what in plant.found}
    return {re.sub(r"^((table column |view column )?zoo\.\w+)\..*", r"\1", name) for name in names}


def together() -> List[List[str]]:
    """Plants by as many as one copy of the zoo can bear, since a fresh copy costs more than a comparison."""
    batches: List[Tuple[List[str], Set[str]]] = []
    for name, plant in PLANTS.items():
        mine = ground(plant)
        names, taken = next((batch for batch in batches if not batch[1] & mine), ([], set()))
        if not names:
            batches.append((names, taken))
        names.append(name)
        taken |= mine
    return [names for names, _taken in batches]


@on(MIXED, NEWEST)
@pytest.mark.parametrize("names", together(), ids=lambda names: "{0} and {1} more".format(names[0], len(names) - 1))
def test_planted_differences_are_found_and_named(pair: Pair, names: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pair.fresh()
    try:
        for name in names:
            run(pair.target, DATABASE, PLANTS[name].sql)
        result = pair.call()
        # As if the servers did not agree on the hash of a record.
        monkeypatch.setattr(_compare, "PROBE", "SELECT random()")
        by_text = pair.call()
    finally:
        for name in names:
            run(pair.target, "postgres", PLANTS[name].undo or "SELECT 1")
    found: Set[Tuple[str, str, str]] = {(one["kind"], one["name"], one["what"]) for one in result["differences"]}
    assert found == {(one["kind"], one["name"], one["what"]) for one in by_text["differences"]}
    assert result["proof"]["tables"] != by_text["proof"]["tables"]
    wanted = {name: set(PLANTS[name].found) | set(PLANTS[name].since_18 if pair.source.version >= 180000 else ()) for name in names}
    assert {name: sorted(those - found) for name, those in wanted.items() if those - found} == {}
    assert found - {one for those in wanted.values() for one in those} == set()
    assert result["difference_count"] == len(found) and not result["equal"] and not result["proof"]["equal"]
    assert "SCRAM" not in json.dumps(result)


# --- other names, other ways in


@on(MIXED)
def test_roles_and_database_may_have_other_names(pair: Pair) -> None:
    pair.fresh()
    renamed = (("DATABASE " + DB, 'DATABASE "other"'), ("ROLE " + ROLE, 'ROLE "Other owner"'), ("ROLE zoo_reader", 'ROLE "other_reader"'))
    # The marks that tenant_database leaves name the database.
    run(pair.source, "postgres", "COMMENT ON ROLE {0} IS 'saasodoo.postgres_pools owner of one'".format(ROLE))
    run(pair.target, "postgres", "COMMENT ON ROLE {0} IS 'saasodoo.postgres_pools owner of other'".format(ROLE))
    try:
        for was, now in renamed:
            run(pair.target, "postgres", "ALTER {0} RENAME TO {1}".format(was, now.partition(" ")[2]))
        here, there = side(pair.source, DATABASE, owner=OWNER), side(pair.target, "other", owner="Other owner")
        found = call(here, there, role_map={"zoo_reader": "other_reader"})
        assert found["differences"] == []
        lost = call(dict(here, owner=None), there)["differences"]
        assert {("role", "zoo_reader", "existence"), ("database", "", "owner")} < {(one["kind"], one["name"], one["what"]) for one in lost}
        swapped = call(here, there, role_map={"zoo_reader": "Other owner", OWNER: "other_reader"})
        assert ("table", "zoo.notes", "owner") in {(one["kind"], one["name"], one["what"]) for one in swapped["differences"]}
    finally:
        for was, now in renamed:
            run(pair.target, "postgres", "ALTER {0} RENAME TO {1}".format(now, was.partition(" ")[2]))
        for server in pair:
            run(server, "postgres", "COMMENT ON ROLE {0} IS NULL".format(ROLE))


@on(MIXED)
def test_a_database_that_refuses_writes_is_read_and_left_as_it_was(pair: Pair) -> None:
    pair.fresh()
    written = "SELECT max(oid) FROM pg_class UNION ALL SELECT count(*) FROM pg_class"
    states = []
    try:
        for server in pair:
            run(server, "postgres", "ALTER DATABASE {0} SET default_transaction_read_only = on".format(DB))
        for _time in range(2):
            with contextlib.closing(pair.target.connect(DATABASE)) as connection, connection.cursor() as cursor:
                cursor.execute(written)
                states.append(cursor.fetchall())
            assert pair.call()["differences"] == []
    finally:
        for server in pair:
            run(server, "postgres", "ALTER DATABASE {0} RESET default_transaction_read_only".format(DB))
    assert states[0] == states[1]


@on(MIXED)
def test_ignore_and_data_say_what_counts(pair: Pair) -> None:
    pair.fresh()
    run(
        pair.target,
        DATABASE,
        "UPDATE zoo.wide SET fill = 'x' WHERE id = 1",
        "COMMENT ON SCHEMA zoo IS NULL",
        "ALTER TABLE zoo.notes DISABLE TRIGGER stamp_first",
    )
    assert pair.call(max_differences=1)["difference_count"] == 3
    assert len(pair.call(max_differences=1)["differences"]) == 1
    assert pair.call(ignore=["comment", "table zoo.wide", "trigger.enabled"])["equal"]
    assert [one["kind"] for one in pair.call(ignore=["zoo.wide", "schema zoo"])["differences"]] == ["trigger"]
    assert [one["kind"] for one in pair.call(data="count")["differences"]] == ["comment", "trigger"]
    run(pair.target, DATABASE, "DELETE FROM zoo.wide WHERE id = 1")
    assert [one["what"] for one in pair.call(data="count", ignore=["comment", "trigger"])["differences"]] == ["rows"]
    assert pair.call(data="none", ignore=["comment", "trigger"])["equal"]


@on(MIXED)
def test_what_cannot_be_compared_is_said(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = side(pair.source, DATABASE), side(pair.target, DATABASE)
    with pytest.raises(PoolsError, match=r"Cannot connect to database 'gone'.*does not exist"):
        call(here, dict(there, database="gone"))
    with pytest.raises(PoolsError, match=r"Cannot connect.*login_"):
        call(dict(here, login_port=free_port()), there)
    with pytest.raises(PoolsError, match="Source and target are the same"):
        call(here, dict(here, login_host="localhost"))
    with pytest.raises(PoolsError, match="jobs is 0"):
        call(here, there, jobs=0)
    run(pair.target, "postgres", "CREATE ROLE weak LOGIN PASSWORD 'weak'; GRANT {0} TO weak; CREATE ROLE {1}; GRANT {1} TO weak".format(ROLE, DB))
    try:
        with pytest.raises(PoolsError, match="'weak' is no superuser"):
            call(here, dict(there, login_user="weak", login_password="weak"))
    finally:
        run(pair.target, "postgres", "DROP ROLE weak; DROP ROLE {0}".format(DB))
    monkeypatch.setitem(_compare_session._SETTINGS, "lock_timeout", "300ms")
    with contextlib.closing(pair.target.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE zoo.wide")
        with pytest.raises(PoolsError, match=r"target database .*lock timeout after 300ms, held: zoo.wide"):
            call(here, there)


@on(MIXED)
def test_the_module_tells_and_fails_when_asked_to(pair: Pair, tmp_path: Path) -> None:
    pair.fresh()

    def module(**more: Any) -> Dict[str, Any]:
        arguments = {"source": side(pair.source, DATABASE), "target": side(pair.target, DATABASE), "_ansible_check_mode": True}
        given = tmp_path / "arguments.json"
        given.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": dict(arguments, **more)}))
        command = [sys.executable, "-m", "ansible_collections.saasodoo.postgres_pools.plugins.modules.database_compare", str(given)]
        done = subprocess.run(command, env=dict(os.environ, PYTHONPATH=str(ROOT / ".build")), capture_output=True, text=True, check=False)
        assert pair.source.password not in done.stdout + done.stderr
        return dict(json.loads(done.stdout), rc=done.returncode)

    key = base64.urlsafe_b64encode(os.urandom(32)).decode()
    encrypted = dict(side(pair.source, DATABASE), login_password=None, login_password_encrypted=Cipher([key]).encrypt(pair.source.password))
    told = module(source=encrypted, secret_keys=[key])
    assert (told["rc"], told["changed"], told["equal"], told["differences"]) == (0, False, True, [])
    run(pair.target, DATABASE, "DELETE FROM zoo.wide WHERE id = 1")
    told = module(fail_on_difference=True, ignore=["table.checksum"])
    assert told["rc"] == 1 and told["failed"] and told["msg"] == "The databases differ in 1 places, first in table zoo.wide: rows."
    assert told["differences"] == [{"kind": "table", "name": "zoo.wide", "what": "rows", "source": "20000", "target": "19999"}]
    told = module(target=side(pair.target, "gone"))
    assert told["rc"] == 1 and "Cannot connect to database 'gone'" in told["msg"]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant with everything that PostgreSQL has, moved on the Swarm from a pool to a server of its own and to a pool, over TLS and out of the client host, a
writer at work until it is thrown out; and brought back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
from swarm_fixture import ROOT, Bed

sys.path.insert(0, str(ROOT / "tests" / "integration"))
import picture_fixture
import zoo_fixture

POOLS = {15: "postgres-pool-zoo-15", 18: "postgres-pool-zoo-18"}
TABLES = 3000
# The tables of the writer, which is still at work when the picture is taken.
WRITTEN = ("public.numbered", "public.counted")
# Of each table, materialized view and sequence a digest of its rows, and of each large object one of its bytes, as JSON. A query in a query is what
# query_to_xml is for: so one statement reads them all, whatever their names.
_ROWS = """
SELECT json_object_agg(name, told) FROM (
  SELECT c.oid::regclass::text AS name, (xpath('/row/told/text()', query_to_xml(format(
      $$SELECT count(*) || ' ' || coalesce(md5(string_agg(x, ' ' ORDER BY x COLLATE "C")), '') AS told
        FROM (SELECT textin(record_out(ROW(%s))) AS x FROM ONLY %s t) y$$,
      CASE c.relkind WHEN 'S' THEN 'last_value, is_called' ELSE 't' END, c.oid::regclass), false, true, '')))[1]::text AS told
  FROM pg_class c WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence <> 't' AND c.relispopulated
    AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  UNION ALL SELECT 'large object ' || oid, md5(lo_get(oid)) || coalesce(obj_description(oid, 'pg_largeobject'), '') FROM pg_largeobject_metadata) found
"""
# Of these the zoo sets some for its database, so that whoever reads values as they are shown is led astray.
_SETTINGS = "-c search_path=pg_catalog -c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=3 -c bytea_output=hex"


def good(done: Any) -> str:
    assert done.returncode == 0, done.stdout[-4000:]
    return str(done.stdout)


class Keeper:
    """Whoever fills the zoo and looks at it: the administrator, with the programs inside a server's container."""

    def __init__(self, bed: Bed, server: str) -> None:
        self._bed = bed
        self._node, self._container = bed.container(server)

    def ask(self, database: str, *statements: str) -> str:
        """Each in one transaction, however many statements it is."""
        command = ["psql", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAt"]
        given = [part for statement in statements for part in ("-c", statement)]
        return self._bed.inside(self._node, self._container, "env", "PGCLIENTENCODING=UTF8", "PGOPTIONS=" + _SETTINGS, *command, *given).strip()

    def fill(self, database: str, owner: str) -> None:
        reader, writer, mine = (zoo_fixture.quoted(name) for name in (zoo_fixture.READER, zoo_fixture.WRITER, owner))
        roles = ["CREATE ROLE {0} NOLOGIN".format(reader), "CREATE ROLE {0} NOLOGIN NOINHERIT CONNECTION LIMIT 3".format(writer)]
        there = self.ask("postgres", "SELECT 1 FROM pg_roles WHERE rolname = '{0}'".format(zoo_fixture.READER))
        granted = ["GRANT {0} TO {1}".format(reader, mine), "ALTER ROLE {0} SET statement_timeout = '1h'".format(mine)]
        self.ask("postgres", *([] if there else roles), *granted, *zoo_fixture.settling(database, owner))
        for role, statements in zoo_fixture.parts(owner, icu=True):
            acting = "SET SESSION AUTHORIZATION {0};".format(zoo_fixture.quoted(role)) if role else ""
            self.ask(database, acting + statements)

    def small_tables(self, database: str, owner: str) -> None:
        for statements in zoo_fixture.small(TABLES):
            self.ask(database, "SET SESSION AUTHORIZATION {0};".format(zoo_fixture.quoted(owner)) + statements)

    def see(self, database: str, same: bool) -> Dict[str, Any]:
        """By ways that share nothing with the copy or the comparison: without the writer's tables, and without what a move changes on purpose."""
        rows = dict(json.loads(self.ask(database, _ROWS)))
        for name in WRITTEN:
            rows.pop(name)
        script = 'pg_dump -U postgres -s -Fc "$1" | pg_restore {0}'.format("-f -" if same else "-l")
        text = self._bed.inside(self._node, self._container, "sh", "-c", script, "sh", database)
        return {"rows": rows, "schema": picture_fixture.lines(text, same), **self._around(database)}

    def _around(self, database: str) -> Dict[str, List[Dict[str, Any]]]:
        found: Dict[str, List[Dict[str, Any]]] = {}
        for what, query in picture_fixture.AROUND.items():
            asked = query.replace("%(name)s", "'{0}'".format(database)).replace("%%", "%")
            found[what] = json.loads(self.ask(database, "SELECT coalesce(json_agg(found), '[]') FROM ({0}) found".format(asked)))
        for name in ("datconnlimit", "rolconnlimit", "setconfig"):
            # The plan's limits.
            for one in found["database"] + found["owner"]:
                one.pop(name, None)
        # Other tenants of the server have such roles too.
        mine = (found["owner"][0]["rolname"], database)
        found["members"] = [one for one in found["members"] if one["member"].strip('"') in mine]
        return found


class Writer:
    """A tenant's client in a container that commits numbered rows until its connection is taken away; what the server acknowledged it writes down."""

    SCRIPT = (
        'number=$1; while :; do number=$((number + 1)); echo "WITH c AS (UPDATE public.counted SET number = number + 1)'
        ' INSERT INTO public.numbered VALUES ($number) RETURNING number;"; done | psql -qAtX -v ON_ERROR_STOP=1 2>&1'
    )

    def __init__(self, bed: Bed, login: Dict[str, Any], log: Path, already: int) -> None:
        self._log = log
        self.acknowledged = self.begun = already
        with log.open("wb") as output:
            command = [*bed.outer, "exec", "sw1", *bed.as_tenant(login, self.SCRIPT, str(already))]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self) -> Writer:
        limit = time.monotonic() + 60
        while self._numbers() < [self.begun + 20] and self._process.poll() is None and time.monotonic() < limit:
            time.sleep(0.2)
        assert self._numbers() >= [self.begun + 20], self._log.read_text()[-1000:]
        return self

    def __exit__(self, *unused: object) -> None:
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
        assert "terminating connection" in self._log.read_text()
        self.acknowledged = self._numbers()[-1]

    def _numbers(self) -> List[int]:
        # The last line may be half written.
        return [int(line) for line in self._log.read_text().rpartition("\n")[0].splitlines() if line.isdigit()][-1:]


class Tenant:
    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed, self.folder = bed, folder
        self.id = str(uuid.uuid4())
        self.plan = "free"
        self.before = self.connection()

    def connection(self) -> Dict[str, Any]:
        result_file = self.folder / "result.json"
        good(self.bed.play("allocate", instance_id=self.id, customer_id=self.id, plan_tier=self.plan, result_file=str(result_file)))
        return dict(json.loads(result_file.read_text()))

    def last_move(self) -> Dict[str, Any]:
        return self.bed.sql(
            "SELECT m.status, m.proof FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id"
            " WHERE a.instance_id = '{0}' ORDER BY m.created_at DESC LIMIT 1".format(self.id)
        )[0]

    def changes_to(self, plan: str, same: bool) -> Dict[str, Any]:
        """Its connection after a move with a writer, of which nothing was lost; the proof of it was kept."""
        database, here = self.before["database"], self.connection()
        picture = Keeper(self.bed, here["server"]).see(database, same)
        already = int(self.bed.query_from("sw1", here, "SELECT number FROM public.counted"))
        with Writer(self.bed, here, self.folder / "writer", already) as writer:
            good(self.bed.play("change_plan", instance_id=self.id, plan_tier=plan, trust_code=True, limit=600))
        self.plan = plan
        there = self.connection()
        assert there["server"] != here["server"]
        assert [there[key] for key in ("database", "user", "password")] == [self.before[key] for key in ("database", "user", "password")]
        asked = "SELECT count(*), max(number), (SELECT number FROM public.counted) FROM public.numbered"
        count, highest, counted = map(int, self.bed.query_from("sw2", there, asked).split("|"))
        assert count == highest == counted and count in (writer.acknowledged, writer.acknowledged + 1) and count > already
        assert Keeper(self.bed, there["server"]).see(database, same) == picture
        move = self.last_move()
        assert move["status"] == "completed" and move["proof"]["equal"] and move["proof"]["difference_count"] == 0
        tables = move["proof"]["table_count"]
        assert tables >= len(picture["rows"]) / 3 and 0 < move["proof"]["downtime_seconds"] < (120 if tables < TABLES else 900)
        return there

    def goes_back(self, server: str, picture: Dict[str, Any], same: bool) -> None:
        """To *server*, where nothing has changed meanwhile, and works in it."""
        good(self.bed.play("rollback", instance_id=self.id, limit=600))
        self.plan = self.bed.sql("SELECT plan_tier FROM db_allocations WHERE instance_id = '{0}'".format(self.id))[0]["plan_tier"]
        after = self.connection()
        assert after["server"] == server
        assert Keeper(self.bed, server).see(self.before["database"], same) == picture
        assert self.bed.query_from("sw1", after, NOTED) == "3|t"
        self.bed.query_from("sw1", after, "DELETE FROM zoo.notes WHERE id = 3; SELECT setval('zoo.notes_id_seq', 2)")


# A trigger, an identity and a row-level policy are at work for the tenant.
NOTED = "INSERT INTO zoo.notes (note) VALUES ('moved') RETURNING id, note LIKE 'moved stamped%'"


@pytest.fixture(scope="module")
def zoo(bed: Bed) -> Iterator[Bed]:
    small = "cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20, connections = 4, storage_bytes = 1::bigint << 30"
    bed.sql_do("UPDATE db_plans SET {0} WHERE plan_tier IN ('free', 'premium')".format(small))
    others = bed.sql("SELECT name FROM db_servers WHERE server_type = 'shared' AND allocation_strategy = 'auto'")
    choose(bed, None)
    for major, name in POOLS.items():
        good(bed.play("provision_pool", server=name, postgres_pools_image="postgres:{0}".format(major)))
    yield bed
    choose(bed, None)
    for other in others:
        bed.sql_do("UPDATE db_servers SET allocation_strategy = 'auto' WHERE name = '{0}'".format(other["name"]))


def choose(bed: Bed, pool: Optional[str]) -> None:
    """Whoever comes to a pool comes to this one."""
    bed.sql_do("UPDATE db_servers SET allocation_strategy = CASE WHEN name = '{0}' THEN 'auto' ELSE 'manual' END WHERE server_type = 'shared'".format(pool))


@pytest.mark.parametrize("major", POOLS)
def test_from_a_pool_to_a_server_of_its_own_and_to_a_pool(zoo: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str], major: int) -> None:
    seconds = [time.monotonic()]
    choose(zoo, POOLS[major])
    tenant = Tenant(zoo, tmp_path)
    begun = tenant.before
    assert begun["server"] == POOLS[major]
    assert zoo.query_from("sw2", begun, "SELECT current_setting('server_version_num')::int / 10000") == str(major)
    keeper, database = Keeper(zoo, begun["server"]), begun["database"]
    keeper.fill(database, begun["user"])
    zoo.query_from("sw1", begun, "CREATE TABLE public.numbered (number bigint PRIMARY KEY); CREATE TABLE public.counted AS SELECT 0::bigint AS number")
    seconds.append(time.monotonic())

    own = tenant.changes_to("premium", major == 18)
    assert zoo.query_from("sw2", own, "SELECT current_setting('server_version_num')::int / 10000") == "18"
    # The tenant works there with all of it; and nothing but a sequence went on since, which is put back, so that both are equal again.
    assert zoo.query_from("sw2", own, "BEGIN; {0}; ROLLBACK".format(NOTED)) == "3|t"
    there = Keeper(zoo, own["server"])
    there.ask(database, "SELECT setval('zoo.notes_id_seq', 2)")
    seconds.append(time.monotonic())
    if major == 15:
        picture = there.see(database, False)
        assert len(picture["rows"]) > 50 and picture["rows"]["zoo.wide"].startswith("20000 "), picture["rows"]
        tenant.goes_back(begun["server"], picture, False)
        own = tenant.changes_to("premium", False)
        there = Keeper(zoo, own["server"])
    seconds.append(time.monotonic())

    # Each of their files is an answer of the MDS: once is enough.
    if major == 15:
        there.small_tables(database, begun["user"])
    else:
        picture = there.see(database, True)
    seconds.append(time.monotonic())
    choose(zoo, POOLS[18])
    pooled = tenant.changes_to("free", True)
    assert pooled["server"] == POOLS[18]
    seconds.append(time.monotonic())
    if major == 15:
        assert zoo.query_from("sw2", pooled, "SELECT nextval('zoo.small_{0:05d}_id_seq')".format(TABLES - 1)) == "4"
    else:
        tenant.goes_back(own["server"], picture, True)
    told = ["{0:.0f}".format(after - before) for before, after in zip(seconds, seconds[1:])]
    with capsys.disabled():
        print("\nfrom {0}: filled, moved up, back and up again, filled with {1} tables, moved down: {2} s".format(major, TABLES, ", ".join(told)))

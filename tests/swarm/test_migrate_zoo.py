# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant with everything that PostgreSQL has, moved on the Swarm from PostgreSQL 15 to 18 and brought back."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, List

from swarm_fixture import ROOT, Bed

sys.path.insert(0, str(ROOT / "tests" / "integration"))
import zoo_fixture

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

    def ask(self, database: str, statement: str) -> str:
        """In one transaction, however many statements it is."""
        command = ["psql", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", statement]
        return self._bed.inside(self._node, self._container, "env", "PGCLIENTENCODING=UTF8", "PGOPTIONS=" + _SETTINGS, *command).strip()

    def fill(self, database: str, owner: str) -> None:
        reader, writer, mine = (zoo_fixture.quoted(name) for name in (zoo_fixture.READER, zoo_fixture.WRITER, owner))
        roles = ["CREATE ROLE {0} NOLOGIN".format(reader), "CREATE ROLE {0} NOLOGIN NOINHERIT CONNECTION LIMIT 3".format(writer)]
        roles += ["GRANT {0} TO {1}".format(reader, mine), "ALTER ROLE {0} SET statement_timeout = '1h'".format(mine)]
        for statement in (*roles, *zoo_fixture.settling(database, owner)):
            self.ask("postgres", statement)
        for role, statements in zoo_fixture.parts(owner, icu=True):
            acting = "SET SESSION AUTHORIZATION {0};".format(zoo_fixture.quoted(role)) if role else ""
            self.ask(database, acting + statements)

    def rows(self, database: str) -> Dict[str, str]:
        return dict(json.loads(self.ask(database, _ROWS)))

    def objects(self, database: str) -> List[str]:
        """The table of contents of what pg_dump writes, without the numbers that are each server's own."""
        script = 'pg_dump -U postgres -s -Fc "$1" | pg_restore -l'
        listed = self._bed.inside(self._node, self._container, "sh", "-c", script, "sh", database)
        return sorted(line.split(" ", 3)[-1] for line in listed.splitlines() if line and not line.startswith(";"))

    def forget_roles(self) -> None:
        """Those that nothing holds any more, and that the next test would wonder at."""
        for name in (zoo_fixture.READER, zoo_fixture.WRITER):
            self.ask("postgres", "DROP ROLE IF EXISTS " + zoo_fixture.quoted(name))


def test_the_zoo_moves_to_a_newer_major_and_back(bed: Bed, tmp_path: Path) -> None:
    small = "cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20, connections = 4, storage_bytes = 1::bigint << 30"
    bed.sql_do("UPDATE db_plans SET {0} WHERE plan_tier IN ('free', 'premium')".format(small))
    instance_id, result_file = str(uuid.uuid4()), tmp_path / "result.json"
    request: Dict[str, Any] = {"instance_id": instance_id, "customer_id": instance_id, "result_file": str(result_file)}

    def connection() -> Dict[str, Any]:
        good(bed.play("allocate", plan_tier="premium", **request))
        return dict(json.loads(result_file.read_text()))

    good(bed.play("allocate", plan_tier="premium", postgres_pools_image="postgres:15", **request))
    before = connection()
    database, owner = before["database"], before["user"]
    keeper = Keeper(bed, before["server"])
    keeper.fill(database, owner)
    bed.query_from("sw1", before, "CREATE TABLE public.numbered AS SELECT n AS number FROM generate_series(1, 50000) n")
    rows, objects = keeper.rows(database), keeper.objects(database)
    assert len(rows) > 50 and rows["zoo.wide"].startswith("20000 "), rows

    good(bed.play("change_plan", instance_id=instance_id, plan_tier="free", trust_code=True, limit=600))
    pooled = connection()
    assert pooled["server"] != before["server"] and (pooled["database"], pooled["user"], pooled["password"]) == (database, owner, before["password"])
    assert bed.query_from("sw2", pooled, "SELECT current_setting('server_version_num')::int / 10000") == "18"
    there = Keeper(bed, pooled["server"])
    assert there.rows(database) == rows
    assert there.objects(database) == objects
    move = bed.sql(
        "SELECT m.status, m.proof FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id WHERE a.instance_id = '{0}'".format(instance_id)
    )[0]
    assert move["status"] == "completed" and move["proof"]["equal"] and move["proof"]["difference_count"] == 0
    # The tenant works there with all of it: a trigger, an identity and a row-level policy are at work for it.
    noted = "INSERT INTO zoo.notes (note) VALUES ('moved') RETURNING id, note LIKE 'moved stamped%'"
    assert bed.query_from("sw2", pooled, "BEGIN; {0}; ROLLBACK".format(noted)) == "3|t"

    # Nothing but a sequence went on since; it is put back, so that both are equal again.
    there.ask(database, "SELECT setval('zoo.notes_id_seq', 2)")
    good(bed.play("rollback", instance_id=instance_id, limit=600))
    after = connection()
    assert after["server"] == before["server"]
    assert keeper.rows(database) == rows
    assert keeper.objects(database) == objects
    assert bed.query_from("sw1", after, noted) == "3|t"
    there.forget_roles()

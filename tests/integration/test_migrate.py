# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tenants moved by change_plan.yml, migrate.yml and rollback.yml, with a writer at work until it is thrown out: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

import psycopg2
import pytest
from environment import Environment, connect, environment, instances

# The steps of a move and of its way back, each with its seconds.
FORWARD = ["checked", "prepared", "stopped", "closed", "copied", "compared", "cutover", "opened", "started", "put aside"]
BACK = ["fetched back", "compared again", "reopened", "restarted", "copy dropped"]
# Short, so that a second run soon takes over what a killed one began.
LEASED = {"tenant_migration_lease_seconds": 4}


class Tenant:
    """One instance with a table of numbered rows."""

    def __init__(self, scratch: Environment, plan: str = "standard") -> None:
        self.scratch = scratch
        self.request = dict(instances(1)[0], plan_tier=plan)
        self.id = self.request["instance_id"]
        scratch.play("allocate", self.request).succeeded()
        self.do("CREATE TABLE numbered (number bigint PRIMARY KEY, told text); CREATE TABLE counted AS SELECT 0 AS number")

    @property
    def row(self) -> Dict[str, Any]:
        return self.scratch.rows(
            "SELECT a.*, s.name AS server, s.host, s.port FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = %s",
            (self.id,),
        )[0]

    def connect(self) -> Any:
        row = self.row
        return connect(row["host"], row["port"], row["database_name"], row["role_name"], str(self.scratch.password(self.id)))

    def do(self, statement: str) -> List[Any]:
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def move(self, playbook: str = "migrate", *flags: str, **variables: Any) -> Any:
        return self.scratch.play(playbook, dict(variables, instance_id=self.id, **LEASED), *flags)

    def last_move(self) -> Dict[str, Any]:
        return self.scratch.rows("SELECT * FROM db_tenant_migrations WHERE allocation_id = %s ORDER BY created_at DESC LIMIT 1", (self.row["id"],))[0]


class Writer:
    """Commits numbered rows over one connection until it is taken away; what the server acknowledged is remembered here."""

    def __init__(self, tenant: Tenant) -> None:
        self.acknowledged = 0
        self.ended: Optional[float] = None
        self._connection = tenant.connect()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        try:
            with self._connection.cursor() as cursor:
                while True:
                    cursor.execute("INSERT INTO numbered VALUES (%s, 'x'); UPDATE counted SET number = number + 1", (self.acknowledged + 1,))
                    self.acknowledged += 1
        except psycopg2.Error:
            self.ended = time.monotonic()

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._thread.join(10)
        self._connection.close()
        assert self.ended, "the move never took its connection away"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as here:
        yield here.ready()


def written(tenant: Tenant, writer: Writer) -> None:
    """All that was acknowledged is there, once, and no more than the one that was under way beside it."""
    count, highest, counted = tenant.do("SELECT count(*), max(number), (SELECT number FROM counted) FROM numbered")[0]
    assert writer.acknowledged > 0
    assert count == highest == counted and count in (writer.acknowledged, writer.acknowledged + 1)


def left_behind(scratch: Environment) -> List[str]:
    """Databases that no row accounts for."""
    unknown = []
    for server in scratch.servers():
        if server["status"] not in ("active", "full"):
            continue
        known = scratch.rows(
            "SELECT CASE WHEN status IN ('active', 'migrating') THEN database_name ELSE quarantine_name END AS name FROM db_allocations WHERE server_id = %s"
            " UNION SELECT source_database FROM db_tenant_migrations WHERE source_server_id = %s AND status = 'completed' AND retained_until IS NOT NULL",
            (server["id"], server["id"]),
        )
        unknown += [one["name"] for one in scratch.contents(server)["databases"] if one["name"] not in {row["name"] for row in known}]
    return unknown


def test_up_to_a_server_of_its_own_and_back(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    pool, password = tenant.row["server"], scratch.password(tenant.id)
    result = scratch.home / "moved.json"
    told = tenant.move("change_plan", "--check", plan_tier="premium").succeeded()
    assert told.stats["server"].startswith("postgres-dedicated") and tenant.row["status"] == "active"
    with Writer(tenant) as writer:
        moved = tenant.move("change_plan", plan_tier="premium", result_file=str(result)).succeeded()
    row = tenant.row
    assert (moved.stats["status"], row["status"], row["plan_tier"]) == ("moved", "active", "premium")
    assert json.loads(result.read_text())["server"] == row["server"] == moved.stats["server"] != pool
    assert scratch.password(tenant.id) == password
    written(tenant, writer)
    move = tenant.last_move()
    assert move["status"] == "completed" and move["proof"]["equal"] and move["proof"]["downtime_seconds"] > 0
    assert [one["step"] for one in move["steps"]] == FORWARD and set(moved.stats["steps"]) == set(FORWARD)
    # Every second of it is some step's, and those without writes end where the tenant is let in.
    assert sum(moved.stats["steps"].values()) <= moved.seconds and all(seconds >= 0 for seconds in moved.stats["steps"].values())
    without = [moved.stats["steps"][name] for name in ("closed", "copied", "compared", "cutover", "opened")]
    assert moved.stats["downtime_seconds"] == move["proof"]["downtime_seconds"] == pytest.approx(sum(without), abs=1)
    # Asked again, there is nothing to do.
    assert tenant.move("change_plan", plan_tier="premium").succeeded().changed == 0
    assert tenant.do("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user") == [(row["connections"],)]
    # Down again, to a pool by its plan.
    with Writer(tenant) as _second:
        tenant.move("change_plan", plan_tier="standard").succeeded()
    assert tenant.row["server"].startswith("postgres-pool")
    assert left_behind(scratch) == []


def test_a_move_is_undone_within_its_time(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    before = tenant.row["server"]
    tenant.do("INSERT INTO numbered VALUES (1, 'x')")
    tenant.move("change_plan", plan_tier="premium").succeeded()
    back = tenant.move("rollback").succeeded().stats
    assert back["status"] == "rolled_back" and [one["step"] for one in tenant.last_move()["steps"]] == FORWARD + BACK
    row = tenant.row
    assert (row["server"], row["plan_tier"], row["status"]) == (before, "standard", "active")
    assert tenant.do("INSERT INTO numbered VALUES (2, 'y') RETURNING number") == [(2,)]
    assert tenant.move("rollback").succeeded().changed == 0
    # With new data in the new place it stays there, and says how to take them along.
    tenant.move("change_plan", plan_tier="premium").succeeded()
    tenant.do("INSERT INTO numbered VALUES (3, 'z')")
    refused = tenant.move("rollback")
    said = " ".join(refused.output.split())
    assert refused.rc != 0 and "it was written to since the move" in said
    assert tenant.row["server"].startswith("postgres-dedicated") and tenant.row["status"] == "active"
    assert tenant.do("INSERT INTO numbered VALUES (4, 'z') RETURNING number") == [(4,)]
    assert left_behind(scratch) == []
    # What it says to do brings the tenant back with the new data.
    playbook, variables = advised(said)
    assert playbook == "change_plan" and variables["plan_tier"] == "standard"
    assert scratch.play(playbook, dict(variables, **LEASED)).succeeded().stats["status"] == "moved"
    row = tenant.row
    assert row["server"].startswith("postgres-pool") and (row["plan_tier"], row["status"]) == ("standard", "active")
    assert tenant.do("SELECT array_agg(number ORDER BY number) FROM numbered") == [([1, 2, 3, 4],)]


def advised(said: str) -> Tuple[str, Dict[str, str]]:
    """The playbook and the variables of the command that a refusal ends with."""
    found = re.search(r"Take the new data along with playbooks/(\w+)\.yml((?: -e \w+=[\w-]+)+)", said)
    assert found, said
    return found.group(1), dict(one.split("=", 1) for one in found.group(2).split() if one != "-e")


def test_with_the_same_plan_the_new_data_go_back_to_the_server_they_came_from(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    before = tenant.row["server"]
    tenant.do("INSERT INTO numbered VALUES (1, 'x')")
    tenant.move().succeeded()
    tenant.do("INSERT INTO numbered VALUES (2, 'y')")
    refused = tenant.move("rollback")
    said = " ".join(refused.output.split())
    playbook, variables = advised(said)
    assert refused.rc != 0 and (playbook, variables["target"]) == ("migrate", before)
    # There the old copy still lies under its other name.
    assert scratch.play(playbook, dict(variables, **LEASED)).succeeded().stats["server"] == before == tenant.row["server"]
    assert tenant.do("SELECT array_agg(number ORDER BY number) FROM numbered") == [([1, 2],)]
    assert left_behind(scratch) == []


def test_an_application_is_pointed_at_the_new_place_or_brought_back(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    before = tenant.row
    settings, works = scratch.home / "odoo.conf", scratch.home / "works"
    settings.write_text("[options]\n; kept\ndb_host = {host}\ndb_port = {port}\nworkers = 2\n".format(**before))
    keys = {"db_host": "host", "db_port": "port"}
    start = [{"name": "see that it works", "command": ["ls", str(works)]}]
    application = {"file": [{"path": str(settings), "keys": keys}], "hooks": {"start": start}}
    # It does not start in the new place: back, with its settings as they were, and writing.
    kept = settings.read_text()
    refused = tenant.move("change_plan", plan_tier="premium", application=application)
    said = " ".join(refused.output.split())
    assert refused.rc != 0 and "is back on {0}".format(before["server"]) in said and "see that it works failed" in said
    assert (tenant.row["server"], tenant.row["status"], tenant.row["plan_tier"]) == (before["server"], "active", "standard")
    assert settings.read_text() == kept
    assert tenant.do("INSERT INTO numbered VALUES (1, 'x') RETURNING number") == [(1,)]
    assert tenant.last_move()["status"] == "rolled_back"
    # It starts: its settings name the new place, and nothing else of them has changed.
    works.touch()
    tenant.move("change_plan", plan_tier="premium", application=application).succeeded()
    after = tenant.row
    assert after["server"].startswith("postgres-dedicated")
    assert settings.read_text() == kept.replace(str(before["port"]), str(after["port"]))
    assert left_behind(scratch) == []


def test_the_recorded_application_is_stopped_and_repointed_without_a_word(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    before = tenant.row
    settings, calls = scratch.home / "recorded.conf", scratch.home / "recorded.calls"
    settings.write_text("[options]\ndb_host = {host}\ndb_port = {port}\n".format(**before))
    kept = settings.read_text()
    program = scratch.home / "recorded"
    program.write_text("#!/bin/sh\necho $1 >>{0}\n".format(calls))
    program.chmod(0o755)
    hooks = {when: [{"name": when, "command": [str(program), when]}] for when in ("stop", "start", "restore")}
    application = {"file": [{"path": str(settings), "keys": {"db_host": "host", "db_port": "port"}}], "hooks": hooks}
    # What is wrong with it is told before anything is touched, wherever it comes from.
    for playbook in ("allocate", "change_plan"):
        refused = scratch.play(playbook, dict(tenant.request, plan_tier="premium", application={"services": "x"}))
        assert refused.rc != 0 and "The application is not right" in " ".join(refused.output.split())
    assert tenant.row == before
    assert scratch.play("allocate", dict(tenant.request, application=application), "--diff").succeeded().changed == 1
    assert tenant.row["application"] == application
    again = scratch.play("allocate", dict(tenant.request, application=application)).succeeded()
    assert again.changed == 0 and scratch.play("allocate", tenant.request).succeeded().changed == 0 and tenant.row["application"] == application
    moved = tenant.move("change_plan", plan_tier="premium").succeeded()
    after = tenant.row
    assert settings.read_text() == kept.replace(str(before["port"]), str(after["port"])) and str(after["port"]) in settings.read_text()
    assert calls.read_text().split() == ["stop", "start"] and moved.stats["steps"]["started"] > 0
    tenant.move("rollback").succeeded()
    assert settings.read_text() == kept and calls.read_text().split() == ["stop", "start", "stop", "restore"]
    assert left_behind(scratch) == []


def test_data_that_the_smaller_plan_has_no_room_for_stay(scratch: Environment) -> None:
    tenant = Tenant(scratch, "premium")
    before = tenant.row
    scratch.execute("UPDATE db_plans SET storage_bytes = 1 << 20 WHERE plan_tier = 'starter'")
    refused = tenant.move("change_plan", plan_tier="starter")
    said = " ".join(refused.output.split())
    assert refused.rc != 0 and "and plan starter takes 1 MiB" in said and "Nothing was changed" in said
    assert tenant.row == before and scratch.rows("SELECT 1 FROM db_tenant_migrations WHERE allocation_id = %s", (before["id"],)) == []
    assert tenant.do("INSERT INTO numbered VALUES (1, 'x') RETURNING number") == [(1,)]
    # So too where only limits would shrink.
    small = Tenant(scratch)
    limits = "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user"
    before, had = small.row, small.do(limits)
    refused = small.move("change_plan", plan_tier="starter")
    assert refused.rc != 0 and "and plan starter takes 1 MiB" in " ".join(refused.output.split())
    assert small.row == before and small.do(limits) == had


def test_limits_alone_copy_nothing(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    before = tenant.row
    with contextlib.closing(tenant.connect()) as connection, connection.cursor() as cursor:
        assert tenant.move("change_plan", plan_tier="free").succeeded().stats["status"] == "changed"
        # Nobody was thrown out for it.
        cursor.execute("SELECT 1")
    after = tenant.row
    assert (after["server"], after["plan_tier"]) == (before["server"], "free") and after["connections"] != before["connections"]
    assert tenant.do("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user") == [(after["connections"],)]
    assert scratch.rows("SELECT count(*) FROM db_tenant_migrations WHERE allocation_id = %s", (after["id"],)) == [{"count": 0}]


def test_of_two_moves_of_one_tenant_one_is_refused(scratch: Environment) -> None:
    tenant = Tenant(scratch)
    variables = dict(instance_id=tenant.id, plan_tier="premium", **LEASED)
    runs = [scratch.start("change_plan", variables) for _unused in range(2)]
    outcomes = sorted((run.wait() for run in runs), key=lambda outcome: outcome.rc)
    assert [outcome.rc == 0 for outcome in outcomes] == [True, False]
    assert "another run" in outcomes[1].output
    assert tenant.row["plan_tier"] == "premium" and tenant.row["status"] == "active"
    assert left_behind(scratch) == []


@pytest.mark.parametrize("named, told", [("nobody", "must be a UUID"), ("7d1f0f4e-2f0b-4a38-8e53-7a5b1c9d2e10", "has no allocation")])
def test_bad_input_is_refused(scratch: Environment, named: str, told: str) -> None:
    before = scratch.rows("SELECT count(*) FROM db_events")
    refused = scratch.play("migrate", {"instance_id": named})
    assert refused.rc != 0 and told in refused.output and "Traceback" not in refused.output
    assert scratch.rows("SELECT count(*) FROM db_events") == before

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tenants moved by migrate.yml -e mode=online and back by rollback.yml, between servers of two majors, while somebody writes all the time."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any, Dict, Iterator, List

import pytest
from environment import Run
from online_fixture import ONLINE, Lasting, Online, online_environment, whole, writing_tenant
from test_migrate import LEASED, Tenant, left_behind

# On a machine that others work on too; the figures are those of the benchmark.
MOST_SECONDS_WITHOUT_WRITES = 15


@pytest.fixture(scope="module")
def online() -> Iterator[Online]:
    with online_environment() as made:
        yield made


def said(outcome: Any) -> str:
    return " ".join(outcome.output.split())


@pytest.mark.parametrize("source, target", [("postgres-pool-old", "postgres-pool-a"), ("postgres-pool-a", "postgres-pool-b")])
def test_there_and_back_with_the_new_data(online: Online, source: str, target: str) -> None:
    tenant = writing_tenant(online, source)
    variables = {"instance_id": tenant.id, "target": target}
    # A table without a key takes consent, and is named.
    refused = online.play("migrate", dict(variables, mode="online"))
    assert refused.rc != 0 and "public.counted" in said(refused) and "full_identity=true" in said(refused)
    assert tenant.row["status"] == "active" and online.left() == []
    with Lasting(tenant) as writer:
        moved = online.play("migrate", dict(variables, **ONLINE)).succeeded()
        writer.wait_for(200)
    row, move = tenant.row, tenant.last_move()
    assert (row["server"], row["status"], moved.stats["status"], moved.stats["mode"]) == (target, "active", "moved", "online")
    whole(tenant, writer.acknowledged)
    assert writer.longest < MOST_SECONDS_WITHOUT_WRITES
    assert move["proof"]["equal"] and 0 < move["proof"]["downtime_seconds"] <= writer.longest + 0.5
    assert move["way_back"] == moved.stats["way_back"] == "following", move["way_back_reason"]
    assert {"copied", "closed", "drained", "cutover", "opened"} <= {one["step"] for one in move["steps"]}
    # Whoever followed there is gone, and the old place takes no writes of the tenant's while it follows.
    assert [one.split(": ")[1].split()[0] for one in online.left() if one.startswith(source)] == ["subscription"]
    closed = "SELECT datconnlimit, rolcanlogin FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE datname = '{0}'"
    assert online.ask(source, closed.format(move["proof"]["source_database"])) == [(0, False)]
    with Lasting(tenant) as again:
        again.wait_for(1000)
        back = online.play("rollback", {"instance_id": tenant.id}).succeeded()
        again.wait_for(50)
    assert back.stats["status"] == "rolled_back" and tenant.row["server"] == source
    assert tenant.last_move()["proof"]["return_downtime_seconds"] > 0
    whole(tenant, again.acknowledged)
    assert again.longest < MOST_SECONDS_WITHOUT_WRITES
    assert online.left() == [] and left_behind(online.scratch) == []
    assert online.play("rollback", {"instance_id": tenant.id}).succeeded().changed == 0


def test_it_chooses_by_itself_and_says_why(online: Online) -> None:
    tenant = writing_tenant(online, "postgres-pool-a", rows=10)
    small = online.play("migrate", {"instance_id": tenant.id, "target": "postgres-pool-b", "mode": "auto"}).succeeded()
    assert small.stats["mode"] == "dump" and "is moved online from 1024 MiB on" in small.stats["mode_reason"]
    auto = {"instance_id": tenant.id, "target": "postgres-pool-a", "mode": "auto", "online_from_bytes": 0}
    hindered = online.play("migrate", auto).succeeded()
    assert hindered.stats["mode"] == "dump" and "public.counted" in hindered.stats["mode_reason"]
    auto = dict(auto, target="postgres-pool-b", full_identity=True)
    chosen = online.play("migrate", auto).succeeded()
    assert chosen.stats["mode"] == tenant.last_move()["mode"] == "online" and "nothing stands against it" in chosen.stats["mode_reason"]
    # The next move, of whatever mode, ends what follows the place that it leaves.
    online.play("migrate", {"instance_id": tenant.id, "target": "postgres-pool-a"}).succeeded()
    assert online.left() == [] and left_behind(online.scratch) == []
    ways = online.scratch.rows("SELECT way_back, way_back_reason FROM db_tenant_migrations WHERE allocation_id = %s AND mode = 'online'", (tenant.row["id"],))
    assert ways == [{"way_back": "ended", "way_back_reason": "the tenant moved on"}]


def held_at_the_switch(online: Online, source: str, target: str, run: Run, seconds: float) -> threading.Thread:
    """Who applies on *target* is stopped as soon as *source* refuses writes, for so long: what was written last does not arrive."""

    def hold() -> None:
        closed = "SELECT count(*) FROM pg_roles WHERE NOT rolcanlogin AND rolname ~ '_user$'"
        already = online.ask(source, closed)
        while run.process.poll() is None and online.ask(source, closed) == already:
            time.sleep(0.01)
        for (pid,) in online.ask(target, "SELECT pid FROM pg_stat_subscription WHERE pid IS NOT NULL"):
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(seconds, os.kill, (pid, signal.SIGCONT)).start()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("tries, moved", [(3, True), (1, False)])
def test_a_switch_that_takes_too_long_is_taken_back(online: Online, tries: int, moved: bool) -> None:
    tenant = writing_tenant(online, "postgres-pool-a")
    shortly = {"switch_timeout": 2, "tenant_migration_switch_tries": tries, "tenant_migration_switch_pause": 3}
    with Lasting(tenant) as writer:
        run = online.start("migrate", dict(ONLINE, instance_id=tenant.id, target="postgres-pool-b", **shortly))
        held_at_the_switch(online, "postgres-pool-a", "postgres-pool-b", run, 5)
        outcome = run.wait(300)
        writer.wait_for(50)
    assert (outcome.rc == 0) == moved, outcome.output
    move = tenant.last_move()
    assert [one["seconds"] for one in move["steps"] if one["step"] == "tried"] != []
    assert tenant.row["server"] == ("postgres-pool-b" if moved else "postgres-pool-a") and tenant.row["status"] == "active"
    whole(tenant, writer.acknowledged)
    assert writer.longest < MOST_SECONDS_WITHOUT_WRITES
    if not moved:
        assert "tries to switch were taken back" in said(outcome) and move["status"] == "rolled_back"
        assert online.left() == [] and left_behind(online.scratch) == []
    online.play("release", {"instance_id": tenant.id, "keep_days": 0}).succeeded()
    assert online.left() == []


def test_definitions_that_change_meanwhile_end_the_move(online: Online) -> None:
    tenant = writing_tenant(online, "postgres-pool-a")
    with Lasting(tenant) as writer:
        run = online.start("migrate", dict(ONLINE, instance_id=tenant.id, target="postgres-pool-b"))
        while run.process.poll() is None and not online.ask("postgres-pool-b", "SELECT 1 FROM pg_subscription"):
            time.sleep(0.02)
        tenant.do("ALTER TABLE still ADD COLUMN more int")
        outcome = run.wait(300)
        writer.wait_for(50)
    assert outcome.rc != 0 and "efinitions were changed" in said(outcome), outcome.output
    assert (tenant.row["server"], tenant.row["status"]) == ("postgres-pool-a", "active")
    whole(tenant, writer.acknowledged)
    assert online.left() == [] and left_behind(online.scratch) == []


def test_a_way_back_ends_with_its_time_or_when_asked_to(online: Online) -> None:
    tenants = [writing_tenant(online, "postgres-pool-a", rows=10) for _each in range(2)]
    for tenant in tenants:
        online.play("migrate", dict(ONLINE, instance_id=tenant.id, target="postgres-pool-b")).succeeded()
    first, second = tenants
    # As long as they live the audit has nothing to say of them.
    assert findings(online) == []
    online.scratch.execute("UPDATE db_tenant_migrations SET retained_until = now() - interval '1 second' WHERE id = %s", (first.last_move()["id"],))
    done = online.play("cleanup", {}).succeeded().stats["done"]
    assert {(one["action"], one["why"]) for one in done if one["what"] == "way back"} == {("unlink", "its time ended")}
    assert [one["action"] for one in done if one["what"] == "moved source"] == ["drop"]
    assert first.last_move()["way_back"] == "ended" and len(online.left()) > 0
    online.play("cleanup", {"end_ways_back": True}).succeeded()
    assert online.left() == [] and second.last_move()["way_back_reason"] == "it was asked for"
    # The old copy is still there, and good as long as nothing was written since.
    online.play("rollback", {"instance_id": second.id}).succeeded()
    assert second.row["server"] == "postgres-pool-a" and online.left() == []


def findings(online: Online, **variables: Any) -> List[Dict[str, Any]]:
    told = online.play("audit", dict(variables, audit_tenants="one")).succeeded().stats
    return [one for one in told["findings"] if one["kind"] in ("follow_left_over", "way_back_broken", "role_without_row", "wall_membership")]


def test_the_audit_knows_what_is_left_over_and_mends_it(online: Online) -> None:
    tenant = writing_tenant(online, "postgres-pool-a", rows=10)
    online.play("migrate", dict(ONLINE, instance_id=tenant.id, target="postgres-pool-b")).succeeded()
    # A way back whose slot is gone brings nothing back any more, and nobody but an operator can say what to do.
    aside = tenant.last_move()["source_database"]
    ((name,),) = online.ask("postgres-pool-a", "SELECT subname FROM pg_subscription")
    online.ask("postgres-pool-a", "ALTER SUBSCRIPTION {0} DISABLE".format(name), aside)
    assert ("way_back_broken", "postgres-pool-a") in {(one["kind"], one["server"]) for one in findings(online)}
    # As if its move had never been: all of it is left over, and goes.
    online.scratch.execute("UPDATE db_tenant_migrations SET way_back = 'ended' WHERE id = %s", (tenant.last_move()["id"],))
    found = findings(online)
    assert {one["kind"] for one in found} == {"follow_left_over"}
    assert {one["object"].split()[0] for one in found} == {"slot", "role", "publication", "subscription"}
    assert all(one["repaired"] for one in findings(online, repair=True) if one["kind"] == "follow_left_over")
    assert findings(online) == [] and online.left() == []


def test_of_two_runs_one_is_refused(online: Online) -> None:
    tenant = writing_tenant(online, "postgres-pool-a", rows=10)
    variables = dict(ONLINE, instance_id=tenant.id, target="postgres-pool-b")
    outcomes = sorted((run.wait(300) for run in [online.start("migrate", variables) for _each in range(2)]), key=lambda outcome: outcome.rc)
    assert [outcome.rc == 0 for outcome in outcomes] == [True, False] and "another run" in said(outcomes[1])
    assert tenant.row["server"] == "postgres-pool-b"
    online.play("release", {"instance_id": tenant.id, "keep_days": 0}).succeeded()
    assert online.left() == []


def test_check_mode_changes_nothing(online: Online) -> None:
    tenant = Tenant(online.scratch)
    before = online.scratch.rows("SELECT count(*) FROM db_events")
    told = online.scratch.play("migrate", dict(ONLINE, instance_id=tenant.id, **LEASED), "--check").succeeded()
    assert told.stats["status"] == "planned" and online.scratch.rows("SELECT count(*) FROM db_events") == before
    assert online.left() == []

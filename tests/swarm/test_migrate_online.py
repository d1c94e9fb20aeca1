# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant moved online on the Swarm, over TLS and out of the client host, and back with its new rows, somebody writing all the time; and the node of
either server lost while the copy is made."""

from __future__ import annotations

import json
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from swarm_fixture import ROOT, Bed

sys.path.insert(0, str(ROOT / "tests" / "faults"))
from harness import Fleet, Writer, missing, wait_until

POOLS = ("postgres-pool-online-a", "postgres-pool-online-b")
# The tables have no key, which takes consent.
ONLINE = {"mode": "online", "full_identity": True}
# A node that lost its power, and its servers' locks with it, which nobody fences: what docs/faults.md counts, with room for a busy machine.
BACK_SECONDS = 240
# Bytes of the copy; 0 while there is none.
_COPYING = "SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE datname = '{0}'"
_LEFT = """
SELECT 'slot ' || slot_name FROM pg_replication_slots UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ '^pools_follow_'
UNION ALL SELECT 'subscription ' || subname FROM pg_subscription"""


def good(done: Any) -> str:
    assert done.returncode == 0, done.stdout[-4000:]
    return str(done.stdout)


class Tenant:
    def __init__(self, bed: Bed, folder: Path, megabytes: int) -> None:
        self.bed, self.id = bed, str(uuid.uuid4())
        result_file = folder / "result.json"
        good(bed.play("allocate", instance_id=self.id, customer_id=self.id, plan_tier="free", result_file=str(result_file)))
        self.login: Dict[str, Any] = json.loads(result_file.read_text())
        # For each megabyte a thousand rows that do not compress.
        filler = "(SELECT string_agg(md5(random()::text || number || part), '') FROM generate_series(1, 32) part)"
        asked = Fleet.tables(self.login) + "; CREATE TABLE filler AS SELECT number, {0} AS filler FROM generate_series(1, {1}) number"
        bed.as_superuser(self.server, self.login["database"], asked.format(filler, megabytes * 1000))
        self.writer = Writer(bed, "online-" + self.id[:8], dict(self.login, host=",".join(POOLS)))

    @property
    def server(self) -> str:
        found = self.bed.sql(
            "SELECT s.name FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = '{0}'".format(self.id)
        )
        return str(found[0]["name"])

    @property
    def elsewhere(self) -> str:
        return POOLS[1 - POOLS.index(self.server)]

    def last_move(self) -> Dict[str, Any]:
        return self.bed.sql(
            "SELECT m.status, m.mode, m.way_back, m.way_back_reason, m.proof FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id"
            " WHERE a.instance_id = '{0}' ORDER BY m.created_at DESC LIMIT 1".format(self.id)
        )[0]

    def writes(self, more: int = 20, limit: float = 60) -> None:
        since = time.time()
        wait_until("the tenant writes", limit, lambda: self.writer.served_since(since) >= more)

    def whole(self) -> None:
        """Where the tenant is, all is that was acknowledged, once."""
        query = "SELECT n, count(*) FROM faults_rows WHERE writer = '{0}' GROUP BY n; SELECT -1, total - (SELECT count(*) FROM faults_rows) FROM faults_totals"
        # Before the rows are looked at: the writer may be at work.
        acknowledged = [event["n"] for event in self.writer.acknowledged]
        lines = self.bed.as_superuser(self.server, self.login["database"], query.format(self.writer.name)).split()
        there = {int(number): int(times) for number, times in (line.split("|") for line in lines)}
        assert there.pop(-1) == 0
        assert acknowledged and missing(acknowledged, there) == []


@pytest.fixture(scope="module")
def pools(bed: Bed) -> Iterator[Bed]:
    others = [row["name"] for row in bed.sql("SELECT name FROM db_servers WHERE server_type = 'shared' AND allocation_strategy = 'auto'")]
    for name in POOLS:
        good(bed.play("provision_pool", server=name))
    chosen = "UPDATE db_servers SET allocation_strategy = CASE WHEN name = '{0}' THEN 'auto' ELSE 'manual' END WHERE server_type = 'shared'"
    bed.sql_do(chosen.format(POOLS[0]))
    yield bed
    for name in others:
        bed.sql_do("UPDATE db_servers SET allocation_strategy = 'auto' WHERE name = '{0}'".format(name))


def left(bed: Bed) -> List[str]:
    return [line for name in POOLS for line in bed.as_superuser(name, "postgres", _LEFT).split("\n") if line]


def test_there_and_back_with_the_new_rows(pools: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tenant = Tenant(pools, tmp_path, megabytes=20)
    source, target = tenant.server, tenant.elsewhere
    tenant.writer.start()
    try:
        tenant.writes()
        begun = time.time()
        good(pools.play("migrate", instance_id=tenant.id, target=target, limit=400, **ONLINE))
        assert tenant.server == target
        tenant.writes()
        move, there = tenant.last_move(), tenant.writer.away(begun)[1]
        assert (move["status"], move["mode"], move["way_back"]) == ("completed", "online", "following"), move
        assert move["proof"]["equal"]
        begun = time.time()
        good(pools.play("rollback", instance_id=tenant.id, limit=400))
        assert tenant.server == source
        tenant.writes()
        back = tenant.writer.away(begun)[1]
    finally:
        tenant.writer.stop()
    tenant.whole()
    assert left(pools) == []
    with capsys.disabled():
        print("\nwithout writes: {0:.1f} s there, {1:.1f} s back".format(there, back))
    # The aim is 3 s on a machine of its own; here three nodes, CephFS and a test share two cores.
    assert max(there, back) < 15
    good(pools.play("release", instance_id=tenant.id, keep_days=0))


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_node_is_lost_during_the_copy(pools: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str) -> None:
    tenant = Tenant(pools, tmp_path, megabytes=200)
    source, target = tenant.server, tenant.elsewhere
    victim = pools.container({"source": source, "target": target}[side])[0]
    asked: Dict[str, Any] = dict(ONLINE, instance_id=tenant.id, target=target)
    tenant.writer.start()
    try:
        tenant.writes()
        with ThreadPoolExecutor(1) as beside:
            run = beside.submit(pools.play, "migrate", limit=900, **asked)
            # A part of the rows is there.
            size = _COPYING.format(tenant.login["database"])
            wait_until("the copy is being made", 120, lambda: run.done() or int(pools.as_superuser(target, "postgres", size)) > 30 << 20)
            assert not run.done(), run.result().stdout[-3000:]
            lost = time.time()
            pools.fault("kill", victim)
            pools.fault("start", victim)
            first = run.result()
        wait_until("the tenant is served", BACK_SECONDS, lambda: tenant.writer.served_since(time.time() - 10) > 10)
        away = tenant.writer.away(lost)[1]
        # Given up, and back at the source, or it came through: never something between.
        if first.returncode:
            wait_until("all servers are there", BACK_SECONDS, lambda: all_announced(pools))
            good(pools.play("migrate", limit=600, **asked))
        assert tenant.server == target
        tenant.writes()
        move = tenant.last_move()
        assert (move["status"], move["mode"], move["proof"]["equal"]) == ("completed", "online", True), move
        tenant.whole()
        good(pools.play("rollback", instance_id=tenant.id, limit=400))
        tenant.writes()
        assert tenant.server == source
    finally:
        tenant.writer.stop()
    tenant.whole()
    assert left(pools) == []
    findings = tmp_path / "audit.json"
    pools.play("audit", audit_fail_on="never", result_file=str(findings))
    assert json.loads(findings.read_text())["findings"] == []
    with capsys.disabled():
        print("\nthe node of the {0} lost: the first run ended with {1}; the tenant was away for {2:.1f} s".format(side, first.returncode, away))
    good(pools.play("release", instance_id=tenant.id, keep_days=0))


def all_announced(bed: Bed) -> bool:
    """Healthy, which is when the Swarm gives their names to whoever asks."""
    shown = [bed.on(node, "docker", "ps", "--filter", "label=postgres_pools.server", "--format", "{{.Names}} {{.Status}}") for node in bed.nodes]
    healthy = [line.split(".")[0] for lines in shown for line in lines.split("\n") if "(healthy)" in line]
    return set(healthy) >= {*POOLS, "inventory-db"}

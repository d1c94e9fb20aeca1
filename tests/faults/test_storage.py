# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CephFS goes away on one node or everywhere, or is full."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from case import Case
from harness import SAFE, Fleet, wait_until
from test_nodes import busiest


def test_ceph_fuse_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    victim = busiest(fleet)
    with Case(fleet, "ceph-fuse of a node dies, and is mounted anew after 20 s", tmp_path) as case:
        case.fault("crash", victim)
        time.sleep(20)
        fleet.bed.fault("mount", victim)
        case.served_again("served again", case.affected(victim))
        case.mended()
        case.verify()
    case.record()


@pytest.mark.parametrize("seconds", [15, 60])
def test_ceph_fuse_stops_and_goes_on(fleet: Fleet, tmp_path: Path, seconds: int) -> None:
    victim = busiest(fleet)
    with Case(fleet, "ceph-fuse of a node stops for {0} s".format(seconds), tmp_path) as case:
        case.fault("freeze", victim)
        time.sleep(seconds)
        fleet.bed.fault("thaw", victim)
        # Its session is over where it slept too long.
        time.sleep(10)
        fleet.bed.fault("mount", victim)
        case.served_again("served again", case.affected(victim))
        case.mended()
        case.verify()
    case.record()


def test_the_metadata_server_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    with Case(fleet, "the metadata server is away for 20 s", tmp_path) as case:
        case.fault("kill-mds")
        time.sleep(20)
        fleet.bed.fault("start-mds")
        back = time.time()
        wait_until("every tenant writes", 120, lambda: all(writer.served_since(back) > 3 for writer in case.writers))
        case.seconds["served again"] = max(writer.first_served(back) for writer in case.writers) - case.broken_at
        case.untouched("the longest that a tenant waited", 120)
        case.mended()
        case.verify()
    case.record()


class Quota:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.login = fleet, fleet.logins["tenant-1"]
        rows = fleet.bed.sql("SELECT storage_path FROM db_servers WHERE name = '{0}'".format(self.login["server"]))
        self.path = rows[0]["storage_path"]
        self.usual = self.attribute("ceph.quota.max_bytes")

    def attribute(self, name: str) -> int:
        return int(self.fleet.bed.manager("getfattr", "--absolute-names", "--only-values", "-n", name, self.path))

    def set(self, size: int) -> None:
        self.fleet.bed.manager("setfattr", "-n", "ceph.quota.max_bytes", "-v", str(size), self.path)

    def near(self, room: int) -> None:
        self.set(self.attribute("ceph.dir.rbytes") + room)


@pytest.fixture
def quota(fleet: Fleet) -> Iterator[Quota]:
    quota = Quota(fleet)
    yield quota
    quota.set(quota.usual)


def fill(fleet: Fleet, login: Dict[str, Any], statement: str) -> str:
    """As the tenant; what the server said."""
    try:
        fleet.bed.query_from(SAFE, login, statement)
    except AssertionError as problem:
        return str(problem)
    return ""


def test_tables_reach_the_quota(fleet: Fleet, tmp_path: Path, quota: Quota) -> None:
    with Case(fleet, "tables reach the quota, and it is raised", tmp_path) as case:
        quota.near(48 << 20)
        # Without a log of changes, so that it is the table that does not fit.
        case.broken_at = time.time()
        growth = "CREATE UNLOGGED TABLE faults_large AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 400000) n"
        assert "quota" in fill(fleet, quota.login, growth)
        full = time.time()
        time.sleep(15)
        quota.set(quota.usual)
        raised = time.time()
        wait_until("every tenant writes", 120, lambda: all(writer.served_since(raised) > 3 for writer in case.writers))
        case.seconds["served again after it was raised"] = max(writer.first_served(raised) for writer in case.writers) - raised
        case.notes.append("while it was full, {0} of the tenants there wrote on".format(
            sum(1 for writer in case.writers if writer.login["server"] == quota.login["server"] and writer.served_between(full, raised))))
        assert not fill(fleet, quota.login, growth + " LIMIT 1000; DROP TABLE faults_large")
        case.mended()
        case.verify()
    case.record()


def test_the_log_of_changes_reaches_the_quota(fleet: Fleet, tmp_path: Path, quota: Quota) -> None:
    with Case(fleet, "the log of changes reaches the quota, and it is raised", tmp_path) as case:
        quota.near(40 << 20)
        case.broken_at = time.time()
        # 400 MB of it, in one transaction: nothing that could be removed by a checkpoint helps.
        flood = "DO $$BEGIN FOR n IN 1..400 LOOP PERFORM pg_logical_emit_message(true, 'faults', repeat('x', 1000000)); END LOOP; END$$"
        said = fill(fleet, quota.login, flood)
        assert said, "it fitted"
        there = [writer for writer in case.writers if writer.login["server"] == quota.login["server"]]
        time.sleep(30)
        quota.set(quota.usual)
        raised = time.time()
        wait_until("every tenant writes", 180, lambda: all(writer.served_since(raised) > 3 for writer in there))
        case.seconds["served again after it was raised"] = max(writer.first_served(raised) for writer in there) - raised
        case.mended()
        case.verify()
    case.record()

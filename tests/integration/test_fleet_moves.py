# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many tenants moved in one run: a server emptied by evacuate.yml, plans reconciled by reconcile_plans.yml, pools evened out by rebalance.yml."""

from __future__ import annotations

import contextlib
from typing import Dict, Iterator, List

import pytest
from environment import Environment, connect, environment, instances

LEASED = {"tenant_migration_lease_seconds": 10}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    """Five tenants on one of two pools, each with a row of its own."""
    with environment() as here:
        here.ready()
        here.play("provision_pool", {"server": "postgres-pool-a"}).succeeded()
        here.play("allocate", {"allocations": instances(5)}).succeeded()
        here.play("provision_pool", {"server": "postgres-pool-b"}).succeeded()
        for row in tenants(here):
            ask(here, row, "CREATE TABLE mine AS SELECT '{0}'::text AS id".format(row["id"]))
        yield here


def tenants(scratch: Environment) -> List[Dict[str, str]]:
    return scratch.rows(
        "SELECT a.instance_id::text AS id, a.database_name, a.role_name, a.plan_tier, a.status, s.name AS server, s.host, s.port"
        " FROM db_allocations a JOIN db_servers s ON s.id = a.server_id ORDER BY a.reserved_at, a.id"
    )


def ask(scratch: Environment, row: Dict[str, str], statement: str) -> List[object]:
    login = connect(str(row["host"]), int(row["port"]), row["database_name"], row["role_name"], str(scratch.password(row["id"])))
    with contextlib.closing(login) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def places(scratch: Environment) -> Dict[str, int]:
    """How many tenants each server has; each of them is active, and its data are its own."""
    found: Dict[str, int] = {}
    for row in tenants(scratch):
        assert row["status"] == "active"
        assert ask(scratch, row, "SELECT id FROM mine") == [(row["id"],)]
        found[row["server"]] = found.get(row["server"], 0) + 1
    return found


def test_a_server_is_emptied_several_tenants_at_a_time(scratch: Environment) -> None:
    told = scratch.play("evacuate", {"server": "postgres-pool-a", "at_once": 5}, "--check").succeeded()
    assert len(told.stats["proposals"]) == 5 and places(scratch) == {"postgres-pool-a": 5}
    stats = scratch.play("evacuate", dict(LEASED, server="postgres-pool-a", at_once=5)).succeeded().stats
    assert {one["instance_id"] for one in stats["proposals"]} == set(stats["moves"]) and {one["status"] for one in stats["moves"].values()} == {"moved"}
    assert places(scratch) == {"postgres-pool-b": 5}
    assert scratch.play("evacuate", dict(LEASED, server="postgres-pool-a")).succeeded().changed == 0


def test_pools_are_evened_out_when_told_to(scratch: Environment) -> None:
    proposed = scratch.play("rebalance", {"tolerance": 0}).succeeded()
    assert len(proposed.stats["proposals"]) == 2 and places(scratch) == {"postgres-pool-b": 5}
    scratch.play("rebalance", dict(LEASED, tolerance=0, act=True)).succeeded()
    assert places(scratch) == {"postgres-pool-a": 2, "postgres-pool-b": 3}
    assert scratch.play("rebalance", dict(LEASED, tolerance=0, act=True)).succeeded().changed == 0


def test_what_the_platform_says_of_plans_is_done_within_the_window(scratch: Environment) -> None:
    first, second = tenants(scratch)[:2]
    query = "SELECT * FROM (VALUES ('{0}', 'premium'), ('{1}', 'free')) AS told (instance_id, plan_tier)".format(first["id"], second["id"])
    variables = dict(LEASED, platform_query=query)
    now = scratch.rows("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:00') || '-' || to_char(now() AT TIME ZONE 'UTC'"
                       " + interval '3 hours', 'HH24:00') AS later")[0]["later"]  # fmt: skip
    outside = scratch.play("reconcile_plans", dict(variables, window=now)).succeeded()
    assert outside.stats["status"] == "outside_window" and {row["plan_tier"] for row in tenants(scratch)} == {"standard"}
    scratch.play("reconcile_plans", variables).succeeded()
    plans = {row["id"]: (row["plan_tier"], row["server"]) for row in tenants(scratch)}
    assert plans[first["id"]][0] == "premium" and plans[first["id"]][1].startswith("postgres-dedicated")
    assert plans[second["id"]] == ("free", second["server"])
    assert sum(places(scratch).values()) == 5
    assert scratch.play("reconcile_plans", variables).succeeded().changed == 0

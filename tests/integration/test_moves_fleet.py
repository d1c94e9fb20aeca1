# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tenants should be moved: found in a real inventory database, and carried out as proposed."""

from __future__ import annotations

import datetime
import uuid

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _moving_fleet
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from moves_fixture import ALL, call, in_order, tenant, through, used
from registry_fixture import registry_server


@pytest.fixture(scope="module")
def registries():
    with registry_server() as make:
        yield make


@pytest.fixture
def registry(registries):
    return registries()


def ask(registry, state, **given):
    defaults = {name: option.get("default") for name, option in _moving_fleet.OPTIONS.items()}
    assert set(given) <= set(defaults)
    before = registry.query("SELECT to_jsonb(s) FROM db_servers s ORDER BY name")
    with registry.open() as inventory:
        told = _moving_fleet.work(dict(defaults, state=state, **given), inventory, None)
    assert told["changed"] is False and registry.query("SELECT to_jsonb(s) FROM db_servers s ORDER BY name") == before
    return told


def test_a_fleet_that_fits_has_no_proposals(registry):
    registry.pool("one")
    for plan in ("free", "standard", "professional"):
        tenant(registry, plan)
    told = ask(registry, "mismatched")
    assert (told["proposals"], told["found"], told["problems"], told["others"], told["in_window"]) == ([], 0, [], [], True)


def test_each_way_of_not_fitting_is_told(registry):
    registry.pool("one")
    registry.pool("two", places=3)
    limits, kind, flagged, platform, fine, moving = (tenant(registry, "standard") for _each in range(6))
    registry.query("UPDATE db_allocations SET connections = 4, storage_bytes = 1073741824 WHERE instance_id = %s", (limits,))
    registry.query("UPDATE db_allocations SET plan_tier = 'premium' WHERE instance_id = %s", (kind,))
    registry.query("UPDATE db_allocations SET requires_dedicated = true WHERE instance_id = %s", (flagged,))
    registry.query("UPDATE db_allocations SET connections = 5 WHERE instance_id = %s", (moving,))
    call(registry, moving)
    told = ask(
        registry,
        "mismatched",
        platform_plans=[
            {"instance_id": platform, "plan_tier": "professional"},
            {"instance_id": fine, "plan_tier": "standard"},
            {"instance_id": str(uuid.uuid4()), "plan_tier": "gold"},
        ],
    )
    found = {one["instance_id"]: one for one in told["proposals"]}
    assert set(found) == {limits, kind, flagged, platform} and told["found"] == 4
    assert found[limits]["why"] == "it has 4 connections, plan standard has 6; it has 1024 MiB of storage, plan standard has 3072 MiB"
    assert (found[limits]["copy"], found[limits]["to"] == found[limits]["from"]) == (False, True)
    assert "plan premium is dedicated, and" in found[kind]["why"] and (found[kind]["copy"], found[kind]["to"]) == (True, None)
    assert "it is to have a server of its own, and" in found[flagged]["why"] and found[flagged]["copy"] is True
    assert found[platform]["why"].startswith("the platform has it in plan professional, its allocation in standard")
    assert found[platform]["plan_tier"] == "professional"
    assert told["others"] == [{"instance_id": moving, "status": "migrating"}]
    for one in (limits, platform):
        assert call(registry, one, plan_tier=found[one]["plan_tier"])["no_copy"] is True
    assert {one["instance_id"] for one in ask(registry, "mismatched")["proposals"]} == {kind, flagged}
    assert len(ask(registry, "mismatched", limit=1)["proposals"]) == 1


def test_a_plan_that_is_gone_is_a_problem_and_stops_nobody_else(registry):
    registry.pool("one")
    lost, fine = tenant(registry), tenant(registry)
    told = ask(registry, "mismatched", platform_plans=[{"instance_id": lost, "plan_tier": "gold"}, {"instance_id": fine, "plan_tier": "free"}])
    assert told["problems"] == [{"instance_id": lost, "why": "its plan 'gold' is not in db_plans"}]
    assert [one["instance_id"] for one in told["proposals"]] == [fine]


def test_all_of_a_server_go_where_there_is_room_and_the_proposal_can_be_done(registry):
    registry.pool("old", places=12)
    instances = [tenant(registry) for _each in range(12)]
    registry.pool("small", places=4, priority=1)
    registry.pool("narrow", connection_budget=6, priority=2)
    registry.pool("wide", places=6)
    registry.pool("closed", status="maintenance")
    told = ask(registry, "of_server", server="old")
    targets = [one["to"] for one in told["proposals"]]
    assert {name: targets.count(name) for name in set(targets)} == {"small": 4, "narrow": 1, "wide": 6, None: 1}
    assert {one["instance_id"] for one in told["proposals"]} == set(instances)
    assert [one["why"] for one in told["proposals"] if one["to"] is None] == ["it is to leave old; no other shared server has room, one would be made"]
    for one in told["proposals"]:
        if one["to"]:
            through(registry, one["instance_id"], *ALL, target=one["to"])
    assert used(registry, "old")[0] == 1 and in_order(registry)
    assert [one["to"] for one in ask(registry, "of_server", server="old", limit=5)["proposals"]] == [None]


def test_a_named_target_takes_what_it_can(registry):
    registry.pool("old")
    for _each in range(3):
        tenant(registry)
    registry.pool("named", places=2)
    registry.pool("other")
    told = ask(registry, "of_server", server="old", target="named")
    assert sorted(str(one["to"]) for one in told["proposals"]) == ["None", "named", "named"]


def test_pools_are_evened_out_and_then_there_is_nothing_to_do(registry):
    registry.pool("full", places=10)
    for _each in range(9):
        tenant(registry)
    registry.pool("empty", places=10)
    registry.pool("ill", places=10, health_status="unhealthy")
    registry.pool("manual", places=10, allocation_strategy="manual")
    told = ask(registry, "rebalance")
    assert [(one["from"], one["to"]) for one in told["proposals"]] == [("full", "empty")] * 4
    assert {one["server"]: (one["before"], one["after"]) for one in told["loads"]} == {"full": (9, 5), "empty": (0, 4)}
    limited = ask(registry, "rebalance", limit=1)
    assert (len(limited["proposals"]), limited["found"]) == (1, 4)
    for one in told["proposals"]:
        through(registry, one["instance_id"], *ALL, target=one["to"])
    assert ask(registry, "rebalance")["proposals"] == [] and in_order(registry)


@pytest.mark.parametrize(
    "window, moment, inside",
    [
        ("22:00-04:00", "21:59", False), ("22:00-04:00", "22:00", True), ("22:00-04:00", "00:00", True), ("22:00-04:00", "03:59", True),
        ("22:00-04:00", "04:00", False), ("01:00-02:30", "02:29", True), ("01:00-02:30", "00:59", False), ("00:00-24:00", "23:59", True),
    ],
)  # fmt: skip
def test_a_window_is_in_utc_and_may_go_over_midnight(window, moment, inside):
    hour, minute = (int(part) for part in moment.split(":"))
    # Told by a clock in another zone.
    there = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    now = datetime.datetime(2026, 11, 23, hour, minute, tzinfo=datetime.timezone.utc).astimezone(there)
    assert _moving_fleet.in_window(window, now) is inside


@pytest.mark.parametrize(
    "given, told",
    [
        ({"window": "nights"}, "'nights' is no window of time"),
        ({"window": "25:00-26:00"}, "is no window of time"),
        ({"window": "04:00-04:00"}, "is empty"),
        ({"limit": -1}, "limit is -1"),
        ({"tolerance": 2.0}, "tolerance is 2; it is a part"),
        ({"state": "of_server", "server": "nowhere"}, "There is no server 'nowhere'"),
        ({"state": "of_server", "server": "No Name"}, "cannot be a server's name"),
        ({"platform_plans": [{"instance_id": "7", "plan_tier": "free"}]}, "instance_id of entry 1 of platform_plans must be a UUID"),
        (
            {"platform_plans": [{"instance_id": str(uuid.UUID(int=1)), "plan_tier": plan} for plan in ("free", "standard")]},
            "two plans for instance .*, free and standard",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(registry, given, told):
    with pytest.raises(PoolsError, match=told):
        ask(registry, given.get("state", "mismatched"), **{key: value for key, value in given.items() if key != "state"})

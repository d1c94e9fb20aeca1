# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _rebalance

WIDE = 1 << 60


def pool(name, places, taken, connections=WIDE, storage=WIDE, priority=100):
    return {
        "name": name, "max_instances": places, "current_instances": taken, "connection_budget": connections, "promised_connections": 0,
        "storage_budget_bytes": storage, "promised_storage_bytes": 0, "priority": priority,
    }  # fmt: skip


def tenants_of(pools, draw=None):
    found = []
    for one in pools:
        for number in range(one["current_instances"]):
            size, connections = (draw.randrange(1, 9), draw.randrange(1, 5)) if draw else (1, 1)
            one["promised_storage_bytes"] += size
            one["promised_connections"] += connections
            found.append({"instance_id": "{0}-{1:03d}".format(one["name"], number), "server": one["name"], "connections": connections, "storage_bytes": size})
    return found


def spread(counts, pools):
    loads = [Fraction(counts[one["name"]], one["max_instances"]) for one in pools]
    return max(loads) - min(loads)


def width(pools, tolerance):
    return max(Fraction(tolerance).limit_denominator(10**6), Fraction(1, min(one["max_instances"] for one in pools)))


def fewest(pools, tolerance):
    """By trying every way to spread the tenants that stays between the loads there are."""
    now = [one["current_instances"] for one in pools]
    before = {one["name"]: one["current_instances"] for one in pools}
    if spread(before, pools) <= width(pools, tolerance):
        return 0
    loads = [Fraction(one["current_instances"], one["max_instances"]) for one in pools]
    best = None
    for counts in itertools.product(*(range(one["max_instances"] + 1) for one in pools)):
        after = [Fraction(count, one["max_instances"]) for count, one in zip(counts, pools)]
        if sum(counts) == sum(now) and max(after) - min(after) <= width(pools, tolerance) and min(loads) <= min(after) and max(after) <= max(loads):
            moves = sum(max(0, was - count) for was, count in zip(now, counts))
            best = moves if best is None else min(best, moves)
    return best


def after(pools, tenants, moves):
    """The counts after each move, with every limit looked at."""
    by_name = {one["name"]: dict(one) for one in pools}
    places = {one["instance_id"]: one for one in tenants}
    moved = set()
    told = [{name: one["current_instances"] for name, one in by_name.items()}]
    for move in moves:
        tenant, target = places[move["instance_id"]], by_name[move["to"]]
        assert tenant["server"] == move["from"] != move["to"] and move["instance_id"] not in moved and move["why"]
        moved.add(move["instance_id"])
        target["current_instances"] += 1
        target["promised_connections"] += tenant["connections"]
        target["promised_storage_bytes"] += tenant["storage_bytes"]
        assert target["current_instances"] <= target["max_instances"]
        assert target["promised_connections"] <= target["connection_budget"]
        assert target["promised_storage_bytes"] <= target["storage_budget_bytes"]
        counts = dict(told[-1])
        counts[move["from"]] -= 1
        counts[move["to"]] += 1
        told.append(counts)
    return told


def test_two_pools_meet_as_far_as_the_tolerance_asks():
    pools = [pool("a", 50, 50), pool("b", 50, 0)]
    moves = _rebalance.plan(pools, tenants_of(pools), tolerance=0.1)
    assert len(moves) == 23 and {(one["from"], one["to"]) for one in moves} == {("a", "b")}
    assert moves[0]["why"] == "a has 50 of 50 places taken, b has 0 of 50"


@pytest.mark.parametrize("pools", [[], [pool("a", 50, 7)], [pool("a", 50, 20), pool("b", 50, 18)], [pool("a", 0, 0), pool("b", 5, 5)]])
def test_what_is_even_is_left(pools):
    assert _rebalance.plan(pools, tenants_of(pools)) == []


def test_the_smallest_tenant_is_moved():
    pools = [pool("a", 10, 3), pool("b", 10, 0)]
    tenants = tenants_of(pools)
    tenants[0]["storage_bytes"], tenants[2]["storage_bytes"] = 9, 8
    assert [one["instance_id"] for one in _rebalance.plan(pools, tenants)] == ["a-001"]


def test_who_fits_nowhere_stays_and_another_one_goes():
    pools = [pool("a", 10, 3), pool("b", 10, 0, connections=3)]
    tenants = tenants_of(pools)
    for tenant, connections in zip(tenants, (4, 4, 3)):
        tenant["connections"] = connections
    assert [one["instance_id"] for one in _rebalance.plan(pools, tenants)] == ["a-002"]


def random_fleet(draw, most_pools, most_places, tight):
    pools = []
    for number in range(draw.randrange(1, most_pools + 1)):
        places = draw.randrange(1, most_places + 1)
        pools.append(pool("p{0}".format(number), places, draw.randrange(places + 1)))
    tenants = tenants_of(pools, draw if tight else None)
    if tight:
        for one in pools:
            one["connection_budget"] = one["promised_connections"] + draw.randrange(12)
            one["storage_budget_bytes"] = one["promised_storage_bytes"] + draw.randrange(30)
    return pools, tenants


@pytest.mark.parametrize("seed", range(40))
def test_of_any_fleet_the_moves_can_be_done_and_the_spread_never_grows(seed):
    draw = random.Random(seed)
    for _each in range(20):
        pools, tenants = random_fleet(draw, 8, 30, tight=seed % 2 == 0)
        tolerance, limit = draw.choice([0, 0.05, 0.1, 0.3]), draw.choice([None, None, 1, 3])
        moves = _rebalance.plan(pools, tenants, limit, tolerance)
        assert limit is None or len(moves) <= limit
        told = after(pools, tenants, moves)
        loads = [Fraction(one["current_instances"], one["max_instances"]) for one in pools]
        for counts in told:
            now = [Fraction(counts[one["name"]], one["max_instances"]) for one in pools]
            assert min(loads) <= min(now) and max(now) <= max(loads)
        draw.shuffle(pools)
        draw.shuffle(tenants)
        assert _rebalance.plan(pools, tenants, limit, tolerance) == moves


@pytest.mark.parametrize("seed", range(40))
def test_no_fewer_moves_would_do(seed):
    draw = random.Random(1000 + seed)
    for _each in range(10):
        pools, tenants = random_fleet(draw, 4, 7, tight=False)
        tolerance = draw.choice([0, 0.1, 0.25, 0.5])
        moves = _rebalance.plan(pools, tenants, tolerance=tolerance)
        best = fewest(pools, tolerance)
        assert len(moves) == (best or 0), (pools, tolerance)
        if best is not None:
            assert spread(after(pools, tenants, moves)[-1], pools) <= width(pools, tolerance)


def test_a_fleet_of_a_thousand_pools_takes_no_time():
    draw = random.Random(7)
    pools = [pool("p{0:04d}".format(number), 50, draw.randrange(51)) for number in range(1000)]
    tenants = tenants_of(pools)
    moves = _rebalance.plan(pools, tenants, limit=200)
    assert len(moves) == 200


def test_all_of_a_server_are_assigned_as_placement_would_and_never_too_many():
    servers = [pool("first", 3, 0, priority=1), pool("second", 4, 2, storage=9), pool("third", 4, 0)]
    servers[1]["promised_storage_bytes"] = 2
    tenants = [{"instance_id": str(number), "server": "gone", "connections": 1, "storage_bytes": size} for number, size in enumerate((5, 4, 3, 3, 3, 9))]
    allowed = {one["instance_id"]: ["first", "second", "third"] for one in tenants}
    found = _rebalance.assign(tenants, servers, allowed)
    assert found == {"5": "first", "0": "first", "1": "first", "2": "third", "3": "third", "4": "second"}
    allowed["5"] = []
    assert _rebalance.assign(tenants, servers, allowed)["5"] is None


@pytest.mark.parametrize("seed", range(20))
def test_of_any_assignment_no_limit_is_passed(seed):
    draw = random.Random(seed)
    servers, _there = random_fleet(draw, 6, 10, tight=True)
    coming = [
        {"instance_id": str(number), "server": "gone", "connections": draw.randrange(1, 5), "storage_bytes": draw.randrange(1, 9)} for number in range(30)
    ]
    found = _rebalance.assign(coming, servers, {one["instance_id"]: [server["name"] for server in servers] for one in coming})
    moves = [{"instance_id": key, "from": "gone", "to": value, "why": "it must"} for key, value in found.items() if value]
    after([*servers, pool("gone", 99, 30)], coming, moves)
    left = [one for one in coming if found[one["instance_id"]] is None]
    room = _rebalance.Room(servers)
    for one in coming:
        if found[one["instance_id"]]:
            room.take(found[one["instance_id"]], one)
    assert not any(room.takes(server["name"], one) for one in left for server in servers), "there was room left"

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _candidates, _placement, _totals
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._making import NewServer

PLANS = {"free": {"placement": "shared"}, "premium": {"placement": "dedicated"}}
ONE = "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90"
TWO = "1b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90"
NEW = dict(
    backend="process", host="127.0.0.1", first_port=15433, last_port=15440, storage_root="/srv", cpu_limit=2.0,
    memory_limit="4G", storage_limit="250G", max_instances=50, connections_per_instance=6,
)  # fmt: skip


def entry(**changed):
    return dict({"instance_id": ONE, "customer_id": TWO, "plan_tier": "free", "require_dedicated": False}, **changed)


def test_every_wrong_entry_of_a_list_is_named():
    with pytest.raises(PoolsError) as refused:
        _placement.requests_from(
            [entry(), entry(instance_id="x"), entry(instance_id=TWO, plan_tier="gold"), entry()], PLANS
        )
    message = str(refused.value)
    assert "entry 2: instance_id must be a UUID" in message
    assert "entry 3: plan_tier 'gold' is unknown; db_plans has free, premium" in message
    assert "entry 4: instance_id {0} stands in entry 1 already".format(ONE) in message
    assert "entry 1:" not in message


@pytest.mark.parametrize("key", ["instance_id", "customer_id", "plan_tier"])
@pytest.mark.parametrize("value", [None, "", "x" * 200, "ö'\"; DROP"])
def test_a_missing_or_mad_value_names_its_key(key, value):
    with pytest.raises(PoolsError, match=key):
        _placement.requests_from([entry(**{key: value})], PLANS)


def test_a_plan_or_the_flag_asks_for_a_server_of_its_own():
    requests = _placement.requests_from([entry(), entry(instance_id=TWO, require_dedicated=True)], PLANS)
    assert [_placement.placement_of(one, PLANS["free"]) for one in requests] == ["shared", "dedicated"]
    assert _placement.placement_of(requests[0], PLANS["premium"]) == "dedicated"


def test_choice_and_explanation_are_made_of_the_same_rules():
    for placement in ("shared", "dedicated"):
        for rule in _candidates.rules(placement):
            assert rule.holds in _candidates.choice(placement)
            assert rule.holds in _candidates.explanation(placement)


def test_only_a_caller_about_to_give_up_waits_for_locks():
    assert _candidates.choice("shared").endswith("SKIP LOCKED")
    assert not _candidates.choice("shared", wait_for_locks=True).endswith("SKIP LOCKED")


def test_sizes_of_a_new_server_are_read_and_senseless_ones_refused():
    assert NewServer.from_options(NEW).memory_limit_bytes == 4 << 30
    for changed, told in (
        ({"memory_limit": "much"}, "much"),
        ({"max_instances": 0}, "max_instances"),
        ({"last_port": 1}, "empty range"),
    ):
        with pytest.raises(PoolsError, match=told):
            NewServer.from_options(dict(NEW, **changed))


def test_totals_count_places_of_servers_in_use_only():
    def server(kind, status, used, places):
        return {"server_type": kind, "status": status, "current_instances": used, "max_instances": places}

    fleet = [
        server("shared", "active", 10, 50),
        server("shared", "full", 50, 50),
        server("shared", "error", 5, 50),
        server("dedicated", "full", 1, 1),
    ]
    assert _totals.totals(fleet) == {
        "pools": 3,
        "active": 2,
        "dedicated": 1,
        "capacity": 100,
        "used": 60,
        "utilization": 60.0,
    }
    assert _totals.totals([])["utilization"] == 0.0

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement under concurrency, on a real inventory database, each caller a process of its own."""

from __future__ import annotations

import multiprocessing
import uuid
from collections import Counter

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _lifecycle, _making, _placement
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from registry_fixture import NEW_SERVER, registry_server


@pytest.fixture(scope="module")
def registries():
    with registry_server() as make:
        yield make


@pytest.fixture
def registry(registries):
    return registries()


def counters_are_true(registry):
    """Each counter is the sum of what it counts."""
    return (
        registry.query(
            "SELECT s.name FROM db_servers s LEFT JOIN LATERAL (SELECT count(*) AS n, coalesce(sum(connections), 0) AS c,"
            " coalesce(sum(storage_bytes), 0) AS b FROM db_allocations a WHERE a.server_id = s.id"
            " AND a.status IN ('reserved', 'active', 'migrating', 'releasing')) t ON true"
            " WHERE (s.current_instances, s.promised_connections, s.promised_storage_bytes) IS DISTINCT FROM (t.n, t.c, t.b)"
        )
        == []
    )


def ask(registry, count, making, places, start, answers):
    """One caller's life: wait for the start, then ask for as many new instances as told."""
    start.wait()
    for _one in range(count):
        try:
            answers.put(registry.place(making=making, max_instances=places)["server"])
        except Exception as error:  # a caller that died silently would leave the test waiting
            answers.put(error)


def callers(registry, processes, count=1, making=False, places=50):
    context = multiprocessing.get_context("fork")
    start, answers = context.Event(), context.Queue()
    running = [
        context.Process(target=ask, args=(registry, count, making, places, start, answers)) for _one in range(processes)
    ]
    for one in running:
        one.start()
    start.set()
    found = [answers.get(timeout=120) for _one in range(processes * count)]
    for one in running:
        one.join()
    return found


def test_64_callers_for_10_places(registry):
    registry.pool("only", places=10)
    answers = callers(registry, 64)
    assert Counter(type(one) for one in answers) == {str: 10, PoolsError: 54}
    assert "10 of 10 places are taken" in str(next(one for one in answers if isinstance(one, PoolsError)))
    assert registry.query("SELECT status, current_instances FROM db_servers") == [("full", 10)]
    assert counters_are_true(registry)


def test_1000_instances_from_32_callers_over_25_pools(registry):
    for number in range(25):
        registry.pool("pool-{0}".format(number))
    answers = callers(registry, 32, 32)
    assert len(answers) == 1024 and all(isinstance(one, str) for one in answers)
    assert registry.query(
        "SELECT count(*), count(DISTINCT instance_id), max(n) FROM db_allocations,"
        " LATERAL (SELECT max(current_instances) AS n FROM db_servers) m"
    ) == [(1024, 1024, max(Counter(answers).values()))]
    assert max(Counter(answers).values()) <= 50
    assert counters_are_true(registry)


def test_50_callers_with_no_pool_at_all_begin_one(registry):
    assert Counter(callers(registry, 50, making=True)) == {"postgres-pool-1": 50}
    assert registry.query("SELECT name, status, current_instances FROM db_servers") == [
        ("postgres-pool-1", "provisioning", 50)
    ]


def test_20_callers_with_pools_of_5_begin_four(registry):
    assert sorted(Counter(callers(registry, 20, making=True, places=5)).values()) == [5, 5, 5, 5]
    assert registry.query("SELECT count(*) FROM db_servers") == [(4,)]


def test_one_instance_asked_for_by_32_callers_has_one_place_and_one_password(registry):
    registry.pool("one")
    registry.pool("two")
    instance, customer = str(uuid.uuid4()), str(uuid.uuid4())
    ask_again = _Caller(registry, instance, customer)
    with multiprocessing.get_context("fork").Pool(32) as pool:
        answers = set(pool.map(ask_again, range(32)))
    assert answers == {ask_again(0)}
    assert counters_are_true(registry)


class _Caller:
    def __init__(self, registry, instance, customer):
        self.registry, self.instance, self.customer = registry, instance, customer

    def __call__(self, unused):
        row = self.registry.place(instance=self.instance, customer=self.customer)
        return row["allocation_id"], self.registry.cipher.decrypt(row["password_encrypted"], "it")


@pytest.mark.parametrize(
    "capacity, places, connections, storage",
    [("instances", 1, 300, 1 << 40), ("connections", 50, 6, 1 << 40), ("storage", 50, 300, 3 << 30)],
)
def test_the_database_has_the_last_word_on_capacity(registry, capacity, places, connections, storage):
    """A writer that does not ask first is refused by the constraint, not by good manners."""
    registry.pool("only", places, connection_budget=connections, storage_budget_bytes=storage)
    registry.place(making=False)
    with registry.open() as inventory, pytest.raises(
        psycopg2.errors.CheckViolation, match="db_servers_capacity_" + capacity
    ):
        inventory.execute(
            "INSERT INTO db_allocations (instance_id, customer_id, plan_tier, server_id, database_name, role_name, password_encrypted,"
            " connections, storage_bytes, expires_at)"
            " SELECT gen_random_uuid(), gen_random_uuid(), 'free', id, 'd', 'r', 'p', 1, 1, now() FROM db_servers"
        )
    assert counters_are_true(registry)


@pytest.mark.parametrize("strategy, expected", [("priority", "first"), ("spread", "empty"), ("pack", "busy")])
def test_the_order_of_each_strategy(registry, strategy, expected):
    registry.pool("first", places=10, priority=1)
    registry.pool("busy", places=10)
    registry.pool("empty", places=10)
    for name, tenants in (("first", 2), ("busy", 5)):
        registry.query(
            "UPDATE db_servers SET allocation_strategy = CASE name WHEN %s THEN 'auto' ELSE 'manual' END", (name,)
        )
        for _one in range(tenants):
            assert registry.place(making=False)["server"] == name
    registry.query("UPDATE db_servers SET allocation_strategy = 'auto'")
    assert registry.place(making=False, strategy=strategy)["server"] == expected


@pytest.mark.parametrize("health", ["unknown", "healthy"])
def test_among_equals_the_emptier_one_and_then_the_older(registry, health):
    registry.pool("older", places=10, health_status=health)
    registry.pool("younger", places=10, health_status=health)
    assert [registry.place(making=False)["server"] for _one in range(4)] == ["older", "younger", "older", "younger"]


def test_each_server_that_is_not_chosen_has_its_reason(registry):
    registry.pool("chosen")
    registry.pool("manual", allocation_strategy="manual")
    registry.pool("ill", health_status="unhealthy")
    registry.pool("worse", health_status="degraded")
    registry.pool("closed", status="maintenance", status_reason="new disk")
    registry.pool("broken", status="error", status_reason="no route")
    registry.pool("narrow", connection_budget=5)
    registry.pool("small", storage_budget_bytes=1 << 30)
    registry.pool("making", status="provisioning")
    with registry.open() as inventory:
        request = _placement.Request(str(uuid.uuid4()), str(uuid.uuid4()), "standard")
        plan = inventory.plans()["standard"]
        reasons = {row["server"]: row["reason"] for row in _placement.considered(inventory, request, plan)}
        assert next(iter(reasons)) == "chosen"
        assert reasons == {
            "chosen": None,
            "manual": "it takes allocations by hand only (allocation_strategy is manual)",
            "ill": "its health is unhealthy",
            "worse": "its health is degraded",
            "closed": "it is maintenance: new disk",
            "broken": "it is error: no route",
            "narrow": "0 of 5 connections are promised, the plan takes 6",
            "small": "0 bytes of 1024 MB are promised, the plan takes 3072 MB",
            "making": "it is provisioning",
        }
    assert registry.place(making=False)["server"] == "chosen"


def test_a_plan_that_needs_more_goes_where_it_fits(registry):
    registry.pool("narrow", connection_budget=5, priority=1)
    registry.pool("wide")
    assert registry.place("free", making=False)["server"] == "narrow"
    assert registry.place("standard", making=False)["server"] == "wide"


def test_premium_and_the_flag_get_servers_of_their_own(registry):
    registry.pool("pool")
    premium, flagged = registry.place("premium"), registry.place("free", dedicated=True)
    assert premium["server"] == "postgres-dedicated-" + premium["instance_id"][:8]
    assert flagged["server"] == "postgres-dedicated-" + flagged["instance_id"][:8]
    assert registry.query("SELECT count(*) FROM db_servers WHERE server_type = 'dedicated' AND max_instances = 1") == [
        (2,)
    ]


def test_a_reservation_that_ran_out_makes_room(registry):
    registry.pool("only", places=1)
    late = registry.place(making=False)
    with pytest.raises(PoolsError):
        registry.place(making=False)
    registry.query("UPDATE db_allocations SET expires_at = now() - interval '1 s'")
    assert registry.place(making=False)["server"] == "only"
    assert registry.query("SELECT status FROM db_allocations WHERE instance_id = %s", (late["instance_id"],)) == [
        ("expired",)
    ]
    with registry.open() as inventory, pytest.raises(PoolsError, match="ran out"):
        _lifecycle.activate(inventory, [late["instance_id"]])


def test_another_customer_is_told_off(registry):
    registry.pool("only")
    mine = registry.place(making=False)
    with pytest.raises(PoolsError, match="belongs to another customer"):
        registry.place(instance=mine["instance_id"], making=False)


def test_instances_with_the_same_leading_digits_get_databases_of_their_own(registry):
    registry.pool("only")
    customer, first = str(uuid.uuid4()), str(uuid.uuid4())
    twin = first[:8] + str(uuid.uuid4())[8:]
    names = [registry.place(instance=one, customer=customer, making=False)["database"] for one in (first, twin)]
    assert len(set(names)) == 2


def claim(inventory, *names):
    return _making.claim_making(inventory, names, 60)


def test_a_dead_makers_server_is_taken_over_once_its_lease_ran_out(registry):
    registry.place()
    with registry.open() as inventory:
        _name, lease = claim(inventory, "postgres-pool-1")
        assert claim(inventory, "postgres-pool-1") is None
        with pytest.raises(PoolsError, match="made by another run"):
            _lifecycle.step_server(inventory, "postgres-pool-1", "initializing", str(uuid.uuid4()), 60, {})
        registry.query("UPDATE db_servers SET lease_expires_at = now() - interval '1 s'")
        _name, taken_over = claim(inventory, "postgres-pool-1")
        assert taken_over != lease
        for step in ("initializing", "error"):
            with pytest.raises(PoolsError, match="made by another run"):
                _lifecycle.step_server(inventory, "postgres-pool-1", step, lease, 60, {})
        assert _lifecycle.step_server(inventory, "postgres-pool-1", "initializing", taken_over, 60, {})


def test_a_slow_maker_may_still_say_that_its_server_is_there(registry):
    registry.pool("slow", status="initializing")
    registry.query("UPDATE db_servers SET lease_expires_at = now() - interval '1 s'")
    with registry.open() as inventory:
        _name, taken_over = claim(inventory, "slow")
        assert _lifecycle.step_server(
            inventory, "slow", "active", str(uuid.uuid4()), 60, {"postgres_version": "150018"}
        )
        assert not _lifecycle.step_server(inventory, "slow", "initializing", taken_over, 60, {})
        assert not _lifecycle.step_server(inventory, "slow", "active", taken_over, 60, {})
    assert registry.query("SELECT status, lease_holder FROM db_servers") == [("active", None)]


def test_many_waiters_claim_each_server_once(registry):
    for number in range(3):
        registry.pool("making-{0}".format(number), status="provisioning")
    names = ["making-{0}".format(number) for number in range(3)]
    with multiprocessing.get_context("fork").Pool(16) as pool:
        claimed = [one for one in pool.map(_Claimer(registry, names), range(16)) if one]
    assert sorted(name for name, _lease in claimed) == names


class _Claimer:
    def __init__(self, registry, names):
        self.registry, self.names = registry, names

    def __call__(self, unused):
        with self.registry.open() as inventory:
            return claim(inventory, *self.names)


def test_a_place_on_a_server_that_failed_is_found_anew(registry):
    first = registry.place()
    with registry.open() as inventory:
        _lifecycle.step_server(inventory, first["server"], "error", None, 60, {"status_reason": "no disk"})
    second = registry.place(instance=first["instance_id"], customer=first["customer_id"])
    assert (first["server"], second["server"]) == ("postgres-pool-1", "postgres-pool-2")
    assert counters_are_true(registry)


def test_a_pools_number_is_never_given_twice(registry):
    registry.place(max_instances=1)
    registry.query("DELETE FROM db_allocations")
    registry.query("DELETE FROM db_servers")
    assert registry.place()["server"] == "postgres-pool-2"


def test_a_dry_run_leaves_no_trace_not_even_in_a_sequence(registry):
    def everything():
        tables = ("db_servers", "db_allocations", "db_events", "db_pool_number")
        return [
            registry.query("SELECT to_jsonb(t)::text FROM (SELECT * FROM {0}) t ORDER BY 1".format(table))
            for table in tables
        ]

    before = everything()
    with registry.open(dry_run=True) as inventory:
        new = _making.NewServer.from_options(dict(NEW_SERVER, max_instances=1))
        for _one in range(3):
            request = _placement.Request(str(uuid.uuid4()), str(uuid.uuid4()), "standard")
            assert _placement.place(
                inventory, registry.cipher, request, inventory.plans()["standard"], _placement.Policy(new_server=new)
            ).changed
        assert len(inventory.servers()) == 3
    assert everything() == before

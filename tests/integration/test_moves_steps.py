# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A move in the inventory database, step by step: what it holds, what it refuses, and what is left when it ends either way."""

from __future__ import annotations

import json
import re
import time
import uuid

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _lifecycle, _making
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._moving_lease import Heartbeat
from moves_fixture import ALL, EQUAL, MAKING, call, findings, in_order, options, tenant, through, used, where
from registry_fixture import NEW_SERVER, bin_dirs, registry_server


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def registries(request):
    with registry_server(request.param) as make:
        yield make


@pytest.fixture
def registry(registries):
    return registries()


@pytest.fixture
def two(registry):
    """A tenant on ``old``, beside ``new`` with one place."""
    registry.pool("old", places=1)
    registry.instance = tenant(registry)
    registry.pool("new", places=1)
    return registry


def dedicated(registry, instance, name="own", **limits):
    """A server of the instance's own, as it is after it was made."""
    new = _making.NewServer.from_options(NEW_SERVER)
    with registry.open() as inventory:
        customer = inventory.allocations([instance])[0]["customer_id"]
        with inventory.transaction():
            inventory.lock_placement()
            _making.make_server(inventory, registry.cipher, new, "dedicated", inventory.plans()["premium"], customer, instance, name)
        for status in ("initializing", "active"):
            _lifecycle.step_server(inventory, name, status, None, 60, {})


def test_what_is_held_and_where_at_every_step(two):
    told = call(two, two.instance)
    lease = told["migration"]["lease"]
    assert (told["status"], told["found"], told["no_copy"], told["changed"]) == ("ready", False, False, True)
    seen = [("planned", used(two, "old"), used(two, "new"), where(two, two.instance)[:2])]
    for status in ALL:
        through(two, two.instance, status, lease=lease)
        seen.append((status, used(two, "old"), used(two, "new"), where(two, two.instance)[:2]))
        assert in_order(two)
    full, storage, nothing = (1, 6, 3), (0, 0, 3), (0, 0, 0)
    assert seen == [
        ("planned", full, full, ("old", "migrating")),
        ("preparing", full, full, ("old", "migrating")),
        ("copying", full, full, ("old", "migrating")),
        ("verifying", full, full, ("old", "migrating")),
        ("cutover", full, full, ("new", "migrating")),
        ("completed", storage, full, ("new", "active")),
    ]
    # As the cleanup does when it has dropped the source.
    with two.open() as inventory:
        inventory.execute("UPDATE db_tenant_migrations SET retained_until = NULL, updated_at = now() WHERE status = 'completed'")
    assert used(two, "old") == nothing and in_order(two)
    kinds = [kind for (kind,) in two.query("SELECT kind FROM db_events WHERE kind LIKE 'migration.%' ORDER BY happened_at")]
    assert kinds == ["migration." + status for status in ("planned", *ALL)]
    cutover = "SELECT detail->>'source', detail->>'target', instance_id::text FROM db_events WHERE kind = 'migration.cutover'"
    assert two.query(cutover) == [("old", "new", two.instance)]
    # Neither server was seen with a free place that was never free.
    assert two.query("SELECT s.name, e.kind FROM db_events e JOIN db_servers s ON s.id = e.server_id WHERE e.kind = 'server.full' ORDER BY 1") == [
        ("new", "server.full"), ("old", "server.full"),
    ]  # fmt: skip


@pytest.mark.parametrize("last", ["planned", "preparing", "copying", "verifying", "cutover"])
def test_rolled_back_at_any_step_it_is_where_it_was(two, last):
    before = two.query("SELECT server_id, plan_tier, requires_dedicated, connections, storage_bytes FROM db_allocations")
    told = call(two, two.instance)
    for status in ALL[: (("planned", *ALL).index(last))]:
        told = through(two, two.instance, status, lease=told["migration"]["lease"])
    told = call(two, two.instance, "rolled_back", lease=told["migration"]["lease"], reason="the network went")
    assert (told["migration"]["status"], told["migration"]["status_reason"]) == ("rolled_back", "the network went")
    assert where(two, two.instance)[:2] == ("old", "active") and used(two, "new") == (0, 0, 0) and used(two, "old") == (1, 6, 3)
    assert two.query("SELECT server_id, plan_tier, requires_dedicated, connections, storage_bytes FROM db_allocations") == before
    assert in_order(two)
    assert call(two, two.instance, "rolled_back", lease=told["migration"]["lease"], reason="again")["changed"] is False
    assert call(two, two.instance)["found"] is False, "it can be tried again"


def test_every_step_twice_changes_nothing_the_second_time(two):
    lease = call(two, two.instance)["migration"]["lease"]
    for status in ALL:
        given = {"proof": dict(EQUAL, tables=3)} if status == "cutover" else {}
        assert call(two, two.instance, status, lease=lease, **given)["changed"] is True
        held = two.query("SELECT to_jsonb(s) - 'updated_at' FROM db_servers s")
        assert call(two, two.instance, status, lease=lease, **given)["changed"] is False
        assert two.query("SELECT to_jsonb(s) - 'updated_at' FROM db_servers s") == held


def test_steps_out_of_turn_are_refused_by_the_code_and_by_the_database(two):
    lease = call(two, two.instance)["migration"]["lease"]
    with pytest.raises(PoolsError, match=r"is planned, and cutover does not follow on that"):
        call(two, two.instance, "cutover", lease=lease, proof=EQUAL)
    with two.open() as inventory, pytest.raises(psycopg2.errors.CheckViolation, match=r"may not go from planned to cutover"):
        inventory.execute("UPDATE db_tenant_migrations SET status = 'cutover', proof = '{\"equal\": true}'")
    assert where(two, two.instance)[:2] == ("old", "migrating")


@pytest.mark.parametrize("proof", [None, {}, {"equal": False}, {"equal": "true"}, {"equal": 1}, {"equal": None}])
def test_no_cutover_without_a_proof(two, proof):
    lease = through(two, two.instance, "preparing", "copying", "verifying")["migration"]["lease"]
    with pytest.raises(PoolsError, match=r"has no proof that its two databases are equal"):
        call(two, two.instance, "cutover", lease=lease, proof=proof)
    with two.open() as inventory, pytest.raises(psycopg2.errors.CheckViolation, match=r"without a proof"):
        inventory.execute("UPDATE db_tenant_migrations SET status = 'cutover', proof = %(proof)s::jsonb", {"proof": json.dumps(proof)})
    assert where(two, two.instance)[:2] == ("old", "migrating") and in_order(two)


def test_a_proof_of_the_comparison_is_enough_for_the_cutover(two):
    lease = through(two, two.instance, "preparing", "copying", "verifying")["migration"]["lease"]
    call(two, two.instance, "renewed", lease=lease, proof=dict(EQUAL, tables=3))
    told = call(two, two.instance, "cutover", lease=lease)["migration"]
    assert told["proof"] == {"equal": True, "tables": 3, "source_database": told["source_database"]}
    assert re.fullmatch(r"odoo_[0-9a-f]{16}_[0-9a-f]{8}_moved_[0-9a-f]{12}", told["source_database"])


def test_nobody_changes_a_tenants_server_or_state_past_its_move(two):
    for statement, told in (
        ("UPDATE db_allocations SET status = 'migrating'", "migrating as long as it has a move"),
        ("UPDATE db_allocations SET server_id = (SELECT id FROM db_servers WHERE name = 'new')", "by a move only"),
    ):
        with pytest.raises(psycopg2.errors.CheckViolation, match=told):
            two.query(statement)
    lease = call(two, two.instance)["migration"]["lease"]
    with pytest.raises(psycopg2.errors.CheckViolation, match=r"migrating as long as it has a move"):
        two.query("UPDATE db_allocations SET status = 'active'")
    for statement in (
        "UPDATE db_allocations SET server_id = (SELECT id FROM db_servers WHERE name = 'new')",
        "UPDATE db_tenant_migrations SET connections = 1",
        "UPDATE db_tenant_migrations SET target_server_id = source_server_id",
        "DELETE FROM db_tenant_migrations",
    ):
        with two.open() as inventory, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            inventory.execute(statement)
    with two.open() as inventory, pytest.raises(PoolsError, match=r"is being moved and cannot be released"):
        _lifecycle.begin_release(inventory, [two.instance])
    through(two, two.instance, *ALL, lease=lease)
    assert in_order(two)


def test_check_mode_says_what_would_be_and_leaves_nothing(two):
    before = two.query("SELECT to_jsonb(s) FROM db_servers s"), two.query("SELECT count(*) FROM db_events")
    told = call(two, two.instance, dry_run=True)
    assert told["migration"]["target"] == "new" and told["diff"]["after"]["allocation_status"] == "migrating"
    assert (two.query("SELECT to_jsonb(s) FROM db_servers s"), two.query("SELECT count(*) FROM db_events")) == before
    assert two.query("SELECT count(*) FROM db_tenant_migrations") == [(0,)]


def test_the_result_is_what_the_other_modules_take(two):
    told = call(two, two.instance, plan_tier="free", size_bytes=1 << 20)
    assert told["no_copy"] is True
    told = call(two, two.instance, plan_tier="professional", target="new")
    servers = dict(two.query("SELECT name, port FROM db_servers"))
    database, user = told["migration"]["database"], told["migration"]["database"] + "_user"
    assert (told["source"]["login_port"], told["target"]["login_port"]) == (servers["old"], servers["new"])
    assert {key for key in told["source"] if not key.startswith("login_")} == {"database", "owner"}
    assert two.cipher.decrypt(told["target"]["login_password_encrypted"], "it")
    made = told["tenant_database"]
    assert (made["name"], made["owner"], made["connection_limit"], made["temp_file_limit"]) == (database, user, 6, 2 << 30)
    assert told["source_tenant_database"]["connection_limit"] == 4 and told["source_tenant_database"]["login_port"] == servers["old"]
    assert told["quarantine"]["quarantine_name"] == told["migration"]["source_database"] and told["quarantine"]["login_port"] == servers["old"]
    assert len(told["migration"]["source_database"]) <= 58
    for state in ALL:
        told = through(two, two.instance, state, lease=told["migration"]["lease"])
    assert two.query("SELECT plan_tier, connections, storage_bytes >> 30 FROM db_allocations") == [("professional", 6, 5)]


def test_steps_progress_and_times_are_kept(two):
    lease = call(two, two.instance)["migration"]["lease"]
    one = {"step": "preflight", "seconds": 0.5, "detail": "it fits"}
    call(two, two.instance, "preparing", lease=lease, steps=[one], progress={"tables": 3})
    call(two, two.instance, "preparing", lease=lease, steps=[one])
    told = call(two, two.instance, "copying", lease=lease, steps=[{"step": "copy", "seconds": 3}], writes_stopped=True)["migration"]
    assert [step["step"] for step in told["steps"]] == ["preflight", "copy"] and told["progress"] == {"tables": 3}
    assert told["started_at"] and told["writes_stopped_at"] and not told["ended_at"]
    told = through(two, two.instance, "verifying", "cutover", "completed", lease=lease)["migration"]
    assert told["cutover_at"] and told["ended_at"] and 0 <= told["proof"]["downtime_seconds"] < 60
    assert told["proof"]["equal"] is True and told["retained_until"]


def test_to_where_it_is_already_nothing_moves(two):
    told = call(two, two.instance, target="old")
    assert (told["changed"], told["no_copy"], told["migration"]) == (False, True, None)
    with pytest.raises(PoolsError, match=r"is on old already"):
        call(two, two.instance, target="old", plan_tier="premium")


@pytest.mark.parametrize(
    "given, told",
    [
        ({"instance_id": "x"}, "instance_id must be a UUID, got 'x'"),
        ({"instance_id": str(uuid.UUID(int=7))}, "00000007 has no allocation"),
        ({"target": "nowhere"}, "There is no server 'nowhere'"),
        ({"target": "No Name"}, "cannot be a server's name"),
        ({"target": "broken"}, "Server broken cannot take instance .*: it is error: no route"),
        ({"target": "small"}, "Server small cannot take instance .*1024 MB are promised, the plan takes 3072 MB"),
        ({"plan_tier": "gold"}, "plan_tier 'gold' is unknown; db_plans has enterprise, free"),
        ({"plan_tier": "premium"}, "No other dedicated server has room .* none may be made .*foreign: it belongs to another instance"),
        ({"plan_tier": "free", "size_bytes": 2 << 30}, "has 2048 MiB, and plan free takes 1024 MiB"),
        ({"exclude": ["new", "hand"]}, "No other shared server has room .*new: it is excluded"),
        ({"target": "older"}, "Server older cannot take instance .*its PostgreSQL is older"),
        ({"lease": "abc"}, "lease must be a UUID"),
        ({"lease_seconds": 0}, "lease_seconds is 0; it is 1 or more"),
        ({"state": "copying", "lease": str(uuid.UUID(int=1))}, "is not being moved"),
        ({"state": "returning"}, "was never moved"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_nothing_is_touched(two, given, told):
    two.pool("small", storage_budget_bytes=1 << 30, priority=200)
    two.pool("broken", status="error", status_reason="no route")
    two.pool("older", postgres_version="15.18", priority=200)
    two.query("UPDATE db_servers SET postgres_version = '180004' WHERE name = 'old'")
    other = tenant(two)
    dedicated(two, other, "foreign")
    before = two.query("SELECT to_jsonb(s) FROM db_servers s ORDER BY name")
    with pytest.raises(PoolsError, match=told):
        call(two, given.get("instance_id", two.instance), **{key: value for key, value in given.items() if key != "instance_id"})
    assert two.query("SELECT to_jsonb(s) FROM db_servers s ORDER BY name") == before
    assert where(two, two.instance)[1] == "active"


def test_a_server_that_takes_tenants_by_hand_only_is_taken_by_its_name(two):
    two.pool("hand", allocation_strategy="manual")
    assert "hand" not in [one["server"] for one in call(two, two.instance, dry_run=True)["considered"] if one["reason"] is None]
    assert call(two, two.instance, target="hand")["migration"]["target"] == "hand"


@pytest.mark.parametrize("status", ["reserved", "releasing"])
def test_only_an_active_tenant_is_moved(registry, status):
    registry.pool("old")
    registry.pool("new")
    placed = registry.place(making=False)
    if status == "releasing":
        with registry.open() as inventory:
            _lifecycle.activate(inventory, [placed["instance_id"]])
            _lifecycle.begin_release(inventory, [placed["instance_id"]])
    with pytest.raises(PoolsError, match=r"is {0}, and only an active one is moved".format(status)):
        call(registry, placed["instance_id"])


def test_a_password_that_is_being_rotated_keeps_the_tenant_where_it_is(two):
    two.query("UPDATE db_allocations SET next_password_encrypted = 'gAAAA'")
    with pytest.raises(PoolsError, match=r"The password of instance .* is being rotated"):
        call(two, two.instance)
    assert call(two, two.instance, plan_tier="professional")["no_copy"] is True, "its limits are another matter"
    assert where(two, two.instance)[1] == "active" and in_order(two)


# --- plans


def test_another_plan_that_fits_where_it_is_moves_nothing(two):
    told = call(two, two.instance, plan_tier="professional")
    assert (told["no_copy"], told["changed"], told["migration"]) == (True, True, None)
    assert where(two, two.instance) == ("old", "active", "professional") and used(two, "old") == (1, 6, 5)
    assert told["tenant_database"]["temp_file_limit"] == 2 << 30
    again = call(two, two.instance, plan_tier="professional")
    assert (again["no_copy"], again["changed"]) == (True, False) and in_order(two)
    assert two.query("SELECT count(*) FROM db_tenant_migrations") == [(0,)]
    assert two.query("SELECT detail->'after'->>'plan_tier' FROM db_events WHERE kind = 'allocation.changed'") == [("professional",)]


def test_another_plan_for_which_its_server_has_no_room_moves_it(two):
    two.query("UPDATE db_servers SET storage_budget_bytes = promised_storage_bytes WHERE name = 'old'")
    told = call(two, two.instance, plan_tier="professional")
    assert (told["no_copy"], told["migration"]["target"], told["migration"]["plan_tier"]) == (False, "new", "professional")
    through(two, two.instance, *ALL, lease=told["migration"]["lease"])
    assert where(two, two.instance) == ("new", "active", "professional") and used(two, "new") == (1, 6, 5) and used(two, "old") == (0, 0, 3)


def test_up_to_a_server_of_its_own_and_down_again(two):
    dedicated(two, two.instance)
    told = call(two, two.instance, plan_tier="premium")
    assert told["migration"]["target"] == "own" and told["tenant_database"]["connection_limit"] == 50
    through(two, two.instance, *ALL, lease=told["migration"]["lease"])
    assert where(two, two.instance) == ("own", "active", "premium") and used(two, "own") == (1, 50, 50)
    told = call(two, two.instance, plan_tier="standard", size_bytes=1 << 30)
    assert told["migration"]["target"] in ("new", "old")
    through(two, two.instance, *ALL, lease=told["migration"]["lease"])
    assert where(two, two.instance)[1:] == ("active", "standard") and used(two, "own") == (0, 0, 50) and in_order(two)


def test_a_server_in_the_making_is_waited_for(two):
    told = call(two, two.instance, plan_tier="premium", new_server=MAKING, wait_timeout=5)
    assert told["status"] == "make" and told["to_make"]["name"] == told["migration"]["target"]
    name, lease = told["to_make"]["name"], told["migration"]["lease"]
    assert used(two, name) == (1, 50, 50), "the place on a server in the making is held too"
    assert call(two, two.instance, plan_tier="premium", new_server=MAKING, lease=lease)["status"] == "provisioning"
    with two.open() as inventory:
        for status in ("initializing", "active"):
            _lifecycle.step_server(inventory, name, status, told["to_make"]["lease"], 60, {})
    told = call(two, two.instance, plan_tier="premium", new_server=MAKING, lease=lease, wait_timeout=5)
    assert (told["status"], told["found"], told["to_make"]) == ("ready", True, None)
    through(two, two.instance, *ALL, lease=lease)
    assert where(two, two.instance) == (name, "active", "premium") and in_order(two)


def test_a_target_that_could_not_be_made_is_given_up_and_another_planned(two):
    told = call(two, two.instance, plan_tier="premium", new_server=MAKING, wait_timeout=5)
    first, lease = told["to_make"]["name"], told["migration"]["lease"]
    two.query("UPDATE db_servers SET status = 'error', status_reason = 'the disk is full' WHERE name = %s", (first,))
    told = call(two, two.instance, plan_tier="premium", new_server=MAKING, wait_timeout=5, lease=lease)
    assert told["found"] is False and told["migration"]["target"] not in (first, "old")
    given_up = two.query("SELECT status_reason FROM db_tenant_migrations WHERE status = 'rolled_back'")
    assert given_up == [("server {0} is error: the disk is full".format(first),)]
    assert in_order(two)


def test_a_tenant_with_a_server_of_its_own_moves_to_another_one(two):
    dedicated(two, two.instance)
    through(two, two.instance, *ALL, plan_tier="premium")
    told = call(two, two.instance, new_server=MAKING, wait_timeout=5)
    assert told["status"] == "make" and told["to_make"]["name"] not in ("own", "old")
    with two.open() as inventory:
        for status in ("initializing", "active"):
            _lifecycle.step_server(inventory, told["to_make"]["name"], status, told["to_make"]["lease"], 60, {})
    through(two, two.instance, *ALL, lease=told["migration"]["lease"])
    assert where(two, two.instance)[0] == told["to_make"]["name"] and in_order(two)


# --- the lease


def test_a_second_move_is_refused_while_the_first_is_at_work(two):
    told = call(two, two.instance, lease_seconds=2)
    with Heartbeat(two.params, told["migration"]["id"], told["migration"]["lease"], every=0.3, lease_seconds=2):
        began = time.monotonic()
        with pytest.raises(PoolsError, match=r"is being moved from old to new by another run .* it is planned"):
            call(two, two.instance, lease_seconds=2)
        assert time.monotonic() - began < 1.5
    assert two.query("SELECT count(*) FROM db_tenant_migrations") == [(1,)]


def test_a_dead_runs_move_is_taken_over_where_it_was(two):
    dead = through(two, two.instance, "preparing", lease_seconds=1)["migration"]["lease"]
    call(two, two.instance, "copying", lease=dead, lease_seconds=1)
    told = call(two, two.instance, lease_seconds=1)
    assert (told["found"], told["migration"]["status"], told["changed"]) == (True, "copying", False)
    assert told["migration"]["lease"] != dead
    for state in ("verifying", "renewed", "rolled_back"):
        with pytest.raises(PoolsError, match=r"was taken over by another run .*@"):
            call(two, two.instance, state, lease=dead, reason="late")
    through(two, two.instance, "verifying", "cutover", "completed", lease=told["migration"]["lease"])
    with pytest.raises(PoolsError, match=r"was taken over by another run .* and has ended: it is completed"):
        call(two, two.instance, "verifying", lease=dead)
    assert two.query("SELECT detail->>'status' FROM db_events WHERE kind = 'migration.taken_over'") == [("copying",)]
    assert in_order(two)


def test_a_lease_longer_than_the_wait_is_left_alone(two):
    call(two, two.instance, lease_seconds=600)
    with pytest.raises(PoolsError, match=r"belongs to another run .* until 20"):
        call(two, two.instance, lease_seconds=1)


def test_the_heartbeat_renews_writes_the_progress_and_notices_its_loss(two):
    told = call(two, two.instance, lease_seconds=1)["migration"]
    with Heartbeat(two.params, told["id"], told["lease"], every=0.2, lease_seconds=2) as beat:
        beat.progress({"bytes_done": 7})
        time.sleep(1.5)
        beat.check()
        assert two.query("SELECT progress->>'bytes_done', lease_expires_at > now() FROM db_tenant_migrations") == [("7", True)]
        two.query("UPDATE db_tenant_migrations SET lease_holder = gen_random_uuid()")
        time.sleep(0.6)
        with pytest.raises(PoolsError, match=r"ended or was taken over"):
            beat.check()


def test_a_heartbeat_that_cannot_reach_the_inventory_says_so_when_the_lease_is_over(two):
    told = call(two, two.instance)["migration"]
    with Heartbeat(dict(two.params, login_port=1), told["id"], told["lease"], every=0.1, lease_seconds=1) as beat:
        beat.check()
        time.sleep(1.2)
        with pytest.raises(PoolsError, match=r"could not be reached until the lease"):
            beat.check()


# --- the way back


def test_back_within_the_retention_and_only_once(two):
    through(two, two.instance, *ALL, plan_tier="professional", target="new")
    told = call(two, two.instance, "returning")
    assert where(two, two.instance)[:2] == ("new", "migrating") and used(two, "old") == (1, 6, 3) and in_order(two)
    with pytest.raises(PoolsError, match=r"is on its way back from new to old"):
        call(two, two.instance)
    lease = told["migration"]["lease"]
    told = call(two, two.instance, "rolled_back", lease=lease, reason="the customer asked")
    assert where(two, two.instance) == ("old", "active", "standard") and used(two, "new") == (0, 0, 0) and used(two, "old") == (1, 6, 3)
    assert told["source_tenant_database"]["connection_limit"] == 6 and in_order(two)
    # Asked again, as by the run after one that died here: there is nothing to record, but the servers may not know yet.
    again = call(two, two.instance, "returning")
    assert (again["changed"], again["found"], again["migration"]["status"]) == (False, True, "rolled_back")


def test_a_return_that_is_called_off_leaves_the_tenant_where_it_is(two):
    through(two, two.instance, *ALL)
    lease = call(two, two.instance, "returning")["migration"]["lease"]
    with pytest.raises(PoolsError, match=r"copying is no step of that"):
        call(two, two.instance, "copying", lease=lease)
    assert call(two, two.instance, "completed", lease=lease, reason="it has newer writes")["changed"] is True
    assert where(two, two.instance)[:2] == ("new", "active") and used(two, "old") == (0, 0, 3) and in_order(two)


def test_a_killed_return_is_taken_over(two):
    through(two, two.instance, *ALL)
    first = call(two, two.instance, "returning", lease_seconds=1)
    second = call(two, two.instance, "returning", lease_seconds=1)
    assert (first["found"], second["found"]) == (False, True) and first["migration"]["lease"] != second["migration"]["lease"]


# Its storage cannot be given away: that is what is kept for the way back.
@pytest.mark.parametrize(
    "told, wider", [("all its places are taken", "connection_budget = 300"), ("its connections are promised to others", "max_instances = 5")]
)
def test_back_to_a_server_that_filled_up_meanwhile_is_refused_and_nothing_is_lost(two, told, wider):
    through(two, two.instance, *ALL)
    two.query("UPDATE db_servers SET {0} WHERE name = 'old'".format(wider))
    tenant(two)
    with pytest.raises(PoolsError, match=r"cannot go back to old: {0} by now. It stays on new".format(told)):
        call(two, two.instance, "returning")
    assert where(two, two.instance)[:2] == ("new", "active") and in_order(two)
    assert two.query("SELECT status, retained_until IS NOT NULL, returning_at FROM db_tenant_migrations") == [("completed", True, None)]
    two.query("UPDATE db_servers SET max_instances = 5, connection_budget = 300 WHERE name = 'old'")
    lease = call(two, two.instance, "returning")["migration"]["lease"]
    call(two, two.instance, "rolled_back", lease=lease, reason="asked for")
    assert where(two, two.instance)[:2] == ("old", "active") and in_order(two)


def test_there_is_no_way_back_to_a_source_that_was_dropped(two):
    through(two, two.instance, *ALL)
    two.query("UPDATE db_tenant_migrations SET retained_until = NULL")
    with pytest.raises(PoolsError, match=r"The source of the last move of instance .*, on old, was dropped"):
        call(two, two.instance, "returning")
    with pytest.raises(psycopg2.errors.CheckViolation, match=r"nothing to go back to"):
        two.query("UPDATE db_tenant_migrations SET status = 'rolled_back'")


def test_of_two_moves_the_older_one_is_no_way_back(two):
    two.pool("third")
    through(two, two.instance, *ALL, target="new")
    through(two, two.instance, *ALL, target="third")
    with pytest.raises(psycopg2.errors.CheckViolation, match=r"no longer where this move"):
        two.query(
            "UPDATE db_tenant_migrations SET status = 'rolled_back' WHERE target_server_id = (SELECT id FROM db_servers WHERE name = 'new')"
        )
    assert where(two, two.instance)[0] == "third" and used(two, "new") == (0, 0, 3) and in_order(two)


def test_a_server_with_a_move_on_its_way_is_not_deprovisioned(two):
    call(two, two.instance)
    two.query("UPDATE db_servers SET status = 'maintenance' WHERE name = 'new'")
    with pytest.raises(psycopg2.errors.CheckViolation, match=r"db_servers_emptied_first"):
        two.query("UPDATE db_servers SET status = 'deprovisioning' WHERE name = 'new'")


def test_the_audit_sees_a_counter_that_lost_a_hold(two):
    call(two, two.instance)
    assert findings(two) == []
    two.query("ALTER TABLE db_servers DISABLE TRIGGER USER; UPDATE db_servers SET current_instances = 0 WHERE name = 'new'")
    assert [(one["server"], one["kind"], one["object"]) for one in findings(two)] == [("new", "counter", "current_instances")]


def test_every_option_has_its_default():
    assert options()["lease_seconds"] == 20 and options()["retention_days"] == 7.0

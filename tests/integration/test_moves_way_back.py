# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a way back belongs to one run, the seconds of a move are its own, and a plan with too little storage is refused before anything is."""

from __future__ import annotations

import time
from typing import Any, Dict, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from moves_fixture import ALL, call, in_order, tenant, through, where
from registry_fixture import bin_dirs, registry_server


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def registries(request):
    with registry_server(request.param) as make:
        yield make


@pytest.fixture
def two(registries):
    made = registries()
    made.pool("old", places=1)
    made.instance = tenant(made)
    made.pool("new", places=1)
    return made


def half_back(two: Any, seconds: int = 60, **given: Any) -> str:
    """Rolled back on demand, with its last steps still to be taken; the lease."""
    through(two, two.instance, *ALL)
    lease = str(call(two, two.instance, "returning")["migration"]["lease"])
    told = call(two, two.instance, "rolled_back", lease=lease, reason="asked for", unfinished=True, lease_seconds=seconds, **given)
    assert told["migration"]["status"] == "rolled_back" and told["migration"]["lease_expires_at"]
    assert where(two, two.instance)[:2] == ("old", "active")
    return lease


def test_nobody_moves_a_tenant_whose_way_back_has_not_ended(two: Any) -> None:
    lease = half_back(two)
    for state in ("planned", "returning"):
        with pytest.raises(PoolsError, match="belongs to another run"):
            call(two, two.instance, state, lease_seconds=1)
    call(two, two.instance, "renewed", lease=lease)
    assert call(two, two.instance, "returned", lease=lease)["changed"] is True
    assert call(two, two.instance, "returned", lease=lease)["changed"] is False
    told = call(two, two.instance)
    assert (told["found"], told["migration"]["status"]) == (False, "planned") and in_order(two)


@pytest.mark.parametrize("state", ["planned", "returning"])
def test_the_last_steps_of_a_run_that_died_are_the_next_ones(two: Any, state: str) -> None:
    lease = half_back(two, seconds=1)
    told = call(two, two.instance, state, lease_seconds=2)
    assert (told["found"], told["migration"]["status"], told["status"]) == (True, "rolled_back", "ready")
    assert told["source_tenant_database"]["name"] == told["migration"]["database"]
    # The one before it comes back to life, and may neither open nor drop anything.
    for late in ("renewed", "returned", "rolled_back"):
        with pytest.raises(PoolsError, match="taken over by another run"):
            call(two, two.instance, late, lease=lease, reason="late")
    call(two, two.instance, "returned", lease=told["migration"]["lease"])
    assert call(two, two.instance)["found"] is False


def test_a_tenant_that_was_released_meanwhile_is_let_in_nowhere(two: Any) -> None:
    lease = half_back(two)
    two.query("UPDATE db_allocations SET status = 'releasing'")
    with pytest.raises(PoolsError, match="has ended: it is rolled_back"):
        call(two, two.instance, "renewed", lease=lease)


@pytest.mark.parametrize("last", ["planned", "copying", "cutover", "completed"])
def test_a_way_back_that_is_not_recorded_has_no_end(two: Any, last: str) -> None:
    lease = through(two, two.instance, *ALL[: ("planned", *ALL).index(last)])["migration"]["lease"] if last != "planned" else None
    lease = lease or call(two, two.instance)["migration"]["lease"]
    with pytest.raises(PoolsError, match=r"no end yet|has ended: it is completed"):
        call(two, two.instance, "returned", lease=lease)


def test_one_that_ended_before_this_release_is_not_taken_for_unfinished(two: Any) -> None:
    through(two, two.instance, *ALL)
    lease = call(two, two.instance, "returning")["migration"]["lease"]
    call(two, two.instance, "rolled_back", lease=lease, reason="asked for")
    assert call(two, two.instance, "returning")["migration"]["lease_expires_at"] is None
    assert call(two, two.instance)["found"] is False


def kept(two: Any) -> Tuple[Dict[str, float], Any]:
    steps, proof = two.query("SELECT steps, proof FROM db_tenant_migrations ORDER BY created_at DESC LIMIT 1")[0]
    assert all(one["at"] for one in steps)
    return {one["step"]: one["seconds"] for one in steps}, (proof or {}).get("downtime_seconds")


def test_every_second_is_some_steps_and_those_without_writes_end_where_it_is_opened(two: Any) -> None:
    began = time.monotonic()
    lease = call(two, two.instance)["migration"]["lease"]
    call(two, two.instance, "preparing", lease=lease, steps=[{"step": "checked"}])
    call(two, two.instance, "copying", lease=lease, writes_stopped=True, steps=[{"step": "stopped"}])
    time.sleep(0.5)
    call(two, two.instance, "verifying", lease=lease, steps=[{"step": "closed"}, {"step": "copied", "seconds": 0.3}])
    call(two, two.instance, "cutover", lease=lease, proof={"equal": True}, steps=[{"step": "compared", "seconds": 0.0}, {"step": "cutover"}])
    for _twice in range(2):
        call(two, two.instance, "renewed", lease=lease, writes_resumed=True, steps=[{"step": "opened"}])
    time.sleep(0.5)
    call(two, two.instance, "completed", lease=lease, steps=[{"step": "put aside"}])
    took = time.monotonic() - began
    steps, downtime = kept(two)
    assert list(steps) == ["checked", "stopped", "closed", "copied", "compared", "cutover", "opened", "put aside"]
    assert steps["copied"] == 0.3 and 0.2 <= steps["closed"] < 0.5 and steps["put aside"] >= 0.5
    assert took - 0.5 < sum(steps.values()) <= took
    assert 0.5 <= downtime < took - 0.5, "what comes after the opening is not counted"
    # Days later the tenant goes back: the seconds of the move stay what they were.
    two.query("UPDATE db_tenant_migrations SET writes_stopped_at = now() - interval '3 days'")
    lease = call(two, two.instance, "returning")["migration"]["lease"]
    call(two, two.instance, "rolled_back", lease=lease, reason="asked for", steps=[{"step": "fetched back"}])
    assert kept(two)[1] == downtime and kept(two)[0]["fetched back"] < took


def test_one_that_did_not_work_in_the_new_place_was_without_writes_until_it_was_back(two: Any) -> None:
    lease = through(two, two.instance, "preparing")["migration"]["lease"]
    call(two, two.instance, "copying", lease=lease, writes_stopped=True)
    through(two, two.instance, "verifying", "cutover", lease=lease)
    call(two, two.instance, "renewed", lease=lease, writes_resumed=True)
    early = kept(two)[1]
    time.sleep(0.6)
    call(two, two.instance, "rolled_back", lease=lease, reason="it did not start")
    assert kept(two)[1] >= early + 0.5


def test_without_a_stop_there_are_no_seconds_without_writes(two: Any) -> None:
    lease = through(two, two.instance, "preparing")["migration"]["lease"]
    call(two, two.instance, "renewed", lease=lease, writes_resumed=True)
    call(two, two.instance, "rolled_back", lease=lease, reason="it was not ready")
    assert kept(two)[1] is None


def test_a_plan_with_less_storage_asks_the_server_and_is_refused_before_anything_is_recorded(two: Any) -> None:
    server = two.server
    two.query("UPDATE db_servers SET host = %s, port = %s, admin_user = 'postgres' WHERE name = 'old'", (server.host, server.port))
    two.query("UPDATE db_servers SET admin_password_encrypted = %s", (two.cipher.encrypt(server.password),))
    # In the place of the tenant's database, one that is there: this registry's own.
    two.query("UPDATE db_allocations SET database_name = current_database()")
    two.query("UPDATE db_plans SET storage_bytes = 1 << 20 WHERE plan_tier IN ('free', 'starter')")
    events = two.query("SELECT count(*) FROM db_events")
    for more in ({}, {"dry_run": True}, {"target": "new"}):
        with pytest.raises(PoolsError, match=r"has \d+ MiB, and plan free takes 1 MiB\. Let the tenant make room first"):
            call(two, two.instance, plan_tier="free", **more)
    assert where(two, two.instance) == ("old", "active", "standard")
    assert two.query("SELECT count(*) FROM db_tenant_migrations") == [(0,)] and two.query("SELECT count(*) FROM db_events") == events
    two.query("UPDATE db_plans SET storage_bytes = 1 << 30 WHERE plan_tier = 'free'")
    assert call(two, two.instance, plan_tier="free")["no_copy"] is True


def test_a_server_that_does_not_say_how_large_it_is_changes_nothing(two: Any) -> None:
    with pytest.raises(PoolsError, match=r"is to have less storage, and server old does not say how large its database is: .* Nothing was changed"):
        call(two, two.instance, plan_tier="free")
    assert where(two, two.instance) == ("old", "active", "standard")
    # With as much as before, nobody has to ask.
    assert call(two, two.instance, plan_tier="professional")["no_copy"] is True

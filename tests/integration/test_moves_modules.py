# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of moves called as tasks: their options, check mode and diff, and what another play gets from them."""

from __future__ import annotations

from typing import Any, Dict, Iterator

import pytest
from environment import Environment, environment, instances
from role_fixture import fact_of, guarded, module, run

TENANTS = instances(2)
LOGIN = ("login_host", "login_port", "login_user", "login_password", "login_db")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("provision_pool").succeeded()
        made.play("allocate", {"allocations": TENANTS}).succeeded()
        made.play("provision_pool").succeeded()
        yield made


def call(action: str, register: str, **options: Any) -> Dict[str, Any]:
    given = {name: "{{ postgres_pools_inventory_db.%s | default(omit) }}" % name for name in LOGIN}
    task = module(action, register, **given, **options)
    if action == "tenant_migration":
        keys = {name: "{{ postgres_pools_keys.%s | default(omit) }}" % name for name in ("secret_key_file", "secret_keys")}
        task["saasodoo.postgres_pools." + action].update(keys)
    return task


def step(register: str, state: str, **options: Any) -> Dict[str, Any]:
    return call("tenant_migration", register, instance_id=TENANTS[0]["instance_id"], state=state, **options)


def test_a_move_through_its_steps_and_back(scratch: Environment) -> None:
    lease = "{{ planned.migration.lease }}"
    tasks = [step("planned", "planned", lease_seconds=120), fact_of("lease", lease)]
    for state in ("preparing", "copying", "verifying"):
        tasks.append(step("told", state, lease=lease, progress={"tables": 3}, steps=[{"step": state, "seconds": 0.5, "detail": "x"}]))
    tasks += [
        step("cut", "cutover", lease=lease, proof={"equal": True}, writes_stopped=True),
        step("again", "cutover", lease=lease, proof={"equal": True}),
        step("done", "completed", lease=lease),
        step("back", "returning"),
        step("rolled", "rolled_back", lease="{{ back.migration.lease }}", reason="to be sure"),
    ]
    told = run(
        scratch,
        tasks,
        "--diff",
        tells={
            "changed": "{{ [planned.changed, cut.changed, again.changed, done.changed, back.changed, rolled.changed] }}",
            "statuses": "{{ [planned, cut, done, back, rolled] | map(attribute='migration') | map(attribute='status') }}",
            "entry": "{{ planned.tenant_database.name == planned.migration.database and planned.tenant_database.login_port == planned.target.login_port }}",
            "servers": "{{ [planned.migration.source, planned.migration.target] }}",
        },
    ).succeeded()
    assert told.stats["changed"] == [True, True, False, True, True, True]
    assert told.stats["statuses"] == ["planned", "cutover", "completed", "completed", "rolled_back"]
    assert told.stats["entry"] is True and sorted(told.stats["servers"]) == sorted(server["name"] for server in scratch.servers())
    for server in scratch.servers():
        password = scratch.cipher().decrypt(server["admin_password_encrypted"], server["name"])
        assert password not in told.output
    assert scratch.password(TENANTS[0]["instance_id"]) not in told.output
    row = scratch.rows("SELECT steps, progress, proof, status_reason FROM db_tenant_migrations")[0]
    assert [one["step"] for one in row["steps"]] == ["preparing", "copying", "verifying"] and row["progress"] == {"tables": 3}
    assert row["proof"]["downtime_seconds"] > 0 and row["status_reason"] == "to be sure"


def test_check_mode_plans_and_leaves_nothing(scratch: Environment) -> None:
    before = scratch.dump()
    told = run(scratch, [step("planned", "planned")], "--check", "--diff", tells={"target": "{{ planned.migration.target }}"}).succeeded()
    assert told.stats["target"] in {server["name"] for server in scratch.servers()} and told.changed == 1
    assert scratch.dump() == before


def test_what_is_missing_or_wrong_is_told(scratch: Environment) -> None:
    before = scratch.dump()
    outcome = guarded(
        scratch,
        {
            "no_lease": step("told", "copying"),
            "no_reason": step("told", "rolled_back", lease=TENANTS[0]["instance_id"]),
            "no_move": step("told", "copying", lease=TENANTS[0]["instance_id"]),
            "no_instance": call("tenant_migration", "told", state="planned", instance_id="x"),
            "no_server": call("fleet_moves", "told", state="of_server"),
            "no_window": call("fleet_moves", "told", state="rebalance", window="at night"),
        },
    )
    for fact, says in {
        "no_lease": "state is copying but all of the following are missing: lease",
        "no_reason": "state is rolled_back but all of the following are missing: reason",
        "no_move": "was taken over by another run",
        "no_instance": "instance_id must be a UUID, got 'x'",
        "no_server": "state is of_server but all of the following are missing: server",
        "no_window": "'at night' is no window of time. Write it as 22:00-04:00, in UTC.",
    }.items():
        assert says in outcome.stats[fact], (fact, outcome.stats[fact])
    assert scratch.dump() == before


def test_the_fleet_is_looked_at(scratch: Environment) -> None:
    full = max(scratch.servers(), key=lambda server: server["current_instances"])["name"]
    told = run(
        scratch,
        [
            call("fleet_moves", "leaving", state="of_server", server=full, window="00:00-24:00"),
            call("fleet_moves", "even", state="rebalance", tolerance=0),
            call("fleet_moves", "unlike", state="mismatched", platform_plans=[{"instance_id": TENANTS[0]["instance_id"], "plan_tier": "premium"}]),
        ],
        "--check",
        tells={
            "leaving": "{{ leaving.proposals | map(attribute='to') | unique }}",
            "even": "{{ even.proposals | length }}",
            "unlike": "{{ unlike.proposals }}",
            "inside": "{{ leaving.in_window }}",
        },
    ).succeeded()
    assert told.changed == 0 and told.stats["inside"] is True
    assert told.stats["leaving"] and full not in told.stats["leaving"]
    assert told.stats["even"] <= 1
    assert [(one["instance_id"], one["to"], one["copy"]) for one in told.stats["unlike"]] == [(TENANTS[0]["instance_id"], None, True)]

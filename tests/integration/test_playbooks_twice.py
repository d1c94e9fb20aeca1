# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook: --check changes nothing, before the first run and after it, and the second run changes nothing."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest
from environment import PLAYBOOKS, Environment, Outcome, difference, environment, instances

SHARED, QUICK, OWN, MOVED, TALL = instances(5)
PREMIUM = dict(OWN, plan_tier="premium")


class Case(NamedTuple):
    playbook: str
    variables: Dict[str, Any]
    # Whether the first run has something to do; a case for which it has not would prove nothing.
    changes: bool = True
    name: str = ""
    # SQL in the inventory database that gives it something to do.
    before: str = ""
    # It is there to look: that it looked, when, and what it saw, is written down by every run and is no change.
    observes: bool = False


# In this order: each stands on what those before it left.
CASES = [
    Case("inventory_db", {}),
    # The name makes it one pool: without it each run asks for another.
    Case("provision_pool", {"server": "postgres-pool-twice", "max_instances": 5, "result_file": "{home}/pool.json"}),
    Case("provision_dedicated", PREMIUM),
    Case("allocate", dict(SHARED, result_file="{home}/allocate.json")),
    Case("allocate", PREMIUM, name="on its dedicated server"),
    Case("allocate", {"allocations": [*instances(1), MOVED, TALL, QUICK]}, name="a list"),
    Case("pools", {"result_file": "{home}/pools.json"}),
    Case("pools", {"server": "postgres-pool-twice"}, changes=False, name="one server"),
    # Outside of the state: its two files tell at every run when they were made.
    Case("report", {"report_dir": "{home}/report"}),
    # With an age, since without one each run asks for another password.
    Case(
        "rotate_password",
        {"instance_id": SHARED["instance_id"], "max_age_days": 30},
        before="UPDATE db_allocations SET password_changed_at = now() - interval '31 days'",
    ),
    Case("rotate_keys", {}, changes=False),
    # With servers that have TLS, in test_tls.py.
    Case("renew_certificates", {}, changes=False),
    Case("provision_pool", {"server": "postgres-pool-other"}, name="to move to"),
    # With the target's name: without it each run asks for another place.
    Case("migrate", {"instance_id": MOVED["instance_id"], "target": "postgres-pool-other", "result_file": "{home}/migrate.json"}),
    Case("rollback", {"instance_id": MOVED["instance_id"], "result_file": "{home}/rollback.json"}),
    Case("change_plan", {"instance_id": TALL["instance_id"], "plan_tier": "free"}),
    Case("migrate", {"instance_id": TALL["instance_id"], "target": "postgres-pool-other"}, name="to be led away"),
    Case("evacuate", {"server": "postgres-pool-other", "result_file": "{home}/evacuate.json"}),
    Case("rebalance", {"act": True, "tolerance": 0, "result_file": "{home}/rebalance.json"}),
    Case("reconcile_plans", {}, before="UPDATE db_plans SET connections = 3 WHERE plan_tier = 'free'"),
    Case("release", {"instance_id": SHARED["instance_id"], "result_file": "{home}/release.json"}),
    Case("release", {"instance_id": QUICK["instance_id"], "keep_days": 0}, name="and drop"),
    Case("update_server", {"server": "postgres-pool-twice", "memory_limit": "2G"}),
    # A plan that has changed since its tenants were made.
    Case(
        "audit",
        {"repair": True, "audit_tenants": "all"},
        before="UPDATE db_plans SET temp_file_limit_bytes = temp_file_limit_bytes * 2 WHERE plan_tier = 'standard'",
    ),
    Case("provision_pool", {"server": "postgres-pool-gone"}, name="to be removed"),
    Case(
        "deprovision",
        {"server": "postgres-pool-gone"},
        before="UPDATE db_servers SET status = 'maintenance' WHERE name = 'postgres-pool-gone'",
    ),
    Case(
        "health",
        {"result_file": "{home}/health.json"},
        before="UPDATE db_servers SET health_status = 'degraded', health_check_failures = 1 WHERE name = 'postgres-pool-twice'",
        observes=True,
    ),
    Case("maintenance", {"server": "postgres-pool-twice", "state": "on", "reason": "its disks are changed"}, name="on"),
    Case("maintenance", {"server": "postgres-pool-twice", "state": "off"}, name="off"),
    # The tenant that was released above.
    Case(
        "cleanup",
        {"result_file": "{home}/cleanup.json"},
        before="UPDATE db_allocations SET drop_after = now() - interval '1 day' WHERE status = 'released' AND dropped_at IS NULL",
    ),
    Case("inventory_db", {"inventory_db_state": "absent", "inventory_db_discard": True}, name="absent"),
]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made


def test_every_playbook_has_a_case() -> None:
    # prepare.yml needs a Swarm: tests/swarm/test_prepare.py runs it with --check and twice.
    # schedules.yml is for a host of its own: test_schedule.py runs it with --check and twice.
    # awx.yml needs an AWX: test_awx.py runs it with --check and twice.
    assert {path.stem for path in PLAYBOOKS.glob("*.yml")} == {case.playbook for case in CASES} | {"prepare", "schedules", "awx", "fence", "watch_nodes"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(filter(None, (case.playbook, case.name))))
def test_a_check_and_a_second_run_change_nothing(scratch: Environment, case: Case) -> None:
    variables = {
        name: value.format(home=scratch.home) if name in ("result_file", "report_dir") else value
        for name, value in case.variables.items()
    }
    if case.before:
        scratch.execute(case.before)
    before = scratch.dump()
    problems = changes(
        scratch, before, scratch.play(case.playbook, variables, "--check", "--diff"), "--check before the first run"
    )
    assert (scratch.play(case.playbook, variables).succeeded().changed > 0) == case.changes

    before = scratch.dump()
    for flags in ((), ("--check", "--diff")):
        again = scratch.play(case.playbook, variables, *flags)
        problems += changes(scratch, before, again, "the second run {0}".format(" ".join(flags)), case.observes and not flags)
        if case.observes:
            before = scratch.dump()
        problems += ["its recap says changed={0}:\n{1}".format(again.changed, again.output)] if again.changed else []
    assert not problems, "\n".join(problems)


def changes(scratch: Environment, before: Dict[str, Any], outcome: Outcome, what: str, observes: bool = False) -> List[str]:
    outcome.succeeded()
    after = scratch.dump()
    if observes:
        before, after = without_observations(before), without_observations(after)
    return [] if before == after else ["{0} changed:".format(what), *difference(before, after)]


def without_observations(dump: Dict[str, Any]) -> Dict[str, Any]:
    servers = [json.loads(row["row"]) for row in dump["tables"]["db_servers"]]
    kept = [{key: row[key] for key in row if key not in ("last_health_check", "updated_at", "updated_by")} for row in servers]
    return dict(dump, tables=dict(dump["tables"], db_health_checks=[], db_servers=kept))


def test_the_dump_sees_a_change(scratch: Environment) -> None:
    """What the tests above stand on."""
    scratch.ready().play("provision_pool", {"server": "postgres-pool-seen"}).succeeded()
    before = scratch.dump()
    assert before == scratch.dump()
    for change in (
        "SELECT nextval('db_pool_number')",
        "UPDATE db_servers SET priority = priority + 1",
        "CREATE ROLE seen",
    ):
        scratch.execute(change)
        after = scratch.dump()
        assert before != after, change
        before = after
    (scratch.state / "seen").write_text("x")
    assert before != scratch.dump()

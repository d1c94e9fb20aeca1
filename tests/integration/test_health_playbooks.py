# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""health.yml and maintenance.yml as an operator or a schedule runs them, on a pool that really stops and starts.

That --check and a second run change nothing is in test_playbooks_twice.py.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._binaries import find
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_dir import ServerDirectory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_programs import ServerPrograms
from environment import Environment, Outcome, environment, instances

POOL = "postgres-pool-watched"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("provision_pool", {"server": POOL}).succeeded()
        yield made


def postgres(scratch: Environment) -> ServerPrograms:
    """The programs of the pool's own PostgreSQL."""
    directory = ServerDirectory(one(scratch)["storage_path"], account(scratch.facts["run_as"]))
    return ServerPrograms(find(scratch.facts["bin_dir"], None), directory, time.monotonic() + 60)


def one(scratch: Environment, name: str = POOL) -> Dict[str, Any]:
    return next(server for server in scratch.servers() if server["name"] == name)


def state(scratch: Environment) -> List[Any]:
    row = one(scratch)
    return [row["status"], row["health_status"], row["health_check_failures"]]


def placed(scratch: Environment) -> str:
    """The server that a new tenant gets."""
    return str(scratch.play("allocate", instances(1)[0]).succeeded().stats["server"])


def refused(scratch: Environment, playbook: str, words: str, **variables: Any) -> None:
    before = scratch.dump()
    outcome = scratch.play(playbook, variables)
    assert outcome.rc != 0 and words in " ".join(outcome.output.split()), outcome.output
    assert scratch.dump() == before


def test_a_pool_that_stops_and_starts_again_leaves_placement_and_returns(scratch: Environment) -> None:
    assert placed(scratch) == POOL
    healthy = scratch.play("health").succeeded()
    assert healthy.stats["status"] == "ok" and healthy.stats["servers"] == []
    assert healthy.stats["summary"]["healthy"] == 1
    assert state(scratch) == ["active", "healthy", 0]

    postgres(scratch).stop()
    try:
        first = scratch.play("health").succeeded()
        assert first.stats["status"] == "degraded" and state(scratch) == ["active", "degraded", 1]
        other = placed(scratch)
        assert other != POOL
        scratch.play("health").succeeded()
        assert state(scratch) == ["active", "degraded", 2]
        third = scratch.play("health")
        assert state(scratch) == ["error", "unhealthy", 3]
        assert third.rc != 0 and "The servers are in state alarm." in third.output
        assert third.stats["status"] == "alarm" and [server["name"] for server in third.stats["servers"]] == [POOL]
        assert placed(scratch) == other
        assert "3 health checks in a row failed" in one(scratch)["status_reason"]
        assert one(scratch, other)["health_status"] == "healthy"
    finally:
        postgres(scratch).start()
    back = scratch.play("health").succeeded()
    assert back.changed == 1 and back.stats["status"] == "ok" and back.stats["summary"]["brought_back"] == 1
    assert state(scratch) == ["active", "healthy", 0] and one(scratch)["status_reason"] is None
    # Of two alike the one with fewer tenants: this one has one, the other two.
    assert placed(scratch) == POOL
    steps = scratch.rows("SELECT kind FROM db_events WHERE server_id = %s AND allocation_id IS NULL ORDER BY happened_at", (one(scratch)["id"],))
    assert [step["kind"] for step in steps][-2:] == ["server.error", "server.active"]


@pytest.mark.parametrize(("fail_on", "fails"), [("never", False), ("unhealthy", False), ("degraded", True)])
def test_a_schedule_chooses_what_it_fails_for(scratch: Environment, fail_on: str, fails: bool) -> None:
    scratch.execute("UPDATE db_servers SET postgres_version = '99.1' WHERE name = %s", (POOL,))
    try:
        result = scratch.home / "health.json"
        outcome = scratch.play("health", {"server": POOL, "health_fail_on": fail_on, "result_file": str(result)})
    finally:
        scratch.execute("UPDATE db_servers SET postgres_version = NULL WHERE name = %s", (POOL,))
    assert (outcome.rc != 0) == fails, outcome.output
    told = json.loads(result.read_text())
    assert result.stat().st_mode & 0o777 == 0o600
    assert told == outcome.stats and told["status"] == "degraded" and told["summary"]["servers"] == 1
    assert [finding["kind"] for finding in told["servers"][0]["findings"]] == ["version"]


def test_bad_input_of_a_check_is_refused(scratch: Environment) -> None:
    refused(scratch, "health", "There is no server 'postgres-pool-nowhere'", server="postgres-pool-nowhere")
    refused(scratch, "health", "server_health_fail_on", health_fail_on="sometimes")
    refused(scratch, "health", "server_health_timeout", server_health_timeout="soon")


def test_a_server_in_maintenance_gets_no_tenants(scratch: Environment) -> None:
    def maintain(*flags: str, **variables: Any) -> Outcome:
        return scratch.play("maintenance", dict(variables, server=POOL), *flags).succeeded()

    before = scratch.dump()
    assert maintain("--check", state="on", reason="new disks").changed == 1
    assert scratch.dump() == before
    on = maintain(state="on", reason="new disks")
    tenants = one(scratch)["current_instances"]
    assert on.changed == 1 and on.stats == {"status": "maintenance", "server": POOL, "tenants": tenants, "reason": "new disks"}
    assert maintain(state="on").changed == 0, "without a reason it keeps the one it has"
    assert one(scratch)["status_reason"] == "new disks"
    assert placed(scratch) != POOL

    postgres(scratch).stop()
    try:
        down = [scratch.play("health").succeeded() for _each in range(3)]
    finally:
        postgres(scratch).start()
    assert [run.stats["status"] for run in down] == ["ok"] * 3 and state(scratch) == ["maintenance", "unhealthy", 3]

    # As AWX gives what was written without quotes.
    off = maintain(state=False)
    assert off.changed == 1 and off.stats["status"] == "active" and one(scratch)["status_reason"] is None
    assert maintain(state="off").changed == 0
    assert placed(scratch) != POOL, "it failed its last check"
    scratch.play("health").succeeded()
    assert state(scratch) == ["active", "healthy", 0]
    assert placed(scratch) == POOL


def test_maintenance_of_what_is_not_in_use_is_refused(scratch: Environment) -> None:
    refused(scratch, "maintenance", "No server was named", state="on")
    refused(scratch, "maintenance", "There is no server 'postgres-pool-nowhere'", server="postgres-pool-nowhere", state="on")
    refused(scratch, "maintenance", "server_maintenance_state", server=POOL)
    refused(scratch, "maintenance", "server_maintenance_state", server=POOL, state="perhaps")
    scratch.execute("UPDATE db_servers SET status = 'error' WHERE name = %s", (POOL,))
    try:
        for wanted in ("on", "off"):
            refused(scratch, "maintenance", "The server {0} is error. Only one that is active or full".format(POOL), server=POOL, state=wanted)
    finally:
        scratch.execute("UPDATE db_servers SET status = 'active' WHERE name = %s", (POOL,))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of allocate.yml and release.yml after each of their tasks in turn, and in the midst of the long ones; then they are run again."""

from __future__ import annotations

import contextlib
import json
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import pytest
from environment import LIVE, Environment, Outcome, connect, environment, instances

# Short, so that the second run soon takes over what the killed one was making.
LEASE = 3
LEASED = {"postgres_pools_lease_seconds": LEASE}
DEPLOY = "Bring the local PostgreSQL to its state"
DATABASE = "Give each instance its place and its database, as far as servers are there"


@pytest.fixture(scope="module")
def lanes() -> Iterator[List[Environment]]:
    """Two environments: a case that begins with nothing has one for itself."""
    with environment() as first, environment() as second:
        yield list(ThreadPoolExecutor(2).map(Environment.ready, (first, second)))


def killer(
    scratch: Environment, name: str, at: Optional[int] = None, delay: float = 0, group: bool = False
) -> Dict[str, str]:
    told = {"ANSIBLE_CALLBACKS_ENABLED": "killer", "KILLER_LOG": str(scratch.home / name)}
    if at is not None:
        told.update(KILLER_AT=str(at), KILLER_DELAY=str(delay), KILLER_GROUP=str(int(group)))
    return told


def tasks(scratch: Environment, playbook: str, variables: Dict[str, Any]) -> List[str]:
    """The tasks of an undisturbed run, in order; the empty name at the end stands for its end."""
    log = scratch.home / "tasks-{0}.log".format(variables["instance_id"])
    scratch.play(playbook, variables, more_env=killer(scratch, log.name)).succeeded()
    return log.read_text().split("\n")[:-1]


def killed(scratch: Environment, playbook: str, variables: Dict[str, Any], at: int, name: str, **how: Any) -> None:
    log = scratch.home / "killed-{0}-{1}.log".format(variables["instance_id"], time.monotonic_ns())
    outcome = scratch.play(playbook, variables, more_env=killer(scratch, log.name, at, **how))
    assert outcome.rc == -9, "not killed but ended with {0}:\n{1}".format(outcome.rc, outcome.output)
    assert log.read_text().split("\n")[at] == name, "killed at another task than {0}".format(name)


def side_by_side(jobs: Sequence[Any], work: Callable[[Any], None]) -> None:
    """All jobs by two at a time, and every failure told with its job."""

    def guarded(job: Any) -> str:
        try:
            work(job)
        except Exception as error:
            return "{0}: {1}: {2}".format(job, type(error).__name__, error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        failures = [told for told in pool.map(guarded, jobs) if told]
    assert not failures, "{0} of {1}\n{2}".format(len(failures), len(jobs), "\n\n".join(failures))


def allocated(scratch: Environment, request: Dict[str, Any], before: Optional[str]) -> None:
    """Run again: allocated, with the password that the interrupted run had written down, and the tenant can use it."""
    result_file = scratch.home / "{0}.json".format(request["instance_id"])
    again = scratch.play("allocate", dict(request, result_file=str(result_file), **LEASED)).succeeded()
    answer = json.loads(result_file.read_text())
    assert answer["status"] == again.stats["status"] == "allocated"
    assert before in (None, answer["password"]), "another password than the interrupted run's"
    found = scratch.rows("SELECT status FROM db_allocations WHERE instance_id = %s", (request["instance_id"],))
    assert [row["status"] for row in found] == ["active"], found
    with contextlib.closing(
        connect(answer["host"], answer["port"], answer["database"], answer["user"], answer["password"])
    ):
        pass


def no_orphans(scratch: Environment, pools: int) -> None:
    """Every server is a pool in use, and holds the databases and the roles of its allocations and no others."""
    servers = scratch.servers()
    assert [server["status"] for server in servers] == ["active"] * pools, servers
    for server in servers:
        found = scratch.contents(server)
        rows = scratch.rows(
            "SELECT database_name AS database, role_name AS role, quarantine_name, status, dropped_at FROM db_allocations WHERE server_id = %s",
            (server["id"],),
        )
        live = [row for row in rows if row["status"] in LIVE]
        kept = [row for row in rows if row["status"] == "released" and row["dropped_at"] is None]
        databases = {row["database"] for row in live} | {row["quarantine_name"] for row in kept}
        roles = {row["role"] for row in live} | databases | {row["quarantine_name"] + "_user" for row in kept}
        assert {database["name"] for database in found["databases"]} == databases
        # The wall's own role, which every server gets with its first tenant.
        assert {role["name"] for role in found["roles"]} <= roles | {"tenant_bus"}, "orphan roles"
        assert {row["role"] for row in live} <= {role["name"] for role in found["roles"]}
        assert server["current_instances"] == len(live)


def test_allocate_from_nothing_killed_after_each_task(lanes: List[Environment]) -> None:
    """Up to the tasks that come after the pool is there; those are the next test's."""
    request = instances(1)[0]
    names = tasks(lanes[0], "allocate", dict(request, **LEASED))
    lanes[0].forget_servers()
    made = [at for at, name in enumerate(names) if name.endswith("Open it to tenants")]
    assert len(made) == 1, names
    places = [(at, {}) for at in range(made[0] + 3)]
    deploy = next(at for at, name in enumerate(names) if name.endswith(DEPLOY))
    # In the midst of initdb and of the start; once so that Ansible's worker goes on while the second run is there already.
    places += [(deploy, {"delay": 0.6}), (deploy, {"delay": 1.0}), (deploy, {"delay": 0.6, "group": True})]
    free: queue.Queue[Environment] = queue.Queue()
    for lane in lanes:
        free.put(lane)

    def work(job: Any) -> None:
        at, how = job
        scratch = free.get()
        try:
            one = instances(1)[0]
            killed(scratch, "allocate", dict(one, **LEASED), at, names[at], **how)
            password = scratch.password(one["instance_id"])
            allocated(scratch, one, password)
            no_orphans(scratch, pools=1)
            assert len(scratch.rows("SELECT FROM db_allocations")) == 1
        finally:
            scratch.forget_servers()
            free.put(scratch)

    side_by_side(places, work)


@pytest.fixture(scope="module")
def pooled(lanes: List[Environment]) -> Environment:
    """An environment with a pool."""
    lanes[0].play("provision_pool").succeeded()
    return lanes[0]


def test_allocate_into_a_pool_killed_after_each_task(pooled: Environment) -> None:
    request = instances(1)[0]
    with_file = {"result_file": str(pooled.home / "killed.json")}
    names = tasks(pooled, "allocate", dict(request, **with_file))
    assert names[-1] == "" and any(name.endswith(DATABASE) for name in names), names
    database = next(at for at, name in enumerate(names) if name.endswith(DATABASE))
    places = [(at, {}) for at in range(len(names))]
    # In the midst of reserving, of making the database and of recording it.
    places += [(database, {"delay": delay}) for delay in (0.3, 0.4, 0.5, 0.6, 0.7)] + [(database, {"delay": 0.5, "group": True})]

    def work(job: Any) -> None:
        at, how = job
        one = instances(1)[0]
        killed(pooled, "allocate", dict(one, **with_file), at, names[at], **how)
        allocated(pooled, one, pooled.password(one["instance_id"]))

    side_by_side(places, work)
    no_orphans(pooled, pools=1)


@pytest.mark.parametrize("keep_days", [7, 0])
def test_release_killed_after_each_task(pooled: Environment, keep_days: int) -> None:
    tenants = instances(30)
    pooled.play("allocate", {"allocations": tenants}).succeeded()
    names = tasks(pooled, "release", {"instance_id": tenants.pop()["instance_id"], "keep_days": keep_days})
    assert len(names) <= len(tenants), names

    def work(at: int) -> None:
        instance = tenants[at]["instance_id"]
        variables = {"instance_id": instance, "keep_days": keep_days}
        killed(pooled, "release", variables, at, names[at])
        released(pooled, variables)

    side_by_side(range(len(names)), work)
    pooled.play(
        "release", {"instance_ids": [tenant["instance_id"] for tenant in tenants[len(names) :]], "keep_days": 0}
    ).succeeded()
    # The tests before this one may have filled the first pool.
    no_orphans(pooled, pools=len(pooled.servers()))


def released(scratch: Environment, variables: Dict[str, Any]) -> Outcome:
    again = scratch.play("release", variables).succeeded()
    found = scratch.rows(
        "SELECT status, dropped_at IS NOT NULL AS dropped FROM db_allocations WHERE instance_id = %s",
        (variables["instance_id"],),
    )
    assert found == [{"status": "released", "dropped": variables["keep_days"] == 0}]
    return again

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A move killed after its tasks or in their midst, and failures injected on the way: the next run ends it, and the tenant writes in one place alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
from environment import Environment, Run, environment
from test_migrate import LEASED, Tenant, left_behind
from test_playbooks_killed import killer

# After which the run is killed. Between them nothing changes but by a step that can be taken again.
KILLED_AFTER = [
    "Begin",
    "Keep the tenant out of there until it has arrived",
    "Keep the tenant out of the old place",
    "Copy",
    "Cut over",
    "Open the new place",
    "Put the old place aside",
]
# The next run has to write again within 30 s of its start, its wait for the dead run's lease included.
WRITES_WITHIN = 30


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as here:
        here.ready()
        here.play("provision_pool", {"server": "postgres-pool-a"}).succeeded()
        here.play("provision_pool", {"server": "postgres-pool-b"}).succeeded()
        yield here


@pytest.fixture(scope="module")
def names(scratch: Environment) -> List[str]:
    """The tasks of a move that nobody disturbs."""
    tenant = Tenant(scratch)
    log = scratch.home / "tasks.log"
    scratch.play("migrate", dict(LEASED, instance_id=tenant.id), more_env=killer(scratch, log.name)).succeeded()
    return [name.split(" : ")[-1] for name in log.read_text().split("\n")[:-1]]


def works(tenant: Tenant) -> None:
    """It can write, and its other place is closed or gone."""
    number = int(time.monotonic() * 1000)
    assert tenant.do("INSERT INTO numbered VALUES ({0}, 'x') RETURNING number".format(number)) == [(number,)]
    row = tenant.row
    assert row["status"] == "active"
    elsewhere = [
        (server["name"], one["name"])
        for server in tenant.scratch.servers()
        if server["name"] != row["server"]
        for one in tenant.scratch.contents(server)["roles"]
        if one["name"] == row["role_name"] and one["rolcanlogin"]
    ]
    assert elsewhere == []


@pytest.mark.parametrize("after", KILLED_AFTER)
def test_killed_after_a_task(scratch: Environment, names: List[str], after: str) -> None:
    tenant = Tenant(scratch)
    tenant.do("INSERT INTO numbered SELECT n, 'x' FROM generate_series(1, 1000) n")
    before = tenant.row["server"]
    log = scratch.home / "killed-{0}.log".format(names.index(after))
    # The callback kills as the next task begins.
    killed = scratch.play("migrate", dict(LEASED, instance_id=tenant.id), more_env=killer(scratch, log.name, names.index(after) + 1))
    assert killed.rc == -9, killed.output
    again = scratch.play("migrate", dict(LEASED, instance_id=tenant.id)).succeeded()
    assert again.stats["status"] == "moved" and tenant.row["server"] != before
    assert tenant.do("SELECT count(*) FROM numbered") == [(1000,)]
    works(tenant)
    assert left_behind(scratch) == []


def test_killed_in_the_midst_of_the_copy_it_writes_again_soon(scratch: Environment, names: List[str]) -> None:
    tenant = Tenant(scratch)
    tenant.do("INSERT INTO numbered SELECT n, repeat('x', 100) FROM generate_series(1, 300000) n")
    log = scratch.home / "killed-copy.log"
    killed = scratch.play("migrate", dict(LEASED, instance_id=tenant.id), more_env=killer(scratch, log.name, names.index("Copy"), delay=1.5))
    assert killed.rc == -9, killed.output
    run = scratch.start("migrate", dict(LEASED, instance_id=tenant.id))
    try:
        deadline = time.monotonic() + WRITES_WITHIN
        while True:
            try:
                tenant.connect().close()
                break
            except Exception:
                assert time.monotonic() < deadline, "it cannot write {0} s after the next run's start".format(WRITES_WITHIN)
                time.sleep(0.2)
    finally:
        run.wait().succeeded()
    assert tenant.do("SELECT count(*) FROM numbered") == [(300000,)]
    works(tenant)


def test_a_run_that_lost_its_move_opens_nothing(scratch: Environment, names: List[str]) -> None:
    tenant = Tenant(scratch)
    tenant.do("INSERT INTO numbered SELECT n, repeat('x', 100) FROM generate_series(1, 600000) n")
    run = scratch.start("migrate", dict(LEASED, instance_id=tenant.id))
    in_the_copy(run)
    # As the run that takes over does it.
    scratch.execute(
        "UPDATE db_tenant_migrations SET lease_holder = gen_random_uuid(), lease_actor = 'another', lease_expires_at = now() + interval '1 minute'"
        " WHERE allocation_id = %s AND status = 'copying'",
        (tenant.row["id"],),
    )
    outcome = run.wait()
    assert outcome.rc != 0 and "taken over by another run" in " ".join(outcome.output.split())
    with pytest.raises(psycopg2.OperationalError):
        tenant.connect()
    scratch.execute("UPDATE db_tenant_migrations SET lease_expires_at = now() WHERE lease_actor = 'another'")
    assert tenant.move().succeeded().stats["status"] == "moved"
    assert tenant.do("SELECT count(*) FROM numbered") == [(600000,)]
    works(tenant)


def test_a_run_that_lost_its_way_back_drops_nothing(scratch: Environment, names: List[str]) -> None:
    tenant = Tenant(scratch)
    tenant.do("INSERT INTO numbered SELECT n, 'x' FROM generate_series(1, 1000) n")
    tenant.move().succeeded()
    there, gate = tenant.row["server"], scratch.home / "gate"
    slow = {"hooks": {"restore": [{"name": "wait", "command": ["sh", "-c", "while [ ! -e {0} ]; do sleep 0.1; done".format(gate)]}]}}
    run = scratch.start("rollback", dict(LEASED, instance_id=tenant.id, application=slow))
    try:
        reaches(run, ": Run its command]")
        # It is back by the inventory database, and its application does not start. A move of it is not begun beside that.
        refused = tenant.move(target=there)
        assert refused.rc != 0 and "belongs to another run" in " ".join(refused.output.split())
        # With the lease run out, as if it had died, the next run ends the way back and moves the tenant to the same place again.
        scratch.execute("UPDATE db_tenant_migrations SET lease_expires_at = now() WHERE allocation_id = %s AND status = 'rolled_back'", (tenant.row["id"],))
        assert tenant.move(target=there, application={}).succeeded().stats["status"] == "moved"
    finally:
        gate.touch()
        outcome = run.wait()
    # There is no copy to be taken away any more: it is where the tenant lives.
    assert outcome.rc != 0 and "taken over by another run" in " ".join(outcome.output.split())
    assert tenant.row["server"] == there and tenant.do("SELECT count(*) FROM numbered") == [(1000,)]
    works(tenant)
    assert left_behind(scratch) == []


def in_the_copy(run: Run) -> None:
    reaches(run, ": Copy]")
    time.sleep(0.5)


def reaches(run: Run, task: str) -> None:
    deadline = time.monotonic() + 60
    while task not in run.output():
        assert time.monotonic() < deadline, run.output()
        time.sleep(0.1)


def processes(row: Dict[str, Any]) -> int:
    return int((Path(row["storage_path"]) / "data" / "postmaster.pid").read_text().split()[0])


def test_a_target_that_goes_down_leaves_the_tenant_where_it_was(scratch: Environment, names: List[str]) -> None:
    tenant = Tenant(scratch)
    tenant.do("INSERT INTO numbered SELECT n, repeat('x', 100) FROM generate_series(1, 600000) n")
    before = tenant.row["server"]
    target = next(row for row in scratch.servers() if row["name"] != before)
    run = scratch.start("migrate", dict(LEASED, instance_id=tenant.id, target=target["name"]))
    in_the_copy(run)
    os.kill(processes(target), signal.SIGQUIT)
    outcome = run.wait()
    assert outcome.rc != 0 and "was not moved; it works on {0} as before".format(before) in " ".join(outcome.output.split())
    assert tenant.row["server"] == before and tenant.row["status"] == "active"
    assert tenant.do("INSERT INTO numbered VALUES (0, 'x') RETURNING number") == [(0,)]
    move = tenant.last_move()
    assert move["status"] == "rolled_back" and "Copy" in move["status_reason"]
    # Up again, what is left there is in nobody's way.
    scratch.play("update_server", {"server": target["name"]}).succeeded()
    assert tenant.move(target=target["name"]).succeeded().stats["status"] == "moved"
    works(tenant)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A move online killed after its tasks, in the midst of its copy and of its switch, and so its way back: the next run ends it, and nothing follows any more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
from environment import Run
from online_fixture import ONLINE, Lasting, Online, online_environment, whole, writing_tenant
from test_migrate import LEASED, Tenant, left_behind
from test_playbooks_killed import killer

A, B = "postgres-pool-a", "postgres-pool-b"
# After which the run is killed. Between them nothing changes but by a step that can be taken again.
KILLED_AFTER = [
    "Begin",
    "Copy while the tenant works, and follow",
    "Prove what is there by now",
    "Go over",
    "Open the new place",
    "Put the old place aside",
    "Link both",
]


@pytest.fixture(scope="module")
def online() -> Iterator[Online]:
    with online_environment() as made:
        yield made


@pytest.fixture(scope="module")
def names(online: Online) -> Tuple[Path, List[str]]:
    """The tasks of a move that nobody disturbs."""
    tenant = writing_tenant(online, A, rows=10)
    log = online.scratch.home / "tasks.log"
    variables = dict(ONLINE, instance_id=tenant.id, target=B)
    online.play("migrate", variables, more_env=killer(online.scratch, log.name)).succeeded()
    online.play("release", {"instance_id": tenant.id, "keep_days": 0}).succeeded()
    return log, [name.split(" : ")[-1] for name in log.read_text().split("\n")[:-1]]


def ended(online: Online, tenant: Tenant, acknowledged: int) -> None:
    """It is in one place, with all that was acknowledged; what follows it goes with it."""
    row = tenant.row
    assert row["status"] == "active"
    whole(tenant, acknowledged)
    elsewhere = [
        server["name"]
        for server in online.scratch.servers()
        if server["name"] != row["server"]
        for one in online.scratch.contents(server)["roles"]
        if one["name"] == row["role_name"] and one["rolcanlogin"]
    ]
    assert elsewhere == []
    online.play("release", {"instance_id": tenant.id, "keep_days": 0}).succeeded()
    online.play("cleanup", {}).succeeded()
    assert online.left() == [] and left_behind(online.scratch) == []


@pytest.mark.parametrize("after", KILLED_AFTER)
def test_killed_after_a_task(online: Online, names: Tuple[Path, List[str]], after: str) -> None:
    tenant = writing_tenant(online, A, rows=100)
    variables = dict(ONLINE, instance_id=tenant.id, target=B)
    at = names[1].index(after)
    with Lasting(tenant) as writer:
        killed = online.play("migrate", variables, more_env=killer(online.scratch, "killed-{0}.log".format(at), at + 1))
        assert killed.rc == -9, killed.output
        again = online.play("migrate", variables).succeeded()
        writer.wait_for(50)
    assert again.stats["status"] == "moved" and tenant.row["server"] == B
    ended(online, tenant, writer.acknowledged)


def killed_when(online: Online, run: Run, where: str, tenant: Tenant, server: str) -> bool:
    """Kill it at that moment; whether it had not ended before."""
    closed = "SELECT count(*) FROM pg_roles WHERE NOT rolcanlogin AND rolname = '{0}'".format(tenant.row["role_name"])
    status = "SELECT status FROM db_tenant_migrations WHERE allocation_id = %s ORDER BY created_at DESC LIMIT 1"
    identity = tenant.row["id"]
    deadline = time.monotonic() + 120
    while run.process.poll() is None:
        assert time.monotonic() < deadline, run.output()
        if where == "closed" and online.ask(server, closed) == [(1,)]:
            break
        if where != "closed" and [row["status"] for row in online.scratch.rows(status, (identity,))] == [where]:
            break
    alive = run.process.poll() is None
    run.kill()
    return alive


@pytest.mark.parametrize("where", ["closed", "cutover"])
def test_killed_in_the_midst_of_the_switch(online: Online, where: str) -> None:
    tenant = writing_tenant(online, A, rows=100)
    variables = dict(ONLINE, instance_id=tenant.id, target=B)
    with Lasting(tenant) as writer:
        assert killed_when(online, online.start("migrate", variables), where, tenant, A)
        again = online.play("migrate", variables).succeeded()
        writer.wait_for(50)
    assert again.stats["status"] == "moved" and tenant.row["server"] == B
    ended(online, tenant, writer.acknowledged)


@pytest.mark.parametrize("where", ["closed", "rolled_back"])
def test_killed_in_the_midst_of_the_way_back(online: Online, where: str) -> None:
    tenant = writing_tenant(online, A, rows=100)
    online.play("migrate", dict(ONLINE, instance_id=tenant.id, target=B)).succeeded()
    with Lasting(tenant) as writer:
        assert killed_when(online, online.start("rollback", {"instance_id": tenant.id}), where, tenant, B)
        again = online.play("rollback", {"instance_id": tenant.id}).succeeded()
        writer.wait_for(50)
    assert again.stats["status"] == "rolled_back" and tenant.row["server"] == A
    ended(online, tenant, writer.acknowledged)


def test_killed_in_the_midst_of_the_copy(online: Online, names: Tuple[Path, List[str]]) -> None:
    tenant = writing_tenant(online, A, rows=300000)
    variables: Any = dict(ONLINE, instance_id=tenant.id, target=B)
    at = names[1].index("Copy while the tenant works, and follow")
    with Lasting(tenant) as writer:
        killed = online.play("migrate", variables, more_env=killer(online.scratch, "killed-copy.log", at, delay=1.5))
        assert killed.rc == -9, killed.output
        # Nobody had to wait for it.
        writer.wait_for(50, seconds=5)
        online.play("migrate", dict(variables, **LEASED)).succeeded()
        writer.wait_for(50)
    assert tenant.do("SELECT count(*) FROM still") == [(300000,)]
    ended(online, tenant, writer.acknowledged)

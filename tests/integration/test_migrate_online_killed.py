# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A move online killed after its tasks, in the midst of its copy and of its switch, and so its way back: the next run ends it, and nothing follows any more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _inventory, _moving, _moving_steps, _switch
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from environment import Run
from moves_fixture import options
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


@pytest.mark.parametrize("recorded", [True, False])
def test_an_answer_of_the_inventory_database_that_was_lost_opens_one_place_alone(
    online: Online, names: Tuple[Path, List[str]], monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    tenant = writing_tenant(online, A, rows=100)
    variables = dict(ONLINE, instance_id=tenant.id, target=B)
    at = names[1].index("Go over")
    killed = online.play("migrate", variables, more_env=killer(online.scratch, "lost-{0}.log".format(recorded), at))
    assert killed.rc == -9, killed.output
    really = _moving_steps.step

    def lost(params: Any, inventory: Any, instance_id: str) -> Any:
        if params["state"] != "cutover":
            return really(params, inventory, instance_id)
        if recorded:
            really(params, inventory, instance_id)
        raise psycopg2.OperationalError("the connection was lost")

    monkeypatch.setattr(_moving_steps, "step", lost)
    scratch = online.scratch
    login = {"login_host": "127.0.0.1", "login_port": scratch.port_base, "login_user": "postgres", "login_password": scratch.secret("inventory_admin")}
    login["login_db"] = "postgres_pools"
    with _inventory.Inventory(login) as inventory:
        move = _moving.work(options(instance_id=tenant.id, lease_seconds=5), inventory, scratch.cipher())
        given = {name: option.get("default") for name, option in _switch.OPTIONS.items()}
        given.update(login, instance_id=tenant.id, lease=move["migration"]["lease"], lease_seconds=LEASED["tenant_migration_lease_seconds"])
        given.update(ignore=["role.settings", "role.connection limit"], switch_timeout=30)
        given.update({key: move[key] for key in ("source", "target", "source_tenant_database", "tenant_database")})
        if recorded:
            told = _switch.work(given, inventory, scratch.cipher())
            assert told["switched"] and told["opened"] and not told["why"], told
        else:
            with pytest.raises(PoolsError, match="could not be recorded"):
                _switch.work(given, inventory, scratch.cipher())
    monkeypatch.undo()
    may_enter = "SELECT rolcanlogin FROM pg_roles WHERE rolname = '{0}'".format(tenant.row["role_name"])
    assert (online.ask(A, may_enter), online.ask(B, may_enter)) == ([(not recorded,)], [(recorded,)])
    assert tenant.row["server"] == (B if recorded else A)
    online.play("migrate", variables).succeeded()
    assert tenant.row["server"] == B
    online.play("release", {"instance_id": tenant.id, "keep_days": 0}).succeeded()
    online.play("cleanup", {}).succeeded()
    assert online.left() == [] and left_behind(scratch) == []


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

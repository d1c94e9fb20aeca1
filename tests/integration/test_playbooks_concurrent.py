# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many at once and no pool: one is made, all are served, also when its maker is killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _allocation, _hba, _server, _sizing
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure
from environment import Environment, connect, environment, instances

RUNS = 12
CALLERS = 50


@pytest.fixture(scope="module")
def made() -> Iterator[Environment]:
    with environment() as scratch:
        yield scratch.ready()


@pytest.fixture
def scratch(made: Environment) -> Iterator[Environment]:
    """Without any pool."""
    yield made
    made.forget_servers()


def one_pool(scratch: Environment, tenants: int) -> Dict[str, Any]:
    servers = scratch.servers()
    assert [(server["status"], server["current_instances"]) for server in servers] == [
        ("full" if tenants == 50 else "active", tenants)
    ], servers
    made = scratch.rows("SELECT FROM db_events WHERE kind = 'server.provisioning'")
    assert len(made) == 1, "more than one pool was begun"
    return servers[0]


def read(path: Path) -> Dict[str, Any]:
    return dict(json.loads(path.read_text()))


def usable(answer: Dict[str, Any]) -> None:
    with contextlib.closing(
        connect(answer["host"], answer["port"], answer["database"], answer["user"], answer["password"])
    ):
        pass


def test_twelve_runs_and_no_pool(scratch: Environment) -> None:
    requests = instances(RUNS)
    files = [scratch.home / "run-{0}.json".format(number) for number in range(RUNS)]
    runs = [scratch.start("allocate", dict(request, result_file=str(path))) for request, path in zip(requests, files)]
    for run in runs:
        run.wait(300).succeeded()
    pool = one_pool(scratch, RUNS)
    answers = [read(path) for path in files]
    assert {answer["status"] for answer in answers} == {"allocated"}
    assert len({answer["database"] for answer in answers}) == RUNS
    assert len(scratch.contents(pool)["databases"]) == RUNS
    for answer in answers:
        usable(answer)


def test_two_runs_for_one_instance(scratch: Environment) -> None:
    request = instances(1)[0]
    files = [scratch.home / "same-{0}.json".format(number) for number in range(2)]
    runs = [scratch.start("allocate", dict(request, result_file=str(path))) for path in files]
    for run in runs:
        run.wait(300).succeeded()
    first, second = (read(path) for path in files)
    assert first == second
    usable(first)
    pool = one_pool(scratch, 1)
    assert [database["name"] for database in scratch.contents(pool)["databases"]] == [first["database"]]
    assert len(scratch.rows("SELECT FROM db_allocations")) == 1


def test_a_waiter_takes_over_from_a_killed_maker(scratch: Environment) -> None:
    lease = 6
    first, second = instances(2)
    log = scratch.home / "maker.log"
    maker = scratch.start(
        "allocate",
        dict(first, postgres_pools_lease_seconds=lease),
        more_env={"ANSIBLE_CALLBACKS_ENABLED": "killer", "KILLER_LOG": str(log)},
    )
    wait_for(lambda: log.exists() and "Bring the local PostgreSQL" in log.read_text())
    waiter_log = scratch.home / "waiter.log"
    waiter = scratch.start(
        "allocate",
        dict(second, postgres_pools_lease_seconds=lease),
        more_env={"ANSIBLE_CALLBACKS_ENABLED": "killer", "KILLER_LOG": str(waiter_log)},
    )
    maker.kill()
    assert maker.process.returncode == -9
    outcome = waiter.wait(120).succeeded()
    assert "Bring the local PostgreSQL" in waiter_log.read_text(), "the pool was made before its maker was killed"
    assert outcome.stats["server"] == one_pool(scratch, 2)["name"]
    # Its own caller finds the place still reserved.
    assert scratch.play("allocate", first).succeeded().stats["server"] == outcome.stats["server"]
    one_pool(scratch, 2)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_fifty_callers_and_no_pool(scratch: Environment) -> None:
    """At the level of the module, so that fifty fit this machine; whoever is told to make the pool makes it for real."""
    processes = multiprocessing.get_context("fork")
    start, results = processes.Barrier(CALLERS), processes.Queue()
    callers = [
        processes.Process(target=call, args=(scratch, request, start, results), daemon=True)
        for request in instances(CALLERS)
    ]
    for caller in callers:
        caller.start()
    told: List[Dict[str, Any]] = [results.get(timeout=180) for _caller in callers]
    for caller in callers:
        caller.join(30)
    assert [one for one in told if "error" in one] == []
    assert {one["status"] for one in told} == {"ready"}
    assert sum(one["made"] for one in told) == 1
    one_pool(scratch, CALLERS)


def call(scratch: Environment, request: Dict[str, str], start: Any, results: Any) -> None:
    try:
        start.wait(60)
        results.put(ask(scratch, request))
    except BaseException as error:
        results.put({"error": repr(error)})
    finally:
        results.close()
        results.join_thread()
        # Not through pytest's own way out.
        os._exit(0)


def ask(scratch: Environment, request: Dict[str, str]) -> Dict[str, Any]:
    login = {
        "login_host": "127.0.0.1",
        "login_port": scratch.port_base,
        "login_user": "database_service",
        "login_password": scratch.secret("database_service"),
        "login_db": "postgres_pools",
    }
    new_server = {
        "backend": "process",
        "host": "127.0.0.1",
        "first_port": scratch.port_base + 1,
        "last_port": scratch.port_base + 19,
        "storage_root": str(scratch.state / "servers"),
        "cpu_limit": 2.0,
        "memory_limit": "4G",
        "storage_limit": "250G",
        "max_instances": 50,
    }
    params = {
        "allocations": [dict(request, require_dedicated=False)],
        "state": "reserved",
        "strategy": "priority",
        "name_prefix": "odoo",
        "reservation_seconds": 900,
        "lease_seconds": 60,
        "wait_timeout": 150,
        "new_server": new_server,
    }
    made = 0
    with contextlib.closing(Inventory(login)) as inventory:
        result = _allocation.work(params, inventory, scratch.cipher())
        while result["status"] == "make":
            make(scratch, inventory, result["to_make"])
            made += 1
            result = _allocation.work(params, inventory, scratch.cipher())
    return {"status": result["status"], "made": made, "server": result["allocations"][0]["server"]}


def make(scratch: Environment, inventory: Inventory, to_make: Dict[str, str]) -> None:
    step: Dict[str, Any] = dict.fromkeys(_server.OPTIONS)
    step.update(name=to_make["name"], lease=to_make["lease"], lease_seconds=60)
    row = _server.work(dict(step, state="initializing"), inventory, scratch.cipher())
    server = row["server"]
    ensure(
        Wanted(
            path=server["storage_path"],
            port=server["port"],
            admin_password=scratch.cipher().decrypt(row["admin_password_encrypted"], "it"),
            settings=_sizing.settings(server["memory_limit_bytes"], server["cpu_limit"], server["connection_budget"]),
            hba=_hba.lines(),
            bin_dir=scratch.facts["bin_dir"],
            run_as=scratch.facts["run_as"],
        ),
        "started",
    )
    _server.work(dict(step, state="active", health_status="healthy"), inventory, scratch.cipher())

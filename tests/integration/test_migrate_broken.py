# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves whose network or whose target's disk fails in the midst of the copy: the tenant writes again soon where it was, and nothing of it is lost.

A server that is killed and an application that does not start are in test_migrate_killed.py and test_migrate.py.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator

import psycopg2
import pytest
from environment import Environment, Outcome, Run, environment
from proxy_fixture import Proxy, proxy
from test_migrate import LEASED, Tenant
from test_migrate_killed import WRITES_WITHIN, processes

ROWS = 300000
# So much has gone through when the network fails: less than there is, and more than a copy without rows.
IN_THE_MIDST_BYTES = 4 << 20
HOME, TARGET = "postgres-pool-a", "postgres-pool-b"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as here:
        here.ready()
        for name in (HOME, TARGET):
            here.play("provision_pool", {"server": name}).succeeded()
        yield here


@pytest.fixture(scope="module")
def tenant(scratch: Environment) -> Tenant:
    """On HOME, with more rows than pipes and sockets hold."""
    scratch.execute("UPDATE db_servers SET allocation_strategy = 'manual' WHERE name = %s", (TARGET,))
    made = Tenant(scratch)
    made.do("INSERT INTO numbered SELECT n, repeat('x', 100) FROM generate_series(1, {0}) n".format(ROWS))
    return made


def server(scratch: Environment, name: str) -> Dict[str, Any]:
    return next(row for row in scratch.servers() if row["name"] == name)


@contextlib.contextmanager
def behind_a_network(scratch: Environment, name: str) -> Iterator[Proxy]:
    """Everybody reaches this server through it; not fast, so that there is a midst of the copy to meet."""
    row = server(scratch, name)
    with proxy(row["host"], row["port"]) as between:
        scratch.execute("UPDATE db_servers SET port = %s WHERE name = %s", (between.port, name))
        between.seconds_a_chunk = 0.002
        try:
            yield between
        finally:
            between.heal()
            scratch.execute("UPDATE db_servers SET port = %s WHERE name = %s", (row["port"], name))


def until(found: Any, run: Run, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline and run.process.poll() is None, run.output()
        time.sleep(0.02)


def in_the_midst(run: Run, between: Proxy) -> None:
    until(lambda: ": Copy]" in run.output(), run)
    begun = between.passed
    until(lambda: between.passed > begun + IN_THE_MIDST_BYTES, run)


def writes_soon(tenant: Tenant, since: float) -> None:
    """It writes in its old place, within WRITES_WITHIN seconds of the failure, whatever the run is still at."""
    while True:
        with contextlib.suppress(psycopg2.Error):
            tenant.do("INSERT INTO numbered SELECT max(number) + 1, 'again' FROM numbered; UPDATE counted SET number = number + 1")
            return
        assert time.monotonic() - since < WRITES_WITHIN, "it cannot write {0} s after the failure".format(WRITES_WITHIN)
        time.sleep(0.2)


def undone(tenant: Tenant, outcome: Outcome) -> str:
    """The tenant is where it was, with all that it ever wrote; the reason, which was told and kept."""
    said = " ".join(outcome.output.split())
    assert outcome.rc != 0 and "was not moved; it works on {0} as before".format(HOME) in said, outcome.output
    assert (tenant.row["server"], tenant.row["status"]) == (HOME, "active")
    count, highest, again = tenant.do("SELECT count(*), max(number), (SELECT number FROM counted) FROM numbered")[0]
    assert count == highest == ROWS + again
    move = tenant.last_move()
    assert move["status"] == "rolled_back"
    return str(move["status_reason"])


def is_clean(tenant: Tenant, name: str) -> None:
    """Nothing of the tenant's is there."""
    found = tenant.scratch.contents(server(tenant.scratch, name))
    mine = (tenant.row["database_name"], tenant.row["role_name"])
    assert [one["name"] for kind in ("databases", "roles") for one in found[kind] if one["name"] in mine] == []


def is_alone(tenant: Tenant) -> None:
    """Nowhere but in its place can it log in."""
    row, scratch = tenant.row, tenant.scratch
    for one in scratch.servers():
        roles = [role["name"] for role in scratch.contents(one)["roles"] if role["rolcanlogin"]]
        assert (row["role_name"] in roles) == (one["name"] == row["server"]), (one["name"], roles)


def test_a_network_that_swallows_packets_in_the_midst(scratch: Environment, tenant: Tenant) -> None:
    """Sessions stay open, and nothing comes of them: without more ado the tenant would wait for as long as the network is so."""
    with behind_a_network(scratch, TARGET) as between:
        run = scratch.start("migrate", dict(LEASED, instance_id=tenant.id, target=TARGET))
        in_the_midst(run, between)
        between.swallow()
        writes_soon(tenant, time.monotonic())
        reason = undone(tenant, run.wait())
        assert "has not answered for 15 seconds" in reason and "could not be dropped" in reason, reason
    # What is left there is kept from writing; the next move there begins anew, in the test that follows.
    is_alone(tenant)


@pytest.mark.parametrize("cut", [TARGET, HOME])
def test_a_connection_that_is_cut_in_the_midst(scratch: Environment, tenant: Tenant, cut: str) -> None:
    with behind_a_network(scratch, cut) as between:
        run = scratch.start("migrate", dict(LEASED, instance_id=tenant.id, target=TARGET))
        in_the_midst(run, between)
        between.cut()
        writes_soon(tenant, time.monotonic())
        reason = undone(tenant, run.wait())
    assert "Copy: " in reason and "public.numbered" in reason and "The connection was lost" in reason, reason
    is_clean(tenant, TARGET)
    is_alone(tenant)


@contextlib.contextmanager
def small_disk(scratch: Environment, name: str) -> Iterator[None]:
    """The server's databases have room for a few MiB more. Afterwards it is no more.

    Root mounts a file system of that size; anybody else limits the size of a file, which is not the same but fails at the same moment.
    """
    row = server(scratch, name)
    base = Path(row["storage_path"]) / "data" / "base"
    if os.geteuid() != 0:
        resource.prlimit(processes(row), resource.RLIMIT_FSIZE, (20 << 20, resource.RLIM_INFINITY))
        yield
        return
    stop(row, signal.SIGINT)
    used = sum(path.stat().st_size for path in base.rglob("*") if path.is_file())
    kept = base.with_name("base-kept")
    base.rename(kept)
    base.mkdir()
    # An empty database takes 8 MiB, and there is one more while a copy replaces the one that was prepared.
    options = "size={0},mode=700,uid={1},gid={2}".format(used + (28 << 20), kept.stat().st_uid, kept.stat().st_gid)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(base)], check=True)
    try:
        subprocess.run(["cp", "-a", str(kept) + "/.", str(base)], check=True)
        shutil.rmtree(kept)
        scratch.play("update_server", {"server": name}).succeeded()
        yield
    finally:
        stop(row, signal.SIGQUIT)
        subprocess.run(["umount", "--lazy", str(base)], check=True)


def stop(row: Dict[str, Any], how: signal.Signals) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = processes(row)
        os.kill(pid, how)
        deadline = time.monotonic() + 20
        while Path("/proc/{0}".format(pid)).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_target_whose_disk_is_full(scratch: Environment, tenant: Tenant) -> None:
    with small_disk(scratch, TARGET):
        run = scratch.start("migrate", dict(LEASED, instance_id=tenant.id, target=TARGET))
        # The disk is full within a second.
        until(lambda: ": Copy]" in run.output(), run)
        writes_soon(tenant, time.monotonic())
        reason = undone(tenant, run.wait())
        assert "Copy: " in reason and "could not extend file" in reason, reason
        assert "Make room on that server's disk" in reason or os.geteuid() != 0
        is_clean(tenant, TARGET)
        is_alone(tenant)

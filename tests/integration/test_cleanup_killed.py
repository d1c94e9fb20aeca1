# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of cleanup.yml after each of its tasks that changes something, and in the midst of the long one; then it is run again."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import pytest
from environment import Environment, discard, environment, instances

# Short, so that the second run soon takes over what the killed one began.
LEASED = {"fleet_cleanup_lease_seconds": 2}
REMOVAL = "Remove old archives"
DAY = 86400


class World(NamedTuple):
    """What one cleanup has to do."""

    instance_id: str
    server: str
    failed: Path
    orphan: Path
    archive: Path


class Fleet:
    """A pool with a tenant that stays and others to release, and what is left of a stopped server's files, to be planted again and again."""

    def __init__(self, scratch: Environment) -> None:
        self.scratch = scratch
        self.live, *self.tenants = instances(25)
        scratch.play("allocate", {"allocations": [self.live, *self.tenants]}).succeeded()
        self.pool = scratch.servers()[0]
        scratch.play("release", {"instance_ids": [one["instance_id"] for one in self.tenants]}).succeeded()
        self.root = Path(self.pool["storage_path"]).parent
        self.template = scratch.home / "template"
        self.number = 0
        scratch.play("provision_pool", {"server": "postgres-pool-template"}).succeeded()
        made = scratch.servers()[-1]
        self._keep(Path(made["storage_path"]))
        scratch.execute("DELETE FROM db_servers WHERE id = %s", (made["id"],))

    def _keep(self, path: Path) -> None:
        """Of a server that was shut down, the files that say which databases it holds; its tables and its log make it large."""
        pid = int((path / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 2)
        while os.path.exists("/proc/{0}".format(pid)):
            time.sleep(0.05)
        shutil.copytree(str(path), str(self.template), symlinks=True)
        subprocess.run(["rm", "-rf", str(path), str(self.template / "data" / "pg_wal")], check=True)
        for file in (self.template / "data" / "base").glob("*/*"):
            file.unlink()

    def plant(self) -> World:
        self.number += 1
        name = "postgres-pool-failed{0}".format(self.number)
        instance_id = self.tenants[self.number - 1]["instance_id"]
        self.scratch.execute("UPDATE db_allocations SET drop_after = now() - interval '1 hour' WHERE instance_id = %s", (instance_id,))
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 40 * DAY))
        world = World(
            instance_id,
            name,
            self._copy(self.root / "pool-failed{0}".format(self.number)),
            self._copy(self.root / "pool-orphan{0}".format(self.number)),
            self._copy(self.root / "archived" / "pool-old{0}-{1}".format(self.number, stamp)),
        )
        self.scratch.execute(
            "INSERT INTO db_servers (name, server_type, backend, storage, host, port, max_instances, connection_budget, storage_budget_bytes,"
            " cpu_limit, memory_limit_bytes, storage_path, admin_password_encrypted) SELECT %s, server_type, backend, storage, host, port + 50,"
            " max_instances, connection_budget, storage_budget_bytes, cpu_limit, memory_limit_bytes, %s, admin_password_encrypted"
            " FROM db_servers WHERE id = %s",
            (name, str(world.failed), self.pool["id"]),
        )
        self.scratch.execute("UPDATE db_servers SET status = 'error', status_reason = 'planted' WHERE name = %s", (name,))
        self.scratch.execute("UPDATE db_servers SET status_changed_at = now() - interval '2 days' WHERE name = %s", (name,))
        return world

    def _copy(self, path: Path) -> Path:
        path.parent.mkdir(exist_ok=True)
        shutil.copytree(str(self.template), str(path), symlinks=True)
        then = time.time() - 2 * DAY
        for one in [path, *path.rglob("*")]:
            os.utime(str(one), (then, then))
        return path

    def check(self, world: World) -> None:
        """It ended where it should: all of that is gone, once, and the tenant that stays is there."""
        states = self.scratch.rows("SELECT status FROM db_servers WHERE name = %s", (world.server,))
        assert states == [{"status": "deprovisioned"}]
        found = self.scratch.rows(
            "SELECT status, dropped_at IS NOT NULL AS dropped, quarantine_name FROM db_allocations WHERE instance_id = %s", (world.instance_id,)
        )
        assert [(one["status"], one["dropped"]) for one in found] == [("released", True)]
        databases = {one["name"] for one in self.scratch.contents(self.pool)["databases"]}
        kept = self.scratch.rows(
            "SELECT coalesce(quarantine_name, database_name) AS name FROM db_allocations WHERE dropped_at IS NULL AND status IN ('active', 'released')"
        )
        assert databases == {one["name"] for one in kept}
        assert self.scratch.password(self.live["instance_id"]) is not None
        assert not world.failed.exists() and not world.orphan.exists() and not world.archive.exists()
        archives = [path.name.rpartition("-")[0] for path in (self.root / "archived").iterdir()]
        assert archives.count(world.failed.name) == archives.count(world.orphan.name) == 1
        assert not [name for name in os.listdir(str(self.root / "archived")) if name.startswith(".")]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with environment() as scratch:
        made = Fleet(scratch.ready())
        yield made
        for path in made.root.glob("*"):
            discard(path)


def killer(fleet: Fleet, name: str, at: Optional[int] = None, delay: float = 0, group: bool = False) -> Dict[str, str]:
    told = {"ANSIBLE_CALLBACKS_ENABLED": "killer", "KILLER_LOG": str(fleet.scratch.home / name)}
    if at is not None:
        told.update(KILLER_AT=str(at), KILLER_DELAY=str(delay), KILLER_GROUP=str(int(group)))
    return told


def undisturbed(fleet: Fleet) -> Dict[int, str]:
    """The tasks of a run that does all there is to do, by their numbers, and of those only the ones that change something."""
    world = fleet.plant()
    outcome = fleet.scratch.play("cleanup", LEASED, more_env=killer(fleet, "undisturbed.log")).succeeded()
    fleet.check(world)
    names = (fleet.scratch.home / "undisturbed.log").read_text().split("\n")[:-2]
    told = outcome.output.split("\nTASK [")[1:]
    assert len(names) == len(told), "the log and the output tell of different tasks"
    return {at: names[at] for at, text in enumerate(told) if "\nchanged: [" in text}


def test_killed_after_each_task_that_changes_something(fleet: Fleet) -> None:
    changing = undisturbed(fleet)
    for step in ("Plan,", "Drop the", "Begin to remove it", "Say that it is gone", REMOVAL, "End the cleanup"):
        assert any(step in name for name in changing.values()), (step, changing)
    places: List[Dict[str, Any]] = [{"at": at + 1} for at in changing]
    removal = next(at for at, name in changing.items() if REMOVAL in name)
    places += [{"at": removal, "delay": 0.4}, {"at": removal, "delay": 0.4, "group": True}]
    failures = []
    for place in places:
        world = fleet.plant()
        try:
            killed = fleet.scratch.play("cleanup", LEASED, more_env=killer(fleet, "killed-{0}.log".format(fleet.number), **place))
            assert killed.rc == -9, killed.output
            again(fleet)
            fleet.check(world)
        except AssertionError as error:
            failures.append("{0}: {1}".format(place, error))
    assert not failures, "{0} of {1}\n{2}".format(len(failures), len(places), "\n\n".join(failures))
    last = fleet.scratch.play("cleanup", LEASED).succeeded()
    assert last.changed == 0 and last.stats["status"] == "clean"


def again(fleet: Fleet) -> None:
    end = time.monotonic() + 60
    while True:
        outcome = fleet.scratch.play("cleanup", LEASED).succeeded()
        if outcome.stats["status"] != "busy":
            return
        assert time.monotonic() < end, "the killed run's lease does not end"
        time.sleep(0.5)

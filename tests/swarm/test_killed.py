# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of a run at each step of the making of a server; the next run ends with one service, one directory and one row."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from swarm_fixture import ROOT, Bed

# The tasks that change something, and the waiting between; a kill before a task is one after the task before it.
STEPS = [
    "Deploy it",
    "Make or archive the directories",
    "Keep it as a secret",
    "Keep the lines of pg_hba.conf as a config",
    "Have the service as it should be",
    "Look what becomes of it",
    "Ask it as a client",
    "Open it to tenants",
    "Look again, with that server there",
]
LEASE = 5


def run(bed: Bed, instance_id: str, log: Path, at: Optional[int] = None) -> Any:
    killer = {
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "integration" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "killer",
        "KILLER_LOG": str(log),
    }
    if at is not None:
        killer["KILLER_AT"] = str(at)
    variables: Dict[str, Any] = {"instance_id": instance_id, "customer_id": instance_id, "plan_tier": "free", "require_dedicated": True}
    return bed.play("allocate", env=killer, postgres_pools_lease_seconds=LEASE, **variables)


@pytest.fixture(scope="module", autouse=True)
def small_plan(bed: Bed) -> None:
    bed.sql_do("UPDATE db_plans SET cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20 WHERE plan_tier = 'free'")


def test_killed_at_each_step_and_run_again(bed: Bed, tmp_path: Path) -> None:
    whole = tmp_path / "whole.log"
    done = run(bed, str(uuid.uuid4()), whole)
    assert done.returncode == 0, done.stdout[-3000:]
    names = [name.rpartition(" : ")[2] for name in whole.read_text().split("\n")]
    places = {step: names.index(step) for step in STEPS}

    def kill_and_heal(step: str) -> List[str]:
        instance_id = str(uuid.uuid4())
        killed = run(bed, instance_id, tmp_path / "{0}.log".format(instance_id), places[step])
        if killed.returncode != -9:
            return ["{0}: not killed: {1}".format(step, killed.stdout[-1000:])]
        again = run(bed, instance_id, tmp_path / "{0}-again.log".format(instance_id))
        if again.returncode != 0:
            return ["{0}: {1}".format(step, again.stdout[-2000:])]
        rows = bed.sql("SELECT name, status, storage_path FROM db_servers WHERE dedicated_instance_id = '{0}'".format(instance_id))
        name = "postgres-dedicated-" + instance_id[:8]
        if [(row["name"], row["status"]) for row in rows] != [(name, "full")]:
            return ["{0}: {1}".format(step, rows)]
        found = {
            "services": bed.manager("docker", "service", "ls", "--filter", "name=" + name, "--format", "{{.Name}}").split(),
            "secrets": bed.manager("docker", "secret", "ls", "--filter", "name=" + name, "--format", "{{.Name}}").split(),
            "directories": [path for path in bed.manager("ls", "/mnt/cephfs/postgres_dedicated").split() if instance_id[:8] in path],
        }
        wanted = {"services": [name], "secrets": [name + "-superuser"], "directories": [name]}
        return [] if found == wanted else ["{0}: {1}".format(step, found)]

    with ThreadPoolExecutor(3) as pool:
        wrong = [told for found in pool.map(kill_and_heal, STEPS) for told in found]
    assert not wrong, "\n".join(wrong)

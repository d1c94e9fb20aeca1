# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as its users get it: built, installed into an empty place, and every playbook run from there by its full name, with no checkout around.

One life of a few tenants, in order: each test stands on those before it. Of each run the artifacts are looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Set

import psycopg2
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from awx_contract import awx
from environment import Environment, Outcome, environment, instances

NAMESPACE = "saasodoo.postgres_pools"
BIN = ROOT / ".venv" / "bin"
TENANT, SECOND, OWN = instances(3)
ONE, OTHER = "postgres-pool-one", "postgres-pool-other"


class Case(NamedTuple):
    playbook: str
    variables: Dict[str, Any]
    status: str


CASES = [
    Case("inventory_db", {}, "present"),
    Case("provision_pool", {"server": ONE, "max_instances": 5}, "active"),
    Case("provision_dedicated", dict(OWN, plan_tier="premium"), "active"),
    Case("allocate", {"allocations": [TENANT, SECOND], "result_file": "{home}/tenants.json"}, "allocated"),
    Case("pools", {}, "listed"),
    Case("report", {"report_dir": "{home}/report"}, "ok"),
    Case("health", {}, "ok"),
    Case("audit", {}, "clean"),
    Case("rotate_password", {"instance_id": TENANT["instance_id"]}, "rotated"),
    Case("rotate_keys", {"new_key": True}, "rotated"),
    Case("renew_certificates", {}, "present"),
    Case("update_server", {"server": ONE, "memory_limit": "2G"}, "updated"),
    Case("change_plan", {"instance_id": SECOND["instance_id"], "plan_tier": "free"}, "changed"),
    Case("provision_pool", {"server": OTHER}, "active"),
    Case("migrate", {"instance_id": TENANT["instance_id"], "target": OTHER}, "moved"),
    Case("rollback", {"instance_id": TENANT["instance_id"]}, "rolled_back"),
    Case("release", {"instance_id": TENANT["instance_id"], "keep_days": 0}, "released"),
    Case("rebalance", {"act": True}, "proposed"),
    Case("reconcile_plans", {}, "proposed"),
    Case("evacuate", {"server": OTHER}, "proposed"),
    Case("cleanup", {}, "clean"),
    Case("maintenance", {"server": OTHER, "state": "on"}, "maintenance"),
    Case("deprovision", {"server": OTHER}, "deprovisioned"),
    Case(
        "schedules",
        {
            "ansible_become": False,
            "schedule_kind": "cron",
            "schedule_start": False,
            "schedule_inventory": ["{home}"],
            **{"schedule_{0}_directory".format(name): "{home}/host" for name in ("unit", "cron", "config", "program", "state")},
        },
        "scheduled",
    ),
]
# What needs more than this machine, and what runs it from the installed tarball on the test bed.
_ON_THE_BED = ROOT / "molecule" / "swarm"
ELSEWHERE = {
    "prepare": _ON_THE_BED / "converge.yml",
    "watch_nodes": _ON_THE_BED / "converge.yml",
    "fence": _ON_THE_BED / "tests" / "test_fence.py",
}
TOKEN = "a-token-that-nobody-may-see"


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tarball is installed: that of scripts/both-ends, or one made here."""
    if os.environ.get("POSTGRES_POOLS_COLLECTIONS"):
        return Path(os.environ["POSTGRES_POOLS_COLLECTIONS"])
    folder = tmp_path_factory.mktemp("tarball")
    done = subprocess.run([str(ROOT / "scripts" / "install-built"), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return folder / "collections"


class Installed:
    def __init__(self, scratch: Environment, collections: Path) -> None:
        self.scratch, self.collections = scratch, collections
        self.place = collections / "ansible_collections" / "saasodoo" / "postgres_pools"
        self.env = dict(scratch.base, ANSIBLE_COLLECTIONS_PATH=str(collections), ANSIBLE_PIPELINING="1")
        # Neither the checkout's settings nor, where it runs, any others.
        del self.env["ANSIBLE_CONFIG"]
        self.secrets: Set[str] = set()
        (scratch.home / "host").mkdir()

    def play(self, playbook: str, variables: Dict[str, Any]) -> Outcome:
        # Its own inventory, too.
        command = [str(BIN / "ansible-playbook"), "-i", str(self.place / "inventories" / "embedded"), "{0}.{1}".format(NAMESPACE, playbook)]
        started = time.monotonic()
        done = subprocess.run(
            [*command, "-e", json.dumps(variables).replace("{home}", str(self.scratch.home))],
            cwd=str(self.scratch.home),
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, time.monotonic() - started).succeeded()
        self.secrets |= set(self.known())
        return outcome

    def known(self) -> Iterator[str]:
        """Every password and key there is at this moment, in clear and as it is kept."""
        for path in (self.scratch.state / "secrets").iterdir():
            yield from path.read_text().split()
        rows = self.scratch.rows("SELECT name AS whose, admin_password_encrypted AS token FROM db_servers")
        rows += self.scratch.rows("SELECT role_name AS whose, password_encrypted AS token FROM db_allocations")
        for row in rows:
            if row["token"]:
                yield row["token"]
                yield self.scratch.cipher().decrypt(row["token"], row["whose"])


@pytest.fixture(scope="module")
def installed(collections: Path) -> Iterator[Installed]:
    with environment() as scratch:
        yield Installed(scratch, collections)


def test_every_playbook_is_run_here_or_elsewhere(installed: Installed) -> None:
    there = {path.stem for path in (installed.place / "playbooks").glob("*.yml")}
    assert there == {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    assert there - {case.playbook for case in CASES} - {"awx"} == set(ELSEWHERE)
    for playbook, where in ELSEWHERE.items():
        assert "{0}.{1}".format(NAMESPACE, playbook) in where.read_text()
    assert {"allocate", "inventory_db"} <= there


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.playbook)
def test_it_runs_and_leaves_artifacts_without_secrets(installed: Installed, case: Case) -> None:
    outcome = installed.play(case.playbook, case.variables)
    stats = outcome.stats
    assert stats.get("status") == case.status, stats
    assert len(installed.secrets) >= 3
    text = json.dumps(stats)
    assert not [number for number, secret in enumerate(sorted(installed.secrets)) if secret in text]
    assert "Traceback" not in outcome.output


def test_awx_makes_its_objects_once_in_a_fake_of_awx(installed: Installed) -> None:
    with awx(TOKEN, ["playbooks/" + path.name for path in (installed.place / "playbooks").glob("*.yml")]) as fake:
        wanted = {"awx_controller_url": fake.url, "awx_token": TOKEN, "awx_only": ["provision_dedicated"], "awx_inventory_sources": {}}
        first = installed.play("awx", wanted)
        assert list(fake.named("job_templates")) == first.stats["job_templates"] == ["postgres-pools-provision-dedicated"]
        assert first.stats["status"] == "present" and first.changed > 5
        written = len(fake.writes)
        second = installed.play("awx", wanted)
        assert second.changed == 0 and len(fake.writes) == written
    assert TOKEN not in first.output + second.output


def test_a_tenant_that_stayed_still_works_in_its_database(installed: Installed) -> None:
    told = json.loads((installed.scratch.home / "tenants.json").read_text())
    # Their passwords were secrets by then, so the tests above would have seen them.
    assert told["status"] == "allocated" and {one["password"] for one in told["allocations"]} <= installed.secrets
    stayed = next(one for one in told["allocations"] if one["instance_id"] == SECOND["instance_id"])
    with contextlib.closing(psycopg2.connect(stayed["dsn"])) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        assert cursor.fetchone() == (stayed["user"], stayed["database"])

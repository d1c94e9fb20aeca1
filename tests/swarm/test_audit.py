# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""audit.yml on a real Swarm: what has no row, what a row lacks, and a service that somebody changed by hand."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, Set, Tuple

import pytest
from swarm_fixture import Bed

STRAY = "stray-of-the-audit"
LABELS = ("--label", "postgres_pools.managed=true", "--label", "postgres_pools.server=" + STRAY)
Keys = Set[Tuple[str, str, str]]


def good(done: Any) -> str:
    assert done.returncode == 0, done.stdout[-3000:]
    return str(done.stdout)


@pytest.fixture(scope="module")
def server(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the audit's own, with one tenant; removed in the end."""
    bed.sql_do("UPDATE db_plans SET cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20 WHERE plan_tier = 'free'")
    instance_id, told = str(uuid.uuid4()), tmp_path_factory.mktemp("audit") / "result.json"
    request: Dict[str, Any] = {"instance_id": instance_id, "customer_id": instance_id, "plan_tier": "free", "require_dedicated": True}
    good(bed.play("allocate", result_file=str(told), **request))
    name = str(json.loads(told.read_text())["server"])
    yield name
    good(bed.play("release", instance_id=instance_id, keep_days=0))
    bed.sql_do("UPDATE db_servers SET status = 'maintenance' WHERE name = '{0}'".format(name))
    good(bed.play("deprovision", server=name))


def audit(bed: Bed, tmp_path: Path, **variables: Any) -> Keys:
    told = tmp_path / "{0}.json".format(uuid.uuid4().hex)
    good(bed.play("audit", audit_fail_on="never", result_file=str(told), **variables))
    return {(one["server"], one["kind"], one["object"]) for one in json.loads(told.read_text())["findings"]}


def test_a_server_as_it_was_deployed_is_clean(bed: Bed, server: str) -> None:
    good(bed.play("audit", server=server, audit_fail_on="findings", audit_tenants="all"))


def test_what_has_no_row_is_found_and_left(bed: Bed, server: str, tmp_path: Path) -> None:
    directory = "/mnt/cephfs/postgres_dedicated/" + STRAY
    before = audit(bed, tmp_path)
    image = bed.facts["swarm_bed_images"]["postgres_18"]
    bed.manager("docker", "service", "create", "--detach", "--quiet", "--no-resolve-image", "--replicas", "0", "--name", STRAY, *LABELS, image)
    bed.manager("docker", "secret", "create", *LABELS, STRAY + "-superuser", "/etc/hostname")
    bed.manager("docker", "config", "create", *LABELS, STRAY + "-hba-00000000", "/etc/hostname")
    bed.manager("mkdir", directory)
    try:
        assert audit(bed, tmp_path, repair=True) - before == {
            ("", "service_without_row", STRAY),
            ("", "secret_without_row", STRAY + "-superuser"),
            ("", "config_without_row", STRAY + "-hba-00000000"),
            ("", "directory_without_row", directory),
        }
        assert STRAY in bed.manager("docker", "service", "ls", "--format", "{{.Name}}").split()
        bed.manager("test", "-d", directory)
    finally:
        bed.manager("docker", "service", "rm", STRAY)
        bed.manager("docker", "secret", "rm", STRAY + "-superuser")
        bed.manager("docker", "config", "rm", STRAY + "-hba-00000000")
        bed.manager("rmdir", directory)
    assert audit(bed, tmp_path) <= before


def test_a_service_changed_by_hand_and_one_that_is_gone_are_found_and_mended_by_an_update(bed: Bed, server: str, tmp_path: Path) -> None:
    bed.manager("docker", "service", "update", "--detach", "--quiet", "--limit-memory", "600M", "--replicas", "0", server)
    found = audit(bed, tmp_path, server=server)
    assert {(server, "service_drift", "memory_limit"), (server, "service_drift", "replicas")} <= found
    assert {kind for _server, kind, _name in found} == {"service_drift", "unreachable"}

    bed.manager("docker", "service", "rm", server)
    found = audit(bed, tmp_path, server=server)
    assert (server, "row_without_service", server) in found
    assert {kind for _server, kind, _name in found} == {"row_without_service", "unreachable"}

    good(bed.play("update_server", server=server, memory_limit="512M"))
    good(bed.play("audit", server=server, audit_fail_on="findings"))


def test_a_manager_that_is_not_reached_is_a_finding_and_ends_nothing(bed: Bed, server: str, tmp_path: Path) -> None:
    before = audit(bed, tmp_path)
    # A name that no host of the inventory has is taken for an address.
    found = audit(bed, tmp_path, fleet_audit_manager="manager.invalid")
    assert found - before == {("", "unreachable", "the Swarm manager")}

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's life: of another version, made later than it was asked for, updated in place, spare, and removed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from swarm_fixture import Bed


@pytest.fixture(scope="module", autouse=True)
def small_plan(bed: Bed) -> None:
    bed.sql_do("UPDATE db_plans SET cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20 WHERE plan_tier = 'free'")


def good(done: Any) -> str:
    assert done.returncode == 0, done.stdout[-3000:]
    return str(done.stdout)


def changed(output: str) -> int:
    return sum(int(number) for number in re.findall(r"changed=(\d+)", output))


def row_of(bed: Bed, instance_id: str) -> Dict[str, Any]:
    return bed.sql("SELECT * FROM db_servers WHERE dedicated_instance_id = '{0}'".format(instance_id))[0]


def test_a_server_of_postgresql_15_from_asking_to_removal(bed: Bed, tmp_path: Path) -> None:
    instance_id, result_file = str(uuid.uuid4()), tmp_path / "result.json"
    request: Dict[str, Any] = {"instance_id": instance_id, "customer_id": instance_id, "plan_tier": "free", "require_dedicated": True}
    request.update(postgres_pools_image="postgres:15", postgres_pools_lease_seconds=60, result_file=str(result_file))

    # Who does not wait is told so, and nothing is made.
    good(bed.play("allocate", wait=False, **request))
    answer = json.loads(result_file.read_text())
    assert answer["status"] == "provisioning" and answer["retry_after"] > 0
    name = row_of(bed, instance_id)["name"]
    assert name not in bed.manager("docker", "service", "ls", "--format", "{{.Name}}").split()

    # A later run finishes it.
    good(bed.play("allocate", **request))
    answer = json.loads(result_file.read_text())
    assert (answer["status"], answer["server"]) == ("allocated", name)
    assert bed.query_from("sw1", answer, "SELECT current_setting('server_version_num')::int / 10000") == "15"
    node, container = bed.container(name)
    assert bed.inside(node, container, "sh", "-c", "echo $PGDATA").strip() == "/var/lib/postgresql/data/pgdata"
    bed.query_from("sw1", answer, "CREATE TABLE kept AS SELECT 42 AS number")

    # More memory is an update of the one service, shown before, and the data are there after it.
    shown = good(bed.play("update_server", "--check", "--diff", server=name, memory_limit="768M"))
    assert re.search(r"-.*limit_memory: 536870912", shown) and re.search(r"\+.*limit_memory: 805306368", shown)
    assert "shared_buffers=192MB" in shown
    assert row_of(bed, instance_id)["memory_limit_bytes"] == 512 << 20
    good(bed.play("update_server", server=name, memory_limit="768M"))
    assert row_of(bed, instance_id)["memory_limit_bytes"] == 768 << 20
    assert bed.query_from("sw1", answer, "SELECT number, current_setting('shared_buffers') FROM kept") == "42|192MB"
    assert changed(good(bed.play("update_server", server=name, memory_limit="768M"))) == 0

    # Another major version would begin with no data: refused, and back.
    refused = bed.play("update_server", server=name, image="postgres:18")
    assert refused.returncode != 0
    assert "of another major version than the data" in " ".join(refused.stdout.split())
    good(bed.play("update_server", server=name, image="postgres:15"))
    assert bed.query_from("sw1", answer, "SELECT number FROM kept") == "42"

    # In use it stays; emptied it goes, and its data are archived.
    assert "Put it into maintenance first" in " ".join(bed.play("deprovision", server=name).stdout.split())
    bed.sql_do("UPDATE db_servers SET status = 'maintenance' WHERE name = '{0}'".format(name))
    assert "still holds " + answer["database"] in " ".join(bed.play("deprovision", server=name).stdout.split())
    good(bed.play("release", instance_id=instance_id, keep_days=0))
    assert changed(good(bed.play("deprovision", "--check", server=name))) > 0
    assert row_of(bed, instance_id)["status"] == "maintenance"
    good(bed.play("deprovision", server=name))
    assert row_of(bed, instance_id)["status"] == "deprovisioned"
    assert name not in bed.manager("docker", "service", "ls", "--format", "{{.Name}}")
    assert name not in bed.manager("docker", "secret", "ls", "--format", "{{.Name}}")
    assert name not in bed.manager("docker", "config", "ls", "--format", "{{.Name}}")
    folders = bed.manager("ls", "-A", "/mnt/cephfs/postgres_dedicated", "/mnt/cephfs/postgres_dedicated/.archived").split()
    assert [folder for folder in folders if folder.startswith(name)] == [folder for folder in folders if folder.startswith(name + "-")] != []
    assert changed(good(bed.play("deprovision", server=name))) == 0


def test_a_spare_pool_is_kept(bed: Bed) -> None:
    request = {"instance_id": str(uuid.uuid4()), "customer_id": str(uuid.uuid4()), "plan_tier": "free"}
    empty = "SELECT name FROM db_servers WHERE server_type = 'shared' AND status = 'active' AND current_instances = 0 AND allocation_strategy = 'auto'"
    good(bed.play("allocate", postgres_pools_spare=1, **request))
    spare = bed.sql(empty)
    assert len(spare) == 1
    bed.container(spare[0]["name"])
    # It is enough: asking again makes no other.
    assert changed(good(bed.play("allocate", postgres_pools_spare=1, **request))) == 0
    assert bed.sql(empty) == spare


def made_and_removed(bed: Bed, *arguments: str, **variables: Any) -> Iterator[Dict[str, Any]]:
    """A pool's row, with the server there; and its row after it was removed."""
    good(bed.play("provision_pool", *arguments, **variables))
    row = bed.servers()[-1]
    assert changed(good(bed.play("provision_pool", *arguments, **dict(variables, server=row["name"])))) == 0
    yield row
    good(bed.play("maintenance", server=row["name"], state="on"))
    good(bed.play("deprovision", *arguments, **dict(variables, server=row["name"])))
    yield bed.sql("SELECT * FROM db_servers WHERE name = '{0}'".format(row["name"]))[0]


def test_a_server_on_the_disk_of_one_node(bed: Bed) -> None:
    new = dict(bed.new_server, storage="local", node_placement="sw2", storage_root="/srv/postgres")
    steps = made_and_removed(bed, postgres_pools_new_server=new)
    row = next(steps)
    assert (row["storage"], row["node_placement"], row["status"]) == ("local", "sw2", "active")
    assert bed.container(row["name"])[0] == "sw2"
    assert "PG_VERSION" in bed.on("sw2", "ls", row["storage_path"] + "/18/docker")
    assert "server.key" in bed.on("sw2", "ls", row["storage_path"] + "/tls")
    # Renewed where it lies, though the other servers' keys lie elsewhere.
    good(bed.play("renew_certificates", server=row["name"], force=True))
    assert next(steps)["status"] == "deprovisioned"
    archived = bed.on("sw2", "find", "/srv/postgres/postgres_pools/.archived", "-maxdepth", "1", "-name", row["name"] + "-*").split()
    assert len(archived) == 1
    assert "PG_VERSION" in bed.on("sw2", "ls", archived[0] + "/18/docker")


@pytest.fixture
def machine(bed: Bed, tmp_path: Path) -> Iterator[Path]:
    """An inventory in which the machine that runs the cluster is the storage host: it has the command `ceph`, and a mount that may do all."""
    mount = Path(bed.facts["swarm_bed_cephfs_mount"])
    assert not mount.is_mount()
    mount.mkdir(parents=True, exist_ok=True)
    options = ["--conf", bed.facts["swarm_bed_ceph_conf"], "--id", "admin", "--client_fs", "cephfs", "--fuse_disable_pagecache=true"]
    subprocess.run(["ceph-fuse", *options, str(mount)], capture_output=True, timeout=60, check=True)
    inventory = tmp_path / "machine.yml"
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": {"machine": here}}}))
    try:
        yield inventory
    finally:
        subprocess.run(["umount", str(mount)], timeout=60, check=True)
        mount.rmdir()


def test_a_server_on_a_subvolume(bed: Bed, machine: Path) -> None:
    subvolumes = {"group": "pools", "ceph_conf": bed.facts["swarm_bed_ceph_conf"]}
    mounted = {"mount_path": bed.facts["swarm_bed_cephfs_mount"], "cluster_fsid": bed.facts["swarm_bed_cluster_fsid"]}
    cephfs = dict(mounted, kind="subvolume", subvolume=subvolumes)
    steps = made_and_removed(bed, "-i", str(machine), postgres_pools_storage_host="machine", postgres_pools_cephfs=cephfs)
    row = next(steps)
    assert (row["storage"], row["status"]) == ("cephfs", "active")
    name = Path(row["storage_path"]).name
    assert bed.manager("readlink", "-f", row["storage_path"]).startswith("{0}/volumes/pools/{1}/".format(mounted["mount_path"], name))
    assert next(steps)["status"] == "deprovisioned"
    asked = ["ceph", "--conf", subvolumes["ceph_conf"], "fs", "subvolume", "info", "cephfs", name, "--group_name", "pools"]
    info = json.loads(subprocess.run(asked, capture_output=True, timeout=60, check=True).stdout)
    assert info["state"] == "snapshot-retained"
    assert bed.manager("sh", "-c", "ls -d {0} || true".format(row["storage_path"])) == ""

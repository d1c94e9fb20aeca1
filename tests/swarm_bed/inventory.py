# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible inventory of the bed: who is there and how each is reached. What the collection is to do with them is said elsewhere."""

from __future__ import annotations

import json
from typing import Any, Dict

import ceph
import image_recipe
import nodes
from outer import SOCKET
from settings import BED, CEPHFS_MOUNT, CHECKOUT, CLIENT_CONTAINER, MANAGER, MANAGER_API, NODES, SESSION_TIMEOUT

FILE = BED / "inventory" / "hosts.yml"


# Small pools, so that several fit on two cores, and images that only the nodes have.
DIFFERENCES: Dict[str, Any] = {
    "postgres_pools_secrets": str(BED / "secrets"),
    "postgres_pools_cephfs": {"mount_path": CEPHFS_MOUNT, "cluster_fsid": "{{ swarm_bed_cluster_fsid }}"},
    "postgres_pools_fence": {"ceph_id": ceph.FENCE, "host": "{{ groups.swarm_managers | difference([node | default('')]) | first }}"},
    "postgres_pools_heartbeat_seconds": 2,
    "postgres_pools_image": "{{ swarm_bed_images.postgres_18 }}",
    "postgres_server_resolve_image": False,
    "postgres_pools_new_server": {
        "backend": "swarm",
        "postgres_image": "{{ postgres_pools_image }}",
        "storage_root": CEPHFS_MOUNT,
        "tls": True,
        "max_instances": 5,
        "cpu_limit": 0.5,
        "memory_limit": "768M",
    },
    "postgres_pools_lease_seconds": 60,
}


def write() -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and needs no library that the machine may lack.
    FILE.write_text("# Made by tests/swarm_bed.\n" + json.dumps(inventory(), indent=2) + "\n")
    # What a production inventory says, and then in what the bed differs: Ansible reads the files of a directory by name.
    variables = FILE.parent / "group_vars" / "all"
    variables.mkdir(parents=True, exist_ok=True)
    production = variables / "1_production.yml"
    production.unlink(missing_ok=True)
    production.symlink_to(CHECKOUT / "inventories" / "swarm" / "group_vars" / "all" / "main.yml")
    (variables / "2_bed.yml").write_text(json.dumps(DIFFERENCES, indent=2) + "\n")


def inventory() -> Dict[str, Any]:
    def group(*names: str) -> Dict[str, Any]:
        return {"hosts": {name: {} for name in names}}

    workers = [node.name for node in NODES if node is not MANAGER]
    there = {node.name: {"swarm_bed_address": node.address("cluster"), "swarm_bed_storage_address": node.address("storage")} for node in NODES}
    through_docker = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3"}
    managers = nodes.manager_nodes()
    # One on each manager; prepare.yml makes that of the first, or of the one that postgres_pools_manager names.
    clients = {
        "client" if node is MANAGER else "client-" + node.name: {
            **through_docker,
            "ansible_host": CLIENT_CONTAINER,
            "ansible_docker_extra_args": "-H " + node.docker_api,
        }
        for node in managers
    }
    return {
        "all": {
            "vars": {
                "swarm_bed_cluster_fsid": ceph.fsid(),
                "swarm_bed_cephfs_mount": CEPHFS_MOUNT,
                "swarm_bed_session_timeout": SESSION_TIMEOUT,
                "swarm_bed_manager_api": MANAGER_API,
                "swarm_bed_outer_docker": SOCKET,
                "swarm_bed_ceph_conf": str(ceph.CONFIGURATION),
                "swarm_bed_images": {recipe.slug.replace("-", "_"): recipe.tag for recipe in image_recipe.LOADED},
                "swarm_bed_memory": memory(),
            },
            "children": {
                "swarm_bed_nodes": {"hosts": there, "vars": {**through_docker, "ansible_docker_extra_args": "-H " + SOCKET}},
                "swarm_managers": group(*(node.name for node in managers)),
                "storage_hosts": group(MANAGER.name),
                "database_nodes": group(*workers),
                "database_clients": {"hosts": clients},
            },
        }
    }


def memory() -> int:
    """Bytes, of the machine: the nodes share it, and each one's dockerd tells the Swarm the whole."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))

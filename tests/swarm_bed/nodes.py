# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes: containers with a dockerd of their own, on both networks, with CephFS mounted and joined to one Swarm."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, List

import ceph
import image_recipe
import loaded
from outer import answers, docker, in_node, node_runs, running_containers
from processes import BedError, run, wait_for
from settings import CEPHFS_MOUNT, MANAGER, NODES, Node


def side_by_side(step: Callable[[Node], None]) -> None:
    with ThreadPoolExecutor(max_workers=len(NODES)) as workers:
        list(workers.map(step, NODES))


def all_run() -> bool:
    return set(running_containers()) >= {node.name for node in NODES}


def start(node: Node) -> None:
    if node.name in running_containers():
        return
    docker("rm", "--force", node.name, check=False)
    ceph_folder = node.folder / "ceph"
    ceph_folder.mkdir(parents=True, exist_ok=True)
    loaded.place(node.folder / "docker")
    create = ["create", "--name", node.name, "--hostname", node.name, *loaded.RIGHTS]
    create += ["--network", "cluster", "--ip", node.address("cluster")]
    # Nobody answers there. What the containers look up fails soon; the names that dockerd looks up before each task, to pull an image that is there, are
    # refused at once, which would otherwise take 10 to 30 s.
    create += ["--dns", "127.0.0.1"]
    for name in ("docker.io", "registry-1.docker.io"):
        create += ["--add-host", name + ":127.0.0.1"]
    create += ["--volume", "{0}:/var/lib/docker".format(node.folder / "docker"), "--volume", "{0}:/etc/ceph".format(ceph_folder)]
    create += ["--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--stop-timeout", "10"]
    create += [image_recipe.NODE.tag, *loaded.DAEMON, "--dns", "127.0.0.1"]
    # For a controller outside the Swarm, on a network that only this machine reaches.
    create += ["--host", node.docker_api, "--tls=false"]
    docker(*create)
    docker("network", "connect", "--ip", node.address("storage"), "storage", node.name)
    docker("start", node.name)


def wait_until_up(node: Node) -> None:
    wait_for("dockerd of {0} answers".format(node.name), 30, lambda: node_runs(node.name, "docker", "version"))


def mounted(node: Node, patience: int = 10) -> bool:
    """Whether CephFS answers there. Where it neither answers nor fails, the question is killed, and not left hanging in the node."""
    ask = ("getfattr", "--absolute-names", "--only-values", "-n", "ceph.cluster_fsid", CEPHFS_MOUNT)
    return node_runs(node.name, "timeout", "--signal=KILL", str(patience), *ask, limit=patience + 5)


def mount(node: Node) -> None:
    # A metadata server that has just come back lets its clients wait; mounting anew would take the files from under their users.
    if mounted(node, patience=30):
        return
    ceph.write_client(node)
    unmount(node)
    in_node(node.name, "mkdir", "-p", CEPHFS_MOUNT)
    in_node(node.name, *ceph.mount_command(node), limit=60)
    wait_for("CephFS is mounted on {0}".format(node.name), 30, lambda: mounted(node))


def unmount(node: Node) -> None:
    """Also where ceph-fuse is dead, or its session was closed by the cluster: then nothing else takes the mount away."""
    if node_runs(node.name, "mountpoint", "-q", CEPHFS_MOUNT) or not node_runs(node.name, "timeout", "--signal=KILL", "5", "stat", CEPHFS_MOUNT):
        in_node(node.name, "umount", CEPHFS_MOUNT, check=False, limit=10)
        in_node(node.name, "pkill", "-KILL", "-x", "ceph-fuse", check=False, limit=10)
        in_node(node.name, "umount", "--lazy", CEPHFS_MOUNT, check=False, limit=10)


def swarm_state(node: Node) -> str:
    return in_node(node.name, "docker", "info", "--format", "{{.Swarm.LocalNodeState}}", limit=20)


def join_swarm(managers: int) -> None:
    if swarm_state(MANAGER) != "active":
        in_node(MANAGER.name, "docker", "swarm", "init", "--advertise-addr", MANAGER.address("cluster"))
    token = in_node(MANAGER.name, "docker", "swarm", "join-token", "--quiet", "worker")
    for node in NODES[1:]:
        if swarm_state(node) != "active":
            address = node.address("cluster")
            in_node(node.name, "docker", "swarm", "join", "--token", token, "--advertise-addr", address, MANAGER.address("cluster") + ":2377")
    wait_for("all nodes are ready in the Swarm", 30, all_ready, pause=0.3)
    if managers > 1:
        in_node(MANAGER.name, "docker", "node", "promote", *(node.name for node in NODES[1:managers]))
        wait_for("they are managers", 30, lambda: len(manager_nodes()) >= managers, pause=0.3)


def all_ready() -> bool:
    return ready_nodes() == sorted(node.name for node in NODES)


def manager_nodes() -> List[Node]:
    listed = in_node(MANAGER.name, "docker", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}", limit=20)
    named = [line.split()[0] for line in listed.splitlines() if line.endswith((" Leader", " Reachable"))]
    return [node for node in NODES if node.name in named]


def ready_nodes() -> List[str]:
    listed = in_node(MANAGER.name, "docker", "node", "ls", "--format", "{{.Hostname}} {{.Status}}", limit=20, check=False)
    return sorted(line.split()[0] for line in listed.splitlines() if line.endswith(" Ready"))


def remove() -> None:
    """Killed, not asked: what they hold is thrown away with them."""
    running = running_containers()
    if running:
        docker("kill", *running, check=False, limit=20)
    if answers():
        docker("rm", "--force", "--volumes", *(node.name for node in NODES), check=False, limit=30)
    for node in NODES:
        end = time.monotonic() + 10
        while node.folder.exists():
            shutil.rmtree(node.folder, ignore_errors=True)
            if time.monotonic() > end:
                raise BedError("{0} cannot be removed: {1}".format(node.folder, run("ls", "-R", str(node.folder), check=False)[:500]))
            time.sleep(0.1)

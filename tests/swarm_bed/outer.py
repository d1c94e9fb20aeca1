# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker that runs the nodes: its own daemon, beside whatever Docker the machine's user has.

It touches neither the machine's firewall chains nor its forwarding: another Docker's are there, and the nodes need no way out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import image_recipe
from processes import BedError, alive, kill_users, mounts_below, run, start_daemon, stop_daemon, wait_for, works
from settings import BED, NETWORKS, STORE, Network

SOCKET = "unix://{0}".format(BED / "docker.sock")
PID_FILE = BED / "docker.pid"
CONTAINERD = BED / "exec" / "containerd"
# Says that the bridges are this bed's: another one, in another folder, has the same names.
MADE = BED / "networks-made"


def docker(*arguments: str, limit: float = 60, check: bool = True) -> str:
    return run("docker", "--host", SOCKET, *arguments, limit=limit, check=check)


def in_node(name: str, *command: str, limit: float = 60, check: bool = True) -> str:
    return docker("exec", name, *command, limit=limit, check=check)


def node_runs(name: str, *command: str, limit: float = 10) -> bool:
    return works("docker", "--host", SOCKET, "exec", name, *command, limit=limit)


def answers() -> bool:
    return works("docker", "--host", SOCKET, "version")


def running_containers() -> List[str]:
    """A dockerd that is only slow must not be taken for one that runs nothing."""
    if not alive(PID_FILE, "dockerd"):
        return []
    wait_for("the bed's dockerd answers", 30, answers)
    return docker("ps", "--format", "{{.Names}}").split()


def start() -> None:
    if alive(PID_FILE, "dockerd"):
        wait_for("the bed's dockerd answers", 30, answers)
        return
    if (BED / "exec").exists():
        raise BedError("its dockerd is gone, and with it what it knew of the nodes; run down, then up")
    PID_FILE.unlink(missing_ok=True)
    # containerd's own socket and pid file lie in the exec-root.
    command = ["dockerd", "--host", SOCKET, "--pidfile", str(PID_FILE), "--data-root", str(STORE / "docker"), "--exec-root", str(BED / "exec")]
    command += ["--config-file", str(BED / "daemon.json"), "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    command += ["--ip-masq=false", "--userland-proxy=false"]
    (BED / "daemon.json").write_text("{}\n")
    # dockerd writes its pid file itself, and refuses to start where one is.
    start_daemon("dockerd", command, BED / "docker.started")
    wait_for("the bed's dockerd answers", 30, answers)


def load_node_image() -> None:
    archive = image_recipe.NODE.archive
    loaded = STORE / "docker" / "node-image"
    if loaded.exists() and loaded.read_text() == archive.name and docker("images", "--quiet", image_recipe.NODE.tag):
        return
    load(archive)
    docker("image", "prune", "--force")
    loaded.write_text(archive.name)


def load(archive: Path, *through: str) -> None:
    """`docker load`, or what is given instead of it."""
    command = ["docker", "--host", SOCKET, *(through or ("load", "--quiet"))]
    with subprocess.Popen(["zstd", "--quiet", "--decompress", "--stdout", str(archive)], stdout=subprocess.PIPE) as unpacked:
        done = subprocess.run(command, stdin=unpacked.stdout, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise BedError("docker load of {0}: {1}".format(archive, done.stderr.strip()))


def make_networks() -> None:
    there = docker("network", "ls", "--format", "{{.Name}}").split()
    for network in NETWORKS.values():
        if network.name not in there:
            if Path("/sys/class/net", network.bridge).exists():
                raise BedError("the bridge {0} is there already, of another bed or a dead one; run down there first".format(network.bridge))
            MADE.touch()
            create = ["network", "create", "--driver", "bridge", "--subnet", network.subnet, "--gateway", network.gateway]
            docker(*create, "--opt", "com.docker.network.bridge.name=" + network.bridge, network.name)
        pass_through(network)


def pass_through(network: Network) -> None:
    """Where another Docker drops what is forwarded, and bridges are filtered too, nodes would not reach each other."""
    rule = forwarding(network)
    if not works("iptables", "--wait", "--check", *rule):
        run("iptables", "--wait", "--insert", *rule)


def forwarding(network: Network) -> List[str]:
    return ["FORWARD", "--in-interface", network.bridge, "--out-interface", network.bridge, "--jump", "ACCEPT"]


def stop() -> None:
    """Ceph must be gone: what is mounted over a network that is taken away hangs."""
    if answers():
        docker("container", "prune", "--force", check=False, limit=20)
        docker("network", "rm", *NETWORKS, check=False, limit=20)
    stop_daemon(PID_FILE, "dockerd", polite=10)
    stop_daemon(CONTAINERD / "containerd.pid", "containerd", polite=3)
    for network in NETWORKS.values() if MADE.exists() else ():
        run("iptables", "--wait", "--delete", *forwarding(network), check=False, limit=10)
        run("ip", "link", "delete", network.bridge, check=False, limit=10)


def abandon() -> None:
    """A dockerd that was killed leaves its containers running, and its successor waits for their dead ends: so all of it goes, by hand."""
    if not (BED / "exec").exists() or answers():
        return
    stop_daemon(PID_FILE, "dockerd", polite=0)
    for state in (BED / "exec").glob("runtime-runc/moby/*/state.json"):
        kill_first_process(json.loads(state.read_text()))
    kill_users(BED / "exec")
    for point in mounts_below(BED):
        run("umount", "--lazy", point, check=False, limit=10)
    # Its records speak of containers that are no more; the image is loaded anew.
    shutil.rmtree(STORE / "docker", ignore_errors=True)


def kill_first_process(state: Dict[str, Any]) -> None:
    pid = state["init_process_pid"]
    try:
        started = Path("/proc/{0}/stat".format(pid)).read_text().rpartition(")")[2].split()[19]
    except OSError:
        return
    # The number may be another process's by now.
    if int(started) == state["init_process_start"]:
        os.kill(pid, signal.SIGKILL)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failures that tests make."""

from __future__ import annotations

import argparse
import json
from typing import Any

import ceph
import nodes
from outer import docker, in_node
from processes import BedError, stop_daemon, wait_for
from settings import NETWORKS, NODES, Node, node_named


def add_to(verbs: Any) -> None:
    for name, everywhere in (("restart", restart), ("kill-mds", kill_mds), ("start-mds", start_mds)):
        verbs.add_parser(name).set_defaults(call=lambda _asked, everywhere=everywhere: everywhere())
    for function in (cut, heal, kill, start, pause, unpause, umount, mount, freeze, thaw, crash, evict):
        verb = verbs.add_parser(function.__name__)
        verb.add_argument("node", choices=[node.name for node in NODES])
        if function in (cut, heal):
            verb.add_argument("network", choices=list(NETWORKS))
        verb.set_defaults(call=function)


def cut(asked: argparse.Namespace) -> None:
    docker("network", "disconnect", asked.network, asked.node)


def heal(asked: argparse.Namespace) -> None:
    docker("network", "connect", "--ip", node_named(asked.node).address(asked.network), asked.network, asked.node)


def kill(asked: argparse.Namespace) -> None:
    docker("kill", asked.node)


def start(asked: argparse.Namespace) -> None:
    boot(node_named(asked.node))


def boot(node: Node) -> None:
    """As on a machine, where the file systems are mounted before dockerd starts what uses them."""
    docker("start", node.name)
    nodes.mount(node)
    nodes.wait_until_up(node)


def restart() -> None:
    docker("kill", *(node.name for node in NODES))
    nodes.side_by_side(boot)
    wait_for("all nodes are ready in the Swarm", 120, nodes.all_ready, pause=0.5)


def pause(asked: argparse.Namespace) -> None:
    docker("pause", asked.node)


def unpause(asked: argparse.Namespace) -> None:
    docker("unpause", asked.node)


def umount(asked: argparse.Namespace) -> None:
    """Refused by the kernel while a container uses it, as on a machine; a dead mount is taken away all the same."""
    nodes.unmount(node_named(asked.node))


def mount(asked: argparse.Namespace) -> None:
    nodes.mount(node_named(asked.node))


def freeze(asked: argparse.Namespace) -> None:
    """Its CephFS neither answers nor fails."""
    in_node(asked.node, "pkill", "-STOP", "-x", "ceph-fuse")


def thaw(asked: argparse.Namespace) -> None:
    in_node(asked.node, "pkill", "-CONT", "-x", "ceph-fuse")


def crash(asked: argparse.Namespace) -> None:
    in_node(asked.node, "pkill", "-KILL", "-x", "ceph-fuse")


def kill_mds() -> None:
    stop_daemon(ceph.pid_file("ceph-mds", "a"), "ceph-mds", polite=0)


def start_mds() -> None:
    """With its clients back, too: it waits for those that it knows."""
    ceph.daemon("ceph-mds", "a")
    wait_for("the metadata server is active", 60, ceph.mds_active)


def evict(asked: argparse.Namespace) -> None:
    sessions = json.loads(ceph.ceph("tell", "mds.a", "client", "ls", "--format", "json"))
    ids = [session["id"] for session in sessions if session["client_metadata"].get("hostname") == asked.node]
    if not ids:
        raise BedError("{0} has no session at the metadata server".format(asked.node))
    for session in ids:
        ceph.ceph("tell", "mds.a", "client", "evict", "id={0}".format(session))

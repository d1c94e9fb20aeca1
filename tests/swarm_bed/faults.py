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
from processes import BedError
from settings import NETWORKS, NODES, node_named


def add_to(verbs: Any) -> None:
    for function in (cut, heal, kill, start, umount, mount, freeze, thaw, evict):
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
    node = node_named(asked.node)
    docker("start", node.name)
    nodes.wait_until_up(node)
    nodes.mount(node)


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


def evict(asked: argparse.Namespace) -> None:
    sessions = json.loads(ceph.ceph("tell", "mds.a", "client", "ls", "--format", "json"))
    ids = [session["id"] for session in sessions if session["client_metadata"].get("hostname") == asked.node]
    if not ids:
        raise BedError("{0} has no session at the metadata server".format(asked.node))
    for session in ids:
        ceph.ceph("tell", "mds.a", "client", "evict", "id={0}".format(session))

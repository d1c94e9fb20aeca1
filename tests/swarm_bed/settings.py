# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, addresses and folders of the bed. All that it makes lies below one folder; only the images' cache is in the checkout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = Path(__file__).resolve().parent / "recipes"
CACHE = CHECKOUT / ".cache" / "swarm-bed"

# Beds of different numbers stand side by side; their addresses and bridges differ.
NUMBER = int(os.environ.get("SWARM_BED_NUMBER") or 0)
SUFFIX = "-{0}".format(NUMBER) if NUMBER else ""
BED = Path(os.environ.get("SWARM_BED_DIR") or "/var/lib/postgres_pools/swarm-bed" + SUFFIX).absolute()
LOGS = BED / "log"
# What was unpacked from the cache. It stays when the bed goes, since it makes the next one quick.
STORE = BED / "store"

CEPHFS_MOUNT = "/mnt/cephfs"
# Seconds until CephFS gives up a lost client: the least that a takeover takes.
SESSION_TIMEOUT = 30


class Network(NamedTuple):
    name: str
    bridge: str
    subnet: str
    gateway: str


class Node(NamedTuple):
    name: str
    number: int
    # Capabilities of its CephX client: p is the right to set quotas, s the right to make snapshots.
    storage_rights: str

    def address(self, network: str) -> str:
        return "{0}{1}".format(NETWORKS[network].gateway, self.number)

    @property
    def docker_api(self) -> str:
        return "tcp://{0}:2375".format(self.address("cluster"))

    @property
    def folder(self) -> Path:
        return BED / "nodes" / self.name


# A bridge's name has at most 15 characters.
NETWORKS: Dict[str, Network] = {
    name: Network(name, "swbed-{0}{1}".format(name, SUFFIX), "10.{0}.{1}.0/24".format(block, NUMBER), "10.{0}.{1}.1".format(block, NUMBER))
    for name, block in (("cluster", 77), ("storage", 79))
}
# The first is the Swarm's manager, of three the one with which the Swarm begins, and the storage host.
NODES: Tuple[Node, ...] = (Node("sw1", 1, "rwps"), Node("sw2", 2, "rw"), Node("sw3", 3, "rw"))
MANAGER = NODES[0]
MANAGER_API = MANAGER.docker_api
CLIENT_CONTAINER = "postgres-pools-client"


def node_named(name: str) -> Node:
    return {node.name: node for node in NODES}[name]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A watcher on the Swarm's managers: it evicts the storage client of a node that Swarm sees down, and lets the node take servers again once it is back.

The role node_watch puts this file and those that it imports on a manager, where it runs as a program with the file of its settings as its one
argument. It keeps no state of its own. What was done is a label of the node, so every manager may run one, and any of them goes on where another stopped.
"""

from __future__ import annotations

import datetime
import json
import signal
import sys
import threading
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Set

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_client
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._ceph import Cluster
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._swarm_api import Manager, Node

MARK = "postgres_pools.fenced"
# What stands behind the time in the label. A node that an operator has fenced comes back by an operator.
MINE = " by node_watch"
# Clients are asked for every so many rounds only while a fenced node is back: it is a call to the metadata server.
ROUNDS_BETWEEN_LOOKS = 5

Say = Callable[[str], None]


class Plan(NamedTuple):
    fence: List[Node]
    # Fenced by a watcher, and ready again: to be looked at.
    back: List[Node]
    # Why nobody is fenced although nodes are down; empty when that is not so.
    refused: str


def plan(nodes: Sequence[Node], name: str, value: str, max_nodes: int) -> Plan:
    """What is to be done with the nodes as they are. Pure.

    *name* and *value* are of the label that servers are placed by.
    """
    marked = [node for node in nodes if MARK in node.labels]
    lost = [node for node in nodes if node.state == "down" and node.labels.get(name) == value and MARK not in node.labels]
    back = [node for node in marked if node.state == "ready" and node.labels[MARK].endswith(MINE)]
    if lost and len(lost) + len(marked) > max_nodes:
        told = "{0} down".format(", ".join(node.hostname for node in lost))
        if marked:
            told += " and {0} fenced already".format(", ".join(node.hostname for node in marked))
        return Plan([], back, "{0}: more than {1} at once, so none is fenced. Is it the managers' network? fence.yml does it by hand.".format(told, max_nodes))
    return Plan(lost, back, "")


class Watch:
    def __init__(self, settings: Mapping[str, Any], manager: Manager, cluster: Cluster, say: Say) -> None:
        self._name, self._value = settings["label"]["name"], settings["label"]["value"]
        self._max_nodes, self._dry_run = settings["max_nodes"], settings["dry_run"]
        self._volume, self._cluster_fsid = settings["volume"], settings["cluster_fsid"]
        self._manager, self._cluster, self._say = manager, cluster, say
        # What was the matter in this round and in the one before.
        self._now: Set[str] = set()
        self._before: Set[str] = set()
        self._rounds = 0

    def round(self) -> None:
        """Look once, and do what is to be done. A failure is told, and the next round tries again."""
        try:
            nodes = self._manager.nodes()
            wanted = plan(nodes, self._name, self._value, self._max_nodes)
            if wanted.refused:
                self._once(wanted.refused)
            for node in wanted.fence:
                self._fence(node)
            self._rounds += 1
            if wanted.back and self._rounds % ROUNDS_BETWEEN_LOOKS == 0:
                self._welcome(wanted.back)
            elif wanted.back:
                self._now |= self._before
        except PoolsError as error:
            self._once(str(error))
        self._before, self._now = self._now, set()

    def _once(self, text: str) -> None:
        """Say what is the matter when it begins and not with every round."""
        if text not in self._before | self._now:
            self._say(text)
        self._now.add(text)

    def _fence(self, node: Node) -> None:
        if self._dry_run:
            self._once("{0} is down: it would be fenced, but this is a dry run.".format(node.hostname))
            return
        self._once("{0} is down: its storage client is evicted.".format(node.hostname))
        self._cluster.fsid(self._cluster_fsid)
        there = _cephfs_client.file_system(self._cluster, self._volume)
        found = _cephfs_client.of_host(_cephfs_client.sessions(self._cluster, there), node.hostname)
        _cephfs_client.evict(self._cluster, there, found)
        labels = {name: value for name, value in node.labels.items() if name != self._name}
        self._manager.label(node, dict(labels, **{MARK: _now() + MINE}))
        self._say("{0} is fenced: {1} evicted.".format(node.hostname, ", ".join("client {0}".format(one.id) for one in found) or "there was no client to be"))

    def _welcome(self, nodes: Sequence[Node]) -> None:
        """A client that was evicted gets no session any more, so one that has a session has mounted the file system anew."""
        there = _cephfs_client.file_system(self._cluster, self._volume)
        everybody = _cephfs_client.sessions(self._cluster, there)
        for node in nodes:
            if not _cephfs_client.of_host(everybody, node.hostname):
                self._once("{0} is back, and has not mounted CephFS anew: it takes no servers.".format(node.hostname))
            elif self._dry_run:
                self._once("{0} is back: it would take servers again, but this is a dry run.".format(node.hostname))
            else:
                labels = {name: value for name, value in node.labels.items() if name != MARK}
                self._manager.label(node, dict(labels, **{self._name: self._value}))
                self._say("{0} is back and has mounted CephFS anew: it takes servers again.".format(node.hostname))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(path: str) -> Dict[str, Any]:
    """The settings.

    :raises PoolsError: the file is not there, or not as the role writes it.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            settings = dict(json.load(stream))
        missing = {"label", "max_nodes", "interval", "dry_run", "volume", "cluster_fsid", "socket", "timeout"} - set(settings)
    except (OSError, ValueError) as error:
        raise PoolsError("{0} cannot be read: {1}.".format(path, error), "Run the playbook watch_nodes.yml again.") from error
    if missing:
        raise PoolsError("{0} does not say {1}.".format(path, ", ".join(sorted(missing))), "Run the playbook watch_nodes.yml again.")
    return settings


def main(path: str) -> int:
    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    try:
        settings = read(path)
    except PoolsError as error:
        say(str(error))
        return 78
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_unused: stop.set())
    watch = Watch(settings, Manager(settings["socket"]), Cluster(settings), say)
    say("Nodes with the label {0[name]}={0[value]} are watched; at most {1} may be fenced at once.".format(settings["label"], settings["max_nodes"]))
    while not stop.wait(settings["interval"]):
        watch.round()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))

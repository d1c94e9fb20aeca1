# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom the watcher fences and lets come back, and a whole round with a fake Docker API and a fake `ceph` that say so; real ones are in the scenario faults."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import stat
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_client, _node_watch
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._ceph import Cluster
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._node_watch import MARK, MINE, Watch, plan, read
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._swarm_api import Manager, Node, parse_nodes

MOMENT = "2026-01-02T03:04:05Z"


def node(name: str, state: str = "ready", database: bool = True, mark: str = "") -> Node:
    labels = dict({"role": "database"} if database else {}, **({MARK: MOMENT + mark} if mark else {}))
    return Node(name + "-id", name, state, labels, 7, {"Role": "worker", "Availability": "active", "Labels": labels})


def planned(*nodes: Node, at_most: int = 1) -> Any:
    wanted = plan(nodes, "role", "database", at_most)
    return [one.hostname for one in wanted.fence], [one.hostname for one in wanted.back], wanted.refused


def test_a_node_that_is_down_is_fenced() -> None:
    assert planned(node("a"), node("b", "down")) == (["b"], [], "")


@pytest.mark.parametrize("state", ["ready", "unknown", "disconnected"])
def test_one_of_another_state_is_not(state: str) -> None:
    assert planned(node("a"), node("b", state)) == ([], [], "")


def test_one_without_the_label_is_left_alone() -> None:
    assert planned(node("a"), node("b", "down", database=False)) == ([], [], "")


def test_one_that_is_fenced_is_not_fenced_again() -> None:
    assert planned(node("a"), node("b", "down", mark=MINE)) == ([], [], "")


def test_more_at_once_than_may_be_are_all_left() -> None:
    fenced, _back, refused = planned(node("a"), node("b", "down"), node("c", "down"))
    assert not fenced
    assert refused.startswith("b, c down: more than 1 at once")
    assert planned(node("a"), node("b", "down"), node("c", "down"), at_most=2)[0] == ["b", "c"]


def test_those_fenced_before_count() -> None:
    fenced, _back, refused = planned(node("a"), node("b", "down"), node("c", "down", False, MINE))
    assert not fenced and "b down and c fenced already: more than 1" in refused
    # One that is back but has not mounted its storage anew is as good as lost.
    assert not planned(node("a"), node("b", "down"), node("c", "ready", False, MINE))[0]


def test_only_what_a_watcher_fenced_comes_back_by_one() -> None:
    assert planned(node("a", database=False, mark=MINE), node("b", database=False, mark=" by hand")) == ([], ["a"], "")


def test_nodes_are_read_from_the_api() -> None:
    entry = {"ID": "x", "Version": {"Index": 3}, "Spec": {"Role": "worker", "Labels": None}, "Description": {"Hostname": "n"}, "Status": {"State": "down"}}
    assert parse_nodes([entry, dict(entry, Description={})]) == [Node("x", "n", "down", {}, 3, {"Role": "worker", "Labels": None})]


SESSIONS = [
    {"id": 5, "state": "open", "inst": "client.5 10.0.0.5:0/1", "client_metadata": {"hostname": "b.example.org", "mount_point": "/mnt/cephfs"}},
    {"id": 6, "state": "open", "inst": "client.6 10.0.0.6:0/1", "client_metadata": {"hostname": "a", "mount_point": "/mnt/cephfs"}},
    {"id": 7, "state": "open", "inst": "client.7 10.0.0.7:0/1", "client_metadata": {}},
]


def test_clients_are_found_by_their_hosts_own_name() -> None:
    found = _cephfs_client.parse_sessions(2, json.dumps(SESSIONS))
    assert found[0] == _cephfs_client.Session(5, 2, "b.example.org", "/mnt/cephfs", "open", "10.0.0.5:0/1")
    assert [one.id for one in _cephfs_client.of_host(found, "b")] == [5]
    assert [one.id for one in _cephfs_client.of_host(found, "b.example.org")] == [5]
    assert [one.id for one in _cephfs_client.of_host(found, "a")] == [6]
    assert not _cephfs_client.of_host(found, "b.example.net")
    assert not _cephfs_client.of_host(found, "example")


@pytest.mark.parametrize(
    ("maps", "wanted", "message"),
    [
        ([], "", r"file systems \(none\), and none was chosen"),
        ([("a", 1), ("b", 1)], "", "file systems a, b, and none was chosen"),
        ([("a", 1)], "b", "file systems a, not b"),
        ([("a", 0)], "", "no active metadata server"),
    ],
)
def test_a_file_system_that_is_not_the_one_is_refused(maps: Any, wanted: str, message: str) -> None:
    class Told:
        def tell(self, *words: str) -> str:
            return json.dumps({"filesystems": [{"mdsmap": {"fs_name": name, "up": {"mds_0": 1} if up else {}}} for name, up in maps]})

    with pytest.raises(PoolsError, match=message):
        _cephfs_client.file_system(Told(), wanted)  # type: ignore[arg-type]


def test_a_name_of_several_hosts_is_refused() -> None:
    found = _cephfs_client.parse_sessions(0, json.dumps([SESSIONS[0], dict(SESSIONS[0], client_metadata={"hostname": "b.example.net"})]))
    with pytest.raises(PoolsError, match="several hosts"):
        _cephfs_client.of_host(found, "b")


CEPH = """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[3:]
with open({log!r}, "a") as log:
    print(" ".join(words), file=log)
if words[0] == "fsid":
    print("the-cluster")
elif words[:2] == ["fs", "dump"]:
    print('{{"filesystems": [{{"mdsmap": {{"fs_name": "cephfs", "up": {{"mds_0": 1, "mds_1": 2}}}}}}]}}')
elif words[2:4] == ["client", "ls"]:
    print(open({sessions!r}).read() if words[1] == "mds.cephfs:0" else "[]")
elif words[2:4] == ["client", "evict"]:
    left = [one for one in json.load(open({sessions!r})) if "id=%d" % one["id"] != words[4]]
    json.dump(left, open({sessions!r}, "w"))
"""


class Fakes:
    """A Docker API of two paths behind a socket, and a program `ceph`, with what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.nodes: List[Dict[str, Any]] = []
        self.updates: List[Any] = []
        self.refuse = ""
        self.calls, self.sessions, self.socket = folder / "calls", folder / "sessions", folder / "docker.sock"
        self.calls.touch()
        self.sessions.write_text(json.dumps(SESSIONS))
        program = folder / "ceph"
        program.write_text(CEPH.format(log=str(self.calls), sessions=str(self.sessions)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.said: List[str] = []

    def watch(self, **settings: Any) -> Watch:
        options = dict(ceph_conf="", ceph_keyring="", ceph_id="", timeout=5)
        told = dict(label={"name": "role", "value": "database"}, max_nodes=1, dry_run=False, volume="", cluster_fsid="", **settings)
        return Watch(told, Manager(str(self.socket)), Cluster(options), self.said.append)

    def lists(self, *nodes: Node) -> None:
        self.nodes = [
            {"ID": one.id, "Version": {"Index": one.version}, "Spec": one.spec, "Description": {"Hostname": one.hostname}, "Status": {"State": one.state}}
            for one in nodes
        ]

    def evicted(self) -> List[str]:
        return [line for line in self.calls.read_text().splitlines() if "evict" in line]


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    there = Fakes(tmp_path)
    monkeypatch.setenv("PATH", "{0}:{1}".format(tmp_path, os.environ["PATH"]))

    class Handler(http.server.BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "socket"

        def log_message(self, *unused: Any) -> None:
            pass

        def answer(self, status: int, body: Any) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.answer(500 if there.refuse else 200, {"message": there.refuse} if there.refuse else there.nodes)

        def do_POST(self) -> None:
            there.updates.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.answer(200, {})

    with socketserver.UnixStreamServer(str(there.socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield there
        server.shutdown()
        thread.join()


def test_a_round_evicts_with_fakes_and_leaves_a_label(fakes: Fakes) -> None:
    fakes.lists(node("a"), node("b", "down"))
    fakes.watch().round()
    assert fakes.evicted() == ["tell mds.cephfs:0 client evict id=5"]
    ((path, spec),) = fakes.updates
    assert path == "/nodes/b-id/update?version=7"
    # Whatever else the node is stays as it is.
    assert spec["Availability"] == "active" and list(spec["Labels"]) == [MARK] and spec["Labels"][MARK].endswith(MINE)
    assert fakes.said[-1] == "b is fenced: client 5 evicted."


def test_a_dry_run_with_fakes_only_tells(fakes: Fakes) -> None:
    fakes.lists(node("a"), node("b", "down"))
    watch = fakes.watch()
    watch._dry_run = True
    watch.round()
    watch.round()
    assert not fakes.evicted() and not fakes.updates
    assert fakes.said == ["b is down: it would be fenced, but this is a dry run."]


def test_a_wrong_cluster_is_not_touched_with_fakes(fakes: Fakes) -> None:
    fakes.lists(node("a"), node("b", "down"))
    watch = fakes.watch()
    watch._cluster_fsid = "another"
    watch.round()
    assert not fakes.evicted() and not fakes.updates
    assert "speaks to cluster the-cluster, not to another" in fakes.said[1]


def test_a_manager_without_a_majority_does_nothing_with_fakes(fakes: Fakes) -> None:
    fakes.refuse = "The swarm does not have a leader."
    watch = fakes.watch()
    watch.round()
    watch.round()
    assert not fakes.calls.read_text() and len(fakes.said) == 1 and "does not have a leader" in fakes.said[0]


def test_a_node_comes_back_with_fakes_once_it_has_a_client(fakes: Fakes) -> None:
    fakes.lists(node("a"), node("c", database=False, mark=MINE))
    watch = fakes.watch()
    for _round in range(3 * _node_watch.ROUNDS_BETWEEN_LOOKS):
        watch.round()
    assert len(fakes.said) == 1
    assert not fakes.updates and "has not mounted CephFS anew" in fakes.said[0]
    fakes.sessions.write_text(json.dumps([dict(SESSIONS[1], client_metadata={"hostname": "c"})]))
    for _round in range(_node_watch.ROUNDS_BETWEEN_LOOKS):
        watch.round()
    ((path, spec),) = fakes.updates
    assert path == "/nodes/c-id/update?version=7" and spec["Labels"] == {"role": "database"}
    assert not fakes.evicted()


def test_settings_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolsError, match="cannot be read"):
        read(str(tmp_path / "none"))
    (tmp_path / "some").write_text('{"label": {}}')
    with pytest.raises(PoolsError, match="does not say cluster_fsid, dry_run"):
        read(str(tmp_path / "some"))
    assert _node_watch.main(str(tmp_path / "some")) == 78

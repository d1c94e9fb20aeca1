# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node dies, is cut off, sleeps; a manager dies; all nodes are restarted at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Dict, Iterator

import pytest
from case import Case
from harness import SAFE, Fleet, wait_until
from swarm_fixture import run


def busiest(fleet: Fleet) -> str:
    """The node with the most servers of tenants on it."""
    where = [node for server, node in fleet.where().items() if server != "inventory-db" and node != SAFE]
    return max(sorted(set(where)), key=where.count)


def managers(fleet: Fleet) -> Dict[str, str]:
    """What the first manager that answers says of each: Leader, Reachable, Unreachable."""
    for node in fleet.bed.nodes:
        try:
            listed = fleet.bed.on(node, "docker", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}", limit=20).split("\n")
        except AssertionError:
            continue
        return {line.split()[0]: line.split()[1] for line in listed if len(line.split()) > 1}
    return {}


def leader(fleet: Fleet) -> str:
    return next((node for node, state in managers(fleet).items() if state == "Leader"), "")


def let_lead(fleet: Fleet, node: str) -> None:
    """A leader that is demoted is succeeded by one of the others."""
    for _try in range(6):
        leads = leader(fleet)
        if leads == node:
            return
        fleet.bed.on(node, "docker", "node", "demote", leads)
        wait_until("another leads", 60, lambda leads=leads: leader(fleet) not in ("", leads))
        fleet.bed.on(node, "docker", "node", "promote", leads)
        wait_until("there are three managers", 60, lambda: len(managers(fleet)) == 3)
    assert leader(fleet) == node


@pytest.fixture(autouse=True)
def the_safe_node_leads(fleet: Fleet) -> None:
    """So that each case is about what it says."""
    let_lead(fleet, SAFE)


def test_a_node_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    victim = busiest(fleet)
    with Case(fleet, "a node is killed", tmp_path) as case:
        case.prepare_runs()
        case.start_runs()
        case.fault("kill", victim)
        case.served_again("served again", case.affected(victim))
        fleet.bed.fault("start", victim)
        case.mended()
        case.finish_runs()
        case.verify()
    case.record({"served again": 45})


def test_a_node_is_cut_off_and_comes_back(fleet: Fleet, tmp_path: Path) -> None:
    victim = busiest(fleet)
    with Case(fleet, "a node is cut off, and the cut heals", tmp_path, beside=victim) as case:
        case.prepare_runs()
        case.start_runs()
        case.fault("cut", victim, "cluster")
        there = case.affected(victim)
        # Longer than a storage session lasts that nobody keeps, and than it takes Swarm to start a second server.
        wait_until("a second server waits", 90, lambda: case.waits_elsewhere(victim))
        time.sleep(max(0.0, case.broken_at + 60 - time.time()))
        # Those who are cut off with their server go on; it is the one that has the lock.
        cut_off = time.time() - 10
        for writer in case.inside:
            if case.where[writer.login["server"]] == victim:
                assert writer.served_since(cut_off), writer.name
        for writer in there:
            assert not writer.served_since(cut_off), writer.name
        healed = time.time()
        fleet.bed.fault("heal", victim, "cluster")
        # By the one that was cut off, until Swarm ends one of the two.
        again = case.served_again("served again after the cut has healed", there, counted_from=healed)
        case.mended()
        case.seconds["away once more, while Swarm ends one of the two"] = max(writer.away(healed + again + 0.1)[1] for writer in there)
        case.finish_runs()
        case.verify()
    case.record()


def is_down(fleet: Fleet, node: str) -> bool:
    return fleet.bed.manager("docker", "node", "inspect", node, "--format", "{{.Status.State}}").strip() == "down"


def test_a_node_is_cut_off_and_fenced_by_hand(fleet: Fleet, tmp_path: Path) -> None:
    victim = busiest(fleet)
    with Case(fleet, "a node is cut off and fenced by hand", tmp_path, beside=victim) as case:
        case.fault("cut", victim, "cluster")
        there = case.affected(victim)
        wait_until("the Swarm sees that it is gone", 60, lambda: is_down(fleet, victim))
        wait_until("second servers wait", 90, lambda: case.waits_elsewhere(victim))
        fenced = time.time()
        fleet.play("fence", node=victim)
        case.seconds["fence.yml, from its start to its end"] = time.time() - fenced
        case.served_again("served again after fence.yml began", there, counted_from=fenced)
        time.sleep(10)
        fleet.bed.fault("heal", victim, "cluster")
        # As the runbook has it: mounted anew, then prepared.
        fleet.bed.fault("mount", victim)
        case.nodes_are_ready()
        fleet.play("prepare")
        case.mended()
        case.verify()
    case.record({"served again after fence.yml began": 10})


@pytest.fixture
def watched(fleet: Fleet) -> Iterator[None]:
    """The watcher runs on each manager; there is no systemd in the bed's nodes that would start it."""
    fleet.play("watch_nodes", ansible_become=False, node_watch_start=False)
    for node in fleet.bed.nodes:
        watch(fleet, node)
    yield
    for node in fleet.bed.nodes:
        fleet.bed.on(node, "sh", "-c", "pkill -f [_]node_watch || true")


def watch(fleet: Fleet, node: str) -> None:
    program = "exec python3 -m ansible_collections.saasodoo.postgres_pools.plugins.module_utils._node_watch /etc/postgres-pools-node-watch.json"
    environment = ["--env", "PYTHONPATH=/usr/local/lib/postgres-pools-node-watch"]
    run([*fleet.bed.outer, "exec", "--detach", *environment, node, "sh", "-c", program + " >>/var/log/node-watch.log 2>&1"])


def test_a_node_is_killed_and_fenced_by_itself(fleet: Fleet, tmp_path: Path, watched: None) -> None:
    victim = busiest(fleet)
    with Case(fleet, "a node is killed, and fenced by itself", tmp_path) as case:
        case.fault("kill", victim)
        case.served_again("served again", case.affected(victim))
        fleet.bed.fault("start", victim)
        watch(fleet, victim)
        case.mended()
        case.verify()
    case.record({"served again": 25})


def test_a_node_is_cut_off_and_fenced_by_itself(fleet: Fleet, tmp_path: Path, watched: None) -> None:
    victim = busiest(fleet)
    with Case(fleet, "a node is cut off, and fenced by itself", tmp_path, beside=victim) as case:
        case.fault("cut", victim, "cluster")
        case.served_again("served again", case.affected(victim))
        time.sleep(10)
        fleet.bed.fault("heal", victim, "cluster")
        fleet.bed.fault("mount", victim)
        case.mended()
        case.verify()
    case.record({"served again": 40})


def test_a_node_sleeps_and_wakes_up(fleet: Fleet, tmp_path: Path) -> None:
    victim = busiest(fleet)
    with Case(fleet, "a node stands still, and goes on", tmp_path, beside=victim) as case:
        case.fault("pause", victim)
        case.served_again("served again", case.affected(victim))
        time.sleep(5)
        fleet.bed.fault("unpause", victim)
        # What it was in the midst of goes on where it stood, for as long as it takes to notice.
        time.sleep(10)
        fleet.bed.fault("mount", victim)
        case.mended()
        case.verify()
    case.record({"served again": 45})


def test_a_manager_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    """The one that leads, and is storage host and client host too. Tenants are not to notice."""
    with Case(fleet, "the leading manager is killed", tmp_path, writers_on="sw2") as case:
        case.prepare_runs()
        case.start_runs(postgres_pools_manager="sw2", postgres_pools_storage_host="sw2", postgres_pools_client="client-sw2")
        case.fault("kill", SAFE)
        case.wait_for_runs()
        case.untouched("the longest that a tenant waited", 10)
        fleet.bed.fault("start", SAFE)
        case.mended()
        case.finish_runs()
        case.verify()
    case.record({"the longest that a tenant waited": 10})


def test_a_node_with_servers_that_leads_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    victim = busiest(fleet)
    let_lead(fleet, victim)
    with Case(fleet, "a node is killed that is also the leading manager", tmp_path) as case:
        case.fault("kill", victim)
        case.served_again("served again", case.affected(victim))
        fleet.bed.fault("start", victim)
        case.mended()
        case.verify()
    case.record()


def test_all_nodes_restart_at_once(fleet: Fleet, tmp_path: Path) -> None:
    with Case(fleet, "all nodes are restarted at once", tmp_path) as case:
        case.fault("restart")
        for writer in case.writers:
            writer.stop()
            writer.start()
        case.served_again("served again", case.writers)
        case.mended()
        case.verify()
    case.record()

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom fence.yml, by the role node_fence, would evict and whom it refuses, and the watcher as watch_nodes.yml has put it on a manager; at last a node that
is lost in earnest. All other ways to lose one are those of the scenario faults.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from typing import Any

import pytest
from swarm_fixture import EPHEMERAL, FOLDER, ROOT, Bed


def fence(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(FOLDER / "inventory"), "saasodoo.postgres_pools.fence", *arguments]
    return subprocess.run(
        [*command, "-e", json.dumps(variables)],
        cwd=str(EPHEMERAL),
        env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(EPHEMERAL / "built" / "collections"), ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "No node was named"),
        ({"node": "sw3; reboot"}, "is no host name"),
        ({"node": "n" * 254}, "is no host name"),
        ({"node": "nobody"}, "nobody is no node of the Swarm"),
        ({"node": "sw3"}, "sw3 is alive for the Swarm"),
        ({"node": "sw3", "force": "false"}, "sw3 is alive for the Swarm"),
    ],
)
def test_whom_it_refuses(bed: Bed, variables: Any, message: str) -> None:
    before = bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}")
    done = fence(**variables)
    assert done.returncode != 0 and message in " ".join(done.stdout.split()), done.stdout
    assert bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}") == before


def test_whom_it_would_evict(bed: Bed) -> None:
    before = bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}")
    # As it is typed, which gives a string.
    done = fence("--check", "-e", "force=true", node="sw3")
    assert done.returncode == 0, done.stdout
    assert "mount_point: {0}".format(bed.facts["swarm_bed_cephfs_mount"]) in done.stdout and "hostname: sw3" in done.stdout
    assert bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}") == before
    # It has its storage still.
    bed.on("sw3", "ls", bed.facts["swarm_bed_cephfs_mount"])


def test_the_watcher_runs_where_it_was_put(bed: Bed) -> None:
    program = "PYTHONPATH=/usr/local/lib/postgres-pools-node-watch timeout 4 python3 -u -m {0} /etc/postgres-pools-node-watch.json; test $? = 124 -o $? = 0"
    said = bed.manager("sh", "-c", program.format("ansible_collections.saasodoo.postgres_pools.plugins.module_utils._node_watch"))
    # It has looked several times, and has nothing to say of nodes that are well.
    assert said == "Nodes with the label role=database are watched; at most 1 may be fenced at once.\n"


def test_a_node_that_is_killed_is_fenced_and_what_was_committed_is_served_by_another_one(bed: Bed) -> None:
    """The last one: the node is not started again."""
    pool = bed.result("shared")
    victim, _container = bed.container(pool["server"])
    bed.query_from("sw1", pool, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    bed.fault("kill", victim)
    survivors = [node for node in bed.nodes if node != victim]
    killed = time.monotonic()
    while bed.manager("docker", "node", "inspect", victim, "--format", "{{.Status.State}}").strip() != "down":
        assert time.monotonic() < killed + 60, "the Swarm does not see that {0} is gone".format(victim)
        time.sleep(1)
    fenced = time.monotonic()
    done = fence(node=victim)
    assert done.returncode == 0, done.stdout
    answer = ""
    # The limit is one of what hangs; what it takes is measured by the scenario faults.
    while answer != "1000" and time.monotonic() < fenced + 90:
        with suppress(AssertionError):
            answer = bed.query_from("sw1", pool, "SELECT count(*) FROM kept")
    assert answer == "1000"
    print("served again {0:.1f} s after fence.yml began".format(time.monotonic() - fenced))
    assert [node for node in survivors if pool["server"] in bed.on(node, "docker", "ps", "--format", "{{.Names}}")]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom fence.yml, by the role node_fence, would evict and whom it refuses, and the watcher as watch_nodes.yml has put it on a manager.

That both do it is for the scenario faults, which loses nodes.
"""

from __future__ import annotations

import json
import os
import subprocess
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
    ],
)
def test_whom_it_refuses(bed: Bed, variables: Any, message: str) -> None:
    before = bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}")
    done = fence(**variables)
    assert done.returncode != 0 and message in " ".join(done.stdout.split()), done.stdout
    assert bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}") == before


def test_whom_it_would_evict(bed: Bed) -> None:
    before = bed.manager("docker", "node", "inspect", "sw3", "--format", "{{json .Spec}}")
    done = fence("--check", node="sw3", force=True)
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

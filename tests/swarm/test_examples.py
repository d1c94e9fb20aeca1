# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation's examples of the modules that need a Swarm or a CephFS; tests/integration runs all the others.

That of cephfs_subvolume, which needs the program ceph beside a mount, runs in test_prepare.py by way of the role, and so does that of cephfs_client in the
scenario faults.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml
from swarm_fixture import FOLDER, ROOT, Bed

# The tasks as they stand but for names that the bed must have: its cluster, a directory and a service of its own.
OURS = {"0f5d1a6e-9a3c-4d4e-8c67-5a2d3a3c8b1f": '"{{ swarm_bed_cluster_fsid }}"', "postgres-pool-1": "inventory-db"}


@pytest.fixture(scope="module")
def shown() -> Dict[str, Any]:
    command = [str(ROOT / ".venv" / "bin" / "ansible-doc"), "--metadata-dump", "--no-fail-on-errors", "saasodoo.postgres_pools"]
    done = subprocess.run(command, cwd=str(ROOT), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout)["all"])


@pytest.mark.parametrize(("name", "host"), [("swarm_service_wait", "client"), ("swarm_audit", "swarm_managers"), ("cephfs_directory", "storage_hosts")])
def test_the_examples_run(bed: Bed, shown: Dict[str, Any], tmp_path: Path, name: str, host: str) -> None:
    text = shown["module"]["saasodoo.postgres_pools." + name]["examples"]
    for example, ours in OURS.items():
        # A directory of the examples' own: theirs is archived at the end.
        text = text.replace(example, ours if name == "swarm_service_wait" or "fsid" in ours else "pool-of-the-examples")
    tasks: List[Any] = yaml.safe_load(text)
    playbook = tmp_path / "examples.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": host, "gather_facts": False, "tasks": tasks}], sort_keys=False))
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(FOLDER / "inventory"), str(playbook)]
    done = subprocess.run(command, cwd=str(ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "ok={0}".format(len(tasks)) in done.stdout

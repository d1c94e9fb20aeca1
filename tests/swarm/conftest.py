# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from swarm_fixture import FOLDER, Bed


@pytest.fixture(scope="session")
def bed() -> Bed:
    """A bed that is up, with the inventory database on it."""
    if not (FOLDER / "inventory" / "hosts.yml").exists():
        pytest.skip("There is no Swarm test bed: run `python3 tests/swarm_bed up` as root.")
    bed = Bed()
    for playbook in ("prepare", "inventory_db"):
        done = bed.play(playbook)
        assert done.returncode == 0, done.stdout[-3000:]
    return bed

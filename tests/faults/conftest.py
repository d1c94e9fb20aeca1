# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "swarm")]
import record
from harness import Fleet
from swarm_fixture import FOLDER, Bed


@pytest.fixture(scope="session")
def bed() -> Bed:
    """A bed of three managers, as molecule/faults/converge.yml left it."""
    if not (FOLDER / "inventory" / "hosts.yml").exists():
        pytest.skip("There is no Swarm test bed: run `molecule converge -s faults` as root.")
    return Bed()


@pytest.fixture(scope="session")
def fleet(bed: Bed) -> Fleet:
    fleet = Fleet(bed)
    fleet.tidy()
    return fleet


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus == 0 and record.complete():
        record.write_page()
        print("\nwritten: {0}".format(record.PAGE))

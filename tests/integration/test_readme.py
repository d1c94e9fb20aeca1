# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's first command, as a stranger runs it, in a state of its own."""

from __future__ import annotations

import re
import subprocess
from typing import Iterator

import pytest
from environment import ROOT, Environment, environment


@pytest.fixture(name="scratch", scope="module")
def fixture_scratch() -> Iterator[Environment]:
    with environment() as scratch:
        yield scratch


def make(scratch: Environment, target: str) -> str:
    done = subprocess.run(
        ["make", target], cwd=str(ROOT), env=scratch.base, check=False, capture_output=True, stdin=subprocess.DEVNULL, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def visits(output: str) -> int:
    found = re.search(r"visits +(\d+) row", output)
    assert found, output
    return int(found.group(1))


def test_the_demo_gives_a_tenant_its_database_and_the_same_one_again(scratch: Environment) -> None:
    first = make(scratch, "demo")
    assert visits(first) == 1
    assert "the password is in" in first
    assert [row["status"] for row in scratch.rows("SELECT status FROM db_allocations")] == ["active"]
    make(scratch, "down")
    assert visits(make(scratch, "demo")) == 2
    make(scratch, "clean")
    assert not scratch.state.exists()

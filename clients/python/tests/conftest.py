# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection's own tests keep what these need: the scratch environment, and the path by which the collection is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator

import pytest
from asking import Time, asking
from awx_server import Awx, serving

from postgres_pools_client import AwxPools

ROOT = Path(__file__).resolve().parents[3]
# At the end: a file here and one there may have the same name.
sys.path += [str(ROOT / ".build"), str(ROOT / "tests" / "integration")]


@pytest.fixture
def awx() -> Iterator[Awx]:
    with serving() as server:
        yield server


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def pools(awx: Awx, time_: Time) -> Iterator[AwxPools]:
    with asking(awx, time_) as made:
        assert isinstance(made, AwxPools)
        yield made

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What converge.yml left: the state directory, the result files, and the servers that the inventory database names."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import psycopg2.extras
import pytest

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(scope="session")
def state() -> Path:
    return Path(os.environ["POSTGRES_POOLS_STATE"]).resolve()


@pytest.fixture(scope="session")
def embedded(state: Path) -> Dict[str, Any]:
    return dict(json.loads((state / "embedded.json").read_text()))


@pytest.fixture(scope="session")
def inventory(state: Path, embedded: Dict[str, Any]) -> Iterator[Any]:
    """A cursor in the inventory database, logged in as the modules log in."""
    password = (state / "secrets" / "database_service").read_text().strip()
    connection = psycopg2.connect(
        host="127.0.0.1", port=embedded["port_base"], dbname="postgres_pools", user="database_service", password=password
    )
    connection.autocommit = True
    with contextlib.closing(connection):
        yield connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor)


@pytest.fixture(scope="session")
def servers(inventory: Any) -> List[Dict[str, Any]]:
    inventory.execute("SELECT * FROM db_servers ORDER BY created_at")
    return [dict(row) for row in inventory.fetchall()]


@pytest.fixture(params=["shared", "dedicated"])
def result_file(request: pytest.FixtureRequest) -> Path:
    return EPHEMERAL / "{0}.json".format(request.param)


@pytest.fixture
def result(result_file: Path) -> Dict[str, Any]:
    return dict(json.loads(result_file.read_text()))

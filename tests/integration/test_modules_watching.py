# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules behind audit.yml, cleanup.yml and report.yml, called as tasks: on a fleet as it should be, and on one thing that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from environment import Environment, environment, instances
from role_fixture import module, run

TENANT = instances(1)[0]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("allocate", TENANT).succeeded()
        yield made


def tell(scratch: Environment, name: str, value: str, **options: Any) -> Any:
    told = run(scratch, [module(name, "told", **options)], tells={"value": "{{ " + value + " }}"}).succeeded().stats
    return told["value"]


def pool_of(scratch: Environment) -> Dict[str, Any]:
    return {key: scratch.servers()[0][key] for key in ("name", "status", "storage_path")}


def test_fleet_info_tells_the_pool(scratch: Environment) -> None:
    servers = tell(scratch, "fleet_info", "told.fleet.servers")
    assert [server["name"] for server in servers] == [pool_of(scratch)["name"]]


def test_server_audit_finds_a_limit_that_was_lifted(scratch: Environment) -> None:
    assert tell(scratch, "server_audit", "told.findings") == []
    server, role = scratch.servers()[0], scratch.rows("SELECT role_name FROM db_allocations")[0]["role_name"]
    with scratch.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute('ALTER ROLE "{0}" CONNECTION LIMIT -1'.format(role))
    found = tell(scratch, "server_audit", "told.findings")
    assert [(one["kind"], one["repaired"]) for one in found] == [("connection_limit", False)]
    tell(scratch, "server_audit", "told.findings", repair=True)
    assert tell(scratch, "server_audit", "told.findings") == []


def test_isolation_probe_finds_nothing_behind_the_wall(scratch: Environment) -> None:
    assert tell(scratch, "isolation_probe", "[told.status, told.findings, told.probed | length]") == ["clean", [], 1]


def test_server_storage_sees_the_servers_directory(scratch: Environment) -> None:
    path = Path(pool_of(scratch)["storage_path"])
    seen = tell(scratch, "server_storage", "told.directories", roots=[str(path.parent)])
    assert [one["path"] for one in seen if not one["archived"]] == [str(path)]


def test_storage_audit_finds_a_directory_without_a_row(scratch: Environment) -> None:
    pool = pool_of(scratch)
    base = Path(pool["storage_path"]).parent
    assert tell(scratch, "storage_audit", "told.findings", servers=[pool], bases=[str(base)]) == []
    (base / "pool-stray").mkdir()
    found = tell(scratch, "storage_audit", "told.findings", servers=[pool], bases=[str(base)])
    assert [(one["kind"], one["object"]) for one in found] == [("directory_without_row", str(base / "pool-stray"))]
    (base / "pool-stray").rmdir()

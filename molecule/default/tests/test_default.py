# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine as it is after converge.yml: processes, ports, files, databases and what the inventory database says of them."""

from __future__ import annotations

import contextlib
import getpass
from pathlib import Path
from typing import Any, Dict, List

import psycopg2
import pytest

FIELDS = {"status", "instance_id", "server", "host", "port", "database", "user", "password", "sslmode", "dsn"}
PLACEMENTS = {"shared": ("standard", "shared"), "dedicated": ("premium", "dedicated")}


def data_directories(state: Path, servers: List[Dict[str, Any]]) -> Dict[int, Path]:
    """The data directory of each server, the inventory database's own among them, by what runs on it."""
    found = [state / "inventory" / "data", *(Path(server["storage_path"]) / "data" for server in servers)]
    return {int((path / "postmaster.pid").read_text().splitlines()[0]): path for path in found}


def runner(embedded: Dict[str, Any]) -> str:
    return embedded["run_as"] or getpass.getuser()


def ask(dsn: str, statement: str) -> List[Any]:
    with contextlib.closing(psycopg2.connect(dsn, connect_timeout=10)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def test_there_are_a_pool_and_a_dedicated_server(servers: List[Dict[str, Any]]) -> None:
    assert sorted(server["server_type"] for server in servers) == ["dedicated", "shared"]
    assert {server["health_status"] for server in servers} == {"healthy"}
    assert {server["server_type"]: server["status"] for server in servers} == {"shared": "active", "dedicated": "full"}
    assert {server["current_instances"] for server in servers} == {1}


def test_each_server_runs_as_an_unprivileged_user(host: Any, state: Path, embedded: Dict[str, Any], servers: List[Dict[str, Any]]) -> None:
    assert runner(embedded) != "root"
    for pid, data in data_directories(state, servers).items():
        process = host.process.get(pid=pid)
        assert (process.user, process.comm) == (runner(embedded), "postgres"), data
        assert "-D {0}".format(data) in process.args


def test_each_server_listens_on_its_port_of_this_machine_only(host: Any, embedded: Dict[str, Any], servers: List[Dict[str, Any]]) -> None:
    for port in (embedded["port_base"], *(server["port"] for server in servers)):
        assert host.socket("tcp://127.0.0.1:{0}".format(port)).is_listening
        assert not host.socket("tcp://0.0.0.0:{0}".format(port)).is_listening
    assert not host.socket("tcp://127.0.0.1:{0}".format(embedded["port_base"] + 99)).is_listening


def test_data_are_for_the_server_alone(host: Any, state: Path, embedded: Dict[str, Any], servers: List[Dict[str, Any]]) -> None:
    for data in data_directories(state, servers).values():
        assert (host.file(str(data)).user, host.file(str(data)).mode) == (runner(embedded), 0o700)
        log = host.file(str(data.parent / "log"))
        assert (log.user, log.mode) == (runner(embedded), 0o700)


@pytest.mark.parametrize("name", ["database_service", "inventory_admin", "keys"])
def test_secrets_are_for_the_caller_alone(host: Any, state: Path, name: str) -> None:
    secret = host.file(str(state / "secrets" / name))
    assert (secret.user, secret.mode) == (getpass.getuser(), 0o600)
    assert secret.size > 30


def test_the_result_file_is_for_the_caller_alone(host: Any, result_file: Path, result: Dict[str, Any]) -> None:
    told = host.file(str(result_file))
    assert (told.user, told.mode) == (getpass.getuser(), 0o600)
    assert FIELDS - {"sslmode"} <= set(result) <= FIELDS
    assert result["status"] == "allocated"


def test_the_tenant_connects_and_owns_the_database(result: Dict[str, Any]) -> None:
    answer = ask(
        result["dsn"],
        "SELECT current_user, current_database(), pg_get_userbyid(datdba), datcollate, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolconnlimit"
        " FROM pg_database, pg_roles r WHERE datname = current_database() AND r.rolname = current_user",
    )
    limit = {"standard": 6, "premium": 50}[plan_of(result)]
    assert answer == [(result["user"], result["database"], result["user"], "C", False, False, False, limit)]


def plan_of(result: Dict[str, Any]) -> str:
    return "standard" if result["server"].startswith("postgres-pool-") else "premium"


def test_the_database_is_as_odoo_wants_it(result: Dict[str, Any]) -> None:
    assert {name for (name,) in ask(result["dsn"], "SELECT extname FROM pg_extension")} == {"plpgsql", "pg_trgm", "unaccent"}
    assert ask(result["dsn"], "SELECT provolatile FROM pg_proc WHERE oid = 'unaccent(text)'::regprocedure") == [("i",)]
    assert ask(result["dsn"], "SELECT unaccent('é')") == [("e",)]


@pytest.mark.parametrize("elsewhere", ["postgres", "template1"])
def test_the_tenant_connects_nowhere_else(result: Dict[str, Any], elsewhere: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba|permission denied"):
        ask(result["dsn"].replace("/" + result["database"], "/" + elsewhere), "SELECT 1")


def test_a_wrong_password_is_refused(result: Dict[str, Any]) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        ask(result["dsn"].replace(result["password"], "0" * 32), "SELECT 1")


def test_the_inventory_database_says_the_same(inventory: Any, result_file: Path, result: Dict[str, Any]) -> None:
    inventory.execute(
        "SELECT a.status, a.plan_tier, s.server_type, s.name AS server, s.host, s.port, a.database_name AS database, a.role_name AS user,"
        " a.password_encrypted FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = %(instance_id)s",
        result,
    )
    (row,) = inventory.fetchall()
    assert row["status"] == "active"
    assert (row["plan_tier"], row["server_type"]) == PLACEMENTS[result_file.stem]
    assert {name: row[name] for name in ("server", "host", "port", "database", "user")} == {
        name: result[name] for name in ("server", "host", "port", "database", "user")
    }
    assert row["password_encrypted"].startswith("gAAAA")
    assert result["password"] not in row["password_encrypted"]


def test_each_tenant_was_allocated_once(inventory: Any) -> None:
    inventory.execute("SELECT count(*) AS count FROM db_allocations")
    assert inventory.fetchone()["count"] == 2

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holes are opened one after the other in the wall of a real server: the probe finds each, and leaves nothing behind where it is let through."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _hba, _isolation
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit_registry import Expected
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit_servers import Orders
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit_tenants import Tenant
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant import wanted
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_report import answer, arrange
from environment import contents, difference
from postgres_fixture import RunningServer, running_server

PASSWORDS = {name: secrets.token_hex(16) for name in ("alpha", "beta")}
BIN_DIRS = [one for one in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if one] or [""]
ORDERS = Orders(settings={}, timeout=60, connect_timeout=5)


class Probed:
    """A server with two tenants, and the probe as the first of them."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.login = {"login_host": server.host, "login_port": server.port, "login_user": server.user, "login_password": server.password}
        databases = [{"name": name, "password": password, "connection_limit": 4} for name, password in PASSWORDS.items()]
        options = dict(self.login, databases=databases, state="present", max_parallel=2, require_wall=True, connect_timeout=10)
        made = answer(*arrange(options, False))
        assert not made["failed"], made["msg"]

    def tenants(self, **more: Any) -> Tuple[Tenant, ...]:
        return tuple(Tenant(wanted(dict({"name": name, "password": password}, **more), "present")) for name, password in PASSWORDS.items())

    def probe(self, everybody: bool = False, tenants: Sequence[Tenant] = ()) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
        row = {"name": "pool", "status": "active", "server_type": "shared", "admin_user": self.server.user}
        expected = Expected(row, self.login, tuple(tenants) or self.tenants(), ())
        return _isolation.probe([expected], ORDERS, everybody, 0)

    def allowed(self) -> Set[str]:
        findings, _probed = self.probe()
        assert all(one["object"].startswith("alpha_user: ") for one in findings), findings
        assert {one["kind"] for one in findings} <= {"isolation"}, findings
        return {one["object"].partition(": ")[2] for one in findings}

    def sql(self, statement: str, dbname: str = "postgres") -> None:
        with contextlib.closing(self.server.connect(dbname)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def state(self) -> Dict[str, Any]:
        """All that an attempt could leave: databases, roles, memberships, settings, extensions, slots, tablespaces, large objects and files."""
        found: Dict[str, Any] = {}
        with contextlib.closing(self.server.connect()) as connection:
            found.update(contents(connection))
        for name in ("postgres", *PASSWORDS):
            with contextlib.closing(self.server.connect(name)) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT (SELECT array_agg(extname ORDER BY 1) FROM pg_extension), (SELECT array_agg(evtname) FROM pg_event_trigger),"
                    " (SELECT count(*) FROM pg_largeobject_metadata), (SELECT array_agg(spcname ORDER BY 1) FROM pg_tablespace),"
                    " (SELECT count(*) FROM pg_replication_slots), (SELECT array_agg(oid ORDER BY oid) FROM pg_class WHERE oid >= 16384)"
                )
                found[name] = [list(row) if row else None for row in cursor.fetchall()]
        data = Path(self.server.data_directory)
        found["settings"] = (data / "postgresql.auto.conf").read_text()
        found["files"] = sorted(path.name for path in data.iterdir())
        return found


@pytest.fixture(scope="module", params=BIN_DIRS, ids=lambda one: one or "found")
def probed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    with running_server(tmp_path_factory.mktemp("probe"), request.param) as server:
        yield Probed(server)


def test_behind_the_wall_every_attempt_is_refused_for_lack_of_leave(probed: Probed) -> None:
    before = probed.state()
    findings, told = probed.probe(everybody=True)
    assert findings == []
    assert [one["user"] for one in told] == ["alpha_user", "beta_user"]
    assert all(one["attempts"] >= 60 for one in told), told
    assert not difference(before, probed.state())


class Hole(NamedTuple):
    name: str
    opened: Sequence[str]
    # What has to be found, at the least.
    allowed: Sequence[str]
    closed: Sequence[str]
    inside: str = "postgres"


HOLES = [
    Hole(
        "superuser", ["ALTER ROLE alpha_user SUPERUSER"],
        [
            "read a file of the server", "read a binary file of the server", "look at a file of the server", "list the server's directory",
            "list the write-ahead log", "list the server's log", "read a large object from a file", "write a large object to a file", "copy from a file",
            "copy to a file", "run a program", "load a library", "read password verifiers", "read pg_hba.conf", "make a role", "make a database",
            "make itself superuser", "make itself a maker of roles", "let itself replicate", "bypass row level security", "lift its connection limit",
            "lift its temp_file_limit", "lift its temp_file_limit for good", "lift its database's temp_file_limit", "take the mark off its role",
            "change the server's settings", "have the server read its settings", "make a tablespace", "make an event trigger", "switch triggers off",
            "make a replication slot", "make a way to other servers by dblink", "make a way to other servers by postgres_fdw",
            "make a way to files by file_fdw", "read another session's statement", "cancel another session's statement", "end another session",
            "become postgres", "become beta_user", "make itself a member of beta", "change database beta", "connect for logical replication",
        ],
        ["ALTER ROLE alpha_user NOSUPERUSER"],
    ),
    Hole("a member of the file readers", ["GRANT pg_read_server_files TO alpha_user"],
         ["copy from a file", "become pg_read_server_files"], ["REVOKE pg_read_server_files FROM alpha_user"]),
    Hole("a member of the file writers", ["GRANT pg_write_server_files TO alpha_user"], ["copy to a file"], ["REVOKE pg_write_server_files FROM alpha_user"]),
    Hole("a member of those who run programs", ["GRANT pg_execute_server_program TO alpha_user"], ["run a program"],
         ["REVOKE pg_execute_server_program FROM alpha_user"]),
    Hole("a member of those who watch", ["GRANT pg_monitor TO alpha_user"],
         ["read another session's statement", "list the write-ahead log", "become pg_monitor"], ["REVOKE pg_monitor FROM alpha_user"]),
    Hole("a member of those who signal", ["GRANT pg_signal_backend TO alpha_user"],
         ["cancel another session's statement", "end another session"], ["REVOKE pg_signal_backend FROM alpha_user"]),
    Hole("a member of another tenant", ["GRANT beta_user TO alpha_user"],
         ["become beta_user", "become beta", "connect to database beta", "end another session", "change database beta"], ["REVOKE beta_user FROM alpha_user"]),
    Hole("let through another's gate", ["GRANT beta TO alpha_user", "GRANT CONNECT ON DATABASE beta TO alpha_user"],
         ["become beta", "connect to database beta"], ["REVOKE beta FROM alpha_user", "REVOKE CONNECT ON DATABASE beta FROM alpha_user"]),
    Hole("a gate of another's that it may hand on", ["GRANT beta TO alpha_user WITH ADMIN OPTION"], ["make itself a member of beta"],
         ["REVOKE beta FROM alpha_user"]),
    Hole("a function for everybody", ["GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC"], ["read a file of the server"],
         ["REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM PUBLIC"], inside="alpha"),
    Hole("verifiers for everybody", ["GRANT SELECT ON pg_authid TO PUBLIC"], ["read password verifiers"],
         ["REVOKE SELECT ON pg_authid FROM PUBLIC"], inside="alpha"),
    Hole("replication", ["ALTER ROLE alpha_user REPLICATION"], ["connect for logical replication", "make a replication slot"],
         ["ALTER ROLE alpha_user NOREPLICATION"]),
    Hole("leave to make databases", ["ALTER ROLE alpha_user CREATEDB"], ["make a database"], ["ALTER ROLE alpha_user NOCREATEDB"]),
    Hole("leave to make roles", ["ALTER ROLE alpha_user CREATEROLE"], ["make a role"], ["ALTER ROLE alpha_user NOCREATEROLE"]),
    Hole("a parameter that it may set", ["GRANT SET ON PARAMETER temp_file_limit TO alpha_user"],
         ["lift its temp_file_limit", "lift its temp_file_limit for good", "lift its database's temp_file_limit"],
         ["REVOKE SET ON PARAMETER temp_file_limit FROM alpha_user"]),
    Hole("a parameter of the whole server's", ["GRANT ALTER SYSTEM ON PARAMETER work_mem TO alpha_user"], ["change the server's settings"],
         ["REVOKE ALTER SYSTEM ON PARAMETER work_mem FROM alpha_user"]),
    Hole("a way out that is there", ["CREATE EXTENSION dblink"], ["make a way to other servers by dblink"], ["DROP EXTENSION dblink"], inside="alpha"),
    Hole("a seat on the bus", ["GRANT tenant_bus TO alpha_user", "GRANT CONNECT ON DATABASE postgres TO tenant_bus"],
         ["become tenant_bus", "connect to database postgres"],
         ["REVOKE tenant_bus FROM alpha_user", "REVOKE CONNECT ON DATABASE postgres FROM tenant_bus"]),
]  # fmt: skip


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.name)
def test_a_hole_is_found_and_nothing_is_left_behind(probed: Probed, hole: Hole) -> None:
    for statement in hole.opened:
        probed.sql(statement, hole.inside)
    try:
        before = probed.state()
        allowed = probed.allowed()
        assert set(hole.allowed) <= allowed, set(hole.allowed) - allowed
        assert not difference(before, probed.state())
    finally:
        for statement in hole.closed:
            probed.sql(statement, hole.inside)
    assert probed.allowed() == set()


DOORS = ("beta", "postgres", "template1")
HBA_HOLES = {
    "everybody everywhere": ("host all all all scram-sha-256", {"connect to database beta", "connect to database postgres", "connect to database template1"}),
    "replication for everybody": ("host replication all all scram-sha-256", {"connect for physical replication"}),
}


@pytest.mark.parametrize("name", HBA_HOLES)
def test_a_hole_in_pg_hba_is_found(probed: Probed, name: str) -> None:
    line, wanted_at_least = HBA_HOLES[name]
    path = Path(probed.server.data_directory) / "pg_hba.conf"
    text = path.read_text()
    for name_of in DOORS:
        probed.sql("GRANT CONNECT ON DATABASE {0} TO PUBLIC".format(name_of))
    probed.sql("ALTER ROLE alpha_user REPLICATION")
    # All these leaves are worth nothing behind the wall, but that of replication in its own database.
    assert probed.allowed() == {"connect for logical replication", "make a replication slot"}
    path.write_text(line + "\n" + text)
    reload(probed)
    try:
        assert wanted_at_least <= probed.allowed()
    finally:
        path.write_text(text)
        reload(probed)
        for name_of in DOORS:
            probed.sql("REVOKE CONNECT ON DATABASE {0} FROM PUBLIC".format(name_of))
        probed.sql("ALTER ROLE alpha_user NOREPLICATION")
    assert probed.allowed() == set()


def reload(probed: Probed) -> None:
    with contextlib.closing(probed.server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_conf_load_time()")
        before = cursor.fetchone()
        cursor.execute("SELECT pg_reload_conf()")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.closing(probed.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_conf_load_time()")
            if cursor.fetchone() != before:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not read its configuration")


def test_a_tenant_whose_plan_has_the_bus_is_not_told_for_it(probed: Probed) -> None:
    probed.sql("GRANT tenant_bus TO alpha_user")
    probed.sql("GRANT CONNECT ON DATABASE postgres TO tenant_bus")
    try:
        findings, _told = probed.probe(tenants=probed.tenants(bus=True))
        assert findings == []
    finally:
        probed.sql("REVOKE tenant_bus FROM alpha_user")
        probed.sql("REVOKE CONNECT ON DATABASE postgres FROM tenant_bus")


def test_a_tenant_that_cannot_log_in_proves_nothing(probed: Probed) -> None:
    wrong = tuple(Tenant(wanted({"name": name, "password": "wrong"}, "present")) for name in PASSWORDS)
    findings, told = probed.probe(tenants=wrong)
    assert [(one["kind"], one["object"]) for one in findings] == [("probe_inconclusive", "alpha_user")] and told == []
    assert "password" in findings[0]["found"] and "wrong" not in findings[0]["found"]


def test_a_tenant_at_its_limit_proves_nothing_and_is_no_alarm(probed: Probed) -> None:
    held = [probed.server.connect("alpha", "alpha_user", PASSWORDS["alpha"]) for _each in range(4)]
    try:
        findings, _told = probed.probe()
        assert {one["kind"] for one in findings} == {"probe_inconclusive"}
    finally:
        for connection in held:
            connection.close()


def test_a_tenants_own_functions_and_settings_do_not_deceive_the_probe(probed: Probed) -> None:
    """What an owner may put into its database: functions of the same names, and settings for its sessions."""
    owner = probed.server.connect("alpha", "alpha_user", PASSWORDS["alpha"])
    try:
        with owner.cursor() as cursor:
            cursor.execute("CREATE FUNCTION public.pg_read_file(text) RETURNS text LANGUAGE sql AS $$ SELECT 'nothing'::text $$")
            cursor.execute("ALTER ROLE alpha_user SET search_path = public, pg_catalog")
            cursor.execute("ALTER DATABASE alpha SET statement_timeout = 1")
        assert probed.allowed() == set()
        probed.sql("GRANT pg_read_server_files TO alpha_user")
        assert "copy from a file" in probed.allowed()
    finally:
        probed.sql("REVOKE pg_read_server_files FROM alpha_user")
        with owner.cursor() as cursor:
            cursor.execute("DROP FUNCTION public.pg_read_file(text)")
            cursor.execute("ALTER ROLE alpha_user RESET search_path")
            cursor.execute("ALTER DATABASE alpha RESET statement_timeout")
        owner.close()


def test_the_wall_is_what_the_attempts_break_on() -> None:
    """The attempts stand on these lines: if the wall is another one day, they are to be looked at."""
    assert _hba.lines()[-2:] == ["host samerole all all scram-sha-256", "host all all all reject"]

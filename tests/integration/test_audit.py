# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift of every kind is planted in a real fleet, one after the other: found by its kind and its name and nothing beside it, mended where that is safe."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Sequence, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _audit_registry,
    _audit_servers,
    _audit_storage,
    _scram,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit import KINDS
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from cryptography.fernet import Fernet
from environment import Environment, environment, instances
from registry_fixture import bin_dirs
from role_fixture import fact_of, inventory, role, run

Keys = FrozenSet[Tuple[str, str]]


class Fleet:
    """A pool with two tenants and a released database, another pool with one tenant, and a dedicated server."""

    def __init__(self, scratch: Environment) -> None:
        self.scratch = scratch
        rows = scratch.rows(
            "SELECT a.id::text, a.instance_id::text, a.status, a.database_name AS name, a.role_name AS owner, a.quarantine_name, s.name AS server,"
            " s.storage_path AS path FROM db_allocations a JOIN db_servers s ON s.id = a.server_id ORDER BY a.reserved_at, a.database_name"
        )
        self.servers = {row["name"]: row for row in scratch.servers()}
        self.parked = next(row for row in rows if row["status"] == "released")
        in_use = [row for row in rows if row["status"] == "active"]
        self.pool = self.parked["server"]
        self.first, self.second = (row for row in in_use if row["server"] == self.pool)
        self.alone = next(row for row in in_use if row["server"].startswith("postgres-dedicated"))
        self.descriptions = self._described()
        self.names = {
            "a": self.first["name"], "a_user": self.first["owner"], "b": self.second["name"], "b_user": self.second["owner"],
            "q": self.parked["quarantine_name"], "q_user": self.parked["quarantine_name"] + "_user", "pool": self.pool,
        }  # fmt: skip

    def _described(self) -> Dict[str, Dict[str, Any]]:
        tasks = []
        for row in json.loads(json.dumps(list(self.servers.values()), default=str)):
            tasks.append(role("server_deployment", server={**row, "cpu_limit": float(row["cpu_limit"])}, state="described"))
            tasks.append(fact_of("described", "{{ described | default([]) + [postgres_server_described] }}"))
        told = run(self.scratch, tasks, tells={"described": "{{ described }}"}).succeeded().stats
        return {one["name"]: one for one in told["described"]}

    def text(self, template: str) -> str:
        return template.format(**self.names)

    def sql(self, statement: str, dbname: str = "postgres", server: str = "") -> List[Tuple[Any, ...]]:
        with contextlib.closing(self.scratch.connect(self.servers[server or self.pool], dbname)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def audit(self, repair: bool = False, check_mode: bool = False) -> List[Dict[str, Any]]:
        """What the three modules of a process fleet find, over the same settings and files as the role gives them."""
        cipher = self.scratch.cipher()
        settings = {name: one["settings"] for name, one in self.descriptions.items()}
        orders = _audit_servers.Orders(settings, repair=repair, check_mode=check_mode, timeout=30, connect_timeout=5)
        with inventory(self.scratch) as opened:
            findings = _audit_servers.fleet(lambda: _audit_registry.expectations(opened, cipher, None), orders)
            findings += _audit_registry.registry_findings(opened, None, 900, 14)
            rows = opened.servers()
        base = Path(self.first["path"]).parent
        wanted = _audit_storage.Wanted(rows, [str(base), str(base.parent / "postgres_dedicated")], [])
        return findings + _audit_storage.directories(wanted, 20) + _audit_storage.processes(wanted, self.descriptions)

    def state(self) -> Dict[str, Any]:
        return {name: self.scratch.contents(row) for name, row in self.servers.items()}


def keys(findings: Sequence[Dict[str, Any]]) -> Keys:
    return frozenset((one["kind"], one["object"]) for one in findings)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with environment() as scratch:
        # The newest of those that are tested on; what they share is tested on all in test_tenant_database.py.
        if bin_dirs()[-1]:
            (scratch.state / "embedded.json").write_text(json.dumps(dict(scratch.facts, bin_dir=bin_dirs()[-1])))
        scratch.ready()
        few = {"DB_POOL_MAX_INSTANCES": "3"}
        pooled = instances(4)
        scratch.play("allocate", {"allocations": pooled}, more_env=few).succeeded()
        scratch.play("allocate", dict(instances(1)[0], plan_tier="premium")).succeeded()
        first = scratch.rows("SELECT instance_id::text AS id FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE s.max_instances = 3"
                             " AND s.current_instances = 3 LIMIT 1")[0]["id"]  # fmt: skip
        scratch.play("release", {"instance_id": first}).succeeded()
        made = Fleet(scratch)
        assert len(made.servers) == 3
        if bin_dirs()[-1]:
            assert {int(row["postgres_version"]) // 10000 for row in made.servers.values()} == {int(Path(bin_dirs()[-1]).parent.name)}
        yield made


# --- clean


def test_a_clean_fleet_has_no_findings(fleet: Fleet) -> None:
    assert fleet.audit() == []


def test_the_playbook_says_so_and_changes_nothing(fleet: Fleet) -> None:
    before, told = fleet.scratch.dump(), fleet.scratch.home / "audit.json"
    for flags in ((), ("--check",)):
        outcome = fleet.scratch.play("audit", {"repair": True, "audit_tenants": "all", "result_file": str(told)}, *flags).succeeded()
        assert (outcome.stats["status"], outcome.stats["findings"], outcome.stats["counts"]) == ("clean", [], {}), outcome.output
        assert outcome.stats["probed"] == 4
        assert outcome.changed == (0 if flags else 1), "the result file alone"
    assert json.loads(told.read_text())["status"] == "clean" and told.stat().st_mode & 0o777 == 0o600
    assert fleet.scratch.dump() == before


# --- planted


class Drift(NamedTuple):
    """SQL as the administrator of the pool: how it is planted, what is found, and how it is undone where an audit must not."""

    name: str
    plant: Sequence[str]
    found: Sequence[Tuple[str, str]]
    undo: Sequence[str] = ()
    # Other than "postgres": the database that both are done in.
    inside: str = "postgres"


DRIFTS = [
    Drift("a stray database", ["CREATE DATABASE stray"], [("database_without_row", "stray")], ["DROP DATABASE stray"]),
    Drift("a stray role", ["CREATE ROLE stray LOGIN"], [("role_without_row", "stray")], ["DROP ROLE stray"]),
    Drift(
        "a renamed database", ['ALTER DATABASE "{a}" RENAME TO lost'], [("row_without_database", "{a}"), ("database_without_row", "lost")],
        ['ALTER DATABASE lost RENAME TO "{a}"'],
    ),
    Drift(
        "a renamed role", ['ALTER ROLE "{a_user}" RENAME TO lost'],
        [("row_without_role", "{a_user}"), ("wrong_owner", "{a}"), ("role_without_row", "lost")], ['ALTER ROLE lost RENAME TO "{a_user}"'],
    ),
    Drift("another owner", ['ALTER DATABASE "{a}" OWNER TO postgres'], [("wrong_owner", "{a}")], ['ALTER DATABASE "{a}" OWNER TO "{a_user}"']),
    Drift("a raised connection limit", ['ALTER ROLE "{a_user}" CONNECTION LIMIT 99'], [("connection_limit", "{a_user}")]),
    Drift("a lifted temp_file_limit", ['ALTER ROLE "{a_user}" SET temp_file_limit = -1'], [("role_setting", "{a_user}")]),
    Drift("one lifted in its database", ['ALTER ROLE "{a_user}" IN DATABASE "{a}" SET temp_file_limit = -1'], [("role_setting", "{a_user}")]),
    Drift("a database open to PUBLIC", ['GRANT CONNECT ON DATABASE "{a}" TO PUBLIC'], [("database_open", "{a}")]),
    Drift("a database that is a template", ['ALTER DATABASE "{a}" WITH IS_TEMPLATE true'], [("database_template", "{a}")]),
    Drift(
        "a closed database", ['ALTER DATABASE "{a}" WITH CONNECTION LIMIT 0'], [("database_closed", "{a}")],
        ['ALTER DATABASE "{a}" WITH CONNECTION LIMIT -1'],
    ),
    Drift(
        "an owner without leave", ['REVOKE CREATE ON DATABASE "{a}" FROM "{a_user}"'], [("owner_privileges", "{a}")],
        ['GRANT CREATE ON DATABASE "{a}" TO "{a_user}"'],
    ),
    Drift("no role of the wall", ['DROP ROLE "{a}"'], [("wall_role_missing", "{a}"), ("wall_membership", "{a_user}")]),
    Drift("a role of the wall that logs in", ['ALTER ROLE "{a}" LOGIN'], [("role_attributes", "{a}")]),
    Drift("an owner shut out", ['REVOKE "{a}" FROM "{a_user}"'], [("wall_membership", "{a_user}")]),
    Drift("an owner that opens its gate", ['GRANT "{a}" TO "{a_user}" WITH ADMIN OPTION'], [("wall_membership", "{a_user}")]),
    Drift(
        "a stranger let through", ['GRANT "{a}" TO "{b_user}"'], [("wall_membership", "{a}: {b_user}"), ("foreign_membership", "{b_user}")],
    ),
    Drift("a tenant in another's role", ['GRANT "{b_user}" TO "{a_user}"'], [("foreign_membership", "{a_user}")]),
    Drift("a tenant that reads files", ['GRANT pg_read_server_files TO "{a_user}"'], [("foreign_membership", "{a_user}")]),
    Drift("a tenant on the bus", ['GRANT tenant_bus TO "{a_user}"'], [("bus_membership", "{a_user}")]),
    *[
        Drift("a tenant with " + attribute, ['ALTER ROLE "{a_user}" ' + attribute], [("role_attributes", "{a_user}")])
        for attribute in ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS", "NOINHERIT", "NOLOGIN")
    ],
    Drift(
        "somebody else's role", ["COMMENT ON ROLE \"{a_user}\" IS 'mine'"], [("foreign_role", "{a_user}")],
        ["COMMENT ON ROLE \"{a_user}\" IS 'saasodoo.postgres_pools owner of {a}'"],
    ),
    Drift(
        "no extension", ["DROP EXTENSION unaccent"], [("extension_missing", "{a}: unaccent")],
        ["CREATE EXTENSION unaccent SCHEMA public", "ALTER FUNCTION public.unaccent(text) IMMUTABLE"], inside="{a}",
    ),
    Drift(
        "a function that no index takes", ["ALTER FUNCTION public.unaccent(text) STABLE"], [("extension_function", "{a}: public")],
        ["ALTER FUNCTION public.unaccent(text) IMMUTABLE"], inside="{a}",
    ),
    Drift("a quarantined database that is open", ['ALTER DATABASE "{q}" WITH ALLOW_CONNECTIONS true'], [("quarantine_open", "{q}")]),
    Drift("a quarantined role that logs in", ['ALTER ROLE "{q_user}" LOGIN'], [("quarantine_open", "{q_user}")]),
    Drift(
        "a quarantined database that is gone", ['ALTER DATABASE "{q}" RENAME TO gone'],
        [("quarantine_missing", "{q}"), ("database_without_row", "gone")], ['ALTER DATABASE gone RENAME TO "{q}"'],
    ),
    Drift("postgres open to PUBLIC", ["GRANT CONNECT ON DATABASE postgres TO PUBLIC"], [("own_database_open", "postgres")]),
    Drift("a bus that logs in", ["ALTER ROLE tenant_bus LOGIN"], [("bus_role", "tenant_bus")]),
]  # fmt: skip


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name)
def test_planted_drift_is_found_and_mended_where_it_is_safe(fleet: Fleet, drift: Drift) -> None:
    before = fleet.state()
    found = frozenset((kind, fleet.text(thing)) for kind, thing in drift.found)
    for statement in drift.plant:
        fleet.sql(fleet.text(statement), fleet.text(drift.inside))
    try:
        findings = fleet.audit()
        assert keys(findings) == found
        assert {one["server"] for one in findings} == {fleet.pool}
        for one in findings:
            assert one["expected"] != one["found"] and one["remedy"] and not one["repaired"]
            assert one["safe_to_repair"] == KINDS[one["kind"]].safe

        # With --check it says what it would mend, and mends nothing.
        planted = fleet.state()
        told = fleet.audit(repair=True, check_mode=True)
        assert keys(told) == found and all(one["repaired"] == one["safe_to_repair"] for one in told)
        assert fleet.state() == planted

        told = fleet.audit(repair=True)
        assert keys(told) == found
        assert all(one["repaired"] == one["safe_to_repair"] for one in told)
        if all(one["safe_to_repair"] for one in told):
            assert fleet.audit() == []
            assert same(fleet.state(), before)
        else:
            assert drift.undo, "nobody else mends it"
            assert keys(fleet.audit()) == {key for key in found if not KINDS[key[0]].safe}
    finally:
        for statement in drift.undo:
            fleet.sql(fleet.text(statement), fleet.text(drift.inside))
    assert fleet.audit() == []
    assert same(fleet.state(), before)


def same(one: Dict[str, Any], other: Dict[str, Any]) -> bool:
    """But for the order in an access list, which says nothing."""

    def sorted_lists(state: Dict[str, Any]) -> str:
        told = json.loads(json.dumps(state))
        for contents in told.values():
            for database in contents["databases"]:
                database["acl"] = sorted((database["acl"] or "").strip("{}").split(","))
        return json.dumps(told, sort_keys=True)

    assert sorted_lists(one) == sorted_lists(other)
    return True


# --- what is not SQL on one server


def test_another_password_is_found_and_never_set(fleet: Fleet) -> None:
    (verifier,) = fleet.sql("SELECT rolpassword FROM pg_authid WHERE rolname = '{0}'".format(fleet.first["owner"]))[0]
    fleet.sql("ALTER ROLE \"{0}\" PASSWORD '{1}'".format(fleet.first["owner"], _scram.verifier("somebody-s-own")))
    changed = fleet.sql("SELECT rolpassword FROM pg_authid WHERE rolname = '{0}'".format(fleet.first["owner"]))
    try:
        findings = fleet.audit(repair=True)
        assert keys(findings) == {("password", fleet.first["owner"])} and not findings[0]["repaired"]
        assert "SCRAM" not in json.dumps(findings)
        assert fleet.sql("SELECT rolpassword FROM pg_authid WHERE rolname = '{0}'".format(fleet.first["owner"])) == changed
    finally:
        fleet.sql("ALTER ROLE \"{0}\" PASSWORD '{1}'".format(fleet.first["owner"], verifier))
    assert fleet.audit() == []


def test_a_rotation_that_was_begun_is_told_as_such(fleet: Fleet) -> None:
    (verifier,) = fleet.sql("SELECT rolpassword FROM pg_authid WHERE rolname = '{0}'".format(fleet.first["owner"]))[0]
    token = fleet.scratch.cipher().encrypt("the-next-one")
    fleet.scratch.execute("UPDATE db_allocations SET next_password_encrypted = %s WHERE id = %s", (token, fleet.first["id"]))
    try:
        # The server has not been told: nothing differs yet.
        assert fleet.audit() == []
        fleet.sql("ALTER ROLE \"{0}\" PASSWORD '{1}'".format(fleet.first["owner"], _scram.verifier("the-next-one")))
        assert keys(fleet.audit()) == {("password_rotation", fleet.first["owner"])}
    finally:
        fleet.scratch.execute("UPDATE db_allocations SET next_password_encrypted = NULL WHERE id = %s", (fleet.first["id"],))
        fleet.sql("ALTER ROLE \"{0}\" PASSWORD '{1}'".format(fleet.first["owner"], verifier))
    assert fleet.audit() == []


def test_a_password_that_no_key_opens_ends_no_audit_of_the_others(fleet: Fleet) -> None:
    lost = Cipher([Fernet.generate_key().decode()]).encrypt("whatever it was")
    limit = 'ALTER ROLE "{0}" CONNECTION LIMIT {1}'
    of_tenant = "UPDATE db_allocations SET password_encrypted = %s WHERE id = %s"
    of_server = "UPDATE db_servers SET admin_password_encrypted = %s WHERE name = %s"
    tenants = fleet.scratch.rows("SELECT password_encrypted AS token FROM db_allocations WHERE id = %s", (fleet.first["id"],))[0]["token"]
    servers = fleet.servers[fleet.pool]["admin_password_encrypted"]
    limit_before = fleet.sql("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{0}'".format(fleet.first["owner"]))[0][0]
    fleet.sql(limit.format(fleet.first["owner"], -1))
    try:
        fleet.scratch.execute(of_tenant, (lost, fleet.first["id"]))
        found = fleet.audit()
        # What else is wrong with that tenant is still told.
        assert keys(found) == {("password_unreadable", fleet.first["owner"]), ("connection_limit", fleet.first["owner"])}
        assert "a key that is not among those given" in json.dumps(found) and lost not in json.dumps(found)
        fleet.scratch.execute(of_server, (lost, fleet.pool))
        assert ("password_unreadable", "postgres") in keys(fleet.audit())
    finally:
        fleet.scratch.execute(of_server, (servers, fleet.pool))
        fleet.scratch.execute(of_tenant, (tenants, fleet.first["id"]))
        fleet.sql(limit.format(fleet.first["owner"], limit_before))
    assert fleet.audit() == []


class Rows(NamedTuple):
    """Drift in the inventory database itself."""

    name: str
    plant: str
    found: Sequence[Tuple[str, str]]
    undo: str


ROWS = [
    Rows(
        "a wrong count", "UPDATE db_servers SET current_instances = current_instances - 1 WHERE name = '{pool}'", [("counter", "current_instances")],
        "UPDATE db_servers SET current_instances = current_instances + 1 WHERE name = '{pool}'",
    ),
    Rows(
        "wrong promises",
        "UPDATE db_servers SET promised_connections = promised_connections + 1, promised_storage_bytes = promised_storage_bytes + 1 WHERE name = '{pool}'",
        [("counter", "promised_connections"), ("counter", "promised_storage_bytes")],
        "UPDATE db_servers SET promised_connections = promised_connections - 1, promised_storage_bytes = promised_storage_bytes - 1 WHERE name = '{pool}'",
    ),
    Rows(
        "another version", "UPDATE db_servers SET postgres_version = '140001' WHERE name = '{pool}'", [("version", "postgres_version")],
        "UPDATE db_servers SET postgres_version = '{version}' WHERE name = '{pool}'",
    ),
    Rows(
        "a maker that died",
        "INSERT INTO db_servers (name, server_type, backend, host, port, max_instances, connection_budget, storage_budget_bytes, cpu_limit,"
        " memory_limit_bytes, lease_expires_at) VALUES ('begun', 'shared', 'process', '127.0.0.1', 1, 1, 1, 1, 1, 1, now() - interval '1 hour')",
        [("lease_stale", "begun")], "DELETE FROM db_servers WHERE name = 'begun'",
    ),
    Rows(
        "a reservation that nobody took",
        "INSERT INTO db_allocations (instance_id, customer_id, plan_tier, server_id, database_name, role_name, password_encrypted, connections,"
        " storage_bytes, expires_at) SELECT '0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90', '0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90', 'free', id, 'late', 'late_user',"
        " 'token', 1, 1, now() - interval '1 hour' FROM db_servers WHERE name = '{pool}'",
        [("reservation_overdue", "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90")],
        "UPDATE db_allocations SET status = 'expired' WHERE database_name = 'late'; DELETE FROM db_allocations WHERE database_name = 'late'",
    ),
    Rows(
        "a certificate near its end",
        "UPDATE db_servers SET tls = true, certificate_expires_at = now() + interval '3 days' WHERE name = '{pool}'",
        # The server itself has no TLS.
        [("certificate_expiring", "certificate"), ("unreachable", "{address}")],
        "UPDATE db_servers SET tls = false, certificate_expires_at = NULL WHERE name = '{pool}'",
    ),
    Rows(
        "a directory elsewhere", "UPDATE db_servers SET storage_path = storage_path || '-moved' WHERE name = '{pool}'",
        [("row_without_directory", "{path}-moved"), ("directory_without_row", "{path}"), ("process_without_row", "{path}/data")],
        "UPDATE db_servers SET storage_path = '{path}' WHERE name = '{pool}'",
    ),
    Rows(
        "a release that stopped halfway",
        "UPDATE db_allocations SET status = 'releasing', quarantine_name = 'halfway' WHERE database_name = '{a}';"
        " ALTER TABLE db_allocations DISABLE TRIGGER b_stamp;"
        " UPDATE db_allocations SET updated_at = now() - interval '1 hour' WHERE database_name = '{a}'; ALTER TABLE db_allocations ENABLE TRIGGER b_stamp",
        [("release_unfinished", "{instance}")],
        "ALTER TABLE db_allocations DISABLE TRIGGER a_refuse_step; UPDATE db_allocations SET status = 'active', quarantine_name = NULL"
        " WHERE database_name = '{a}'; ALTER TABLE db_allocations ENABLE TRIGGER a_refuse_step",
    ),
]  # fmt: skip


@pytest.mark.parametrize("drift", ROWS, ids=lambda drift: drift.name)
def test_rows_that_are_wrong_are_found_and_left_alone(fleet: Fleet, drift: Rows) -> None:
    row = fleet.servers[fleet.pool]
    names = dict(
        fleet.names, path=row["storage_path"], version=row["postgres_version"], address="{host}:{port}".format(**row), instance=fleet.first["instance_id"]
    )
    fleet.scratch.execute(drift.plant.format(**names))
    try:
        planted = (fleet.state(), fleet.scratch.rows("SELECT * FROM db_servers ORDER BY id"))
        findings = fleet.audit(repair=True)
        assert keys(findings) == frozenset((kind, thing.format(**names)) for kind, thing in drift.found)
        assert not any(one["repaired"] for one in findings)
        assert (fleet.state(), fleet.scratch.rows("SELECT * FROM db_servers ORDER BY id")) == planted
    finally:
        fleet.scratch.execute(drift.undo.format(**names))
    assert fleet.audit() == []


def settled(fleet: Fleet, statement: str, wanted: Any) -> None:
    """A reload takes effect a moment after it is asked for."""
    until = time.monotonic() + 10
    while fleet.sql(statement) != [(wanted,)]:
        assert time.monotonic() < until, (statement, fleet.sql(statement))
        time.sleep(0.05)


def test_a_setting_of_the_servers_own_is_found(fleet: Fleet) -> None:
    before = fleet.sql("SHOW work_mem")[0][0]
    fleet.sql("ALTER SYSTEM SET work_mem = '1234kB'")
    fleet.sql("SELECT pg_reload_conf()")
    try:
        settled(fleet, "SHOW work_mem", "1234kB")
        findings = fleet.audit(repair=True)
        assert keys(findings) == {("settings", "work_mem")} and not findings[0]["repaired"]
        assert "1234" in findings[0]["found"] and findings[0]["expected"].endswith("MB")
    finally:
        fleet.sql("ALTER SYSTEM RESET work_mem")
        fleet.sql("SELECT pg_reload_conf()")
    settled(fleet, "SHOW work_mem", before)
    assert fleet.audit() == []


def test_a_changed_configuration_file_is_found(fleet: Fleet) -> None:
    path = Path(fleet.first["path"]) / "data" / "postgresql.pools.conf"
    text = path.read_text()
    path.write_text(text.replace("log_lock_waits = 'on'", "log_lock_waits = 'off'"))
    try:
        (one,) = fleet.audit(repair=True)
        assert (one["kind"], one["object"], one["server"], one["repaired"]) == ("configuration", "postgresql.pools.conf", fleet.pool, False)
        assert (one["expected"], one["found"]) == ({"log_lock_waits": "on"}, {"log_lock_waits": "off"})
    finally:
        path.write_text(text)
    assert fleet.audit() == []


def test_a_directory_without_a_row_is_found_and_left(fleet: Fleet) -> None:
    stray = Path(fleet.first["path"]).parent / "pool-nobody"
    stray.mkdir()
    (stray / "kept").write_text("somebody's")
    try:
        assert keys(fleet.audit(repair=True)) == {("directory_without_row", str(stray))}
        assert (stray / "kept").read_text() == "somebody's"
    finally:
        (stray / "kept").unlink()
        stray.rmdir()
    assert fleet.audit() == []


def test_a_server_that_is_down_is_a_finding_and_stops_no_other(fleet: Fleet) -> None:
    server = fleet.servers[fleet.alone["server"]]
    data = Path(server["storage_path"]) / "data"
    pid = int((data / "postmaster.pid").read_text().split()[0])
    fleet.sql('ALTER ROLE "{0}" CONNECTION LIMIT 99'.format(fleet.first["owner"]))
    os.kill(pid, signal.SIGINT)
    try:
        until = time.monotonic() + 20
        while os.path.exists("/proc/{0}".format(pid)) and time.monotonic() < until:
            time.sleep(0.05)
        findings = fleet.audit(repair=True)
        address = "{host}:{port}".format(**server)
        assert keys(findings) == {
            ("unreachable", address),
            ("row_without_process", server["storage_path"]),
            ("connection_limit", fleet.first["owner"]),
        }
        assert [one["kind"] for one in findings if one["repaired"]] == ["connection_limit"]
    finally:
        fleet.scratch.play("update_server", {"server": server["name"], "memory_limit": str(server["memory_limit_bytes"])}).succeeded()
    assert fleet.audit() == []


def test_a_server_that_takes_the_connection_and_is_silent_ends_within_the_limit(fleet: Fleet) -> None:
    server = fleet.servers[fleet.alone["server"]]
    pid = int((Path(server["storage_path"]) / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        assert keys(fleet.audit()) == {("unreachable", "{host}:{port}".format(**server))}
        assert time.monotonic() - start < 2 * 5 + 10
    finally:
        os.kill(pid, signal.SIGCONT)
    assert fleet.audit() == []


def test_the_wall_is_mended_by_the_playbook(fleet: Fleet) -> None:
    path = Path(fleet.first["path"]) / "data" / "pg_hba.conf"
    text = path.read_text()
    path.write_text("host all all all scram-sha-256\n" + text)
    fleet.sql("SELECT pg_reload_conf()")
    fleet.sql('ALTER ROLE "{0}" CREATEDB'.format(fleet.first["owner"]))
    try:
        assert ("pg_hba", "pg_hba.conf") in keys(fleet.audit())
        told = fleet.scratch.play("audit", {"audit_fail_on": "never", "audit_tenants": "all"}).succeeded().stats
        assert {"pg_hba", "role_attributes", "isolation"} <= set(told["counts"]) and told["status"] == "alarm"
        # Of one server alone, and by default an alarm fails the run.
        refused = fleet.scratch.play("audit", {"server": fleet.pool, "audit_tenants": "all"})
        assert refused.rc != 0 and "The audit ends with alarm" in refused.output
        others = [name for name in fleet.servers if name != fleet.pool]
        assert fleet.scratch.play("audit", {"server": others[0]}).succeeded().stats["status"] == "clean"

        before = fleet.scratch.dump()
        would = fleet.scratch.play("audit", {"repair": True, "audit_fail_on": "never"}, "--check").succeeded().stats
        assert {one["kind"] for one in would["findings"] if one["repaired"]} == {"pg_hba", "role_attributes"}
        assert fleet.scratch.dump() == before

        done = fleet.scratch.play("audit", {"repair": True, "audit_tenants": "all"}).succeeded().stats
        assert (done["status"], done["counts"], done["repaired"]) == ("clean", {}, 2), done
        assert path.read_text() == text
        again = fleet.scratch.play("audit", {"repair": True, "audit_fail_on": "findings"}).succeeded()
        assert (again.stats["status"], again.changed) == ("clean", 0)
        events = fleet.scratch.rows("SELECT detail FROM db_events WHERE kind = 'audit.repaired' AND detail->>'kind' = 'role_attributes'")
        assert {"kind": "role_attributes", "object": fleet.first["owner"]} in [row["detail"] for row in events]
    finally:
        path.write_text(text)
        fleet.sql("SELECT pg_reload_conf()")
        fleet.sql('ALTER ROLE "{0}" NOCREATEDB'.format(fleet.first["owner"]))
    assert fleet.audit() == []


def test_a_tenant_made_meanwhile_is_no_drift(fleet: Fleet) -> None:
    """The rows of the first look are older than the server: the second look has read them again."""
    cipher, looks = fleet.scratch.cipher(), []

    def expectations() -> Sequence[_audit_registry.Expected]:
        with inventory(fleet.scratch) as opened:
            found = _audit_registry.expectations(opened, cipher, None)
        looks.append(len(found))
        if len(looks) == 1:
            return [one if one.name != fleet.pool else _audit_registry.Expected(one.row, one.login, one.tenants[1:], ()) for one in found]
        return found

    assert _audit_servers.fleet(expectations, _audit_servers.Orders({})) == []
    assert len(looks) == 2


def test_every_kind_of_a_process_fleet_is_planted_here() -> None:
    swarm = {kind for kind in KINDS if "service" in kind or "secret" in kind or kind.endswith("_config")} | {"config_without_row"}
    # In test_audit_isolation.py, in test_migrate_online.py and, since PostgreSQL lets nobody plant them here, in tests/unit/test_audit.py.
    elsewhere = {"isolation", "probe_inconclusive", "database_locale", "quarantine_undone", "follow_left_over", "way_back_broken"}
    planted = {kind for drift in (*DRIFTS, *ROWS) for kind, _thing in drift.found}
    others = {"password", "password_rotation", "password_unreadable", "settings", "configuration", "row_without_process", "pg_hba"}
    assert planted | others | swarm | elsewhere == set(KINDS)
    assert len(planted | others) >= 20

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparisons of an audit, on data of the shapes that PostgreSQL and Docker give."""

from __future__ import annotations

import ast
import copy
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _audit,
    _audit_servers,
    _audit_swarm,
    _audit_tenants,
    _isolation,
    _scram,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _tenant_plan as plan
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit_settings import Running, differences
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant import Database, Found, Role, Wanted

UTILS = Path(plan.__file__).parent


# --- kinds, status


def finding(kind: str, **more: Any) -> Dict[str, Any]:
    return _audit.finding("pool", kind, "thing", 1, 2, **more)


def test_what_was_mended_is_no_finding_any_more() -> None:
    found = [finding("connection_limit", repaired=True), finding("version"), finding("version")]
    assert _audit.summary(found) == {"status": "findings", "counts": {"version": 2}}
    assert _audit.summary(found[:1]) == {"status": "clean", "counts": {}}


def test_one_that_was_let_through_is_an_alarm_and_comes_first() -> None:
    found = _audit.in_order([finding("connection_limit"), finding("isolation"), finding("counter")])
    assert [one["kind"] for one in found] == ["isolation", "connection_limit", "counter"]
    assert _audit.summary(found)["status"] == "alarm"
    assert _audit.summary([finding("probe_inconclusive")])["status"] == "findings"


def test_nothing_is_safe_that_drops_makes_data_or_restarts() -> None:
    safe = {kind for kind, told in _audit.KINDS.items() if told.safe}
    assert safe == {
        "database_open", "database_template", "connection_limit", "role_setting", "role_attributes", "wall_role_missing", "wall_membership",
        "bus_membership", "foreign_membership", "quarantine_open", "own_database_open", "bus_role", "follow_left_over",
    }  # fmt: skip
    assert all(told.remedy.endswith((".", "true.")) for told in _audit.KINDS.values())


@pytest.mark.parametrize("value", [0, -1, 10**9])
def test_a_limit_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(PoolsError, match="timeout is"):
        _audit.check_limits(timeout=value)


# --- settings


@pytest.mark.parametrize(
    ("wanted", "running"),
    [
        ("1024MB", Running("131072", "8kB", "integer")),
        ("4MB", Running("4096", "kB", "integer")),
        ("600s", Running("600", "s", "integer")),
        ("15min", Running("900", "s", "integer")),
        ("310", Running("310", None, "integer")),
        ("-1", Running("-1", "ms", "integer")),
        ("1.0", Running("1", None, "real")),
        ("0.9", Running("0.9", None, "real")),
        ("off", Running("off", None, "bool")),
        ("true", Running("on", None, "bool")),
        ("LOGICAL", Running("logical", None, "enum")),
        ("%m [%p] %q%u@%d ", Running("%m [%p] %q%u@%d ", None, "string")),
    ],
)
def test_a_setting_is_the_same_in_whatever_unit(wanted: str, running: Running) -> None:
    assert differences({"one": wanted}, {"one": running}) == []


@pytest.mark.parametrize(
    ("wanted", "running"),
    [
        ("1024MB", Running("131073", "8kB", "integer")),
        ("4MB", Running("4", "kB", "integer")),
        ("10min", Running("10", "s", "integer")),
        ("0.9", Running("0.5", None, "real")),
        ("on", Running("off", None, "bool")),
        ("none", Running("all", None, "enum")),
    ],
)
def test_a_setting_that_differs_is_told(wanted: str, running: Running) -> None:
    ((name, expected, found),) = differences({"one": wanted}, {"one": running})
    assert (name, expected) == ("one", wanted) and running.value in found


def test_a_value_that_postgresql_tells_by_another_name_is_the_same() -> None:
    assert differences({"wal_compression": "on"}, {"wal_compression": Running("pglz", None, "enum")}) == []
    assert differences({"wal_compression": "on"}, {"wal_compression": Running("off", None, "enum")}) != []


# --- tenants

PLAIN = ["INHERIT", "NOSUPERUSER", "NOCREATEDB", "NOCREATEROLE", "NOREPLICATION", "NOBYPASSRLS"]
WANTED = Wanted("first", "first_user", "pw", connection_limit=6, temp_file_limit=1024)
GATE = Role("first", plan.gate_mark("first"), frozenset(["NOLOGIN", *PLAIN]), -1, None, {}, {}, {"first_user": False})
OWNER = Role(
    "first_user", plan.owner_mark("first"), frozenset(["LOGIN", *PLAIN]), 6, _scram.verifier("pw", iterations=16),
    {"temp_file_limit": "1024kB"}, {"first": False}, {},
)  # fmt: skip
DATABASE = Database(
    "first", "first_user", "UTF8", "C", "C.UTF-8", "libc", True, -1, False, False, frozenset(["CONNECT", "CREATE", "TEMPORARY"]),
)  # fmt: skip
INSIDE = {"extensions": frozenset(["plpgsql", "pg_trgm", "unaccent"]), "mutable_unaccent": ()}


def found(*things: Any) -> Found:
    return Found({one.name: one for one in things if isinstance(one, Role)}, {one.name: one for one in things if isinstance(one, Database)})


def kinds(there: Found, inside: Optional[Callable[[], Any]] = None) -> List[str]:
    return [one.finding["kind"] for one in _audit_tenants.live("pool", _audit_tenants.Tenant(WANTED), there, inside or (lambda: INSIDE))]


def test_a_tenant_as_it_is_wanted_is_no_finding() -> None:
    assert kinds(found(GATE, OWNER, DATABASE)) == []


def test_nothing_there_is_a_row_without_database_and_roles_and_nothing_else() -> None:
    def inside() -> Any:
        raise AssertionError("there is nothing to enter")

    drifts = _audit_tenants.live("pool", _audit_tenants.Tenant(WANTED), found(), inside)
    assert [one.finding["kind"] for one in drifts] == ["wall_role_missing", "row_without_role", "row_without_database"]
    assert [one.mendable for one in drifts] == [True, False, False]


def test_a_locale_that_cannot_be_changed_is_told() -> None:
    assert kinds(found(GATE, OWNER, replace(DATABASE, lc_collate="en_US.UTF-8"))) == ["database_locale"]


def test_a_missing_extension_is_one_finding() -> None:
    assert kinds(found(GATE, OWNER, DATABASE), lambda: dict(INSIDE, extensions=frozenset(["pg_trgm"]))) == ["extension_missing"]


def test_every_statement_that_is_planned_has_a_kind() -> None:
    """A step that _tenant_plan or _tenant_wall will once have in addition must be given one."""
    statements = []
    for name in ("_tenant_plan.py", "_tenant_wall.py"):
        for node in ast.walk(ast.parse((UTILS / name).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                statements.append(node.value)
    planned = {text for text in statements if re.match(r"(CREATE|ALTER|GRANT|REVOKE|DROP) .*\{", text)}
    assert len(planned) >= 25
    begins = [begin for begin, _kind, _whose in _audit_tenants._KINDS]
    # What renames and drops is done by releases and moves only; this one is of a closed database, which is told by its opening.
    others = ("DROP ", "ALTER DATABASE {parked} ", "ALTER DATABASE {name} RENAME", "ALTER ROLE {name} RENAME", "ALTER ROLE {owner} RENAME")
    assert [text for text in planned if not text.startswith((*begins, *others))] == []
    with pytest.raises(ValueError, match="no kind"):
        _audit_tenants.drift_of("pool", plan.Step(plan.SERVER, "something new", "TRUNCATE everything"))


def parked(**more: Any) -> Found:
    gate = Role("gone", plan.gate_mark("gone", "first"), frozenset(["NOLOGIN", *PLAIN]), -1, None, {}, {}, {"gone_user": False})
    owner = Role("gone_user", plan.owner_mark("gone", "first"), frozenset(["NOLOGIN", *PLAIN]), 0, None, {}, {"gone": False}, {})
    return found(gate, owner, replace(DATABASE, name="gone", owner="gone_user", allows_connections=False, **more))


def quarantined(there: Found, claimed: Any = ()) -> List[str]:
    tenant = _audit_tenants.Tenant(replace(WANTED, quarantine_name="gone"), quarantined=True)
    return [one.finding["kind"] for one in _audit_tenants.quarantined("pool", tenant, there, claimed)]


def test_a_quarantine_that_was_undone_is_told_but_not_a_tenant_that_came_back() -> None:
    assert quarantined(parked()) == []
    assert quarantined(found(GATE, OWNER, DATABASE)) == ["quarantine_undone"]
    back = parked()
    both = Found(dict(back.roles, first=GATE, first_user=OWNER), dict(back.databases, first=DATABASE))
    assert quarantined(both, {"first"}) == []
    assert quarantined(found(GATE, OWNER, DATABASE), {"first"}) == ["quarantine_missing"]


def test_names_of_reservations_and_moves_may_be_there_or_not() -> None:
    def told(optional: Any) -> List[str]:
        return [one.finding["object"] for one in _audit_tenants.unknown("pool", [], optional, ["new"], ["new", "new_user", "postgres"], "postgres")]

    assert told([]) == ["new", "new", "new_user"]
    assert told(["new", "new_user"]) == []


# --- many servers


def test_one_that_hangs_ends_at_its_limit_and_holds_up_no_other() -> None:
    hang = threading.Event()
    start = time.monotonic()
    answers = _audit_servers.within(lambda item: hang.wait(20) if item == "hangs" else item, ["a", "hangs", "b"], lambda item: "late", 0.5, 2)
    assert answers == ["a", "late", "b"] and time.monotonic() - start < 5
    hang.set()


def test_a_defect_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        _audit_servers.within(lambda item: 1 // item, [1, 0], lambda item: -1, 5, 2)


# --- the probe's verdicts


@pytest.mark.parametrize(
    ("code", "more", "verdict"),
    [
        (None, {}, "allowed"),
        ("42501", {}, "refused"),
        ("3D000", {}, "unclear"),
        ("3D000", {"passed": frozenset(["3D000"])}, "allowed"),
        ("0A000", {"refused": frozenset(["0A000"])}, "refused"),
        (None, {"rows": True}, "refused"),
    ],
)
def test_an_attempt_is_judged_by_its_sqlstate(code: Optional[str], more: Dict[str, Any], verdict: str) -> None:
    assert _isolation.judge(_isolation.Attempt("x", "SELECT 1", **more), code) == verdict


def test_each_day_is_another_tenants_turn() -> None:
    tenants = [_audit_tenants.Tenant(replace(WANTED, name=name)) for name in ("a", "b", "c")]
    tenants.append(_audit_tenants.Tenant(replace(WANTED, name="parked", quarantine_name="gone"), quarantined=True))
    assert [_isolation.chosen(tenants, False, day)[0].wanted.name for day in range(4)] == ["a", "b", "c", "a"]
    assert len(_isolation.chosen(tenants, True, 0)) == 3
    assert _isolation.chosen(tenants[3:], False, 7) == []


# --- a Swarm

ROWS = [{"name": "postgres-pool-1", "status": "active"}]
DESCRIPTION: Dict[str, Any] = {
    "name": "postgres-pool-1", "image": "postgres:18-alpine", "arguments": ["-c", "shared_buffers=1024MB", "-c", "listen_addresses=*"],
    "cpu_limit": 2.0, "memory_bytes": 4 << 30, "mount": "/var/lib/postgresql", "path": "/mnt/cephfs/postgres_pools/pool-1", "uid": "70",
    "constraints": ["node.labels.role == database"], "secrets": ["postgres-pool-1-superuser"],
    "configs": ["postgres-pool-1-hba-1a2b3c4d", "postgres-pools-start-5e6f7a8b"],
}  # fmt: skip


def labelled(name: str, server: Optional[str] = "postgres-pool-1") -> Dict[str, Any]:
    labels = {"postgres_pools.managed": "true"}
    if server:
        labels["postgres_pools.server"] = server
    return {"ID": "x" + name, "Version": {"Index": 11}, "CreatedAt": "2026-11-22T20:00:00.1Z", "Spec": {"Name": name, "Labels": labels}}


def service(name: str = "postgres-pool-1") -> Dict[str, Any]:
    """As ``docker service inspect`` of Docker 20.10 to 29 gives it, without what is not compared."""
    made = labelled(name, name)
    made["Spec"].update(
        TaskTemplate={
            "ContainerSpec": {
                "Image": "postgres:18-alpine@sha256:aaaa",
                "Command": ["sh", "/etc/postgresql/guarded-start", "/var/lib/postgresql", "120"],
                "Args": ["-c", "shared_buffers=1024MB", "-c", "listen_addresses=*"],
                "Env": ["PGDATA=/var/lib/postgresql/18/docker"],
                "User": "70",
                "Mounts": [
                    {"Type": "bind", "Source": "/mnt/cephfs/postgres_pools/pool-1", "Target": "/var/lib/postgresql"},
                    {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": 1073741824, "Mode": 1023}},
                ],
                "StopGracePeriod": 120000000000,
                "Secrets": [{"File": {"Name": "superuser", "UID": "70", "GID": "70", "Mode": 256}, "SecretID": "s1", "SecretName": name + "-superuser"}],
                "Configs": [
                    {"File": {"Name": "/etc/postgresql/pg_hba.conf"}, "ConfigID": "c1", "ConfigName": "postgres-pool-1-hba-1a2b3c4d"},
                    {"File": {"Name": "/etc/postgresql/guarded-start"}, "ConfigID": "c2", "ConfigName": "postgres-pools-start-5e6f7a8b"},
                ],
            },
            "Resources": {"Limits": {"NanoCPUs": 2000000000, "MemoryBytes": 4294967296}, "Reservations": {"NanoCPUs": 1000000000}},
            "Placement": {"Constraints": ["node.labels.role == database"], "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "Networks": [{"Target": "n1"}],
        },
        Mode={"Replicated": {"Replicas": 1}},
        UpdateConfig={"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"},
        EndpointSpec={"Mode": "dnsrr"},
    )
    return made


def swarm(**more: Any) -> _audit_swarm.Swarm:
    parts: Dict[str, Any] = {
        "services": [service(), labelled("inventory-db", "inventory-db")],
        "secrets": [labelled("postgres-pool-1-superuser"), labelled("inventory-db-superuser", "inventory-db")],
        "configs": [labelled("postgres-pool-1-hba-1a2b3c4d"), labelled("postgres-pools-start-5e6f7a8b", None)],
    }
    return _audit_swarm.Swarm(**dict(parts, **more))


def compared(there: _audit_swarm.Swarm, rows: Any = None) -> List[Any]:
    told = _audit_swarm.compare(there, ROWS if rows is None else rows, {"postgres-pool-1": DESCRIPTION}, ["inventory-db"])
    return [(one["server"], one["kind"], one["object"]) for one in told]


def test_a_swarm_as_it_was_deployed_is_no_finding() -> None:
    assert compared(swarm()) == []


def test_what_has_no_row_in_a_swarm_is_found() -> None:
    whole = swarm()
    there = _audit_swarm.Swarm(
        [*whole.services, labelled("stray", "stray")], [*whole.secrets, labelled("stray-superuser", "stray")],
        [*whole.configs, labelled("stray-hba-00000000", "stray")],
    )  # fmt: skip
    assert compared(there) == [
        ("", "service_without_row", "stray"), ("", "secret_without_row", "stray-superuser"), ("", "config_without_row", "stray-hba-00000000"),
    ]  # fmt: skip
    # A row that is gone leaves all of its own behind.
    assert [kind for _server, kind, _name in compared(swarm(), [])] == ["service_without_row", "secret_without_row", "config_without_row"]


def test_what_a_row_lacks_in_a_swarm_is_found() -> None:
    assert compared(_audit_swarm.Swarm([], [], [])) == [
        ("postgres-pool-1", "row_without_service", "postgres-pool-1"),
        ("postgres-pool-1", "row_without_secret", "postgres-pool-1-superuser"),
        ("postgres-pool-1", "row_without_config", "postgres-pool-1-hba-1a2b3c4d"),
        ("postgres-pool-1", "row_without_config", "postgres-pools-start-5e6f7a8b"),
    ]


@pytest.mark.parametrize("status", ["provisioning", "initializing", "error", "deprovisioning"])
def test_a_server_that_comes_or_goes_may_have_its_service_or_not(status: str) -> None:
    rows = [{"name": "postgres-pool-1", "status": status}]
    assert compared(swarm(), rows) == [] == compared(_audit_swarm.Swarm([], [], []), rows)


DRIFTS: Dict[str, Any] = {
    "replicas": lambda spec: spec["Mode"]["Replicated"].update(Replicas=0),
    "image": lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Image="postgres:17-alpine@sha256:aaaa"),
    "cpu_limit": lambda spec: spec["TaskTemplate"]["Resources"]["Limits"].update(NanoCPUs=500000000),
    "memory_limit": lambda spec: spec["TaskTemplate"]["Resources"].pop("Limits")["NanoCPUs"],
    "directory": lambda spec: spec["TaskTemplate"]["ContainerSpec"]["Mounts"][0].update(Source="/srv/elsewhere"),
    "user": lambda spec: spec["TaskTemplate"]["ContainerSpec"].pop("User"),
    "constraints": lambda spec: spec["TaskTemplate"].pop("Placement"),
    "secrets": lambda spec: spec["TaskTemplate"]["ContainerSpec"].pop("Secrets"),
    "configs": lambda spec: spec["TaskTemplate"]["ContainerSpec"]["Configs"].pop(),
    "update order": lambda spec: spec["UpdateConfig"].update(Order="start-first"),
    "setting shared_buffers": lambda spec: spec["TaskTemplate"]["ContainerSpec"]["Args"].__setitem__(1, "shared_buffers=2GB"),
    "setting fsync": lambda spec: spec["TaskTemplate"]["ContainerSpec"]["Args"].extend(["-c", "fsync=off"]),
}


@pytest.mark.parametrize("what", DRIFTS)
def test_a_service_that_was_changed_is_found(what: str) -> None:
    changed = copy.deepcopy(service())
    DRIFTS[what](changed["Spec"])
    told = compared(swarm(services=[changed]))
    assert ("postgres-pool-1", "service_drift", what) in told
    assert {name for _server, _kind, name in told} <= {what, "cpu_limit"}

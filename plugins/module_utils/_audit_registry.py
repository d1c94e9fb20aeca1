# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory database against itself, and what it says that each server should hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ._allocation import tenant_databases
from ._audit import Finding, finding
from ._audit_tenants import Tenant
from ._errors import PoolsError
from ._follow_plan import name_of
from ._inventory import ALLOCATION_COLUMNS, CA_CERTIFICATE, Inventory
from ._secrets import Cipher, new_password
from ._tenant import OWNER_SUFFIX, wanted

# What an administrator can be asked of. One in error is asked too, but that it does not answer is no news.
ASKED = ("active", "full", "maintenance", "error")

_COUNTERS = """
SELECT s.name, c.counter, c.found, c.expected FROM db_servers s
CROSS JOIN LATERAL (SELECT
    count(*) FILTER (WHERE a.status = ANY (%(live)s)) AS instances,
    coalesce(sum(a.connections) FILTER (WHERE a.status = ANY (%(live)s)), 0) AS connections,
    coalesce(sum(a.storage_bytes) FILTER (WHERE a.status = ANY (%(live)s) OR (a.status = 'released' AND a.dropped_at IS NULL)), 0) AS bytes
    FROM db_allocations a WHERE a.server_id = s.id) h
LEFT JOIN (SELECT server_id, sum(instances) AS instances, sum(connections) AS connections, sum(storage_bytes) AS bytes
    FROM db_migration_holds GROUP BY server_id) m ON m.server_id = s.id
CROSS JOIN LATERAL (VALUES
    ('current_instances', s.current_instances::bigint, (h.instances + coalesce(m.instances, 0))::bigint),
    ('promised_connections', s.promised_connections::bigint, (h.connections + coalesce(m.connections, 0))::bigint),
    ('promised_storage_bytes', s.promised_storage_bytes, (h.bytes + coalesce(m.bytes, 0))::bigint)) AS c (counter, found, expected)
WHERE c.found <> c.expected AND (%(name)s::text IS NULL OR s.name = %(name)s) ORDER BY s.name, c.counter
"""
_LEASES = """
SELECT name, status, coalesce(lease_expires_at, status_changed_at) AS since FROM db_servers
WHERE status IN ('provisioning', 'initializing') AND (%(name)s::text IS NULL OR name = %(name)s)
    AND coalesce(lease_expires_at, status_changed_at) < now() - %(stale)s * interval '1 second' ORDER BY name
"""
_OVERDUE = """
SELECT s.name, a.instance_id::text AS instance_id, a.status, CASE a.status WHEN 'reserved' THEN a.expires_at ELSE a.updated_at END AS since
FROM db_allocations a JOIN db_servers s ON s.id = a.server_id
WHERE a.status IN ('reserved', 'releasing') AND (%(name)s::text IS NULL OR s.name = %(name)s)
    AND CASE a.status WHEN 'reserved' THEN a.expires_at ELSE a.updated_at END < now() - %(stale)s * interval '1 second'
ORDER BY s.name, a.instance_id
"""
_CERTIFICATES = """
SELECT name AS server, 'certificate' AS thing, certificate_expires_at AS until FROM db_servers
WHERE tls AND status IN ('active', 'full', 'maintenance') AND (%(name)s::text IS NULL OR name = %(name)s)
    AND (certificate_expires_at IS NULL OR certificate_expires_at < now() + %(days)s * interval '1 day')
UNION ALL
SELECT '', 'authority ' || name, expires_at FROM db_authorities
WHERE current AND %(name)s::text IS NULL AND expires_at < now() + %(days)s * interval '1 day'
    AND EXISTS (SELECT FROM db_servers WHERE tls AND status <> 'deprovisioned') ORDER BY 1, 2
"""
_SERVERS = """
SELECT s.id::text, s.name, s.server_type, s.status, s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, s.postgres_version, {0}
FROM db_servers s WHERE s.status = ANY (%(asked)s) AND s.admin_password_encrypted IS NOT NULL
    AND (%(name)s::text IS NULL OR s.name = %(name)s) ORDER BY s.name
""".format(CA_CERTIFICATE)
_ALLOCATIONS = """
SELECT {0}, a.password_encrypted, a.next_password_encrypted, s.admin_user, s.admin_password_encrypted, {1}
FROM db_allocations a JOIN db_servers s ON s.id = a.server_id
WHERE s.status = ANY (%(asked)s) AND (%(name)s::text IS NULL OR s.name = %(name)s)
    AND (a.status IN ('reserved', 'active', 'migrating', 'releasing') OR (a.status = 'released' AND a.dropped_at IS NULL))
ORDER BY a.reserved_at, a.id
""".format(ALLOCATION_COLUMNS, CA_CERTIFICATE)
# A move has the tenant's database on two servers, under the tenant's name or the one it is put aside by, until its source was dropped.
_MOVES = """
SELECT s.name AS server, a.database_name AS database, a.role_name AS owner, m.source_database AS aside,
    CASE WHEN m.status NOT IN ('completed', 'rolled_back') OR m.returning_at IS NOT NULL OR m.lease_expires_at IS NOT NULL THEN 'move'
         WHEN coalesce(m.way_back, 'none') NOT IN ('prepared', 'following') THEN NULL WHEN s.id = m.target_server_id THEN 'publisher'
         WHEN s.id = m.source_server_id THEN 'subscriber' END AS follows
FROM db_tenant_migrations m
JOIN db_allocations a ON a.id = m.allocation_id JOIN db_servers s ON s.id IN (m.source_server_id, m.target_server_id)
WHERE m.status NOT IN ('completed', 'rolled_back') OR m.retained_until IS NOT NULL OR m.lease_expires_at IS NOT NULL
    OR m.way_back IN ('prepared', 'following') ORDER BY m.created_at
"""


@dataclass(frozen=True)
class Expected:
    """A server, the login to it, and what it should hold. ``optional`` are names that may be there or not.

    ``unreadable`` says why there is no login.
    """

    row: Mapping[str, Any] = field(repr=False)
    login: Mapping[str, Any] = field(repr=False)
    tenants: Tuple[Tenant, ...]
    optional: Tuple[str, ...]
    unreadable: str = ""
    # By the name of what follows, what it is there for: a move, or publisher or subscriber of a way back.
    followed: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.row["name"])


def registry_findings(inventory: Inventory, name: Optional[str], stale_seconds: float, certificate_days: float) -> List[Finding]:
    """What the rows alone show: counters, leases, reservations, releases and certificates."""
    given = {"name": name, "stale": stale_seconds, "days": certificate_days, "live": ["reserved", "active", "migrating", "releasing"]}
    findings = [
        finding(row["name"], "counter", row["counter"], row["expected"], row["found"]) for row in inventory.rows(_COUNTERS, given)
    ]
    findings += [
        finding(row["name"], "lease_stale", row["name"], "a maker at work", "{0}, and nobody at work since {1}".format(row["status"], _time(row["since"])))
        for row in inventory.rows(_LEASES, given)
    ]
    for row in inventory.rows(_OVERDUE, given):
        kind = "reservation_overdue" if row["status"] == "reserved" else "release_unfinished"
        findings.append(finding(row["name"], kind, row["instance_id"], "ended", "{0} since {1}".format(row["status"], _time(row["since"]))))
    wanted_until = "valid for {0:g} days or more".format(certificate_days)
    findings += [
        finding(row["server"], "certificate_expiring", row["thing"], wanted_until, _time(row["until"]))
        for row in inventory.rows(_CERTIFICATES, given)
    ]
    return findings


def _time(moment: Any) -> str:
    return moment.isoformat(timespec="seconds") if moment else "never seen"


def expectations(inventory: Inventory, cipher: Cipher, name: Optional[str]) -> List[Expected]:
    """Each server that can be asked, with its allocations as they are wanted there.

    :raises PoolsError: there is no server *name*.
    """
    if name and not inventory.servers([name]):
        raise PoolsError("There is no server {0!r} in the inventory database.".format(name), "playbooks/pools.yml lists those there are.")
    given = {"name": name, "asked": list(ASKED)}
    rows = inventory.rows(_SERVERS, given)
    plans = inventory.plans()
    tenants: Dict[str, List[Tenant]] = {row["name"]: [] for row in rows}
    optional: Dict[str, List[str]] = {row["name"]: [] for row in rows}
    followed: Dict[str, Dict[str, str]] = {row["name"]: {} for row in rows}
    for allocation in inventory.rows(_ALLOCATIONS, given):
        if allocation["server"] not in tenants:
            continue
        # One that is being moved is closed, open or not there yet as its move has it: mending it would let writers in.
        if allocation["status"] == "active":
            tenants[allocation["server"]].append(_tenant(allocation, plans, cipher))
        elif allocation["status"] == "released":
            tenants[allocation["server"]].append(_parked(allocation))
        else:
            optional[allocation["server"]] += _names(allocation["database"], allocation["user"], allocation["quarantine_name"])
    for move in inventory.rows(_MOVES):
        if move["server"] in optional:
            optional[move["server"]] += _names(move["database"], move["owner"], move["aside"])
            if move["follows"]:
                followed[move["server"]][name_of(move["database"])] = move["follows"]
    expected = []
    for row in rows:
        administrator, unreadable = _login(row, cipher)
        expected.append(Expected(row, administrator, tuple(tenants[row["name"]]), tuple(optional[row["name"]]), unreadable, followed[row["name"]]))
    return expected


def _login(row: Mapping[str, Any], cipher: Cipher) -> Tuple[Dict[str, Any], str]:
    """The login, or why there is none: one lost key must not end the audit of every other server."""
    try:
        return login(row, cipher), ""
    except PoolsError as error:
        return {}, error.problem


def _names(database: str, owner: str, quarantine: Optional[str]) -> List[str]:
    return [database, owner] + ([quarantine, quarantine + OWNER_SUFFIX] if quarantine else [])


def _tenant(allocation: Mapping[str, Any], plans: Mapping[str, Mapping[str, Any]], cipher: Cipher) -> Tenant:
    whose = "instance {0}".format(allocation["instance_id"])
    raw = dict(tenant_databases([allocation], plans)[0])
    following = allocation["next_password_encrypted"]
    try:
        raw["password"] = cipher.decrypt(allocation["password_encrypted"], whose)
        return Tenant(wanted(raw, "present"), cipher.decrypt(following, whose) if following else "")
    except PoolsError as error:
        raw["password"] = new_password()
        return Tenant(wanted(raw, "present"), unreadable=error.problem)


def _parked(allocation: Mapping[str, Any]) -> Tenant:
    raw = {"name": allocation["database"], "owner": allocation["user"], "quarantine_name": allocation["quarantine_name"]}
    return Tenant(wanted(raw, "quarantined"), quarantined=True)


def login(row: Mapping[str, Any], cipher: Cipher) -> Dict[str, Any]:
    """The administrator's ``login_*`` options for a server."""
    options = {
        "login_host": row["host"],
        "login_port": row["port"],
        "login_user": row["admin_user"],
        "login_password": cipher.decrypt(row["admin_password_encrypted"], "server {0}".format(row["name"])),
    }
    return dict(options, **transport(row))


def transport(row: Mapping[str, Any]) -> Dict[str, Any]:
    """How far TLS is asked for with a server."""
    return {"ssl_mode": "verify-full", "ca_certificate": row["ca_certificate"] or ""} if row["tls"] else {}


def record(inventory: Inventory, repaired: Sequence[Mapping[str, Any]]) -> None:
    """Write into the event log what was mended."""
    for one in repaired:
        inventory.execute(
            "INSERT INTO db_events (kind, server_id, detail) SELECT 'audit.repaired', s.id,"
            " jsonb_build_object('kind', %(kind)s::text, 'object', %(object)s::text) FROM db_servers s WHERE s.name = %(server)s",
            {"kind": one["kind"], "object": one["object"], "server": one["server"]},
        )

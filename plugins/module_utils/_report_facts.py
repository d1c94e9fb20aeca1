# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the metrics and the report page are made of, read from the inventory database. Nothing of it is secret."""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from . import _capacity, _metrics, _totals
from ._candidates import IN_THE_MAKING, LIVE
from ._inventory import Inventory, plain

# More than these, and the page shows how many tenants a server has, not which.
LISTED_TENANTS = 2000
FLEET_EVENTS, TENANT_EVENTS = 40, 20
HOURS = 24

_SERVERS = """
SELECT s.id::text, s.name, s.server_type, s.backend, s.host, s.port, s.status, s.status_reason, s.status_changed_at, s.health_status,
    s.last_health_check, s.health_check_failures, s.max_instances, s.current_instances, s.connection_budget, s.promised_connections,
    s.storage_budget_bytes, s.promised_storage_bytes, s.allocation_strategy, s.postgres_version, s.tls, s.certificate_expires_at,
    s.created_at, s.activated_at, c.checked_at, c.latency_ms::float8 AS latency_ms, c.connections_used, c.database_count, c.problem,
    coalesce(c.detail, '{}') AS detail, coalesce(t.tenants, '{}') AS tenants_by_plan
FROM db_servers s
LEFT JOIN LATERAL (SELECT * FROM db_health_checks h WHERE h.server_id = s.id ORDER BY h.checked_at DESC LIMIT 1) c ON true
LEFT JOIN (
    SELECT server_id, jsonb_object_agg(plan_tier, count) AS tenants FROM (
        SELECT server_id, plan_tier, count(*) FROM db_allocations WHERE status = ANY (%(live)s) GROUP BY 1, 2) p GROUP BY 1
) t ON t.server_id = s.id
WHERE s.status <> 'deprovisioned' ORDER BY s.created_at, s.name"""

_TENANTS = """
SELECT server_id::text, instance_id::text, customer_id::text, plan_tier, status, database_name AS database
FROM db_allocations WHERE status = ANY (%(live)s) ORDER BY reserved_at, id LIMIT %(limit)s"""

# Clock hours, so that two runs within one show the same.
_PROBES = """
SELECT server_id::text, (extract(epoch FROM date_trunc('hour', now()) - date_trunc('hour', checked_at)) / 3600)::integer AS hours_ago,
    count(*) AS probes, count(*) FILTER (WHERE health_status <> 'healthy') AS failed, bool_or(health_status = 'unhealthy') AS unhealthy
FROM db_health_checks WHERE checked_at >= date_trunc('hour', now()) - %(hours)s * interval '1 hour' GROUP BY 1, 2"""

_ALLOCATIONS = """
SELECT count(*) AS reserved, count(activated_at) AS activated, count(released_at) AS released, count(dropped_at) AS dropped,
    count(*) FILTER (WHERE status = 'expired') AS expired,
    count(*) FILTER (WHERE status = 'reserved' AND expires_at < now() - interval '1 day') AS reservations_overdue,
    count(*) FILTER (WHERE status = 'released' AND dropped_at IS NULL AND drop_after < now() - interval '2 days') AS drops_overdue
FROM db_allocations"""

# The first step into error out of the making; what becomes of the server later does not count again.
_PROVISIONING_FAILURES = """
SELECT s.server_type, e.name, e.reason, e.happened_at FROM (
    SELECT server_id, kind, happened_at, detail ->> 'name' AS name, detail ->> 'reason' AS reason,
        lag(kind) OVER (PARTITION BY server_id ORDER BY happened_at, id) AS before
    FROM db_events WHERE kind LIKE 'server.%%' AND allocation_id IS NULL
) e JOIN db_servers s ON s.id = e.server_id
WHERE e.kind = 'server.error' AND e.before = ANY (%(making)s) ORDER BY e.happened_at"""

_EVENTS = """
SELECT e.happened_at, e.actor, e.kind, s.name AS server, e.instance_id::text, e.detail ->> 'reason' AS reason
FROM (SELECT * FROM db_events WHERE {0} AND happened_at > now() - interval '30 days' ORDER BY happened_at DESC, id LIMIT %(limit)s) e
LEFT JOIN db_servers s ON s.id = e.server_id ORDER BY e.happened_at DESC, e.id"""

# An allocation's own events say how long it was being moved: they do not change any more, whatever becomes of the move.
_MOVING = """
SELECT '' AS label, extract(epoch FROM ended - began) AS seconds FROM (
    SELECT kind, happened_at AS began, lead(happened_at) OVER (PARTITION BY allocation_id ORDER BY happened_at, id) AS ended
    FROM db_events WHERE allocation_id IN (SELECT allocation_id FROM db_tenant_migrations) AND starts_with(kind, 'allocation.')
) e WHERE kind = 'allocation.migrating' AND ended IS NOT NULL"""
_DURATIONS = {
    "provisioning": (
        "SELECT server_type AS label, extract(epoch FROM activated_at - created_at) AS seconds FROM db_servers"
        " WHERE activated_at IS NOT NULL AND server_type <> 'platform'",
        ("shared", "dedicated"),
        (5, 15, 30, 60, 120, 300, 600, 1800),
    ),
    "allocation": (
        "SELECT '' AS label, extract(epoch FROM activated_at - reserved_at) AS seconds FROM db_allocations WHERE activated_at IS NOT NULL",
        ("",),
        (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900),
    ),
    "moving": (_MOVING, ("",), (10, 30, 60, 300, 900, 1800, 3600, 14400)),
    "downtime": (
        "SELECT '' AS label, (proof ->> 'downtime_seconds')::numeric AS seconds FROM db_tenant_migrations"
        " WHERE status IN ('completed', 'rolled_back') AND jsonb_typeof(proof -> 'downtime_seconds') = 'number'",
        ("",),
        (1, 5, 15, 30, 60, 120, 300, 900),
    ),
}


def read(inventory: Inventory, listed_tenants: int = LISTED_TENANTS) -> Dict[str, Any]:
    """One picture of the fleet: everything in it is of one moment."""
    with inventory.transaction():
        inventory.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        now = inventory.rows("SELECT now()")[0]["now"]
        servers = _servers(inventory)
        fleet: Dict[str, Any] = {
            "generated_at": now,
            "totals": _totals.totals(servers),
            "growth": _capacity.growth(inventory),
            "history": _capacity.history(inventory),
            "available": _capacity.available(inventory),
            "allocations": _allocations(inventory),
            "durations": {name: _durations(inventory, *asked) for name, asked in _DURATIONS.items()},
            "server_steps": _counts(inventory, "server."),
            "cleanup": _counts(inventory, "cleanup."),
            "moves": _moves(inventory),
            "events": _events(inventory),
            "authorities": inventory.rows("SELECT name, current, expires_at FROM db_authorities ORDER BY created_at, id"),
            "servers": servers,
        }
        fleet.update(_provisioning_failures(inventory, now))
        fleet["tenants_listed"] = _add_tenants(inventory, servers, listed_tenants)
    return _shown(fleet)


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(one) for key, one in plain(value).items()}
    if isinstance(value, (list, tuple)):
        return [_shown(one) for one in value]
    return value.isoformat(timespec="seconds") if isinstance(value, datetime.datetime) else value


def _servers(inventory: Inventory) -> List[Dict[str, Any]]:
    hours: Dict[str, List[str]] = {}
    probes: Dict[str, List[int]] = {}
    for row in inventory.rows(_PROBES, {"hours": HOURS - 1}):
        if 0 <= row["hours_ago"] < HOURS:
            worst = "u" if row["unhealthy"] else "d" if row["failed"] else "h"
            hours.setdefault(row["server_id"], ["-"] * HOURS)[HOURS - 1 - row["hours_ago"]] = worst
        told = probes.setdefault(row["server_id"], [0, 0])
        told[0] += row["probes"]
        told[1] += row["failed"]
    servers = inventory.rows(_SERVERS, {"live": list(LIVE)})
    for server in servers:
        server["hours"] = "".join(hours.get(server["id"], ["-"] * HOURS))
        server["probes"], server["probes_failed"] = probes.get(server["id"], (0, 0))
        server["tenants"] = []
    return servers


def _add_tenants(inventory: Inventory, servers: Sequence[Dict[str, Any]], limit: int) -> bool:
    """Give each server its tenants where they are few enough in all; whether they were."""
    found = inventory.rows(_TENANTS, {"live": list(LIVE), "limit": limit + 1})
    by_id = {server["id"]: server for server in servers}
    if len(found) > limit:
        return False
    for row in found:
        server_id = row.pop("server_id")
        if server_id in by_id:
            by_id[server_id]["tenants"].append(row)
    return True


def _allocations(inventory: Inventory) -> Dict[str, Any]:
    live = dict.fromkeys(LIVE, 0)
    for row in inventory.rows(
        "SELECT status, count(*) FROM db_allocations WHERE status = ANY (%(live)s) GROUP BY 1", {"live": list(LIVE)}
    ):
        live[row["status"]] = row["count"]
    told = inventory.rows(_ALLOCATIONS)[0]
    overdue = {name: told.pop(name) for name in ("reservations_overdue", "drops_overdue")}
    return dict(overdue, live=live, steps=told)


def _durations(
    inventory: Inventory, statement: str, labels: Sequence[str], bounds: Sequence[float]
) -> Dict[str, Dict[str, Any]]:
    """A histogram for each label. Seconds are exact numbers, so that a sum never gets smaller by the order of its parts."""
    counted = ", ".join("count(*) FILTER (WHERE seconds <= {0}) AS b{1}".format(bound, at) for at, bound in enumerate(bounds))
    rows = inventory.rows(
        "SELECT label, count(*), coalesce(sum(seconds), 0)::float8 AS sum, {0} FROM ({1}) d GROUP BY 1".format(counted, statement)
    )
    found = {label: {"count": 0, "sum": 0.0, "buckets": [[bound, 0] for bound in bounds]} for label in labels}
    for row in rows:
        buckets = [[bound, row["b{0}".format(at)]] for at, bound in enumerate(bounds)]
        found[row["label"]] = {"count": row["count"], "sum": row["sum"], "buckets": buckets}
    return found


def _counts(inventory: Inventory, prefix: str) -> Dict[str, int]:
    """How often each kind of event happened, by what follows *prefix*."""
    rows = inventory.rows(
        "SELECT kind, count(*) FROM db_events WHERE starts_with(kind, %(prefix)s) AND allocation_id IS NULL GROUP BY 1 ORDER BY 1",
        {"prefix": prefix},
    )
    return {row["kind"][len(prefix) :]: row["count"] for row in rows}


def _provisioning_failures(inventory: Inventory, now: datetime.datetime) -> Dict[str, Any]:
    rows = inventory.rows(
        _PROVISIONING_FAILURES, {"making": ["server.{0}".format(status) for status in IN_THE_MAKING]}
    )
    counted: Dict[Tuple[str, str], int] = {}
    for row in rows:
        row["class"] = _metrics.failure_class(row["reason"] or "")
        key = (row["server_type"], row["class"])
        counted[key] = counted.get(key, 0) + 1
    recent = [row for row in rows if row["happened_at"] > now - datetime.timedelta(days=1)]
    return {
        "provisioning_failures": [
            {"server_type": kind, "class": name, "count": count} for (kind, name), count in sorted(counted.items())
        ],
        "provisioning_failures_recent": recent[-20:],
    }


def _moves(inventory: Inventory) -> Dict[str, Any]:
    counts = inventory.rows(
        "SELECT mode, count(*) AS started, count(*) FILTER (WHERE status IN ('completed', 'rolled_back')) AS ended,"
        " count(*) FILTER (WHERE status = 'rolled_back') AS rolled_back FROM db_tenant_migrations GROUP BY 1"
    )
    running = inventory.rows(
        "SELECT a.instance_id::text, source.name AS source, target.name AS target, m.mode, m.status, m.created_at FROM db_tenant_migrations m"
        " JOIN db_allocations a ON a.id = m.allocation_id JOIN db_servers source ON source.id = m.source_server_id"
        " JOIN db_servers target ON target.id = m.target_server_id"
        " WHERE m.status NOT IN ('completed', 'rolled_back') ORDER BY m.created_at"
    )
    return {"counts": counts, "running": running}


def _events(inventory: Inventory) -> List[Dict[str, Any]]:
    """The latest of the fleet and the latest of tenants: of the latter a busy hour has more than a page should show."""
    found = inventory.rows(_EVENTS.format("allocation_id IS NULL"), {"limit": FLEET_EVENTS})
    found += inventory.rows(_EVENTS.format("allocation_id IS NOT NULL"), {"limit": TENANT_EVENTS})
    return sorted(found, key=lambda event: event["happened_at"], reverse=True)

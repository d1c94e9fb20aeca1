# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of the fleet as Prometheus text. Pure.

Counters are counts of rows that are never deleted (events, allocations, servers, moves), so that they only grow; what is counted from
the health checks, whose history is pruned, is a gauge over the last day.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

PREFIX = "postgres_pools_"
TIMESTAMP = PREFIX + "report_timestamp_seconds"
TYPES = ("shared", "dedicated", "platform")
STATES = ("provisioning", "initializing", "active", "full", "maintenance", "error", "deprovisioning", "deprovisioned")
HEALTH = ("unknown", "healthy", "degraded", "unhealthy")
# Those that probes visit; a server in the making or on its way out says nothing about the fleet's health.
_PROBED = ("active", "full", "maintenance", "error")
_MODES = ("dump", "online")

# By what a message says, the first that fits. The names are label values: a new one is a new series, a changed one breaks old graphs.
_FAILURES: Sequence[Tuple[str, str]] = (
    ("storage", r"no space left|disk (is )?full|cephfs|ceph|nothing is mounted|mount|quota|read-only file system|transport endpoint|directory"),
    ("image", r"image|manifest|pull access|registry"),
    ("placement", r"no suitable node|insufficient resources|scheduling constraints|no node"),
    ("memory", r"memory|shared_buffers|oom|fits \d+ connections"),
    ("certificate", r"certificate|authority|tls|openssl"),
    ("login", r"password|authentication|permission denied|no pg_hba"),
    ("timeout", r"timed? ?out|deadline|did not answer|not answer within|within \d+ s"),
    ("connection", r"cannot be reached|cannot connect|connection (refused|reset|aborted)|unreachable|temporary failure|port .* in use"),
)
FAILURE_CLASSES = tuple(name for name, unused in _FAILURES) + ("other",)

Labels = Mapping[str, str]
Number = Union[int, float]


def failure_class(reason: str) -> str:
    """One of FAILURE_CLASSES for the reason that a server could not be made."""
    for name, pattern in _FAILURES:
        if re.search(pattern, reason, re.IGNORECASE):
            return name
    return "other"


def seconds(moment: Optional[str]) -> Optional[float]:
    """Unix time of an ISO 8601 date or moment; dates begin in UTC."""
    if not moment:
        return None
    found = datetime.datetime.fromisoformat(moment)
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.timezone.utc)
    return found.timestamp()


class Exposition:
    """The text, family by family."""

    def __init__(self) -> None:
        self._lines: List[str] = []

    def text(self) -> str:
        return "".join(line + "\n" for line in self._lines)

    def family(self, name: str, kind: str, told: str, samples: Iterable[Tuple[Labels, Optional[Number]]]) -> None:
        """A sample without a value is left out: it is not known, which is not 0."""
        found = [(labels, value) for labels, value in samples if value is not None]
        if found:
            self._head(name, kind, told)
            self._lines.extend(_sample(PREFIX + name, labels, value) for labels, value in found)

    def gauge(self, name: str, told: str, value: Optional[Number]) -> None:
        self.family(name, "gauge", told, [({}, value)])

    def histogram(self, name: str, told: str, label: str, found: Mapping[str, Mapping[str, Any]]) -> None:
        self._head(name, "histogram", told)
        for value, one in found.items():
            labels = {label: value} if label else {}
            for bound, count in [*one["buckets"], ["+Inf", one["count"]]]:
                self._lines.append(_sample(PREFIX + name + "_bucket", dict(labels, le=_number(bound)), count))
            self._lines.append(_sample(PREFIX + name + "_sum", labels, one["sum"]))
            self._lines.append(_sample(PREFIX + name + "_count", labels, one["count"]))

    def _head(self, name: str, kind: str, told: str) -> None:
        self._lines.append("# HELP {0}{1} {2}".format(PREFIX, name, told.replace("\\", "\\\\").replace("\n", "\\n")))
        self._lines.append("# TYPE {0}{1} {2}".format(PREFIX, name, kind))


def _number(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _sample(name: str, labels: Labels, value: Number) -> str:
    told = ",".join('{0}="{1}"'.format(key, _escaped(one)) for key, one in labels.items())
    return "{0}{1} {2}".format(name, "{%s}" % told if told else "", _number(value))


def _escaped(value: Any) -> str:
    return str(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def render(fleet: Mapping[str, Any]) -> str:
    """All of it. *fleet* is what _report_facts.read() gives."""
    out = Exposition()
    out.gauge("report_timestamp_seconds", "When these figures were read from the inventory database.", seconds(fleet["generated_at"]))
    _of_fleet(out, fleet)
    _of_servers(out, fleet["servers"])
    _of_history(out, fleet)
    return out.text()


def _of_fleet(out: Exposition, fleet: Mapping[str, Any]) -> None:
    by_state = {(kind, state): 0 for kind in TYPES for state in STATES if state != "deprovisioned"}
    by_health = {(kind, health): 0 for kind in TYPES for health in HEALTH}
    for server in fleet["servers"]:
        by_state[server["server_type"], server["status"]] += 1
        if server["status"] in _PROBED:
            by_health[server["server_type"], server["health_status"]] += 1
    out.family(
        "servers", "gauge", "Servers by type and state, without those that are gone.",
        (({"server_type": kind, "status": state}, count) for (kind, state), count in by_state.items()),
    )  # fmt: skip
    out.family(
        "servers_by_health", "gauge", "Servers that are in use, in maintenance or in error, by type and health.",
        (({"server_type": kind, "health": health}, count) for (kind, health), count in by_health.items()),
    )  # fmt: skip
    totals, growth = fleet["totals"], fleet["growth"]
    out.gauge("capacity_instances", "Places of the pools in use.", totals["capacity"])
    out.gauge("used_instances", "Places taken in the pools in use.", totals["used"])
    out.family(
        "available_instances", "gauge", "Tenants of a plan that the pools would take now, by their places, connections and storage.",
        (({"plan_tier": one["plan_tier"]}, one["places"]) for one in fleet["available"]),
    )  # fmt: skip
    out.gauge("growth_instances_per_day", "Tenants that the pools gained a day over the last 30 days.", growth["per_day"])
    out.gauge("full_timestamp_seconds", "When no place is free any more at that pace; missing where there is no such day.", seconds(growth["full_at"]))
    out.family(
        "allocations", "gauge", "Live allocations by state.",
        (({"status": status}, count) for status, count in fleet["allocations"]["live"].items()),
    )  # fmt: skip
    out.gauge("reservations_overdue", "Reservations that ran out more than a day ago and were not ended.", fleet["allocations"]["reservations_overdue"])
    out.gauge("drops_overdue", "Released databases that were to be dropped more than two days ago.", fleet["allocations"]["drops_overdue"])
    running = fleet["moves"]["running"]
    out.gauge("moves_running", "Tenant migrations that have not ended.", len(running))
    out.gauge(
        "move_oldest_start_timestamp_seconds", "When the oldest of them began; missing where none runs.",
        min((seconds(move["created_at"]) or 0 for move in running), default=None),
    )  # fmt: skip
    making = [seconds(server["created_at"]) or 0 for server in fleet["servers"] if server["status"] in ("provisioning", "initializing")]
    out.gauge(
        "provisioning_oldest_start_timestamp_seconds", "When the oldest server that is still being made was begun; missing where there is none.",
        min(making, default=None),
    )  # fmt: skip


# Of each server: the metric, the key of the row or, behind a dot, of what its last probe saw, and what it is.
_GAUGES = (
    ("instances", "current_instances", "Places that are taken."),
    ("instances_max", "max_instances", "Places that the server has."),
    ("connections_promised", "promised_connections", "Connections promised to tenants."),
    ("connections_budget", "connection_budget", "Connections that may be promised."),
    ("storage_promised_bytes", "promised_storage_bytes", "Storage promised to tenants."),
    ("storage_budget_bytes", "storage_budget_bytes", "Storage that may be promised."),
    ("probe_consecutive_failures", "health_check_failures", "Probes that failed since the last good one."),
    ("connections_used", "connections_used", "Connections open at the last probe."),
    ("connections_allowed", ".connections_allowed", "Connections that the server takes."),
    ("databases", "database_count", "Databases at the last probe."),
    ("database_bytes", ".database_bytes", "Size of all databases at the last probe."),
    ("oldest_transaction_seconds", ".oldest_transaction_seconds", "Age of the oldest open transaction at the last probe."),
    ("wraparound_age", ".wraparound_age", "Transactions since the oldest database was frozen, at the last probe."),
    ("slots_inactive", ".slots_inactive", "Replication slots that nobody reads, at the last probe."),
    ("slots_retained_bytes", ".slots_retained_bytes", "WAL that they keep."),
)
_MOMENTS = (
    ("probe_timestamp_seconds", "last_health_check", "When the server was probed last."),
    ("certificate_expiry_timestamp_seconds", "certificate_expires_at", "When the certificate that the server was last seen to serve expires."),
)


def _of_servers(out: Exposition, servers: Sequence[Mapping[str, Any]]) -> None:
    def labels(server: Mapping[str, Any], **more: str) -> Dict[str, str]:
        return dict(more, server=server["name"], server_type=server["server_type"])

    out.family(
        "server_status", "gauge", "1 with the state that the server has now as a label.",
        ((labels(server, status=server["status"]), 1) for server in servers),
    )  # fmt: skip
    out.family(
        "server_health", "gauge", "1 with the health that the server has now as a label.",
        ((labels(server, health=server["health_status"]), 1) for server in servers if server["status"] in _PROBED),
    )  # fmt: skip
    for name, key, told in _GAUGES:
        out.family("server_" + name, "gauge", told, [(labels(server), _figure(server, key)) for server in servers])
    out.family(
        "server_probe_latency_seconds", "gauge", "How long the last probe took.",
        [(labels(one), None if one["latency_ms"] is None else round(one["latency_ms"] / 1000, 6)) for one in servers],
    )  # fmt: skip
    out.family(
        "server_probe_failure_ratio", "gauge", "Share of the probes of the last 24 hours that failed.",
        [(labels(one), round(one["probes_failed"] / one["probes"], 4) if one["probes"] else None) for one in servers],
    )  # fmt: skip
    for name, key, told in _MOMENTS:
        out.family("server_" + name, "gauge", told, [(labels(server), seconds(server[key])) for server in servers])


def _figure(server: Mapping[str, Any], key: str) -> Optional[Number]:
    value = server["detail"].get(key[1:]) if key.startswith(".") else server[key]
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _of_history(out: Exposition, fleet: Mapping[str, Any]) -> None:
    steps, durations, moves = fleet["server_steps"], fleet["durations"], fleet["moves"]["counts"]
    out.family(
        "server_steps_total", "counter", "Steps of servers into each state, from the event log.",
        (({"status": state}, steps.get(state, 0)) for state in STATES),
    )  # fmt: skip
    failures = {(kind, name): 0 for kind in TYPES[:2] for name in FAILURE_CLASSES}
    for one in fleet["provisioning_failures"]:
        failures[one["server_type"], one["class"]] = one["count"]
    out.family(
        "provisioning_failures_total", "counter", "Servers whose making was given up, by type and class of the reason, from the event log.",
        (({"server_type": kind, "reason": name}, count) for (kind, name), count in failures.items()),
    )  # fmt: skip
    out.histogram("provisioning_duration_seconds", "Time from a server's row to its first use.", "server_type", durations["provisioning"])
    out.family(
        "allocation_steps_total", "counter", "Allocations that were reserved, became active, were released, ran out, had their database dropped.",
        (({"step": step}, count) for step, count in fleet["allocations"]["steps"].items()),
    )  # fmt: skip
    out.histogram("allocation_duration_seconds", "Time from an allocation's reservation to its use.", "", durations["allocation"])
    by_mode = {one["mode"]: one for one in moves}
    for name, told in (
        ("started", "Tenant migrations that were begun."),
        ("ended", "Tenant migrations that were completed or rolled back."),
        ("rolled_back", "Tenant migrations that were rolled back."),
    ):
        out.family(
            "moves_{0}_total".format(name), "counter", told,
            (({"mode": mode}, by_mode.get(mode, {}).get(name, 0)) for mode in _MODES),
        )  # fmt: skip
    out.histogram("move_duration_seconds", "Time that allocations were on the move, from the event log.", "", durations["moving"])
    out.histogram("move_downtime_seconds", "Time that tenants could not write while they were moved, as their moves measured it.", "", durations["downtime"])
    out.family(
        "cleanup_steps_total", "counter", "What cleaning up did, by kind, from the event log.",
        (({"kind": kind}, count) for kind, count in fleet["cleanup"].items()),
    )  # fmt: skip

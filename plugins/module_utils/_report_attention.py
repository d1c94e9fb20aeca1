# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in a picture of the fleet needs a hand, the worst first. Pure."""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from ._metrics import seconds

ALARM, WARNING = "alarm", "warning"
UTILIZATION_PERCENT = 80
FULL_SOON_DAYS = 30
PROBE_MINUTES = 30
MAKING_MINUTES = 15
MOVE_MINUTES = 60
CERTIFICATE_DAYS = 30
AUTHORITY_DAYS = 90
_USED = ("active", "full", "maintenance", "error")

Item = Dict[str, Any]
Server = Mapping[str, Any]


def attention(fleet: Mapping[str, Any]) -> List[Item]:
    """Each with ``severity`` (alarm or warning), ``kind``, ``title``, ``lines`` of ``name`` (of a server, or empty) and ``text``, and a ``remedy``."""
    now = seconds(fleet["generated_at"]) or 0
    items = [
        *_servers(sorted(fleet["servers"], key=lambda server: natural(server["name"])), now),
        *_capacity(fleet),
        *_work(fleet, now),
        *_certificates(fleet, now),
    ]
    # The order above is that of weight; sorting is stable.
    return sorted((item for item in items if item["lines"]), key=lambda item: item["severity"] != ALARM)


def natural(name: str) -> Tuple[Any, ...]:
    """A key that puts pool-9 before pool-10."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name))


def worst(items: Sequence[Item]) -> str:
    """``alarm``, ``warning`` or ``ok``."""
    found = {item["severity"] for item in items}
    return ALARM if ALARM in found else WARNING if found else "ok"


def _item(severity: str, kind: str, title: str, lines: Sequence[Dict[str, str]], remedy: str) -> Item:
    return {"severity": severity, "kind": kind, "title": title, "lines": list(lines), "remedy": remedy}


def _line(name: str, text: str) -> Dict[str, str]:
    return {"name": name, "text": text}


def _each(servers: Sequence[Server], holds: Callable[[Server], bool], text: Callable[[Server], str]) -> List[Dict[str, str]]:
    return [_line(server["name"], text(server)) for server in servers if holds(server)]


def _moment(iso: Any) -> str:
    return str(iso)[:16].replace("T", " ") + " UTC" if iso else "never"


def _servers(servers: Sequence[Server], now: float) -> List[Item]:
    pools = [one for one in servers if one["server_type"] == "shared" and one["status"] in _USED]
    down = [one for one in pools if one["health_status"] == "unhealthy"]
    failed = [one for one in servers if one["status"] == "error" and not one["activated_at"]]
    others = [one for one in servers if one not in failed]
    probed = [one for one in others if one["status"] in _USED]

    def since(server: Server) -> str:
        reason = server["status_reason"] or server["problem"] or "no reason was kept"
        return "since {0}: {1}".format(_moment(server["status_changed_at"]), reason)

    def stale(server: Server) -> bool:
        begun = seconds(server["last_health_check"] or server["activated_at"] or server["created_at"]) or 0
        return now - begun > PROBE_MINUTES * 60

    def slow(server: Server) -> bool:
        making = server["status"] in ("provisioning", "initializing")
        return making and now - (seconds(server["created_at"]) or 0) > MAKING_MINUTES * 60

    return [
        _item(
            ALARM, "all-unhealthy", "Every pool is unhealthy",
            [_line("", "{0} of {0} pools".format(len(pools)))] if pools and len(down) == len(pools) else [],
            "Look at what they share: the network, the storage, the host that probes.",
        ),
        _item(
            ALARM, "error", "Servers in error", _each(others, lambda one: one["status"] == "error", since),
            "Mend the cause; health.yml takes the server back when it answers.",
        ),
        _item(
            ALARM, "unhealthy", "Unhealthy servers",
            _each(others, lambda one: one["status"] != "error" and one["health_status"] == "unhealthy", lambda one: one["problem"] or "no problem was kept"),
            "Look at the server's log; health.yml tells what the probe met.",
        ),
        _item(
            WARNING, "failed", "Servers that could not be made", _each(failed, lambda one: True, since),
            "Mend the cause. cleanup.yml removes what is left, once it is proved empty.",
        ),
        _item(
            WARNING, "slow", "Servers that take long to be made",
            _each(servers, slow, lambda one: "{0} since {1}".format(one["status"], _moment(one["created_at"]))),
            "Run provision_pool.yml, which takes over from a maker that died.",
        ),
        _item(
            WARNING, "degraded", "Degraded servers",
            _each(probed, lambda one: one["health_status"] == "degraded", lambda one: one["problem"] or "no problem was kept"),
            "Three failed probes in a row take a server out of placement.",
        ),
        _item(
            WARNING, "stale", "Servers that were not probed lately",
            _each(probed, stale, lambda one: "last probe: {0}".format(_moment(one["last_health_check"]))),
            "Run health.yml every five minutes, and look whether its last run failed.",
        ),
        _item(
            WARNING, "findings", "Found by the last probe", [_line(one["name"], text) for one in probed for text in findings_of(one)],
            "audit.yml looks closer at databases and settings; update_server.yml gives a server more.",
        ),
    ]  # fmt: skip


def findings_of(server: Server) -> List[str]:
    """What the last probe found worth a look, as sentences."""
    found = server["detail"].get("findings") or []
    return [str(one["message"]) if isinstance(one, Mapping) and "message" in one else str(one) for one in found]


def _capacity(fleet: Mapping[str, Any]) -> List[Item]:
    totals, growth = fleet["totals"], fleet["growth"]
    none = [one["plan_tier"] for one in fleet["available"] if not one["places"]]
    full_at, now = seconds(growth["full_at"]), seconds(fleet["generated_at"]) or 0
    soon = full_at is not None and full_at - now < FULL_SOON_DAYS * 86400
    return [
        _item(
            ALARM, "no-capacity", "No pool takes another tenant",
            [_line("", "plans: {0}".format(", ".join(none)))] if none and totals["pools"] else [],
            "Run provision_pool.yml. allocate.yml makes a pool too, where it may, and its caller waits for that.",
        ),
        _item(
            WARNING, "utilization", "The pools are more than {0} % full".format(UTILIZATION_PERCENT),
            [_line("", "{0} of {1} places are taken".format(totals["used"], totals["capacity"]))] if totals["utilization"] > UTILIZATION_PERCENT else [],
            "Run provision_pool.yml, or keep pools ready by postgres_pools_spare.",
        ),
        _item(
            WARNING, "full-soon", "The pools are full soon",
            [_line("", "on {0}, with {1:+.2f} tenants a day".format(growth["full_at"], growth["per_day"]))] if soon else [],
            "Run provision_pool.yml before then.",
        ),
    ]  # fmt: skip


def _work(fleet: Mapping[str, Any], now: float) -> List[Item]:
    overdue = fleet["allocations"]
    left = (
        ("reservations_overdue", "reservations that ran out more than a day ago"),
        ("drops_overdue", "released databases that were to be dropped more than two days ago"),
    )
    return [
        _item(
            ALARM, "moves", "Moves that run for more than an hour",
            [
                _line(one["target"], "instance {instance_id} from {source}, {status} since {0}".format(_moment(one["created_at"]), **one))
                for one in fleet["moves"]["running"]
                if now - (seconds(one["created_at"]) or 0) > MOVE_MINUTES * 60
            ],
            "Look at the run that moves it. Run again, the move goes on; rollback.yml ends it.",
        ),
        _item(
            WARNING, "provisioning", "Servers whose making failed in the last 24 hours",
            [
                _line(one["name"] or "", "{0}: {1}".format(_moment(one["happened_at"]), one["reason"] or "no reason was kept"))
                for one in fleet["provisioning_failures_recent"]
            ],
            "A failure that will not pass by itself says so in its run's message.",
        ),
        _item(
            WARNING, "cleanup", "Left over", [_line("", "{0} {1}".format(overdue[key], text)) for key, text in left if overdue[key]],
            "Run cleanup.yml every night, and look whether its last run failed.",
        ),
    ]  # fmt: skip


def _certificates(fleet: Mapping[str, Any], now: float) -> List[Item]:
    def within(iso: Any, days: int) -> bool:
        return bool(iso) and (seconds(iso) or 0) - now < datetime.timedelta(days=days).total_seconds()

    servers = [one for one in fleet["servers"] if one["tls"] and one["status"] in _USED and within(one["certificate_expires_at"], CERTIFICATE_DAYS)]
    gone = any((seconds(one["certificate_expires_at"]) or 0) <= now for one in servers)
    authorities = [one for one in fleet["authorities"] if one["current"] and within(one["expires_at"], AUTHORITY_DAYS)]
    return [
        _item(
            ALARM if gone else WARNING, "certificates", "Certificates that expire within {0} days".format(CERTIFICATE_DAYS),
            [_line(one["name"], "on {0}".format(_moment(one["certificate_expires_at"]))) for one in servers],
            "Run renew_certificates.yml every day, and look whether its last run failed.",
        ),
        _item(
            WARNING, "authority", "An authority that expires within {0} days".format(AUTHORITY_DAYS),
            [_line("", "{0} on {1}".format(one["name"], _moment(one["expires_at"]))) for one in authorities],
            "Go over to another one: docs/playbooks.md says how.",
        ),
    ]  # fmt: skip

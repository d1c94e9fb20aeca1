# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of the fleet as one HTML page that needs nothing but itself. Pure; every name in it is escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import Any, Dict, Mapping, Sequence, Tuple

from . import _capacity, _report_style
from ._report_attention import attention, findings_of, natural

# More lines than these of one kind, and the page says how many more there are.
LISTED_LINES = 8
_RANK = {"unhealthy": 0, "degraded": 1, "unknown": 2, "healthy": 3}
_MARKS = {"healthy": "●", "degraded": "▲", "unhealthy": "✖", "unknown": "○"}
_SECTIONS = (("shared", "Pools"), ("dedicated", "Dedicated servers"), ("platform", "Servers of the platform"))
_HOUR_CLASSES = (("h", "healthy"), ("d", "degraded"), ("u", "unhealthy"))

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '{hash}'; base-uri 'none'; form-action 'none'">
<title>PostgreSQL pools</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>PostgreSQL pools</h1><p class="soft">As of <time id="generated" datetime="{datetime}">{generated}</time></p></header>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _e(value: Any) -> str:
    return html.escape(str(value), quote=True)


def render(fleet: Mapping[str, Any]) -> str:
    """*fleet* is what _report_facts.read() gives."""
    digest = base64.b64encode(hashlib.sha256(_report_style.SCRIPT.encode()).digest()).decode()
    body = [_attention(fleet), _tiles(fleet), _history(fleet)]
    servers = fleet["servers"]
    if len(servers) > 1:
        body.append(_FILTER)
    body.extend(_section(title, [one for one in servers if one["server_type"] == kind], fleet) for kind, title in _SECTIONS)
    body.append(_events(fleet["events"]))
    return _PAGE.format(
        hash="sha256-" + digest,
        style=_report_style.STYLE,
        script=_report_style.SCRIPT,
        datetime=_e(fleet["generated_at"]),
        generated=_e(moment(fleet["generated_at"])),
        body="\n".join(part for part in body if part),
    )


_FILTER = (
    '<div class="find" hidden><input id="filter" type="search" autocomplete="off" placeholder="Filter by name, state, plan or tenant"'
    ' aria-label="Filter the servers"><span id="shown" class="soft" role="status"></span></div>'
)


def moment(iso: Any) -> str:
    """A time as people read it, to the minute; all times are UTC."""
    return "{0} UTC".format(str(iso)[:16].replace("T", " ")) if iso else "never"


def size(count: Any) -> str:
    """Bytes with the unit that leaves one to three digits before the point."""
    value = float(count or 0)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1000 or unit == "TiB":
            return "{0:.0f} {1}".format(value, unit) if value >= 10 or unit == "B" else "{0:.1f} {1}".format(value, unit)
        value /= 1024
    return ""


def _attention(fleet: Mapping[str, Any]) -> str:
    items = attention(fleet)
    if not items:
        return '<h2>What needs a hand</h2><div class="item ok"><h3>Nothing</h3><p class="soft">No server and no run asks for anything.</p></div>'
    return '<h2>What needs a hand</h2><div class="items">{0}</div>'.format("".join(_item(item) for item in items))


def _item(item: Mapping[str, Any]) -> str:
    lines = ["<li>{0}</li>".format(_named(one["name"], one["text"])) for one in item["lines"][:LISTED_LINES]]
    if len(item["lines"]) > LISTED_LINES:
        lines.append("<li>and {0} more</li>".format(len(item["lines"]) - LISTED_LINES))
    count = " ({0})".format(len(item["lines"])) if len(item["lines"]) > 1 else ""
    return '<section class="item {0}"><span class="tag">{0}</span><h3>{1}{2}</h3><ul>{3}</ul><p class="soft"><small>{4}</small></p></section>'.format(
        item["severity"], _e(item["title"]), count, "".join(lines), _e(item["remedy"])
    )


def _named(name: str, text: str) -> str:
    return '<a href="#s-{0}">{0}</a> {1}'.format(_e(name), _e(text)) if name else _e(text)


def _tiles(fleet: Mapping[str, Any]) -> str:
    totals, allocations = fleet["totals"], fleet["allocations"]
    tiles = [
        ("{0} / {1}".format(totals["active"], totals["pools"]), "pools in use"),
        (totals["dedicated"], "dedicated servers"),
        ("{0} / {1}".format(totals["used"], totals["capacity"]), "places taken"),
        ("{0} %".format(totals["utilization"]), "of the pools' places"),
        (sum(allocations["live"].values()), "tenants"),
        (len(fleet["moves"]["running"]), "moves running"),
    ]
    free = ", ".join("{0} {1}".format(one["places"], one["plan_tier"]) for one in fleet["available"])
    shown = "".join('<div class="card tile"><b>{0}</b><span class="soft">{1}</span></div>'.format(_e(value), _e(told)) for value, told in tiles)
    return '<div class="tiles">{0}</div><p class="soft"><small>The pools would take now, of one plan each: {1}.</small></p>'.format(shown, _e(free) or "none")


def _history(fleet: Mapping[str, Any]) -> str:
    days = fleet["history"]
    highest = max([1] + [max(day["tenants"], day["places"]) for day in days])
    return (
        '<h2>Growth</h2><div class="card"><p>{0}.</p>'
        '<div class="chart"><span class="y" style="top:0">{1}</span><span class="y" style="top:100%">0</span>'
        '<svg viewBox="0 0 {2} 100" preserveAspectRatio="none" role="img" aria-label="Tenants and places in the last days">'
        '<path d="{3}" fill="var(--accent)" fill-opacity=".35"/>'
        '<path d="{4}" fill="none" stroke="var(--accent)" stroke-width="2" vector-effect="non-scaling-stroke"/>'
        '<path d="{5}" fill="none" stroke="var(--soft)" stroke-width="2" stroke-dasharray="5 4" vector-effect="non-scaling-stroke"/></svg></div>'
        '<div class="dates"><span>{6}</span><span>{7}</span></div>'
        '<p class="soft"><small><span class="key" style="background:var(--accent)"></span>tenants in pools'
        '<span class="key" style="background:var(--soft)"></span>places of pools, those in error or maintenance among them</small></p></div>'
    ).format(
        _e(_capacity.summary(fleet["growth"])),
        highest,
        max(1, len(days) - 1),
        _line([day["tenants"] for day in days], highest) + "V100H0Z",
        _line([day["tenants"] for day in days], highest),
        _line([day["places"] for day in days], highest),
        _e(days[0]["day"]),
        _e(days[-1]["day"]),
    )


def _line(values: Sequence[int], highest: int) -> str:
    return "M" + "L".join("{0} {1:g}".format(at, round(100 - 100.0 * value / highest, 1)) for at, value in enumerate(values))


def _section(title: str, servers: Sequence[Mapping[str, Any]], fleet: Mapping[str, Any]) -> str:
    if not servers:
        return ""
    order = sorted(servers, key=_order)
    note = "" if fleet["tenants_listed"] else " Which tenants a server has, pools.yml -e server=NAME says."
    return (
        '<h2>{0} ({1})</h2><p class="soft"><small>The worst first, then by name. The strip shows the last 24 hours; a card opens to more.{3}</small></p>'
        '<div class="servers">{2}</div>'
    ).format(_e(title), len(servers), "\n".join(_server(one) for one in order), note)


def _order(server: Mapping[str, Any]) -> Tuple[Any, ...]:
    return (_RANK[health_of(server)], natural(server["name"]))


def health_of(server: Mapping[str, Any]) -> str:
    """The colour of a server: one in error is not well, whatever its last probe said."""
    return "unhealthy" if server["status"] == "error" else server["health_status"]


def _bar(used: Any, limit: Any) -> str:
    share = min(100.0, 100.0 * (used or 0) / limit) if limit else 0.0
    return '<div class="bar"><i style="width:{0:g}%"></i></div>'.format(round(share, 1))


def _server(server: Mapping[str, Any]) -> str:
    health = health_of(server)
    state = server["status"] if server["status"] == "error" or server["health_status"] == "unknown" else "{0}, {1}".format(
        server["status"], server["health_status"]
    )  # fmt: skip
    plans = ["{0} {1}".format(count, plan) for plan, count in sorted(server["tenants_by_plan"].items())]
    words = [server["name"], server["server_type"], server["status"], server["health_status"], *sorted(server["tenants_by_plan"])]
    words += [word for tenant in server["tenants"] for word in (tenant["instance_id"], tenant["database"])]
    return (
        '<details class="s {health}" id="s-{name}" data-find="{words}"><summary><div class="top"><b>{name}</b><span>{used} / {places}</span></div>'
        '<span class="state">{mark} {state}</span>{bar}'
        '<div class="thin"><div>storage {storage} %{storage_bar}</div><div>connections {connections} %{connections_bar}</div></div>{hours}</summary>'
        "{detail}</details>"
    ).format(
        health=health,
        name=_e(server["name"]),
        words=_e(" ".join(words).lower()),
        used=server["current_instances"],
        places=server["max_instances"],
        mark=_MARKS[health],
        state=_e(state),
        bar=_bar(server["current_instances"], server["max_instances"]),
        storage=_percent(server["promised_storage_bytes"], server["storage_budget_bytes"]),
        storage_bar=_bar(server["promised_storage_bytes"], server["storage_budget_bytes"]),
        connections=_percent(server["promised_connections"], server["connection_budget"]),
        connections_bar=_bar(server["promised_connections"], server["connection_budget"]),
        hours=_hours(server["hours"]),
        detail=_detail(server, plans),
    )


def _percent(used: Any, limit: Any) -> int:
    return round(100.0 * (used or 0) / limit) if limit else 0


def _hours(hours: str) -> str:
    """One path for each health, so that a thousand servers' strips stay small."""
    if not hours.strip("-"):
        return ""
    paths = []
    for letter, name in _HOUR_CLASSES:
        runs = "".join("M{0} 0h{1}v1h-{1}z".format(run.start(), len(run.group())) for run in re.finditer(letter + "+", hours))
        if runs:
            paths.append('<path fill="var(--{0})" d="{1}"/>'.format(name, runs))
    return '<svg class="hours" viewBox="0 0 {0} 1" preserveAspectRatio="none" aria-hidden="true">{1}</svg>'.format(len(hours), "".join(paths))


def _detail(server: Mapping[str, Any], plans: Sequence[str]) -> str:
    detail = server["detail"]
    facts: Dict[str, Any] = {
        "reason": server["status_reason"],
        "problem": server["problem"] if server["problem"] != server["status_reason"] else None,
        "found": " ".join(findings_of(server)),
        "tenants": ", ".join(plans),
        "address": "{0}:{1}, {2}{3}".format(server["host"], server["port"], server["backend"], ", TLS" if server["tls"] else ""),
        "storage": "{0} of {1} promised{2}".format(
            size(server["promised_storage_bytes"]),
            size(server["storage_budget_bytes"]),
            ", {0} on disk".format(size(detail["database_bytes"])) if detail.get("database_bytes") is not None else "",
        ),
        "connections": "{0} of {1} promised{2}".format(
            server["promised_connections"],
            server["connection_budget"],
            ", {0} open".format(server["connections_used"]) if server["connections_used"] is not None else "",
        ),
        "probes": _probes(server),
        "PostgreSQL": _version(server["postgres_version"]),
        "certificate": "until " + moment(server["certificate_expires_at"]) if server["certificate_expires_at"] else None,
        "placement": "by hand only" if server["allocation_strategy"] == "manual" else None,
        "state since": moment(server["status_changed_at"]),
        "made": moment(server["created_at"]),
    }
    listed = "".join("<li><code>{0}</code> {1}, {2}</li>".format(_e(one["instance_id"]), _e(one["plan_tier"]), _e(one["status"])) for one in server["tenants"])
    told = "".join("<dt>{0}</dt><dd>{1}</dd>".format(_e(name), _e(value)) for name, value in facts.items() if value not in (None, ""))
    return "<dl>{0}</dl>{1}".format(told, "<ul>{0}</ul>".format(listed) if listed else "")


def _version(recorded: Any) -> Any:
    """15.14 where the server's number 150014 is recorded; an image's version as it stands."""
    text = str(recorded or "")
    return "{0}.{1}".format(int(text) // 10000, int(text) % 10000) if re.fullmatch("[0-9]{6}", text) else recorded


def _probes(server: Mapping[str, Any]) -> str:
    told = "last {0}".format(moment(server["last_health_check"]))
    if server["latency_ms"] is not None:
        told += ", {0:.1f} ms".format(server["latency_ms"])
    if server["probes"]:
        told += "; {0} of {1} failed in 24 hours".format(server["probes_failed"], server["probes"])
    return told


def _events(events: Sequence[Mapping[str, Any]]) -> str:
    if not events:
        return ""
    rows = "".join(
        "<tr><td><time>{0}</time></td><td>{1}</td><td>{2}</td><td>{3}</td></tr>".format(
            _e(moment(one["happened_at"])[:-4]),
            _e(one["kind"]),
            _e(" ".join(filter(None, (one["server"], one["instance_id"] and "instance " + one["instance_id"])))),
            _e(" ".join(filter(None, (one["reason"], "by " + one["actor"])))),
        )
        for one in events
    )
    head = "<thead><tr><th>when (UTC)</th><th>what</th><th>where</th><th>why, by whom</th></tr></thead>"
    return '<h2>Recent events</h2><div class="card scroll"><table class="events">{0}<tbody>{1}</tbody></table></div>'.format(head, rows)

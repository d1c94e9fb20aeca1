# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import html.parser
import os
import re
import stat
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _report_attention,
    _report_files,
    _report_page,
    _report_style,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from fleet_sample import FLEET, fleet, server

AN_HOUR_AGO = "2026-11-22T10:55:00+00:00"
MOVE = {"instance_id": "i", "source": "a", "target": "b", "mode": "dump", "status": "copying", "created_at": AN_HOUR_AGO}
SAVED_BY_A_MINUTE = dict(MOVE, created_at="2026-11-22T11:01:00+00:00")
FAILURE = {"name": "postgres-pool-9", "server_type": "shared", "class": "storage", "reason": "the disk is full", "happened_at": AN_HOUR_AGO}
FAILED = server(status="error", activated_at=None, status_reason="no image")


def with_server(**changed: Any) -> Dict[str, Any]:
    return {"servers": [server(**changed)]}


# What is wrong, by the kind that has to be told for it and nothing else; and the same just before it is wrong.
CASES = [
    ("error", {"servers": [server(name="b", status="error", status_reason="refused"), server()]}, with_server(status="maintenance")),
    ("unhealthy", {"servers": [server(name="b", health_status="unhealthy"), server()]}, with_server(health_status="unknown")),
    ("degraded", with_server(health_status="degraded"), with_server()),
    ("failed", {"servers": [FAILED, server(name="b")]}, with_server()),
    (
        "slow",
        with_server(status="initializing", created_at="2026-11-22T11:44:00+00:00"),
        with_server(status="initializing", created_at="2026-11-22T11:46:00+00:00"),
    ),
    ("stale", with_server(last_health_check="2026-11-22T11:29:00+00:00"), with_server(last_health_check="2026-11-22T11:31:00+00:00")),
    ("stale", with_server(last_health_check=None), with_server(last_health_check=None, activated_at="2026-11-22T11:50:00+00:00")),
    ("findings", with_server(detail={"findings": [{"kind": "storage", "message": "It is nearly full."}]}), with_server(detail={"findings": []})),
    ("no-capacity", {"available": [{"plan_tier": "standard", "places": 0}]}, {"available": [{"plan_tier": "standard", "places": 1}]}),
    ("utilization", {"totals": dict(FLEET["totals"], utilization=80.1)}, {"totals": dict(FLEET["totals"], utilization=80.0)}),
    ("full-soon", {"growth": dict(FLEET["growth"], full_at="2026-12-20")}, {"growth": dict(FLEET["growth"], full_at="2026-12-24")}),
    ("moves", {"moves": {"counts": [], "running": [MOVE]}}, {"moves": {"counts": [], "running": [SAVED_BY_A_MINUTE]}}),
    ("provisioning", {"provisioning_failures_recent": [FAILURE]}, {}),
    ("cleanup", {"allocations": dict(FLEET["allocations"], drops_overdue=1)}, {"allocations": dict(FLEET["allocations"], drops_overdue=0)}),
    ("cleanup", {"allocations": dict(FLEET["allocations"], reservations_overdue=1)}, {}),
    (
        "certificates",
        with_server(tls=True, certificate_expires_at="2026-12-22T00:00:00+00:00"),
        with_server(tls=True, certificate_expires_at="2026-12-23T00:00:00+00:00"),
    ),
    (
        "authority",
        {"authorities": [{"name": "a", "current": True, "expires_at": "2027-02-01T00:00:00+00:00"}]},
        {"authorities": [{"name": "a", "current": False, "expires_at": "2027-02-01T00:00:00+00:00"}]},
    ),
]


@pytest.mark.parametrize(("kind", "wrong", "right"), CASES, ids=[case[0] for case in CASES])
def test_what_needs_a_hand_is_told_and_nothing_else(kind: str, wrong: Dict[str, Any], right: Dict[str, Any]) -> None:
    (item,) = _report_attention.attention(fleet(**wrong))
    assert item["kind"] == kind and item["lines"] and item["remedy"].endswith(".")
    assert _report_attention.attention(fleet(**right)) == []
    assert _report_attention.worst([item]) == item["severity"]


def test_every_pool_unhealthy_is_said_above_all() -> None:
    both = [server(health_status="unhealthy"), server(name="b", status="error", health_status="unhealthy")]
    kinds = [item["kind"] for item in _report_attention.attention(fleet(servers=both))]
    assert kinds == ["all-unhealthy", "error", "unhealthy"]
    assert "all-unhealthy" not in [item["kind"] for item in _report_attention.attention(fleet(servers=[*both, server(name="c")]))]


def test_alarms_come_before_warnings_and_servers_by_their_number() -> None:
    servers = [server(name="pool-10", health_status="degraded"), server(name="pool-9", health_status="degraded"), server(name="x", status="error")]
    items = _report_attention.attention(fleet(servers=servers, totals=dict(FLEET["totals"], utilization=99.0)))
    assert [item["severity"] for item in items] == ["alarm", "warning", "warning"]
    assert [line["name"] for line in items[1]["lines"]] == ["pool-9", "pool-10"]
    assert _report_attention.worst(items) == "alarm" and _report_attention.worst([]) == "ok"


def test_an_expired_certificate_is_an_alarm() -> None:
    gone = with_server(tls=True, certificate_expires_at="2026-11-22T11:00:00+00:00")
    assert _report_attention.attention(fleet(**gone))[0]["severity"] == "alarm"


# --- the page


class Tags(html.parser.HTMLParser):
    """Every element with its attributes; refuses what is not closed or has another's end."""

    VOID = ("meta", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: List[str] = []
        self.found: List[Any] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID and tag != "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> List[Any]:
    reader = Tags()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader.found


EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


def test_nothing_in_a_name_becomes_markup() -> None:
    tenant = {"instance_id": EVIL, "customer_id": EVIL, "plan_tier": EVIL, "status": EVIL, "database": EVIL}
    event = {"happened_at": AN_HOUR_AGO, "actor": EVIL, "kind": EVIL, "server": EVIL, "instance_id": EVIL, "reason": EVIL}
    evil = server(
        name=EVIL, status="error", status_reason=EVIL, problem=EVIL, postgres_version=EVIL, host=EVIL, tenants=[tenant], tenants_by_plan={EVIL: 1},
        detail={"findings": [EVIL]},
    )  # fmt: skip
    page = _report_page.render(
        fleet(
            servers=[evil, server()], events=[event], available=[{"plan_tier": EVIL, "places": 0}], provisioning_failures_recent=[dict(FAILURE, reason=EVIL)],
            moves={"counts": [], "running": [dict(MOVE, source=EVIL, target=EVIL, instance_id=EVIL)]},
            authorities=[{"name": EVIL, "current": True, "expires_at": AN_HOUR_AGO}],
        )
    )  # fmt: skip
    tags = parsed(page)
    assert [tag for tag, unused in tags].count("script") == 1
    assert not [tag for tag, attributes in tags if tag == "img" or any(name.startswith("on") for name in attributes)]
    assert page.count("alert(1)") > 10


def test_nothing_comes_from_elsewhere() -> None:
    page = _report_page.render(fleet(servers=[server(name=str(number)) for number in range(3)]))
    for tag, attributes in parsed(page):
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not {"src", "srcset", "data", "action"} & set(attributes), attributes
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    assert "default-src 'none'" in page


def test_the_worst_come_first() -> None:
    servers = [server(name="pool-10"), server(name="pool-9"), server(name="pool-11", health_status="degraded"), server(name="pool-12", status="error")]
    page = _report_page.render(fleet(servers=servers))
    assert re.findall(r'<details class="s \w+" id="s-([^"]+)"', page) == ["pool-12", "pool-11", "pool-9", "pool-10"]


def test_bars_show_what_is_used_and_never_more() -> None:
    page = _report_page.render(fleet(servers=[server(current_instances=20, promised_storage_bytes=500 << 30, promised_connections=0, connection_budget=0)]))
    assert re.findall(r'<i style="width:([0-9.]+)%"', page) == ["40", "100", "0"]


def test_a_card_says_what_is_known_and_nothing_twice() -> None:
    found = {"findings": [{"kind": "storage", "message": "It is nearly full."}], "database_bytes": 3 << 29}
    page = _report_page.render(fleet(servers=[server(status="error", status_reason="refused", problem="refused", detail=found)]))
    told = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page))
    assert told["reason"] == "refused" and "problem" not in told and "certificate" not in told
    assert told["found"] == "It is nearly full." and told["PostgreSQL"] == "15.14"
    assert told["storage"] == "30 GiB of 250 GiB promised, 1.5 GiB on disk"
    assert told["probes"] == "last 2026-11-22 11:58 UTC, 2.5 ms; 0 of 288 failed in 24 hours"


@pytest.mark.parametrize(("count", "told"), [(0, "0 B"), (999, "999 B"), (1 << 20, "1.0 MiB"), (300 << 30, "300 GiB"), (5000 << 40, "5000 TiB"), (None, "0 B")])
def test_sizes_have_a_unit_that_fits(count: Any, told: str) -> None:
    assert _report_page.size(count) == told


def contrast(one: str, other: str) -> float:
    """By WCAG 2: 4.5 and more can be read by most."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_written_can_be_read(scheme: int) -> None:
    sets = [dict(re.findall(r"--([a-z]+):(#[0-9a-f]{6}|#[0-9a-f]{3})", block)) for block in re.findall(r":root\{([^}]*)\}", _report_style.STYLE)]
    colours = {name: value if len(value) == 7 else "#" + "".join(letter * 2 for letter in value[1:]) for name, value in sets[scheme].items()}
    assert len(sets) == 2 and set(sets[0]) == set(sets[1])
    for text in ("text", "soft", "healthy", "degraded", "unhealthy", "unknown", "accent"):
        for behind in ("card", "page"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)


def test_an_empty_fleet_has_a_page() -> None:
    page = _report_page.render(fleet(servers=[], history=[{"day": "2026-11-22", "tenants": 0, "places": 0}], available=[]))
    parsed(page)
    assert "Pools (" not in page and 'id="filter"' not in page


def test_a_thousand_servers_are_less_than_two_megabytes() -> None:
    tenants = [{"instance_id": "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90", "plan_tier": "standard", "status": "active", "database": "odoo_" + "x" * 32}] * 2
    worst = [server(name="postgres-pool-{0}".format(number), hours="hdu" * 8, tenants=tenants, problem="connection refused " * 5) for number in range(1000)]
    assert len(_report_page.render(fleet(servers=worst)).encode()) < 2_000_000


# --- the files


def test_files_are_for_everybody_and_new_only_by_more_than_the_time(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        changed, told = _report_files.made(fleet(), str(tmp_path / "page"), str(tmp_path / "metrics"), check_mode=False)
    finally:
        os.umask(old)
    page, metrics = Path(told["page"]), Path(told["metrics"])
    assert changed and told["written"] == [str(page), str(metrics)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (page, metrics, page.parent)] == [0o644, 0o644, 0o755]
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["index.html", "postgres_pools.prom"]

    later = fleet(generated_at="2026-11-22T12:05:00+00:00")
    changed, told = _report_files.made(later, str(page.parent), str(metrics.parent), check_mode=False)
    assert not changed and told["written"] == []
    # Written all the same: a collector's figures are old when their time is.
    assert "12:05" in page.read_text() and "report_timestamp_seconds 1795349100\n" in metrics.read_text()

    more = fleet(generated_at="2026-11-22T12:06:00+00:00", totals=dict(FLEET["totals"], used=11))
    before = [path.read_text() for path in (page, metrics)]
    assert _report_files.made(more, str(page.parent), str(metrics.parent), check_mode=True)[0]
    assert before == [path.read_text() for path in (page, metrics)]
    assert _report_files.made(more, str(page.parent), str(metrics.parent), check_mode=False)[0]
    metrics.chmod(0o600)
    assert _report_files.made(more, str(page.parent), str(metrics.parent), check_mode=False)[1]["written"] == [str(metrics)]


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_directory_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, check_mode: bool) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PoolsError, match="cannot be written"):
        _report_files.made(fleet(), str(tmp_path / "page"), str(tmp_path / "file" / "metrics"), check_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: what is read for it, the playbook that writes it, and the page as Chromium shows it at 3, 100 and 1,000 servers."""

from __future__ import annotations

import contextlib
import html
import json
import re
import stat
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _capacity, _report_facts, _report_page
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from debian_programs import browser
from environment import Environment, environment, instances
from registry_fixture import Registry, bin_dirs, registry_server
from report_fixture import FILL, fill

SIZES = (3, 100, 1000)
WIDTHS = {"phone": 390, "desk": 1280}
LONGEST = "x" * 63


@pytest.fixture(scope="module", params=bin_dirs())
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    with registry_server(request.param) as made:
        yield made


def read(registry: Registry, **options: Any) -> Dict[str, Any]:
    with registry.open() as inventory:
        # As Ansible hands it on.
        return dict(json.loads(json.dumps(_report_facts.read(inventory, **options))))


# --- what is read


def test_a_picture_is_what_the_rows_say(make: Any) -> None:
    registry: Registry = make()
    registry.pool("postgres-pool-a", 10)
    registry.pool("postgres-pool-gone", 10, status="maintenance")
    for status in ("deprovisioning", "deprovisioned"):
        registry.query("UPDATE db_servers SET status = %s WHERE name = 'postgres-pool-gone'", (status,))
    places = [registry.place(making=False) for unused in range(3)]
    registry.query("UPDATE db_allocations SET status = 'active', activated_at = now() WHERE id = %s", (places[0]["allocation_id"],))
    registry.query(
        "INSERT INTO db_health_checks (server_id, health_status, latency_ms, problem, checked_at) SELECT id, h.health, 1.5, h.problem, now() - h.ago"
        " FROM db_servers, (VALUES ('healthy', NULL, interval '0'), ('degraded', 'refused', interval '2 hours'),"
        " ('unhealthy', 'refused', interval '2 hours 1 second'), ('unhealthy', 'long ago', interval '2 days')) h (health, problem, ago)"
        " WHERE name = 'postgres-pool-a'"
    )
    fleet = read(registry)
    (server,) = fleet["servers"]
    assert (server["name"], server["current_instances"], server["tenants_by_plan"]) == ("postgres-pool-a", 3, {"standard": 3})
    assert {one["instance_id"] for one in server["tenants"]} == {one["instance_id"] for one in places}
    assert (server["latency_ms"], server["problem"], server["probes"], server["probes_failed"]) == (1.5, None, 3, 2)
    # A second can lie in the hour before.
    assert re.fullmatch(r"-{20,21}[u-][ud]-h|-{21}u-h", server["hours"]), server["hours"]
    assert fleet["totals"] == {"pools": 1, "active": 1, "dedicated": 0, "capacity": 10, "used": 3, "utilization": 30.0}
    assert {one["plan_tier"]: one["places"] for one in fleet["available"]}["standard"] == 7
    assert fleet["allocations"]["live"] == {"reserved": 2, "active": 1, "migrating": 0, "releasing": 0}
    assert [event["kind"] for event in fleet["events"]].count("allocation.reserved") == 1
    assert fleet["events"] == sorted(fleet["events"], key=lambda event: event["happened_at"], reverse=True)
    assert "gAAAA" not in json.dumps(fleet)


def test_tenants_are_listed_where_they_are_few(make: Any) -> None:
    registry: Registry = make()
    registry.pool("postgres-pool-a", 10)
    registry.place(making=False)
    registry.place(making=False)
    assert read(registry, listed_tenants=2)["tenants_listed"]
    few = read(registry, listed_tenants=1)
    assert not few["tenants_listed"] and few["servers"][0]["tenants"] == [] and few["servers"][0]["tenants_by_plan"] == {"standard": 2}


@pytest.mark.parametrize(
    ("limit", "column"), [("places", "max_instances = 2"), ("connections", "connection_budget = 12"), ("storage", "storage_budget_bytes = 6::bigint << 30")]
)
def test_what_a_pool_would_take_is_what_it_takes(make: Any, limit: str, column: str) -> None:
    """As many as said, and then none: placement itself is asked."""
    registry: Registry = make()
    registry.pool("postgres-pool-a", 10)
    registry.pool("postgres-pool-manual", 10, allocation_strategy="manual")
    registry.pool("postgres-pool-ill", 10, health_status="unhealthy")
    registry.query("UPDATE db_servers SET {0} WHERE name = 'postgres-pool-a'".format(column))
    for left in (2, 1, 0):
        assert {one["plan_tier"]: one["places"] for one in read(registry)["available"]}["standard"] == left
        if left:
            registry.place(making=False)
    with pytest.raises(PoolsError, match="No shared server has room"):
        registry.place(making=False)


def test_growth_is_counted_from_the_allocations(make: Any) -> None:
    registry: Registry = make()
    registry.pool("postgres-pool-a", 50)
    places = [registry.place(making=False) for unused in range(6)]
    for days, place in zip((50, 40, 20, 10, 5, 1), places):
        registry.query(
            "UPDATE db_allocations SET status = 'active', activated_at = now() - %s * interval '1 day' WHERE id = %s", (days, place["allocation_id"])
        )
    # One that came before the window left in it, one came and left within.
    for days, place in ((8, places[0]), (4, places[3])):
        registry.query("UPDATE db_allocations SET status = 'releasing' WHERE id = %s", (place["allocation_id"],))
        registry.query(
            "UPDATE db_allocations SET status = 'released', released_at = now() - %s * interval '1 day' WHERE id = %s", (days, place["allocation_id"])
        )
    registry.query("UPDATE db_servers SET activated_at = now() - interval '60 days'")
    with registry.open() as inventory:
        told, history = _capacity.growth(inventory), _capacity.history(inventory)
        today = inventory.rows("SELECT ((now() AT TIME ZONE 'UTC')::date + 690)::text AS day")[0]["day"]
    # 2 then, 4 now, 46 places left at 2 in 30 days.
    assert told == {"days": 30, "instances": 2, "per_day": 0.07, "full_at": today, "reason": None}
    tenants = [day["tenants"] for day in history]
    assert len(history) == 31 and {day["places"] for day in history} == {50}
    assert [tenants[0], tenants[15], tenants[-7], tenants[-6], tenants[-3], tenants[-1]] == [2, 3, 3, 4, 3, 4]


# --- the playbook


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("provision_pool", {"server": "postgres-pool-seen", "max_instances": 4}).succeeded()
        made.play("allocate", {"allocations": instances(2)}).succeeded()
        yield made


def test_the_report_is_written_where_it_is_asked_for(scratch: Environment) -> None:
    folder, result = scratch.home / "report", scratch.home / "report.json"
    variables = {"report_dir": str(folder), "result_file": str(result)}
    before = scratch.dump()
    checked = scratch.play("report", variables, "--check", "--diff").succeeded()
    assert checked.changed == 1 and not folder.exists() and not result.exists()

    outcome = scratch.play("report", variables).succeeded()
    page, metrics = (folder / name for name in ("index.html", "postgres_pools.prom"))
    assert outcome.changed == 1 + 1
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, page, metrics, result)] == [0o755, 0o644, 0o644, 0o600]
    told = json.loads(result.read_text())
    assert told == outcome.stats
    assert set(told) == {"status", "page", "metrics", "attention", "totals", "growth"}
    assert (told["status"], told["page"], told["metrics"]) == ("ok", str(page), str(metrics)), told
    assert told["totals"]["used"] == 2 and told["growth"]["reason"].startswith("too little history")
    assert 'id="s-postgres-pool-seen"' in page.read_text()
    assert 'postgres_pools_server_instances{server="postgres-pool-seen",server_type="shared"} 2' in metrics.read_text()

    for text in (page.read_text(), metrics.read_text(), outcome.output):
        assert "gAAAA" not in text
        for secret in (scratch.secret("database_service"), scratch.secret("inventory_admin"), *scratch.secret("keys").split()):
            assert secret not in text

    first = [path.read_text() for path in (page, metrics)]
    assert scratch.play("report", variables).succeeded().changed == 0
    # The time in them is new all the same: figures that are not renewed are old.
    assert [path.read_text() for path in (page, metrics)] != first
    assert scratch.dump() == before

    scratch.execute("UPDATE db_servers SET health_status = 'degraded', status_reason = NULL")
    again = scratch.play("report", variables).succeeded()
    # The only pool takes nobody while it is not well.
    assert again.changed == 2 and again.stats["status"] == "alarm"
    assert [one["kind"] for one in again.stats["attention"]] == ["no-capacity", "degraded"]
    scratch.execute("UPDATE db_servers SET health_status = 'healthy'")


def test_a_directory_that_cannot_be_is_an_error_that_names_it(scratch: Environment) -> None:
    outcome = scratch.play("report", {"report_dir": "/dev/null/report"})
    assert outcome.rc != 0 and "/dev/null/report/index.html cannot be written" in outcome.output and "Traceback" not in outcome.output


def test_pools_tells_the_growth(scratch: Environment) -> None:
    result = scratch.home / "pools.json"
    told = scratch.play("pools", {"result_file": str(result)}).succeeded().stats
    assert told["growth"] == json.loads(result.read_text())["growth"]
    assert (told["growth"]["days"], told["growth"]["full_at"]) == (0, None)


def test_a_thousand_servers_take_one_run(scratch: Environment) -> None:
    """Beside the real one, whose row stays as it is."""
    with contextlib.closing(scratch.inventory()) as connection, connection.cursor() as cursor:
        cursor.execute(FILL.replace("postgres-pool-", "postgres-pool-many-"), {"servers": 1000})
    outcome = scratch.play("report", {"report_dir": str(scratch.home / "many")}).succeeded()
    assert outcome.seconds < 60 and outcome.stats["status"] == "alarm"
    page = scratch.home / "many" / "index.html"
    assert page.stat().st_size < 2_000_000 and page.read_text().count('<details class="s ') == 1001


# --- the page in Chromium


@pytest.fixture(scope="module")
def pages(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Dict[int, Path]:
    """With what is hard to fit among them: the longest names, a reason without a blank."""
    found = {}
    for size in SIZES:
        registry = make()
        fill(registry, size)
        registry.query(
            "UPDATE db_servers SET name = %s, status_reason = %s, status = 'error' WHERE name = 'postgres-pool-2'", (LONGEST, "y" * 400)
        )
        registry.query("INSERT INTO db_events (kind, actor, detail) VALUES (%s, %s, %s)", ("z" * 90, "actor" * 20, json.dumps({"reason": "y" * 300})))
        found[size] = tmp_path_factory.mktemp("page") / "index.html"
        found[size].write_text(_report_page.render(read(registry)))
    return found


def measured(page: Path, expression: str, *flags: str, width: int = 1280) -> Any:
    """What *expression* is in the page, in a frame: a window cannot be as narrow as a phone's, and the page's own policy lets no script in but its own."""
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    assert count == 1
    frame = page.with_name("{0}.html".format(uuid.uuid4().hex))
    frame.write_text(
        '<title></title><iframe style="border:0;width:{0}px;height:900px" srcdoc="{1}"></iframe><script>const frame = document.querySelector("iframe");'
        "frame.onload = () => {{ document.title = JSON.stringify(frame.contentWindow.eval({2})) }}</script>".format(
            width, html.escape(text), json.dumps(expression)
        )
    )
    told = re.search(r"<title>(.*?)</title>", browser(*flags, "--dump-dom", frame.as_uri()))
    assert told and told.group(1)
    return json.loads(html.unescape(told.group(1)))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_window(pages: Dict[int, Path], size: int, width: str) -> None:
    opened = "(document.querySelectorAll('details').forEach(d => d.open = true), [innerWidth, document.documentElement.scrollWidth])"
    assert measured(pages[size], opened, width=WIDTHS[width]) == [WIDTHS[width], WIDTHS[width]]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_there_can_be_seen(pages: Dict[int, Path], size: int) -> None:
    """Every server has a card with a bar as wide as its use, and the first thing below the title is what needs a hand."""
    # Cards outside of the window are not laid out before they are scrolled to, unless they are told to.
    bars = (
        "[...document.querySelectorAll('.s')].map(c => (c.style.contentVisibility = 'visible', c))"
        ".filter(c => c.offsetHeight > 40 && c.querySelector('.bar i').offsetWidth > 0).length"
    )
    first = "document.querySelector('.item').className + ' ' + document.querySelector('.item a').textContent"
    titles = "[...document.querySelectorAll('h2')].map(h => h.textContent)"
    cards, item, found = measured(pages[size], "[{0}, {1}, {2}]".format(bars, first, titles))
    assert cards == size
    assert item == "item alarm " + (LONGEST if size < 15 else "postgres-pool-15")
    assert found[:2] == ["What needs a hand", "Growth"] and found[-1] == "Recent events"


def test_light_and_dark_follow_the_reader(pages: Dict[int, Path]) -> None:
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.s')).backgroundColor]"
    dark = measured(pages[3], colours, "--blink-settings=preferredColorScheme=0")
    light = measured(pages[3], colours, "--blink-settings=preferredColorScheme=1")
    assert light == ["rgb(246, 247, 249)", "rgb(255, 255, 255)"] and dark == ["rgb(18, 22, 28)", "rgb(27, 33, 41)"]


def test_the_filter_works_under_the_pages_own_policy(pages: Dict[int, Path]) -> None:
    def shown(asked: str) -> str:
        text = browser("--dump-dom", pages[100].as_uri() + asked)
        hidden = len(re.findall(r'<details class="s [^>]*hidden=""', text))
        (told,) = re.findall(r'<span id="shown"[^>]*>([^<]*)</span>', text)
        assert told == "{0} of 100 servers".format(100 - hidden)
        return str(told)

    assert shown("") == "100 of 100 servers"
    assert shown("#q=degraded") == "5 of 100 servers"
    assert shown("#q=DEDICATED%20premium") == "10 of 100 servers"
    assert shown("#q=nothing-like-it") == "0 of 100 servers"


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_of_it_can_be_taken(pages: Dict[int, Path], tmp_path: Path, size: int) -> None:
    for scheme in (0, 1):
        for name, width in WIDTHS.items():
            picture = tmp_path / "{0}-{1}.png".format(name, scheme)
            browser(
                "--window-size={0},1600".format(width), "--blink-settings=preferredColorScheme={0}".format(scheme),
                "--screenshot={0}".format(picture), pages[size].as_uri(),
            )  # fmt: skip
            content = picture.read_bytes()
            # An empty window of that size has a twentieth of it.
            assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20], "big") == width and len(content) > 40_000, picture

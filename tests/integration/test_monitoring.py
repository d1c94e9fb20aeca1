# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules, the metrics and the dashboard, as Prometheus itself sees them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
import yaml
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _metrics, _report_facts
from debian_programs import monitoring
from environment import ROOT, Environment, environment, instances
from postgres_fixture import free_port
from registry_fixture import Registry, bin_dirs, registry_server
from report_fixture import fill

FILES = ROOT / "roles" / "fleet_report" / "files"
RULES, DASHBOARD = FILES / "postgres_pools.rules.yml", FILES / "postgres_pools.dashboard.json"
ALERTS = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
P = "postgres_pools_"


@pytest.fixture(scope="module")
def programs() -> Dict[str, str]:
    return monitoring()


def promtool(programs: Dict[str, str], *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([programs["promtool"], *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)


# --- every alert fires in its condition and not otherwise


class Case(NamedTuple):
    """Series by the minute, as promtool writes them; ``at`` the minute at which the alert is asked for."""

    alert: str
    fires: bool
    series: Dict[str, str]
    at: str = "30m"
    # What is in the message of an alert that fires.
    says: str = ""
    name: str = ""


def health(unhealthy: str, healthy: str = "0x120") -> Dict[str, str]:
    name = P + 'servers_by_health{server_type="shared", health="%s"}'
    return {name % "unhealthy": unhealthy, name % "healthy": healthy, name % "degraded": "0x120", name % "unknown": "0x120"}


def one(name: str, values: str) -> Dict[str, str]:
    return {P + name: values}


def made(seconds: str, count: str) -> Dict[str, str]:
    return {P + 'provisioning_duration_seconds_sum{server_type="shared"}': seconds, P + 'provisioning_duration_seconds_count{server_type="shared"}': count}


def room(places: str, pools: str = "2x60") -> Dict[str, str]:
    return {P + 'available_instances{plan_tier="free"}': places, P + 'servers{server_type="shared", status="full"}': pools}


def failures(*values: str) -> Dict[str, str]:
    return {P + 'provisioning_failures_total{server_type="shared", reason="%s"}' % number: value for number, value in enumerate(values)}


BAD = P + 'server_health{server="postgres-pool-7", server_type="%s", health="%s"}'
CERTIFICATE = 'server_certificate_expiry_timestamp_seconds{server="postgres-pool-7", server_type="shared"}'
PROBED = 'server_probe_timestamp_seconds{server="postgres-pool-7", server_type="shared"}'
DAY = 86400
CASES = [
    Case("AllUnhealthy", True, health("3x120"), says="All 3 pools"),
    Case("AllUnhealthy", False, health("3x120", "1x120"), name="one is well"),
    Case("AllUnhealthy", False, health("0x120"), name="no pools"),
    Case("NoCapacity", True, room("0x60"), says="of plan free"),
    Case("NoCapacity", False, room("1x60"), name="one place"),
    Case("NoCapacity", False, room("0x5 20x60"), name="a pool was made in time"),
    Case("NoCapacity", False, room("0x60", pools="0x60"), name="there never was a pool"),
    Case("ProvisioningFailing", True, failures("0x5 1x5 2x60", "0x20 1x60"), says="making of 3 servers", at="40m"),
    Case("ProvisioningFailing", False, failures("0x5 1x5 2x60", "0x60"), at="40m", name="two"),
    Case("ProvisioningFailing", False, failures("0x5 3x120"), at="80m", name="an hour ago"),
    Case("ProvisioningFailing", False, failures("7x120"), at="80m", name="long ago"),
    Case("ProvisioningSlow", True, made("0x5 700x60", "0x5 2x60"), says="takes 5m 50s"),
    Case("ProvisioningSlow", False, made("0x5 500x60", "0x5 2x60"), name="in 250 s"),
    Case("ProvisioningSlow", False, made("700x60", "2x60"), name="none was made"),
    Case("ProvisioningStuck", True, one("provisioning_oldest_start_timestamp_seconds", "0x60"), says="in the making for 30m"),
    Case("ProvisioningStuck", False, one("provisioning_oldest_start_timestamp_seconds", "1200x60"), name="ten minutes"),
    Case("ProvisioningStuck", False, {}, name="none"),
    Case("MoveTooLong", True, one("move_oldest_start_timestamp_seconds", "0x120"), at="61m", says="on the move for 1h 1m"),
    Case("MoveTooLong", False, one("move_oldest_start_timestamp_seconds", "0x120"), at="60m", name="an hour"),
    Case("MoveTooLong", False, {}, at="90m", name="none"),
    Case("CapacityHigh", True, {**one("used_instances", "81x60"), **one("capacity_instances", "100x60")}, says="81% full"),
    Case("CapacityHigh", False, {**one("used_instances", "80x60"), **one("capacity_instances", "100x60")}, name="80 %"),
    Case("CapacityHigh", False, {**one("used_instances", "0x60"), **one("capacity_instances", "0x60")}, name="no pools"),
    Case("FullSoon", True, one("full_timestamp_seconds", "%dx120" % (6 * DAY)), at="90m"),
    Case("FullSoon", False, one("full_timestamp_seconds", "%dx120" % (8 * DAY)), at="90m", name="in a week and a day"),
    Case("FullSoon", False, {}, at="90m", name="never"),
    Case("ServerUnhealthy", True, {BAD % ("shared", "unhealthy"): "1x60"}, at="16m", says="shared server postgres-pool-7"),
    Case("ServerUnhealthy", True, {BAD % ("dedicated", "unhealthy"): "1x60"}, at="16m", says="dedicated server", name="dedicated"),
    Case("ServerUnhealthy", False, {BAD % ("shared", "unhealthy"): "1x60"}, at="14m", name="for 14 minutes"),
    Case("ServerUnhealthy", False, {BAD % ("shared", "degraded"): "1x60"}, name="degraded"),
    Case("ServerUnhealthy", False, {BAD % ("shared", "unhealthy"): "1x10 stale", BAD % ("shared", "healthy"): "_x10 1x60"}, at="16m", name="well again"),
    Case("ProbesStale", True, one(PROBED, "0x120"), at="60m"),
    Case("ProbesStale", True, health("0x120", "3x120"), at="60m", name="never probed"),
    Case("ProbesStale", False, one(PROBED, "0+60x120"), at="60m", name="probed"),
    Case("ProbesStale", False, health("0x120"), at="60m", name="no servers"),
    Case("CertificateExpires", True, one(CERTIFICATE, "%dx120" % (13 * DAY)), at="90m", says="certificate of postgres-pool-7"),
    Case("CertificateExpires", False, one(CERTIFICATE, "%dx120" % (15 * DAY)), at="90m", name="in 15 days"),
    Case("MetricsStale", True, one("report_timestamp_seconds", "0x300"), at="150m"),
    Case("MetricsStale", True, {}, name="missing"),
    Case("MetricsStale", False, one("report_timestamp_seconds", "0+60x300"), at="150m", name="fresh"),
    Case("MetricsStale", False, one("report_timestamp_seconds", "0x60 3600x70 7200x70"), at="150m", name="every hour"),
]


def test_every_alert_has_a_case_of_both_kinds() -> None:
    for alert in ALERTS:
        assert {case.fires for case in CASES if "PostgresPools" + case.alert == alert} == {True, False}, alert
    assert {"PostgresPools" + case.alert for case in CASES} == set(ALERTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(filter(None, (case.alert, "fires" if case.fires else "is quiet", case.name))))
def test_an_alert_fires_in_its_condition_and_not_otherwise(programs: Dict[str, str], tmp_path: Path, case: Case) -> None:
    """Asked by a test that says that nothing fires: what promtool then says it got instead is what fires, with its message."""
    (tmp_path / "rules.yml").write_bytes(RULES.read_bytes())
    asked = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
                "alert_rule_test": [{"eval_time": case.at, "alertname": "PostgresPools" + case.alert, "exp_alerts": []}],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(asked))
    done = promtool(programs, "test", "rules", str(tmp_path / "test.yml"))
    told = done.stdout + done.stderr
    if case.fires:
        assert done.returncode == 1 and "got:[" in told.replace(" ", ""), told
        assert case.says in told and "<error expanding template" not in told, told
    else:
        assert done.returncode == 0, told


def test_the_rules_are_whole(programs: Dict[str, str]) -> None:
    done = promtool(programs, "check", "rules", str(RULES))
    assert done.returncode == 0 and "{0} rules found".format(len(ALERTS)) in done.stdout, done.stdout + done.stderr
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert set(rule["annotations"]) == {"summary", "description"}


# --- the metrics


@pytest.fixture(scope="module", params=bin_dirs())
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    with registry_server(request.param) as made:
        yield made


def figures(registry: Registry) -> Tuple[str, Dict[str, float]]:
    with registry.open() as inventory:
        text = _metrics.render(_report_facts.read(inventory))
    return text, {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize("servers", [0, 3, 300])
def test_promtool_finds_nothing_wrong_with_the_metrics(programs: Dict[str, str], make: Any, servers: int) -> None:
    registry = make()
    fill(registry, servers)
    text, found = figures(registry)
    done = promtool(programs, "check", "metrics", given=text)
    assert done.returncode == 0 and not done.stdout and not done.stderr, done.stdout + done.stderr
    assert sum(value for name, value in found.items() if name.startswith(P + "servers{")) == servers
    assert "gAAAA" not in text


def counters(text: str, found: Dict[str, float]) -> Dict[str, float]:
    families = re.findall(r"^# TYPE (\S+) (?:counter|histogram)$", text, re.M)
    return {name: value for name, value in found.items() if name.startswith(tuple(families))}


def test_counters_only_grow_whatever_happens(make: Any) -> None:
    """The whole life of pools and tenants, looked at after every step."""
    registry: Registry = make()
    seen: Dict[str, float] = {}
    grown = set()

    def look() -> None:
        now = counters(*figures(registry))
        lost = {name: (value, now.get(name)) for name, value in seen.items() if now.get(name, -1) < value}
        assert not lost
        grown.update(name for name, value in now.items() if value > seen.get(name, 0))
        seen.update(now)

    look()
    registry.pool("postgres-pool-a", 5)
    look()
    registry.pool("postgres-pool-b", 5)
    registry.pool("postgres-pool-c", 5, status="initializing")
    registry.query("UPDATE db_servers SET status = 'error', status_reason = 'no space left on device' WHERE name = 'postgres-pool-c'")
    look()
    places = [registry.place(making=False) for unused in range(4)]
    look()

    def step(place: Dict[str, Any], status: str, more: str = "") -> None:
        registry.query("UPDATE db_allocations SET status = %s{0} WHERE id = %s".format(more), (status, place["allocation_id"]))
        look()

    step(places[0], "expired")
    for place in places[1:]:
        step(place, "active", ", activated_at = now() + interval '3 seconds'")
    registry.query(
        "INSERT INTO db_tenant_migrations (allocation_id, source_server_id, target_server_id, mode) SELECT a.id, a.server_id, s.id, 'dump'"
        " FROM db_allocations a JOIN db_servers s ON s.id <> a.server_id AND s.status = 'active' WHERE a.id = %s ORDER BY s.load LIMIT 1",
        (places[1]["allocation_id"],),
    )
    look()
    for status in ("preparing", "copying", "verifying", "cutover"):
        registry.query("UPDATE db_tenant_migrations SET status = %s, proof = '{\"equal\": true, \"downtime_seconds\": 4.5}'", (status,))
        look()
    for status in ("completed", "rolled_back"):
        registry.query("UPDATE db_tenant_migrations SET status = %s, retained_until = now()", (status,))
        look()
    step(places[2], "releasing")
    step(places[2], "released", ", released_at = now()")
    step(places[2], "released", ", dropped_at = now()")
    registry.query("INSERT INTO db_events (kind, detail) VALUES ('cleanup.drop', '{}')")
    look()
    for name, *states in (("c", "deprovisioning", "deprovisioned"), ("b", "error", "active", "error", "active")):
        for state in states:
            registry.query("UPDATE db_servers SET status = %s WHERE name = %s", (state, "postgres-pool-" + name))
            look()
    for name in (
        'server_steps_total{status="deprovisioned"}', 'provisioning_failures_total{server_type="shared",reason="storage"}',
        'provisioning_duration_seconds_count{server_type="shared"}', 'allocation_steps_total{step="expired"}', 'allocation_steps_total{step="dropped"}',
        'allocation_duration_seconds_bucket{le="5"}', 'moves_ended_total{mode="dump"}', 'moves_rolled_back_total{mode="dump"}', "move_duration_seconds_count",
        'move_downtime_seconds_bucket{le="5"}', 'cleanup_steps_total{kind="drop"}',
    ):  # fmt: skip
        assert P + name in grown, name
    # An error of a server that was once made is no failure to make one.
    assert sum(value for name, value in seen.items() if name.startswith(P + "provisioning_failures_total")) == 1


# --- a real Prometheus and a real run


class Prometheus:
    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **query: str) -> Any:
        address = "http://127.0.0.1:{0}/api/v1/{1}?{2}".format(self.port, path, urllib.parse.urlencode(query))
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def value(self, expression: str) -> List[float]:
        return [float(one["value"][1]) for one in self.get("query", query=expression)["result"]]

    def wait(self, expression: str, wanted: List[float], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if self.value(expression) == wanted:
                    return
            assert time.monotonic() < end, "{0} is {1}, not {2}".format(expression, self.value(expression), wanted)
            time.sleep(0.25)


@contextlib.contextmanager
def prometheus(programs: Dict[str, str], home: Path, metrics: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus, which scrapes Debian's node exporter, whose textfile collector reads *metrics*."""
    ports = free_port(), free_port()
    scrape = {"job_name": "node", "static_configs": [{"targets": ["127.0.0.1:{0}".format(ports[0])]}]}
    config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(RULES)], "scrape_configs": [scrape]}
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    commands = [
        [programs["prometheus-node-exporter"], "--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory=" + str(metrics),
         "--web.listen-address=127.0.0.1:{0}".format(ports[0])],
        [programs["prometheus"], "--config.file=" + str(home / "prometheus.yml"), "--storage.tsdb.path=" + str(home / "tsdb"),
         "--web.listen-address=127.0.0.1:{0}".format(ports[1])],
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            log = stack.enter_context(open(str(home / "{0}.log".format(number)), "wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=str(home))
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        yield Prometheus(ports[1])


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made.ready()


def test_prometheus_scrapes_a_real_run(programs: Dict[str, str], scratch: Environment, tmp_path: Path) -> None:
    metrics = tmp_path / "textfiles"
    metrics.mkdir()
    variables = {"report_dir": str(tmp_path / "page"), "metrics_dir": str(metrics)}
    scratch.play("provision_pool", {"server": "postgres-pool-seen", "max_instances": 4}).succeeded()
    scratch.play("allocate", {"allocations": instances(3)}).succeeded()
    scratch.play("report", variables).succeeded()
    pool = P + '{0}{{server="postgres-pool-seen"}}'
    with prometheus(programs, tmp_path, metrics) as server:
        server.wait(P + "used_instances", [3])
        assert server.value(P + "capacity_instances") == [4]
        assert server.value(pool.format("server_instances")) == [3]
        assert server.value(P + 'allocation_steps_total{step="activated"}') == [3]
        assert server.value(P + "allocation_duration_seconds_count") == [3]
        assert server.value('{0}provisioning_duration_seconds_count{{server_type="shared"}}'.format(P)) == [1]
        assert server.value("node_textfile_scrape_error") == [0]
        assert abs(server.value(P + "report_timestamp_seconds")[0] - time.time()) < 120

        rules = {rule["name"]: rule for group in server.get("rules")["groups"] for rule in group["rules"]}
        assert set(rules) == set(ALERTS) and {rule["health"] for rule in rules.values()} <= {"ok", "unknown"}

        # The next run's figures take the place of these.
        scratch.execute("UPDATE db_servers SET health_status = 'unhealthy', health_check_failures = 3")
        scratch.play("report", variables).succeeded()
        server.wait(P + 'servers_by_health{health="unhealthy",server_type="shared"}', [1])
        server.wait('count(ALERTS{alertname="PostgresPoolsAllUnhealthy",alertstate="firing"})', [1])
        server.wait('count(ALERTS{alertname="PostgresPoolsNoCapacity",alertstate="pending",plan_tier="standard"})', [1])
        assert server.value('ALERTS{alertname="PostgresPoolsMetricsStale"}') == []

        names = set(server.get("label/__name__/values"))
        for title, expression in expressions():
            server.get("query", query=expression)
            used = set(re.findall(r"\b{0}[a-z_]+".format(P), expression))
            assert used, title
            assert used <= names | OPTIONAL, title


# Only there when something runs, grows, or was seen by a probe.
OPTIONAL = {
    P + name
    for name in (
        "full_timestamp_seconds", "server_connections_used", "server_connections_allowed", "server_database_bytes", "server_oldest_transaction_seconds",
        "server_probe_latency_seconds", "server_probe_failure_ratio", "cleanup_steps_total",
    )
}  # fmt: skip


def expressions() -> Iterator[Tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def test_the_dashboard_is_whole(make: Any) -> None:
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and board["uid"] == "postgres-pools"
    registry = make()
    fill(registry, 3)
    registry.query("INSERT INTO db_events (kind, detail) VALUES ('cleanup.drop', '{}')")
    names = {name.split("{")[0] for name in figures(registry)[1]}
    used = {name for unused, expression in expressions() for name in re.findall(r"\b{0}[a-z_]+".format(P), expression)}
    assert used <= names
    # What is optional in an inventory database that nobody probes is there in one that was.
    assert names >= OPTIONAL
    cells = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert x < 24 and (x, y) not in cells, panel["title"]
                cells.add((x, y))


def test_the_rules_use_metrics_that_there_are(make: Any) -> None:
    registry = make()
    fill(registry, 10)
    registry.pool("postgres-pool-begun", status="provisioning")
    (allocation,) = registry.query("SELECT id, server_id FROM db_allocations WHERE status = 'active' LIMIT 1")
    (target,) = registry.query("SELECT id FROM db_servers WHERE id <> %s ORDER BY load LIMIT 1", (allocation[1],))
    registry.query(
        "INSERT INTO db_tenant_migrations (id, allocation_id, source_server_id, target_server_id, mode) VALUES (%s, %s, %s, %s, 'dump')",
        (str(uuid.uuid4()), *allocation, target[0]),
    )
    names = {name.split("{")[0] for name in figures(registry)[1]}
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            used = set(re.findall(r"\b{0}[a-z_]+".format(P), rule["expr"]))
            assert used and used <= names, rule["alert"]

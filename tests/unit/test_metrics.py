# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from typing import Any, Dict, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _metrics
from fleet_sample import fleet, server

SAMPLE = re.compile(r'^(?P<name>[a-z_:]+)(\{(?P<labels>([a-z_]+="([^"\\]|\\.)*",?)*)\})? (?P<value>-?[0-9.e+]+)$')


def samples(text: str) -> Dict[str, float]:
    """Every sample by its name and labels as they stand."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            told = SAMPLE.match(line)
            assert told, line
            assert line.rsplit(" ", 1)[0] not in found, "twice: " + line
            found[line.rsplit(" ", 1)[0]] = float(told.group("value"))
    return found


def of(name: str, **changed: Any) -> Dict[str, float]:
    return {key: value for key, value in samples(_metrics.render(fleet(**changed))).items() if key.split("{")[0] == "postgres_pools_" + name}


def test_every_family_is_announced_once_and_named_by_convention() -> None:
    families: Dict[str, str] = {}
    current = ""
    for line in _metrics.render(fleet()).splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current.startswith("postgres_pools_") and current not in families
            assert len(line.split(None, 3)[3]) > 10
        elif line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name == current
            families[name] = kind
        else:
            assert re.match(re.escape(current) + r"(_bucket|_sum|_count)?[ {]", line), line
    assert set(families.values()) == {"gauge", "counter", "histogram"}
    for name, kind in families.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert kind != "histogram" or name.endswith("_seconds"), name


def test_states_and_health_are_counted_with_zeros() -> None:
    servers = [server(), server(name="b", status="error", health_status="unhealthy"), server(name="c", status="initializing", health_status="unknown")]
    found = of("servers", servers=servers)
    assert len(found) == 3 * 7 and sum(found.values()) == 3
    assert found['postgres_pools_servers{server_type="shared",status="error"}'] == 1
    health = of("servers_by_health", servers=servers)
    # The one in the making has no health to speak of.
    assert len(health) == 3 * 4 and sum(health.values()) == 2


def test_what_is_not_known_is_left_out() -> None:
    unknown = server(latency_ms=None, last_health_check=None, connections_used=None, detail={"database_bytes": None, "slots_inactive": True}, probes=0)
    text = _metrics.render(fleet(servers=[unknown], growth={"per_day": 0.0, "full_at": None}))
    absent = ("latency", "probe_timestamp", "connections_used", "database_bytes", "slots", "failure_ratio", "full_timestamp", "expiry", "oldest_start")
    for name in absent:
        assert name not in text
    known = server(detail={"database_bytes": 7, "slots_inactive": 0}, tls=True, certificate_expires_at="2027-01-01T00:00:00+00:00", probes_failed=72)
    labels = '{server="postgres-pool-1",server_type="shared"}'
    found = samples(_metrics.render(fleet(servers=[known])))
    assert found["postgres_pools_server_database_bytes" + labels] == 7
    assert found["postgres_pools_server_slots_inactive" + labels] == 0
    assert found["postgres_pools_server_probe_latency_seconds" + labels] == 0.0025
    assert found["postgres_pools_server_probe_failure_ratio" + labels] == 0.25
    assert found["postgres_pools_server_certificate_expiry_timestamp_seconds" + labels] == 1798761600


def test_labels_are_escaped() -> None:
    (found,) = of("available_instances", available=[{"plan_tier": 'a"b\\c\nd', "places": 1}])
    assert found == r'postgres_pools_available_instances{plan_tier="a\"b\\c\nd"}'


def test_a_histogram_ends_in_its_count() -> None:
    found = of("allocation_duration_seconds_bucket")
    assert list(found.values()) == [1, 2, 2] and 'le="+Inf"' in list(found)[-1]
    assert of("allocation_duration_seconds_sum") == {"postgres_pools_allocation_duration_seconds_sum": 3.5}


def test_failures_are_there_before_the_first_one() -> None:
    """A counter that begins at 1 is no increase to Prometheus."""
    before = of("provisioning_failures_total")
    assert len(before) == 2 * len(_metrics.FAILURE_CLASSES) and not any(before.values())
    after = of("provisioning_failures_total", provisioning_failures=[{"server_type": "shared", "class": "storage", "count": 3}])
    assert set(after) == set(before) and sum(after.values()) == 3


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Deploy it: Nothing is mounted at /mnt/cephfs.", "storage"),
        ("No space left on device", "storage"),
        ("pull access denied for postgres:99, repository does not exist", "image"),
        ("no suitable node (scheduling constraints not satisfied on 3 nodes)", "placement"),
        ("16 MiB of memory fit 0 connections of tenants", "memory"),
        ("certificate verify failed", "certificate"),
        ('password authentication failed for user "postgres"', "login"),
        ("The server did not answer within 180 s", "timeout"),
        ("could not connect: Connection refused", "connection"),
        ("it is a riddle", "other"),
        ("", "other"),
    ],
)
def test_reasons_fall_into_a_few_classes(reason: str, expected: str) -> None:
    assert _metrics.failure_class(reason) == expected
    assert expected in _metrics.FAILURE_CLASSES


def test_moves_and_cleaning_up() -> None:
    running: List[Dict[str, Any]] = [
        {"instance_id": "i", "source": "a", "target": "b", "mode": "dump", "status": "copying", "created_at": "2026-11-22T11:00:00+00:00"},
        {"instance_id": "j", "source": "a", "target": "b", "mode": "dump", "status": "copying", "created_at": "2026-11-22T10:00:00+00:00"},
    ]
    counts = [{"mode": "dump", "started": 5, "ended": 3, "rolled_back": 1}]
    found = samples(_metrics.render(fleet(moves={"counts": counts, "running": running}, cleanup={"drop": 4})))
    assert found["postgres_pools_moves_running"] == 2
    assert found["postgres_pools_move_oldest_start_timestamp_seconds"] == _metrics.seconds("2026-11-22T10:00:00+00:00")
    assert found['postgres_pools_moves_ended_total{mode="dump"}'] == 3 and found['postgres_pools_moves_ended_total{mode="online"}'] == 0
    assert found['postgres_pools_cleanup_steps_total{kind="drop"}'] == 4

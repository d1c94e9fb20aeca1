# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer makes of a server's state, and which of its facts are worth a look."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _findings, _health

ONCE = "2026-01-01"
GIB = 1 << 30


def row(status: str, failures: int = 0, leased: bool = False, activated_at: Optional[str] = ONCE, reason: Optional[str] = None) -> Dict[str, Any]:
    return {"status": status, "health_check_failures": failures, "leased": leased, "activated_at": activated_at, "status_reason": reason}


def failed(server: Dict[str, Any]) -> Optional[_health.Step]:
    return _health.step(server, False, "Connection refused.")


def serves(server: Dict[str, Any]) -> Optional[_health.Step]:
    return _health.step(server, True, "")


# --- states


@pytest.mark.parametrize("status", ["active", "full"])
def test_the_third_failure_in_a_row_takes_a_server_out(status: str) -> None:
    assert failed(row(status)) == (status, "degraded", 1, None)
    assert failed(row(status, 1)) == (status, "degraded", 2, None)
    out = failed(row(status, 2))
    assert out is not None and out[:3] == ("error", "unhealthy", 3)
    assert out.reason == "3 health checks in a row failed. The last: Connection refused."
    assert serves(row(status, 2)) == (status, "healthy", 0, None)


def test_a_server_in_error_comes_back_when_it_serves() -> None:
    assert failed(row("error", 7, reason="gone")) == ("error", "unhealthy", 8, "gone")
    assert serves(row("error", 7, reason="gone")) == ("active", "healthy", 0, None)


def test_one_that_was_never_active_does_not_come_back() -> None:
    assert serves(row("error", activated_at=None, reason="no certificate")) == ("error", "healthy", 0, "no certificate")


def test_maintenance_is_left_alone() -> None:
    assert serves(row("maintenance", 2, reason="new disks")) == ("maintenance", "healthy", 0, "new disks")
    assert [failed(row("maintenance", failures, reason="new disks")) for failures in (0, 2, 9)] == [
        ("maintenance", "degraded", 1, "new disks"),
        ("maintenance", "unhealthy", 3, "new disks"),
        ("maintenance", "unhealthy", 10, "new disks"),
    ]


def test_a_server_in_the_making_is_its_makers_until_the_lease_runs_out() -> None:
    assert serves(row("initializing", leased=True, activated_at=None)) is None
    assert failed(row("initializing", leased=True, activated_at=None)) is None
    assert serves(row("initializing", activated_at=None)) == ("active", "healthy", 0, None)
    # Its health stays unknown, so that a waiter may still be placed on it and take over.
    assert failed(row("initializing", activated_at=None)) == ("initializing", "unknown", 1, None)
    last = failed(row("initializing", 2, activated_at=None))
    assert last is not None and last[:3] == ("error", "unhealthy", 3)


def test_every_state_that_is_probed_has_a_step_the_database_allows() -> None:
    allowed = {("initializing", "active"), ("initializing", "error"), ("active", "error"), ("full", "error"), ("error", "active")}
    for status in _health.PROBED:
        for failures in range(5):
            for taken in (serves(row(status, failures)), failed(row(status, failures))):
                assert taken is not None and (taken.status == status or (status, taken.status) in allowed)


def test_the_reason_fits_its_column() -> None:
    out = _health.step(row("active", 2), False, "x" * 5000)
    assert out is not None and len(out.reason or "") == 2000


@pytest.mark.parametrize(
    ("status", "health", "activated_at", "trouble", "expected"),
    [
        ("active", "healthy", ONCE, False, "ok"),
        ("active", "healthy", ONCE, True, "degraded"),
        ("active", "degraded", ONCE, True, "degraded"),
        ("error", "unhealthy", ONCE, True, "alarm"),
        # A failed making was told when it failed.
        ("error", "unhealthy", None, True, "degraded"),
        ("maintenance", "unhealthy", ONCE, True, "ok"),
    ],
)
def test_what_a_server_weighs(status: str, health: str, activated_at: Optional[str], trouble: bool, expected: str) -> None:
    assert _health.level({"status": status, "health_status": health, "activated_at": activated_at}, trouble) == expected


# --- findings

SERVER = {"postgres_version": "170004", "storage_budget_bytes": 100 * GIB}
FACTS: Dict[str, Any] = {
    "server_version_num": 170004,
    "databases": ["odoo_a", "odoo_b"],
    "connections_used": 5,
    "connections_allowed": 100,
    "oldest_transaction_seconds": 3,
    "wraparound_age": 1000,
    "freeze_max_age": 200_000_000,
    "database_bytes": GIB,
    "slots_inactive": [],
}


def found(known: Any = ("odoo_a", "odoo_b"), expected: Any = ("odoo_a",), server: Any = None, **changed: Any) -> List[Dict[str, str]]:
    return _findings.findings(dict(SERVER, **(server or {})), dict(FACTS, **changed), known, expected)


def test_a_server_in_order_has_none() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("kind", "below", "above", "says"),
    [
        ("connections", {"connections_used": 89}, {"connections_used": 90}, "90 of 100 connections are used."),
        ("old_transaction", {"oldest_transaction_seconds": 3599}, {"oldest_transaction_seconds": 3600}, "open for 3600 s"),
        ("wraparound", {"wraparound_age": 399_999_999}, {"wraparound_age": 400_000_000}, "400000000 transactions old"),
        ("storage", {"database_bytes": 90 * GIB - 1}, {"database_bytes": 90 * GIB}, "take 92160 MiB of 102400 MiB"),
        ("replication_slot", {}, {"slots_inactive": [{"name": "old", "retained_bytes": 3 << 20}]}, "'old', which keeps 3 MiB"),
        ("version", {}, {"server_version_num": 180001}, "runs PostgreSQL 180001, recorded is 170004"),
        ("missing_database", {"databases": ["odoo_a"]}, {"databases": ["odoo_b"]}, "lack their database: odoo_a."),
        ("unknown_database", {"databases": ["odoo_a"]}, {"databases": ["odoo_a", "stray"]}, "accounts for: stray."),
    ],
)
def test_each_kind_is_found_from_its_limit_on(kind: str, below: Dict[str, Any], above: Dict[str, Any], says: str) -> None:
    assert found(**below) == []
    (one,) = found(**above)
    assert one["kind"] == kind and says in one["message"]


def test_a_slot_without_a_position_keeps_nothing() -> None:
    (one,) = found(slots_inactive=[{"name": "new", "retained_bytes": None}])
    assert "keeps 0 MiB" in one["message"]


def test_many_names_are_cut_short() -> None:
    (one,) = found(databases=["odoo_a", *("stray{0}".format(number) for number in range(8))])
    assert one["message"].endswith("stray0, stray1, stray2, stray3, stray4 and 3 more.")


@pytest.mark.parametrize("recorded", ["170004", 170004, "17.4", "17", "17.4 (Debian 17.4-1.pgdg13+1)", None, "", "latest"])
def test_versions_that_are_the_same(recorded: Any) -> None:
    assert found(server={"postgres_version": recorded}) == []


@pytest.mark.parametrize("recorded", ["170003", "17.5", "18", "16.4"])
def test_versions_that_are_not(recorded: str) -> None:
    assert [one["kind"] for one in found(server={"postgres_version": recorded})] == ["version"]


def test_what_was_not_measured_is_not_judged() -> None:
    assert _findings.findings(SERVER, {}) == []

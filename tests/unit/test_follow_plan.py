# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, the record and the judgement of a copy that follows."""

from __future__ import annotations

import re

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _follow_plan as plan

DATABASES = ("odoo_1", "Odoo 1", "ü" * 30, "x" * 63)


def test_names_are_ones_that_a_slot_may_have() -> None:
    names = [plan.name_of(database) for database in DATABASES] + [plan.passing_slot_of(database) for database in DATABASES]
    assert len(set(names)) == len(names)
    assert all(re.match(r"^[a-z0-9_]{1,63}\Z", name) for name in names)


def test_a_record_comes_back_as_it_was_written() -> None:
    told = plan.Record([plan.Identity('a "b"', "c", "i", "d"), plan.Identity("public", "e", "d")], {"relations": "3:17"})
    assert plan.record(told.text()) == told
    assert plan.record(plan.Record().text()) == plan.Record([], {})


@pytest.mark.parametrize("comment", [None, "", "mine", plan.role_mark("x"), plan.Record().text()[:-1], "saasodoo.postgres_pools follow {}"])
def test_what_is_no_record_is_none(comment: str) -> None:
    assert plan.record(comment) is None


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-full"])
def test_the_way_to_the_publisher(mode: str) -> None:
    told = plan.Peer("db.example", 5433, "it's a \\ name", "who", "secret", mode).conninfo()
    assert "host='db.example' port='5433'" in told and r"dbname='it\'s a \\ name'" in told
    # A file with certificates would have to lie on the other server; the verifier proves this one over its channel.
    assert ("channel_binding='require'" in told) == (mode in ("require", "verify-full"))
    assert "sslrootcert" not in told and "sslmode='{0}'".format("require" if mode == "verify-full" else mode) in told


def test_only_what_changed_is_named() -> None:
    assert plan.changes({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == []
    assert plan.changes({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"}) == ["b", "c", "d"]


def test_when_it_is_given_up() -> None:
    good = plan.Status("reserved", lag_bytes=10**9, retained_bytes=100, errors=plan.MOST_ERRORS + 3, active=True)
    assert plan.given_up(good, limit=100, errors_before=4) is None
    for status, before, what in (
        (good._replace(wal_status=None), 4, "slot"),
        (good._replace(wal_status="lost"), 4, "slot"),
        (good._replace(retained_bytes=101), 4, "retained WAL"),
        (good, 3, "apply"),
    ):
        found = plan.given_up(status, limit=100, errors_before=before)
        assert found is not None and found.what == what and found.remedy
    idle = plan.given_up(good, limit=100, errors_before=4, idle_seconds=plan.MOST_IDLE_SECONDS + 1)
    assert idle is not None and idle.what == "apply"

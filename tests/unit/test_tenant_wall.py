# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_wall import (
    HbaRule,
    plan_doors,
    wall_faults,
)


def rule(kind: str, databases: str, users: str, address: str = "all", method: str = "scram-sha-256") -> HbaRule:
    netmask = address if address in ("0.0.0.0", "::") else None
    return HbaRule(1, kind, databases.split(","), users.split(","), address, netmask, method, None)


ADMIN = rule("host", "all", "postgres")
BUS = rule("host", "postgres", "+tenant_bus")
TENANTS = rule("host", "samerole", "all")
REJECT = rule("host", "all", "all", method="reject")
WALL = [ADMIN, BUS, TENANTS, REJECT]


def test_the_wall_has_no_fault() -> None:
    assert wall_faults(WALL, sockets=True) == []
    assert wall_faults([TENANTS, REJECT], sockets=False) == []
    assert wall_faults([rule("hostssl", "samerole", "all", "10.0.0.0"), REJECT], sockets=False) == []
    halves = [rule("host", "all", "all", end, "reject") for end in ("0.0.0.0", "::")]
    assert wall_faults([TENANTS, *halves], sockets=False) == []


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([], "samerole"),
        ([REJECT, TENANTS], "samerole"),
        ([TENANTS], "reject"),
        ([TENANTS, rule("host", "all", "all", "0.0.0.0", "reject")], "reject"),
        ([TENANTS, rule("hostssl", "all", "all", method="reject")], "reject"),
        ([rule("host", "all", "all"), *WALL], "any user into all"),
        ([rule("host", "all", "all", "127.0.0.1", "trust"), *WALL], "any user into all"),
        ([rule("host", "postgres", "all"), *WALL], "any user into postgres"),
        ([rule("host", "all", "/^odoo"), *WALL], "any user into all"),
        ([rule("host", "all", "+tenant_bus"), *WALL], "tenant_bus into all"),
        ([rule("host", "samerole", "all", method="md5"), *WALL], "by md5"),
        ([rule("local", "all", "all", method="peer"), *WALL], "any user into all"),
        ([HbaRule(9, None, (), (), None, None, None, "bad word"), *WALL], "line 9 is not valid: bad word"),
    ],
)
def test_each_hole_is_found(rules: list[HbaRule], says: str) -> None:
    faults = wall_faults(rules, sockets=True)
    assert any(says in fault for fault in faults), faults


def test_what_cannot_be_reached_is_no_hole() -> None:
    assert wall_faults([rule("local", "all", "all", method="trust"), *WALL], sockets=False) == []
    assert wall_faults([*WALL, rule("host", "all", "all", method="trust")], sockets=True) == []


def test_the_doors_are_shut_once() -> None:
    assert [step.words for step in plan_doors(["postgres"], None, True)] == [
        "database postgres: closed to PUBLIC",
        "role tenant_bus made",
        "role tenant_bus: may connect to postgres",
    ]
    assert plan_doors([], {"login": False, "connects": False}, False) == []
    assert [step.words for step in plan_doors([], {"login": True, "connects": True}, True)] == [
        "role tenant_bus closed"
    ]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows on a server, against the moves that take it."""

from __future__ import annotations

from typing import Any, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit_follow import Thing, broken, left_over

NAME = "pools_follow_0123456789abcdef"


def slot(**given: Any) -> Thing:
    return Thing("slot", NAME, "shop", "reserved", True, 0)._replace(**given)


def kinds(drifts: List[Any]) -> List[str]:
    return [one.finding["kind"] for one in drifts]


@pytest.mark.parametrize("name", [NAME, NAME + "_copy", NAME + "_proof"])
def test_what_a_move_takes_is_expected_and_else_left_over(name: str) -> None:
    assert left_over("s", [slot(name=name)], {NAME: "move"}) == []
    (drift,) = left_over("s", [slot(name=name, kept_bytes=7)], {"pools_follow_other": "move"})
    assert drift.mendable and "keeping 7 bytes" in drift.finding["found"] and name in drift.finding["object"]


def test_a_way_back_has_its_slot_read_and_its_subscription_at_work() -> None:
    subscription = slot(what="subscription")
    assert broken("s", [slot(), subscription], {NAME: "publisher"}) == broken("s", [subscription], {NAME: "subscriber"}) == []
    for things in ([], [slot(status="lost")], [slot(active=False)], [slot(kept_bytes=2 << 30)]):
        assert kinds(broken("s", things, {NAME: "publisher"})) == ["way_back_broken"]
    for things in ([], [subscription._replace(active=False)]):
        assert kinds(broken("s", things, {NAME: "subscriber"})) == ["way_back_broken"]
    # A move that is under way says itself what is wrong with it.
    assert broken("s", [], {NAME: "move"}) == []

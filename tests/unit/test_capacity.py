# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
from typing import Any, Dict

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _capacity

TODAY = datetime.date(2026, 11, 22)
ENDS: Dict[str, Any] = dict(tenants_now=60, tenants_then=30, age_days=90, today=TODAY, capacity=100, used=60)


def forecast(**changed: Any) -> Dict[str, Any]:
    return _capacity.forecast(**dict(ENDS, **changed))


def test_a_straight_line_from_the_window_goes_on() -> None:
    # 30 tenants in 30 days, 40 places free.
    assert forecast() == {"days": 30, "instances": 30, "per_day": 1.0, "full_at": "2027-01-01", "reason": None}


def test_a_young_fleet_is_measured_from_its_first_day() -> None:
    told = forecast(tenants_then=0, age_days=10)
    assert (told["days"], told["instances"], told["per_day"], told["full_at"]) == (10, 60, 6.0, "2026-11-28")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"capacity": 0, "used": 0}, "no pool is in use"),
        ({"age_days": None, "capacity": 0, "used": 0, "tenants_now": 0, "tenants_then": 0}, "no pool is in use"),
        ({"age_days": 6, "tenants_then": 0}, "too little history: 6 of the 7 days"),
        ({"age_days": 0, "tenants_then": 0}, "too little history: 0 of the 7 days"),
        ({"tenants_then": 60}, "no growth in the last 30 days"),
        ({"tenants_then": 80}, "no growth in the last 30 days"),
        ({"tenants_then": 59, "capacity": 1000}, "not within ten years"),
    ],
)
def test_where_there_is_no_such_day_it_says_why(changed: Dict[str, Any], says: str) -> None:
    told = forecast(**changed)
    assert told["full_at"] is None and told["reason"].startswith(says)
    assert says in _capacity.summary(told)


def test_a_fleet_that_is_full_is_full_today() -> None:
    told = forecast(used=100)
    assert (told["full_at"], told["reason"]) == ("2026-11-22", "no place is free now")
    assert _capacity.summary(told) == "+30 tenants in 30 days, +1.00 a day: no place is free now"


def test_each_day_has_the_sum_of_all_steps_up_to_it() -> None:
    def day(number: int) -> datetime.date:
        return TODAY - datetime.timedelta(days=number)

    steps = {day(3): {"tenants": 7, "places": 50}, day(1): {"tenants": -2, "places": 0}, day(0): {"tenants": 1, "places": 50}}
    found = _capacity.cumulated(steps, TODAY, 3)
    assert [(one["day"], one["tenants"], one["places"]) for one in found] == [
        ("2026-11-19", 7, 50), ("2026-11-20", 7, 50), ("2026-11-21", 5, 50), ("2026-11-22", 6, 100)
    ]  # fmt: skip

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How full the pools are, how that came to be, and when they are full at the pace of the last 30 days."""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Mapping

from . import _candidates
from ._inventory import Inventory

WINDOW_DAYS = 30
# From fewer days than this a pace would be a guess: one large customer's first week is not a trend.
LEAST_DAYS = 7
_FARTHEST_DAYS = 3650

# A tenant takes its place from the day its allocation became active to the day it was released, on the server where it is now.
# A pool's places count from the day it became active to the day its removal began.
_STEPS = """
WITH steps AS (
    SELECT a.activated_at AS at, 1 AS tenants, 0 AS places
    FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE s.server_type = 'shared' AND a.activated_at IS NOT NULL
    UNION ALL
    SELECT a.released_at, -1, 0
    FROM db_allocations a JOIN db_servers s ON s.id = a.server_id
    WHERE s.server_type = 'shared' AND a.activated_at IS NOT NULL AND a.released_at IS NOT NULL
    UNION ALL
    SELECT activated_at, 0, max_instances FROM db_servers WHERE server_type = 'shared' AND activated_at IS NOT NULL
    UNION ALL
    SELECT status_changed_at, 0, -max_instances FROM db_servers
    WHERE server_type = 'shared' AND activated_at IS NOT NULL AND status IN ('deprovisioning', 'deprovisioned')
)"""
_BY_DAY = (
    _STEPS
    + """
SELECT greatest((at AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date - %(days)s) AS day,
    sum(tenants)::bigint AS tenants, sum(places)::bigint AS places
FROM steps GROUP BY 1 ORDER BY 1"""
)
_ENDS = (
    _STEPS
    + """
SELECT coalesce(sum(tenants), 0)::bigint AS tenants_now,
    coalesce(sum(tenants) FILTER (WHERE at <= now() - %(days)s * interval '1 day'), 0)::bigint AS tenants_then,
    (SELECT floor(extract(epoch FROM now() - min(activated_at)) / 86400)::integer FROM db_servers WHERE server_type = 'shared') AS age_days,
    (now() AT TIME ZONE 'UTC')::date AS today,
    (SELECT coalesce(sum(max_instances), 0)::bigint FROM db_servers WHERE server_type = 'shared' AND status IN ('active', 'full')) AS capacity,
    (SELECT coalesce(sum(current_instances), 0)::bigint FROM db_servers WHERE server_type = 'shared' AND status IN ('active', 'full')) AS used
FROM steps"""
)


def history(inventory: Inventory, days: int = WINDOW_DAYS) -> List[Dict[str, Any]]:
    """``tenants`` in pools and ``places`` of pools at the end of each of the last *days* days and now, the oldest first."""
    today = inventory.rows("SELECT (now() AT TIME ZONE 'UTC')::date AS today")[0]["today"]
    steps = {row["day"]: row for row in inventory.rows(_BY_DAY, {"days": days})}
    return cumulated(steps, today, days)


def cumulated(steps: Mapping[datetime.date, Mapping[str, Any]], today: datetime.date, days: int) -> List[Dict[str, Any]]:
    """Each day's sum of all the steps up to it; *steps* has what came before the first day in the first day."""
    found = []
    tenants = places = 0
    for back in range(days, -1, -1):
        day = today - datetime.timedelta(days=back)
        tenants += steps[day]["tenants"] if day in steps else 0
        places += steps[day]["places"] if day in steps else 0
        found.append({"day": day.isoformat(), "tenants": tenants, "places": places})
    return found


def growth(inventory: Inventory) -> Dict[str, Any]:
    """What forecast() says of this inventory database."""
    return forecast(**inventory.rows(_ENDS, {"days": WINDOW_DAYS})[0])


def forecast(
    tenants_now: int, tenants_then: int, age_days: Any, today: datetime.date, capacity: int, used: int
) -> Dict[str, Any]:
    """The tenants gained in the last ``days`` days, how many ``per_day`` that is, and the day ``full_at`` on which the free places are gone.

    Where there is no such day it is None, and ``reason`` says why. A fleet younger than the window is measured from its first day.
    """
    days = min(WINDOW_DAYS, age_days or 0)
    gained = tenants_now - tenants_then
    told: Dict[str, Any] = {
        "days": days,
        "instances": gained,
        "per_day": round(gained / days, 2) if days else 0.0,
        "full_at": None,
        "reason": None,
    }
    left = capacity - used
    if not capacity:
        told["reason"] = "no pool is in use"
    elif left <= 0:
        told.update(full_at=today.isoformat(), reason="no place is free now")
    elif days < LEAST_DAYS:
        told["reason"] = "too little history: {0} of the {1} days that a forecast needs".format(days, LEAST_DAYS)
    elif gained <= 0:
        told["reason"] = "no growth in the last {0} days".format(days)
    elif left * days / gained > _FARTHEST_DAYS:
        told["reason"] = "not within ten years at this pace"
    else:
        told["full_at"] = (today + datetime.timedelta(days=left * days // gained)).isoformat()
    return told


def available(inventory: Inventory) -> List[Dict[str, Any]]:
    """For each plan on shared servers, how many tenants of that plan the pools would take now: by places, connections and storage."""
    # Placement's own rules, but those that ask for room: that is what is counted here.
    takes = " AND ".join(rule.holds for rule in _candidates.rules("shared") if "%(" not in rule.holds)
    return inventory.rows(
        "SELECT p.plan_tier, coalesce(sum(least(s.max_instances - s.current_instances,"
        " (s.connection_budget - s.promised_connections) / p.connections,"
        " (s.storage_budget_bytes - s.promised_storage_bytes) / p.storage_bytes)), 0)::bigint AS places"
        " FROM db_current_plans p LEFT JOIN db_servers s ON {0} WHERE p.placement = 'shared' GROUP BY 1 ORDER BY 1".format(takes)
    )


def summary(told: Mapping[str, Any]) -> str:
    """The forecast in words."""
    if not told["days"]:
        return "No forecast: {0}".format(told["reason"])
    pace = "{0:+d} tenants in {1} days, {2:+.2f} a day".format(told["instances"], told["days"], told["per_day"])
    if told["full_at"]:
        return "{0}: {1}".format(pace, told["reason"] or "full on {0} at this pace".format(told["full_at"]))
    return "{0}; no forecast: {1}".format(pace, told["reason"])

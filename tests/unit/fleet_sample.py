# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of a fleet in which nothing is wrong, to be changed by each test."""

from __future__ import annotations

import copy
from typing import Any, Dict

NOW = "2026-11-22T12:00:00+00:00"
SERVER: Dict[str, Any] = {
    "name": "postgres-pool-1", "server_type": "shared", "backend": "process", "host": "127.0.0.1", "port": 15433, "status": "active",
    "status_reason": None, "status_changed_at": "2026-10-01T00:00:00+00:00", "health_status": "healthy", "last_health_check": "2026-11-22T11:58:00+00:00",
    "health_check_failures": 0, "max_instances": 50, "current_instances": 10, "connection_budget": 300, "promised_connections": 60,
    "storage_budget_bytes": 250 << 30, "promised_storage_bytes": 30 << 30, "allocation_strategy": "auto", "postgres_version": "150014", "tls": False,
    "certificate_expires_at": None, "created_at": "2026-10-01T00:00:00+00:00", "activated_at": "2026-10-01T00:01:00+00:00",
    "checked_at": "2026-11-22T11:58:00+00:00", "latency_ms": 2.5, "connections_used": 20, "database_count": 10, "problem": None, "detail": {},
    "tenants_by_plan": {"standard": 10}, "tenants": [], "hours": "h" * 24, "probes": 288, "probes_failed": 0,
}  # fmt: skip
HISTOGRAM = {"count": 2, "sum": 3.5, "buckets": [[1, 1], [5, 2]]}
FLEET: Dict[str, Any] = {
    "generated_at": NOW,
    "totals": {"pools": 1, "active": 1, "dedicated": 0, "capacity": 50, "used": 10, "utilization": 20.0},
    "growth": {"days": 30, "instances": 3, "per_day": 0.1, "full_at": "2027-12-26", "reason": None},
    "history": [{"day": "2026-11-21", "tenants": 9, "places": 50}, {"day": "2026-11-22", "tenants": 10, "places": 50}],
    "available": [{"plan_tier": "standard", "places": 40}],
    "allocations": {
        "live": {"reserved": 0, "active": 10, "migrating": 0, "releasing": 0},
        "steps": {"reserved": 12, "activated": 11, "released": 1, "dropped": 1, "expired": 1},
        "reservations_overdue": 0,
        "drops_overdue": 0,
    },
    "durations": {
        "provisioning": {"shared": HISTOGRAM, "dedicated": HISTOGRAM},
        "allocation": {"": HISTOGRAM},
        "moving": {"": HISTOGRAM},
        "downtime": {"": HISTOGRAM},
    },
    "server_steps": {"active": 1},
    "provisioning_failures": [],
    "provisioning_failures_recent": [],
    "moves": {"counts": [], "running": []},
    "cleanup": {},
    "events": [],
    "authorities": [],
    "servers": [SERVER],
    "tenants_listed": True,
}


def fleet(**changed: Any) -> Dict[str, Any]:
    return dict(copy.deepcopy(FLEET), **changed)


def server(**changed: Any) -> Dict[str, Any]:
    return dict(copy.deepcopy(SERVER), **changed)

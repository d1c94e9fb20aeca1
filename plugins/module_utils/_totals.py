# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums over servers. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Sequence

IN_USE = ("active", "full")


def totals(servers: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """``pools`` and ``active`` ones among them, ``capacity`` and ``used`` places of those in use, ``utilization`` in percent."""
    pools = [server for server in servers if server["server_type"] == "shared" and server["status"] != "deprovisioned"]
    serving = [server for server in pools if server["status"] in IN_USE]
    capacity = sum(server["max_instances"] for server in serving)
    used = sum(server["current_instances"] for server in serving)
    return {
        "pools": len(pools),
        "active": len(serving),
        "dedicated": sum(
            1 for server in servers if server["server_type"] == "dedicated" and server["status"] != "deprovisioned"
        ),
        "capacity": capacity,
        "used": used,
        "utilization": round(100.0 * used / capacity, 1) if capacity else 0.0,
    }

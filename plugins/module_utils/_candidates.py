# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers may take a tenant, in what order, and why the others may not.

The same rules make the statement that chooses and the one that explains, so that an explanation cannot differ from the choice. Pure:
it only writes SQL; the parameters are ``connections``, ``storage_bytes`` and ``instance_id``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

IN_THE_MAKING = ("provisioning", "initializing")
LIVE = ("reserved", "active", "migrating", "releasing")


@dataclass(frozen=True)
class Rule:
    """``holds`` is an SQL condition on ``db_servers s``; ``otherwise`` an SQL text that says why not."""

    holds: str
    otherwise: str


_ROOM = (
    Rule(
        "s.current_instances < s.max_instances",
        "format('%%s of %%s places are taken', s.current_instances, s.max_instances)",
    ),
    Rule(
        "s.promised_connections + %(connections)s <= s.connection_budget",
        "format('%%s of %%s connections are promised, the plan takes %%s', s.promised_connections, s.connection_budget, %(connections)s)",
    ),
    Rule(
        "s.promised_storage_bytes + %(storage_bytes)s <= s.storage_budget_bytes",
        "format('%%s of %%s are promised, the plan takes %%s', pg_size_pretty(s.promised_storage_bytes), "
        "pg_size_pretty(s.storage_budget_bytes), pg_size_pretty(%(storage_bytes)s::bigint))",
    ),
)
_STATUS = (
    "CASE s.status WHEN 'full' THEN format('it is full: %%s of %%s places are taken', s.current_instances, s.max_instances)"
    " ELSE format('it is %%s%%s', s.status, coalesce(': ' || nullif(s.status_reason, ''), '')) END"
)
_ACTIVE = Rule("s.status = 'active'", _STATUS)
_MAKING = Rule("s.status IN ('provisioning', 'initializing')", _STATUS)
_WELL = (
    Rule("s.allocation_strategy = 'auto'", "'it takes allocations by hand only (allocation_strategy is manual)'"),
    Rule("s.health_status IN ('healthy', 'unknown')", "format('its health is %%s', s.health_status)"),
)
_KIND = {
    "shared": (Rule("s.server_type = 'shared'", "format('it is a %%s server', s.server_type)"),),
    "dedicated": (
        Rule(
            "s.server_type = 'dedicated'",
            "format('it is a %%s server, the tenant needs one of its own', s.server_type)",
        ),
        Rule("s.dedicated_instance_id = %(instance_id)s", "'it belongs to another instance'"),
    ),
}
# Among equals the oldest: servers made one after another lie side by side on disk, so that a busy inventory database writes few pages.
ORDERS = {
    "priority": "s.priority, s.load, s.created_at, s.id",
    "spread": "s.load, s.created_at, s.id",
    "pack": "s.load DESC, s.created_at, s.id",
}


def rules(placement: str, making: bool = False) -> Tuple[Rule, ...]:
    """The rules a server must hold for *placement* (``shared`` or ``dedicated``), in the order in which they are explained."""
    return _KIND[placement] + (_MAKING if making else _ACTIVE,) + _WELL + _ROOM


def _all(held: Tuple[Rule, ...]) -> str:
    return " AND ".join(rule.holds for rule in held)


def choice(placement: str, strategy: str = "priority", making: bool = False, wait_for_locks: bool = False) -> str:
    """A SELECT of the id of the best candidate, its row locked.

    A row that another caller holds is passed over, so that many callers spread instead of queueing;
    *wait_for_locks* is for the caller about to conclude that there is no room at all.
    """
    order = "s.created_at, s.id" if making else ORDERS[strategy]
    return "SELECT s.id FROM db_servers s WHERE {0} ORDER BY {1} LIMIT 1 FOR NO KEY UPDATE{2}".format(
        _all(rules(placement, making)), order, "" if wait_for_locks else " SKIP LOCKED"
    )


def explanation(placement: str, strategy: str = "priority") -> str:
    """A SELECT of ``server`` and ``reason`` (null for a candidate), candidates first and in the order of choice."""
    # Two parts, so that the second, which has no index to follow, is read only when the candidates are fewer than the limit.
    reason = "CASE {0} END".format(
        " ".join("WHEN NOT ({0.holds}) THEN {0.otherwise}".format(rule) for rule in rules(placement))
    )
    return (
        "(SELECT s.name AS server, NULL::text AS reason FROM db_servers s WHERE {0} ORDER BY {1} LIMIT %(limit)s) UNION ALL "
        "(SELECT s.name, {2} FROM db_servers s WHERE ({0}) IS NOT TRUE AND s.status <> 'deprovisioned' AND s.server_type <> 'platform' "
        "ORDER BY {1} LIMIT %(limit)s) LIMIT %(limit)s".format(_all(rules(placement)), ORDERS[strategy], reason)
    )

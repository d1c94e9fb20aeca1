# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a move goes: the same rules as for a new tenant, on the servers other than its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _candidates
from ._candidates import Rule
from ._errors import PoolsError
from ._inventory import Inventory
from ._making import NewServer, make_server
from ._secrets import Cipher

# Found by naming it: by hand is what that is.
_BY_HAND = "s.allocation_strategy = 'auto'"
# Of "18.4" or "180004" the major; one that is not known stands against nothing, since the preflight asks the servers.
_MAJOR = "(SELECT CASE WHEN n >= 10000 THEN n / 10000 ELSE n END FROM (SELECT substring({0}.postgres_version FROM '^[0-9]{{1,9}}')::int AS n) version)"
_ELSEWHERE = (
    Rule("s.id <> %(source_id)s::uuid", "'the tenant is on it'"),
    Rule(
        "coalesce({0} >= (SELECT {1} FROM db_servers o WHERE o.id = %(source_id)s::uuid), true)".format(_MAJOR.format("s"), _MAJOR.format("o")),
        "'its PostgreSQL is older than that of the tenant''s server'",
    ),
    Rule("s.name <> ALL (%(exclude)s::text[])", "'it is excluded'"),
)
_SHOWN = 50


@dataclass(frozen=True)
class Wanted:
    """What the allocation is to be after the move. ``kind`` is ``shared`` or ``dedicated``."""

    plan_tier: str
    plan: Mapping[str, Any]
    requires_dedicated: bool
    connections: int
    storage_bytes: int

    @property
    def kind(self) -> str:
        return "dedicated" if self.requires_dedicated else str(self.plan["placement"])


@dataclass(frozen=True)
class Choice:
    server_id: str
    server: str
    considered: List[Dict[str, Any]]


def wanted_from(params: Mapping[str, Any], allocation: Mapping[str, Any], plans: Mapping[str, Mapping[str, Any]]) -> Wanted:
    """:raises PoolsError: the plan is unknown, or the data do not fit into less storage than before."""
    tier = params["plan_tier"] or allocation["plan_tier"]
    if tier not in plans:
        raise PoolsError("plan_tier {0} is unknown; db_plans has {1}.".format(repr(tier)[:60], ", ".join(sorted(plans))))
    plan = plans[tier]
    # Without a new plan the tenant keeps what it was once promised.
    limits = plan if params["plan_tier"] else allocation
    dedicated = params["require_dedicated"] if params["require_dedicated"] is not None else allocation["requires_dedicated"]
    wanted = Wanted(tier, plan, dedicated, limits["connections"], limits["storage_bytes"])
    size = params["size_bytes"]
    if size is not None and size > wanted.storage_bytes and wanted.storage_bytes < allocation["storage_bytes"]:
        raise PoolsError(
            "The database of instance {0} has {1} MiB, and plan {2} takes {3} MiB.".format(
                allocation["instance_id"], -(-size >> 20), tier, wanted.storage_bytes >> 20
            ),
            "Let the tenant make room first, or choose a plan with more storage. Nothing was changed.",
        )
    return wanted


def _arguments(wanted: Wanted, allocation: Mapping[str, Any], exclude: Sequence[str]) -> Dict[str, Any]:
    return {
        "connections": wanted.connections,
        "storage_bytes": wanted.storage_bytes,
        "instance_id": allocation["instance_id"],
        "source_id": allocation["server_id"],
        "exclude": list(exclude),
    }


def _rules(wanted: Wanted, making: bool, named: bool = False) -> Tuple[Rule, ...]:
    return _ELSEWHERE + tuple(rule for rule in _candidates.rules(wanted.kind, making) if not (named and rule.holds == _BY_HAND))


def _find(wanted: Wanted, strategy: str, making: bool, wait_for_locks: bool, named: bool = False) -> str:
    return "SELECT s.id::text, s.name FROM db_servers s WHERE {0}{1} ORDER BY {2} LIMIT 1 FOR NO KEY UPDATE{3}".format(
        " AND ".join(rule.holds for rule in _rules(wanted, making, named)),
        " AND s.name = %(target)s" if named else "",
        "s.created_at, s.id" if making else _candidates.ORDERS[strategy],
        "" if wait_for_locks else " SKIP LOCKED",
    )


def considered(
    inventory: Inventory, wanted: Wanted, allocation: Mapping[str, Any], exclude: Sequence[str], strategy: str, target: Optional[str] = None
) -> List[Dict[str, Any]]:
    """For up to 50 servers, or for *target* alone: ``server`` and ``reason`` (None for a candidate), candidates first."""
    held = _rules(wanted, making=False, named=target is not None)
    reason = "CASE {0} END".format(" ".join("WHEN NOT ({0.holds}) THEN {0.otherwise}".format(rule) for rule in held))
    return inventory.rows(
        "SELECT s.name AS server, {0} AS reason FROM db_servers s WHERE s.status <> 'deprovisioned' AND s.server_type <> 'platform'"
        " AND (%(target)s::text IS NULL OR s.name = %(target)s) ORDER BY ({1}) IS NOT TRUE, {2} LIMIT %(limit)s".format(
            reason, " AND ".join(rule.holds for rule in held), _candidates.ORDERS[strategy]
        ),
        dict(_arguments(wanted, allocation, exclude), target=target, limit=_SHOWN),
    )


def candidates(inventory: Inventory, wanted: Wanted, allocation: Mapping[str, Any], exclude: Sequence[str] = ()) -> List[str]:
    """The names of all servers that could take the tenant now, in the order of choice."""
    found = inventory.rows(
        "SELECT s.name FROM db_servers s WHERE {0} ORDER BY {1}".format(
            " AND ".join(rule.holds for rule in _rules(wanted, making=False)), _candidates.ORDERS["priority"]
        ),
        _arguments(wanted, allocation, exclude),
    )
    return [row["name"] for row in found]


def fits_where_it_is(inventory: Inventory, wanted: Wanted, allocation: Mapping[str, Any]) -> bool:
    """Whether the tenant can have what is wanted without leaving its server, whose row is locked then."""
    if allocation["server_type"] != wanted.kind:
        return False
    return bool(
        inventory.rows(
            "SELECT 1 FROM db_servers WHERE id = %(source_id)s::uuid AND promised_connections - %(had)s + %(connections)s <= connection_budget"
            " AND promised_storage_bytes - %(had_bytes)s + %(storage_bytes)s <= storage_budget_bytes FOR NO KEY UPDATE",
            dict(_arguments(wanted, allocation, []), had=allocation["connections"], had_bytes=allocation["storage_bytes"]),
        )
    )


def named(inventory: Inventory, wanted: Wanted, allocation: Mapping[str, Any], target: str, strategy: str) -> Choice:
    """The server that the caller named, its row locked.

    :raises PoolsError: there is no such server, it is the tenant's own, or the rules say why it cannot take the tenant.
    """
    given = dict(_arguments(wanted, allocation, []), target=target)
    if target == allocation["server"]:
        raise PoolsError("Instance {0} is on {1} already.".format(allocation["instance_id"], target), "Name another server, or none.")
    for making in (False, True):
        found = inventory.row(_find(wanted, strategy, making, wait_for_locks=True, named=True), given)
        if found:
            return Choice(found["id"], found["name"], [{"server": target, "reason": None}])
    reasons = considered(inventory, wanted, allocation, [], strategy, target)
    if not reasons:
        raise PoolsError("There is no server {0!r} that takes tenants.".format(target), "playbooks/pools.yml lists those there are.")
    raise PoolsError(
        "Server {0} cannot take instance {1} with plan {2}: {3}.".format(target, allocation["instance_id"], wanted.plan_tier, reasons[0]["reason"]),
        "Name another server, or none to have one chosen.",
    )


def choose(
    inventory: Inventory,
    cipher: Cipher,
    wanted: Wanted,
    allocation: Mapping[str, Any],
    exclude: Sequence[str],
    strategy: str,
    new_server: Optional[NewServer],
) -> Choice:
    """The best server with room, its row locked; else one in the making, else the row of a new one. Inside a transaction.

    :raises PoolsError: no room, and no server may be made; with each server's reason.
    """
    given = _arguments(wanted, allocation, exclude)
    found = inventory.row(_find(wanted, strategy, making=False, wait_for_locks=False), given)
    if found is None:
        # As in _placement: only one at a time may conclude that there is no room.
        inventory.lock_placement()
        inventory.execute("UPDATE db_allocations SET status = 'expired' WHERE status = 'reserved' AND expires_at < now()")
        for making in (False, True):
            found = found or inventory.row(_find(wanted, strategy, making, wait_for_locks=True), given)
    looked_at = considered(inventory, wanted, allocation, exclude, strategy)
    if found is None:
        if new_server is None:
            reasons = "; ".join("{server}: {reason}".format(**one) for one in looked_at[:10]) or "there is none"
            raise PoolsError(
                "No other {0} server has room for instance {1}, and none may be made ({2}).".format(wanted.kind, allocation["instance_id"], reasons),
                "Run playbooks/provision_{0}.yml.".format("pool" if wanted.kind == "shared" else "dedicated"),
            )
        # A server of the tenant's own is made for what the tenant has, which an older plan may have promised.
        plan = dict(wanted.plan, connections=wanted.connections, storage_bytes=wanted.storage_bytes)
        found = make_server(inventory, cipher, new_server, wanted.kind, plan, allocation["customer_id"], allocation["instance_id"])
    return Choice(found["id"], found["name"], looked_at)

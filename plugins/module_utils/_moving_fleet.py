# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``fleet_moves``: which tenants should be moved, and where to. It only reads."""

from __future__ import annotations

import datetime
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

from . import _moving_place, _names, _rebalance
from ._errors import PoolsError
from ._inventory import Inventory
from ._moving_place import Wanted
from ._secrets import Cipher

OPTIONS: Dict[str, Any] = dict(
    state=dict(type="str", required=True, choices=["mismatched", "of_server", "rebalance"]),
    server=dict(type="str"),
    target=dict(type="str"),
    exclude=dict(type="list", elements="str", default=[]),
    platform_plans=dict(type="list", elements="dict", options=dict(instance_id=dict(type="str", required=True), plan_tier=dict(type="str", required=True))),
    limit=dict(type="int"),
    tolerance=dict(type="float", default=0.1),
    window=dict(type="str"),
)
RULES: Dict[str, Any] = dict(required_if=[("state", "of_server", ("server",))])
_WINDOW = re.compile(r"^([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)\Z")
_TENANTS = """
SELECT a.instance_id::text, a.customer_id::text, a.plan_tier, a.requires_dedicated, a.status, a.connections, a.storage_bytes, a.server_id::text,
    s.name AS server, s.server_type, s.connection_budget - s.promised_connections AS connections_left,
    s.storage_budget_bytes - s.promised_storage_bytes AS storage_left
FROM db_allocations a JOIN db_servers s ON s.id = a.server_id
WHERE a.status IN ('reserved', 'active', 'migrating', 'releasing') AND (%(server)s::text IS NULL OR s.name = %(server)s)
ORDER BY a.reserved_at, a.id
"""


def work(params: Mapping[str, Any], inventory: Inventory, unused: Optional[Cipher]) -> Dict[str, Any]:
    _refuse_bad(params)
    with inventory.transaction():
        inventory.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        now = inventory.rows("SELECT now() AS now")[0]["now"]
        look = {"mismatched": _mismatched, "of_server": _of_server, "rebalance": _rebalanced}[params["state"]]
        result = look(params, inventory)
    inside = in_window(params["window"], now) if params["window"] else True
    return dict({"problems": [], "others": [], "loads": []}, changed=False, in_window=inside, **result)


def _refuse_bad(params: Mapping[str, Any]) -> None:
    if params["limit"] is not None and params["limit"] < 0:
        raise PoolsError("limit is {0}; it is 0 or more.".format(params["limit"]))
    if not 0 <= params["tolerance"] <= 1:
        raise PoolsError("tolerance is {0:g}; it is a part of a pool's places, from 0 to 1.".format(params["tolerance"]))
    for option in ("server", "target"):
        if params[option] is not None:
            _names.check_server_name(params[option])


def in_window(window: str, now: datetime.datetime) -> bool:
    """Whether *now* is within *window*, ``HH:MM-HH:MM`` in UTC; one that ends before it begins goes over midnight.

    :raises PoolsError: it is no such window, or an empty one.
    """
    match = _WINDOW.match(window)
    if not match:
        raise PoolsError("{0!r} is no window of time.".format(window[:60]), "Write it as 22:00-04:00, in UTC.")
    begin = int(match.group(1)) * 60 + int(match.group(2))
    end = int(match.group(3)) * 60 + int(match.group(4)) if match.group(3) else 24 * 60
    if begin == end:
        raise PoolsError("The window {0} is empty.".format(window), "Write 00:00-24:00 for the whole day.")
    moment = now.astimezone(datetime.timezone.utc)
    minute = moment.hour * 60 + moment.minute
    return begin <= minute < end if begin < end else minute >= begin or minute < end


# --- allocations that do not fit their plan


def _mismatched(params: Mapping[str, Any], inventory: Inventory) -> Dict[str, Any]:
    plans = inventory.plans()
    platform = _platform_plans(params["platform_plans"] or [])
    problems: List[Dict[str, Any]] = []
    others: List[Dict[str, Any]] = []
    found: List[Dict[str, Any]] = []
    for tenant in inventory.rows(_TENANTS, {"server": params["server"]}):
        tier = platform.get(tenant["instance_id"], tenant["plan_tier"])
        if tier not in plans:
            problems.append({"instance_id": tenant["instance_id"], "why": "its plan {0!r} is not in db_plans".format(tier[:60])})
            continue
        wanted = Wanted(tier, plans[tier], tenant["requires_dedicated"], plans[tier]["connections"], plans[tier]["storage_bytes"])
        why = _unlike(tenant, wanted)
        if why and tenant["status"] != "active":
            others.append({"instance_id": tenant["instance_id"], "status": tenant["status"]})
        elif why:
            found.append(dict(tenant, wanted=wanted, why=why, copy=not _fits(tenant, wanted)))
    limited = found if params["limit"] is None else found[: params["limit"]]
    targets = _targets(params, inventory, {one["instance_id"]: one["wanted"] for one in limited}, [one for one in limited if one["copy"]])
    proposals = [
        {
            "instance_id": one["instance_id"],
            "from": one["server"],
            "to": targets.get(one["instance_id"]) if one["copy"] else one["server"],
            "why": one["why"],
            "plan_tier": one["wanted"].plan_tier,
            "copy": one["copy"],
        }
        for one in limited
    ]
    return {"proposals": proposals, "found": len(found), "problems": problems, "others": others}


def _platform_plans(given: Sequence[Mapping[str, Any]]) -> Dict[str, str]:
    plans: Dict[str, str] = {}
    for number, one in enumerate(given, start=1):
        instance_id = _names.parse_uuid(one["instance_id"], "instance_id of entry {0} of platform_plans".format(number))
        if plans.get(instance_id, one["plan_tier"]) != one["plan_tier"]:
            raise PoolsError(
                "platform_plans has two plans for instance {0}, {1} and {2}.".format(instance_id, plans[instance_id], one["plan_tier"]),
                "Let the query give each instance once.",
            )
        plans[instance_id] = one["plan_tier"]
    return plans


def _unlike(tenant: Mapping[str, Any], wanted: Wanted) -> str:
    told = []
    if tenant["plan_tier"] != wanted.plan_tier:
        told.append("the platform has it in plan {0}, its allocation in {1}".format(wanted.plan_tier, tenant["plan_tier"]))
    if tenant["server_type"] != wanted.kind:
        cause = "it is to have a server of its own" if tenant["requires_dedicated"] else "plan {0} is {1}".format(wanted.plan_tier, wanted.kind)
        told.append("{0}, and {1} is {2}".format(cause, tenant["server"], tenant["server_type"]))
    if tenant["connections"] != wanted.connections:
        told.append("it has {0} connections, plan {1} has {2}".format(tenant["connections"], wanted.plan_tier, wanted.connections))
    if tenant["storage_bytes"] != wanted.storage_bytes:
        told.append("it has {0} MiB of storage, plan {1} has {2} MiB".format(tenant["storage_bytes"] >> 20, wanted.plan_tier, wanted.storage_bytes >> 20))
    return "; ".join(told)


def _fits(tenant: Mapping[str, Any], wanted: Wanted) -> bool:
    """As _moving_place.fits_where_it_is(), which looks again with the row locked when it is done."""
    return bool(
        tenant["server_type"] == wanted.kind
        and wanted.connections - tenant["connections"] <= tenant["connections_left"]
        and wanted.storage_bytes - tenant["storage_bytes"] <= tenant["storage_left"]
    )


# --- all tenants of a server


def _of_server(params: Mapping[str, Any], inventory: Inventory) -> Dict[str, Any]:
    if not inventory.servers([params["server"]]):
        raise PoolsError("There is no server {0!r} in the inventory database.".format(params["server"]), "playbooks/pools.yml lists those there are.")
    tenants = inventory.rows(_TENANTS, {"server": params["server"]})
    plans = inventory.plans()
    moved, problems = [], []
    wanted: Dict[str, Wanted] = {}
    for one in tenants:
        if one["plan_tier"] not in plans:
            problems.append({"instance_id": one["instance_id"], "why": "its plan {0!r} is not in db_plans".format(one["plan_tier"][:60])})
        elif one["status"] == "active":
            wanted[one["instance_id"]] = Wanted(
                one["plan_tier"], plans[one["plan_tier"]], one["requires_dedicated"], one["connections"], one["storage_bytes"]
            )
            moved.append(one)
    limited = moved if params["limit"] is None else moved[: params["limit"]]
    targets = _targets(params, inventory, wanted, limited)
    proposals = [
        {
            "instance_id": one["instance_id"],
            "from": one["server"],
            "to": targets[one["instance_id"]],
            "why": "it is to leave {0}".format(one["server"])
            if targets[one["instance_id"]]
            else "it is to leave {0}; no other {1} server has room, one would be made".format(one["server"], wanted[one["instance_id"]].kind),
            "plan_tier": one["plan_tier"],
            "copy": True,
        }
        for one in limited
    ]
    others = [{"instance_id": one["instance_id"], "status": one["status"]} for one in tenants if one["status"] != "active"]
    return {"proposals": proposals, "found": len(moved), "problems": problems, "others": others}


def _targets(
    params: Mapping[str, Any], inventory: Inventory, wanted: Mapping[str, Wanted], tenants: Sequence[Mapping[str, Any]]
) -> Dict[str, Optional[str]]:
    """Where each would go, with what the others before it took counted in."""
    allowed: Dict[str, List[str]] = {}
    for one in tenants:
        names = _moving_place.candidates(inventory, wanted[one["instance_id"]], one, params["exclude"])
        allowed[one["instance_id"]] = [name for name in names if params["target"] in (None, name)]
    asking = [
        dict(one, connections=wanted[one["instance_id"]].connections, storage_bytes=wanted[one["instance_id"]].storage_bytes) for one in tenants
    ]
    return _rebalance.assign(asking, inventory.servers(), allowed)


# --- even pools


def _rebalanced(params: Mapping[str, Any], inventory: Inventory) -> Dict[str, Any]:
    servers = [
        one
        for one in inventory.servers(server_type="shared")
        if one["status"] in ("active", "full")
        and one["allocation_strategy"] == "auto"
        and one["health_status"] in ("healthy", "unknown")
        and one["name"] not in params["exclude"]
    ]
    plans = inventory.plans()
    # One that belongs on another kind of server is the business of its plan.
    tenants = [
        one
        for one in inventory.rows(_TENANTS, {"server": None})
        if one["status"] == "active" and not one["requires_dedicated"] and plans.get(one["plan_tier"], {}).get("placement") == "shared"
    ]
    every = _rebalance.plan(servers, tenants, None, params["tolerance"])
    moves = every if params["limit"] is None else every[: params["limit"]]
    tiers = {one["instance_id"]: one["plan_tier"] for one in tenants}
    loads = [
        {
            "server": one["name"],
            "places": one["max_instances"],
            "before": one["current_instances"],
            "after": one["current_instances"] + sum((move["to"] == one["name"]) - (move["from"] == one["name"]) for move in moves),
        }
        for one in servers
    ]
    return {"proposals": [dict(one, plan_tier=tiers[one["instance_id"]], copy=True) for one in moves], "found": len(every), "loads": loads}

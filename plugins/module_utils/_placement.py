# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding a tenant its place: reserved on a server with room, else on one in the making, else on a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

from . import _application_described, _candidates, _names
from ._errors import PoolsError
from ._inventory import Inventory
from ._making import NewServer, make_server
from ._secrets import Cipher, new_password

_INSERT = """
WITH place AS ({choice})
INSERT INTO db_allocations (instance_id, customer_id, plan_tier, requires_dedicated, server_id, database_name, role_name,
    password_encrypted, connections, storage_bytes, expires_at)
SELECT %(instance_id)s::uuid, %(customer_id)s::uuid, %(plan_tier)s::text, %(require_dedicated)s::boolean, place.id, %(database)s::text,
    %(role)s::text, %(password)s::text, %(connections)s::integer, %(storage_bytes)s::bigint, now() + %(ttl)s::integer * interval '1 second'
FROM place
ON CONFLICT DO NOTHING
RETURNING id"""


@dataclass(frozen=True)
class Request:
    """What a caller asks for one instance. Without ``application`` the one that is recorded stays."""

    instance_id: str
    customer_id: str
    plan_tier: str
    require_dedicated: bool = False
    application: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class Policy:
    """How places are chosen. ``ttl`` is seconds; without ``new_server`` none is made."""

    strategy: str = "priority"
    name_prefix: str = "odoo"
    ttl: int = 900
    new_server: Optional[NewServer] = None


@dataclass(frozen=True)
class Place:
    """Where an instance's allocation is: found as it was (``changed`` false) or newly reserved."""

    instance_id: str
    changed: bool
    considered: List[Dict[str, Any]]
    warning: Optional[str] = None


def requests_from(entries: Sequence[Mapping[str, Any]], plans: Mapping[str, Mapping[str, Any]]) -> List[Request]:
    """Check every entry before anything is touched.

    :raises PoolsError: names every entry that is wrong, not the first one only.
    """
    problems: List[str] = []
    found: List[Request] = []
    seen: Dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            instance_id = _names.parse_uuid(entry.get("instance_id"), "instance_id")
            customer_id = _names.parse_uuid(entry.get("customer_id"), "customer_id")
            tier = entry.get("plan_tier")
            if tier not in plans:
                raise PoolsError(
                    "plan_tier {0} is unknown; db_plans has {1}.".format(repr(tier)[:60], ", ".join(sorted(plans)))
                )
            if instance_id in seen:
                raise PoolsError("instance_id {0} stands in entry {1} already.".format(instance_id, seen[instance_id]))
            seen[instance_id] = number
            named = entry.get("application")
            application = None if named is None else _application_described.described(named)
            found.append(Request(instance_id, customer_id, str(tier), bool(entry.get("require_dedicated")), application))
        except PoolsError as error:
            problems.append(str(error) if len(entries) == 1 else "entry {0}: {1}".format(number, error))
    if problems:
        raise PoolsError(" ".join(problems))
    return found


def placement_of(request: Request, plan: Mapping[str, Any]) -> str:
    return "dedicated" if request.require_dedicated else str(plan["placement"])


def place(inventory: Inventory, cipher: Cipher, request: Request, plan: Mapping[str, Any], policy: Policy) -> Place:
    """Reserve a place for *request*, or find the one it has.

    :raises PoolsError: another customer's instance; no room and no server may be made, with each server's reason.
    """
    for attempt in range(3):
        arguments = _arguments(cipher, request, plan, policy, attempt)
        kind = placement_of(request, plan)
        if inventory.prepared(_INSERT.format(choice=_candidates.choice(kind, policy.strategy)), arguments):
            return Place(request.instance_id, True, considered(inventory, request, plan, policy.strategy))
        existing = inventory.allocations([request.instance_id])
        if existing:
            if existing[0]["status"] != "reserved" or existing[0]["server_status"] != "error":
                return _found(request, existing[0])
            # Nothing was ever made at this place, and its server will not come: look for another.
            _expire(inventory, existing[0]["allocation_id"])
        if _reserve_or_make(inventory, cipher, request, plan, policy, arguments):
            return Place(request.instance_id, True, considered(inventory, request, plan, policy.strategy))
        # Lost to another caller with the same instance, or to another instance with the same name: look again.
    raise PoolsError(
        "No place was settled for instance {0} in three tries.".format(request.instance_id), "Run it again."
    )


def _found(request: Request, existing: Mapping[str, Any]) -> Place:
    if existing["customer_id"] != request.customer_id:
        raise PoolsError(
            "Instance {0} belongs to another customer.".format(request.instance_id),
            "Check instance_id and customer_id; nothing was changed.",
        )
    if existing["status"] == "releasing":
        raise PoolsError(
            "Instance {0} is being released.".format(request.instance_id),
            "Let playbooks/release.yml finish (run it again if it was interrupted), then ask again.",
        )
    warning = None
    if existing["plan_tier"] != request.plan_tier:
        warning = "Instance {0} keeps its place of plan {1}; asking with plan {2} does not move it.".format(
            request.instance_id, existing["plan_tier"], request.plan_tier
        )
    elif request.require_dedicated and existing["server_type"] != "dedicated":
        warning = "Instance {0} keeps its place on {1}, which is not dedicated.".format(
            request.instance_id, existing["server"]
        )
    return Place(request.instance_id, False, [], warning)


def _expire(inventory: Inventory, allocation_id: str) -> None:
    inventory.execute(
        "UPDATE db_allocations SET status = 'expired' WHERE id = %(id)s AND status = 'reserved'", {"id": allocation_id}
    )


def _arguments(
    cipher: Cipher, request: Request, plan: Mapping[str, Any], policy: Policy, attempt: int
) -> Dict[str, Any]:
    database, role = _names.database_names(request.customer_id, request.instance_id, policy.name_prefix, attempt)
    return {
        "instance_id": request.instance_id,
        "customer_id": request.customer_id,
        "plan_tier": request.plan_tier,
        "require_dedicated": request.require_dedicated,
        "database": database,
        "role": role,
        "password": cipher.encrypt(new_password()),
        "connections": plan["connections"],
        "storage_bytes": plan["storage_bytes"],
        "ttl": policy.ttl,
    }


def _reserve_or_make(
    inventory: Inventory,
    cipher: Cipher,
    request: Request,
    plan: Mapping[str, Any],
    policy: Policy,
    arguments: Mapping[str, Any],
) -> bool:
    """The slow path, one caller at a time: whoever comes here must not conclude from a row that another merely held."""
    kind = placement_of(request, plan)
    with inventory.transaction():
        inventory.lock_placement()
        inventory.execute(
            "UPDATE db_allocations SET status = 'expired' WHERE status = 'reserved' AND expires_at < now()"
        )
        for making in (False, True):
            if inventory.row(
                _INSERT.format(choice=_candidates.choice(kind, policy.strategy, making, wait_for_locks=True)), arguments
            ):
                return True
        if _lost_to_another(inventory, arguments):
            return False
        if policy.new_server is None:
            raise PoolsError(
                _no_room(kind, considered(inventory, request, plan, policy.strategy)),
                "Run playbooks/provision_{0}.yml.".format("pool" if kind == "shared" else "dedicated"),
            )
        server_id = make_server(
            inventory, cipher, policy.new_server, kind, plan, request.customer_id, request.instance_id
        )["id"]
        return bool(
            inventory.row(
                _INSERT.format(choice="SELECT %(server_id)s::uuid AS id"), dict(arguments, server_id=server_id)
            )
        )


def _lost_to_another(inventory: Inventory, arguments: Mapping[str, Any]) -> bool:
    """Whether the row was not written because the instance, or another one's database of that name, is live by now."""
    return bool(
        inventory.rows(
            "SELECT 1 FROM db_allocations WHERE status IN ('reserved', 'active', 'migrating', 'releasing')"
            " AND (instance_id = %(instance_id)s OR database_name = %(database)s)",
            arguments,
        )
    )


def considered(
    inventory: Inventory, request: Request, plan: Mapping[str, Any], strategy: str = "priority", limit: int = 50
) -> List[Dict[str, Any]]:
    """For up to *limit* servers, candidates first in the order of choice: ``server`` and ``reason`` (None for a candidate)."""
    return inventory.rows(
        _candidates.explanation(placement_of(request, plan), strategy),
        {
            "connections": plan["connections"],
            "storage_bytes": plan["storage_bytes"],
            "instance_id": request.instance_id,
            "limit": limit,
        },
    )


def _no_room(kind: str, servers: Sequence[Mapping[str, Any]]) -> str:
    if not servers:
        return "There is no server, and none may be made."
    reasons = "; ".join("{server}: {reason}".format(**server) for server in servers[:10])
    more = "" if len(servers) <= 10 else "; and {0} more".format(len(servers) - 10)
    return "No {0} server has room, and none may be made ({1}{2}).".format(kind, reasons, more)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``server``: its options, and one call of it from the checked arguments to the result."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from . import _lifecycle, _names
from ._allocation import NEW_SERVER_OPTIONS
from ._candidates import IN_THE_MAKING
from ._errors import PoolsError
from ._inventory import Inventory, plain
from ._making import CONNECTIONS_PER_INSTANCE, NewServer, claim_making, make_server, refuse_other_key
from ._secrets import Cipher
from ._sizing import memory_needed, parse_size, tenant_connections

RECORDED = (
    "host",
    "port",
    "postgres_version",
    "postgres_image",
    "cpu_limit",
    "swarm_service_id",
    "swarm_service_name",
    "health_status",
)
OPTIONS: Dict[str, Any] = dict(
    name=dict(type="str"),
    state=dict(
        type="str",
        default="provisioning",
        choices=["provisioning", "initializing", "active", "maintenance", "error", "deprovisioning", "deprovisioned"],
    ),
    server_type=dict(type="str", default="shared", choices=["shared", "dedicated"]),
    instance_id=dict(type="str"),
    customer_id=dict(type="str"),
    plan_tier=dict(type="str"),
    spare=dict(type="int"),
    new_server=dict(type="dict", options=NEW_SERVER_OPTIONS),
    lease=dict(type="str"),
    lease_seconds=dict(type="int", default=120),
    reason=dict(type="str"),
    host=dict(type="str"),
    port=dict(type="int"),
    postgres_version=dict(type="str"),
    postgres_image=dict(type="str"),
    cpu_limit=dict(type="float"),
    memory_limit=dict(type="str"),
    swarm_service_id=dict(type="str"),
    swarm_service_name=dict(type="str"),
    health_status=dict(type="str", choices=["unknown", "healthy", "degraded", "unhealthy"]),
)


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    """Make the row of a server, or take it one step further; the module's result."""
    if params["name"] is not None:
        _names.check_server_name(params["name"])
    result: Dict[str, Any] = {"changed": False, "lease": params["lease"]}
    before: List[Dict[str, Any]] = inventory.servers([params["name"]]) if params["name"] else []
    name = params["name"]
    if params["state"] == "provisioning" and not params["lease"]:
        name, result["changed"] = _wanted(params, inventory, cipher, before)
        if name is None:
            return dict(result, server=None, admin_password_encrypted=None)
        claimed = claim_making(inventory, [name], params["lease_seconds"])
        result["lease"] = claimed[1] if claimed else None
    else:
        if name is None:
            raise PoolsError("state {0} needs the server's name.".format(params["state"]))
        values = {column: params[column] for column in RECORDED if params[column] is not None}
        if params["memory_limit"] is not None and before:
            values.update(_memory(params, before[0]))
        if params["state"] == "error" or params["reason"]:
            values["status_reason"] = (params["reason"] or "no reason was given")[:2000]
        elif params["state"] == "active":
            values["status_reason"] = None
        result["changed"] = _lifecycle.step_server(
            inventory, name, params["state"], params["lease"], params["lease_seconds"], values
        )
    row = inventory.servers([name])[0]
    result["server"] = plain(row)
    result["admin_password_encrypted"] = _admin_password(inventory, name)
    result["diff"] = {"before": _shown(before), "after": _shown([row])}
    return result


def _wanted(
    params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, before: List[Dict[str, Any]]
) -> Tuple[Optional[str], bool]:
    if before:
        return before[0]["name"], False
    if not params["new_server"]:
        raise PoolsError(
            "There is no server {0!r}, and new_server does not say what it should be like.".format(params["name"])
        )
    refuse_other_key(inventory, cipher)
    new = NewServer.from_options(params["new_server"])
    plan = customer_id = instance_id = None
    if params["server_type"] == "dedicated":
        plans = inventory.plans()
        plan = plans.get(params["plan_tier"])
        if plan is None:
            raise PoolsError(
                "plan_tier {0!r} is unknown; db_plans has {1}.".format(
                    str(params["plan_tier"])[:60], ", ".join(sorted(plans))
                )
            )
        instance_id = _names.parse_uuid(params["instance_id"], "instance_id")
        customer_id = _names.parse_uuid(params["customer_id"], "customer_id")
    with inventory.transaction():
        inventory.lock_placement()
        unfinished = _unfinished(inventory, instance_id) if params["name"] is None else None
        if unfinished:
            return unfinished, False
        if params["spare"] is not None and _empty_pools(inventory) >= params["spare"]:
            return None, False
        made = make_server(
            inventory, cipher, new, params["server_type"], plan, customer_id, instance_id, params["name"]
        )
        return made["name"], True


def _unfinished(inventory: Inventory, instance_id: Optional[str]) -> Optional[str]:
    """A server that was begun and that nobody makes; for an instance, the one it has, whatever its state."""
    found = inventory.row(
        "SELECT name FROM db_servers WHERE (server_type = 'dedicated' AND dedicated_instance_id = %(instance)s"
        " AND status IN ('provisioning', 'initializing', 'active', 'full', 'maintenance'))"
        " OR (%(instance)s IS NULL AND server_type = 'shared' AND status = ANY (%(making)s)"
        " AND (lease_expires_at IS NULL OR lease_expires_at < now())) ORDER BY created_at LIMIT 1",
        {"instance": instance_id, "making": list(IN_THE_MAKING)},
    )
    return found["name"] if found else None


def _memory(params: Mapping[str, Any], row: Mapping[str, Any]) -> Dict[str, Any]:
    """The columns that follow from a server's memory.

    :raises PoolsError: less than what its tenants were promised needs.
    """
    memory = parse_size(params["memory_limit"])
    fit, promised = tenant_connections(memory), row["promised_connections"]
    if row["server_type"] == "shared":
        per_instance = (params["new_server"] or {}).get("connections_per_instance") or CONNECTIONS_PER_INSTANCE
        wanted = row["max_instances"] * per_instance
    else:
        wanted = row["connection_budget"]
    if fit < max(1, promised):
        raise PoolsError(
            "{0} MiB of memory fit {1} connections of tenants, {2} are promised on {3}.".format(
                memory >> 20, fit, promised, row["name"]
            ),
            "Give {0} MiB or more, or move tenants away first.".format(memory_needed(max(1, promised)) >> 20),
        )
    return {"memory_limit_bytes": memory, "connection_budget": min(fit, wanted)}


def _empty_pools(inventory: Inventory) -> int:
    """Pools that placement may choose and that nobody is in, those in the making among them."""
    return int(
        inventory.rows(
            "SELECT count(*) FROM db_servers WHERE server_type = 'shared' AND allocation_strategy = 'auto' AND current_instances = 0"
            " AND status IN ('provisioning', 'initializing', 'active') AND health_status IN ('healthy', 'unknown')"
        )[0]["count"]
    )


def _admin_password(inventory: Inventory, name: str) -> Optional[str]:
    return inventory.rows(
        "SELECT admin_password_encrypted AS token FROM db_servers WHERE name = %(name)s", {"name": name}
    )[0]["token"]


def _shown(rows: List[Dict[str, Any]]) -> Dict[str, Any]:
    return plain(rows[0], ("updated_at", "updated_by", "lease_expires_at")) if rows else {}

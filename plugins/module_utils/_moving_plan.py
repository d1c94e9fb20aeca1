# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a move: where it goes, what it promises there, or that nothing has to move; and the wait for its target."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from . import _moving_place, _moving_size, _names
from ._allocation import RETRY_AFTER, tenant_databases, with_login
from ._candidates import IN_THE_MAKING
from ._connection import actor
from ._errors import PoolsError
from ._inventory import Inventory
from ._lifecycle import MADE
from ._making import NewServer, claim_making
from ._moving_lease import read, renew, unfinished_move
from ._moving_place import Wanted
from ._secrets import Cipher
from ._tenant import OWNER_SUFFIX

_POLL_SECONDS = 1.0
# A new move and what was considered for it, or the whole result when nothing has to move.
Plan = Union[Tuple[Dict[str, Any], List[Dict[str, Any]]], Dict[str, Any]]


def plan(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, instance_id: str) -> Optional[Plan]:
    """None when another run was quicker.

    :raises PoolsError: the instance cannot be moved, or there is no room for it.
    """
    plans = inventory.plans()
    # Before anything is locked: a server that does not answer takes its time.
    params = dict(params, size_bytes=_moving_size.size_where_it_matters(params, inventory, cipher, instance_id, plans))
    new = NewServer.from_options(params["new_server"]) if params["new_server"] else None
    with inventory.transaction():
        inventory.execute(
            "SELECT 1 FROM db_allocations WHERE instance_id = %(id)s AND status IN ('reserved', 'active', 'migrating', 'releasing') FOR NO KEY UPDATE",
            {"id": instance_id},
        )
        allocation = _movable(inventory, instance_id)
        if allocation is None or unfinished_move(inventory, instance_id):
            return None
        wanted = _moving_place.wanted_from(params, allocation, plans)
        is_there = params["target"] == allocation["server"]
        asks_to_leave = (params["target"] is not None and not is_there) or allocation["server"] in params["exclude"]
        asks_for_limits = is_there or params["plan_tier"] is not None or params["require_dedicated"] is not None
        if asks_for_limits and not asks_to_leave and _moving_place.fits_where_it_is(inventory, wanted, allocation):
            return _stay(inventory, allocation, wanted, plans)
        if allocation["next_password_encrypted"]:
            # Its rotation would set the new one on the server that the tenant is about to leave.
            raise PoolsError(
                "The password of instance {0} is being rotated.".format(instance_id),
                "Let playbooks/rotate_password.yml finish (run it again), then move.",
            )
        if params["target"] is not None:
            choice = _moving_place.named(inventory, wanted, allocation, params["target"], params["strategy"])
        else:
            choice = _moving_place.choose(inventory, cipher, wanted, allocation, params["exclude"], params["strategy"], new)
        made = _insert(params, inventory, allocation, wanted, choice.server_id)
    return made, choice.considered


def _movable(inventory: Inventory, instance_id: str) -> Optional[Dict[str, Any]]:
    live = inventory.allocations([instance_id])
    if not live:
        raise PoolsError("Instance {0} has no allocation.".format(instance_id), "Check instance_id; playbooks/pools.yml -e server=NAME lists tenants.")
    allocation = live[0]
    if allocation["status"] == "migrating":
        return None
    if allocation["status"] != "active":
        raise PoolsError(
            "Instance {0} is {1}, and only an active one is moved.".format(instance_id, allocation["status"]),
            "Let the allocation finish first." if allocation["status"] == "reserved" else "A released one has no place any more.",
        )
    servers = inventory.rows("SELECT id::text, server_type FROM db_servers WHERE name = %(name)s", {"name": allocation["server"]})
    return dict(allocation, server_id=servers[0]["id"])


def _insert(params: Mapping[str, Any], inventory: Inventory, allocation: Mapping[str, Any], wanted: Wanted, target_id: str) -> Dict[str, Any]:
    made = str(uuid.uuid4())
    tail = "_moved_{0}".format(uuid.UUID(made).hex[:12])
    inventory.execute(
        "INSERT INTO db_tenant_migrations (id, allocation_id, source_server_id, target_server_id, mode, status_reason, plan_tier, requires_dedicated,"
        " connections, storage_bytes, source_database, application, lease_holder, lease_actor, lease_expires_at) VALUES (%(id)s::uuid, %(allocation)s::uuid,"
        " %(source)s::uuid, %(target)s::uuid, %(mode)s, %(reason)s, %(plan_tier)s, %(dedicated)s, %(connections)s, %(storage)s, %(aside)s,"
        " %(application)s::jsonb,"
        " gen_random_uuid(), %(actor)s, clock_timestamp() + %(seconds)s * interval '1 second')",
        {
            "id": made,
            "allocation": allocation["allocation_id"],
            "source": allocation["server_id"],
            "target": target_id,
            "mode": params["mode"] or "dump",
            "reason": params["reason"],
            "plan_tier": wanted.plan_tier,
            "dedicated": wanted.requires_dedicated,
            "connections": wanted.connections,
            "storage": wanted.storage_bytes,
            "aside": allocation["database"][: _names.MAX_IDENTIFIER_BYTES - len(OWNER_SUFFIX) - len(tail)] + tail,
            "application": json.dumps(allocation["application"] if params["application"] is None else params["application"]),
            "actor": actor()[:63],
            "seconds": params["lease_seconds"],
        },
    )
    return read(inventory, made)


def _stay(inventory: Inventory, allocation: Mapping[str, Any], wanted: Wanted, plans: Mapping[str, Mapping[str, Any]]) -> Dict[str, Any]:
    """Another plan or other limits on the same server: no data has to move, so there is no move."""
    after = {
        "plan_tier": wanted.plan_tier,
        "requires_dedicated": wanted.requires_dedicated,
        "connections": wanted.connections,
        "storage_bytes": wanted.storage_bytes,
    }
    before = {key: allocation[key] for key in after}
    if before != after:
        inventory.execute(
            "UPDATE db_allocations SET {0} WHERE id = %(id)s::uuid".format(", ".join("{0} = %({0})s".format(key) for key in after)),
            dict(after, id=allocation["allocation_id"]),
        )
        inventory.execute(
            "INSERT INTO db_events (kind, server_id, allocation_id, instance_id, detail) VALUES ('allocation.changed', %(server)s::uuid, %(id)s::uuid,"
            " %(instance)s::uuid, %(detail)s::jsonb)",
            {
                "server": allocation["server_id"],
                "id": allocation["allocation_id"],
                "instance": allocation["instance_id"],
                "detail": json.dumps({"before": before, "after": after}),
            },
        )
    row = dict(allocation, **after)
    login = with_login(row, database=row["database"], owner=row["user"])
    entry = tenant_databases([row], plans)[0]
    return {
        "changed": before != after,
        "status": "ready",
        "found": False,
        "no_copy": True,
        "to_make": None,
        "migration": None,
        "source": login,
        "target": login,
        "tenant_database": entry,
        "source_tenant_database": entry,
        "quarantine": None,
        "considered": [],
        "following": [],
        "diff": {"before": dict(before, server=row["server"]), "after": dict(after, server=row["server"])},
    }


def give_up(inventory: Inventory, move: Mapping[str, Any]) -> None:
    """Nothing was done yet, and the server that the tenant was to go to will not come."""
    inventory.execute(
        "UPDATE db_tenant_migrations SET status = 'rolled_back', status_reason = %(reason)s, lease_expires_at = NULL"
        " WHERE id = %(id)s::uuid AND status = 'planned'",
        {"id": move["id"], "reason": "server {0} is {1}: {2}".format(move["target"], move["target_status"], move["target_reason"] or "no reason was kept")},
    )


def wait(params: Mapping[str, Any], inventory: Inventory, migration_id: str, lease: str) -> Dict[str, Any]:
    """Until the target can be used, or until this run is the one to make it."""
    deadline = time.monotonic() + params["wait_timeout"]
    while True:
        now = read(inventory, migration_id)
        if not renew(inventory, migration_id, lease, params["lease_seconds"]):
            raise PoolsError("The move of instance {0} was ended or taken over at this moment.".format(now["instance_id"]), "Run it again.")
        if now["target_status"] in MADE or now["status"] != "planned":
            return {"status": "ready", "to_make": None}
        if now["target_status"] not in IN_THE_MAKING:
            raise PoolsError(
                "Server {0}, to which instance {1} was to move, is {2}: {3}.".format(
                    now["target"], now["instance_id"], now["target_status"], now["target_reason"] or "no reason was kept"
                ),
                "Mend the cause and run again: the move is then planned anew.",
            )
        claimed = None
        if params["new_server"] and params["wait_timeout"] > 0:
            claimed = claim_making(inventory, [now["target"]], params["server_lease_seconds"])
        if claimed:
            return {"status": "make", "to_make": {"name": claimed[0], "lease": claimed[1]}}
        if time.monotonic() >= deadline or inventory.dry_run:
            return {"status": "provisioning", "to_make": None, "retry_after": RETRY_AFTER}
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

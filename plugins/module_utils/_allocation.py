# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``allocation``: its options, and one call of it from the checked arguments to the result."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Sequence

from . import _application_record, _lifecycle, _moving_back, _names, _placement
from ._candidates import IN_THE_MAKING
from ._errors import PoolsError
from ._hand_out import hand_out
from ._inventory import Inventory, plain
from ._login import with_login
from ._making import NewServer, claim_making, refuse_other_key
from ._secrets import Cipher

# Short enough that a waiter follows a server made in 3 s closely, long enough that fifty waiters cost nothing.
_POLL_SECONDS = 1.0
RETRY_AFTER = 10

NEW_SERVER_OPTIONS: Dict[str, Any] = dict(
    backend=dict(type="str", choices=["process", "swarm"], required=True),
    host=dict(type="str", default="127.0.0.1"),
    first_port=dict(type="int", default=15433),
    last_port=dict(type="int", default=15531),
    storage_root=dict(type="str", required=True),
    storage=dict(type="str", choices=["cephfs", "local"]),
    cpu_limit=dict(type="float", default=2),
    memory_limit=dict(type="str", default="4G"),
    storage_limit=dict(type="str", default="250G"),
    max_instances=dict(type="int", default=50),
    connections_per_instance=dict(type="int", default=6),
    priority=dict(type="int", default=100),
    allocation_strategy=dict(type="str", default="auto", choices=["auto", "manual"]),
    postgres_image=dict(type="str"),
    node_placement=dict(type="str"),
    admin_user=dict(type="str", default="postgres"),
    tls=dict(type="bool", default=False),
)
OPTIONS: Dict[str, Any] = dict(
    allocations=dict(
        type="list",
        elements="dict",
        options=dict(
            instance_id=dict(type="str", required=True),
            customer_id=dict(type="str"),
            plan_tier=dict(type="str"),
            require_dedicated=dict(type="bool", default=False),
            application=dict(type="dict"),
        ),
    ),
    instance_ids=dict(type="list", elements="str"),
    state=dict(type="str", default="present", choices=["present", "reserved", "active", "releasing", "released", "dropped"]),
    strategy=dict(type="str", default="priority", choices=["priority", "spread", "pack"]),
    name_prefix=dict(type="str", default="odoo"),
    reservation_seconds=dict(type="int", default=900),
    lease_seconds=dict(type="int", default=120),
    wait_timeout=dict(type="int", default=0),
    max_parallel=dict(type="int", default=4),
    keep_days=dict(type="float", default=7.0),
    new_server=dict(type="dict", options=NEW_SERVER_OPTIONS),
)
# Handed to AnsibleModule: what has to be given together.
RULES: Dict[str, Any] = dict(
    required_one_of=[("allocations", "instance_ids")],
    mutually_exclusive=[("allocations", "instance_ids")],
    required_if=[("state", "present", ("allocations",)), ("state", "reserved", ("allocations",))],
)


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    """Take the allocations to the state asked for; the module's result."""
    if params["state"] in ("present", "reserved"):
        requests = _placement.requests_from(params["allocations"], inventory.plans())
        ids = [request.instance_id for request in requests]
        before = inventory.allocations(ids)
        result = _reserve(params, inventory, cipher, requests)
        if params["state"] == "present" and result["status"] == "ready":
            _hand_out_to(params, inventory, cipher, ids, result)
    else:
        given = params["instance_ids"] or [entry["instance_id"] for entry in params["allocations"] or []]
        ids = [_names.parse_uuid(value, "instance_id") for value in given]
        before = inventory.allocations(ids)
        result = _step(params, inventory, ids)
    live = inventory.allocations(ids)
    result.setdefault("tenant_databases", tenant_databases(live, inventory.plans()))
    result["allocations"] = [public(row) for row in live]
    result["diff"] = [{"before": _shown(before), "after": _shown(live)}]
    if result.get("actions"):
        told = ["{0}: {1}\n".format(instance, action) for instance, actions in result["actions"].items() for action in actions]
        result["diff"].append({"before": "", "after": "".join(told), "after_header": "done to the databases"})
    return result


def _reserve(
    params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, requests: Sequence[_placement.Request]
) -> Dict[str, Any]:
    plans = inventory.plans()
    policy = _placement.Policy(
        params["strategy"],
        params["name_prefix"],
        params["reservation_seconds"],
        NewServer.from_options(params["new_server"]) if params["new_server"] else None,
    )
    refuse_other_key(inventory, cipher)
    places = [_placement.place(inventory, cipher, request, plans[request.plan_tier], policy) for request in requests]
    recorded = [
        _application_record.record(inventory, cipher, request.instance_id, request.application)
        for request in requests
        if request.application is not None
    ]
    result: Dict[str, Any] = {
        "changed": any(place.changed for place in places) or any(recorded),
        "warnings": [place.warning for place in places if place.warning],
    }
    result.update(_wait(params, inventory, [request.instance_id for request in requests]))
    servers = {
        row["instance_id"]: row["server"] for row in inventory.allocations([place.instance_id for place in places])
    }
    result["placements"] = [
        {
            "instance_id": place.instance_id,
            "server": servers.get(place.instance_id),
            "others": [
                {"server": row["server"], "reason": row["reason"] or "it has room too, but comes later in the order"}
                for row in place.considered
                if row["server"] != servers.get(place.instance_id)
            ],
        }
        for place in places
        if place.changed
    ]
    return result


def _hand_out_to(
    params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, ids: Sequence[str], result: Dict[str, Any]
) -> None:
    # A tenant on the move keeps its place and its credentials; its databases are the move's business.
    rows = [row for row in inventory.allocations(ids) if row["status"] in ("reserved", "active")]
    databases = tenant_databases(rows, inventory.plans())
    instances = {row["database"]: row["instance_id"] for row in rows}
    handed_out = hand_out(databases, instances, inventory, cipher, params["max_parallel"])
    result["changed"] = result["changed"] or handed_out["changed"]
    result["actions"] = handed_out["actions"]


def _wait(params: Mapping[str, Any], inventory: Inventory, ids: Sequence[str]) -> Dict[str, Any]:
    """Wait until every place is on a server that can be used, or until there is a server for this run to make."""
    deadline = time.monotonic() + params["wait_timeout"]
    while True:
        _lifecycle.renew(inventory, ids, params["reservation_seconds"])
        waiting: List[str] = []
        for row in inventory.allocations(ids):
            if row["server_status"] in IN_THE_MAKING:
                waiting.append(row["server"])
            elif row["status"] == "reserved" and row["server_status"] not in _lifecycle.MADE:
                raise PoolsError(
                    "Server {0}, on which instance {1} had its place reserved, is {2}: {3}.".format(
                        row["server"],
                        row["instance_id"],
                        row["server_status"],
                        row["server_reason"] or "no reason was kept",
                    ),
                    "Mend the cause and run again: another server is then made.",
                )
        if not waiting:
            return {"status": "ready", "to_make": None}
        may_make = params["new_server"] and params["wait_timeout"] > 0
        claimed = claim_making(inventory, waiting, params["lease_seconds"]) if may_make else None
        if claimed:
            return {"status": "make", "to_make": {"name": claimed[0], "lease": claimed[1]}}
        if time.monotonic() >= deadline or inventory.dry_run:
            return {"status": "provisioning", "to_make": None, "retry_after": RETRY_AFTER}
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _step(params: Mapping[str, Any], inventory: Inventory, ids: List[str]) -> Dict[str, Any]:
    state = params["state"]
    if state == "active":
        return {"changed": bool(_lifecycle.activate(inventory, ids))}
    if state == "releasing":
        changed = bool(_lifecycle.begin_release(inventory, ids))
        rows = [row for row in inventory.allocations(ids) if row["status"] == "releasing"]
        ways_back = [plain(one) for one in _moving_back.of_instances(inventory, ids)]
        return {"changed": changed, "tenant_databases": tenant_databases(rows, inventory.plans()), "ways_back": ways_back}
    changed = state == "released" and bool(_lifecycle.finish_release(inventory, ids, params["keep_days"]))
    if changed:
        _moving_back.end(inventory, [one["migration_id"] for one in _moving_back.of_instances(inventory, ids)], "the tenant was released")
    due = _lifecycle.due_for_drop(inventory, ids)
    ended = [row["allocation_id"] for row in due]
    result: Dict[str, Any] = {"changed": changed, "dropped": ended, "tenant_databases": []}
    if state == "dropped":
        result["changed"] = _lifecycle.dropped(inventory, ended) > 0
    else:
        result["tenant_databases"] = [
            with_login(row, name=row["database"], owner=row["user"], quarantine_name=row["quarantine_name"]) for row in due
        ]
    return result


def tenant_databases(rows: Sequence[Mapping[str, Any]], plans: Mapping[str, Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """The rows as arguments of the module ``tenant_database``; passwords stay encrypted until they are there."""
    made = []
    for row in rows:
        plan = plans.get(row["plan_tier"], {})
        database: Dict[str, Any] = {
            "name": row["database"],
            "owner": row["user"],
            "password_encrypted": row["password_encrypted"],
            "connection_limit": row["connections"],
            "bus": bool(plan.get("bus")),
        }
        if plan:
            database["temp_file_limit"] = plan["temp_file_limit_bytes"]
        if row["quarantine_name"]:
            database["quarantine_name"] = row["quarantine_name"]
        made.append(with_login(row, **database))
    return made


def public(row: Mapping[str, Any]) -> Dict[str, Any]:
    """A row without its secrets and without what belongs to the server."""
    return plain(
        row,
        (
            "password_encrypted",
            "next_password_encrypted",
            "admin_password_encrypted",
            "admin_user",
            "server_reason",
            "ca_certificate",
        ),
    )


def _shown(rows: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    return [{key: row[key] for key in ("instance_id", "status", "server", "database", "plan_tier", "application")} for row in rows]

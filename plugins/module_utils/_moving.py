# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``tenant_migration``: its options, and one call of it from the checked arguments to the result."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

from . import _application_described, _application_record, _moving_back, _moving_plan, _moving_steps, _names
from ._allocation import NEW_SERVER_OPTIONS, tenant_databases, with_login
from ._candidates import IN_THE_MAKING
from ._errors import PoolsError
from ._inventory import CA_CERTIFICATE, Inventory, plain
from ._lifecycle import MADE
from ._making import refuse_other_key
from ._moving_lease import open_move, read, take, unfinished_move
from ._secrets import Cipher

_HIDDEN = ("allocation_status", "target_status", "target_reason", "leased")
OPTIONS: Dict[str, Any] = dict(
    instance_id=dict(type="str", required=True),
    state=dict(
        type="str",
        default="planned",
        choices=["planned", "renewed", "preparing", "copying", "verifying", "cutover", "completed", "rolled_back", "returned", "returning"],
    ),
    lease=dict(type="str"),
    lease_seconds=dict(type="int", default=20),
    plan_tier=dict(type="str"),
    require_dedicated=dict(type="bool"),
    size_bytes=dict(type="int"),
    target=dict(type="str"),
    exclude=dict(type="list", elements="str", default=[]),
    strategy=dict(type="str", default="priority", choices=["priority", "spread", "pack"]),
    mode=dict(type="str", choices=["dump", "online", "auto"]),
    mode_reason=dict(type="str"),
    way_back=dict(type="str", choices=["prepared", "following", "ended"]),
    way_back_reason=dict(type="str"),
    new_server=dict(type="dict", options=NEW_SERVER_OPTIONS),
    server_lease_seconds=dict(type="int", default=120),
    wait_timeout=dict(type="int", default=0),
    proof=dict(type="dict"),
    retention_days=dict(type="float", default=7.0),
    application=dict(type="dict"),
    writes_stopped=dict(type="bool", default=False),
    writes_resumed=dict(type="bool", default=False),
    try_again=dict(type="bool", default=False),
    unfinished=dict(type="bool", default=False),
    reason=dict(type="str"),
    steps=dict(type="list", elements="dict", default=[]),
    progress=dict(type="dict"),
)
_STEPS = ("renewed", "preparing", "copying", "verifying", "cutover", "completed", "rolled_back", "returned")
RULES: Dict[str, Any] = dict(required_if=[("state", state, ("lease",)) for state in _STEPS] + [("state", "rolled_back", ("reason",))])


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    """Take the move to the state asked for; the module's result."""
    instance_id = _names.parse_uuid(params["instance_id"], "instance_id")
    _refuse_bad(params)
    if params["application"] is not None:
        params = dict(params, application=_application_described.described(params["application"]))
        _application_record.refuse_password_of(inventory, cipher, instance_id, params["application"])
    if params["state"] == "planned":
        return _planned(params, inventory, cipher, instance_id)
    if params["state"] == "returning":
        found, move = _moving_steps.returning(inventory, instance_id, params["lease"], params["lease_seconds"], params["application"])
        if found:
            _application_record.give(inventory, move, params["application"])
        return _result(inventory, move, _shown(move), changed=not found, found=found)
    changed, move = _moving_steps.step(params, inventory, instance_id)
    return _result(inventory, move, _shown(move), changed=changed, found=True)


def _refuse_bad(params: Mapping[str, Any]) -> None:
    if params["lease"] is not None:
        _names.parse_uuid(params["lease"], "lease")
    for option, least in (("lease_seconds", 1), ("server_lease_seconds", 1), ("wait_timeout", 0), ("retention_days", 0), ("size_bytes", 0)):
        if params[option] is not None and params[option] < least:
            raise PoolsError("{0} is {1}; it is {2} or more.".format(option, params[option], least))
    if params["target"] is not None:
        _names.check_server_name(params["target"])


def _planned(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, instance_id: str) -> Dict[str, Any]:
    warnings: List[str] = []
    considered: List[Dict[str, Any]] = []
    refuse_other_key(inventory, cipher)
    # More than one turn only when the move that was found ends, or begins, at this very moment.
    for _turn in range(3):
        move = open_move(inventory, instance_id) or unfinished_move(inventory, instance_id)
        found = move is not None
        if move is None:
            planned = _moving_plan.plan(params, inventory, cipher, instance_id)
            if isinstance(planned, dict):
                return planned
            if planned is None:
                continue
            move, considered = planned
            lease = move["lease"]
        elif move["returning_at"]:
            raise PoolsError(
                "Instance {0} is on its way back from {1} to {2}.".format(instance_id, move["target"], move["source"]),
                "Let playbooks/rollback.yml finish (run it again if it was interrupted), then ask again.",
            )
        else:
            taken = take(inventory, move, params["lease"], params["lease_seconds"])
            if taken is None:
                continue
            lease = taken
            _application_record.give(inventory, move, params["application"])
        if found and move["status"] == "planned" and move["target_status"] not in IN_THE_MAKING + MADE:
            _moving_plan.give_up(inventory, move)
            continue
        asks_for_another = params["target"] not in (None, move["target"]) or params["plan_tier"] not in (None, move["plan_tier"])
        if found and asks_for_another and move["status"] != "rolled_back":
            warnings.append(
                "Instance {0} is in the middle of a move to {1} with plan {2}, which goes on; what was asked for now comes after it.".format(
                    instance_id, move["target"], move["plan_tier"]
                )
            )
        waited = _moving_plan.wait(params, inventory, move["id"], lease)
        result = _result(inventory, move, _shown(move) if found else {}, changed=not found, found=found, considered=considered, **waited)
        return dict(result, warnings=warnings)
    raise PoolsError("No move of instance {0} was settled in three tries.".format(instance_id), "Run it again.")


def _shown(move: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: move[key] for key in ("status", "source", "target", "plan_tier", "allocation_status")}


def _result(inventory: Inventory, move: Mapping[str, Any], before: Mapping[str, Any], changed: bool, found: bool, **more: Any) -> Dict[str, Any]:
    now = read(inventory, move["id"])
    target, source = _sides(inventory, now)
    plans = inventory.plans()
    result: Dict[str, Any] = {
        "changed": changed,
        "status": "ready",
        "found": found,
        "no_copy": False,
        "to_make": None,
        "migration": plain(now, _HIDDEN),
        "source": with_login(source, database=source["database"], owner=source["user"]),
        "target": with_login(target, database=target["database"], owner=target["user"]),
        "tenant_database": tenant_databases([target], plans)[0],
        "source_tenant_database": tenant_databases([source], plans)[0],
        "quarantine": with_login(source, name=source["database"], owner=source["user"], quarantine_name=now["source_database"]),
        "considered": [],
        "following": [plain(one) for one in _moving_back.before(inventory, now)],
        "diff": {"before": before, "after": _shown(now)},
    }
    result.update(more)
    return result


def _sides(inventory: Inventory, move: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The tenant as it is, or will be, on the target and on the source: rows as tenant_databases() takes them."""
    rows = inventory.rows(
        'SELECT s.id = m.target_server_id AS is_target, a.database_name AS database, a.role_name AS "user", a.password_encrypted,'
        " NULL AS quarantine_name, s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0},"
        " CASE WHEN s.id = m.target_server_id THEN m.plan_tier ELSE m.source_plan_tier END AS plan_tier,"
        " CASE WHEN s.id = m.target_server_id THEN m.connections ELSE m.source_connections END AS connections"
        " FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id"
        " JOIN db_servers s ON s.id IN (m.source_server_id, m.target_server_id) WHERE m.id = %(id)s::uuid ORDER BY 1 DESC".format(CA_CERTIFICATE),
        {"id": move["id"]},
    )
    return rows[0], rows[1]

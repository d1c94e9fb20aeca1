# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a move after it was planned, each verified to be taken by the run whose move it is. A step that was taken changes nothing."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Tuple

from . import _moving_back
from ._connection import actor
from ._errors import PoolsError
from ._inventory import Inventory
from ._moving_lease import HELD, MOVES, last_move, open_move, take, taken_over, unfinished_move
from ._moving_times import timed

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

STEPS = ("planned", "preparing", "copying", "verifying", "cutover", "completed")
_CAPACITIES = {
    "db_servers_capacity_instances": "all its places are taken",
    "db_servers_capacity_connections": "its connections are promised to others",
    "db_servers_capacity_storage": "its storage is promised to others",
}


def no_room_to_return(move: Mapping[str, Any], error: psycopg2.Error) -> PoolsError:
    return PoolsError(
        "Instance {0} cannot go back to {1}: {2} by now. It stays on {3}, and its source is kept until {4}.".format(
            move["instance_id"],
            move["source"],
            _CAPACITIES[error.diag.constraint_name],
            move["target"],
            move["retained_until"].isoformat(timespec="seconds") if move["retained_until"] else "the move is over",
        ),
        "Move another tenant away from {0} or raise its limits, then run again; or move this one elsewhere.".format(move["source"]),
    )


def returning(
    inventory: Inventory, instance_id: str, lease: Optional[str], seconds: int, application: Optional[Mapping[str, Any]] = None
) -> Tuple[bool, Dict[str, Any]]:
    """Take on the way back of the last move: the tenant is migrating again, and its old place is held. Whether one was found begun.

    Without *application* it is the one that the allocation has by now, else that of the move.

    :raises PoolsError: there is nothing to go back to or no room for it; or another run is at it.
    """
    found = open_move(inventory, instance_id)
    if found and found["status"] == "completed":
        if take(inventory, found, lease, seconds):
            return True, found
        found = None
    if found:
        raise PoolsError(
            "Instance {0} is being moved from {1} to {2}, it is {3}.".format(instance_id, found["source"], found["target"], found["status"]),
            "A move that runs is rolled back by its own run, or by the next one that takes it over.",
        )
    last = last_move(inventory, instance_id)
    if last is None:
        raise PoolsError("Instance {0} was never moved.".format(instance_id), "Check instance_id.")
    if last["status"] == "rolled_back" and last["allocation_status"] == "active":
        # A run that ended just after this step left the rest of the way to do: opening the old place, and taking the copy away.
        if last["lease_expires_at"]:
            take(inventory, last, lease, seconds)
        return True, last
    _refuse_no_way_back(instance_id, last)
    try:
        with inventory.transaction():
            begun = inventory.row(
                "UPDATE db_tenant_migrations m SET returning_at = now(), lease_holder = gen_random_uuid(), lease_actor = %(actor)s,"
                " lease_expires_at = clock_timestamp() + %(seconds)s * interval '1 second', application = coalesce(%(application)s::jsonb,"
                " (SELECT nullif(a.application, '{}') FROM db_allocations a WHERE a.id = m.allocation_id), m.application)"
                " WHERE id = %(id)s::uuid AND status = 'completed' AND returning_at IS NULL AND retained_until > now() RETURNING id",
                {
                    "id": last["id"],
                    "actor": actor()[:63],
                    "seconds": seconds,
                    "application": None if application is None else json.dumps(application),
                },
            )
    except psycopg2.errors.CheckViolation as error:
        if error.diag.constraint_name in _CAPACITIES:
            raise no_room_to_return(last, error) from error
        raise PoolsError(
            "The last move of instance {0} cannot be undone: {1}.".format(instance_id, error.diag.message_primary),
            "playbooks/pools.yml shows where it is.",
        ) from error
    if begun is None:
        raise PoolsError("The last move of instance {0} was changed by another run at this moment.".format(instance_id), "Run it again.")
    return False, last


def _refuse_no_way_back(instance_id: str, last: Mapping[str, Any]) -> None:
    if last["status"] == "rolled_back":
        raise PoolsError(
            "The last move of instance {0} was rolled back already{1}.".format(instance_id, ": " + last["status_reason"] if last["status_reason"] else ""),
            "There is nothing to undo.",
        )
    if last["retained_until"] is None:
        raise PoolsError(
            "The source of the last move of instance {0}, on {1}, was dropped.".format(instance_id, last["source"]),
            "Move the instance anew, with playbooks/migrate.yml, or with playbooks/change_plan.yml where its plan is another one by now.",
        )


def own(inventory: Inventory, instance_id: str, lease: str) -> Tuple[Dict[str, Any], bool]:
    """This run's move, its row locked while it is open, and whether it is.

    :raises PoolsError: the instance has no move, or it is another run's.
    """
    found = open_move(inventory, instance_id, lock=True) or unfinished_move(inventory, instance_id, lock=True)
    if found:
        if found["lease"] != lease:
            raise taken_over(found)
        return found, True
    # The answer to a call may get lost; the same call again finds what became of the move.
    ended = inventory.row(
        MOVES + "WHERE a.instance_id = %(instance)s AND m.lease_holder = %(lease)s::uuid ORDER BY m.created_at DESC LIMIT 1",
        {"instance": instance_id, "lease": lease},
    )
    if ended is None:
        last = last_move(inventory, instance_id)
        if last and last["lease_actor"]:
            raise PoolsError(
                "The move of instance {0} was taken over by another run ({1}) and has ended: it is {2}.".format(
                    instance_id, last["lease_actor"], last["status"]
                ),
                "This run must leave the tenant alone.",
            )
        raise PoolsError("Instance {0} is not being moved.".format(instance_id), "Plan the move first.")
    return ended, False


def step(params: Mapping[str, Any], inventory: Inventory, instance_id: str) -> Tuple[bool, Dict[str, Any]]:
    """Take the move to the state asked for, or renew it; whether that was news, and the move as it was."""
    wanted = params["state"]
    with inventory.transaction():
        move, is_open = own(inventory, instance_id, params["lease"])
        if not is_open:
            if move["status"] == wanted or (move["status"], wanted) == ("rolled_back", "returned"):
                return False, move
            raise PoolsError(
                "The move of instance {0} has ended: it is {1}{2}.".format(
                    instance_id, move["status"], ", " + move["status_reason"] if move["status_reason"] else ""
                ),
                "Plan a new one.",
            )
        assignments, values = _changes(params, move, wanted)
        if params["steps"]:
            now = inventory.rows("SELECT clock_timestamp() AS now")[0]["now"]
            assignments.append("steps = m.steps || %(steps)s::jsonb")
            values["steps"] = json.dumps(timed(params["steps"], move, now))
        try:
            inventory.execute("UPDATE db_tenant_migrations m SET {0} WHERE id = %(id)s::uuid AND {1}".format(", ".join(assignments), HELD), values)
        except psycopg2.errors.CheckViolation as error:
            if error.diag.constraint_name in _CAPACITIES:
                raise no_room_to_return(move, error) from error
            raise
        if wanted == "preparing":
            # What followed the place that the tenant leaves has been ended by now.
            ids = [one["migration_id"] for one in _moving_back.before(inventory, move)]
            _moving_back.end(inventory, ids, "the tenant moved on")
    return wanted != "renewed" and (move["status"] != wanted or move["returning_at"] is not None), move


def _changes(params: Mapping[str, Any], move: Mapping[str, Any], wanted: str) -> Tuple[List[str], Dict[str, Any]]:
    proof = dict(move["proof"] or {}, **(params["proof"] or {}))
    values: Dict[str, Any] = {"id": move["id"], "status": wanted, "seconds": params["lease_seconds"]}
    assignments = []
    if wanted not in ("renewed", "returned") and move["status"] != wanted:
        _refuse_out_of_turn(move, wanted, proof)
        assignments.append("status = %(status)s")
    elif move["returning_at"] and wanted == "completed":
        assignments.append("returning_at = NULL")
    if wanted == "returned" and move["status"] != "rolled_back":
        raise PoolsError(
            "The move of instance {0} is {1}, so its way back has no end yet.".format(move["instance_id"], move["status"]), "Roll it back first."
        )
    if wanted in ("completed", "returned") or (wanted == "rolled_back" and not params["unfinished"]):
        # The holder stays, so that the same call again knows its own.
        assignments.append("lease_expires_at = NULL")
    else:
        assignments.append("lease_expires_at = clock_timestamp() + %(seconds)s * interval '1 second'")
    if wanted == "cutover":
        # What the cleanup will drop one day.
        proof["source_database"] = move["source_database"]
        assignments.append("retained_until = coalesce(m.retained_until, now() + %(days)s * interval '1 day')")
        values["days"] = params["retention_days"]
    if proof != (move["proof"] or {}):
        assignments.append("proof = %(proof)s::jsonb")
        values["proof"] = json.dumps(proof)
    # One that did not work in the new place could not write until it was back.
    again = wanted == "rolled_back" and move["status"] == "cutover"
    if again or ((params["writes_resumed"] or wanted in ("completed", "rolled_back")) and "downtime_seconds" not in proof):
        assignments.append(
            "proof = CASE WHEN m.writes_stopped_at IS NULL THEN {0} ELSE coalesce({0}, '{{}}') || jsonb_build_object('downtime_seconds',"
            " round(extract(epoch FROM clock_timestamp() - m.writes_stopped_at)::numeric, 2)) END".format(
                "%(proof)s::jsonb" if "proof" in values else "m.proof"
            )
        )
        assignments = [one for one in assignments if one != "proof = %(proof)s::jsonb"]
    assignments += _told(params, move, wanted, values)
    return assignments, values


def _told(params: Mapping[str, Any], move: Mapping[str, Any], wanted: str, values: Dict[str, Any]) -> List[str]:
    """What is kept of what the caller says, whatever the step."""
    assignments: List[str] = []
    if params["try_again"]:
        # Writes went on in the old place: the seconds without them are those of a step, and not of the move.
        assignments.append("writes_stopped_at = NULL")
    elif params["writes_stopped"]:
        assignments.append("writes_stopped_at = coalesce(m.writes_stopped_at, clock_timestamp())")
    if params["reason"]:
        assignments.append("status_reason = %(reason)s")
        values["reason"] = params["reason"]
    for column in ("mode_reason", "way_back", "way_back_reason"):
        if params[column] is not None:
            assignments.append("{0} = %({0})s".format(column))
            values[column] = params[column]
    if wanted == "rolled_back" and move["way_back"] in ("prepared", "following") and params["way_back"] is None:
        assignments.append("way_back = 'ended', way_back_reason = 'the tenant went back'")
    if wanted == "preparing" and params["mode"] is not None:
        assignments.append("mode = %(mode)s")
        values["mode"] = params["mode"]
    if params["progress"] is not None:
        assignments.append("progress = %(progress)s::jsonb")
        values["progress"] = json.dumps(params["progress"])
    return assignments


def _refuse_out_of_turn(move: Mapping[str, Any], wanted: str, proof: Mapping[str, Any]) -> None:
    """The database refuses it too; here the message knows the instance."""
    if move["returning_at"] and wanted != "rolled_back":
        raise PoolsError(
            "Instance {0} is on its way back to {1}; {2} is no step of that.".format(move["instance_id"], move["source"], wanted),
            "Roll it back, or leave it where it is with state completed.",
        )
    if wanted == "rolled_back":
        return
    if move["status"] == "rolled_back":
        raise PoolsError("The move of instance {0} was rolled back; {1} is no step of that.".format(move["instance_id"], wanted), "Plan a new one.")
    if STEPS.index(wanted) != STEPS.index(move["status"]) + 1:
        raise PoolsError(
            "The move of instance {0} is {1}, and {2} does not follow on that.".format(move["instance_id"], move["status"], wanted),
            "The steps are {0}; roll it back to begin again.".format(", ".join(STEPS)),
        )
    if wanted == "cutover" and proof.get("equal") is not True:
        raise PoolsError(
            "The move of instance {0} has no proof that its two databases are equal, so it does not go to cutover.".format(move["instance_id"]),
            "Compare them, and hand on the proof with equal: true; or roll the move back.",
        )

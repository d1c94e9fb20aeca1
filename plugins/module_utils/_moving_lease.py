# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a move is: the row of a move, its lease, and the thread that keeps the lease while a long step works."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Dict, List, Mapping, Optional

from ._connection import actor, connect
from ._errors import PoolsError
from ._inventory import Inventory

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

_POLL_SECONDS = 0.25
# A move on its way back is completed, and open all the same.
OPEN = "(m.status NOT IN ('completed', 'rolled_back') OR m.returning_at IS NOT NULL)"
# One whose way back is recorded, and of whom a run still has to let the tenant in and to take the copy away.
UNFINISHED = "(m.status = 'rolled_back' AND m.lease_expires_at IS NOT NULL)"
HELD = "({0} OR {1})".format(OPEN, UNFINISHED)
MOVES = """
SELECT m.id::text, m.allocation_id::text, a.instance_id::text, m.mode, m.status, m.status_reason, source.name AS source, target.name AS target,
    target.storage_budget_bytes AS target_budget_bytes, target.server_type AS target_type,
    target.status AS target_status, target.status_reason AS target_reason, a.database_name AS database, m.source_database, m.plan_tier,
    m.requires_dedicated, m.connections, m.storage_bytes, m.source_plan_tier, m.source_requires_dedicated, m.source_connections,
    m.source_storage_bytes, m.lease_holder::text AS lease, m.lease_actor, m.lease_expires_at,
    coalesce(m.lease_expires_at > clock_timestamp(), false) AS leased, m.steps, m.progress, m.proof, m.retained_until, m.created_at, m.created_by,
    m.started_at, m.writes_stopped_at, m.cutover_at, m.returning_at, m.ended_at, m.updated_at, m.application, m.mode_reason, m.way_back, m.way_back_reason,
    a.status AS allocation_status
FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id
JOIN db_servers source ON source.id = m.source_server_id JOIN db_servers target ON target.id = m.target_server_id
"""
_RENEW = """
UPDATE db_tenant_migrations m SET lease_expires_at = clock_timestamp() + %(seconds)s * interval '1 second',
    progress = coalesce(%(progress)s::jsonb, m.progress)
WHERE m.id = %(id)s::uuid AND m.lease_holder = %(lease)s::uuid AND {0} RETURNING m.id
""".format(HELD)


def open_move(inventory: Inventory, instance_id: str, lock: bool = False) -> Optional[Dict[str, Any]]:
    """The move of an instance that has not ended, or that is on its way back."""
    # Another that waits for the row sees what became of it, and not the row it waited for.
    return inventory.row(
        MOVES + "WHERE a.instance_id = %(instance)s AND {0} {1}".format(OPEN, "FOR NO KEY UPDATE OF m" if lock else ""), {"instance": instance_id}
    )


def unfinished_move(inventory: Inventory, instance_id: str, lock: bool = False) -> Optional[Dict[str, Any]]:
    """The move of an instance that was rolled back, and of whose way back the last steps are still to be taken."""
    return inventory.row(
        MOVES + "WHERE a.instance_id = %(instance)s AND a.status = 'active' AND {0} {1}".format(UNFINISHED, "FOR NO KEY UPDATE OF m" if lock else ""),
        {"instance": instance_id},
    )


def last_move(inventory: Inventory, instance_id: str) -> Optional[Dict[str, Any]]:
    """The newest move of an instance, whatever became of it."""
    return inventory.row(MOVES + "WHERE a.instance_id = %(instance)s ORDER BY m.created_at DESC, m.id LIMIT 1", {"instance": instance_id})


def read(inventory: Inventory, migration_id: str) -> Dict[str, Any]:
    return inventory.rows(MOVES + "WHERE m.id = %(id)s::uuid", {"id": migration_id})[0]


def take(inventory: Inventory, found: Mapping[str, Any], lease: Optional[str], seconds: int) -> Optional[str]:
    """Take on a move that nobody is at any more, or that is *lease*'s already; its lease, None when it ended meanwhile.

    Who died does not renew its lease, so waiting for it to lapse tells the dead from the living.

    :raises PoolsError: another run is at it.
    """
    deadline = time.monotonic() + seconds + 1
    while True:
        taken = inventory.row(
            "UPDATE db_tenant_migrations m SET lease_holder = CASE WHEN lease_holder = %(lease)s::uuid THEN lease_holder ELSE gen_random_uuid() END,"
            " lease_actor = %(actor)s, lease_expires_at = clock_timestamp() + %(seconds)s * interval '1 second' WHERE id = %(id)s::uuid AND {0} AND"
            " (lease_holder = %(lease)s::uuid OR lease_expires_at IS NULL OR lease_expires_at <= clock_timestamp())"
            " RETURNING lease_holder::text AS lease".format(HELD),
            {"id": found["id"], "lease": lease, "actor": actor()[:63], "seconds": seconds},
        )
        if taken:
            if taken["lease"] != found["lease"]:
                _record_take_over(inventory, found)
            return str(taken["lease"])
        now = inventory.row(MOVES + "WHERE m.id = %(id)s::uuid AND {0}".format(HELD), {"id": found["id"]})
        if now is None:
            return None
        if lease and now["lease"] != lease:
            raise taken_over(now)
        if now["lease"] != found["lease"] or now["lease_expires_at"] > found["lease_expires_at"]:
            raise PoolsError(
                "Instance {0} is being moved from {1} to {2} by another run ({3}), which is at work on it: it is {4}.".format(
                    now["instance_id"], now["source"], now["target"], now["lease_actor"], now["status"]
                ),
                "Let it finish.",
            )
        if inventory.dry_run or time.monotonic() >= deadline:
            raise PoolsError(
                "The move of instance {0} from {1} to {2} belongs to another run ({3}) until {4}.".format(
                    now["instance_id"], now["source"], now["target"], now["lease_actor"], now["lease_expires_at"].isoformat(timespec="seconds")
                ),
                "Run again after that time: a run that died is then taken over.",
            )
        time.sleep(_POLL_SECONDS)


def _record_take_over(inventory: Inventory, found: Mapping[str, Any]) -> None:
    inventory.execute(
        "INSERT INTO db_events (kind, allocation_id, instance_id, detail) VALUES ('migration.taken_over', %(allocation)s::uuid, %(instance)s::uuid,"
        " jsonb_build_object('migration_id', %(id)s::text, 'status', %(status)s::text, 'from', %(from)s::text))",
        {
            "allocation": found["allocation_id"],
            "instance": found["instance_id"],
            "id": found["id"],
            "status": found["status"],
            "from": found["lease_actor"],
        },
    )


def taken_over(move: Mapping[str, Any]) -> PoolsError:
    return PoolsError(
        "The move of instance {0} was taken over by another run ({1}), since the lease of this one had lapsed.".format(
            move["instance_id"], move["lease_actor"]
        ),
        "This run must leave the move alone; follow the other one.",
    )


def renew(inventory: Inventory, migration_id: str, lease: str, seconds: int, progress: Optional[Mapping[str, Any]] = None) -> bool:
    """Keep the lease; false when the move ended, or is another's by now."""
    told = json.dumps(progress) if progress is not None else None
    return bool(inventory.rows(_RENEW, {"id": migration_id, "lease": lease, "seconds": seconds, "progress": told}))


class Heartbeat:
    """Keeps the lease of a move while the block works, from a thread with a connection of its own.

    ``params`` are the ``login_*`` options of the inventory database. ``progress()`` sets what the next beat writes into the row. When the
    lease is another's, or could not be renewed until it ran out, ``lost`` is true and ``check()`` raises: a long step asks now and then.
    """

    def __init__(self, params: Mapping[str, Any], migration_id: str, lease: str, every: float = 5, lease_seconds: int = 20) -> None:
        self._params = params
        self._given: Dict[str, Any] = {"id": migration_id, "lease": lease, "seconds": lease_seconds}
        self._every = every
        self._progress: Optional[Mapping[str, Any]] = None
        self._ended = threading.Event()
        self._kept_until = time.monotonic() + lease_seconds
        self._taken = False
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._ended.set()
        self._thread.join(self._given["seconds"])

    @property
    def lost(self) -> bool:
        return self._taken or time.monotonic() > self._kept_until

    def check(self) -> None:
        """:raises PoolsError: the move is no longer this run's."""
        if self._taken:
            raise PoolsError("The move ended or was taken over by another run while this one was at work.", "Follow that one.")
        if self.lost:
            raise PoolsError(
                "The inventory database could not be reached until the lease of the move had run out.", "Run it again: it goes on where it was."
            )

    def progress(self, told: Mapping[str, Any]) -> None:
        self._progress = dict(told)

    def _beat(self) -> None:
        connections: List[Any] = []
        while True:
            ended = self._ended.is_set()
            self._once(connections)
            # The last word on the progress is written too.
            if ended or self._taken:
                break
            self._ended.wait(self._every)
        for connection in connections:
            connection.close()

    def _once(self, connections: List[Any]) -> None:
        told, asked_at = self._progress, time.monotonic()
        try:
            if not connections:
                connections.append(connect(dict(self._params, connect_params=dict(self._params.get("connect_params") or {}, connect_timeout=5))))
                connections[0].autocommit = True
            with connections[0].cursor() as cursor:
                cursor.execute(_RENEW, dict(self._given, progress=json.dumps(told) if told is not None else None))
                self._taken = cursor.fetchone() is None
            if not self._taken:
                self._kept_until = asked_at + self._given["seconds"]
        except (PoolsError, psycopg2.Error):
            # The inventory database may be back before the lease has run out.
            for connection in connections:
                connection.close()
            connections.clear()

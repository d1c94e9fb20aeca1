# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of an allocation and of a server after the place was found. Each step that was taken already changes nothing."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from ._candidates import IN_THE_MAKING
from ._errors import PoolsError
from ._inventory import CA_CERTIFICATE, Inventory
from ._names import quarantine_name

MADE = ("active", "full", "maintenance")


def renew(inventory: Inventory, instance_ids: Sequence[str], ttl: int) -> None:
    """Keep the reservations of callers that are still there."""
    inventory.execute(
        "UPDATE db_allocations SET expires_at = now() + %(ttl)s * interval '1 second'"
        " WHERE instance_id = ANY (%(ids)s::uuid[]) AND status = 'reserved'",
        {"ids": list(instance_ids), "ttl": ttl},
    )


def activate(inventory: Inventory, instance_ids: Sequence[str]) -> List[str]:
    """Turn reservations into active allocations; the instances for which that was news.

    :raises PoolsError: an instance has no live allocation any more, or its server is not one that can be used.
    """
    with inventory.transaction():
        changed = inventory.rows(
            "UPDATE db_allocations a SET status = 'active', activated_at = now(), expires_at = NULL FROM db_servers s"
            " WHERE a.instance_id = ANY (%(ids)s::uuid[]) AND a.status = 'reserved' AND s.id = a.server_id"
            " AND s.status IN ('active', 'full', 'maintenance') RETURNING a.instance_id::text",
            {"ids": list(instance_ids)},
        )
        found = {row["instance_id"]: row for row in inventory.allocations(instance_ids)}
        for instance_id in instance_ids:
            if instance_id not in found:
                raise PoolsError(
                    "The reservation of instance {0} ran out before its database was ready.".format(instance_id),
                    "Run the allocation again.",
                )
            if found[instance_id]["status"] == "reserved":
                raise PoolsError(
                    "The place of instance {0} is on {1}, which is {2}.".format(
                        instance_id, found[instance_id]["server"], found[instance_id]["server_status"]
                    ),
                    "Run the allocation again when the server is active.",
                )
    return [row["instance_id"] for row in changed]


def begin_release(inventory: Inventory, instance_ids: Sequence[str]) -> List[str]:
    """Close allocations to new work; the instances for which that was news. A reservation simply ends.

    :raises PoolsError: an instance is being moved, or never had an allocation.
    """
    changed: List[str] = []
    with inventory.transaction():
        _refuse_unknown(inventory, instance_ids)
        for found in inventory.allocations(instance_ids):
            if found["status"] == "migrating":
                raise PoolsError(
                    "Instance {0} is being moved and cannot be released.".format(found["instance_id"]),
                    "Let the move finish or roll it back, then release.",
                )
            step = {"active": "releasing", "reserved": "expired"}.get(found["status"])
            if step is None:
                continue
            inventory.execute(
                "UPDATE db_allocations SET status = %(step)s, quarantine_name = %(name)s WHERE id = %(id)s AND status = %(was)s",
                {
                    "step": step,
                    "was": found["status"],
                    "id": found["allocation_id"],
                    "name": quarantine_name(found["database"], found["allocation_id"]) if step == "releasing" else None,
                },
            )
            changed.append(found["instance_id"])
    return changed


def _refuse_unknown(inventory: Inventory, instance_ids: Sequence[str]) -> None:
    """A mistyped id must not be told that it was released; one that was released long ago is."""
    known = {
        row["instance_id"]
        for row in inventory.rows(
            "SELECT DISTINCT instance_id::text FROM db_allocations WHERE instance_id = ANY (%(ids)s::uuid[])",
            {"ids": list(instance_ids)},
        )
    }
    unknown = [instance_id for instance_id in instance_ids if instance_id not in known]
    if unknown:
        raise PoolsError(
            "There never was an allocation of instance {0}. Nothing was released.".format(", ".join(unknown[:10])),
            "Check instance_id; playbooks/pools.yml -e server=NAME lists a server's tenants.",
        )


def finish_release(inventory: Inventory, instance_ids: Sequence[str], keep_days: float) -> List[str]:
    """Free the places of quarantined databases, which are kept *keep_days* longer."""
    changed = inventory.rows(
        "UPDATE db_allocations SET status = 'released', released_at = now(), drop_after = now() + %(days)s * interval '1 day'"
        " WHERE instance_id = ANY (%(ids)s::uuid[]) AND status = 'releasing' RETURNING instance_id::text",
        {"ids": list(instance_ids), "days": keep_days},
    )
    return [row["instance_id"] for row in changed]


def due_for_drop(inventory: Inventory, instance_ids: Optional[Sequence[str]] = None) -> List[Dict[str, Any]]:
    """Released databases whose time has passed, of *instance_ids* or of all."""
    return inventory.rows(
        'SELECT a.id::text AS allocation_id, a.instance_id::text, a.database_name AS database, a.role_name AS "user",'
        " a.quarantine_name, s.name AS server, s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0}"
        " FROM db_allocations a JOIN db_servers s ON s.id = a.server_id"
        " WHERE a.status = 'released' AND a.dropped_at IS NULL AND a.drop_after <= now()"
        " AND s.status IN ('active', 'full', 'maintenance')"
        " AND (%(ids)s::uuid[] IS NULL OR a.instance_id = ANY (%(ids)s::uuid[])) ORDER BY a.drop_after".format(CA_CERTIFICATE),
        {"ids": list(instance_ids) if instance_ids is not None else None},
    )


def dropped(inventory: Inventory, allocation_ids: Sequence[str]) -> int:
    """Record that the databases of released allocations are gone, and free their storage."""
    return inventory.execute(
        "UPDATE db_allocations SET dropped_at = now() WHERE id = ANY (%(ids)s::uuid[]) AND status = 'released' AND dropped_at IS NULL",
        {"ids": list(allocation_ids)},
    )


def step_server(
    inventory: Inventory, name: str, status: str, lease: Optional[str], lease_seconds: int, values: Mapping[str, Any]
) -> bool:
    """Take one step of a server, or record *values* (columns of db_servers) at the step it has; whether anything changed.

    :raises PoolsError: there is no such server, its lease is another maker's, or the step is refused by the database.
    """
    with inventory.transaction():
        found = inventory.row(
            "SELECT status, lease_holder::text, lease_expires_at > now() AS leased, {0} FROM db_servers WHERE name = %(name)s"
            " FOR NO KEY UPDATE".format(", ".join(values) or "name"),
            {"name": name},
        )
        if found is None:
            raise PoolsError(
                "There is no server {0!r} in the inventory database.".format(name),
                "playbooks/pools.yml lists those there are.",
            )
        making = found["status"] in IN_THE_MAKING
        # A maker that was slow may still say that the server is there: whoever took over finds it made.
        if making and status != "active" and found["leased"] and found["lease_holder"] != lease:
            raise PoolsError(
                "Server {0!r} is being made by another run, whose lease has not run out.".format(name),
                "Wait for it, or run again later.",
            )
        if status in IN_THE_MAKING and found["status"] in MADE:
            return False
        # An active server may be full: the count decides which of the two it says.
        same = found["status"] == status or (status == "active" and found["status"] == "full")
        new = {column: value for column, value in values.items() if found[column] != value}
        if making and status in IN_THE_MAKING:
            inventory.execute(
                "UPDATE db_servers SET lease_holder = %(lease)s, lease_expires_at = now() + %(seconds)s * interval '1 second'"
                " WHERE name = %(name)s",
                {"lease": lease, "seconds": lease_seconds, "name": name},
            )
        if same and not new:
            return False
        assignments = ["{0} = %({0})s".format(column) for column in new]
        if not same:
            assignments.append("status = %(status)s")
            if status not in IN_THE_MAKING:
                assignments.append("lease_holder = NULL, lease_expires_at = NULL")
        inventory.execute(
            "UPDATE db_servers SET {0} WHERE name = %(name)s".format(", ".join(assignments)),
            dict(new, status=status, name=name),
        )
        return True

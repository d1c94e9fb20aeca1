# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old places that follow the new ones, for a way back with what is written there: which there are, and that they ended."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from ._inventory import CA_CERTIFICATE, Inventory
from ._login import with_login
from ._tenant import OWNER_SUFFIX

_SERVER = "s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0}".format(CA_CERTIFICATE)
_FOLLOWING = """
SELECT m.id::text, a.instance_id::text, m.source_database, a.database_name AS database, a.role_name AS "user", s.id = m.source_server_id AS is_old,
    s.name AS server, m.retained_until,
    CASE WHEN m.status = 'rolled_back' THEN 'the tenant went back'
         WHEN a.status NOT IN ('active', 'migrating') THEN 'its allocation is ' || a.status
         WHEN m.retained_until IS NULL AND m.status = 'completed' THEN 'its old place was dropped'
         WHEN m.retained_until <= now() THEN 'its time ended'
         WHEN m.status = 'completed' AND m.returning_at IS NULL AND EXISTS (SELECT FROM db_tenant_migrations n WHERE n.allocation_id = m.allocation_id
              AND n.created_at > m.created_at AND n.status = 'completed') THEN 'the tenant moved on' END AS why, {0}
FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id JOIN db_servers s ON s.id IN (m.source_server_id, m.target_server_id)
WHERE m.way_back IN ('prepared', 'following') AND {1} ORDER BY m.created_at, m.id
"""


def following(inventory: Inventory, condition: str, values: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Each as arguments of the module ``database_follow``: ``source`` is the old place under its other name, ``target`` the new one.

    *condition* is SQL over ``m``, the move.
    """
    told: Dict[str, Dict[str, Any]] = {}
    for row in inventory.rows(_FOLLOWING.format(_SERVER, condition), values):
        one = told.setdefault(row["id"], {key: row[key] for key in ("instance_id", "retained_until", "why")})
        one["migration_id"] = row["id"]
        if row["is_old"]:
            aside = row["source_database"]
            one.update(old_server=row["server"], source=with_login(row, database=aside, owner=aside + OWNER_SUFFIX))
        else:
            one.update(new_server=row["server"], target=with_login(row, database=row["database"], owner=row["user"]))
    return list(told.values())


def of_instances(inventory: Inventory, instance_ids: Sequence[str]) -> List[Dict[str, Any]]:
    """Those of tenants that are leaving, or have left."""
    condition = "a.instance_id = ANY (%(ids)s::uuid[]) AND a.status IN ('releasing', 'released')"
    return following(inventory, condition, {"ids": list(instance_ids)})


def overdue(inventory: Inventory) -> List[Dict[str, Any]]:
    """All of them, each with ``why`` it should follow no more, or None."""
    return following(inventory, "m.status IN ('completed', 'rolled_back')", {})


def before(inventory: Inventory, move: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Those of the tenant's earlier moves."""
    condition = "m.allocation_id = %(allocation)s::uuid AND m.id <> %(id)s::uuid"
    return following(inventory, condition, {"allocation": move["allocation_id"], "id": move["id"]})


def end(inventory: Inventory, migration_ids: Sequence[str], reason: str) -> None:
    """Record that they follow no more."""
    inventory.execute(
        "UPDATE db_tenant_migrations SET way_back = 'ended', way_back_reason = %(reason)s, updated_at = now()"
        " WHERE id = ANY (%(ids)s::uuid[]) AND way_back IN ('prepared', 'following')",
        {"ids": list(migration_ids), "reason": reason},
    )

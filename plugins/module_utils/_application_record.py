# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which application an allocation has, and which one a move works with, in the inventory database."""

from __future__ import annotations

import json
from typing import Any, Mapping, Optional

from ._application_described import refuse_password
from ._inventory import Inventory
from ._secrets import Cipher


def record(inventory: Inventory, cipher: Cipher, instance_id: str, application: Mapping[str, Any]) -> bool:
    """Keep *application*, checked by _application_described.described(), with the instance's live allocation; whether it was another one before.

    :raises PoolsError: the tenant's password stands in it.
    """
    with inventory.transaction():
        row = inventory.row(
            "SELECT id::text, server_id::text, application, password_encrypted FROM db_allocations WHERE instance_id = %(instance)s::uuid"
            " AND status IN ('reserved', 'active', 'migrating') FOR NO KEY UPDATE",
            {"instance": instance_id},
        )
        if row is None or row["application"] == application:
            return False
        refuse_password(application, cipher.decrypt(row["password_encrypted"], "instance {0}".format(instance_id)), instance_id)
        told = {"id": row["id"], "server": row["server_id"], "instance": instance_id, "application": json.dumps(application)}
        inventory.execute("UPDATE db_allocations SET application = %(application)s::jsonb WHERE id = %(id)s::uuid", told)
        inventory.execute(
            "INSERT INTO db_events (kind, server_id, allocation_id, instance_id, detail) VALUES ('allocation.changed', %(server)s::uuid, %(id)s::uuid,"
            " %(instance)s::uuid, %(detail)s::jsonb)",
            dict(told, detail=json.dumps({"before": {"application": row["application"]}, "after": {"application": application}})),
        )
    return True


def refuse_password_of(inventory: Inventory, cipher: Cipher, instance_id: str, application: Mapping[str, Any]) -> None:
    """:raises PoolsError: the password of the instance's live allocation stands in *application*."""
    for row in inventory.allocations([instance_id]):
        refuse_password(application, cipher.decrypt(row["password_encrypted"], "instance {0}".format(instance_id)), instance_id)


def give(inventory: Inventory, move: Mapping[str, Any], application: Optional[Mapping[str, Any]]) -> None:
    """Let a move that was begun before work with *application* from now on; with None it keeps its own."""
    if application is not None and application != move["application"]:
        inventory.execute(
            "UPDATE db_tenant_migrations SET application = %(application)s::jsonb WHERE id = %(id)s::uuid",
            {"id": move["id"], "application": json.dumps(application)},
        )

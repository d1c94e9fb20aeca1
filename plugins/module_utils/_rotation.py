# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New passwords for tenants, and new keys for all that is encrypted."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from ._errors import PoolsError
from ._inventory import Inventory
from ._secrets import Cipher, new_password

# Every column that holds an encrypted password or key, with what names its row in a message.
_ENCRYPTED = (
    ("db_servers", "admin_password_encrypted", "'server ' || name"),
    ("db_allocations", "password_encrypted", "'instance ' || instance_id"),
    ("db_allocations", "next_password_encrypted", "'instance ' || instance_id"),
    ("db_authorities", "private_key_encrypted", "'authority ' || name"),
)


def reencrypt(inventory: Inventory, cipher: Cipher) -> Dict[str, int]:
    """Encrypt with the newest key whatever an older one encrypted; how many by table and column. All or nothing.

    :raises PoolsError: a row that none of the keys opens; it is named, and nothing is changed.
    """
    counts: Dict[str, int] = {}
    with inventory.transaction():
        for table, column, whose in _ENCRYPTED:
            rows = inventory.rows(
                "SELECT id::text, {0} AS token, {1} AS whose FROM {2} WHERE {0} IS NOT NULL FOR NO KEY UPDATE".format(
                    column, whose, table
                )
            )
            fresh = [(row["id"], cipher.rotate(row["token"], row["whose"])) for row in rows]
            changed = [(row_id, token) for row_id, token in fresh if token is not None]
            if changed:
                inventory.execute(
                    "UPDATE {0} t SET {1} = new.token FROM unnest(%(ids)s::uuid[], %(tokens)s::text[]) AS new (id, token)"
                    " WHERE t.id = new.id".format(table, column),
                    {"ids": [row_id for row_id, unused in changed], "tokens": [token for unused, token in changed]},
                )
            counts["{0}.{1}".format(table, column)] = len(changed)
    return counts


def prepare(
    inventory: Inventory, cipher: Cipher, instance_ids: Sequence[str], max_age_days: float
) -> List[Dict[str, Any]]:
    """Write a next password for each instance whose password is older than *max_age_days*, or find the one of an interrupted run.

    :returns: the allocations that are to get it, with ``changed`` for those whose next password is new.
    :raises PoolsError: an instance has no active allocation.
    """
    prepared: List[Dict[str, Any]] = []
    with inventory.transaction():
        found = {
            row["instance_id"]: row
            for row in inventory.rows(
                "SELECT id::text, instance_id::text, status, next_password_encrypted IS NOT NULL AS begun,"
                " password_changed_at <= now() - %(days)s * interval '1 day' AS due"
                " FROM db_allocations WHERE instance_id = ANY (%(ids)s::uuid[])"
                " AND status IN ('active', 'migrating') FOR NO KEY UPDATE",
                {"ids": list(instance_ids), "days": max_age_days},
            )
        }
        for instance_id in instance_ids:
            row = found.get(instance_id)
            if row is None:
                raise PoolsError(
                    "Instance {0} has no active allocation.".format(instance_id),
                    "Run playbooks/allocate.yml for it first.",
                )
            if row["status"] == "migrating":
                raise PoolsError(
                    "Instance {0} is being moved.".format(instance_id), "Rotate its password when the move has ended."
                )
            if row["begun"] or not row["due"]:
                if row["begun"]:
                    prepared.append(dict(row, changed=False))
                continue
            inventory.execute(
                "UPDATE db_allocations SET next_password_encrypted = %(token)s WHERE id = %(id)s",
                {"token": cipher.encrypt(new_password()), "id": row["id"]},
            )
            prepared.append(dict(row, changed=True))
    return prepared


def confirm(inventory: Inventory, instance_ids: Sequence[str]) -> int:
    """The servers have taken the next passwords: they are the passwords now. How many were."""
    return inventory.execute(
        "UPDATE db_allocations SET password_encrypted = next_password_encrypted, next_password_encrypted = NULL, password_changed_at = now()"
        " WHERE instance_id = ANY (%(ids)s::uuid[]) AND next_password_encrypted IS NOT NULL AND status IN ('active', 'migrating')",
        {"ids": list(instance_ids)},
    )

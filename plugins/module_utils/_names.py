# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of databases, roles and servers, made from ids. Pure."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Optional, Tuple

from ._errors import PoolsError

# NAMEDATALEN - 1; PostgreSQL cuts longer identifiers silently, and two cut names may be the same.
MAX_IDENTIFIER_BYTES = 63
_PREFIX = re.compile(r"^[a-z_][a-z0-9_]*\Z")
HOST_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_SERVER_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def parse_uuid(value: object, what: str) -> str:
    """Return *value* as a canonical lower-case UUID.

    :raises PoolsError: *value* is not a UUID; the message shows at most 60 characters of it.
    """
    text = value if isinstance(value, str) else ""
    # uuid.UUID also takes braces, "urn:uuid:" and missing hyphens: a name typed that way is more likely a mistake.
    if re.match(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z", text):
        return str(uuid.UUID(text))
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    raise PoolsError(
        "{0} must be a UUID, got {1}.".format(what, shown),
        "Give it as 8-4-4-4-12 hexadecimal digits, such as 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90.",
    )


def _fit(name: str, room: int, seed: str) -> str:
    if len(name) <= room:
        return name
    digest = hashlib.sha256(seed.encode()).hexdigest()[:12]
    return "{0}_{1}".format(name[: room - 13], digest)


def database_names(customer_id: str, instance_id: str, prefix: str = "odoo", attempt: int = 0) -> Tuple[str, str]:
    """Database and role for an instance: ``odoo_<customer 16 hex>_<instance 8 hex>`` and ``<that>_user``.

    :param attempt: above 0 when the plain name is taken by another instance with the same leading digits;
        the instance's whole id then stands in the name.
    :raises PoolsError: *prefix* is not a lower-case SQL identifier.
    """
    if not _PREFIX.match(prefix):
        raise PoolsError(
            "The name prefix {0!r} is not a lower-case identifier.".format(prefix[:60]), "Use letters, digits and _."
        )
    customer = uuid.UUID(customer_id).hex[:16]
    instance = uuid.UUID(instance_id).hex
    tail = instance[:8] if attempt == 0 else instance
    room = MAX_IDENTIFIER_BYTES - len("_user")
    database = _fit("{0}_{1}_{2}".format(prefix, customer, tail), room, prefix + customer_id + instance_id)
    return database, database + "_user"


def quarantine_name(database: str, allocation_id: str) -> str:
    """The name under which a released database waits for its end; never the name a live one could have."""
    tail = "_released_{0}".format(uuid.UUID(allocation_id).hex[:12])
    # The owner's name gets "_user" after it.
    return database[: MAX_IDENTIFIER_BYTES - len("_user") - len(tail)] + tail


def pool_name(number: int) -> str:
    """``postgres-pool-N``; N comes from the inventory database's sequence."""
    return "postgres-pool-{0}".format(number)


def dedicated_name(instance_id: str, attempt: int = 0) -> str:
    """``postgres-dedicated-<instance 8 hex>``, with ``-N`` after it when that name is taken."""
    name = "postgres-dedicated-{0}".format(uuid.UUID(instance_id).hex[:8])
    return name if attempt == 0 else "{0}-{1}".format(name, attempt + 1)


def check_server_name(name: Optional[str]) -> str:
    """Return *name* if a server may be called so.

    :raises PoolsError: not 1 to 63 lower-case letters, digits and inner hyphens (a DNS label, as Swarm asks).
    """
    if isinstance(name, str) and _SERVER_NAME.match(name):
        return name
    raise PoolsError(
        "{0!r} cannot be a server's name.".format(str(name)[:60]),
        "Use 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit.",
    )

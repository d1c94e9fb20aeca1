# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tenant's connection secret is called, what it holds, and the digest by which its content is known again. Pure, but for opening the password."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from . import _application_connection
from ._dsn import tenant_connection
from ._errors import PoolsError
from ._names import parse_uuid
from ._secrets import Cipher

# Of a Swarm's secrets: which name was asked for, for which instance, and the digest of the content.
NAME = "postgres_pools.connection"
INSTANCE = "postgres_pools.instance"
DIGEST = "postgres_pools.content"
# What Swarm itself takes. A version has 13 characters more than the beginning of the name that was asked for.
_VALID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z")
_ROOM = 51
_PURPOSE = b"postgres_pools connection secret"


def check(entries: Sequence[Mapping[str, Any]]) -> None:
    """:raises PoolsError: an entry's instance, name or content is none, or two entries have one name."""
    names: Dict[str, str] = {}
    for entry in entries:
        instance = parse_uuid(entry["instance_id"], "instance_id of connection_secret")
        name = check_name(entry["name"])
        if name in names:
            raise PoolsError("The connection secret {0} is asked for twice, for {1} and {2}.".format(name, names[name], instance), "Give each its own name.")
        names[name] = instance
        _application_connection.check_content(entry["content"], "The connection secret {0}".format(name))


def check_name(name: object) -> str:
    text = name if isinstance(name, str) else ""
    if _VALID.match(text):
        return text
    shown = repr(name) if len(repr(name)) <= 60 else repr(name)[:57] + "..."
    raise PoolsError(
        "connection_secret {0} cannot be a Swarm secret's name.".format(shown),
        "It has at most 64 letters, digits, dots, hyphens and underscores, a letter or digit first and last.",
    )


def filled(entries: Sequence[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> List[Dict[str, Any]]:
    """Each secret with its content in clear and its digests; none for an instance that has no database to connect to.

    :param rows: allocations as Inventory.allocations() gives them.
    :raises PoolsError: no key opens a password, or a connection lacks what a content asks for.
    """
    cipher = Cipher(keys)
    usable = {row["instance_id"]: row for row in rows if row["status"] in ("active", "migrating")}
    secrets = []
    for entry in entries:
        instance, name = parse_uuid(entry["instance_id"], "instance_id"), entry["name"]
        if instance not in usable:
            continue
        connection = tenant_connection(usable[instance], cipher)
        if entry.get("optional") and not connection.get(entry["content"]):
            continue
        content = _application_connection.content(connection, entry["content"], "The connection secret {0}".format(name))
        secrets.append({"instance_id": instance, "name": name, "content": content, "digests": digests(keys, name, content)})
    return secrets


def digests(keys: Sequence[str], name: str, content: str) -> List[str]:
    """By each key, the newest first: a secret that was made before the keys rotated is still known.

    Keyed, since labels are read by everybody who may look at the Swarm, and a content that was guessed could be proved by a plain hash.
    """
    message = "{0}\0{1}".format(name, content).encode()
    own = (hmac.new(key.rstrip("=").encode(), _PURPOSE, hashlib.sha256).digest() for key in keys)
    return [hmac.new(key, message, hashlib.sha256).hexdigest() for key in own]


def version_of(name: str, digest: str) -> str:
    """Secrets cannot change: another content under the same name gets this one."""
    return "{0}-{1}".format(name[:_ROOM].rstrip("-_."), digest[:12])

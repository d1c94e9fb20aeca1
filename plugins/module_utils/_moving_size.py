# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a tenant's database is, asked of its server where the tenant is to have less storage than before."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from ._allocation import with_login
from ._connection import connect
from ._errors import PoolsError
from ._inventory import Inventory
from ._secrets import Cipher

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

_SECONDS = 10


def size_where_it_matters(
    params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, instance_id: str, plans: Mapping[str, Mapping[str, Any]]
) -> Optional[int]:
    """``size_bytes`` as it was given; else the database's size, or None where the tenant keeps its storage or gets more.

    :raises PoolsError: the server does not say.
    """
    plan = plans.get(params["plan_tier"] or "")
    live = inventory.allocations([instance_id])
    # What else is wrong with them is told by those who look at it.
    if params["size_bytes"] is not None or plan is None or not live or plan["storage_bytes"] >= live[0]["storage_bytes"]:
        return params["size_bytes"]
    return _asked(live[0], cipher)


def _asked(allocation: Mapping[str, Any], cipher: Cipher) -> int:
    login = with_login(allocation)
    password = allocation["admin_password_encrypted"]
    login["login_password"] = cipher.decrypt(password, "server {0}".format(allocation["server"])) if password else ""
    login["connect_params"] = {"connect_timeout": _SECONDS, "options": "-c statement_timeout={0}s".format(_SECONDS)}
    if login.get("login_ssl_mode"):
        login.update(ssl_mode=login["login_ssl_mode"], ca_certificate=login["login_ca_certificate"])
    try:
        connection = connect(login, "postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_database_size(%s)", (allocation["database"],))
                return int(cursor.fetchone()[0])
        finally:
            connection.close()
    except (PoolsError, psycopg2.Error) as error:
        told = error.problem if isinstance(error, PoolsError) else " ".join(str(error).split())
        raise PoolsError(
            "Instance {0} is to have less storage, and server {1} does not say how large its database is: {2}".format(
                allocation["instance_id"], allocation["server"], told.rstrip(".") + "."
            ),
            "Run again when it answers. Nothing was changed.",
        ) from error

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's connection, as an application takes it."""

from __future__ import annotations

from typing import Any, Dict, Mapping
from urllib.parse import quote

from ._errors import PoolsError
from ._secrets import Cipher


def tenant_connection(row: Mapping[str, Any], cipher: Cipher) -> Dict[str, Any]:
    """The parts of the connection and the URI of them all. Secret: it holds the password.

    For a server with TLS also ``ca_certificate``: libpq takes it as a file only, so it cannot be part of the URI.

    :param row: an allocation as Inventory.allocations() gives it.
    :raises PoolsError: no key opens the password; a server with TLS has no authority to be verified by.
    """
    password = cipher.decrypt(row["password_encrypted"], "instance {0}".format(row["instance_id"]))
    if row["tls"] and not row["ca_certificate"]:
        raise PoolsError(
            "Server {0} has TLS, and the inventory database has no authority to verify it by.".format(row["server"]),
            "Run playbooks/renew_certificates.yml.",
        )
    sslmode = "verify-full" if row["tls"] else "prefer"
    connection = {
        "instance_id": row["instance_id"],
        "server": row["server"],
        "host": row["host"],
        "port": row["port"],
        "database": row["database"],
        "user": row["user"],
        "password": password,
        "sslmode": sslmode,
        "dsn": "postgresql://{0}:{1}@{2}:{3}/{4}?sslmode={5}".format(
            quote(row["user"], safe=""),
            quote(password, safe=""),
            row["host"],
            row["port"],
            quote(row["database"], safe=""),
            sslmode,
        ),
    }
    if row["tls"]:
        connection["ca_certificate"] = row["ca_certificate"]
    return connection

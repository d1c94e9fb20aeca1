# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wall between the tenants of one server: the lines of its pg_hba.conf. Pure.

PostgreSQL takes the first line that fits a connection and looks no further, so the order is the meaning. REVOKE CONNECT
alone is no wall: the owner of a database can grant it to everybody again.
"""

from __future__ import annotations

import re
from typing import List, Sequence

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

# Members of this role may reach the database postgres, where Odoo's bus listens. Nobody is one unless his plan says so.
BUS_ROLE = "tenant_bus"


def lines(
    admin_user: str = "postgres",
    addresses: Sequence[str] = ("all",),
    tls: bool = False,
    admin_socket: bool = False,
    admin_replication: bool = False,
) -> List[str]:
    """The records of pg_hba.conf.

    :param addresses: where connections may come from: all, samenet, or networks such as 10.0.0.0/8.
    :param tls: let connections in by TLS only.
    :param admin_socket: let the administrator in by the Unix socket too, with his password.
    :param admin_replication: let the administrator replicate; a tenant never may.
    """
    if not addresses:
        raise PoolsError("pg_hba.conf needs at least one address.", "Give 'all' for every address.")
    for address in addresses:
        if not re.match(r"^[A-Za-z0-9_.:/-]+$", address):
            raise PoolsError("'{0}' is no address that pg_hba.conf takes.".format(address))
    kind = "hostssl" if tls else "host"
    admin = _quoted(admin_user)
    result = ["local all {0} scram-sha-256".format(admin)] if admin_socket else []
    for address in addresses:
        result.append("{0} all {1} {2} scram-sha-256".format(kind, admin, address))
        if admin_replication:
            result.append("{0} replication {1} {2} scram-sha-256".format(kind, admin, address))
        result.append("{0} postgres +{1} {2} scram-sha-256".format(kind, BUS_ROLE, address))
        # Each tenant's database has a role of its own name without login; its owner is the member. Superusers are
        # not counted as members of every role here, so this line opens nothing to them.
        result.append("{0} samerole all {1} scram-sha-256".format(kind, address))
    # What is not let in above is refused anyhow. The line says so to whoever reads, and disarms what is appended.
    return result + ["host all all all reject"]


def _quoted(user: str) -> str:
    if not user or re.search(r"[\x00-\x1f\"]", user):
        raise PoolsError("'{0}' is no name of an administrator that pg_hba.conf can hold.".format(user))
    # In quotes all, samerole, +group and /regex lose their special meaning; from PostgreSQL 16 on a slash does not.
    if user.startswith("/"):
        raise PoolsError("The name of an administrator cannot begin with a slash.")
    return '"{0}"'.format(user)

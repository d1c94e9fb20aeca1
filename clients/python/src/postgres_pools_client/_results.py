# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers. All are frozen, and none shows a password when it is printed."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Connection:
    """How an application reaches its database.

    Run locally, the playbook hands over the password. AWX never does: there the database's password is in the Swarm secret *secret*
    if one was asked for, and in the inventory database for the lookup `connection`.
    """

    instance_id: str
    server: str
    host: str
    port: int
    database: str
    user: str
    password: Optional[str] = dataclasses.field(default=None, repr=False)
    sslmode: Optional[str] = None
    # PEM, for a server with TLS; libpq takes it from a file only (PGSSLROOTCERT).
    ca_certificate: Optional[str] = dataclasses.field(default=None, repr=False)
    dsn: Optional[str] = dataclasses.field(default=None, repr=False)
    secret: Optional[str] = None

    def arguments(self) -> Dict[str, Any]:
        """The arguments that psycopg's connect() takes, with the password if it is known."""
        known = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
            "sslmode": self.sslmode,
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Provisioning:
    """There is no server with room yet. Ask again after *retry_after* seconds; `wait_for_database` does so by itself."""

    instance_id: str
    retry_after: float


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    server_type: str
    status: str
    host: Optional[str] = None
    port: Optional[int] = None
    status_reason: Optional[str] = None
    health_status: Optional[str] = None
    current_instances: int = 0
    max_instances: int = 0
    instance_id: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Totals:
    """*capacity* and *used* count the places of the pools in use, *utilization* is the latter in percent of the former."""

    pools: int = 0
    active: int = 0
    dedicated: int = 0
    capacity: int = 0
    used: int = 0
    utilization: float = 0.0


@dataclasses.dataclass(frozen=True)
class PoolStatus:
    servers: Tuple[Server, ...]
    totals: Totals
    # The day (ISO 8601) on which the pools are full at the pace of the last 30 days, where there is such a day.
    full_at: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class PlanChange:
    """*status* is `moved`, `changed` (only limits were) or `unchanged`."""

    instance_id: str
    status: str
    server: Optional[str] = None
    source: Optional[str] = None
    plan_tier: Optional[str] = None
    downtime_seconds: Optional[float] = None
    retained_until: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Released:
    """*dropped* counts the databases whose time was past, and that are gone for good."""

    instance_ids: Tuple[str, ...]
    dropped: int = 0


def build(kind: Type[_T], told: Mapping[str, Any], **more: Any) -> _T:
    """Of what a playbook told, the fields that *kind* has. A later collection may tell more."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**dict({name: told[name] for name in names & set(told)}, **more))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory database: one connection, its transactions, and the rows that are read in more than one place."""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ._connection import connect
from ._errors import PoolsError

try:
    import psycopg2
    import psycopg2.extras
except ImportError:
    pass  # _connection reports it with the reason

# The highest migration in roles/inventory_db/files/migrations that this code was written against.
SCHEMA_VERSION = 9
_PARAMETER = re.compile(r"%\((\w+)\)s")
# Any number that no other program takes in this database; one lock for "is there really no room".
_PLACEMENT_LOCK = 0x706F6F6C73

# What may be shown: everything of a server but its password.
SERVER_COLUMNS = """s.id::text, s.name, s.server_type, s.backend, s.host, s.port, s.status, s.status_reason, s.status_changed_at,
    s.health_status, s.last_health_check, s.health_check_failures, s.max_instances, s.current_instances, s.connection_budget,
    s.promised_connections, s.storage_budget_bytes, s.promised_storage_bytes, s.allocation_strategy, s.priority,
    s.cpu_limit::float8 AS cpu_limit, s.memory_limit_bytes, s.storage, s.storage_path, s.postgres_version, s.postgres_image,
    s.swarm_service_id, s.swarm_service_name, s.node_placement, s.admin_user, s.dedicated_customer_id::text,
    s.dedicated_instance_id::text, s.lease_expires_at, s.created_at, s.created_by, s.activated_at, s.updated_at, s.updated_by,
    s.tls, s.certificate_expires_at"""
ALLOCATION_COLUMNS = """a.id::text AS allocation_id, a.instance_id::text, a.customer_id::text, a.plan_tier, a.requires_dedicated, a.status,
    a.database_name AS database, a.role_name AS "user", a.connections, a.storage_bytes, a.quarantine_name, a.reserved_at, a.expires_at,
    a.activated_at, a.released_at, a.drop_after, a.dropped_at, s.name AS server, s.host, s.port, s.tls, s.status AS server_status"""
# What a client trusts when it checks the certificate of a server: PEM, the authority that signs now first.
CA_CERTIFICATE = """CASE WHEN s.tls THEN (SELECT string_agg(c.certificate, '' ORDER BY c.current DESC, c.created_at DESC)
    FROM db_authorities c) END AS ca_certificate"""


def plain(row: Mapping[str, Any], hidden: Sequence[str] = ()) -> Dict[str, Any]:
    """A row as a module's result: without *hidden* columns, times as ISO 8601 in UTC."""
    shown = {key: value for key, value in row.items() if key not in hidden}
    for key, value in shown.items():
        if isinstance(value, datetime.datetime):
            shown[key] = value.astimezone(datetime.timezone.utc).isoformat(timespec="seconds")
    return shown


class Inventory:
    """A connection to the inventory database.

    With *dry_run* everything happens in one transaction that is rolled back on closing: what would happen is found by doing it.

    :raises PoolsError: unreachable, without schema, or with a schema of another version.
    """

    def __init__(self, params: Mapping[str, Any], dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self._prepared: Dict[str, str] = {}
        self._connection = connect(params)
        self._connection.autocommit = True
        self._where = "database {0!r} on {1} port {2}".format(
            self._connection.info.dbname, self._connection.info.host or "the local socket", self._connection.info.port
        )
        try:
            self._check_schema()
            if dry_run:
                self.execute("BEGIN")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Inventory:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        # Closing an open transaction rolls it back.
        self._connection.close()

    def _check_schema(self) -> None:
        remedy = "Run playbooks/inventory_db.yml of the collection's own version."
        try:
            found = self.rows("SELECT max(version) AS version FROM db_schema_versions")[0]["version"] or 0
        except psycopg2.errors.UndefinedTable as error:
            raise PoolsError("The {0} has no schema.".format(self._where), remedy) from error
        except psycopg2.errors.InsufficientPrivilege as error:
            raise PoolsError(
                "The user {0!r} may not read the inventory in the {1}.".format(self._connection.info.user, self._where),
                remedy,
            ) from error
        if found != SCHEMA_VERSION:
            raise PoolsError(
                "The {0} has schema version {1}, this code needs {2}.".format(self._where, found, SCHEMA_VERSION),
                remedy,
            )

    def rows(self, statement: str, arguments: Optional[Mapping[str, Any]] = None) -> List[Dict[str, Any]]:
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(statement, arguments)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def row(self, statement: str, arguments: Optional[Mapping[str, Any]] = None) -> Optional[Dict[str, Any]]:
        found = self.rows(statement, arguments)
        return found[0] if found else None

    def prepared(self, statement: str, arguments: Mapping[str, Any]) -> List[Dict[str, Any]]:
        """As rows(), for a statement that this connection runs again and again: it is parsed and planned once.

        Every parameter must have a type, by its use or by a cast: the driver's quoted values no longer tell it.
        """
        order = list(dict.fromkeys(_PARAMETER.findall(statement)))
        name = self._prepared.get(statement)
        if name is None:
            name = self._prepared[statement] = "prepared_{0}".format(len(self._prepared))
            numbered = _PARAMETER.sub(lambda found: "${0}".format(order.index(found.group(1)) + 1), statement)
            self.execute("PREPARE {0} AS {1}".format(name, numbered.replace("%%", "%")))
        values = ", ".join("%({0})s".format(parameter) for parameter in order)
        return self.rows("EXECUTE {0} ({1})".format(name, values), arguments)

    def execute(self, statement: str, arguments: Optional[Mapping[str, Any]] = None) -> int:
        """Run a statement; the number of rows it touched."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.rowcount

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; inside a dry run a savepoint, so that a refused step does not spoil what follows."""
        begin, commit, undo = (
            ("SAVEPOINT step", "RELEASE step", "ROLLBACK TO step") if self.dry_run else ("BEGIN", "COMMIT", "ROLLBACK")
        )
        self.execute(begin)
        try:
            yield
        except BaseException:
            if not self._connection.closed:
                self.execute(undo)
            raise
        self.execute(commit)

    def lock_placement(self) -> None:
        """Until the transaction's end, be the only one that concludes that there is no room."""
        self.execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _PLACEMENT_LOCK})

    def plans(self) -> Dict[str, Dict[str, Any]]:
        """The plans in force now, by tier."""
        found = self.rows(
            "SELECT plan_tier, placement, connections, storage_bytes, temp_file_limit_bytes, bus, "
            "cpu_limit::float8 AS cpu_limit, memory_limit_bytes FROM db_current_plans"
        )
        return {plan["plan_tier"]: plan for plan in found}

    def servers(
        self, names: Optional[Sequence[str]] = None, status: Optional[str] = None, server_type: Optional[str] = None
    ) -> List[Dict[str, Any]]:
        """Servers without their secrets, by creation; ``deprovisioned`` ones only when asked for by name or status."""
        return self.rows(
            "SELECT {0} FROM db_servers s WHERE (%(names)s::text[] IS NULL OR s.name = ANY (%(names)s))"
            " AND (%(status)s::text IS NULL OR s.status = %(status)s)"
            " AND (%(server_type)s::text IS NULL OR s.server_type = %(server_type)s)"
            " AND (s.status <> 'deprovisioned' OR %(names)s::text[] IS NOT NULL OR %(status)s = 'deprovisioned')"
            " ORDER BY s.created_at, s.name".format(SERVER_COLUMNS),
            {"names": list(names) if names is not None else None, "status": status, "server_type": server_type},
        )

    def allocations(self, instance_ids: Sequence[str], live: bool = True) -> List[Dict[str, Any]]:
        """Allocations of instances with their encrypted passwords; with *live* false, each instance's whole history, newest first."""
        return self.rows(
            "SELECT {0}, a.application, a.password_encrypted, a.next_password_encrypted, s.admin_user, s.admin_password_encrypted,"
            " s.server_type, s.status_reason AS server_reason, {1}"
            " FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = ANY (%(ids)s::uuid[])"
            " AND (NOT %(live)s OR a.status IN ('reserved', 'active', 'migrating', 'releasing'))"
            " ORDER BY a.reserved_at DESC".format(ALLOCATION_COLUMNS, CA_CERTIFICATE),
            {"ids": list(instance_ids), "live": live},
        )

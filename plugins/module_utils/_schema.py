# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of the inventory database: numbered scripts up and down, a transaction each, checksummed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ._errors import PoolsError

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    pass  # _connection reports it with the reason

_FILE_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.(up|down)\.sql\Z")
# Any number that no other program takes in this database: two runs do not migrate at once.
_SCHEMA_LOCK = 0x736368656D61
_VERSIONS_TABLE = """
CREATE TABLE db_schema_versions (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT session_user
)"""
_KEPT = """
SELECT (SELECT count(*) FROM db_allocations WHERE status IN ('reserved', 'active', 'migrating', 'releasing')
        OR (status = 'released' AND dropped_at IS NULL)) AS allocations,
       (SELECT count(*) FROM db_servers WHERE status <> 'deprovisioned') AS servers"""
_PRIVILEGES = """
SELECT md5(coalesce(string_agg(what, ' ' ORDER BY what), '')) FROM (
    SELECT 'd' || datacl::text AS what FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT 'n' || nspacl::text FROM pg_namespace WHERE nspname = 'public'
    UNION ALL SELECT 'c' || oid || relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'a' || attrelid || '.' || attnum || attacl::text FROM pg_attribute
    WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
    UNION ALL SELECT 't' || tgrelid::regclass || tgname FROM pg_trigger WHERE NOT tgisinternal) AS acl"""


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    up: str
    down: str

    @property
    def label(self) -> str:
        return "{0:04d}_{1}".format(self.version, self.name)

    @property
    def checksum(self) -> str:
        """Of the way up only: a way down may be mended after it was written."""
        return hashlib.sha256(self.up.strip().encode()).hexdigest()


def migrations_from(files: Mapping[str, str]) -> List[Migration]:
    """Pair the scripts ``NNNN_name.up.sql`` and ``NNNN_name.down.sql``.

    :raises PoolsError: a name of another form, a number left out or given twice, or one of a pair missing.
    """
    pairs: Dict[int, Dict[str, str]] = {}
    for file_name in sorted(files):
        match = _FILE_NAME.match(file_name)
        if not match:
            raise PoolsError(
                "{0!r} is not a migration's name.".format(file_name), "Call it NNNN_name.up.sql or NNNN_name.down.sql."
            )
        pair = pairs.setdefault(int(match.group(1)), {"name": match.group(2)})
        if pair["name"] != match.group(2) or match.group(3) in pair:
            raise PoolsError("Two migrations have the number {0}.".format(match.group(1)))
        pair[match.group(3)] = files[file_name]
    for expected, (version, pair) in enumerate(sorted(pairs.items()), start=1):
        if version != expected or "up" not in pair or "down" not in pair:
            raise PoolsError("Migration {0:04d} is missing, or its way up or down is.".format(expected))
    return [Migration(version, pair["name"], pair["up"], pair["down"]) for version, pair in sorted(pairs.items())]


class Schema:
    """The schema as it is in one database, reached by a connection of its owner."""

    def __init__(self, connection: Any, migrations: List[Migration]) -> None:
        self._connection = connection
        self._connection.autocommit = True
        self._migrations = migrations

    def _query(self, statement: Any, arguments: Any = None) -> List[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []

    def lock(self) -> None:
        self._query("SELECT pg_advisory_lock(%s)", (_SCHEMA_LOCK,))

    def version(self) -> int:
        """:raises PoolsError: an applied script is not the one that is given now, or is not given."""
        if self._query("SELECT to_regclass('db_schema_versions')")[0][0] is None:
            return 0
        given = {migration.version: migration for migration in self._migrations}
        applied = self._query("SELECT version, name, checksum FROM db_schema_versions ORDER BY version")
        for version, name, checksum in applied:
            if version not in given:
                raise PoolsError(
                    "The inventory database has migration {0:04d}_{1}, which this release does not know.".format(
                        version, name
                    ),
                    "Use the release that applied it, or newer.",
                )
            if given[version].checksum != checksum:
                raise PoolsError(
                    "Migration {0} was changed after it was applied.".format(given[version].label),
                    "Put the script back as it was, and write the change as a new migration.",
                )
        return applied[-1][0] if applied else 0

    def pending(self, target: Optional[int]) -> Tuple[List[Migration], List[Migration]]:
        """The scripts to run up and the ones to run down, each in its order, to be at *target* (None: the newest)."""
        newest = len(self._migrations)
        wanted = newest if target is None else target
        if not 0 <= wanted <= newest:
            raise PoolsError("There is no schema version {0}; there are 0 to {1}.".format(wanted, newest))
        found = self.version()
        return self._migrations[found:wanted], list(reversed(self._migrations[wanted:found]))

    def check_discardable(self, down: List[Migration]) -> None:
        """:raises PoolsError: the way down would forget servers or databases that exist."""
        if not any(migration.version == 1 for migration in down):
            return
        allocations, servers = self._query(_KEPT)[0]
        if allocations or servers:
            raise PoolsError(
                "The inventory database holds {0} allocations and {1} servers; rolling back would forget them.".format(
                    allocations, servers
                ),
                "Release and deprovision them first, or set inventory_db_discard=true to forget them all the same.",
            )

    def allow_discarding(self) -> None:
        """Tell the scripts of the way down that what they would refuse to forget may be forgotten."""
        self._query("SET postgres_pools.discard = 'on'")

    def _in_transaction(self, migration: Migration, script: str, note: str, arguments: Any) -> None:
        try:
            self._query("BEGIN")
            self._query(script)
            self._query(note, arguments)
            self._query("COMMIT")
        except psycopg2.Error as error:
            self._query("ROLLBACK")
            raise PoolsError(
                "Migration {0} failed and was undone: {1}.".format(
                    migration.label, " ".join(str(error).split()).rstrip(".")
                )
            ) from error

    def run(self, up: List[Migration], down: List[Migration]) -> None:
        if up and self._query("SELECT to_regclass('db_schema_versions')")[0][0] is None:
            self._query(_VERSIONS_TABLE)
        for migration in down:
            self._in_transaction(
                migration, migration.down, "DELETE FROM db_schema_versions WHERE version = %s", (migration.version,)
            )
        for migration in up:
            self._in_transaction(
                migration,
                migration.up,
                "INSERT INTO db_schema_versions (version, name, checksum) VALUES (%s, %s, %s)",
                (migration.version, migration.name, migration.checksum),
            )

    def grant(self, grants: str, service_role: str, dry_run: bool) -> bool:
        """Give the service role its privileges and attach the platform's table; whether anything was missing."""
        database = self._query("SELECT current_database()")[0][0]
        self._query("BEGIN")
        try:
            before = self._query(_PRIVILEGES)
            self._query(sql.SQL(grants).format(service=sql.Identifier(service_role), database=sql.Identifier(database)))
            changed = self._query(_PRIVILEGES) != before
            self._query("ROLLBACK" if dry_run or not changed else "COMMIT")
        except psycopg2.Error as error:
            self._query("ROLLBACK")
            raise PoolsError(
                "The privileges of {0!r} or the platform's table could not be settled: {1}.".format(
                    service_role, " ".join(str(error).split()).rstrip(".")
                )
            ) from error
        return changed

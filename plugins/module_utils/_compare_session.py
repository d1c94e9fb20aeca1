# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions that read one side of a comparison: all of them on one snapshot, none of them writing."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from . import _connection
from ._copy_pulse import Pulse
from ._errors import PoolsError

try:
    import psycopg2
    import psycopg2.extensions
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

OLDEST = 15
# A table that somebody holds for longer is being changed, and cannot be compared.
LOCK_TIMEOUT = "60s"
# What a tenant set for the database or the administrator's role must change neither how a value is written nor which rows are seen.
_SETTINGS: Dict[str, str] = {
    "search_path": "pg_catalog",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # A query of a comparison that was killed ends, too.
    "client_connection_check_interval": "10s",
    "lock_timeout": LOCK_TIMEOUT,
    # Work is shared out here, table by table; and compiling a query that runs once for each table takes longer than running it.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "enable_tidscan": "on",
    "session_replication_role": "replica",
    "event_triggers": "off",
}
_HELD = """
SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1
"""
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Login(NamedTuple):
    """One side as the user gave it."""

    side: str
    params: Mapping[str, Any]
    database: str
    owner: Optional[str]
    pulse: Optional[Pulse] = None

    @property
    def where(self) -> str:
        return "{0} database {1!r} on {2} port {3}".format(
            self.side, self.database, self.params.get("login_host") or "the local socket", self.params.get("login_port") or 5432
        )


def open_session(login: Login) -> Any:
    """A connection that shows every value in one way, whatever the database's settings are.

    :raises PoolsError: the server cannot be reached, or has no such database.
    """
    # A session that was cut off alone is noticed within two minutes, however long its queries may take; a server that fell silent by its pulse.
    extra = dict({"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 9}, **(login.params.get("connect_params") or {}))
    # Only as an option of the connection does role=none come before what ALTER ROLE … SET role says.
    extra.update(client_encoding="UTF8", options="{0} -c role=none".format(extra.get("options", "")).strip())
    connection = _connection.connect(dict(login.params, connect_params=extra), login.database)
    connection.autocommit = True
    if login.pulse:
        login.pulse.watch(connection)
    with connection.cursor() as cursor:
        # Each server takes those that it knows; and somebody who is no superuser shall be told that, not that he may not set one of them.
        cursor.execute(
            "SELECT pg_catalog.set_config(s.name, v.value, false) FROM pg_catalog.jsonb_each_text(%s) v(name, value)"
            " JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) pg_catalog.lower(v.name)"
            " WHERE s.context OPERATOR(pg_catalog.<>) 'superuser' OR pg_catalog.current_setting('is_superuser')::pg_catalog.bool",
            (json.dumps(_SETTINGS),),
        )
    if connection.get_parameter_status("server_encoding") == "SQL_ASCII":
        # Such a server converts nothing, and its names may be no UTF-8; each byte is then a character of its own.
        connection.set_client_encoding("LATIN1")
    return connection


class Side:
    """One database under comparison, seen as it is at :meth:`begin`.

    :raises PoolsError: it cannot be read.
    """

    def __init__(self, login: Login, given_up: threading.Event) -> None:
        self.login = login
        # Set when the other side failed: there is nothing to compare with any more.
        self.given_up = given_up
        self.session = open_session(login)
        try:
            self.version: int = self.session.server_version
            self.major = self.version // 10000
            self.check()
        except psycopg2.Error as error:
            self.session.close()
            raise self.told(error) from error
        except PoolsError:
            self.session.close()
            raise

    def begin(self) -> None:
        """Take the snapshot that this session and all its workers see."""
        try:
            self.execute(_READ)
            self.snapshot, self.identity = self.read(
                "SELECT pg_export_snapshot(), array[system_identifier::text, pg_postmaster_start_time()::text, (SELECT oid::text FROM pg_database"
                " WHERE datname = current_database())] FROM pg_control_system()"
            )[0]
        except psycopg2.Error as error:
            raise self.told(error) from error

    def check(self) -> None:
        if self.major < OLDEST:
            raise PoolsError("{0} is on PostgreSQL {1}; {2} is the oldest that can be compared.".format(self.login.where, self.major, OLDEST))
        if not self.read("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0][0]:
            raise PoolsError(
                "User {0!r} is no superuser on the server of the {1}.".format(self.session.info.user, self.login.where),
                "Log in as one: only a superuser reads every table, row, large object and verifier.",
            )

    def execute(self, statement: str) -> None:
        with self.session.cursor() as cursor:
            cursor.execute(statement)

    def read(self, statement: str, values: Optional[Mapping[str, Any]] = None) -> List[Any]:
        return fetch(self.session, statement, values)

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[str], List[Any]]]:
        """Another session that sees the same rows. Each query is a transaction of its own, so that locks on thousands of tables never add up."""
        with contextlib.closing(open_session(self.login)) as session:

            def ask(statement: str) -> List[Any]:
                with session.cursor() as cursor:
                    cursor.execute("{0}; SET TRANSACTION SNAPSHOT '{1}'".format(_READ, self.snapshot))
                    cursor.execute(statement)
                    found: List[Any] = cursor.fetchall()
                    cursor.execute("COMMIT")
                    return found

            yield ask

    def told(self, error: Exception, what: str = "") -> PoolsError:
        """What the server complained of, in one line and without the rows that its detail may show."""
        diagnosis = getattr(error, "diag", None)
        reason = " ".join(str((diagnosis and diagnosis.message_primary) or error).split()).rstrip(".")
        remedy = "Run it again when nobody changes the database."
        if isinstance(error, psycopg2.errors.LockNotAvailable):
            reason += " after {0}, held: {1}".format(_SETTINGS["lock_timeout"], ", ".join(self.held()) or "nothing any more")
        if isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
            remedy = "Check that the server runs and has memory, locks and connections left, and that nobody holds its tables; then run it again."
        return PoolsError("Cannot read the {0}{1}: {2}.".format(self.login.where, what and ", " + what, reason), remedy)

    def held(self) -> List[str]:
        """Which tables somebody keeps everybody else out of."""
        with contextlib.suppress(PoolsError, psycopg2.Error), contextlib.closing(open_session(self.login)) as session:
            return [name for (name,) in fetch(session, _HELD)]
        return []

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self.session.close()


def fetch(session: Any, statement: str, values: Optional[Mapping[str, Any]] = None) -> List[Any]:
    with session.cursor() as cursor:
        cursor.execute(statement, values)
        found: List[Any] = cursor.fetchall()
        return found


def reparsed(login: Login, definitions: Sequence[str]) -> List[Optional[str]]:
    """These views' texts as the server of *login* writes them itself, or None where it cannot take one.

    It has to be asked, since each PostgreSQL writes the same view in its own way. The views are temporary, and the transaction is rolled back.
    """
    shown: List[Optional[str]] = []
    with contextlib.closing(open_session(login)) as session, session.cursor() as cursor:
        cursor.execute("BEGIN READ WRITE")
        for definition in definitions:
            cursor.execute("SAVEPOINT before")
            try:
                # Without values, psycopg2 leaves per cent signs alone.
                cursor.execute("CREATE TEMPORARY VIEW postgres_pools_reparsed AS " + definition)
                cursor.execute("SELECT pg_get_viewdef('pg_temp.postgres_pools_reparsed'::regclass)")
                shown.append(cursor.fetchone()[0])
            except psycopg2.Error:
                shown.append(None)
            cursor.execute("ROLLBACK TO SAVEPOINT before")
        cursor.execute("ROLLBACK")
    return shown

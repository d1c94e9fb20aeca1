# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of a copy: they keep to one encoding, no limit of the tenant's ends them, a dead network does, and a failure names its side."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from . import _tenant_sql
from ._copy_pulse import Pulse
from ._errors import PoolsError

try:
    import psycopg2
    import psycopg2.extensions
    import psycopg2.extras
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# What a tenant may have set for a database or a role and what would end a long copy, or change how values are written. No commit but the
# last is waited for: a server that crashes before that has only a part of a copy anyway.
OPTIONS = (
    "-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c statement_timeout=0 -c default_transaction_read_only=off "
    "-c role=none -c row_security=off -c synchronize_seqscans=off -c synchronous_commit=off "
    # A server that lost its client without a word lets go of locks and of the database within a minute.
    "-c client_connection_check_interval=5s -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
)
_WRITING = "SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; SET xmloption = content; SET lc_monetary = 'C'"
APPLICATION_NAME = "postgres_pools database_copy"
# What ends a session that has been cut off alone and without a word, as by a firewall that forgot it; a server that is out of reach altogether is
# found by its pulse, and sooner. tcp_user_timeout, in milliseconds, decides for idle sessions too. It also ends one that a live server was too busy
# to read from for so long, as when its disk stalls, and so is no shorter.
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6, "tcp_user_timeout": 120000}


class Side(NamedTuple):
    """The source or the target: *word* is for messages."""

    word: str
    login: Mapping[str, Any]
    database: str
    owner: str
    pulse: Optional[Pulse] = None

    @property
    def where(self) -> str:
        return "{0} ({1} port {2})".format(self.word, self.login.get("login_host") or "local socket", self.login.get("login_port") or 5432)

    def connect(self, database: Optional[str] = None, encoding: str = "") -> Any:
        """A session of the administrator's in this database, or in another of the server's, each statement its own transaction.

        :raises PoolsError: the server cannot be reached, refuses the login or has no such database.
        """
        extra = dict(KEEPALIVES, options=OPTIONS, application_name=APPLICATION_NAME)
        connection = _tenant_sql.connect(dict(self.login, connect_params=extra), self.database if database is None else database)
        if self.pulse:
            self.pulse.watch(connection)
        with connection.cursor() as cursor:
            if connection.server_version >= 170000:
                cursor.execute("SET transaction_timeout = 0")
            cursor.execute(_WRITING)
        if encoding:
            connection.set_client_encoding(encoding)
        return connection

    @contextlib.contextmanager
    def session(self, database: Optional[str] = None) -> Iterator[Any]:
        connection = self.connect(database)
        try:
            with self.blame("working on the database"):
                yield connection
        finally:
            connection.close()

    def on_snapshot(self, snapshot: str, encoding: str) -> Any:
        """A session that sees what the coordinator saw."""
        connection = self.connect(encoding=encoding)
        connection.autocommit = False
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION SNAPSHOT %s", [snapshot])
        return connection

    @contextlib.contextmanager
    def blame(self, doing: str) -> Iterator[None]:
        """Errors of this side's server, as one that names the side and what was being done."""
        try:
            yield
        except psycopg2.Error as error:
            raise self.failure(doing, error) from error

    def failure(self, doing: str, error: Exception) -> PoolsError:
        said = _tenant_sql.reason(error) or type(error).__name__
        return PoolsError("The {0} failed at {1}: {2}".format(self.where, doing, said.rstrip(".") + "."), _remedy(error))


def _remedy(error: Exception) -> str:
    code = getattr(error, "pgcode", None) or ""
    if code == "53100":
        return "Make room on that server's disk and copy again."
    if code == "53200":
        return "Raise max_locks_per_transaction on that server and copy again."
    if code == "55P03":
        return "Somebody holds a lock on it; end that session and copy again."
    if not code or code.startswith(("08", "57P")):
        return "The connection was lost: see that the server runs, and copy again."
    return ""


def rows(connection: Any, query: str, values: Optional[Mapping[str, Any]] = None) -> List[Dict[str, Any]]:
    with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(query, values)
        return [dict(row) for row in cursor.fetchall()]


def execute(connection: Any, statement: Any, values: Optional[Sequence[Any]] = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)

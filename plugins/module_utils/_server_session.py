# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The administrator's session with a local server: what it runs with, and having it load what was written."""

from __future__ import annotations

import os
from typing import Any, List

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_conf import MARKER

try:
    import psycopg2

    PSYCOPG2_ERROR = ""
except ImportError as import_error:
    PSYCOPG2_ERROR = str(import_error)

FACTS = """
SELECT current_setting('server_version_num')::int, current_setting('data_directory'),
       coalesce(current_setting(%s, true), ''), pg_conf_load_time()::text
"""
PENDING = "SELECT name FROM pg_settings WHERE name = ANY(%s) AND (pending_restart OR context = 'postmaster' AND name = ANY(%s))"
HBA_ERRORS = "SELECT format('line %s: %s', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number"


class NotYetError(Exception):
    """The server does not answer at this moment, but may soon."""


class ServerSession:
    def __init__(self, host: str, port: int, user: str, password: str, path: str) -> None:
        try:
            # gssencmode and options are given so that PGGSSENCMODE and PGOPTIONS of the caller do not decide them.
            self._connection: Any = psycopg2.connect(
                host=host,
                port=port,
                user=user,
                password=password,
                dbname="postgres",
                connect_timeout=5,
                gssencmode="disable",
                options="",
                application_name="saasodoo.postgres_pools",
            )
        except psycopg2.OperationalError as error:
            raise _explained(str(error).strip(), user, path) from error
        self._connection.autocommit = True
        self.path = path
        self.version, self.data_directory, self.marker, self.loaded = self._rows(FACTS, (MARKER,))[0]

    def __enter__(self) -> ServerSession:
        return self

    def __exit__(self, *unused: Any) -> None:
        self._connection.close()

    def refuse_other(self, data: str) -> None:
        if not os.path.realpath(self.data_directory) == os.path.realpath(data):
            raise PoolsError("The PostgreSQL that answers works in {0}, not in {1}.".format(self.data_directory, data))

    def restart_wanted(self, own: List[str], changing: List[str]) -> bool:
        """Whether one of our settings waits for a restart, or one that is about to change needs one."""
        return bool(self._rows(PENDING, (own + changing, changing)))

    def reload(self) -> None:
        self._rows("SELECT pg_reload_conf()", ())

    def hba_errors(self) -> List[str]:
        return [row[0] for row in self._rows(HBA_ERRORS, None)]

    def _rows(self, query: str, values: Any) -> List[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()


def _explained(message: str, user: str, path: str) -> Exception:
    # The driver gives no SQLSTATE for a failed connection; initdb was told that the server speaks English.
    if "password authentication failed" in message:
        return PoolsError(
            "The PostgreSQL in {0} refuses the password of its administrator '{1}'.".format(path, user),
            "Its data directory was made with another user or password: give those. They are never reset silently.",
        )
    if "the database system is" in message or "FATAL" not in message:
        return NotYetError(message)
    return PoolsError("The PostgreSQL in {0} refuses its administrator '{1}': {2}.".format(path, user, message))

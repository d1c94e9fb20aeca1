# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PgBouncer in front of a tenant, through its admin console: with it an application waits where it would else be refused."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Dict, List, Mapping

from ._connection import connect
from ._errors import PoolsError

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Where the console is, and which of the pooler's databases is the tenant's. Its password is in a password file on the client host, or none is asked for.
SPEC: Dict[str, Any] = dict(
    host=dict(type="str", required=True),
    port=dict(type="int", default=6432),
    user=dict(type="str", default="pgbouncer"),
    passfile=dict(type="path"),
    sslmode=dict(type="str", default="prefer"),
    database=dict(type="str", required=True),
    config=dict(type="path", required=True),
    config_host=dict(type="str"),
)
_CONSOLE = "pgbouncer"
_CONNECT_SECONDS = 5


class Pooler:
    """The tenant's database of one pooler."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._database = str(given["database"])

    @property
    def where(self) -> str:
        return "pooler {0} port {1}".format(self._given["host"], self._given["port"])

    def paused(self) -> bool:
        """:raises PoolsError: its console cannot be reached, or it has no such database."""
        return bool(int(self._shown().get("paused") or 0))

    def check(self) -> bool:
        """Whether it is paused.

        :raises PoolsError: it cannot be, or its sessions would have to end before it rests."""
        shown = self._shown()
        mode = shown.get("pool_mode") or {one["key"]: one["value"] for one in self._ask("SHOW CONFIG")}.get("pool_mode")
        if mode == "session":
            raise PoolsError(
                "The {0} gives database {1!r} to a session as a whole, so that it rests only when every session has ended.".format(self.where, self._database),
                "Set pool_mode=transaction for it, or name no pooler.",
            )
        return bool(int(shown.get("paused") or 0))

    def _shown(self) -> Dict[str, Any]:
        found = [one for one in self._ask("SHOW DATABASES") if one["name"] == self._database]
        if not found:
            raise PoolsError(
                "The {0} has no database {1!r}.".format(self.where, self._database),
                "Name it in the section [databases] of {0}, by its own name and not by *.".format(self._given["config"]),
            )
        return found[0]

    def pause(self, seconds: float) -> bool:
        """Whether nobody is in a transaction any more, and everybody waits from now on; else all go on as before."""
        failed: List[Exception] = []
        connection = self._connect()

        def rest() -> None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql.SQL("PAUSE {0}").format(sql.Identifier(self._database)))
            except psycopg2.Error as error:
                if "already" not in str(error):
                    failed.append(error)

        thread = threading.Thread(target=rest, daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self.go_on(anew=False)
            return False
        connection.close()
        if failed:
            raise self._failure(failed[0]) from failed[0]
        return True

    def go_on(self, anew: bool) -> None:
        """Those who waited go on; *anew* with what the pooler's file says by now, else where they were led before."""
        if anew:
            self._ask("RELOAD")
        with contextlib.suppress(_NotPausedError):
            self._ask("RESUME", self._database)

    def _connect(self) -> Any:
        given = self._given
        extra: Dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "sslmode": given.get("sslmode") or "prefer"}
        if given.get("passfile"):
            extra["passfile"] = given["passfile"]
        login = {"login_host": given["host"], "login_port": given["port"], "login_user": given.get("user") or _CONSOLE}
        connection = connect(dict(login, connect_params=extra), _CONSOLE)
        connection.autocommit = True
        return connection

    def _ask(self, command: str, database: str = "") -> List[Dict[str, Any]]:
        statement = sql.SQL(command + (" {0}" if database else "")).format(*([sql.Identifier(database)] if database else []))
        with contextlib.closing(self._connect()) as connection:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    names = [column.name for column in cursor.description or ()]
                    return [dict(zip(names, row)) for row in (cursor.fetchall() if names else ())]
            except psycopg2.Error as error:
                if command == "RESUME" and "not paused" in str(error):
                    raise _NotPausedError() from error
                raise self._failure(error) from error

    def _failure(self, error: Exception) -> PoolsError:
        said = " ".join(str(error).split()).rstrip(".")
        return PoolsError("The {0} refused: {1}.".format(self.where, said), "Its admin_users must have {0}.".format(self._given.get("user") or _CONSOLE))


class _NotPausedError(Exception):
    pass


def work(params: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """One call of the module ``application_pooler``."""
    pooler = Pooler(params["pooler"])
    if params["state"] == "paused":
        paused = pooler.check()
        if not (paused or check_mode or pooler.pause(params["timeout"])):
            raise PoolsError(
                "The {0} did not come to rest within {1} s: somebody is in a transaction.".format(pooler.where, params["timeout"]),
                "Wait for it to end, or give it more time.",
            )
        return {"changed": not paused, "paused": paused or not check_mode}
    # Whatever mode it is in: what could not be paused is to go on all the same.
    paused = pooler.paused()
    if not check_mode:
        pooler.go_on(anew=True)
    return {"changed": paused, "paused": paused and check_mode}

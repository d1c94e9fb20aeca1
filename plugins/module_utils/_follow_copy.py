# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy that a follower begins with: every worker reads the one snapshot at which its slot begins."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping

from . import _copy_catalog as catalog
from . import _copy_dress as dress
from . import _follow_catalog
from ._connection import connect
from ._copy_session import APPLICATION_NAME, KEEPALIVES, OPTIONS, Side, execute
from ._copy_steps import Check, Steps
from ._errors import PoolsError
from ._follow_plan import name_of, passing_slot_of

try:
    import psycopg2
    import psycopg2.extras
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_LOOK_SECONDS = 0.2
_WATCH_SECONDS = 1.0
# Once is a moment's lock, twice in a row is somebody who waits for us.
_WAITS = 2


@contextlib.contextmanager
def slot(source: Side, seconds: float, check: Check) -> Iterator[str]:
    """A slot that goes with its session, and the snapshot from which on it tells of every change; both last as long as the block.

    :raises PoolsError: it did not begin within *seconds*: transactions that write are open on the server.
    """
    extra = {"options": OPTIONS, "application_name": APPLICATION_NAME, "connection_factory": psycopg2.extras.LogicalReplicationConnection}
    connection = connect(dict(source.login, connect_params=dict(KEEPALIVES, **extra)), source.database)
    try:
        with source.blame("making a replication slot"):
            yield _begun(connection, source, seconds, check)
    finally:
        connection.close()


def _begun(connection: Any, source: Side, seconds: float, check: Check) -> str:
    made: List[Any] = []
    statement = sql.SQL("CREATE_REPLICATION_SLOT {0} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT").format(sql.Identifier(passing_slot_of(source.database)))

    def make() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                made.append(cursor.fetchone()[2])
        except psycopg2.Error as error:
            made.append(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    try:
        while thread.is_alive():
            check()
            if time.monotonic() > deadline:
                raise PoolsError(
                    "The {0} could not begin a replication slot within {1:.0f} s: it waits for all transactions that write on that server.".format(
                        source.where, seconds
                    ),
                    "End those that are open for long, and begin anew.",
                )
            thread.join(_LOOK_SECONDS)
    finally:
        if thread.is_alive():
            with contextlib.suppress(psycopg2.Error):
                connection.cancel()
            thread.join()
    if isinstance(made[0], Exception):
        raise made[0]
    return str(made[0])


class FollowSteps(Steps):
    """The steps of a copy out of the slot's snapshot; the copy stays closed, as one that is not whole.

    No table is locked beforehand: a tenant that works must not wait for a copy, nor behind somebody who does.
    """

    snapshot = ""
    fingerprint: Mapping[str, str] = {}
    unpublished: List[str]

    def _hold(self) -> str:
        coordinator = self._coordinator
        coordinator.autocommit = False
        coordinator.set_session(isolation_level="REPEATABLE READ", readonly=True)
        execute(coordinator, "SET TRANSACTION SNAPSHOT %s", [self.snapshot])
        self._tables = catalog.tables(coordinator)
        self.unpublished = _follow_catalog.unpublished(coordinator, name_of(self._source.database))
        self.fingerprint = _follow_catalog.fingerprint(coordinator)
        return self.snapshot

    def _dress(self) -> None:
        for role in self._found.roles:
            is_owner = role["name"] == self._target.owner
            if (is_owner or role["name"] in self._made) and not role["rolsuper"]:
                self._found.warnings.extend(dress.dress_role(self._server, role, password=is_owner))


class Watch:
    """Asks now and then whether a copy has become a danger or a hindrance to its source; called as often as one likes."""

    def __init__(self, session: Any, go_on: Check, judge: Callable[[], None]) -> None:
        self._session = session
        self._go_on = go_on
        self._judge = judge
        self._next = 0.0
        self._waits: Dict[int, int] = {}
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """:raises PoolsError: there is no more use in going on."""
        self._go_on()
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _WATCH_SECONDS
            self._judge()
            found = _follow_catalog.waiting(self._session)
            self._waits = {row["pid"]: self._waits.get(row["pid"], 0) + 1 for row in found}
            if any(count >= _WAITS for count in self._waits.values()):
                raise PoolsError(
                    "Session {pid} of {who} wants to change the definition of {relation}, and waits for the copy.".format(**found[0]),
                    "The copy makes way for it; begin anew when it is done.",
                )

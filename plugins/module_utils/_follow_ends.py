# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a database that follows another."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from . import _copy, _tenant_sql
from ._copy_crew import close
from ._copy_pulse import Pulse, watching
from ._copy_session import Side, rows
from ._errors import PoolsError
from ._follow_plan import name_of

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_IDENTITY = "SELECT system_identifier, pg_postmaster_start_time() AS started FROM pg_control_system()"


class Ends(NamedTuple):
    publisher: Side
    subscriber: Side
    # How each is reached by the other's server.
    peer_host: str
    peer_port: int
    back_host: str
    back_port: int

    @property
    def name(self) -> str:
        return name_of(self.publisher.database)

    def swapped(self) -> Ends:
        return Ends(self.subscriber, self.publisher, self.back_host, self.back_port, self.peer_host, self.peer_port)

    def plain(self) -> Ends:
        """The same for whoever comes when a server has fallen silent, as it may be back."""
        return self._replace(publisher=self.publisher._replace(pulse=None), subscriber=self.subscriber._replace(pulse=None))


@contextlib.contextmanager
def pulsed(here: Ends, go_on: Callable[[], None]) -> Iterator[Tuple[Ends, Callable[[], None]]]:
    """The same ends, whose sessions are cut when their server falls silent; and what raises a PoolsError then, or when *go_on* does.

    :raises PoolsError: that one of them fell silent, where the block failed of it.
    """
    sides = [one._replace(pulse=Pulse(one.where, one.login, _copy.SERVER_DATABASE)) for one in (here.publisher, here.subscriber)]
    with watching(*(side.pulse for side in sides), check=go_on) as all_well:
        yield here._replace(publisher=sides[0], subscriber=sides[1]), all_well


@contextlib.contextmanager
def sessions(*wanted: Tuple[Side, Optional[str]]) -> Iterator[List[Any]]:
    """A session for each side and database (None: the side's own); a failure names the side whose session it was."""
    opened: List[Any] = []
    try:
        for side, database in wanted:
            opened.append(side.connect(database))
        yield opened
    except psycopg2.Error as error:
        failed = getattr(getattr(error, "cursor", None), "connection", None)
        side = next((side for (side, _database), connection in zip(wanted, opened) if connection is failed), wanted[len(opened) - 1][0])
        raise side.failure("working on the database", error) from error
    finally:
        close(opened)


def at_once(*works: Callable[[], Any]) -> List[Any]:
    """What each of them returns, done side by side; the first failure is raised when all have ended."""
    answers: List[Any] = [None] * len(works)
    failures: List[BaseException] = []

    def run(number: int) -> None:
        try:
            answers[number] = works[number]()
        except BaseException as error:  # pylint: disable=broad-exception-caught
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(1, len(works))]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answers


@contextlib.contextmanager
def locked(here: Ends, by_both: bool = True) -> Iterator[None]:
    """Keep other calls for the same two off, until the block ends or this call dies. Unless *by_both*, also where the subscriber's server is away.

    :raises PoolsError: another call was at it for long.
    """
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(contextlib.closing(here.subscriber.connect(_copy.SERVER_DATABASE)))
        except PoolsError:
            if by_both:
                raise
        else:
            stack.enter_context(here.subscriber.blame("working on the database"))
            stack.enter_context(_tenant_sql.lock(server, here.name))
        yield


def ends(params: Mapping[str, Any]) -> Ends:
    """:raises PoolsError: no database or no owner is named."""
    source, target = params["source"], params["target"]
    peers = [(given.get("peer_host") or given.get("login_host") or "", given.get("peer_port") or given.get("login_port") or 5432) for given in (source, target)]
    return Ends(_copy.side("source", source, {}), _copy.side("target", target, source), *peers[0], *peers[1])


def two_databases(here: Ends, inside: Any, other: Any) -> None:
    """:raises PoolsError: both ends are one database."""
    if here.publisher.database == here.subscriber.database and rows(inside, _IDENTITY) == rows(other, _IDENTITY):
        raise PoolsError("Source and target are the same database.", "Give another server, or another database.")

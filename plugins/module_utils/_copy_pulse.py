# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server still answers while sessions wait for it: a network that swallows packets ends none of them for a quarter of an hour."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any, Callable, Iterator, List, Mapping, Optional

from . import _connection
from ._errors import PoolsError

EVERY_SECONDS = 5
# How long one login may take, which is also how long a wait for a server's first byte is.
ANSWER_SECONDS = 5
# Two logins in a row at least went unanswered by then. A server whose disk stalls is slow to work, seldom to let somebody in.
SILENT_SECONDS = 15
_PAUSE_SECONDS = 1


class Pulse:
    """A login to one server every few seconds, from a thread of its own. When none was answered for SILENT_SECONDS, all sessions that it watches are cut.

    A login that is refused is an answer too: whoever refuses it also ends the sessions that are no more.
    """

    def __init__(self, where: str, login: Mapping[str, Any], database: str) -> None:
        self._where = where
        extra = dict(login.get("connect_params") or {}, connect_timeout=ANSWER_SECONDS, application_name="postgres_pools pulse")
        self._login = dict(login, connect_params=extra)
        self._database = database
        self._sessions: List[Any] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._silent = False

    def watch(self, session: Any) -> None:
        with self._lock:
            self._sessions = [one for one in self._sessions if not one.closed]
            self._sessions.append(session)
            silent = self._silent
        if silent:
            cut(session)

    def check(self) -> None:
        """:raises PoolsError: the server has fallen silent."""
        if self._silent:
            raise PoolsError(
                "The {0} has not answered for {1} seconds; its sessions were cut.".format(self._where, SILENT_SECONDS),
                "See that it runs and that this host reaches it, and run it again.",
            )

    def start(self) -> None:
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def stop(self) -> None:
        # Its thread may still wait for an answer, which nobody needs any more.
        self._ended.set()

    def _beat(self) -> None:
        answered_at = time.monotonic()
        while not self._ended.wait(EVERY_SECONDS if time.monotonic() - answered_at < EVERY_SECONDS else _PAUSE_SECONDS):
            asked_at = time.monotonic()
            if self._is_answered(asked_at):
                answered_at = asked_at
            elif time.monotonic() - answered_at >= SILENT_SECONDS and not self._ended.is_set():
                self._give_up()
                return

    def _is_answered(self, asked_at: float) -> bool:
        try:
            _connection.connect(self._login, self._database).close()
        except PoolsError:
            return time.monotonic() - asked_at < ANSWER_SECONDS - 0.5
        return True

    def _give_up(self) -> None:
        with self._lock:
            self._silent = True
            sessions = list(self._sessions)
        for session in sessions:
            cut(session)


def cut(session: Any) -> None:
    """End it for whoever waits for it here, without a word to its server, which may be out of reach.

    psycopg2's cancel() and close() talk to the server, and cancel() keeps all other threads from running meanwhile. A server that
    is there notices by itself, at once where it sends or reads rows, else by client_connection_check_interval.
    """
    # Also those of a session that was closed by now: it has no descriptor.
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(session.fileno())) as connected:
        connected.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def watching(*pulses: Optional[Pulse], check: Callable[[], None] = lambda: None) -> Iterator[Callable[[], None]]:
    """Keep them going while the block works; it gets what raises a PoolsError when one fell silent or *check* does.

    :raises PoolsError: that one of them fell silent, where the block failed of it.
    """
    kept = [pulse for pulse in pulses if pulse]

    def all_well() -> None:
        check()
        for pulse in kept:
            pulse.check()

    for pulse in kept:
        pulse.start()
    try:
        yield all_well
    except PoolsError:
        for pulse in kept:
            pulse.check()
        raise
    finally:
        for pulse in kept:
            pulse.stop()

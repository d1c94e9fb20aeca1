# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several workers on one list of tasks. The first failure stops all of them, and is the one that is told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Iterable, List, Optional, Sequence

from ._copy_pulse import cut
from ._errors import PoolsError

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_LOOK_SECONDS = 0.2


class Crew:
    """Workers are whatever the tasks are called with; *connections* are theirs, so that they can be cut."""

    def __init__(self, deadline: float, check: Callable[[], None] = lambda: None) -> None:
        """*check* raises a PoolsError when there is no more use in going on."""
        self._deadline = deadline
        self._check = check
        self._stop = threading.Event()
        self._first = threading.Lock()
        self._failure: Optional[BaseException] = None

    def stopped(self) -> bool:
        return self._stop.is_set()

    def work(self, tasks: Iterable[Callable[[Any], None]], workers: Sequence[Any], connections: Sequence[Any]) -> None:
        """Have every task done by some worker, in their order.

        :raises PoolsError: the first that failed, or the time is over.
        """
        waiting: Deque[Callable[[Any], None]] = deque(tasks)
        threads = [threading.Thread(target=self._one, args=(worker, waiting), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        told = False
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() > self._deadline:
                self._fail(PoolsError("The copy did not end within its timeout.", "Give it more by timeout, or more jobs."))
            try:
                self._check()
            except PoolsError as error:
                self._fail(error)
            if self._stop.is_set() and not told:
                told = True
                for connection in connections:
                    cut(connection)
            for thread in threads:
                thread.join(_LOOK_SECONDS / len(threads))
        if self._failure:
            raise self._failure

    def _one(self, worker: Any, waiting: Deque[Callable[[Any], None]]) -> None:
        while not self._stop.is_set():
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                task(worker)
            except BaseException as error:  # pylint: disable=broad-exception-caught
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._first:
            self._failure = self._failure or error
        self._stop.set()


def close(connections: List[Any]) -> None:
    for connection in connections:
        with contextlib.suppress(psycopg2.Error):
            connection.close()

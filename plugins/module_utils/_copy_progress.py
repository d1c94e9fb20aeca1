# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a copy is: told to a file and to whoever listens, about once a second."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Optional

Listener = Callable[[Dict[str, Any]], None]
_EVERY_SECONDS = 1.0


class Progress:
    """Counts what is done. Its thread tells of it, so that no worker waits for a slow listener."""

    def __init__(self, path: str = "", listener: Optional[Listener] = None) -> None:
        self._path = path
        self._listener = listener
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._flowing: Dict[int, int] = {}
        self._since = time.monotonic()
        self.phase = ""
        self.seconds: Dict[str, float] = {}
        self.bytes = self.tables = self.bytes_done = self.tables_done = 0

    def __enter__(self) -> Progress:
        if self._path or self._listener:
            self._thread = threading.Thread(target=self._keep_telling, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_error: Any) -> None:
        self.enter("")
        self._ended.set()
        if self._thread:
            self._thread.join()
            self._tell()

    def enter(self, phase: str) -> None:
        now = time.monotonic()
        if self.phase:
            self.seconds[self.phase] = round(self.seconds.get(self.phase, 0.0) + now - self._since, 3)
        self.phase, self._since = phase, now

    def expect(self, tables: int, size: int) -> None:
        self.tables, self.bytes = tables, size

    def flows(self, worker: int, received: int) -> None:
        self._flowing[worker] = received

    def done(self, worker: int, size: int, tables: int) -> None:
        with self._lock:
            self._flowing[worker] = 0
            self.bytes_done += size
            self.tables_done += tables

    def shown(self) -> Dict[str, Any]:
        # What is under way is counted as it comes, which may be more or less than it takes in its table.
        under_way = self.bytes_done + sum(list(self._flowing.values()))
        return {
            "phase": self.phase or "ended",
            "tables": self.tables,
            "tables_done": self.tables_done,
            "bytes": self.bytes,
            "bytes_done": min(under_way, self.bytes),
        }

    def _keep_telling(self) -> None:
        while True:
            self._tell()
            if self._ended.wait(_EVERY_SECONDS):
                return

    def _tell(self) -> None:
        shown = self.shown()
        # A copy does not fail because nobody can be told how far it is.
        if self._listener:
            with contextlib.suppress(Exception):
                self._listener(shown)
        if not self._path:
            return
        try:
            descriptor, path = tempfile.mkstemp(prefix=".progress-", dir=os.path.dirname(self._path) or ".")
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                json.dump(shown, stream)
            os.replace(path, self._path)
        except OSError:
            return

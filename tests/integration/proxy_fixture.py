# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network between a client and a server that can be slow, be cut, or swallow all that is sent into it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Iterator, List

_CHUNK = 65536


class Proxy:
    """Passes everything on to *host* and *port*, from a port of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.host, self.port = self._listener.getsockname()
        self._ends: List[socket.socket] = []
        self.swallows = False
        # How much went through, and how long each piece of it takes.
        self.passed = 0
        self.seconds_a_chunk = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections that there are. New ones are let through."""
        ends, self._ends = self._ends, []
        for end in ends:
            # What another thread waits for is ended by this; closing alone would not.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def swallow(self) -> None:
        """Take all that is sent, from now on also by new connections, and let nobody know that it goes nowhere."""
        self.swallows = True

    def heal(self) -> None:
        """Let new connections through. Those whose bytes were swallowed are no more: neither end knows where it was."""
        self.cut()
        self.swallows = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            self._ends.append(client)
            if self.swallows:
                continue
            try:
                server = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            self._ends.append(server)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = one.recv(_CHUNK)
                if self.swallows:
                    if not data:
                        return
                    continue
                if not data:
                    break
                other.sendall(data)
                self.passed += len(data)
                time.sleep(self.seconds_a_chunk)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    made = Proxy(host, port)
    try:
        yield made
    finally:
        made.close()

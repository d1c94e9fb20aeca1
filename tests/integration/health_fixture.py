# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server at as many addresses as asked for, and the ways in which a host can be out of order. All of it is real TCP on loopback."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import threading
import time
from typing import Any, Callable, Iterator, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure
from postgres_fixture import RunningServer, free_port, server_home


def address(number: int, net: int = 1) -> str:
    """The whole of 127.0.0.0/8 is this machine: 127.<net>.x.y for a number up to 65,000."""
    return "127.{0}.{1}.{2}".format(net, number >> 8, number & 255)


@contextlib.contextmanager
def server_everywhere(bin_dir: str = "") -> Iterator[RunningServer]:
    """One real server that listens on every IPv4 address of this machine, with room for a whole fleet's probes."""
    with server_home() as home:
        wanted = Wanted(
            path=os.path.join(home, "server"),
            port=free_port(),
            listen_addresses="0.0.0.0",
            admin_password=secrets.token_hex(16),
            bin_dir=bin_dir,
            settings={"fsync": "off", "max_connections": "300"},
            hba=["host all all 127.0.0.0/8 scram-sha-256"],
            run_as=account().name if os.geteuid() == 0 else "",
        )
        try:
            yield RunningServer(wanted, ensure(wanted, "started"))
        finally:
            ensure(wanted, "stopped")


@contextlib.contextmanager
def listening(backlog: int = 128) -> Iterator[socket.socket]:
    """On every address; whoever holds it decides what becomes of the connections."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen(backlog)
        yield listener


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """A port that answers no packet: nobody accepts, and the queue of the kernel is full."""
    with listening(0) as listener, contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]
        for _each in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        with socket.socket() as seen:
            seen.settimeout(0.5)
            with contextlib.suppress(socket.timeout):
                seen.connect(("127.0.0.1", port))
                raise AssertionError("the queue took a connection that it has no room for")
        yield port


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes every connection and never says a word."""
    with listening() as listener:
        yield listener.getsockname()[1]


def refusing() -> int:
    """A port on which nobody listens."""
    return free_port()


@contextlib.contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which *talk* has each connection, in a thread of its own."""

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    with listening() as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def garbage(connection: socket.socket) -> None:
    """As a web server answers what it does not understand."""
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n\x00\xff\x1b[2J")


def dribble(connection: socket.socket) -> None:
    """An authentication request of which one byte comes now and then, and whose end never comes."""
    connection.recv(100)
    connection.sendall(b"N")
    connection.recv(1000)
    connection.sendall(b"R\x00\x00\x03\xe8")
    for _each in range(600):
        connection.sendall(b"\x00")
        time.sleep(0.05)


def until(word: bytes, server: RunningServer, told: Optional[Any] = None) -> Callable[[socket.socket], None]:
    """As the server itself, up to the client's message that holds *word*, which is swallowed with all that follows."""

    def talk(connection: socket.socket) -> None:
        with socket.create_connection((server.host, server.port)) as upstream:
            pairs = {connection: upstream, upstream: connection}
            while True:
                for source in select.select(list(pairs), [], [], 30)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is connection and word in data:
                        if told is not None:
                            told.append(word)
                        connection.recv(1)
                        return
                    pairs[source].sendall(data)

    return talk

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a TCP port of this machine."""

from __future__ import annotations

import errno
import glob
import os
import socket
from typing import Set

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def refuse_taken(listen_addresses: str, port: int) -> None:
    """Raise when PostgreSQL could not listen there, naming the program that does."""
    for name in (one.strip() for one in listen_addresses.split(",")):
        try:
            places = socket.getaddrinfo("0.0.0.0" if name == "*" else name, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PoolsError("The listen address '{0}' cannot be used: {1}.".format(name, error)) from error
        for family, kind, proto, _unused, address in places:
            with socket.socket(family, kind, proto) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(address)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        raise PoolsError(
                            "Port {0} of {1} is in use by {2}.".format(port, address[0], listener(port)),
                            "Choose another port, or end that program.",
                        ) from error
                    if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET:
                        raise PoolsError("{0} is not an address of this machine.".format(address[0])) from error


def listener(port: int) -> str:
    """The program that listens on a port, as far as this user may see."""
    sockets: Set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue
        # Column 1 is address:port in hexadecimal, column 3 the state (0A is LISTEN), column 9 the inode.
        sockets.update(
            "socket:[{0}]".format(row[9]) for row in rows if row[3] == "0A" and int(row[1].rsplit(":")[-1], 16) == port
        )
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) not in sockets:
                continue
            pid = link.split("/")[2]
            with open("/proc/{0}/comm".format(pid), encoding="utf-8") as stream:
                return "{0} (PID {1})".format(stream.read().strip(), pid)
        except OSError:
            continue
    return "another program"

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL for one test, started by the code of the process backend and thrown away after it."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import socket
import tempfile
from typing import Any, Dict, Iterator, List, Optional

import psycopg2
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _hba
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure


class RunningServer:
    def __init__(self, wanted: Wanted, result: Dict[str, Any]) -> None:
        self.wanted = wanted
        self.path = wanted.path
        self.host: str = result["host"]
        self.port: int = result["port"]
        self.version: int = result["version"]
        self.bin_dir: str = result["bin_dir"]
        self.pid: int = result["pid"]
        self.data_directory: str = result["data_directory"]
        self.user = wanted.admin_user
        self.password = wanted.admin_password

    def connect(
        self, dbname: str = "postgres", user: Optional[str] = None, password: Optional[str] = None, **more: Any
    ) -> Any:
        """A psycopg2 connection, as the administrator unless told otherwise, in autocommit mode."""
        connection = psycopg2.connect(
            host=self.host,
            port=self.port,
            dbname=dbname,
            user=user or self.user,
            password=self.password if password is None else password,
            connect_timeout=10,
            **more,
        )
        connection.autocommit = True
        return connection


def free_port() -> int:
    """Below the kernel's range for outgoing connections, any of which might take the port before the server does."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


@contextlib.contextmanager
def server_home(tmp_dir: Any = None) -> Iterator[str]:
    """A directory that PostgreSQL's user can pass through. Pytest's own are closed to others, so root gets one beside them."""
    home = tempfile.mkdtemp(prefix="postgres-pools-", dir=str(tmp_dir) if tmp_dir and os.geteuid() != 0 else None)
    os.chmod(home, 0o711)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running_server(
    tmp_dir: Any = None,
    bin_dir: Optional[str] = None,
    settings: Optional[Dict[str, Any]] = None,
    hba: Optional[List[str]] = None,
) -> Iterator[RunningServer]:
    """A server with the given settings and pg_hba lines (the wall by default) as long as the block lasts.

    fsync is off unless settings say otherwise: a test's data need not survive the machine.
    """
    with server_home(tmp_dir) as home:
        wanted = Wanted(
            path=os.path.join(home, "server"),
            port=free_port(),
            admin_password=secrets.token_hex(16),
            bin_dir=bin_dir or "",
            settings=dict({"fsync": "off"}, **(settings or {})),
            hba=_hba.lines() if hba is None else hba,
            run_as=account().name if os.geteuid() == 0 else "",
        )
        try:
            yield _started(wanted)
        finally:
            ensure(wanted, "stopped")


def _started(wanted: Wanted) -> RunningServer:
    for _attempt in range(5):
        try:
            return RunningServer(wanted, ensure(wanted, "started"))
        except PoolsError as error:
            # Another test may have taken the port since it was found free.
            if "in use" not in str(error):
                raise
            wanted = wanted._replace(port=free_port())
    return RunningServer(wanted, ensure(wanted, "started"))

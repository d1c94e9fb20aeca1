# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant moved from one pool to another by migrate.yml while it writes: how long the run takes, and how long the tenant cannot write."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import List, NamedTuple, Optional, Sequence

import psycopg2
from environment import Environment, connect, environment, instances

_PLACE = """
SELECT s.host, s.port, a.database_name, a.role_name FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = %s
"""


class Moved(NamedTuple):
    seconds: float
    without_writes: float


class Writer:
    """Commits one row after another, over a new connection wherever the inventory database says the tenant is."""

    def __init__(self, here: Environment, instance: str) -> None:
        self._here, self._instance = here, instance
        self._password = str(here.password(instance))
        self._over = threading.Event()
        self._commits: List[float] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection: Optional[psycopg2.extensions.connection] = None
        while not self._over.is_set():
            try:
                if connection is None:
                    place = self._here.rows(_PLACE, (self._instance,))[0]
                    connection = connect(
                        place["host"], place["port"], place["database_name"], place["role_name"], self._password
                    )
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO written DEFAULT VALUES")
                self._commits.append(time.monotonic())
                # The copy is what is measured, not this.
                time.sleep(0.02)
            except psycopg2.Error:
                connection = None
                time.sleep(0.05)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        self._thread.join()

    def longest_pause(self) -> float:
        return max(later - earlier for earlier, later in zip(self._commits, self._commits[1:]))


def measure(statements: Sequence[str]) -> Moved:
    with environment() as here:
        here.ready()
        request = instances(1)[0]
        here.play("allocate", request).succeeded()
        here.play("provision_pool").succeeded()
        place = here.rows(_PLACE, (request["instance_id"],))[0]
        password = str(here.password(request["instance_id"]))
        with contextlib.closing(
            connect(place["host"], place["port"], place["database_name"], place["role_name"], password)
        ) as connection, connection.cursor() as cursor:
            for statement in (*statements, "CREATE TABLE written (number bigint GENERATED ALWAYS AS IDENTITY)"):
                if statement.strip():
                    cursor.execute(statement)
        with Writer(here, request["instance_id"]) as writer:
            time.sleep(1)
            run = here.start("migrate", {"instance_id": request["instance_id"]}).wait(1800).succeeded()
            time.sleep(2)
        return Moved(run.seconds, writer.longest_pause())

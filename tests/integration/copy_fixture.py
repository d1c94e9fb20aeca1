# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two servers side by side, the older and the newer major where there are two, and the options of a copy from one to the other."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from postgres_fixture import RunningServer, running_server
from psycopg2 import sql

# A list with colons says which versions; without it the one that the backend finds.
BIN_DIRS = [one for one in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if one] or [""]
SETTINGS = {"max_connections": "60", "max_prepared_transactions": "4", "max_locks_per_transaction": "256", "max_wal_size": "4GB", "wal_level": "logical"}


class Majors(NamedTuple):
    source: str
    target: str

    @property
    def name(self) -> str:
        return "up" if self.source != self.target else "same"


class Pair(NamedTuple):
    name: str
    source: RunningServer
    target: RunningServer
    # Where the clients of the target's major are.
    bin_dir: str

    def run(self, server: RunningServer, statements: str, database: str, owner: str) -> None:
        """By the administrator, each statement by itself."""
        names = {"database": sql.Identifier(database), "owner": sql.Identifier(owner)}
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            for statement in statements.split(";"):
                cursor.execute(sql.SQL(statement).format(**names))

    def forget(self, database: str, *roles: str) -> None:
        for server in (self.source, self.target):
            self.run(server, "DROP DATABASE IF EXISTS {database} WITH (FORCE)", database, database)
            for role in roles:
                self.run(server, "DROP ROLE IF EXISTS {owner}", database, role)

    def has_database(self, database: str) -> bool:
        """On the target."""
        with contextlib.closing(self.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [database])
            return bool(cursor.fetchone()[0])


def pairs() -> List[Majors]:
    """From the oldest to the newest, and within the newest."""
    return list(dict.fromkeys([Majors(BIN_DIRS[0], BIN_DIRS[-1]), Majors(BIN_DIRS[-1], BIN_DIRS[-1])]))


@contextlib.contextmanager
def running_pair(majors: Majors, settings: Optional[Dict[str, str]] = None) -> Iterator[Pair]:
    here = dict(SETTINGS, **(settings or {}))
    with running_server(None, majors.source, here) as source, running_server(None, majors.target, here) as target:
        yield Pair(majors.name, source, target, target.bin_dir)


def login(server: RunningServer) -> Dict[str, Any]:
    return {"login_host": server.host, "login_port": server.port, "login_user": server.user, "login_password": server.password}


def parameters(pair: Pair, database: str, owner: str, **more: Any) -> Dict[str, Any]:
    """As the module gets them, with its defaults."""
    given: Dict[str, Any] = {
        "source": dict(login(pair.source), database=database, owner=owner),
        "target": login(pair.target),
        "state": "present",
        "replace": False,
        "force": False,
        "drop_roles": False,
        "roles": None,
        "fail": True,
        "jobs": 2,
        "maintenance_work_mem": None,
        "timeout": 0,
        "bin_dir": pair.bin_dir,
        "target_free_bytes": None,
        "progress_file": None,
    }
    return dict(given, **more)

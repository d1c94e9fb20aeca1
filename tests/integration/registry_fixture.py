# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real inventory database for one test: the schema and the service role's privileges as the role inventory_db gives them."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _lifecycle, _making, _placement, _schema
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from cryptography.fernet import Fernet
from postgres_fixture import RunningServer, running_server

FILES = Path(__file__).resolve().parents[2] / "roles" / "inventory_db" / "files"
SERVICE = "database_service"
HBA = [
    "host all postgres all scram-sha-256",
    "host all {0} all scram-sha-256".format(SERVICE),
    "host all all all reject",
]
NEW_SERVER: Dict[str, Any] = dict(
    backend="process", host="127.0.0.1", first_port=40000, last_port=40999, storage_root="/nowhere", cpu_limit=2.0,
    memory_limit="4G", storage_limit="250G", max_instances=50, connections_per_instance=6,
)  # fmt: skip


def migrations() -> List[_schema.Migration]:
    return _schema.migrations_from({path.name: path.read_text() for path in (FILES / "migrations").glob("*.sql")})


def bin_dirs() -> List[str]:
    """The PostgreSQL versions to test on, from $POSTGRES_BIN_DIRS (separated by colons); else the one that is found."""
    return [path for path in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if path] or [""]


class Registry:
    """An inventory database of its own on a server that several tests share."""

    def __init__(self, server: RunningServer, password: str, name: str) -> None:
        self.server = server
        self.keys = [Fernet.generate_key().decode()]
        self.cipher = Cipher(self.keys)
        self.params: Dict[str, Any] = dict(
            login_host=server.host, login_port=server.port, login_user=SERVICE, login_password=password, login_db=name
        )

    def open(self, dry_run: bool = False) -> Inventory:
        return Inventory(self.params, dry_run)

    def admin(self) -> Any:
        return self.server.connect(self.params["login_db"])

    def query(self, statement: str, arguments: Any = None) -> List[Any]:
        with contextlib.closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []

    def pool(self, name: str, places: int = 50, status: str = "active", **changed: Any) -> None:
        """A pool that exists in the inventory only, taken through its states."""
        new = _making.NewServer.from_options(dict(NEW_SERVER, max_instances=places))
        with self.open() as inventory:
            with inventory.transaction():
                inventory.lock_placement()
                _making.make_server(inventory, self.cipher, new, "shared", name=name)
            for step in {"provisioning": [], "initializing": ["initializing"]}.get(status, ["initializing", "active"]):
                _lifecycle.step_server(inventory, name, step, None, 60, {})
        for column, value in changed.items():
            self.query("UPDATE db_servers SET {0} = %s WHERE name = %s".format(column), (value, name))
        if status not in ("provisioning", "initializing", "active"):
            self.query("UPDATE db_servers SET status = %s WHERE name = %s", (status, name))

    def place(
        self,
        plan: str = "standard",
        making: bool = True,
        instance: Optional[str] = None,
        customer: Optional[str] = None,
        dedicated: bool = False,
        max_instances: int = 50,
        strategy: str = "priority",
    ) -> Dict[str, Any]:
        """Place one instance, a new one of a new customer unless given; its allocation."""
        request = _placement.Request(instance or str(uuid.uuid4()), customer or str(uuid.uuid4()), plan, dedicated)
        new = _making.NewServer.from_options(dict(NEW_SERVER, max_instances=max_instances)) if making else None
        with self.open() as inventory:
            policy = _placement.Policy(strategy=strategy, new_server=new)
            _placement.place(inventory, self.cipher, request, inventory.plans()[plan], policy)
            return inventory.allocations([request.instance_id])[0]


@contextlib.contextmanager
def registry_server(bin_dir: str = "") -> Iterator[Any]:
    """A server with a template of the inventory database; yields a function that makes registries from it."""
    with running_server(bin_dir=bin_dir or None, hba=HBA, settings={"max_connections": "200"}) as server:
        password = secrets.token_hex(16)
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE {0} LOGIN PASSWORD %s".format(SERVICE), (password,))
            cursor.execute("CREATE DATABASE registry_template TEMPLATE template0")
        with contextlib.closing(server.connect("registry_template")) as connection:
            schema = _schema.Schema(connection, migrations())
            schema.run(*schema.pending(None))
            schema.grant((FILES / "grants.sql").read_text(), SERVICE, dry_run=False)
        numbers = itertools.count(1)

        def make() -> Registry:
            name = "registry_{0}".format(next(numbers))
            with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE {0} TEMPLATE registry_template".format(name))
                cursor.execute("GRANT CONNECT ON DATABASE {0} TO {1}".format(name, SERVICE))
            return Registry(server, password, name)

        yield make

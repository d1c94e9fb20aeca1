# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory database with as many pools as asked for, and beside it plain tables of the same size."""

from __future__ import annotations

import secrets
import uuid
from typing import Any, Dict, List, Tuple

import checkout
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _placement
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._schema import Schema, migrations_from
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher

DATABASE, SERVICE = "postgres_pools", "database_service"
PLACES = 50
# As roles/inventory_db writes it for the real one.
HBA = ["host all postgres all scram-sha-256", "host {0} {1} all scram-sha-256".format(DATABASE, SERVICE), "host all all all reject"]
_FILES = checkout.ROOT / "roles" / "inventory_db" / "files"

_PLAIN = """
CREATE TABLE bare_counters (id integer PRIMARY KEY, taken integer NOT NULL DEFAULT 0, places integer NOT NULL);
CREATE TABLE bare_places (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), counter integer NOT NULL, taken_at timestamptz DEFAULT now());
CREATE INDEX ON bare_counters (taken, id);
GRANT SELECT, INSERT, UPDATE ON bare_counters, bare_places TO database_service;
"""
# Rows as they are once a pool is active, one made after another; the triggers that lead there step by step are not what is measured.
_FILL = """
SET session_replication_role = replica;
TRUNCATE db_servers, db_allocations, db_events, db_tenant_migrations, db_health_checks, bare_counters, bare_places;
INSERT INTO db_servers (name, server_type, backend, host, port, status, health_status, max_instances, connection_budget,
    storage_budget_bytes, cpu_limit, memory_limit_bytes, created_at, activated_at)
SELECT 'postgres-pool-' || n, 'shared', 'process', '10.' || n / 65536 || '.' || n / 256 %% 256 || '.' || n %% 256, 5432, 'active', 'healthy',
    %(places)s, %(places)s * 6, %(places)s * (5::bigint << 30), 2, 4::bigint << 30, now() + n * interval '1 microsecond', now()
FROM generate_series(1, %(servers)s) n;
INSERT INTO bare_counters (id, places) SELECT n, %(places)s FROM generate_series(1, %(servers)s) n;
RESET session_replication_role;
"""
_EMPTY = """
SET session_replication_role = replica;
TRUNCATE db_allocations, db_events, db_tenant_migrations, bare_places;
UPDATE db_servers SET current_instances = 0, promised_connections = 0, promised_storage_bytes = 0, status = 'active' WHERE current_instances > 0;
UPDATE bare_counters SET taken = 0 WHERE taken > 0;
RESET session_replication_role;
"""


class Fleet:
    """The registry on one *server* (RunningServer), reached as the service role that the modules use."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.password = secrets.token_hex(16)
        self._admin().run("CREATE ROLE {0} LOGIN PASSWORD '{1}'".format(SERVICE, self.password), "CREATE DATABASE {0}".format(DATABASE))
        connection = server.connect(DATABASE)
        schema = Schema(connection, migrations_from({path.name: path.read_text() for path in (_FILES / "migrations").glob("*.sql")}))
        schema.run(*schema.pending(None))
        schema.grant((_FILES / "grants.sql").read_text(), SERVICE, dry_run=False)
        connection.close()
        self._admin(DATABASE).run(_PLAIN)

    def _admin(self, dbname: str = "postgres") -> _Session:
        return _Session(self.server.connect(dbname))

    def fill(self, servers: int, places: int = PLACES) -> None:
        """That many pools, all active and empty."""
        self._admin(DATABASE).run((_FILL, {"servers": servers, "places": places}), "VACUUM ANALYZE", "CHECKPOINT")

    def empty(self) -> None:
        """Every place free again, and no dead rows of the last measurement in the way of the next."""
        self._admin(DATABASE).run(_EMPTY, "VACUUM ANALYZE", "CHECKPOINT")

    def rows(self, statement: str) -> List[Tuple[Any, ...]]:
        return self._admin(DATABASE).run(statement)

    def login(self) -> Dict[str, Any]:
        """The login_* options with which the modules would come here."""
        return {
            "login_host": self.server.host,
            "login_port": self.server.port,
            "login_db": DATABASE,
            "login_user": SERVICE,
            "login_password": self.password,
        }

    def inventory(self) -> Inventory:
        return Inventory(self.login())


class _Session:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, *statements: Any) -> List[Tuple[Any, ...]]:
        """Run them, close, and give the last one's rows."""
        with self._connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(*(statement if isinstance(statement, tuple) else (statement,)))
            rows = cursor.fetchall() if cursor.description else []
        self._connection.close()
        return rows


def new_cipher() -> Cipher:
    from cryptography.fernet import Fernet

    return Cipher([Fernet.generate_key().decode()])


def new_request() -> _placement.Request:
    return _placement.Request(str(uuid.uuid4()), str(uuid.uuid4()), "standard")

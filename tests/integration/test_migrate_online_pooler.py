# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PgBouncer in front of a tenant: through a move and its way back its application waits and is never refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
from debian_programs import pgbouncer
from online_fixture import ONLINE, Lasting, Online, online_environment, whole, writing_tenant
from postgres_fixture import free_port, server_home
from test_migrate import Tenant, left_behind

A, B = "postgres-pool-a", "postgres-pool-b"


@pytest.fixture(scope="module")
def online() -> Iterator[Online]:
    with online_environment() as made:
        yield made


class Bouncer:
    """One PgBouncer with one database, ``shop``."""

    def __init__(self, online: Online, tenant: Tenant, home: Path, pool_mode: str = "transaction") -> None:
        self.port = free_port()
        self.ini = home / "pgbouncer.ini"
        row, self.password = tenant.row, str(online.scratch.password(tenant.id))
        self.user = row["role_name"]
        users = home / "users.txt"
        users.write_text('"{0}" "{1}"\n"operator" "Operator1"\n'.format(self.user, self.password))
        self.passfile = home / "pgpass"
        self.passfile.write_text("*:*:pgbouncer:operator:Operator1\n")
        self.passfile.chmod(0o600)
        self.ini.write_text(
            "[databases]\nshop = host={host} port={port} dbname={database_name} pool_size=4\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {0}\n"
            "unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {1}\nadmin_users = operator\npool_mode = {2}\nlogfile = {3}\n".format(
                self.port, users, pool_mode, home / "log", **row
            )
        )
        program, libraries = pgbouncer()
        for path in (home, self.ini, users):
            os.chown(str(path), online_user(), -1) if os.geteuid() == 0 else None
        self._process = subprocess.Popen(
            [program, "-q", *(["-u", "nobody"] if os.geteuid() == 0 else []), str(self.ini)],
            env={"LD_LIBRARY_PATH": libraries, "PATH": "/usr/bin:/bin"},
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.console("SHOW VERSION")
                break
            except psycopg2.OperationalError:
                assert time.monotonic() < deadline and self._process.poll() is None, (home / "log").read_text()
                time.sleep(0.1)

    def console(self, command: str) -> List[Dict[str, Any]]:
        with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=self.port, dbname="pgbouncer", user="operator", password="Operator1")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(command)
                return [dict(zip([column.name for column in cursor.description], row)) for row in cursor.fetchall()] if cursor.description else []

    @property
    def leads_to(self) -> int:
        return int(next(one["port"] for one in self.console("SHOW DATABASES") if one["name"] == "shop"))

    @property
    def application(self) -> Dict[str, Any]:
        pooler = {"host": "127.0.0.1", "port": self.port, "user": "operator", "passfile": str(self.passfile), "database": "shop", "config": str(self.ini)}
        return {"pooler": pooler}

    def place(self) -> Dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "database_name": "shop", "role_name": self.user}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def online_user() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def home() -> Iterator[Path]:
    # One that others can pass through: for root PgBouncer runs as nobody.
    with server_home() as made:
        yield Path(made)


def test_the_application_waits_and_is_not_refused(online: Online, home: Path) -> None:
    tenant = writing_tenant(online, A)
    bouncer = Bouncer(online, tenant, home)
    try:
        kept = bouncer.ini.read_text()
        with Lasting(tenant, bouncer.place()) as writer:
            moved = online.play("migrate", dict(ONLINE, instance_id=tenant.id, target=B, application=bouncer.application)).succeeded()
            writer.wait_for(100)
            assert bouncer.leads_to == tenant.row["port"] and tenant.row["server"] == B
            forth = writer.longest
            back = online.play("rollback", {"instance_id": tenant.id}).succeeded()
            writer.wait_for(100)
        # Not one question of all of them was answered by an error.
        assert writer.errors == 0 and back.stats["status"] == "rolled_back" and moved.stats["mode"] == "online"
        assert forth < 15 and moved.stats["downtime_seconds"] <= forth + 0.5
        assert bouncer.ini.read_text() == kept and bouncer.leads_to == tenant.row["port"] and tenant.row["server"] == A
        whole(tenant, writer.acknowledged)
        assert online.left() == [] and left_behind(online.scratch) == []
    finally:
        bouncer.stop()


def test_somebody_in_a_transaction_is_waited_for_and_not_thrown_out(online: Online, home: Path) -> None:
    tenant = writing_tenant(online, A)
    bouncer = Bouncer(online, tenant, home)
    try:
        kept = bouncer.ini.read_text()
        held = psycopg2.connect(host="127.0.0.1", port=bouncer.port, dbname="shop", user=bouncer.user, password=bouncer.password)
        with contextlib.closing(held), held.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM still")
            once = {"switch_timeout": 2, "tenant_migration_switch_tries": 1}
            refused = online.play("migrate", dict(ONLINE, instance_id=tenant.id, target=B, application=bouncer.application, **once))
            assert refused.rc != 0 and "somebody is in a transaction" in " ".join(refused.output.split())
            cursor.execute("SELECT 1")
            held.commit()
        assert bouncer.ini.read_text() == kept and tenant.row["server"] == A and online.left() == []
        # By a dump too the pooler holds back what is asked, and leads to the new place.
        with Lasting(tenant, bouncer.place()) as writer:
            online.play("migrate", {"instance_id": tenant.id, "target": B, "application": bouncer.application}).succeeded()
            writer.wait_for(50)
        assert writer.errors == 0 and bouncer.leads_to == tenant.row["port"]
        whole(tenant, writer.acknowledged)
    finally:
        bouncer.stop()


def test_a_pooler_that_cannot_rest_is_refused_before_anything_is_stopped(online: Online, home: Path) -> None:
    tenant = writing_tenant(online, A, rows=10)
    bouncer = Bouncer(online, tenant, home, pool_mode="session")
    try:
        refused = online.play("migrate", dict(ONLINE, instance_id=tenant.id, target=B, application=bouncer.application))
        assert refused.rc != 0 and "pool_mode=transaction" in " ".join(refused.output.split())
        assert (tenant.row["server"], tenant.row["status"]) == (A, "active") and online.left() == [], refused.output
    finally:
        bouncer.stop()

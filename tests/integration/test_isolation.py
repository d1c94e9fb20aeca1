# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One tenant tries what it can against another on its server. Each probe is also seen to succeed where it should."""

from __future__ import annotations

import os
from typing import Any, Iterator, List

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_report import answer, arrange
from postgres_fixture import RunningServer, running_server

PASSWORDS = {"alpha": "AlphaPassword0123456789", "beta": "BetaPassword0123456789"}
OPEN_HBA = ["host all all all scram-sha-256"]
# A list with colons says which versions; without it the one that the backend finds.
BIN_DIRS = [one for one in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if one] or [""]


def make_tenants(server: RunningServer, **more: Any) -> None:
    databases = [
        {"name": name, "password": password, "connection_limit": 3, "temp_file_limit": "1MB", "profile": "plain"}
        for name, password in PASSWORDS.items()
    ]
    options = {
        "login_host": server.host, "login_port": server.port, "login_user": server.user,
        "login_password": server.password, "databases": databases, "state": "present", "max_parallel": 2,
        "require_wall": True, "connect_timeout": 10,
    }  # fmt: skip
    result = answer(*arrange(dict(options, **more), False))
    assert not result["failed"], result["msg"]
    owner = enter(server, "beta", "beta")
    run(owner, "CREATE TABLE IF NOT EXISTS beta_secret (line text)")
    owner.close()


@pytest.fixture(scope="module", params=BIN_DIRS, ids=lambda one: one or "found")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("isolation"), request.param) as running:
        make_tenants(running)
        yield running


@pytest.fixture(scope="module", params=BIN_DIRS, ids=lambda one: one or "found")
def open_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The same tenants, but pg_hba.conf lets anybody in anywhere: here the wall is missing."""
    with running_server(tmp_path_factory.mktemp("open"), request.param, hba=OPEN_HBA) as running:
        make_tenants(running, require_wall=False)
        yield running


def enter(server: RunningServer, who: str, where: str) -> Any:
    return server.connect(where, who + "_user", PASSWORDS[who])


def run(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def kept_out(server: RunningServer, who: str, where: str) -> str:
    """What the server says as it refuses; empty if it lets *who* in."""
    try:
        enter(server, who, where).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return ""


@pytest.fixture
def alpha(server: RunningServer) -> Iterator[Any]:
    connection = enter(server, "alpha", "alpha")
    yield connection
    connection.close()


@pytest.mark.parametrize("where", ["beta", "postgres", "template1"])
def test_a_tenant_enters_its_own_database_only(server: RunningServer, where: str) -> None:
    assert kept_out(server, "alpha", "alpha") == ""
    assert "pg_hba.conf rejects connection" in kept_out(server, "alpha", where)


def grant_all_an_owner_can(server: RunningServer) -> None:
    owner = enter(server, "beta", "beta")
    for statement in (
        "GRANT ALL ON DATABASE beta TO PUBLIC",
        "GRANT CONNECT ON DATABASE beta TO alpha_user",
        "GRANT ALL ON SCHEMA public TO PUBLIC",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
        "ALTER DATABASE beta CONNECTION LIMIT -1",
    ):
        run(owner, statement)
    # The gate itself is not the owner's to open.
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run(owner, "GRANT beta TO alpha_user")
    owner.close()
    watcher = server.connect()
    assert run(watcher, "SELECT has_database_privilege('alpha_user', 'beta', 'CONNECT')") == [(True,)]
    watcher.close()


def test_after_all_that_an_owner_can_grant_the_other_is_still_kept_out(server: RunningServer) -> None:
    grant_all_an_owner_can(server)
    assert "pg_hba.conf rejects connection" in kept_out(server, "alpha", "beta")
    assert kept_out(server, "beta", "beta") == ""


def test_without_the_wall_the_same_grant_lets_the_other_in(open_server: RunningServer) -> None:
    assert "permission denied for database" in kept_out(open_server, "alpha", "beta")
    grant_all_an_owner_can(open_server)
    assert kept_out(open_server, "alpha", "beta") == ""


def test_the_next_run_takes_back_what_was_granted_to_public(server: RunningServer) -> None:
    grant_all_an_owner_can(server)
    make_tenants(server)
    watcher = server.connect()
    assert run(watcher, "SELECT 1 FROM pg_database, aclexplode(datacl) WHERE datname = 'beta' AND grantee = 0") == []
    watcher.close()


def test_a_tenant_cannot_list_or_read_the_others_tables(server: RunningServer, alpha: Any) -> None:
    listing = "SELECT relname FROM pg_class WHERE relname = 'beta_secret'"
    beta = enter(server, "beta", "beta")
    assert run(beta, listing) == [("beta_secret",)]
    beta.close()
    assert run(alpha, listing) == []
    with pytest.raises(psycopg2.errors.FeatureNotSupported, match="cross-database"):
        run(alpha, "SELECT * FROM beta.public.beta_secret")


@pytest.mark.parametrize("extension", ["dblink", "postgres_fdw", "file_fdw", "adminpack"])
def test_a_tenant_cannot_make_itself_a_way_out(alpha: Any, extension: str) -> None:
    run(alpha, "CREATE EXTENSION IF NOT EXISTS pg_trgm")
    with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.FeatureNotSupported)):
        run(alpha, f"CREATE EXTENSION {extension}")


def test_a_tenant_at_its_limit_does_not_take_the_others_connections(server: RunningServer) -> None:
    held: List[Any] = []
    try:
        for _unused in range(3):
            held.append(enter(server, "alpha", "alpha"))
        assert 'too many connections for role "alpha_user"' in kept_out(server, "alpha", "alpha")
        # Lifting the limit of the database, which an owner can, does not help.
        run(held[0], "ALTER DATABASE alpha CONNECTION LIMIT -1")
        assert 'too many connections for role "alpha_user"' in kept_out(server, "alpha", "alpha")
        assert kept_out(server, "beta", "beta") == ""
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE alpha_user CONNECTION LIMIT 100",
        "ALTER ROLE alpha_user CREATEDB",
        "ALTER ROLE alpha_user SUPERUSER",
        "ALTER ROLE alpha_user SET temp_file_limit = '10GB'",
        "ALTER DATABASE alpha SET temp_file_limit = '10GB'",
        "SET temp_file_limit = '10GB'",
        "SET ROLE beta_user",
        "SET ROLE postgres",
        "GRANT tenant_bus TO alpha_user",
        "GRANT beta TO alpha_user",
        "CREATE ROLE accomplice",
        "CREATE DATABASE another",
        "ALTER DATABASE alpha RENAME TO gamma",
        "COMMENT ON ROLE alpha_user IS 'mine'",
        "ALTER FUNCTION public.similarity(text, text) VOLATILE",
        "SELECT rolpassword FROM pg_authid",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user AND usename IS NOT NULL",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('postgresql.conf')",
    ],
)
def test_what_a_tenant_may_not_do(server: RunningServer, alpha: Any, statement: str) -> None:
    if "similarity" in statement:
        watcher = server.connect("alpha")
        run(watcher, "DROP EXTENSION IF EXISTS pg_trgm")
        run(watcher, "CREATE EXTENSION pg_trgm SCHEMA public")
        watcher.close()
    somebody = enter(server, "beta", "beta")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run(alpha, statement)
    somebody.close()


@pytest.mark.parametrize(
    "statement", ["ALTER ROLE alpha_user SET work_mem = '8MB'", "SET ROLE alpha", "CREATE SCHEMA IF NOT EXISTS mine"]
)
def test_what_a_tenant_may_do(alpha: Any, statement: str) -> None:
    """So the refusals before are about what is asked, not about who asks."""
    run(alpha, statement)


def test_temporary_files_are_limited(server: RunningServer, alpha: Any) -> None:
    run(alpha, "SET work_mem = '64kB'")
    big = (
        "SELECT count(*) FROM (SELECT g, repeat('x', 200) AS t FROM generate_series(1, {0}) g ORDER BY md5(g::text)) s"
    )
    assert run(alpha, big.format(100)) == [(100,)]
    with pytest.raises(psycopg2.errors.ConfigurationLimitExceeded, match="temp_file_limit"):
        run(alpha, big.format(50000).replace("count(*)", "count(DISTINCT t || g)"))

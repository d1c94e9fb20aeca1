# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS from the authority to the tenant, on real servers: who gets in, who does not, and renew_certificates.yml while the server runs."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _allocation,
    _authority,
    _certificates,
    _dsn,
    _hba,
    _rotation,
    _schema,
    _served,
    _server_conf,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_key import ServerKey
from cryptography.fernet import Fernet
from environment import Environment, environment, instances
from postgres_fixture import free_port, server_home
from registry_fixture import Registry, bin_dirs, migrations, registry_server

NAME = "postgres-pool-tls"
CUSTOMER = str(uuid.uuid4())
DAY = datetime.timedelta(days=1)


def defaults(options: Dict[str, Any], **given: Any) -> Dict[str, Any]:
    """The options of a module as Ansible hands them over."""
    return dict({name: option.get("default") for name, option in options.items()}, **given)


def settings(files: ServerKey) -> Dict[str, Any]:
    return {
        "ssl": "on",
        "ssl_cert_file": files.certificate_file,
        "ssl_key_file": files.key_file,
        "ssl_min_protocol_version": "TLSv1.2",
    }


class Bed:
    """A server with TLS, and the inventory database that knows it."""

    def __init__(self, registry: Registry, home: str, bin_dir: str) -> None:
        self.registry = registry
        self.path = os.path.join(home, "server")
        self.files = ServerKey(NAME, self.path, account().name if os.geteuid() == 0 else "")
        self.admin_password = secrets.token_hex(16)
        self.port = free_port()
        registry.pool(
            NAME,
            tls=True,
            host="127.0.0.1",
            port=self.port,
            storage_path=self.path,
            admin_password_encrypted=registry.cipher.encrypt(self.admin_password),
        )
        self.wanted = Wanted(
            path=self.path,
            port=self.port,
            admin_password=self.admin_password,
            bin_dir=bin_dir,
            settings=dict(settings(self.files), fsync="off"),
            hba=_hba.lines(tls=True),
            run_as=account().name if os.geteuid() == 0 else "",
        )

    # --- what the role does, step by step

    def write(self, **options: Any) -> Dict[str, Any]:
        """Key, signature, certificate."""
        found = self.files.ensure(make_path=True)
        with self.registry.open() as inventory:
            result = _certificates.work(
                defaults(
                    _certificates.OPTIONS,
                    servers=[NAME],
                    requests={NAME: found.request},
                    certificates={NAME: found.certificate},
                    **options,
                ),
                inventory,
                self.registry.cipher,
            )
        if result["certificates"][0]["changed"]:
            self.files.ensure(result["certificates"][0]["certificate"])
        return result

    def serve(self, certificate: Optional[str] = None, dry_run: bool = False) -> Dict[str, Any]:
        with self.registry.open(dry_run) as inventory:
            params = defaults(
                _certificates.OPTIONS, state="served", servers=[NAME], certificates={NAME: certificate}, timeout=5.0
            )
            return _certificates.work(params, inventory, self.registry.cipher)

    def allocate(self, instance: str) -> Dict[str, Any]:
        request = {"instance_id": instance, "customer_id": CUSTOMER, "plan_tier": "standard"}
        with self.registry.open() as inventory:
            params = defaults(_allocation.OPTIONS, allocations=[dict(request, require_dedicated=False)])
            return _allocation.work(params, inventory, self.registry.cipher)

    def connection_of(self, instance: str) -> Dict[str, Any]:
        with self.registry.open() as inventory:
            return _dsn.tenant_connection(inventory.allocations([instance])[0], self.registry.cipher)

    # --- what is there

    def served(self, trusted: str) -> Any:
        seen = _served.look("127.0.0.1", self.port, trusted, 5)
        assert seen.certificate, seen.problem
        return _authority.x509.load_der_x509_certificate(seen.certificate)

    def started(self) -> Any:
        with contextlib.closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time()::text, pg_backend_pid() > 0")
            return cursor.fetchone()

    def admin(self) -> Any:
        return psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=self.admin_password,
            dbname="postgres",
            sslmode="require",
        )


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def registries(request: pytest.FixtureRequest) -> Iterator[Any]:
    with registry_server(request.param) as make:
        make.bin_dir = request.param
        yield make


@pytest.fixture
def registry(registries: Any) -> Registry:
    made: Registry = registries()
    return made


@pytest.fixture(scope="module")
def bed(registries: Any) -> Iterator[Bed]:
    with server_home() as home:
        made = Bed(registries(), home, registries.bin_dir)
        made.write()
        try:
            ensure(made.wanted, "started")
            yield made
        finally:
            ensure(made.wanted, "stopped")


@pytest.fixture(scope="module")
def tenant(bed: Bed) -> Dict[str, Any]:
    instance = str(uuid.uuid4())
    assert bed.allocate(instance)["status"] == "ready"
    return bed.connection_of(instance)


@pytest.fixture
def ca_file(tmp_path: Path, tenant: Dict[str, Any]) -> str:
    path = tmp_path / "ca.pem"
    path.write_text(tenant["ca_certificate"])
    return str(path)


# --- who gets in


def test_a_tenant_gets_in_with_what_is_handed_out(tenant: Dict[str, Any], ca_file: str) -> None:
    assert tenant["sslmode"] == "verify-full" and tenant["dsn"].endswith("?sslmode=verify-full")
    with contextlib.closing(psycopg2.connect(tenant["dsn"], sslrootcert=ca_file)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        user, encrypted, version = cursor.fetchone()
    assert user == tenant["user"] and encrypted and version in ("TLSv1.2", "TLSv1.3")


def test_the_servers_name_does_as_well_as_its_address(tenant: Dict[str, Any], ca_file: str) -> None:
    psycopg2.connect(tenant["dsn"], host=NAME, hostaddr="127.0.0.1", sslrootcert=ca_file).close()


def test_nobody_gets_in_without_tls(bed: Bed, tenant: Dict[str, Any]) -> None:
    for login in (tenant["dsn"], "host=127.0.0.1 port={0} user=postgres password={1}".format(bed.port, bed.admin_password)):
        with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection.*no encryption"):
            psycopg2.connect(login, sslmode="disable")


def test_another_name_is_refused(tenant: Dict[str, Any], ca_file: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match='does not match host name "localhost"'):
        psycopg2.connect(tenant["dsn"], host="localhost", hostaddr="127.0.0.1", sslrootcert=ca_file)


def test_another_authority_is_refused(tenant: Dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text(_authority.made().pem)
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        psycopg2.connect(tenant["dsn"], sslrootcert=str(tmp_path / "other.pem"))


def test_a_tenant_on_a_server_without_tls_gets_what_it_always_got(registry: Registry) -> None:
    registry.pool("postgres-pool-plain")
    instance = registry.place()["instance_id"]
    with registry.open() as inventory:
        found = _dsn.tenant_connection(inventory.allocations([instance])[0], registry.cipher)
    assert found["sslmode"] == "prefer" and "ca_certificate" not in found


# --- the administrator's own connections


def test_the_administrator_talks_to_no_impostor(bed: Bed) -> None:
    """The server's certificate is not by an authority of ours any more: no database is made there."""
    instance = str(uuid.uuid4())
    query = bed.registry.query
    (true_one,) = query("SELECT certificate FROM db_authorities WHERE current")
    query("UPDATE db_authorities SET certificate = %s WHERE current", (_authority.made().pem,))
    try:
        with pytest.raises(PoolsError, match="certificate verify failed"):
            bed.allocate(instance)
    finally:
        query("UPDATE db_authorities SET certificate = %s WHERE current", true_one)
    assert bed.allocate(instance)["status"] == "ready"


def test_without_an_authority_no_connection_is_made(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # libpq would take the user's own file in place of the one that is missing.
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = bed.registry.query("DELETE FROM db_authorities RETURNING name, certificate, private_key_encrypted, current, expires_at")
    instance = str(uuid.uuid4())
    try:
        with pytest.raises(PoolsError, match="root certificate"):
            bed.allocate(instance)
        with pytest.raises(PoolsError, match="no authority to verify it by"):
            bed.connection_of(instance)
    finally:
        for row in kept:
            bed.registry.query(
                "INSERT INTO db_authorities (name, certificate, private_key_encrypted, current, expires_at) VALUES (%s, %s, %s, %s, %s)",
                row,
            )
    assert bed.allocate(instance)["status"] == "ready"


def test_no_file_with_certificates_is_left(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bed.allocate(str(uuid.uuid4()))
    assert not list(tmp_path.iterdir())


# --- renewal


def test_a_renewal_needs_no_restart(bed: Bed, tenant: Dict[str, Any], ca_file: str) -> None:
    before, trusted = bed.started(), tenant["ca_certificate"]
    old = bed.served(trusted)
    with contextlib.closing(psycopg2.connect(tenant["dsn"], sslrootcert=ca_file)) as open_one:
        issued = bed.write(force=True)["certificates"][0]
        assert bed.served(trusted) == old, "the files alone change nothing yet"
        told = bed.serve(issued["certificate"])
        with open_one.cursor() as cursor:
            cursor.execute("SELECT 1")
    new = bed.served(trusted)
    assert told["changed"] and told["served"][0]["reloaded"]
    assert new.serial_number != old.serial_number
    assert new == _authority.certificates_from(issued["certificate"])[0]
    assert bed.started() == before
    assert bed.registry.query("SELECT certificate_expires_at FROM db_servers WHERE name = %s", (NAME,)) == [
        (_authority.expires_at(new),)
    ]
    psycopg2.connect(tenant["dsn"], sslrootcert=ca_file).close()


def test_nothing_is_done_that_is_not_due(bed: Bed) -> None:
    bed.serve(bed.write()["certificates"][0]["certificate"])
    again = bed.write()
    assert not again["changed"]
    assert not bed.serve(again["certificates"][0]["certificate"])["changed"]


def test_a_check_reloads_nothing(bed: Bed, tenant: Dict[str, Any]) -> None:
    issued = bed.write(force=True)["certificates"][0]["certificate"]
    old = bed.served(tenant["ca_certificate"])
    assert bed.serve(issued, dry_run=True)["changed"]
    assert bed.served(tenant["ca_certificate"]) == old
    bed.serve(issued)


def test_a_run_that_was_killed_before_the_reload_is_completed(bed: Bed, tenant: Dict[str, Any]) -> None:
    bed.write(force=True)
    again = bed.write()
    assert not again["changed"]
    assert bed.serve(again["certificates"][0]["certificate"])["served"][0]["reloaded"]


def test_a_certificate_that_has_expired_can_still_be_renewed(bed: Bed, tenant: Dict[str, Any], ca_file: str) -> None:
    request = bed.files.ensure().request
    assert request
    with bed.registry.open() as inventory:
        authority, _new = _authority.kept(inventory, bed.registry.cipher, None)
    expired = _authority.sign(authority, request, [NAME, "127.0.0.1"], 1, _authority.now() - 2 * DAY)
    bed.files.ensure(expired)
    with contextlib.closing(bed.admin()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_reload_conf()")
    refused(lambda: psycopg2.connect(tenant["dsn"], sslrootcert=ca_file), "certificate verify failed")
    issued = bed.write()["certificates"][0]
    assert "less than a third" in issued["reason"]
    assert bed.serve(issued["certificate"])["served"][0]["reloaded"]
    psycopg2.connect(tenant["dsn"], sslrootcert=ca_file).close()


def refused(attempt: Any, told: str) -> None:
    """In the end; PostgreSQL reloads a moment after it was told to."""
    for _each in range(100):
        try:
            attempt().close()
        except psycopg2.OperationalError as error:
            assert told in str(error)
            return
    raise AssertionError("it was never refused")


def test_a_certificate_that_is_not_served_is_told(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_served, "_RELOAD_SECONDS", 0.5)
    issued = bed.write(force=True)["certificates"][0]["certificate"]
    # In its place a certificate that does not fit the key: PostgreSQL goes on with what it has.
    Path(bed.files.certificate_file).write_text(_authority.made().pem)
    told = bed.serve(issued)
    assert "does not serve its certificate: it goes on with another" in told["served"][0]["msg"]
    assert told["served"][0]["expires_at"] is None
    issued = bed.write()["certificates"][0]["certificate"]
    assert not bed.serve(issued)["served"][0]["msg"]


# --- the authority


def test_of_makers_at_once_one_makes_the_authority(registry: Registry) -> None:
    def make(_number: int) -> Any:
        with registry.open() as inventory:
            return _authority.kept(inventory, registry.cipher, None)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(make, range(24)))
    assert len({authority.pem for authority, _new in found}) == 1
    assert sum(new for _authority_made, new in found) == 1
    assert registry.query("SELECT count(*) FROM db_authorities") == [(1,)]
    assert len({_authority._private_bytes(authority.key) for authority, _new in found}) == 1


def test_a_check_makes_no_authority(registry: Registry) -> None:
    with registry.open(dry_run=True) as inventory:
        assert _authority.kept(inventory, registry.cipher, None)[1]
    assert registry.query("SELECT count(*) FROM db_authorities") == [(0,)]


def test_no_private_key_is_in_a_dump(bed: Bed) -> None:
    params = bed.registry.params
    program = os.path.join(bed.registry.server.bin_dir, "pg_dump")
    dumped = subprocess.run(
        [program, "-h", params["login_host"], "-p", str(params["login_port"]), "-U", "postgres", params["login_db"]],
        env={"PGPASSWORD": bed.registry.server.password, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    token = bed.registry.query("SELECT private_key_encrypted FROM db_authorities WHERE current")[0][0]
    clear = bed.registry.cipher.decrypt(token, "the authority")
    server_key = Path(bed.files.key_file).read_text()
    assert token in dumped and "PRIVATE KEY" in clear
    for key in (clear, server_key):
        assert not any(line in dumped for line in key.splitlines())


def test_a_key_in_clear_is_refused_by_the_database(registry: Registry) -> None:
    authority = _authority.made()
    with pytest.raises(psycopg2.errors.CheckViolation, match="db_authorities_key_is_encrypted"):
        registry.query(
            "INSERT INTO db_authorities (name, certificate, private_key_encrypted, expires_at) VALUES ('x', %s, %s, now())",
            (authority.pem, _authority._private_bytes(authority.key).decode()),
        )


def test_the_service_role_cannot_put_another_certificate_in_place_or_delete_one(registry: Registry) -> None:
    with registry.open() as inventory:
        _authority.kept(inventory, registry.cipher, None)
        for statement in (
            "UPDATE db_authorities SET certificate = certificate",
            "DELETE FROM db_authorities",
            "UPDATE db_servers SET tls = false",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                inventory.execute(statement)


def test_the_authority_of_servers_is_not_rolled_back(registry: Registry) -> None:
    registry.pool(NAME, tls=True)
    with registry.open() as inventory:
        _authority.kept(inventory, registry.cipher, None)
    schema = _schema.Schema(registry.admin(), migrations())
    with pytest.raises(PoolsError, match="0003_tls failed and was undone: there are servers with TLS"):
        schema.run(*schema.pending(1))
    assert registry.query("SELECT count(*) FROM db_authorities") == [(1,)]
    schema.allow_discarding()
    schema.run(*schema.pending(1))
    assert registry.query("SELECT to_regclass('db_authorities')") == [(None,)]


def test_new_keys_open_the_authority(registry: Registry) -> None:
    newest = Fernet.generate_key().decode()
    with registry.open() as inventory:
        before, _new = _authority.kept(inventory, registry.cipher, None)
        counts = _rotation.reencrypt(inventory, Cipher([newest, *registry.keys]))
        assert counts["db_authorities.private_key_encrypted"] == 1
        after, new = _authority.kept(inventory, Cipher([newest]), None)
        with pytest.raises(PoolsError, match="authority postgres_pools"):
            _authority.kept(inventory, registry.cipher, None)
    assert not new and after.pem == before.pem


def given(folder: Path, authority: _authority.Authority) -> Dict[str, str]:
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "ca.key").write_bytes(_authority._private_bytes(authority.key))
    return {"certificate": str(folder / "ca.pem"), "key": str(folder / "ca.key")}


def test_an_authority_that_is_given_signs_and_its_key_is_not_kept(registry: Registry, tmp_path: Path) -> None:
    own = _authority.made()
    with registry.open() as inventory:
        kept, _new = _authority.kept(inventory, registry.cipher, None)
        assert _authority.kept(inventory, registry.cipher, given(tmp_path, own))[1]
        again, new = _authority.kept(inventory, registry.cipher, given(tmp_path, own))
        assert again.pem == own.pem and not new
        # A tenant that fetches its connection now trusts both, while the servers go over one by one.
        assert _authority.trusted(inventory) == own.pem + kept.pem
        with pytest.raises(PoolsError, match="given by files, and its key is not kept"):
            _authority.kept(inventory, registry.cipher, None)
    assert registry.query("SELECT private_key_encrypted FROM db_authorities WHERE current") == [(None,)]


def test_a_server_goes_over_to_another_authority_without_a_break(bed: Bed, tenant: Dict[str, Any], tmp_path: Path) -> None:
    """A tenant with both certificates gets in before, between and after."""
    own = _authority.made()
    both = tmp_path / "both.pem"
    both.write_text(own.pem + tenant["ca_certificate"])
    issued = bed.write(authority=given(tmp_path, own))["certificates"][0]
    assert issued["reason"] == "another authority signs"
    psycopg2.connect(tenant["dsn"], sslrootcert=str(both)).close()
    assert bed.allocate(str(uuid.uuid4()))["status"] == "ready"
    bed.serve(issued["certificate"])
    psycopg2.connect(tenant["dsn"], sslrootcert=str(both)).close()
    assert bed.allocate(str(uuid.uuid4()))["status"] == "ready"
    (tmp_path / "own.pem").write_text(own.pem)
    psycopg2.connect(tenant["dsn"], sslrootcert=str(tmp_path / "own.pem")).close()


# --- by the playbook


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made.ready()


@pytest.fixture(scope="module")
def pools(scratch: Environment) -> List[Dict[str, Any]]:
    """Two pools that were made without TLS and get it now."""
    for name in ("postgres-pool-one", "postgres-pool-two"):
        scratch.play("provision_pool", {"server": name}).succeeded()
    scratch.execute("UPDATE db_servers SET tls = true")
    return scratch.servers()


def switch_on(scratch: Environment, server: Dict[str, Any]) -> None:
    path = Path(server["storage_path"])
    found = _server_conf.parse((path / "data" / "postgresql.pools.conf").read_text())
    kept = {name: value for name, value in found.items() if name not in _server_conf.RESERVED}
    # In two steps: PostgreSQL finds fault with hostssl lines as long as it has TLS switched off.
    for tls in (False, True):
        ensure(
            Wanted(
                path=str(path),
                port=server["port"],
                admin_password=scratch.cipher().decrypt(server["admin_password_encrypted"], "it"),
                settings=dict(kept, **settings(ServerKey(server["name"], str(path)))),
                hba=_hba.lines(tls=tls),
                bin_dir=scratch.facts["bin_dir"],
                run_as=scratch.facts["run_as"],
            ),
            "started",
        )


def test_one_servers_trouble_does_not_stop_the_other(scratch: Environment, pools: List[Dict[str, Any]]) -> None:
    checked = scratch.dump()
    scratch.play("renew_certificates", {}, "--check", "--diff").succeeded()
    assert scratch.dump() == checked
    one, two = pools
    first = scratch.play("renew_certificates")
    assert first.rc != 0 and first.output.count("has TLS switched off") >= 2
    switch_on(scratch, one)
    second = scratch.play("renew_certificates")
    assert second.rc != 0 and "postgres-pool-two: " in second.output and "postgres-pool-one: " not in second.output
    expiry = {row["name"]: row["certificate_expires_at"] for row in scratch.servers()}
    assert expiry[one["name"]] and not expiry[two["name"]]
    switch_on(scratch, two)
    scratch.play("renew_certificates").succeeded()
    before = scratch.dump()
    for flags in ((), ("--check", "--diff")):
        again = scratch.play("renew_certificates", None, *flags).succeeded()
        assert again.changed == 0, again.output
    assert scratch.dump() == before


def test_the_playbook_renews_without_a_restart_and_shows_no_key(scratch: Environment, pools: List[Dict[str, Any]]) -> None:
    with contextlib.closing(scratch.connect(pools[0])) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_postmaster_start_time()")
        started = cursor.fetchone()
    before = Path(pools[0]["storage_path"], "tls", "server.crt").read_text()
    done = scratch.play("renew_certificates", {"server": pools[0]["name"], "force": True}, "-vvv", "--diff").succeeded()
    assert done.stats["renewed"] == [pools[0]["name"]] and pools[0]["name"] in done.stats["expires_at"]
    assert Path(pools[0]["storage_path"], "tls", "server.crt").read_text() != before
    with contextlib.closing(scratch.connect(pools[0])) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_postmaster_start_time()")
        assert cursor.fetchone() == started
    assert "PRIVATE KEY" not in done.output
    server_key = Path(pools[0]["storage_path"], "tls", "server.key").read_text().splitlines()[1:-1]
    assert not any(line in done.output for line in server_key)


def test_the_result_file_has_what_the_tenant_needs(scratch: Environment, pools: List[Dict[str, Any]], tmp_path: Path) -> None:
    (request,) = instances(1)
    done = scratch.play("allocate", dict(request, result_file=str(tmp_path / "tenant.json"))).succeeded()
    result = json.loads((tmp_path / "tenant.json").read_text())
    (tmp_path / "ca.pem").write_text(result["ca_certificate"])
    psycopg2.connect(result["dsn"], sslrootcert=str(tmp_path / "ca.pem")).close()
    assert "ca_certificate" not in done.stats
    scratch.play("rotate_password", {"instance_id": request["instance_id"]}).succeeded()
    scratch.play("release", {"instance_id": request["instance_id"], "keep_days": 0}).succeeded()
    assert not scratch.rows("SELECT 1 FROM db_allocations WHERE dropped_at IS NULL")


def test_a_pool_made_on_demand_has_tls_from_its_first_start(scratch: Environment) -> None:
    scratch.forget_servers()
    (request,) = instances(1)
    new_server = {
        "backend": "process",
        "first_port": scratch.port_base + 1,
        "last_port": scratch.port_base + 99,
        "storage_root": str(scratch.state / "servers"),
        "memory_limit": "1G",
        "max_instances": 5,
        "tls": True,
    }
    result_file = scratch.home / "on-demand.json"
    variables = dict(request, postgres_pools_new_server=new_server, result_file=str(result_file))
    scratch.play("allocate", variables).succeeded()
    result = json.loads(result_file.read_text())
    (scratch.home / "on-demand.pem").write_text(result["ca_certificate"])
    psycopg2.connect(result["dsn"], sslrootcert=str(scratch.home / "on-demand.pem")).close()
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects"):
        psycopg2.connect(result["dsn"], sslmode="disable")
    (server,) = scratch.servers()
    left = server["certificate_expires_at"] - datetime.datetime.now(_authority.UTC)
    assert 89 * DAY < left <= 90 * DAY
    assert scratch.play("allocate", variables).succeeded().changed == 0
    assert scratch.play("renew_certificates").succeeded().changed == 0


def test_a_server_without_tls_is_told(scratch: Environment) -> None:
    name = scratch.servers()[0]["name"]
    scratch.execute("UPDATE db_servers SET tls = false WHERE name = %s", (name,))
    told = scratch.play("renew_certificates", {"server": name})
    assert told.rc != 0 and "{0} has no TLS".format(name) in told.output

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module tenant_database and its role against a real PostgreSQL."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import psycopg2
import psycopg2.extensions
import pytest
import yaml
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _tenant_servers, _tenant_sql
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_report import answer, arrange
from ansible_collections.saasodoo.postgres_pools.plugins.modules import tenant_database
from postgres_fixture import RunningServer, free_port, running_server

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "Tenants0Password1Of2Letters3And4"


# A list with colons says which versions; without it the one that the backend finds.
BIN_DIRS = [one for one in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if one] or [""]


@pytest.fixture(scope="module", params=BIN_DIRS, ids=lambda one: one or "found")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {"log_statement": "all", "max_connections": "60"}
    with running_server(tmp_path_factory.mktemp("server"), request.param, settings=settings) as running:
        yield running


def options(server: Any, databases: List[Dict[str, Any]], **more: Any) -> Dict[str, Any]:
    given = {
        "login_host": server.host,
        "login_port": server.port,
        "login_user": server.user,
        "login_password": server.password,
        "databases": [dict({"password": PASSWORD}, **database) for database in databases],
        "state": "present",
        "max_parallel": 4,
        "require_wall": True,
        "connect_timeout": 10,
    }
    return dict(given, **more)


def call(server: Any, *databases: Dict[str, Any], check_mode: bool = False, **more: Any) -> Dict[str, Any]:
    return answer(*arrange(options(server, list(databases), **more), check_mode))


def done(server: Any, *databases: Dict[str, Any], **more: Any) -> Dict[str, Any]:
    result = call(server, *databases, **more)
    assert not result["failed"], result["msg"]
    return result


def query(connection: Any, statement: str, *values: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else None


def admin(server: RunningServer, statement: str, *values: Any, dbname: str = "postgres") -> Any:
    connection = server.connect(dbname)
    try:
        return query(connection, statement, *values)
    finally:
        connection.close()


def end_state(server: RunningServer, *names: str) -> str:
    """All that the module cares for under these names, as text; verifiers by whether they are there."""
    connection = _tenant_sql.connect(options(server, []))
    found = _tenant_sql.read_found(connection, names)
    connection.close()
    inside: Dict[str, Any] = {}
    for name, database in found.databases.items():
        if database.allows_connections:
            connection = _tenant_sql.connect(options(server, []), name)
            inside[name] = {key: sorted(value) for key, value in _tenant_sql.read_inside(connection).items()}
            connection.close()
    roles = [
        (r.name, r.mark, sorted(r.attributes), r.connection_limit, bool(r.verifier), r.settings, r.member_of, r.members)
        for r in sorted(found.roles.values(), key=lambda role: role.name)
    ]
    databases = [
        (
            d.name,
            d.owner,
            d.encoding,
            d.lc_collate,
            d.lc_ctype,
            d.allows_connections,
            d.connection_limit,
            d.open_to_public,
        )
        for d in found.databases.values()
    ]
    return json.dumps([roles, databases, inside], default=dict, sort_keys=True)


def log_of(server: RunningServer) -> str:
    return "".join(path.read_text(errors="replace") for path in Path(server.path).rglob("*log*") if path.is_file())


# -- what it makes --


def test_a_new_database_is_as_odoo_wants_it(server: RunningServer) -> None:
    first = done(server, {"name": "odoo1", "connection_limit": 3, "temp_file_limit": "64MB"})
    assert first["changed"] and first["databases"][0]["changed"]
    again = done(server, {"name": "odoo1", "connection_limit": 3, "temp_file_limit": "64MB"})
    assert (
        not again["changed"] and again["databases"][0]["actions"] == [] and again["diff"] == {"before": {}, "after": {}}
    )

    tenant = server.connect("odoo1", "odoo1_user", PASSWORD)
    assert query(tenant, "SELECT current_user, current_setting('temp_file_limit')") == [("odoo1_user", "64MB")]
    query(tenant, "CREATE TABLE partner (name text)")
    # Only an immutable function may stand in an index.
    query(tenant, "CREATE INDEX ON partner (unaccent(name))")
    query(tenant, "CREATE INDEX ON partner USING gin (name gin_trgm_ops)")
    tenant.close()
    attributes = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert admin(
        server, f"SELECT rolcanlogin, {attributes}, rolconnlimit FROM pg_roles WHERE rolname = 'odoo1_user'"
    ) == [(True, False, 3)]
    assert admin(server, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'odoo1'") == [(False,)]
    columns = "pg_get_userbyid(datdba), datcollate, pg_encoding_to_char(encoding), datconnlimit, datacl::text"
    rows = f"SELECT {columns} FROM pg_database WHERE datname = %s"
    assert admin(server, rows, "odoo1") == [("odoo1_user", "C", "UTF8", -1, "{odoo1_user=CTc/odoo1_user}")]


def test_plain_has_no_extensions_and_bus_opens_postgres_only(server: RunningServer) -> None:
    done(server, {"name": "plain1", "profile": "plain"}, {"name": "bus1", "profile": "plain", "bus": True})
    assert admin(server, "SELECT extname FROM pg_extension", dbname="plain1") == [("plpgsql",)]
    bus = server.connect("postgres", "bus1_user", PASSWORD)
    query(bus, "LISTEN imbus")
    query(bus, "NOTIFY imbus, 'hello'")
    bus.poll()
    assert [notice.payload for notice in bus.notifies] == ["hello"]
    bus.close()
    with pytest.raises(psycopg2.OperationalError):
        server.connect("postgres", "plain1_user", PASSWORD)
    assert done(server, {"name": "bus1", "profile": "plain"})["databases"][0]["actions"] == [
        "role bus1_user: no more member of tenant_bus"
    ]
    with pytest.raises(psycopg2.OperationalError):
        server.connect("postgres", "bus1_user", PASSWORD)


def test_what_was_changed_by_hand_is_mended(server: RunningServer) -> None:
    wanted = {"name": "mended", "connection_limit": 4}
    done(server, wanted)
    before = end_state(server, "mended", "mended_user")
    for statement in (
        "ALTER ROLE mended_user CREATEDB CONNECTION LIMIT -1 PASSWORD 'another'",
        "ALTER ROLE mended LOGIN",
        "REVOKE mended FROM mended_user",
        "CREATE ROLE spy",
        "GRANT mended TO spy",
        "GRANT CONNECT ON DATABASE mended TO PUBLIC",
        "ALTER DATABASE mended CONNECTION LIMIT 0 IS_TEMPLATE true",
        # Traps for the administrator who comes in to look.
        "ALTER DATABASE mended SET search_path = public",
        "ALTER DATABASE mended SET role = mended_user",
        "ALTER DATABASE mended SET default_transaction_read_only = on",
    ):
        admin(server, statement)
    connection = server.connect("mended", options="-c role=none -c default_transaction_read_only=off")
    query(connection, "DROP EXTENSION pg_trgm")
    query(connection, "ALTER FUNCTION public.unaccent(text) STABLE")
    connection.close()
    assert end_state(server, "mended", "mended_user") != before
    assert len(done(server, wanted)["databases"][0]["actions"]) == 11
    assert end_state(server, "mended", "mended_user") == before
    server.connect("mended", "mended_user", PASSWORD).close()
    assert not done(server, wanted)["changed"]


@pytest.mark.parametrize("name", ['quo"te', "apo'stro", "ünï ☃", "a b;--{x}%s", "back\\slash", "x=y host=z"])
def test_odd_names_go_all_the_way(server: RunningServer, name: str) -> None:
    assert done(server, {"name": name})["changed"]
    assert not done(server, {"name": name})["changed"]
    server.connect(name, name + "_user", PASSWORD).close()
    parked = {"name": name, "quarantine_name": "q " + name}
    assert done(server, parked, state="quarantined")["changed"]
    assert not done(server, parked, state="quarantined")["changed"]
    assert done(server, parked, state="absent")["changed"]
    assert not done(server, parked, state="absent")["changed"]
    assert end_state(server, name, name + "_user", "q " + name, "q " + name + "_user") == end_state(server, "never")


# -- quarantine and absence --


def test_quarantine_throws_out_and_keeps_the_data(server: RunningServer) -> None:
    done(server, {"name": "leaving", "profile": "plain"})
    tenant = server.connect("leaving", "leaving_user", PASSWORD)
    query(tenant, "CREATE TABLE kept AS SELECT 42 AS answer")
    parked = {"name": "leaving", "quarantine_name": "leaving_q"}
    done(server, parked, state="quarantined")
    with pytest.raises(psycopg2.Error):
        query(tenant, "SELECT 1")
    for database, user in (("leaving", "leaving_user"), ("leaving_q", "leaving_q_user"), ("leaving_q", "leaving_user")):
        with pytest.raises(psycopg2.OperationalError):
            server.connect(database, user, PASSWORD)
    # A new tenant of that name does not touch the old one, nor does dropping the old one touch the new.
    done(server, {"name": "leaving", "profile": "plain"})
    refused = call(server, parked, state="quarantined")
    assert refused["failed"] and "'leaving_q': that is there already" in refused["msg"]
    admin(server, "ALTER DATABASE leaving_q ALLOW_CONNECTIONS true")
    assert admin(server, "SELECT answer FROM kept", dbname="leaving_q") == [(42,)]
    done(server, parked, state="absent")
    server.connect("leaving", "leaving_user", PASSWORD).close()
    done(server, {"name": "leaving"}, state="absent")
    assert end_state(server, "leaving", "leaving_user", "leaving_q", "leaving_q_user") == end_state(server, "never")


def test_a_quarantined_database_can_be_brought_back(server: RunningServer) -> None:
    wanted = {"name": "regretted", "quarantine_name": "regretted_q", "bus": True}
    done(server, wanted)
    before = end_state(server, "regretted", "regretted_user")
    done(server, wanted, state="quarantined")
    assert done(server, wanted, state="restored", check_mode=True)["changed"]
    assert done(server, wanted, state="restored")["changed"]
    assert end_state(server, "regretted", "regretted_user") == before
    server.connect("regretted", "regretted_user", PASSWORD).close()
    assert not done(server, wanted, state="restored")["changed"]
    # Where its name is another's by now, both stay as they are.
    done(server, wanted, state="quarantined")
    done(server, dict(wanted, quarantine_name=None))
    refused = call(server, wanted, state="restored")
    assert refused["failed"] and "'regretted' is there already" in refused["msg"]
    gone = call(server, {"name": "never_was", "quarantine_name": "never_was_q"}, state="restored")
    assert gone["failed"] and "no database 'never_was_q'" in gone["msg"]


def test_a_closed_database_keeps_its_tenant_out_and_lets_the_administrator_in(server: RunningServer) -> None:
    wanted = {"name": "copied", "profile": "plain", "bus": True, "connection_limit": 7}
    done(server, wanted)
    before = end_state(server, "copied", "copied_user")
    sessions = [server.connect(where, "copied_user", PASSWORD) for where in ("copied", "postgres")]
    query(sessions[0], "CREATE TABLE kept AS SELECT 42 AS answer")
    assert done(server, wanted, state="closed")["changed"]
    for session in sessions:
        with pytest.raises(psycopg2.Error):
            query(session, "SELECT 1")
    with pytest.raises(psycopg2.OperationalError):
        server.connect("copied", "copied_user", PASSWORD)
    assert admin(server, "SELECT answer FROM kept", dbname="copied") == [(42,)]
    assert not done(server, wanted, state="closed")["changed"]
    done(server, wanted)
    assert end_state(server, "copied", "copied_user") == before
    server.connect("copied", "copied_user", PASSWORD).close()


def test_absent_drops_with_sessions_open_and_objects_on_the_bus(server: RunningServer) -> None:
    done(server, {"name": "doomed", "profile": "plain", "bus": True})
    sessions = [server.connect(where, "doomed_user", PASSWORD) for where in ("doomed", "postgres")]
    query(sessions[1], "SELECT lo_create(0)")
    query(sessions[0], "ALTER DATABASE doomed IS_TEMPLATE true")
    assert done(server, {"name": "doomed"}, state="absent")["databases"][0]["actions"] == [
        "database doomed dropped",
        "role doomed_user dropped",
        "role doomed dropped",
    ]
    with pytest.raises(psycopg2.Error):
        query(sessions[1], "SELECT 1")


@pytest.mark.parametrize("state", ["present", "quarantined", "absent"])
def test_what_is_not_ours_is_left_alone(server: RunningServer, state: str) -> None:
    admin(server, 'DROP DATABASE IF EXISTS "foreign"')
    admin(server, 'CREATE DATABASE "foreign"')
    before = end_state(server, "foreign", "foreign_user")
    result = call(
        server, {"name": "foreign", "quarantine_name": None if state != "quarantined" else "foreign_q"}, state=state
    )
    assert result["failed"] and not result["changed"]
    assert "Database 'foreign' is there already and belongs to 'postgres'" in result["msg"]
    assert end_state(server, "foreign", "foreign_user") == before


# -- check mode, trouble, concurrency, interruption --


@pytest.mark.parametrize("step", ["present", "quarantined", "absent"])
def test_check_mode_predicts_and_changes_nothing(server: RunningServer, step: str) -> None:
    name = "checked_" + step
    wanted = {"name": name, "quarantine_name": name + "_q"}
    names = (name, name + "_user", name + "_q", name + "_q_user")
    if step != "present":
        done(server, wanted)
    if step == "absent":
        done(server, wanted, state="quarantined")
    before = end_state(server, *names)
    predicted = done(server, wanted, state=step, check_mode=True)
    assert end_state(server, *names) == before
    real = done(server, wanted, state=step)
    assert predicted == real and real["changed"]
    assert end_state(server, *names) != before
    assert not done(server, wanted, state=step, check_mode=True)["changed"]


def test_one_servers_trouble_is_its_own(server: RunningServer) -> None:
    closed = free_port()
    result = call(
        server, {"name": "well"}, {"name": "lost1", "login_port": closed}, {"name": "lost2", "login_port": closed}
    )
    assert result["failed"] and result["changed"]
    assert [one["failed"] for one in result["databases"]] == [False, True, True]
    assert result["msg"].startswith(
        f"2 of 3 databases failed. 127.0.0.1 port {closed} (databases lost1, lost2): Cannot connect"
    )
    server.connect("well", "well_user", PASSWORD).close()


def test_bad_input_touches_nothing(server: RunningServer) -> None:
    with pytest.raises(PoolsError, match="no password"):
        call(server, {"name": "untouched"}, {"name": "bad", "password": ""})
    assert end_state(server, "untouched", "untouched_user") == end_state(server, "never")


def test_a_missing_extension_is_named_before_anything_is_made(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant.EXTENSIONS",
        {"odoo": ("no_such_thing",)},
    )
    result = call(server, {"name": "poor"})
    assert "The server has no extension no_such_thing. Install PostgreSQL's contrib modules" in result["msg"]
    assert end_state(server, "poor", "poor_user") == end_state(server, "never")


def test_a_server_without_the_wall_is_refused(tmp_path: Path) -> None:
    with running_server(tmp_path, hba=["host all all all scram-sha-256"]) as open_server:
        result = call(open_server, {"name": "exposed"})
        assert "pg_hba.conf does not keep tenants apart: line 1 lets any user into all" in result["msg"].replace(
            "line 2", "line 1"
        )
        assert end_state(open_server, "exposed", "exposed_user") == end_state(open_server, "never")
        done(open_server, {"name": "exposed"}, require_wall=False)


def test_a_plain_login_is_refused(server: RunningServer) -> None:
    admin(server, "DROP ROLE IF EXISTS clerk")
    admin(server, "CREATE ROLE clerk LOGIN CREATEDB CREATEROLE PASSWORD 'clerk' IN ROLE tenant_bus")
    admin(server, "GRANT CONNECT ON DATABASE postgres TO tenant_bus")
    result = call(server, {"name": "small"}, login_user="clerk", login_password="clerk")
    assert "User 'clerk' is no superuser there" in result["msg"]
    admin(server, "DROP ROLE clerk")


def test_the_same_database_asked_for_by_eight_at_once(server: RunningServer) -> None:
    results: List[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(call(server, {"name": "wanted8"}))) for unused in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.get("msg") for result in results] == [None] * 8
    assert sum(result["databases"][0]["changed"] for result in results) == 1


@pytest.mark.parametrize("most", [3, 1])
def test_as_many_at_a_time_as_asked_for(server: RunningServer, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    together, lock, running, seen = threading.Barrier(most), threading.Lock(), [0], [0]
    real = _tenant_servers._converge_one

    def counted(*arguments: Any) -> None:
        with lock:
            running[0] += 1
            seen[0] = max(seen[0], running[0])
        # Nobody gets past it before as many are here.
        together.wait(20)
        real(*arguments)
        with lock:
            running[0] -= 1

    monkeypatch.setattr(_tenant_servers, "_converge_one", counted)
    done(server, *({"name": f"side{number}", "profile": "plain"} for number in range(3)), max_parallel=most)
    assert seen == [most]


def test_somebody_without_our_lock_is_outwaited(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role appears between reading and making: the error is met by looking again, and then it is refused."""
    real, meddled = _tenant_sql.run, []

    def meddle(connection: Any, steps: Any) -> None:
        if not meddled:
            meddled.append(admin(server, "CREATE ROLE raced_user"))
        real(connection, steps)

    monkeypatch.setattr(_tenant_sql, "run", meddle)
    assert "Role 'raced_user' is there already" in call(server, {"name": "raced"})["msg"]
    admin(server, "DROP ROLE raced_user")
    assert done(server, {"name": "raced"})["changed"]


def killing_cursor(at: int, after: bool) -> Any:
    """A cursor class that kills its process at its *at*-th statement: before it is sent, or while it runs."""
    count = [0]

    class Cursor(psycopg2.extensions.cursor):
        def execute(self, statement: Any, values: Any = None) -> None:
            count[0] += 1
            if count[0] == at and after:
                threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGKILL)).start()
            elif count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            super().execute(statement, values)
            if count[0] == at:
                time.sleep(1)

    return Cursor


# Forking this process would copy OpenSSL's locks, maybe held by a thread that is just ending; the fork server has no threads.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "yaml", "psycopg2.extensions", answer.__module__, tenant_database.__name__])


def call_to_be_killed(server: RunningServer, at: int, after: bool, database: Dict[str, Any], state: str) -> None:
    call(server, database, state=state, max_parallel=1, connect_params={"cursor_factory": killing_cursor(at, after)})


def call_and_be_killed(*arguments: Any) -> bool:
    """Whether the call was killed before it came to its end."""
    child = FORKS.Process(target=call_to_be_killed, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


@pytest.mark.parametrize("state", ["present", "closed", "quarantined", "restored", "absent"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "during"])
def test_killed_at_any_statement_the_next_run_completes(server: RunningServer, state: str, after: bool) -> None:
    """Each statement in turn; what an undisturbed run leaves is what a killed one and its rerun leave."""
    names = ["{0}", "{0}_user", "{0}_q", "{0}_q_user"]

    def prepared(name: str) -> Dict[str, Any]:
        database = {"name": name, "connection_limit": 7, "temp_file_limit": "8MB", "quarantine_name": name + "_q"}
        if state != "present":
            done(server, database)
        if state in ("absent", "restored"):
            done(server, database, state="quarantined")
        return database

    calm = f"calm_{state[0]}{after:d}"
    done(server, prepared(calm), state=state)
    expected = end_state(server, *(name.format(calm) for name in names))
    kills = 0
    for at in range(1, 60):
        name = f"kill_{state[0]}{after:d}_{at}"
        database = prepared(name)
        if not call_and_be_killed(server, at, after, database, state):
            break
        kills += 1
        if state == "present":
            assert_not_open(server, name)
        done(server, database, state=state)
        assert end_state(server, *(one.format(name) for one in names)).replace(name, calm) == expected, at
        assert not done(server, database, state=state)["changed"]
    # Lock, look, act, unlock: fewer would mean that the kills did not happen.
    assert kills >= {"present": 10, "closed": 7, "quarantined": 7, "restored": 10, "absent": 7}[state]


def assert_not_open(server: RunningServer, name: str) -> None:
    """Half-made, nobody but a superuser gets in: a limit of 0, or PUBLIC shut out and all done."""
    rows = admin(
        server,
        "SELECT datconnlimit, has_database_privilege('tenant_bus', oid, 'CONNECT') FROM pg_database WHERE datname = %s",
        name,
    )
    assert rows in ([], [(0, True)], [(0, False)], [(-1, False)])


# -- secrets, and the real Ansible --


def test_no_clear_password_reaches_the_servers_log(server: RunningServer) -> None:
    done(server, {"name": "logged", "password": "NeverInALog0123456789"})
    done(server, {"name": "logged", "password": "NeitherThisOne0123456789"})
    log = log_of(server)
    # The log does hold the statements, else this test could not fail.
    assert 'CREATE ROLE "logged_user"' in log and "SCRAM-SHA-256$4096:" in log
    assert "NeverInALog" not in log and "NeitherThisOne" not in log


def play(
    tmp_path: Path, tasks: Dict[str, Any], variables: Dict[str, Any], *arguments: str
) -> subprocess.CompletedProcess[str]:
    plays = [dict({"name": "Test", "hosts": "localhost", "connection": "local", "gather_facts": False}, **tasks)]
    path, extra, configuration = tmp_path / "play.yml", tmp_path / "extra.json", tmp_path / "ansible.cfg"
    configuration.write_text("[defaults]\n")
    path.write_text(json.dumps(plays))
    extra.touch(0o600)
    extra.write_text(json.dumps(dict(variables, ansible_python_interpreter=sys.executable)))
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        "localhost,",
        str(path),
        "-e",
        "@" + str(extra),
        *arguments,
    ]
    environment = dict(
        os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build"), ANSIBLE_LOCALHOST_WARNING="0", ANSIBLE_NOCOLOR="1"
    )
    environment.update(ANSIBLE_CONFIG=str(configuration), ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_module_through_ansible(server: RunningServer, tmp_path: Path) -> None:
    given = options(server, [{"name": "ansible1"}])
    tasks = {"tasks": [{"name": "Make", "saasodoo.postgres_pools.tenant_database": "{{ given }}"}]}
    # Diff and full verbosity: what is printed then is what must hold no secret.
    for arguments, changed in ((["--check"], 1), ([], 1), ([], 0)):
        result = play(tmp_path, tasks, {"given": given}, "-vvv", "--diff", *arguments)
        assert f"changed={changed} " in result.stdout and result.returncode == 0, result.stdout + result.stderr
        assert "database ansible1 made" in result.stdout or not changed
        assert PASSWORD not in result.stdout + result.stderr and server.password not in result.stdout + result.stderr
    for bad, says in (
        ({"name": "postgres"}, "reserved"),
        ({"name": "x" * 64}, "64 bytes"),
        ({"name": "a", "password": ""}, "no password"),
    ):
        result = play(tmp_path, tasks, {"given": options(server, [bad])})
        assert result.returncode != 0 and says in result.stdout and "Traceback" not in result.stdout + result.stderr


def test_the_documented_examples(server: RunningServer, tmp_path: Path) -> None:
    given = {"server_host": "localhost", "server_port": server.port, "server_password": server.password}
    tasks = {"tasks": yaml.safe_load(tenant_database.EXAMPLES)}
    result = play(tmp_path, tasks, dict(given, tenant_password=PASSWORD))
    assert "changed=7 " in result.stdout and result.returncode == 0, result.stdout + result.stderr


def test_the_role(server: RunningServer, tmp_path: Path) -> None:
    login = {
        "login_host": server.host,
        "login_port": server.port,
        "login_user": server.user,
        "login_password": server.password,
    }
    databases = [dict(login, name=name, password=PASSWORD) for name in ("role1", "role2")]
    shown = {"name": "Show", "ansible.builtin.debug": {"var": "tenant_database_result"}}
    tasks = {"roles": ["saasodoo.postgres_pools.tenant_database"], "post_tasks": [shown]}
    for changed in (1, 0):
        result = play(tmp_path, tasks, {"tenant_database_databases": databases}, "-v")
        assert f"changed={changed} " in result.stdout and result.returncode == 0, result.stdout + result.stderr
        assert '"name": "role2"' in result.stdout and PASSWORD not in result.stdout
    variables = {"tenant_database_databases": [dict(databases[0], login_port=free_port())]}
    result = play(tmp_path, tasks, variables)
    assert result.returncode != 0 and "(databases role1): Cannot connect to database" in result.stdout
    assert PASSWORD not in result.stdout


def test_speed(server: RunningServer) -> None:
    """The aims, doubled for a busy machine: 0.5 s for a new Odoo database, 0.15 s for one that is there."""

    def seconds(work: Callable[[], Any]) -> float:
        start = time.monotonic()
        work()
        return time.monotonic() - start

    numbers = itertools.count()
    assert min(seconds(lambda: done(server, {"name": f"quick{next(numbers)}"})) for unused in range(3)) < 1.0
    assert min(seconds(lambda: done(server, {"name": "quick0"})) for unused in range(3)) < 0.3

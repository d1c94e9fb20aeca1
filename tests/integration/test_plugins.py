# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookups, the inventory plugin, and the modules that the playbooks' own tests do not reach, run by Ansible against real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
import yaml
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from cryptography.fernet import Fernet
from environment import ROOT, Environment, Run, connect, environment, instances

NAMESPACE = "saasodoo.postgres_pools"
BIN = Path(sys.executable).parent
SHARED, LARGE = instances(2)
LARGE = dict(LARGE, plan_tier="premium")
DEDICATED = "postgres-dedicated-{0}".format(LARGE["instance_id"][:8])
POOL = "postgres-pool-1"
NOBODY = str(uuid.uuid4())


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    """A pool with one tenant, and a dedicated server."""
    with environment() as made:
        made.ready().play("allocate", {"allocations": [SHARED, LARGE]}).succeeded()
        yield made


def ansible(scratch: Environment, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / name), *arguments],
        cwd=str(ROOT),
        env=dict(scratch.base, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def run(scratch: Environment, tasks: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Run tasks as the playbooks do; what each of them gave, by its name."""
    answer = scratch.temp / "answer.json"
    names = ", ".join("'{0}': {0}".format(task["name"]) for task in tasks)
    play = {
        "name": "Tasks of a test",
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {
            "group/{0}.inventory_db".format(NAMESPACE): "{{ postgres_pools_inventory_db }}",
            "group/{0}.keys".format(NAMESPACE): "{{ postgres_pools_keys }}",
        },
        "vars": {"access": "{{ postgres_pools_inventory_db | combine(postgres_pools_keys) }}"},
        "tasks": [
            *tasks,
            {
                "name": "Hand it over",
                "ansible.builtin.copy": {"content": "{{ {%s} | to_json }}" % names, "dest": str(answer), "mode": "0600"},
                "no_log": True,
            },
        ],
    }
    playbook = scratch.temp / "tasks.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False, width=1000))
    Run([str(BIN / "ansible-playbook"), str(playbook)], scratch.base, scratch.temp).wait().succeeded()
    return dict(json.loads(answer.read_text()))


def module(given: str, action: str, **arguments: Any) -> Dict[str, Any]:
    return {"name": given, "{0}.{1}".format(NAMESPACE, action): arguments, "register": given}


def refused(task: Dict[str, Any]) -> Dict[str, Any]:
    """A task whose failure is looked at."""
    return dict(task, failed_when=False)


# --- lookups


def lookup(given: str, plugin: str, terms: str, more: str = "") -> Dict[str, Any]:
    """The answers of a lookup, or the message with which it failed."""
    asked = "{{ query('%s.%s', %s, **(access | combine({%s}))) }}" % (NAMESPACE, plugin, terms, more)
    failure = {"name": "Keep the message", "ansible.builtin.set_fact": {given: "{{ ansible_failed_result.msg }}"}}
    return {
        "name": given,
        "block": [{"name": "Ask", "ansible.builtin.set_fact": {given: asked}, "no_log": plugin == "connection"}],
        "rescue": [failure],
    }


@pytest.fixture(scope="module")
def looked_up(scratch: Environment) -> Dict[str, Any]:
    scratch.execute("UPDATE db_servers SET status = 'maintenance', status_reason = 'a new disk' WHERE name = %s", (DEDICATED,))
    try:
        return run(
            scratch,
            [
                lookup("both_plans", "pool", "'standard', 'premium'"),
                lookup("only_one", "pool", "'standard'", "'limit': 1, 'strategy': 'pack'"),
                lookup("no_such_plan", "pool", "'gold'"),
                lookup("no_such_strategy", "pool", "'standard'", "'strategy': 'random'"),
                lookup("its_connection", "connection", "'{0}'".format(SHARED["instance_id"].upper())),
                lookup("two_connections", "connection", "'{0}', '{1}'".format(LARGE["instance_id"], SHARED["instance_id"])),
                lookup("no_allocation", "connection", "'{0}'".format(NOBODY)),
                lookup("no_uuid", "connection", "'1; DROP TABLE db_servers'"),
                lookup("another_key", "connection", "'{0}'".format(SHARED["instance_id"]), "'secret_keys': ['%s']" % Fernet.generate_key().decode()),
                lookup("the_pool", "server", "'{0}'".format(POOL)),
                lookup("no_such_server", "server", "'{0}', 'postgres-pool-99'".format(POOL)),
                lookup("wrong_password", "server", "'{0}'".format(POOL), "'login_password': 'no'"),
            ],
        )
    finally:
        scratch.execute("UPDATE db_servers SET status = 'active', status_reason = NULL WHERE name = %s", (DEDICATED,))


def test_the_lookup_pool_tells_the_choice_and_its_reasons(looked_up: Dict[str, Any]) -> None:
    shared, dedicated = looked_up["both_plans"]
    assert (shared["plan_tier"], shared["placement"], shared["server"]) == ("standard", "shared", POOL)
    reasons = {row["server"]: row["reason"] for row in shared["considered"]}
    assert reasons[POOL] is None
    assert reasons[DEDICATED]
    assert (dedicated["placement"], dedicated["server"]) == ("dedicated", None)
    assert all(row["reason"] for row in dedicated["considered"])
    assert {row["server"] for row in dedicated["considered"]} == {POOL, DEDICATED}
    assert [row["server"] for row in looked_up["only_one"][0]["considered"]] == [POOL]
    assert "plan_tier 'gold' is unknown; db_plans has enterprise, free," in looked_up["no_such_plan"]
    assert "strategy" in looked_up["no_such_strategy"]


def test_the_lookup_connection_connects(scratch: Environment, looked_up: Dict[str, Any]) -> None:
    (found,) = looked_up["its_connection"]
    assert found["password"] == scratch.password(SHARED["instance_id"])
    assert (found["instance_id"], found["server"]) == (SHARED["instance_id"], POOL)
    with psycopg2.connect(found["dsn"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        assert cursor.fetchone() == (found["user"], found["database"])
    assert [row["server"] for row in looked_up["two_connections"]] == [DEDICATED, POOL]
    assert "Instance {0} has no active allocation".format(NOBODY) in looked_up["no_allocation"]
    assert "UUID" in looked_up["no_uuid"]
    assert "was encrypted with a key that is not among those given" in looked_up["another_key"]


def test_the_lookup_server_shows_no_secret(looked_up: Dict[str, Any]) -> None:
    (pool,) = looked_up["the_pool"]
    assert (pool["name"], pool["status"], pool["current_instances"], pool["max_instances"]) == (POOL, "active", 1, 50)
    assert not [column for column in pool if "password" in column]
    assert "There is no server 'postgres-pool-99'" in looked_up["no_such_server"]
    assert "lookup server: Cannot connect to database 'postgres_pools' on 127.0.0.1" in looked_up["wrong_password"]
    assert "password authentication failed" in looked_up["wrong_password"]


# --- inventory


def source(scratch: Environment, **options: Any) -> str:
    (scratch.temp / "password").write_text(scratch.secret("database_service") + "\n")
    (scratch.temp / "password").chmod(0o600)
    config = dict(
        plugin="{0}.servers".format(NAMESPACE),
        login_host="127.0.0.1",
        login_port="{{ lookup('ansible.builtin.env', 'THE_PORT') }}",
        login_password_file="password",
    )
    path = scratch.temp / "servers.postgres_pools.yml"
    path.write_text(yaml.safe_dump({key: value for key, value in dict(config, **options).items() if value is not None}))
    return str(path)


def listing(scratch: Environment, **options: Any) -> subprocess.CompletedProcess[str]:
    return ansible(
        scratch,
        "ansible-inventory",
        "--list",
        "-i",
        source(scratch, **options),
        THE_PORT=str(scratch.port_base),
        ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1",
    )


def plain(value: Any) -> Any:
    """What ansible-inventory prints, without its marks on texts that it would not take for templates."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe", {name: plain(one) for name, one in value.items()})
    return value


def test_servers_are_hosts(scratch: Environment) -> None:
    done = listing(scratch, client={"ansible_connection": "local", "who": "{{ inventory_hostname }}"})
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    groups = {name: set(group["hosts"]) for name, group in listed.items() if "hosts" in group}
    assert groups == {
        "postgres_pools": {POOL, DEDICATED},
        "postgres_pools_shared": {POOL},
        "postgres_pools_dedicated": {DEDICATED},
        "postgres_pools_active": {POOL},
        "postgres_pools_full": {DEDICATED},
    }
    for server in scratch.servers():
        host = plain(listed["_meta"]["hostvars"][server["name"]])
        assert (host["ansible_connection"], host["who"]) == ("local", "{{ inventory_hostname }}")
        assert {name: host["postgres_pools_server"][name] for name in ("name", "status", "port", "host")} == {
            name: server[name] for name in ("name", "status", "port", "host")
        }
        assert not [column for column in host["postgres_pools_server"] if "password" in column]
    for server in scratch.servers():
        for secret in (server["admin_password_encrypted"], scratch.secret("database_service")):
            assert secret not in done.stdout


def test_the_embedded_inventory_has_the_servers(scratch: Environment) -> None:
    beside = ("-i", "inventories/embedded", "-i", "inventories/servers.postgres_pools.yml")
    done = ansible(
        scratch, "ansible", "postgres_pools", *beside, "-m", "ansible.builtin.debug", "-a", "var=postgres_pools_server.port"
    )
    assert done.returncode == 0, done.stderr
    for server in scratch.servers():
        assert "{0} | SUCCESS".format(server["name"]) in done.stdout
        assert '"postgres_pools_server.port": {0}'.format(server["port"]) in done.stdout


def test_an_unreachable_inventory_database_is_skipped_where_that_is_asked_for(scratch: Environment) -> None:
    done = listing(scratch, unreachable="skip", login_port=scratch.port_base + 97)
    assert done.returncode == 0, done.stderr
    assert not [name for name in json.loads(done.stdout) if name.startswith("postgres_pools")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"login_port": 1}, "Cannot connect to database 'postgres_pools' on 127.0.0.1 port 1 as 'database_service'"),
        ({"login_password_file": None, "login_password": "wrong"}, "password authentication failed"),
        ({"login_password_file": "nowhere"}, "the password file cannot be read"),
        ({"login_db": "postgres"}, "inventory plugin servers: "),
        ({"unreachable": "perhaps"}, "perhaps"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_is_wrong_is_said(scratch: Environment, options: Dict[str, Any], message: str) -> None:
    done = listing(scratch, **options)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


# --- modules


def test_the_modules_server_and_server_info(scratch: Environment) -> None:
    name = "postgres-pool-plugins"
    before = scratch.dump()["tables"]["db_servers"]
    new = {"new_server": "{{ postgres_pools_new_server }}"}
    found = run(
        scratch,
        [
            dict(module("checked", "server", name=name, **new), check_mode=True, diff=True),
            refused(module("not_there", "server_info", name=name)),
            module("begun", "server", name=name, **new),
            module("again", "server", name=name, **new),
            refused(module("too_far", "server", name=name, state="active", lease="{{ begun.lease }}")),
            refused(module("not_its_lease", "server", name=name, state="initializing", lease=NOBODY)),
            module("given_up", "server", name=name, state="error", lease="{{ begun.lease }}", reason="the disk is not there"),
            module("given_up_again", "server", name=name, state="error", reason="the disk is not there"),
            refused(module("bad_name", "server", name="Postgres Pool", **new)),
            refused(module("no_template", "server", name="postgres-pool-other")),
            module("every", "server_info"),
            module("pools", "server_info", server_type="shared", status="active"),
            module("one", "server_info", name=POOL),
            module("reason", "server_info", name=name),
        ],
    )
    assert found["checked"]["changed"] and found["checked"]["server"]["status"] == "provisioning"
    assert found["checked"]["diff"]["before"] == {} and found["checked"]["diff"]["after"]["name"] == name
    assert "There is no server '{0}'".format(name) in found["not_there"]["msg"]
    assert found["begun"]["changed"] and found["begun"]["lease"]
    # Another maker is at work on it.
    assert not found["again"]["changed"] and found["again"]["lease"] is None
    for task in ("too_far", "not_its_lease", "bad_name", "no_template"):
        assert found[task]["msg"] and "Traceback" not in found[task]["msg"], task
    assert "provisioning" in found["too_far"]["msg"] and "active" in found["too_far"]["msg"]
    assert found["given_up"]["changed"] and found["given_up"]["server"]["status_reason"] == "the disk is not there"
    assert not found["given_up_again"]["changed"]
    assert [row["name"] for row in found["every"]["servers"]] == [POOL, DEDICATED, name]
    assert found["every"]["totals"] == {
        "pools": 2, "active": 1, "dedicated": 1, "capacity": 50, "used": 1, "utilization": 2.0
    }  # fmt: skip
    assert [row["name"] for row in found["pools"]["servers"]] == [POOL]
    assert [tenant["instance_id"] for tenant in found["one"]["servers"][0]["tenants"]] == [SHARED["instance_id"]]
    assert "tenants" not in found["every"]["servers"][0]
    assert found["reason"]["servers"][0]["status_reason"] == "the disk is not there"
    for row in found["every"]["servers"]:
        assert not [column for column in row if "password" in column]
    scratch.execute("DELETE FROM db_servers WHERE name = %s", (name,))
    assert scratch.dump()["tables"]["db_servers"] == before


def test_the_module_allocation_info(scratch: Environment) -> None:
    gone = instances(1)[0]
    both = [LARGE["instance_id"], SHARED["instance_id"]]
    found = run(
        scratch,
        [
            module("reserved", "allocation", allocations=[gone], state="reserved"),
            module("live", "allocation_info", instance_ids=[gone["instance_id"], NOBODY]),
            module("plain", "allocation_info", instance_ids=both),
            dict(module("secret", "allocation_info", instance_ids=both, credentials=True), no_log=True),
            module("unfinished", "allocation_info", instance_ids=[gone["instance_id"]], credentials=True),
            refused(module("no_uuid", "allocation_info", instance_ids=["x"])),
            refused(module("no_key", "allocation_info", instance_ids=both, credentials=True, secret_key_file="/nowhere")),
        ],
    )
    assert [row["status"] for row in found["live"]["allocations"]] == ["reserved"]
    assert not found["live"]["changed"]
    for row in found["plain"]["allocations"]:
        assert "connections" not in found["plain"]
        assert not [column for column in row if "password" in column]
    assert {row["instance_id"]: row["password"] for row in found["secret"]["connections"]} == {
        instance: scratch.password(instance) for instance in both
    }
    # A reservation has a password, but no database yet that one could connect to.
    assert found["unfinished"]["connections"] == []
    assert "UUID" in found["no_uuid"]["msg"]
    assert "/nowhere" in found["no_key"]["msg"]
    scratch.execute("UPDATE db_allocations SET status = 'expired' WHERE instance_id = %s", (gone["instance_id"],))
    history = run(
        scratch,
        [
            module("live", "allocation_info", instance_ids=[gone["instance_id"]]),
            module("history", "allocation_info", instance_ids=[gone["instance_id"]], history=True),
        ],
    )
    assert history["live"]["allocations"] == []
    assert [row["status"] for row in history["history"]["allocations"]] == ["expired"]


def works(found: Dict[str, Any], password: str) -> bool:
    try:
        connect(found["host"], found["port"], found["database"], found["user"], password).close()
    except psycopg2.OperationalError as error:
        assert "password authentication failed" in str(error)
        return False
    return True


@pytest.mark.parametrize("given", [False, True], ids=["before the server had it", "after the server had it"])
def test_an_interrupted_rotation_of_a_password_is_finished_with_the_same_password(scratch: Environment, given: bool) -> None:
    instance = SHARED["instance_id"]
    old = scratch.password(instance)
    assert old
    tasks = [
        dict(module("checked", "allocation_password", instance_ids=[instance]), check_mode=True),
        module("prepared", "allocation_password", instance_ids=[instance]),
        module("again", "allocation_password", instance_ids=[instance]),
        module("where", "allocation_info", instance_ids=[instance]),
    ]
    if given:
        tasks.append(module("handed", "tenant_database", databases="{{ prepared.tenant_databases }}"))
    found = run(scratch, tasks)
    assert found["checked"]["changed"] and found["prepared"]["changed"] and not found["again"]["changed"]
    place = found["where"]["allocations"][0]
    (row,) = scratch.rows("SELECT * FROM db_allocations WHERE instance_id = %s AND status = 'active'", (instance,))
    new = scratch.cipher().decrypt(row["next_password_encrypted"], instance)
    assert scratch.password(instance) == old != new
    assert (works(place, old), works(place, new)) == (not given, given)

    outcome = scratch.play("rotate_password", {"instance_id": instance}).succeeded()
    assert new not in outcome.output and old not in outcome.output
    assert scratch.password(instance) == new
    assert (works(place, old), works(place, new)) == (False, True)
    (row,) = scratch.rows("SELECT * FROM db_allocations WHERE instance_id = %s AND status = 'active'", (instance,))
    assert row["next_password_encrypted"] is None
    # Young enough to be left alone.
    assert scratch.play("rotate_password", {"instance_id": instance, "max_age_days": 1}).succeeded().changed == 0
    assert scratch.password(instance) == new


def tokens(scratch: Environment) -> Iterator[str]:
    for table, column in (
        ("db_servers", "admin_password_encrypted"),
        ("db_allocations", "password_encrypted"),
        ("db_allocations", "next_password_encrypted"),
    ):
        for row in scratch.rows("SELECT {1} AS token FROM {0} WHERE {1} IS NOT NULL".format(table, column)):
            yield row["token"]


def test_keys_are_rotated_and_the_old_one_is_needed_no_more(scratch: Environment) -> None:
    key_file = scratch.state / "secrets" / "keys"
    old = scratch.secret("keys").split()
    passwords = {one["instance_id"]: scratch.password(one["instance_id"]) for one in (SHARED, LARGE)}
    # One rotation of a password is under way.
    run(scratch, [module("prepared", "allocation_password", instance_ids=[LARGE["instance_id"]])])

    outcome = scratch.play("rotate_keys", {"new_key": True}).succeeded()
    keys = scratch.secret("keys").split()
    assert keys[1:] == old and keys[0] not in old
    assert not [key for key in keys if key in outcome.output]
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert scratch.play("rotate_keys").succeeded().changed == 0

    key_file.write_text(keys[0] + "\n")
    assert len(list(tokens(scratch))) >= 5
    for token in tokens(scratch):
        Cipher([keys[0]]).decrypt(token, "a row")
        with pytest.raises(PoolsError):
            Cipher(old).decrypt(token, "a row")
    found = run(scratch, [lookup("after", "connection", ", ".join("'{0}'".format(one) for one in passwords))])
    assert {row["instance_id"]: row["password"] for row in found["after"]} == passwords
    assert all(works(row, row["password"]) for row in found["after"])
    # Also where a new tenant needs the administrator's password of a pool.
    scratch.play("allocate", instances(1)[0]).succeeded()

    key_file.write_text(old[0] + "\n")
    lost = scratch.play("rotate_keys")
    assert lost.rc != 0 and "was encrypted with a key that is not among those given" in lost.output
    assert "Traceback" not in lost.output
    key_file.write_text("\n".join(keys) + "\n")

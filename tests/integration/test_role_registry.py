# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What works on the inventory database alone, each on its own: the roles pool_listing, key_rotation and inventory_db, and the modules
inventory_schema and secret_rotation. Its servers are rows only."""

from __future__ import annotations

import contextlib
import json
import stat
import uuid
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _lifecycle, _making, _placement
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from ansible_collections.saasodoo.postgres_pools.plugins.modules import inventory_schema
from cryptography.fernet import Fernet
from environment import Environment, connect, environment, rows
from registry_fixture import NEW_SERVER, migrations
from role_fixture import Call, Task, fact_of, guarded, inventory, module, refused, role, run, unchanged

INSTANCE = str(uuid.uuid4())
REASON = "the disk is full"
ANOTHER = "another_inventory"
ENCRYPTED = (
    ("db_servers", "admin_password_encrypted"),
    ("db_allocations", "password_encrypted"),
    ("db_allocations", "next_password_encrypted"),
    ("db_authorities", "private_key_encrypted"),
)
ADMIN = {"login_" + name: "{{ inventory_db_admin.login_%s }}" % name for name in ("host", "port", "user", "password")}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    """A pool in the making with a place reserved on it, and one in error."""
    with environment() as made:
        made.ready()
        ports = {"first_port": made.port_base + 1, "last_port": made.port_base + 19}
        new = _making.NewServer.from_options(dict(NEW_SERVER, **ports))
        with inventory(made) as registry:
            request = _placement.Request(INSTANCE, str(uuid.uuid4()), "standard")
            _placement.place(registry, made.cipher(), request, registry.plans()["standard"], _placement.Policy(new_server=new))
            with registry.transaction():
                registry.lock_placement()
                _making.make_server(registry, made.cipher(), new, "shared", name="postgres-pool-broken")
            _lifecycle.step_server(registry, "postgres-pool-broken", "error", None, 60, {"status_reason": REASON})
        made.execute("UPDATE db_allocations SET next_password_encrypted = %s", (made.cipher().encrypt("the next one"),))
        yield made


def test_what_cannot_be_is_refused_and_nothing_is_touched(scratch: Environment) -> None:
    def listing(*says: str, **given: Any) -> Call:
        return Call("pool_listing", given, says)

    def keys(*says: str, **given: Any) -> Call:
        return Call("key_rotation", given, says)

    def schema(*says: str, **given: Any) -> Call:
        return Call("inventory_db", given, says)

    login = {"login_host": "127.0.0.1", "login_port": scratch.port_base, "login_password": scratch.secret("inventory_admin")}
    refused(
        scratch,
        {
            "an unknown server": listing("There is no server 'postgres-pool-99'", server="postgres-pool-99"),
            "a name that is none": listing("'Pool 1' cannot be a server's name", server="Pool 1"),
            "an unknown status": listing("value of status must be one of: provisioning.* got: splendid", status="splendid"),
            "an unknown type": listing("value of server_type must be one of: .* got: private", server_type="private"),
            "a file nowhere": listing("/nonexistent/directory/pools.json cannot be written", result_file="/nonexistent/directory/pools.json"),
            "perhaps a new key": keys("key_rotation_new_key.*bool", new_key="perhaps"),
            "a new key and no file": keys("new_key needs postgres_pools_keys.secret_key_file", new_key=True),
            "a new key for a file nowhere": keys("/nonexistent/keys", new_key=True, key_file="/nonexistent/keys"),
            "an unknown state of the schema": schema("inventory_db_state must be one of: present, absent", state="gone"),
            "a version of letters": schema("inventory_db_version.*int", version="two"),
            "a server without its path": schema("path.* found in inventory_db_server", server={"port": 1, "admin_password": "x"}),
            "a stranger's login": schema("rejects connection for .*stranger", admin=dict(login, login_user="stranger")),
        },
    )


# --- pool_listing


def test_pool_listing_tells_and_writes_what_there_is(scratch: Environment) -> None:
    path = scratch.home / "pools.json"
    every = role("pool_listing", result_file=str(path))
    before = scratch.dump()
    checked = run(scratch, [every], "--check").succeeded()
    assert checked.changed == 0 and len(checked.stats["servers"]) == 2 and not path.exists()
    unchanged(scratch, before)

    # The file is the only thing that changes, once.
    outcome = run(scratch, [every, every]).succeeded()
    assert outcome.changed == 1 and stat.S_IMODE(path.stat().st_mode) == 0o600
    told = json.loads(path.read_text())
    assert set(told) == {"status", "servers", "totals", "growth"} and told["totals"] == {
        "pools": 2, "active": 0, "dedicated": 0, "capacity": 0, "used": 0, "utilization": 0
    }  # fmt: skip
    pool, broken = told["servers"]
    assert (pool["name"], pool["status"], pool["current_instances"], pool["max_instances"]) == ("postgres-pool-1", "provisioning", 1, 50)
    assert (broken["status"], broken["status_reason"]) == ("error", REASON)
    assert "postgres-pool-broken (shared): error, unknown, 0 of 50 at 127.0.0.1:{0} - {1}".format(broken["port"], REASON) in outcome.output
    assert "password" not in path.read_text() and "lease_holder" not in path.read_text()
    unchanged(scratch, before)


def test_pool_listing_leaves_out_what_is_not_asked_for(scratch: Environment) -> None:
    asked: Dict[str, Dict[str, str]] = {
        "one": {"server": "postgres-pool-1"},
        "by_status": {"status": "error", "server_type": "shared"},
        "nothing": {"server_type": "dedicated"},
    }
    result = "{{ {'names': pool_listing_found.servers | map(attribute='name'), 'pools': pool_listing_found.totals.pools} }}"
    tasks = [task for fact, given in asked.items() for task in (role("pool_listing", **given), fact_of(fact, result))]
    outcome = run(scratch, tasks, tells={fact: "{{ %s }}" % fact for fact in asked}).succeeded()
    assert {fact: outcome.stats[fact] for fact in asked} == {
        "one": {"names": ["postgres-pool-1"], "pools": 1},
        "by_status": {"names": ["postgres-pool-broken"], "pools": 1},
        "nothing": {"names": [], "pools": 0},
    }
    # Only one that is asked for by its name is shown whole.
    assert INSTANCE in outcome.output


# --- key_rotation and secret_rotation


def tokens(scratch: Environment) -> List[str]:
    return [
        row["token"]
        for table, column in ENCRYPTED
        for row in scratch.rows("SELECT {1} AS token FROM {0} WHERE {1} IS NOT NULL ORDER BY id".format(table, column))
    ]


def clear(scratch: Environment) -> List[str]:
    return [scratch.cipher().decrypt(token, "a row") for token in tokens(scratch)]


def opened_by(key: str, found: List[str]) -> int:
    count = 0
    for token in found:
        with contextlib.suppress(Exception):
            Cipher([key]).decrypt(token, "a row")
            count += 1
    return count


def rotated(servers: int, passwords: int, next_passwords: int) -> Dict[str, int]:
    return dict(zip((".".join(one) for one in ENCRYPTED), (servers, passwords, next_passwords, 0)))


def test_key_rotation_puts_a_new_key_first_and_encrypts_all_with_it(scratch: Environment) -> None:
    key_file = scratch.state / "secrets" / "keys"
    (old,), passwords = scratch.secret("keys").split(), clear(scratch)
    again = role("key_rotation")
    renew = role("key_rotation", new_key=True, key_file=str(key_file))
    before = scratch.dump()
    run(scratch, [renew], "--check", "--diff").succeeded()
    unchanged(scratch, before)

    outcome = run(scratch, [renew, fact_of("first", "{{ key_rotation_done.rotated }}"), again], tells={"first": "{{ first }}"})
    # The file and the rows; the second time there is nothing left.
    assert outcome.succeeded().changed == 2
    assert (outcome.stats["first"], outcome.stats["status"]) == (rotated(2, 1, 1), "rotated")
    new, kept = scratch.secret("keys").split()
    assert kept == old != new and stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert opened_by(new, tokens(scratch)) == 4 and opened_by(old, tokens(scratch)) == 0
    assert clear(scratch) == passwords
    assert new not in outcome.output and old not in outcome.output


def test_secret_rotation_is_all_or_nothing(scratch: Environment) -> None:
    """The module secret_rotation: a prediction, a row that no key opens, and the work."""
    newest = Fernet.generate_key().decode()
    given = [newest, *scratch.secret("keys").split()]
    before, tokens_before = scratch.dump(), tokens(scratch)
    predicted = dict(module("secret_rotation", "predicted", secret_keys=given, secret_key_file=None), check_mode=True, diff=True)
    tells = {"predicted": "{{ {'changed': predicted.changed, 'rotated': predicted.rotated, 'diff': predicted.diff.after} }}"}
    only = module("secret_rotation", "stranger", secret_keys=[newest])
    lost = module("secret_rotation", "lost", secret_keys=[], secret_key_file="/nonexistent/keys")
    outcome = guarded(scratch, {"stranger": only, "no_key": lost}, predicted, tells=tells)
    assert outcome.stats["predicted"] == {"changed": True, "rotated": rotated(2, 1, 1), "diff": rotated(2, 1, 1)}
    assert "encrypted with a key that is not among those given" in outcome.stats["stranger"]
    assert "/nonexistent/keys cannot be read" in outcome.stats["no_key"]
    assert newest not in outcome.output
    unchanged(scratch, before)

    (last,) = scratch.rows("SELECT next_password_encrypted AS token FROM db_allocations")
    set_last = "UPDATE db_allocations SET next_password_encrypted = %s"
    scratch.execute(set_last, (Cipher([Fernet.generate_key().decode()]).encrypt("x"),))
    # The servers' passwords come before the row that cannot be opened, and are as they were all the same.
    work = module("secret_rotation", "work", secret_keys=given)
    told = guarded(scratch, {"work": work}).stats["work"]
    assert "instance {0} was encrypted with a key that is not among those given".format(INSTANCE) in told
    assert tokens(scratch)[:-1] == tokens_before[:-1]
    scratch.execute(set_last, (last["token"],))
    assert run(scratch, [work, work]).succeeded().changed == 1
    assert opened_by(newest, tokens(scratch)) == 4
    # Back to the keys of the file, for the tests after this one.
    (scratch.state / "secrets" / "keys").write_text("\n".join(given) + "\n")


# --- inventory_db and inventory_schema


def test_inventory_db_makes_a_second_one_and_takes_it_from_version_to_version(scratch: Environment) -> None:
    labels = [one.label for one in migrations()]

    def another(**more: Any) -> Task:
        return role("inventory_db", name=ANOTHER, server={}, secret_key_file="", **more)

    result = "{{ {'version': inventory_db_schema.version, 'up': inventory_db_schema.applied, 'down': inventory_db_schema.rolled_back} }}"

    before = scratch.dump()
    databases = "SELECT datname FROM pg_database ORDER BY 1"
    names = scratch.rows(databases)
    assert run(scratch, [another(version=1)], "--check").succeeded().changed == 1
    assert scratch.rows(databases) == names
    unchanged(scratch, before)

    facts = ("newest", "again", "back", "gone")
    steps = [another(), another(), another(version=1), another(state="absent")]
    tasks = [task for step, fact in zip(steps, facts) for task in (step, fact_of(fact, result))]
    outcome = run(scratch, tasks, tells={fact: "{{ %s }}" % fact for fact in facts})
    # The database, and the schema three times; the service role is there already.
    assert outcome.succeeded().changed == 4
    newest = len(labels)
    assert {fact: outcome.stats[fact] for fact in facts} == {
        "newest": {"version": newest, "up": labels, "down": []},
        "again": {"version": newest, "up": [], "down": []},
        "back": {"version": 1, "up": [], "down": labels[:0:-1]},
        "gone": {"version": 0, "up": [], "down": labels[:1]},
    }


ONE = {"0001_one.up.sql": "CREATE TABLE one (id int)", "0001_one.down.sql": "DROP TABLE one"}
TWO = dict(ONE, **{"0002_two.up.sql": "CREATE TABLE two (id int)", "0002_two.down.sql": "DROP TABLE two"})
BAD = dict(TWO, **{"0003_bad.up.sql": "CREATE TABLE bad (id int); SELECT 1 / 0", "0003_bad.down.sql": "DROP TABLE bad"})
GRANTS = "GRANT SELECT ON one TO {service}"


def test_inventory_schema_through_ansible(scratch: Environment) -> None:
    """The module inventory_schema with scripts of somebody else's, in a database of its own."""
    scratch.execute("CREATE DATABASE somebody_elses")

    def schema(register: str, **more: Any) -> Task:
        return module("inventory_schema", register, **dict(dict(ADMIN, login_db="somebody_elses", migrations=TWO, grants=GRANTS), **more))

    names = ("pending", "up", "again", "down")
    tasks = [dict(schema("pending"), check_mode=True, diff=True), schema("up"), schema("again"), schema("down", version=1)]
    tells = {name: "{{ %s | dict2items | rejectattr('key', 'in', ['failed']) | items2dict }}" % name for name in names}
    found = run(scratch, tasks, tells=tells).succeeded().stats
    assert found["pending"]["diff"] == {
        "before": {"version": 0},
        "after": {"version": 2, "applied": ["0001_one", "0002_two"], "rolled_back": [], "granted": False},
    }
    keys = ("changed", "version", "applied", "rolled_back", "granted")
    assert {name: [found[name][key] for key in keys] for name in names} == {
        "pending": [True, 0, ["0001_one", "0002_two"], [], False],
        "up": [True, 2, ["0001_one", "0002_two"], [], True],
        "again": [False, 2, [], [], False],
        "down": [True, 1, [], ["0002_two"], False],
    }
    failed = guarded(scratch, {"failing": schema("failing", migrations=BAD)}).stats["failing"]
    assert failed == "Migration 0003_bad failed and was undone: division by zero."


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"migrations": {name.replace("0001", "0002"): script for name, script in ONE.items()}}, "Migration 0001 is missing"),
        ({"migrations": dict(ONE, **{"three.sql": "SELECT 1"})}, "'three.sql' is not a migration's name"),
        ({"migrations": dict(ONE, **{"0001_other.up.sql": "SELECT 1"})}, "Two migrations have the number 0001"),
        ({"migrations": {"0001_one.up.sql": ONE["0001_one.up.sql"]}}, "Migration 0001 is missing, or its way up or down is"),
        ({"migrations": dict(TWO, **{"0001_one.up.sql": "CREATE TABLE one (id bigint)"})}, "Migration 0001_one was changed after it was applied"),
        ({"migrations": ONE}, "has migration 0002_two, which this release does not know"),
        ({"version": 3}, "There is no schema version 3; there are 0 to 2"),
        ({"grants": GRANTS, "service_role": "nobody_at_all"}, "The privileges of 'nobody_at_all' or the platform's table could not be settled"),
        ({"login_db": "nowhere"}, 'database "nowhere" does not exist'),
        ({"login_password": "wrong"}, "password authentication failed"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_inventory_schema_refuses(scratch: Environment, given: Dict[str, Any], says: str) -> None:
    """In this process, since only what the module answers is looked at; on a database that the test before left at version 2."""
    password = scratch.secret("inventory_admin")
    login = {"login_host": "127.0.0.1", "login_port": scratch.port_base, "login_user": "postgres", "login_password": password}
    rest = {"login_db": "somebody_elses", "ssl_mode": "prefer", "connect_params": {}, "migrations": TWO, "version": None, "grants": ""}
    params = dict(login, **rest, service_role="database_service", discard=False, login_unix_socket="", ca_cert=None, ssl_cert=None, ssl_key=None)
    with pytest.raises(PoolsError) as refusal:
        inventory_schema.bring(dict(params, **given), check_mode=False)
    assert says in str(refusal.value)
    with contextlib.closing(connect("127.0.0.1", scratch.port_base, "somebody_elses", "postgres", password)) as connection:
        assert rows(connection, "SELECT version FROM db_schema_versions ORDER BY 1") == [{"version": 1}, {"version": 2}]

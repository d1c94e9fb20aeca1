# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema on each PostgreSQL that is to be had: up, down, and what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import uuid

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _lifecycle, _schema
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import SCHEMA_VERSION, Inventory
from registry_fixture import FILES, SERVICE, bin_dirs, migrations, registry_server

SERVER_STATES = [
    "provisioning",
    "initializing",
    "active",
    "full",
    "maintenance",
    "error",
    "deprovisioning",
    "deprovisioned",
]
SERVER_STEPS = {
    ("provisioning", "initializing"), ("initializing", "active"), ("active", "full"), ("full", "active"), ("active", "maintenance"),
    ("full", "maintenance"), ("maintenance", "active"), ("error", "active"), ("error", "deprovisioning"), ("maintenance", "deprovisioning"),
    ("deprovisioning", "deprovisioned"), ("provisioning", "error"), ("initializing", "error"), ("active", "error"), ("full", "error"),
    ("maintenance", "error"), ("deprovisioning", "error"),
}  # fmt: skip
ALLOCATION_STATES = ["reserved", "active", "migrating", "releasing", "released", "expired"]
ALLOCATION_STEPS = {
    ("reserved", "active"), ("reserved", "expired"), ("active", "migrating"), ("migrating", "active"), ("active", "releasing"),
    ("releasing", "released"),
}  # fmt: skip
MOVE_STATES = ["planned", "preparing", "copying", "verifying", "cutover", "completed", "rolled_back"]
MOVE_STEPS = set(zip(MOVE_STATES, MOVE_STATES[1:6])) | {(state, "rolled_back") for state in MOVE_STATES[:6]}


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def registries(request):
    with registry_server(request.param) as make:
        yield make


@pytest.fixture
def registry(registries):
    return registries()


def schema_of(registry, scripts=None):
    return _schema.Schema(registry.admin(), migrations() if scripts is None else scripts)


def shape(registry):
    """Every relation, function and trigger, so that what goes down is seen to be gone."""
    return registry.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION ALL"
        " SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace UNION ALL"
        " SELECT tgrelid::regclass || '.' || tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    )


def test_down_to_nothing_and_up_again_gives_the_same(registry):
    schema = schema_of(registry)
    before = shape(registry)
    schema.run(*schema.pending(0))
    assert schema.version() == 0
    assert shape(registry) == [("db_schema_versions",), ("db_schema_versions_pkey",)]
    schema.run(*schema.pending(None))
    assert shape(registry) == before


def test_a_server_carries_all_that_an_operator_asks_of_it(registry):
    asked = (
        "name host port server_type max_instances swarm_service_id swarm_service_name node_placement status health_status last_health_check"
        " health_check_failures cpu_limit memory_limit_bytes storage_path storage_budget_bytes postgres_version postgres_image admin_user"
        " allocation_strategy priority dedicated_customer_id dedicated_instance_id created_at created_by updated_at updated_by"
    )
    columns = registry.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'db_servers'")
    assert set(asked.split()) <= {name for (name,) in columns}
    tables = registry.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    kept = {"db_servers", "db_allocations", "db_plans", "db_tenant_migrations", "db_health_checks", "db_events", "db_schema_versions"}
    assert kept <= {name for (name,) in tables}


def test_nothing_is_pending_once_it_is_up(registry):
    assert schema_of(registry).pending(None) == ([], [])


def test_a_script_that_was_changed_after_it_ran_is_refused(registry):
    scripts = [_schema.Migration(one.version, one.name, one.up + "-- changed", one.down) for one in migrations()]
    with pytest.raises(PoolsError, match="0001_registry was changed after it was applied"):
        schema_of(registry, scripts).pending(None)


def test_a_database_of_a_later_release_is_left_alone(registry):
    with pytest.raises(PoolsError, match="which this release does not know"):
        schema_of(registry, migrations()[:1]).pending(None)


@pytest.mark.parametrize("version", [-1, SCHEMA_VERSION + 1, 99])
def test_a_version_that_is_not_there_is_refused(registry, version):
    with pytest.raises(PoolsError, match="There is no schema version"):
        schema_of(registry).pending(version)


def test_a_script_that_fails_leaves_nothing_and_the_next_run_goes_on(registry):
    good = migrations()
    half = _schema.Migration(SCHEMA_VERSION + 1, "half", "CREATE TABLE half (id int); SELECT 1/0;", "DROP TABLE half")
    schema = schema_of(registry, good + [half])
    with pytest.raises(PoolsError, match="{0}_half failed and was undone: division by zero".format("%04d" % (SCHEMA_VERSION + 1))):
        schema.run(*schema.pending(None))
    assert schema.version() == SCHEMA_VERSION and registry.query("SELECT to_regclass('half')") == [(None,)]
    mended = schema_of(registry, good + [_schema.Migration(SCHEMA_VERSION + 1, "half", "CREATE TABLE half (id int)", "DROP TABLE half")])
    mended.run(*mended.pending(None))
    assert mended.version() == SCHEMA_VERSION + 1


def test_going_down_refuses_to_forget_servers(registry):
    registry.pool("kept")
    schema = schema_of(registry)
    _up, down = schema.pending(0)
    with pytest.raises(PoolsError, match="holds 0 allocations and 1 servers"):
        schema.check_discardable(down)
    schema.check_discardable(schema.pending(1)[1])


@pytest.mark.parametrize(
    "version, told",
    [(0, "has no schema|schema version 0"), (1, "has schema version 1, this code needs {0}".format(SCHEMA_VERSION)), (2, "has schema version 2")],
)
def test_code_of_another_version_stops_before_it_touches_anything(registry, version, told):
    schema = schema_of(registry)
    schema.run(*schema.pending(version))
    with pytest.raises(PoolsError, match=told):
        registry.open()


def test_an_empty_database_says_which_playbook_to_run(registry):
    registry.query("DROP TABLE db_schema_versions CASCADE")
    with pytest.raises(PoolsError, match=r"has no schema\. Run playbooks/inventory_db\.yml"):
        registry.open()


def refused(registry, statement, arguments):
    with contextlib.closing(registry.admin()) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(statement, arguments)
        except psycopg2.errors.CheckViolation as error:
            return "may not go from" in str(error)
        return False


def set_without_rules(registry, table, state):
    """Put every row of a table into a state by force, to try each step from it."""
    registry.query(
        "ALTER TABLE {0} DISABLE TRIGGER USER; UPDATE {0} SET status = '{1}'; ALTER TABLE {0} ENABLE TRIGGER USER".format(
            table, state
        )
    )


@pytest.mark.parametrize(
    "table, states, steps",
    [
        ("db_servers", SERVER_STATES, SERVER_STEPS),
        ("db_allocations", ALLOCATION_STATES, ALLOCATION_STEPS),
        ("db_tenant_migrations", MOVE_STATES, MOVE_STEPS),
    ],
)
def test_every_step_of_each_state_machine(registry, table, states, steps):
    registry.pool("one", places=2)
    registry.pool("two", places=1)
    allocation = registry.place(making=False)
    registry.query("UPDATE db_allocations SET status = 'active'")
    registry.query(
        "INSERT INTO db_tenant_migrations (allocation_id, source_server_id, target_server_id, mode)"
        " SELECT %s, a.id, b.id, 'dump' FROM db_servers a, db_servers b WHERE a.name = 'one' AND b.name = 'two'",
        (allocation["allocation_id"],),
    )
    # Here each step is tried with a tenant on the server; what an emptied one may do has a test of its own.
    registry.query("ALTER TABLE db_servers DROP CONSTRAINT IF EXISTS db_servers_emptied_first")
    # What follows each forced state has tests of its own.
    alone = (
        "ALTER TABLE db_allocations DISABLE TRIGGER count_step, DISABLE TRIGGER a_refuse_unmoved; ALTER TABLE db_servers DISABLE TRIGGER b_follow_count;"
        " ALTER TABLE db_tenant_migrations DISABLE TRIGGER b_check_step, DISABLE TRIGGER follow_step"
    )
    for before, after in itertools.product(states, states):
        set_without_rules(registry, table, before)
        registry.query(alone)
        statement = "UPDATE {0} SET status = %s".format(table)
        assert refused(registry, statement, (after,)) is (before != after and (before, after) not in steps), (
            before,
            after,
        )


@pytest.mark.parametrize("state", SERVER_STATES[1:])
def test_a_server_begins_in_provisioning(registry, state):
    registry.pool("one", status="provisioning")
    columns = "server_type, backend, host, max_instances, connection_budget, storage_budget_bytes, cpu_limit, memory_limit_bytes"
    statement = "INSERT INTO db_servers (name, port, status, {0}) SELECT 'two', 1, %s, {0} FROM db_servers".format(
        columns
    )
    assert refused(registry, statement, (state,))
    assert not refused(registry, statement, ("provisioning",))


def test_a_server_is_emptied_before_it_is_deprovisioned(registry):
    registry.pool("one", places=2)
    allocation = registry.place(making=False)
    registry.query("UPDATE db_servers SET status = 'maintenance'")
    with pytest.raises(psycopg2.errors.CheckViolation, match="db_servers_emptied_first"):
        registry.query("UPDATE db_servers SET status = 'deprovisioning'")
    registry.query("UPDATE db_allocations SET status = 'expired' WHERE id = %s", (allocation["allocation_id"],))
    for state in ("deprovisioning", "deprovisioned"):
        registry.query("UPDATE db_servers SET status = '{0}'".format(state))


def test_full_and_active_follow_the_count(registry):
    registry.pool("one", places=1)
    allocation = registry.place(making=False)
    status = "SELECT status, current_instances FROM db_servers"
    assert registry.query(status) == [("full", 1)]
    registry.query("UPDATE db_servers SET status = 'maintenance'")
    registry.query("UPDATE db_servers SET status = 'active'")
    assert registry.query(status) == [("full", 1)]
    with registry.open() as inventory:
        ids = [allocation["instance_id"]]
        assert _lifecycle.activate(inventory, ids) == ids and _lifecycle.activate(inventory, ids) == []
        assert _lifecycle.begin_release(inventory, ids) == ids and _lifecycle.begin_release(inventory, ids) == []
        assert registry.query(status) == [("full", 1)]
        assert (
            _lifecycle.finish_release(inventory, ids, 0) == ids and _lifecycle.finish_release(inventory, ids, 0) == []
        )
        assert registry.query(status + " WHERE promised_connections = 0 AND promised_storage_bytes > 0") == [
            ("active", 0)
        ]
        due = _lifecycle.due_for_drop(inventory, ids)
        assert _lifecycle.dropped(inventory, [due[0]["allocation_id"]]) == 1
    assert registry.query("SELECT promised_storage_bytes FROM db_servers") == [(0,)]


def test_the_event_log_tells_who_did_what_in_order(registry):
    registry.pool("one", places=1)
    allocation = registry.place(making=False)
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [allocation["instance_id"]])
    kinds = [kind for kind, unused in registry.query("SELECT kind, happened_at FROM db_events ORDER BY happened_at")]
    assert kinds[:3] == ["server.provisioning", "server.initializing", "server.active"]
    # A reservation is written down at its first step, as of the moment it was made.
    assert set(kinds[3:5]) == {"allocation.reserved", "server.full"} and kinds[5:] == ["allocation.active"]
    assert registry.query("SELECT count(*) FROM db_events WHERE actor LIKE '%@%'") == [(6,)]


def test_the_way_down_and_up_again_keeps_one_event_of_each_reservation(registry):
    registry.pool("one", places=3)
    for _unused in range(2):
        registry.place(making=False)
    reserved = "SELECT count(*) FROM db_events WHERE kind = 'allocation.reserved'"
    scripts = [FILES / "migrations" / "0007_decisions.{0}.sql".format(way) for way in ("down", "up")]
    assert registry.query(reserved) == [(0,)]
    registry.query(scripts[0].read_text())
    assert registry.query(reserved) == [(2,)]
    registry.query(scripts[1].read_text())
    registry.query("UPDATE db_allocations SET status = 'expired'")
    assert registry.query(reserved) == [(2,)]


def test_the_service_role_owns_nothing_and_cannot_touch_a_counter_or_delete(registry):
    assert registry.query("SELECT count(*) FROM pg_class WHERE relowner = %s::regrole", (SERVICE,)) == [(0,)]
    registry.pool("one")
    with registry.open() as inventory:
        for statement in (
            "UPDATE db_servers SET current_instances = 0",
            "UPDATE db_servers SET promised_connections = 0",
            "DELETE FROM db_servers",
            "DELETE FROM db_allocations",
            "DELETE FROM db_events",
            "UPDATE db_events SET kind = 'nothing'",
            "UPDATE db_plans SET connections = 1000",
            "INSERT INTO db_state_transitions VALUES ('server', 'full', 'deprovisioned')",
            "DELETE FROM db_schema_versions",
            "CREATE TABLE mine (id int)",
            "ALTER TABLE db_servers DISABLE TRIGGER USER",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                inventory.execute(statement)
        assert inventory.execute("UPDATE db_servers SET priority = 7") == 1


def test_granting_again_changes_nothing_and_mends_what_was_taken(registry):
    schema, grants = schema_of(registry), (FILES / "grants.sql").read_text()
    schema.grant(grants, SERVICE, dry_run=False)
    assert schema.grant(grants, SERVICE, dry_run=False) is False
    registry.query("REVOKE SELECT ON db_plans FROM {0}".format(SERVICE))
    assert schema.grant(grants, SERVICE, dry_run=True) is True
    assert schema.grant(grants, SERVICE, dry_run=False) is True
    assert schema.grant(grants, SERVICE, dry_run=False) is False


@pytest.mark.parametrize("key", ["uuid", "text", "varchar(36)"])
def test_the_platforms_table_of_instances_learns_where_each_database_lies(registry, key):
    schema = schema_of(registry)
    schema.run(*schema.pending(1))
    instance = str(uuid.uuid4())
    registry.query(
        "CREATE TABLE instances (id {0} PRIMARY KEY, name text); INSERT INTO instances VALUES ('{1}', 'shop')".format(
            key, instance
        )
    )
    schema.run(*schema.pending(None))
    schema.grant((FILES / "grants.sql").read_text(), SERVICE, dry_run=False)
    registry.pool("one")
    allocation = registry.place(making=False, instance=instance)
    told = "SELECT s.name, i.plan_tier, requires_dedicated_db FROM instances i LEFT JOIN db_servers s ON s.id = i.db_server_id"
    assert registry.query(told) == [(None, None, False)]
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [allocation["instance_id"]])
        assert registry.query(told) == [("one", "standard", False)]
        _lifecycle.begin_release(inventory, [instance])
        assert registry.query(told) == [(None, "standard", False)]
    schema.run(*schema.pending(1))
    assert registry.query("SELECT * FROM instances") == [(instance, "shop")]


@pytest.mark.parametrize("key", ["uuid", "text"])
def test_a_platforms_table_that_comes_later_is_attached_by_the_next_run(registry, key):
    schema, grants = schema_of(registry), (FILES / "grants.sql").read_text()
    registry.pool("one")
    early, late = (str(registry.place(making=False)["instance_id"]) for _one in range(2))
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [early])
    registry.query("CREATE TABLE instances (id {0} PRIMARY KEY)".format(key))
    registry.query("INSERT INTO instances VALUES ('{0}'), ('{1}')".format(early, late))
    assert schema.grant(grants, SERVICE, dry_run=True) is True
    assert schema.grant(grants, SERVICE, dry_run=False) is True
    assert schema.grant(grants, SERVICE, dry_run=False) is False
    told = "SELECT i.id::text, s.name, i.plan_tier FROM instances i LEFT JOIN db_servers s ON s.id = i.db_server_id"
    assert sorted(registry.query(told)) == sorted([(early, "one", "standard"), (late, None, None)])
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [late])
    assert sorted(registry.query(told)) == sorted([(early, "one", "standard"), (late, "one", "standard")])
    schema.run(*schema.pending(1))
    assert len(registry.query("SELECT * FROM instances")[0]) == 1


def test_a_registry_of_the_version_before_keeps_its_tenants_on_the_way_up(registry):
    schema = schema_of(registry)
    schema.run(*schema.pending(2))
    registry.query(
        "INSERT INTO db_servers (name, server_type, backend, host, port, max_instances, connection_budget, storage_budget_bytes,"
        " cpu_limit, memory_limit_bytes) VALUES ('old', 'shared', 'process', '127.0.0.1', 5432, 50, 300, 1::bigint << 40, 2, 4::bigint << 30);"
        " UPDATE db_servers SET status = 'initializing'; UPDATE db_servers SET status = 'active';"
        " INSERT INTO db_allocations (instance_id, customer_id, plan_tier, server_id, database_name, role_name, password_encrypted,"
        " connections, storage_bytes, expires_at) SELECT gen_random_uuid(), gen_random_uuid(), 'standard', id, 'd', 'r', 'x', 6, 1, now()"
        " FROM db_servers; UPDATE db_allocations SET status = 'active'"
    )
    schema.run(*schema.pending(None))
    schema.grant((FILES / "grants.sql").read_text(), SERVICE, dry_run=False)
    assert registry.query("SELECT status, current_instances, tls FROM db_servers") == [("active", 1, False)]
    assert registry.place(making=False)["server"] == "old"


def test_two_runs_do_not_migrate_at_once(registry):
    first, second = schema_of(registry), schema_of(registry)
    first.lock()
    registry.query("ALTER ROLE postgres SET lock_timeout = '200ms'")
    try:
        blocked = schema_of(registry)
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            blocked.lock()
    finally:
        registry.query("ALTER ROLE postgres RESET lock_timeout")
    first._connection.close()
    second.lock()


def test_the_messages_name_the_place_and_no_password(registry):
    params = dict(registry.params, login_password="not-the-password")
    with pytest.raises(PoolsError) as told:
        Inventory(params)
    assert "port {0}".format(registry.server.port) in str(told.value) and SERVICE in str(told.value)
    assert "not-the-password" not in str(told.value)

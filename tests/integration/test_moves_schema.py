# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of moves down to the one before and up again, with moves in it, and what the service role may do with them."""

from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _schema
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from moves_fixture import ALL, call, in_order, tenant, through, used, where
from registry_fixture import FILES, SERVICE, bin_dirs, migrations, registry_server

BEFORE = 5


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def registries(request):
    with registry_server(request.param) as make:
        yield make


@pytest.fixture
def registry(registries):
    made = registries()
    made.pool("old", places=1)
    made.instance = tenant(made)
    made.pool("new")
    return made


def to(registry, version):
    schema = _schema.Schema(registry.admin(), migrations())
    schema.run(*schema.pending(version))
    if version is None:
        schema.grant((FILES / "grants.sql").read_text(), SERVICE, dry_run=False)


def test_a_finished_move_is_kept_on_the_way_down_and_up(registry):
    moved = through(registry, registry.instance, *ALL)["migration"]
    to(registry, BEFORE)
    assert used(registry, "old") == (0, 0, 0) and used(registry, "new") == (1, 6, 3)
    row = "SELECT status, proof->>'source_database', retained_until IS NOT NULL FROM db_tenant_migrations"
    assert registry.query(row) == [("completed", moved["source_database"], True)]
    # The older schema lets what it knows be written.
    registry.query("UPDATE db_allocations SET status = 'migrating'; UPDATE db_allocations SET status = 'active'")
    to(registry, None)
    assert used(registry, "old") == (0, 0, 3) and in_order(registry)
    lease = call(registry, registry.instance, "returning")["migration"]["lease"]
    told = call(registry, registry.instance, "rolled_back", lease=lease, reason="asked for")
    assert told["quarantine"]["quarantine_name"] == moved["source_database"]
    assert where(registry, registry.instance)[:2] == ("old", "active") and in_order(registry)


@pytest.mark.parametrize("last", ["planned", "cutover", "returning"])
def test_a_move_that_runs_is_not_forgotten(registry, last):
    if last == "returning":
        through(registry, registry.instance, *ALL)
        call(registry, registry.instance, "returning")
    else:
        through(registry, registry.instance, *ALL[: ("planned", *ALL).index(last)])
    with pytest.raises(PoolsError, match="moves that have not ended"):
        to(registry, BEFORE)
    to(registry, None)
    assert in_order(registry)
    # All that is below is to be thrown away: then this may be too.
    schema = _schema.Schema(registry.admin(), migrations())
    schema.allow_discarding()
    schema.run(*schema.pending(BEFORE))
    assert schema.version() == BEFORE
    counters = "SELECT sum(current_instances), sum(promised_connections) FROM db_servers"
    assert registry.query(counters) == [(1, 6)]
    with pytest.raises(PoolsError, match="moves that have not ended, written by hand"):
        to(registry, None)


def test_two_servers_of_one_instance_are_more_than_the_older_schema_knows(registry):
    for _each in range(2):
        registry.query(
            "INSERT INTO db_servers (name, server_type, backend, host, port, max_instances, connection_budget, storage_budget_bytes, cpu_limit,"
            " memory_limit_bytes, dedicated_customer_id, dedicated_instance_id, storage) SELECT 'own' || count(*), 'dedicated', 'process', 'h', count(*), 1,"
            " 50, 1, 1, 1, %s, %s, 'local' FROM db_servers",
            (registry.instance, registry.instance),
        )
        registry.query("UPDATE db_servers SET status = 'initializing' WHERE status = 'provisioning'")
        registry.query("UPDATE db_servers SET status = 'active' WHERE status = 'initializing'")
    with pytest.raises(PoolsError, match="two servers of its own"):
        to(registry, BEFORE)


def test_the_privileges_are_given_once(registry):
    schema = _schema.Schema(registry.admin(), migrations())
    grants = (FILES / "grants.sql").read_text()
    # This database is a copy of another, whose own privileges do not come with it.
    schema.grant(grants, SERVICE, dry_run=False)
    assert schema.grant(grants, SERVICE, dry_run=False) is False
    # As a database of the release before has them.
    registry.query("GRANT INSERT, UPDATE ON db_tenant_migrations TO {0}; GRANT UPDATE (server_id) ON db_allocations TO {0}".format(SERVICE))
    assert schema.grant(grants, SERVICE, dry_run=False) is True
    assert schema.grant(grants, SERVICE, dry_run=False) is False
    for table, column in (("db_tenant_migrations", "connections"), ("db_allocations", "server_id")):
        assert registry.query("SELECT has_column_privilege(%s, %s, %s, 'UPDATE')", (SERVICE, table, column)) == [(False,)]


def test_the_platforms_table_follows_the_cutover(registry):
    registry.query("CREATE TABLE instances (id uuid PRIMARY KEY); INSERT INTO instances VALUES (%s)", (registry.instance,))
    registry.query("SELECT db_attach_platform()")
    told = "SELECT s.name, i.plan_tier FROM instances i JOIN db_servers s ON s.id = i.db_server_id"
    lease = call(registry, registry.instance, plan_tier="professional", target="new")["migration"]["lease"]
    seen = []
    for status in ALL:
        through(registry, registry.instance, status, lease=lease)
        seen += registry.query(told)
    assert seen == [("old", "standard")] * 3 + [("new", "professional")] * 2

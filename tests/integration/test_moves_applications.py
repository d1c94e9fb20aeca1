# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application of a tenant in the inventory database: recorded with its allocation, kept with each move, and never with a password."""

from __future__ import annotations

import json
import uuid
from typing import Any, Dict

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _allocation, _cleanup_facts, _schema
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from moves_fixture import ALL, call, in_order, tenant, through
from registry_fixture import bin_dirs, migrations, registry_server

ONE = {"service": "odoo_acme", "env": {"DB_HOST": "host", "DB_PORT": "port"}}
OTHER = {"file": [{"path": "/srv/odoo.conf", "keys": {"db_host": "host"}}]}


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def registries(request):
    with registry_server(request.param) as make:
        yield make


@pytest.fixture
def registry(registries):
    made = registries()
    made.pool("old", places=2)
    made.instance = tenant(made)
    made.pool("new", places=2)
    return made


def asked(registry: Any, dry_run: bool = False, **entry: Any) -> Dict[str, Any]:
    """As the module allocation reserves, with what the caller gives and no more."""
    params = {name: option.get("default") for name, option in _allocation.OPTIONS.items()}
    found = registry.query("SELECT customer_id::text FROM db_allocations WHERE instance_id = %s", (entry.get("instance_id", registry.instance),))
    given = dict({"instance_id": registry.instance, "customer_id": found[0][0] if found else str(uuid.uuid4()), "plan_tier": "standard"}, **entry)
    with registry.open(dry_run) as inventory:
        return _allocation.work(dict(params, state="reserved", allocations=[given]), inventory, registry.cipher)


def recorded(registry: Any) -> Any:
    return registry.query("SELECT application FROM db_allocations WHERE instance_id = %s", (registry.instance,))[0][0]


def of_move(registry: Any) -> Any:
    return registry.query("SELECT application FROM db_tenant_migrations ORDER BY created_at DESC LIMIT 1")[0][0]


def test_it_is_recorded_changed_and_left(registry: Any) -> None:
    told = asked(registry, application=ONE)
    assert told["changed"] is True and recorded(registry) == ONE and told["allocations"][0]["application"] == ONE
    assert told["diff"][0]["before"][0]["application"] == {} and told["diff"][0]["after"][0]["application"] == ONE
    assert asked(registry, application=ONE)["changed"] is False
    assert asked(registry)["changed"] is False and recorded(registry) == ONE
    assert asked(registry, dry_run=True, application=OTHER)["changed"] is True and recorded(registry) == ONE
    assert asked(registry, application=OTHER)["changed"] is True and recorded(registry) == OTHER
    assert asked(registry, application={})["changed"] is True and recorded(registry) == {}
    events = registry.query("SELECT detail FROM db_events WHERE kind = 'allocation.changed' ORDER BY happened_at")
    assert [one["after"]["application"] for (one,) in events] == [ONE, OTHER, {}]


def test_a_new_tenant_has_it_from_the_beginning(registry: Any) -> None:
    registry.instance, before = str(uuid.uuid4()), registry.instance
    asked(registry, application=ONE)
    assert recorded(registry) == ONE
    registry.instance = before
    assert recorded(registry) == {}


@pytest.mark.parametrize(
    ("application", "words"),
    [
        ({"services": "x"}, "services"),
        ({"service": "x", "env": {"DB_PASSWORD": "password"}}, "env DB_PASSWORD asks for password"),
        ({"hooks": {"stop": [{"name": "x"}]}}, "x must have either command or tasks_file"),
    ],
)
def test_what_is_wrong_with_it_is_told_before_anything_is_done(registry: Any, application: Dict[str, Any], words: str) -> None:
    rows = "SELECT (SELECT count(*) FROM db_allocations), (SELECT count(*) FROM db_tenant_migrations), (SELECT count(*) FROM db_events)"
    before = registry.query(rows)
    with pytest.raises(PoolsError, match=words):
        asked(registry, instance_id=str(uuid.uuid4()), application=application)
    with pytest.raises(PoolsError, match=words):
        call(registry, registry.instance, application=application)
    assert registry.query(rows) == before and in_order(registry)


def test_a_password_is_refused_wherever_it_stands(registry: Any) -> None:
    token = registry.query("SELECT password_encrypted FROM db_allocations WHERE instance_id = %s", (registry.instance,))[0][0]
    password = registry.cipher.decrypt(token, "x")
    application = {"hooks": {"stop": [{"name": "x", "command": ["psql", "password is " + password]}]}}
    for ask in (lambda: asked(registry, application=application), lambda: call(registry, registry.instance, application=application)):
        with pytest.raises(PoolsError, match="has the tenant's password in it") as refused:
            ask()
        assert password not in str(refused.value)
    assert recorded(registry) == {} and registry.query("SELECT count(*) FROM db_tenant_migrations") == [(0,)]
    # Who writes it past the modules is refused by the database, as far as it can know.
    for wrong in ([], "x", {"env": {"A": "password"}}, {"config": [{"keys": {"a": "dsn"}}]}, {"file": [{"keys": {"a": "password"}}, {"keys": {}}]}):
        with pytest.raises(psycopg2.errors.CheckViolation), registry.open() as inventory:
            inventory.execute("UPDATE db_allocations SET application = %(a)s::jsonb", {"a": json.dumps(wrong)})


def test_a_move_works_with_the_recorded_one_or_with_the_one_that_is_given(registry: Any) -> None:
    asked(registry, application=ONE)
    told = through(registry, registry.instance, *ALL)
    assert told["migration"]["application"] == of_move(registry) == ONE
    # Given for this move, it is not recorded; given as none, there is none.
    told = call(registry, registry.instance, application=OTHER)
    assert told["migration"]["application"] == OTHER and recorded(registry) == ONE
    through(registry, registry.instance, "rolled_back", lease=told["migration"]["lease"])
    assert call(registry, registry.instance, application={})["migration"]["application"] == {}


def test_a_run_that_takes_over_works_with_the_same_one(registry: Any) -> None:
    call(registry, registry.instance, application=ONE, lease_seconds=1)
    told = call(registry, registry.instance, lease_seconds=1)
    assert told["found"] is True and told["migration"]["application"] == ONE
    assert call(registry, registry.instance, application=OTHER)["migration"]["application"] == of_move(registry) == OTHER


def test_the_way_back_has_the_one_of_today(registry: Any) -> None:
    through(registry, registry.instance, *ALL, application=ONE)
    lease = call(registry, registry.instance, "returning")["migration"]["lease"]
    assert of_move(registry) == ONE, "the allocation has none, so it is that of the move"
    call(registry, registry.instance, "completed", lease=lease)
    asked(registry, application=OTHER)
    told = call(registry, registry.instance, "returning", lease_seconds=1)
    assert told["migration"]["application"] == OTHER
    assert call(registry, registry.instance, "returning", application={})["migration"]["application"] == {}


def test_it_forgets_where_it_was_only_when_nothing_can_be_undone_any_more(registry: Any) -> None:
    registry.pool("third", places=2)
    for target in ("new", "third", "new"):
        through(registry, registry.instance, *ALL, target=target, application=ONE)
    # The first and the last led to where the tenant is; the last can still be undone.
    with registry.open() as inventory:
        found = {(row["server"], row["target"]): row["application"] for row in _cleanup_facts._moves(inventory)}
    assert found == {("old", "new"): {}, ("new", "third"): {}, ("third", "new"): ONE}
    registry.query("UPDATE db_tenant_migrations SET retained_until = NULL WHERE created_at = (SELECT max(created_at) FROM db_tenant_migrations)")
    # The one that the move worked with remembers it, whatever is recorded since.
    asked(registry, application=OTHER)
    with registry.open() as inventory:
        found = {(row["server"], row["target"]): row["application"] for row in _cleanup_facts._moves(inventory)}
    assert found == {("old", "new"): {}, ("new", "third"): ONE}


def refused_below_version_8(schema: Any, match: str) -> None:
    with pytest.raises(PoolsError, match=match):
        schema.run(*schema.pending(7))
    # The versions above 8 were each taken down by then, in a transaction of their own.
    schema.run(*schema.pending(None))


def test_the_older_schema_forgets_none_unasked(registry: Any) -> None:
    schema = _schema.Schema(registry.admin(), migrations())
    asked(registry, application=ONE)
    refused_below_version_8(schema, "there are allocations with an application")
    asked(registry, application={})
    lease = call(registry, registry.instance, application=ONE)["migration"]["lease"]
    refused_below_version_8(schema, "moves that have not ended")
    through(registry, registry.instance, "rolled_back", lease=lease)
    schema.run(*schema.pending(7))
    schema.run(*schema.pending(None))
    assert recorded(registry) == {}

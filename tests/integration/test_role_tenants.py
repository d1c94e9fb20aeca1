# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles tenant_release, tenant_password and tenant_allocation, each on its own, also while the tenants' server is down."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import uuid
from typing import Any, Dict, Iterator

import psycopg2
import pytest
from environment import Environment, connect, environment, instances
from role_fixture import Call, guarded, refused, role, run, unchanged

POOL = "postgres-pool-1"
TENANTS = instances(4)
KEPT, GONE, ROTATED, MOVING = (tenant["instance_id"] for tenant in TENANTS)
NOBODY = str(uuid.uuid4())


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("allocate", {"allocations": TENANTS}).succeeded()
        yield made


def allocation(scratch: Environment, instance: str) -> Dict[str, Any]:
    (found,) = scratch.rows(
        "SELECT a.*, s.host, s.port FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE instance_id = %s", (instance,)
    )
    return found


def enter(scratch: Environment, instance: str, token: str) -> Any:
    """As the tenant, with the password that the inventory database has under that column."""
    row = allocation(scratch, instance)
    password = scratch.cipher().decrypt(row[token], instance)
    return connect(row["host"], row["port"], row["database_name"], row["role_name"], password)


def on_the_server(scratch: Environment) -> Dict[str, Any]:
    found = scratch.contents(scratch.servers()[0])
    return {kind: {one["name"] for one in found[kind]} for kind in ("databases", "roles")}


def places(scratch: Environment) -> int:
    return int(scratch.servers()[0]["current_instances"])


def test_what_cannot_be_is_refused_and_nothing_is_touched(scratch: Environment) -> None:
    def release(*says: str, **given: Any) -> Call:
        return Call("tenant_release", given, says)

    def password(*says: str, **given: Any) -> Call:
        return Call("tenant_password", given, says)

    moved = "ALTER TABLE db_allocations DISABLE TRIGGER a_refuse_unmoved; UPDATE db_allocations SET status = %s WHERE instance_id = %s"
    scratch.execute(moved, ("migrating", MOVING))
    refused(
        scratch,
        {
            "a release of no list": release("missing required arguments: tenant_release_instance_ids"),
            "days with letters": release("tenant_release_keep_days.*float", instance_ids=[GONE], keep_days="a week"),
            "a release of what is no UUID": release("instance_id must be a UUID, got 'x'", instance_ids=[GONE, "x"]),
            "a release in the middle of a move": release(MOVING + " is being moved and cannot be released", instance_ids=[GONE, MOVING]),
            "a password for no list": password("missing required arguments: tenant_password_instance_ids"),
            "an age with letters": password("tenant_password_max_age_days.*float", instance_ids=[GONE], max_age_days="old"),
            "a password for what is no UUID": password("must be a UUID, got 'x'", instance_ids=[GONE, "x"]),
            "a password for nobody": password("Instance {0} has no active allocation".format(NOBODY), instance_ids=[GONE, NOBODY]),
            "a password in the middle of a move": password(MOVING + " is being moved", instance_ids=[GONE, MOVING]),
        },
    )
    scratch.execute(moved, ("active", MOVING))


def test_a_check_says_what_would_change_and_changes_nothing(scratch: Environment) -> None:
    before = scratch.dump()
    roles = [role("tenant_release", instance_ids=[GONE], keep_days=0), role("tenant_password", instance_ids=[ROTATED])]
    assert run(scratch, roles, "--check", "--diff").succeeded().changed == 4
    unchanged(scratch, before)


def test_a_server_that_is_down_is_named_and_the_next_run_goes_on(scratch: Environment) -> None:
    with contextlib.closing(enter(scratch, ROTATED, "password_encrypted")):
        pass
    begun = places(scratch)
    down = role("postgres_server", name=POOL, path=scratch.servers()[0]["storage_path"], state="stopped")
    release = role("tenant_release", instance_ids=[KEPT])
    password = role("tenant_password", instance_ids=[ROTATED], max_age_days=0.0)
    told = guarded(scratch, {"down": down, "release": release, "password": password}).stats
    assert told["down"] == ""
    for name, instance in (("release", KEPT), ("password", ROTATED)):
        row = allocation(scratch, instance)
        assert row["database_name"] in told[name] and "Cannot connect" in told[name], told[name]
        assert str(row["port"]) in told[name]
    # Closed, but its place is not given to another while its database is open; the password in force is still the old one.
    assert allocation(scratch, KEPT)["status"] == "releasing" and places(scratch) == begun
    waiting = allocation(scratch, ROTATED)
    assert waiting["next_password_encrypted"]

    # Mended, both go on; the second time there is nothing to do, since the password is young.
    up = role("server_provisioning", name=POOL)
    young = role("tenant_password", instance_ids=[ROTATED], max_age_days=1.0)
    done = run(scratch, [up, release, password, release, young]).succeeded()
    # The server; quarantine and freeing; giving and confirming.
    assert done.changed == 5, done.output
    row = allocation(scratch, KEPT)
    assert row["status"] == "released" and row["dropped_at"] is None and places(scratch) == begun - 1
    assert 6.9 < (row["drop_after"] - row["released_at"]).total_seconds() / 86400 < 7.1
    found = on_the_server(scratch)
    assert row["quarantine_name"] in found["databases"] and row["database_name"] not in found["databases"]
    assert "FATAL" in kept_out(scratch, KEPT, "password_encrypted")

    row = allocation(scratch, ROTATED)
    # The very password that was written down before the server was found to be down.
    assert (row["password_encrypted"], row["next_password_encrypted"]) == (waiting["next_password_encrypted"], None)
    enter(scratch, ROTATED, "password_encrypted").close()
    old = scratch.cipher().decrypt(waiting["password_encrypted"], ROTATED)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(row["host"], row["port"], row["database_name"], row["role_name"], old)


def kept_out(scratch: Environment, instance: str, token: str) -> str:
    """What the server says as it refuses; empty if it lets the tenant in."""
    try:
        enter(scratch, instance, token).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return ""


def test_a_release_ends_sessions_and_drops_when_the_time_has_passed(scratch: Environment) -> None:
    session = enter(scratch, GONE, "password_encrypted")
    path = scratch.home / "release.json"
    scratch.execute("UPDATE db_allocations SET drop_after = now() WHERE instance_id = %s", (KEPT,))
    both = role("tenant_release", instance_ids=[GONE, KEPT], keep_days=0.0, result_file=str(path))
    outcome = run(scratch, [both]).succeeded()
    assert outcome.stats == {"status": "released", "instance_ids": [GONE, KEPT], "dropped": 2}
    assert json.loads(path.read_text()) == {"status": "released", "instance_ids": [GONE, KEPT]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(psycopg2.Error), session.cursor() as cursor:
        cursor.execute("SELECT 1")
    found = on_the_server(scratch)
    for instance in (GONE, KEPT):
        row = allocation(scratch, instance)
        assert row["status"] == "released" and row["dropped_at"]
        names = {row["database_name"], row["quarantine_name"], row["role_name"], row["quarantine_name"] + "_user"}
        assert not names & (found["databases"] | found["roles"])
    # The others are served as before.
    for instance in (ROTATED, MOVING):
        enter(scratch, instance, "password_encrypted").close()
    assert places(scratch) == 2
    before = scratch.dump()
    again = run(scratch, [both]).succeeded()
    assert again.changed == 0 and again.stats["dropped"] == 0
    unchanged(scratch, before)


def test_who_does_not_wait_is_told_when_to_ask_again(scratch: Environment) -> None:
    (tenant,) = instances(1)
    request = dict(tenant, require_dedicated=True)
    path = scratch.home / "allocate.json"
    ask = role("tenant_allocation", requests=[request], wait=False, result_file=str(path))
    outcome = run(scratch, [ask, ask]).succeeded()
    # The place and the file, once.
    assert outcome.changed == 2, outcome.output
    told = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "password" not in path.read_text()
    assert outcome.stats["status"] == told["status"] == "provisioning" and outcome.stats["retry_after"] == told["retry_after"] == 10
    row = allocation(scratch, tenant["instance_id"])
    (server,) = scratch.rows("SELECT * FROM db_servers WHERE id = %s", (row["server_id"],))
    # Reserved on a server that nobody makes yet: whoever waits, or provision_dedicated.yml, may.
    assert (row["status"], server["status"], server["lease_holder"]) == ("reserved", "provisioning", None)
    assert not os.path.exists(server["storage_path"])

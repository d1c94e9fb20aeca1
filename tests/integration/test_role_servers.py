# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles that make servers, each on its own: postgres_server, server_provisioning and new_server."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any, Dict, Iterator

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _making
from environment import Environment, Outcome, connect, environment, instances, rows
from registry_fixture import NEW_SERVER, bin_dirs
from role_fixture import Call, fact_of, guarded, inventory, refused, role, run, unchanged

PASSWORD = "Administrators0Password1Of2Tests"
NOWHERE = "/nonexistent/postgresql/bin"
BEGUN = "postgres-pool-begun"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made.ready()


@pytest.fixture(scope="module")
def lease(scratch: Environment) -> str:
    """Of the maker of BEGUN, which is in the inventory database and nowhere else."""
    ports = {"first_port": scratch.port_base + 1, "last_port": scratch.port_base + 19}
    new = _making.NewServer.from_options(dict(NEW_SERVER, storage_root=str(scratch.state / "servers"), **ports))
    with inventory(scratch) as registry:
        with registry.transaction():
            registry.lock_placement()
            _making.make_server(registry, scratch.cipher(), new, "shared", name=BEGUN)
        claimed = _making.claim_making(registry, [BEGUN], 600)
    assert claimed
    return claimed[1]


def server(scratch: Environment, number: int, **changed: Any) -> Dict[str, Any]:
    """Variables of postgres_server, for a port that the inventory database gives to nobody; None leaves one out."""
    given = {
        "name": "role-{0}".format(number),
        "path": str(scratch.state / "role-{0}".format(number)),
        "port": scratch.port_base + 90 + number,
        "bin_dir": scratch.facts["bin_dir"],
        "run_as": scratch.facts["run_as"],
        "admin_password": PASSWORD,
        "memory_limit": "1G",
        "connections": 20,
    }
    return {key: value for key, value in dict(given, **changed).items() if value is not None}


def test_what_cannot_be_is_refused_and_nothing_is_touched(scratch: Environment, lease: str) -> None:
    (tenant,) = instances(1)

    def one(*says: str, **changed: Any) -> Call:
        return Call("postgres_server", server(scratch, 0, **changed), says)

    def making(*says: str, **given: Any) -> Call:
        return Call("server_provisioning", given, says)

    def new(*says: str, **given: Any) -> Call:
        return Call("new_server", given, says)

    def own(*says: str, **changed: Any) -> Call:
        return new(*says, type="dedicated", **{key: value for key, value in dict(tenant, **changed).items() if value})

    refused(
        scratch,
        {
            "a server without a name": one("missing required arguments: postgres_server_name", name=None),
            "without a path": one("missing required arguments: postgres_server_path", path=None),
            "without a password": one("role-0 cannot be started", "postgres_server_admin_password", admin_password=None),
            "without a port": one("role-0 cannot be started", "postgres_server_port", port=None),
            "a port with letters": one("postgres_server_port", "high", port="high"),
            "an unknown backend": one("postgres_server_backend must be one of", "docker", backend="docker"),
            "an unknown state": one("postgres_server_state must be one of: started, stopped, absent", state="running"),
            "memory that is no size": one("much", memory_limit="much"),
            "connections that do not fit the memory": one("5000", "1024 MiB", connections=5000),
            "the making of nothing": making("missing required arguments: server_provisioning_name"),
            "a lease of letters": making("server_provisioning_lease_seconds", "long", name=BEGUN, lease_seconds="long"),
            "the making of an unknown server": making("There is no server 'nowhere'", name="nowhere"),
            "another run's server": making("'{0}' is being made by another run".format(BEGUN), name=BEGUN),
            "another lease than its maker's": making("'{0}' is being made by another run".format(BEGUN), name=BEGUN, lease=tenant["instance_id"]),
            "a server of the platform's": new("new_server_type must be one of: shared, dedicated", type="platform"),
            "a template that lacks its root": new("storage_root", template={"backend": "process"}),
            "a template that is none": new("new_server_template", template="small"),
            "a dedicated server for no customer": own("customer_id", customer_id=None),
            "a dedicated server of no plan": own("plan_tier 'None' is unknown", plan_tier=None),
        },
    )


# --- postgres_server


def test_postgres_server_makes_changes_stops_and_archives(scratch: Environment) -> None:
    """A server of each major side by side."""
    servers = {
        "made{0}".format(number): server(scratch, number, bin_dir=path or scratch.facts["bin_dir"])
        for number, path in enumerate(bin_dirs(), start=1)
    }
    make = [task for fact, one in servers.items() for task in (role("postgres_server", **one), fact_of(fact, "{{ postgres_server_result }}"))]
    before = scratch.dump()
    assert run(scratch, make, "--check").succeeded().changed == len(servers)
    unchanged(scratch, before)

    change = [role("postgres_server", **dict(one, settings={"work_mem": "3MB"})) for one in servers.values()]
    outcome = run(scratch, make + change, tells={fact: "{{ %s }}" % fact for fact in servers}).succeeded()
    assert outcome.changed == 2 * len(servers) and PASSWORD not in outcome.output
    for fact, one in servers.items():
        told = outcome.stats[fact]
        assert told == dict(told, changed=True, host="127.0.0.1", port=one["port"], data_directory=one["path"] + "/data")
        with contextlib.closing(connect("127.0.0.1", one["port"], "postgres", "postgres", PASSWORD)) as connection:
            shown = {row["name"]: row["setting"] for row in rows(connection, "SELECT name, setting FROM pg_settings")}
            methods = {row["auth_method"] for row in rows(connection, "SELECT auth_method FROM pg_hba_file_rules")}
        assert shown["server_version_num"] == str(told["version"])
        # 20 for tenants, and the 10 spare ones of the role's default; what is given wins over what is computed.
        assert int(shown["max_connections"]) >= 30 and shown["work_mem"] == "3072"
        assert 0 < int(shown["shared_buffers"]) * 8192 < 1 << 30
        assert shown["password_encryption"] == "scram-sha-256" and methods == {"scram-sha-256", "reject"}
    assert len({outcome.stats[fact]["version"] // 10000 for fact in servers}) == len(servers)

    first = next(iter(servers.values()))
    wrong = guarded(scratch, {"wrong": role("postgres_server", **dict(first, admin_password="x" * 32))}, *change)
    assert wrong.changed == 0 and PASSWORD not in wrong.output
    assert "role-1: " in wrong.stats["wrong"] and "refuses the password" in wrong.stats["wrong"]

    def ended(one: Dict[str, Any], state: str) -> Dict[str, Any]:
        return role("postgres_server", **dict(one, state=state, admin_password=None))

    end = [ended(first, "stopped"), ended(first, "stopped"), *(ended(one, "absent") for one in servers.values()), ended(first, "absent")]
    # Stopped, archived, and stopped and archived at once; a second time is none.
    assert run(scratch, end).succeeded().changed == 1 + len(servers)
    archived = sorted(path.name for path in (scratch.state / "archived").iterdir())
    assert [name[:6] for name in archived] == [one["name"] for one in servers.values()]
    assert all((scratch.state / "archived" / name / "data" / "PG_VERSION").exists() for name in archived)
    for one in servers.values():
        assert not os.path.exists(one["path"])
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            connect("127.0.0.1", one["port"], "postgres", "postgres", PASSWORD)


# --- server_provisioning


def row(scratch: Environment, name: str) -> Dict[str, Any]:
    (found,) = scratch.rows("SELECT * FROM db_servers WHERE name = %s", (name,))
    return found


def test_server_provisioning_makes_the_server_of_a_row(scratch: Environment, lease: str) -> None:
    make = role("server_provisioning", name=BEGUN, lease=lease)
    before = scratch.dump()
    assert run(scratch, [make], "--check").succeeded().changed == 2
    unchanged(scratch, before)

    # Two steps in the inventory database and one server; the second time none of them.
    assert run(scratch, [make, make]).succeeded().changed == 3
    found = row(scratch, BEGUN)
    assert (found["status"], found["health_status"], found["status_reason"]) == ("active", "healthy", None)
    assert (found["lease_holder"], found["lease_expires_at"]) == (None, None)
    with contextlib.closing(scratch.connect(found)) as connection:
        (told,) = rows(connection, "SELECT current_setting('max_connections')::int AS n, current_setting('server_version_num') AS version")
    assert told["n"] >= found["connection_budget"] and told["version"] == found["postgres_version"]


# --- new_server, through playbooks/provision_dedicated.yml


def dedicated(scratch: Environment, tenant: Dict[str, str], *flags: str, **more: Any) -> Outcome:
    return scratch.play("provision_dedicated", dict(tenant, **more), *flags)


def test_provision_dedicated_keeps_the_reason_of_a_failure_and_makes_it_when_that_is_mended(scratch: Environment) -> None:
    tenant = dict(instances(1)[0], plan_tier="premium")
    name = "postgres-dedicated-" + tenant["instance_id"][:8]
    path = scratch.home / "dedicated.json"
    failed = dedicated(scratch, tenant, result_file=str(path), postgres_pools_process={"bin_dir": NOWHERE})
    reason = "Bring the local PostgreSQL to its state: {0}: The directory {1} lacks PostgreSQL's".format(name, NOWHERE)
    assert failed.rc != 0 and "Server {0} could not be made".format(name) in failed.output
    assert not failed.stats and not path.exists()
    broken = row(scratch, name)
    assert (broken["status"], broken["lease_holder"], broken["health_status"]) == ("error", None, "unknown")
    assert reason in broken["status_reason"]
    events = scratch.rows("SELECT kind, detail FROM db_events WHERE server_id = %s ORDER BY happened_at", (broken["id"],))
    assert [event["kind"] for event in events] == ["server.provisioning", "server.initializing", "server.error"]
    assert reason in events[-1]["detail"]["reason"]
    # The directory with the lock that runs wait for may stay; there is no server in it.
    assert not (Path(broken["storage_path"]) / "data").exists()

    before = scratch.dump()
    assert dedicated(scratch, tenant, "--check", result_file=str(path)).succeeded().changed == 1
    unchanged(scratch, before)
    made = dedicated(scratch, tenant, result_file=str(path)).succeeded().stats
    assert (made["status"], made["server"]["server_type"], made["server"]["health_status"]) == ("active", "dedicated", "healthy")
    # The one in error keeps its name and its reason, for who looks into it.
    assert made["server"]["name"] != name and row(scratch, name) == broken
    found = row(scratch, made["server"]["name"])
    assert (str(found["dedicated_instance_id"]), str(found["dedicated_customer_id"])) == (tenant["instance_id"], tenant["customer_id"])
    (plan,) = scratch.rows("SELECT * FROM db_current_plans WHERE plan_tier = 'premium'")
    assert (found["max_instances"], found["memory_limit_bytes"]) == (1, plan["memory_limit_bytes"])
    scratch.connect(found).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = scratch.dump()
    again = dedicated(scratch, tenant).succeeded()
    assert again.changed == 0 and again.stats["server"]["name"] == found["name"]
    unchanged(scratch, before)

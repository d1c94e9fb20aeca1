# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module server_health on a real inventory database: what real servers' answers, and their silence, make of the rows."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _authority, _health, _lifecycle
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import quarantine_name
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import ensure
from ansible_collections.saasodoo.postgres_pools.plugins.modules import server_health
from health_fixture import address, answering, refusing, server_everywhere, silent, swallowing
from postgres_fixture import RunningServer, server_home
from registry_fixture import Registry, registry_server
from test_tls import Bed

Pool = Callable[..., str]


@pytest.fixture(scope="module")
def registries() -> Iterator[Any]:
    with registry_server() as make:
        yield make


@pytest.fixture
def registry(registries: Any) -> Registry:
    made: Registry = registries()
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with server_everywhere() as started:
        yield started


@pytest.fixture
def pool(registry: Registry, server: RunningServer) -> Pool:
    """A function that enters a pool whose PostgreSQL is the real one, at an address of its own."""

    def make(name: str = "pool-1", **changed: Any) -> str:
        number = registry.query("SELECT count(*) FROM db_servers")[0][0] + 1
        where = {"host": address(number), "port": server.port, "admin_password_encrypted": registry.cipher.encrypt(server.password)}
        registry.pool(name, **dict(where, **changed))
        return name

    return make


def check(registry: Registry, dry_run: bool = False, **given: Any) -> Dict[str, Any]:
    params = {name: option["default"] for name, option in server_health.OPTIONS.items()}
    with registry.open(dry_run) as inventory:
        return _health.work({**params, "timeout": 3, **given}, inventory, registry.cipher)


def state(registry: Registry, name: str = "pool-1") -> Any:
    return registry.query("SELECT status, health_status, health_check_failures FROM db_servers WHERE name = %s", (name,))[0]


def everything(registry: Registry) -> Any:
    return [registry.query("SELECT to_jsonb(t)::text FROM {0} t ORDER BY 1".format(table)) for table in ("db_servers", "db_health_checks", "db_events")]


def of(result: Dict[str, Any], name: str = "pool-1") -> Dict[str, Any]:
    return next(server for server in result["servers"] if server["name"] == name)


# --- states


def test_a_pool_fails_three_times_and_comes_back(registry: Registry, pool: Pool, server: RunningServer) -> None:
    pool(places=1)
    instance = registry.place()["instance_id"]
    assert state(registry) == ("full", "unknown", 0)
    first = check(registry)
    assert first["changed"] and first["status"] == "ok" and first["servers"][0]["health_status_before"] == "unknown"
    assert state(registry) == ("full", "healthy", 0)
    assert check(registry)["changed"] is False
    ensure(server.wanted, "stopped")
    try:
        seen = [(check(registry), state(registry)) for _each in range(4)]
    finally:
        ensure(server.wanted, "started")
    assert [one for _result, one in seen] == [("full", "degraded", 1), ("full", "degraded", 2), ("error", "unhealthy", 3), ("error", "unhealthy", 4)]
    assert [result["status"] for result, _one in seen] == ["degraded", "degraded", "alarm", "alarm"]
    assert [result["changed"] for result, _one in seen] == [True, False, True, False]
    assert seen[2][0]["summary"]["taken_out"] == 1
    ((reason,),) = registry.query("SELECT status_reason FROM db_servers")
    assert reason.startswith("3 health checks in a row failed. The last: 127.1.0.1 port ") and "refused" in reason
    back = check(registry)
    assert back["summary"]["brought_back"] == 1 and of(back)["status_before"] == "error"
    # Its one place is still taken.
    assert state(registry) == ("full", "healthy", 0)
    assert registry.query("SELECT status_reason FROM db_servers") == [(None,)]
    assert registry.query("SELECT detail->>'reason' IS NOT NULL FROM db_events WHERE kind = 'server.error'") == [(True,)]
    history = registry.query("SELECT health_status, problem IS NULL, latency_ms IS NULL FROM db_health_checks ORDER BY checked_at")
    assert [one[0] for one in history] == ["healthy"] * 2 + ["degraded"] * 2 + ["unhealthy"] * 2 + ["healthy"]
    assert [one[1] for one in history] == [True, True, False, False, False, False, True] == [not one[2] for one in history]
    with registry.open() as inventory:
        assert inventory.allocations([instance])[0]["server_status"] == "full"


def test_what_was_seen_is_kept(registry: Registry, pool: Pool, server: RunningServer) -> None:
    pool()
    check(registry)
    ((version, databases, used, detail),) = registry.query("SELECT postgres_version, database_count, connections_used, detail FROM db_health_checks")
    assert (version, databases) == (str(server.version), 0) and used >= 0
    assert detail["connections_allowed"] > 200 and detail["database_bytes"] > 1 << 20
    assert detail["slots_inactive"] == detail["slots_retained_bytes"] == 0 and "findings" not in detail
    assert registry.query("SELECT postgres_version FROM db_servers") == [(str(server.version),)]


def test_maintenance_is_watched_and_left_alone(registry: Registry, pool: Pool) -> None:
    pool(status="maintenance", port=refusing(), status_reason="new disks")
    results = [check(registry) for _each in range(4)]
    assert state(registry) == ("maintenance", "unhealthy", 4)
    assert registry.query("SELECT status_reason FROM db_servers") == [("new disks",)]
    assert {result["status"] for result in results} == {"ok"}
    assert "refused" in of(results[-1])["problem"]


def test_a_server_in_the_making_waits_for_its_maker_while_the_lease_lasts(registry: Registry, pool: Pool) -> None:
    pool("made", status="initializing")
    pool("given-up", status="initializing")
    pool("broken", status="initializing", port=refusing())
    registry.query("UPDATE db_servers SET lease_expires_at = now() + interval '1 hour'")
    before = everything(registry)
    leased = check(registry)
    assert everything(registry) == before and leased["status"] == "ok"
    registry.query("UPDATE db_servers SET lease_expires_at = now() - interval '1 second'")
    registry.query("UPDATE db_servers SET lease_expires_at = now() + interval '1 hour' WHERE name = 'made'")
    check(registry)
    assert [state(registry, name) for name in ("made", "given-up", "broken")] == [
        ("initializing", "unknown", 0),
        ("active", "healthy", 0),
        ("initializing", "unknown", 1),
    ]
    # A waiter can still take a place there and the making over.
    registry.query("UPDATE db_servers SET status = 'maintenance' WHERE name = 'given-up'")
    assert registry.place(making=False)["server"] in ("made", "broken")
    check(registry)
    check(registry)
    assert state(registry, "broken") == ("error", "unhealthy", 3)


def test_a_making_that_was_given_up_is_told_and_not_undone(registry: Registry, pool: Pool) -> None:
    pool(status="initializing")
    with registry.open() as inventory:
        _lifecycle.step_server(inventory, "pool-1", "error", None, 60, {"status_reason": "no certificate is served"})
    result = check(registry)
    assert state(registry) == ("error", "healthy", 0)
    assert result["status"] == "degraded"
    assert of(result)["findings"] == [{"kind": "unfinished", "message": "It answers, but its making was given up: no certificate is served"}]


def test_states_that_are_not_up_are_not_asked(registry: Registry, pool: Pool) -> None:
    for status in ("provisioning", "maintenance"):
        pool(status, status=status, port=refusing())
    registry.query("UPDATE db_servers SET status = 'deprovisioning' WHERE name = 'maintenance'")
    result = check(registry)
    assert result["summary"]["servers"] == 0 and result["status"] == "ok"
    assert registry.query("SELECT count(*) FROM db_health_checks") == [(0,)]
    with pytest.raises(PoolsError, match="'provisioning' cannot be asked: it is provisioning"):
        check(registry, name=["provisioning"])


# --- beside others


def test_what_others_did_meanwhile_stands(registry: Registry, pool: Pool) -> None:
    """The row goes to another state between question and answer, each time by the server that is asked."""

    def during(statement: str) -> Callable[[socket.socket], None]:
        def talk(connection: socket.socket) -> None:
            connection.recv(8)
            registry.query(statement)

        return talk

    to_maintenance = "UPDATE db_servers SET status = 'maintenance' WHERE status <> 'maintenance'"
    with answering(during(to_maintenance)) as port:
        pool(port=port, health_check_failures=2)
        check(registry)
    assert state(registry) == ("maintenance", "unknown", 2)
    assert registry.query("SELECT count(*) FROM db_health_checks") == [(0,)]
    with answering(during("UPDATE db_servers SET status = 'deprovisioning' WHERE status = 'maintenance'")) as port:
        registry.query("UPDATE db_servers SET port = %s", (port,))
        check(registry)
    assert state(registry) == ("deprovisioning", "unknown", 2)


def test_a_place_that_is_taken_meanwhile_is_no_other_state(registry: Registry, pool: Pool) -> None:
    def take(connection: socket.socket) -> None:
        connection.recv(8)
        if state(registry)[0] == "active":
            registry.query("UPDATE db_servers SET health_status = 'healthy'")
            registry.place(making=False)

    with answering(take) as port:
        pool(port=port, places=1, health_check_failures=1)
        check(registry)
    assert state(registry) == ("full", "degraded", 2)


def test_of_two_checks_at_once_one_does_nothing(registry: Registry, pool: Pool) -> None:
    results: List[Dict[str, Any]] = []
    with silent() as port:
        pool(port=port)
        first = threading.Thread(target=lambda: results.append(check(registry)))
        first.start()
        time.sleep(1)
        began = time.monotonic()
        second, dry = check(registry), check(registry, dry_run=True, name=["pool-1"])
        first.join()
    assert second["status"] == "busy" and not second["changed"] and second["servers"] == []
    assert time.monotonic() - began < 8 and dry["status"] == "degraded"
    assert results[0]["status"] == "degraded"
    assert state(registry) == ("active", "degraded", 1)
    assert check(registry)["status"] == "degraded", "the lock went with its holder"


def test_a_locked_row_holds_up_no_other(registry: Registry, pool: Pool) -> None:
    for number in range(3):
        pool("pool-{0}".format(number))
    with contextlib.closing(registry.admin()) as admin, admin.cursor() as cursor:
        cursor.execute("BEGIN; SELECT 1 FROM db_servers WHERE name = 'pool-1' FOR UPDATE")
        result = check(registry)
        cursor.execute("COMMIT")
    assert "Its row was not written: canceling statement due to lock timeout" in of(result)["problem"]
    assert result["status"] == "degraded"
    assert [state(registry, "pool-{0}".format(number))[1] for number in range(3)] == ["healthy", "unknown", "healthy"]


def test_a_password_that_cannot_be_read_says_nothing_of_the_server(registry: Registry, pool: Pool) -> None:
    pool("pool-0")
    pool("unreadable", admin_password_encrypted="gAAAAABnotoneofours", health_status="healthy")
    pool("unrecorded", admin_password_encrypted=None)
    for _each in range(4):
        result = check(registry)
    assert state(registry, "pool-0")[1] == "healthy"
    assert state(registry, "unreadable") == ("active", "healthy", 0) and state(registry, "unrecorded") == ("active", "unknown", 0)
    assert result["summary"]["not_asked"] == 2 and result["status"] == "degraded"
    assert "key" in of(result, "unreadable")["problem"] and "No password" in of(result, "unrecorded")["problem"]


def test_a_wrong_password_is_a_failure(registry: Registry, pool: Pool) -> None:
    pool(admin_password_encrypted=registry.cipher.encrypt("wrong"))
    assert "password authentication failed" in of(check(registry))["problem"]
    assert state(registry) == ("active", "degraded", 1)


def test_a_check_changes_nothing_and_says_the_same(registry: Registry, pool: Pool) -> None:
    pool("well")
    pool("third", port=refusing(), health_check_failures=2)
    pool("back", status="error")
    registry.query("INSERT INTO db_health_checks (server_id, checked_at, health_status) SELECT id, now() - interval '40 days', 'healthy' FROM db_servers")
    before = everything(registry)
    dry = check(registry, dry_run=True)
    assert everything(registry) == before
    run = check(registry)

    def seen(result: Dict[str, Any]) -> Any:
        return sorted((server["name"], server["status"], server["health_status"]) for server in result["servers"]), result["diff"], result["changed"]

    assert seen(dry) == seen(run)
    assert run["diff"]["after"] == {"well": "active, healthy", "third": "error, unhealthy", "back": "active, healthy"}
    assert run["summary"]["pruned"] == dry["summary"]["pruned"] == 3


def test_history_is_kept_as_long_as_told(registry: Registry, pool: Pool) -> None:
    pool()
    registry.query(
        "INSERT INTO db_health_checks (server_id, checked_at, health_status)"
        " SELECT id, now() - day * interval '1 day', 'healthy' FROM db_servers, generate_series(1, 40) day"
    )
    assert check(registry, history_days=10)["summary"]["pruned"] == 31
    assert registry.query("SELECT count(*) FROM db_health_checks") == [(10,)]


# --- what a server holds


def test_databases_are_held_against_the_allocations(registry: Registry, pool: Pool, server: RunningServer) -> None:
    pool()
    allocations = [registry.place() for _each in range(4)]
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [one["instance_id"] for one in allocations])
    there, gone, quarantined, released = allocations
    for closing in (quarantined, released):
        name = quarantine_name(closing["database"], closing["allocation_id"])
        registry.query("UPDATE db_allocations SET status = 'releasing', quarantine_name = %s WHERE id = %s", (name, closing["allocation_id"]))
        closing["database"] = name
    registry.query("UPDATE db_allocations SET status = 'released', released_at = now() WHERE id = %s", (released["allocation_id"],))
    made = [there["database"], quarantined["database"], released["database"], "stray"]
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        for name in made:
            cursor.execute('CREATE DATABASE "{0}"'.format(name))
        try:
            told = {one["kind"]: one["message"] for one in of(check(registry))["findings"]}
            registry.query("UPDATE db_allocations SET dropped_at = now() WHERE status = 'released'")
            # Only what changed before the check began is judged.
            time.sleep(0.01)
            dropped = {one["kind"]: one["message"] for one in of(check(registry))["findings"]}
        finally:
            for name in made:
                cursor.execute('DROP DATABASE "{0}"'.format(name))
    assert told == {
        "missing_database": "Active allocations lack their database: {0}.".format(gone["database"]),
        "unknown_database": "No allocation accounts for: stray.",
    }
    assert dropped["unknown_database"] == "No allocation accounts for: {0}, stray.".format(released["database"])
    assert state(registry) == ("active", "healthy", 0), "a finding changes no state"
    assert registry.query("SELECT jsonb_array_length(detail->'findings') FROM db_health_checks ORDER BY checked_at LIMIT 1") == [(2,)]


def test_a_database_that_a_move_left_is_accounted_for(registry: Registry, pool: Pool, server: RunningServer) -> None:
    pool("source")
    allocation = registry.place()
    pool("target", allocation_strategy="manual")
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [allocation["instance_id"]])
    registry.query(
        "INSERT INTO db_tenant_migrations (allocation_id, source_server_id, target_server_id, mode)"
        " SELECT %s, s.id, t.id, 'dump' FROM db_servers s, db_servers t WHERE s.name = 'source' AND t.name = 'target'",
        (allocation["allocation_id"],),
    )
    # Both rows are one server here, so the database is on both, as between the copy and the end of its retention.
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute('CREATE DATABASE "{0}"'.format(allocation["database"]))
        try:
            before = check(registry)
            for status in ("preparing", "copying", "verifying", "cutover", "completed"):
                registry.query("UPDATE db_tenant_migrations SET status = %s, proof = '{\"equal\": true}', retained_until = now()", (status,))
            after = check(registry)
            registry.query("UPDATE db_tenant_migrations SET status = 'rolled_back'")
            undone = check(registry)
        finally:
            cursor.execute('DROP DATABASE "{0}"'.format(allocation["database"]))
    assert before["status"] == after["status"] == "ok"
    assert of(undone, "target")["findings"][0]["kind"] == "unknown_database"


def test_with_tls_a_server_is_who_it_says(registries: Any) -> None:
    with server_home() as home:
        bed = Bed(registries(), home, "")
        bed.write()
        ensure(bed.wanted, "started")
        try:
            assert check(bed.registry)["summary"]["healthy"] == 1
            bed.registry.query("UPDATE db_authorities SET certificate = %s", (_authority.made().pem,))
            impostor = check(bed.registry)
            bed.registry.query("DELETE FROM db_authorities")
            nobody = check(bed.registry)
        finally:
            ensure(bed.wanted, "stopped")
    assert "certificate verify failed" in impostor["servers"][0]["problem"] and impostor["servers"][0]["health_status"] == "degraded"
    assert "no authority to check its certificate by" in nobody["servers"][0]["problem"] and not nobody["servers"][0]["asked"]


# --- bad input


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": ["nowhere"]}, "There is no server 'nowhere'"),
        ({"name": ["No'; --"]}, "cannot be a server's name"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": 20, "total_timeout": 10}, "total_timeout is 10. Give 20 or more"),
        ({"parallel": 0}, "parallel is 0"),
        ({"history_days": -1}, "history_days is -1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(registry: Registry, pool: Pool, given: Dict[str, Any], says: str) -> None:
    pool()
    before = everything(registry)
    params = {name: option["default"] for name, option in server_health.OPTIONS.items()}
    with registry.open() as inventory, pytest.raises(PoolsError, match=says):
        _health.work(dict(params, **given), inventory, registry.cipher)
    assert everything(registry) == before


# --- many


def fleet(registry: Registry, server: RunningServer, wells: int, sick: Optional[Dict[int, int]] = None) -> None:
    """That many rows of the one real server at addresses of their own, and at each port of *sick* as many more."""
    token = registry.cipher.encrypt(server.password)
    places = [(address(number), server.port) for number in range(1, wells + 1)]
    for net, (port, count) in enumerate((sick or {}).items(), 2):
        places += [(address(number, net), port) for number in range(1, count + 1)]
    with contextlib.closing(registry.admin()) as admin, admin.cursor() as cursor:
        # As they are when they were made one after another; the triggers of the steps are not what is looked at.
        cursor.execute("SET session_replication_role = replica")
        for number, (host, port) in enumerate(places):
            cursor.execute(
                "INSERT INTO db_servers (name, server_type, backend, host, port, status, health_status, max_instances, connection_budget,"
                " storage_budget_bytes, cpu_limit, memory_limit_bytes, admin_password_encrypted, activated_at)"
                " VALUES (%s, 'shared', 'process', %s, %s, 'active', 'healthy', 50, 300, %s, 2, %s, %s, now())",
                ("pool-{0}".format(number), host, port, 250 << 30, 4 << 30, token),
            )


def test_100_servers_of_which_10_refuse_and_10_swallow(registry: Registry, server: RunningServer) -> None:
    with swallowing() as hole, silent() as mute:
        fleet(registry, server, 80, {refusing(): 10, hole: 5, mute: 5})
        began = time.monotonic()
        result = check(registry, timeout=5)
        took = time.monotonic() - began
    summary = result["summary"]
    assert (summary["servers"], summary["healthy"], summary["degraded"], summary["not_asked"]) == (100, 80, 20, 0), result
    problems = [one["problem"] for one in result["servers"]]
    assert [sum(words in one for one in problems) for words in ("refused", "No connection to", "did not let in")] == [10, 5, 5]
    assert 5 <= took < 5 + 5


def test_1000_servers_within_60_seconds(registry: Registry, server: RunningServer) -> None:
    with swallowing() as hole:
        fleet(registry, server, 900, {refusing(): 50, hole: 50})
        began = time.monotonic()
        result = check(registry, timeout=10)
        took = time.monotonic() - began
    summary = result["summary"]
    assert (summary["servers"], summary["healthy"], summary["degraded"], summary["not_asked"]) == (1000, 900, 100, 0), result["servers"][:3]
    assert registry.query("SELECT count(*) FROM db_health_checks") == [(1000,)]
    assert took < 60
    print("1,000 servers in {0:.1f} s".format(took))

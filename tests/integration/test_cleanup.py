# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cleanup.yml on real servers: what it takes away, what it keeps and why, and that nothing of a tenant's is ever lost by it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import psycopg2
import pytest
from environment import Environment, Outcome, difference, discard, environment, instances
from role_fixture import module, run

DAY = 86400
HIDDEN = "odoo_hidden_tenant"


@pytest.fixture(scope="module")
def made() -> Iterator[Environment]:
    with environment() as scratch:
        yield scratch.ready()


@pytest.fixture
def scratch(made: Environment) -> Iterator[Environment]:
    """With the inventory database and no server, directory or archive."""
    yield made
    made.forget_servers()
    for root in ("postgres_pools", "postgres_dedicated"):
        for path in (made.state / "servers" / root).glob("*"):
            discard(path)


def pool(scratch: Environment, name: str) -> Dict[str, Any]:
    scratch.play("provision_pool", {"server": name}).succeeded()
    return row(scratch, name)


def row(scratch: Environment, name: str) -> Dict[str, Any]:
    return next(server for server in scratch.servers() if server["name"] == name)


def fail(scratch: Environment, name: str, hours: float = 25) -> Dict[str, Any]:
    """In error, and for so long."""
    scratch.execute("UPDATE db_servers SET status = 'error', status_reason = 'planted' WHERE name = %s", (name,))
    scratch.execute("UPDATE db_servers SET status_changed_at = now() - %s * interval '1 hour' WHERE name = %s", (hours, name))
    return row(scratch, name)


def stop(server: Dict[str, Any], mode: str = "fast") -> None:
    data = Path(server["storage_path"]) / "data"
    pid = int((data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, {"fast": 2, "immediate": 3}[mode])
    end = time.monotonic() + 30
    while os.path.exists("/proc/{0}".format(pid)):
        assert time.monotonic() < end, "it did not stop"
        time.sleep(0.05)


def age(path: Path, days: float) -> None:
    """As if nothing had been written there since."""
    then = time.time() - days * DAY
    for one in [path, *path.rglob("*")]:
        if not one.is_symlink():
            os.utime(str(one), (then, then))


def cleanup(scratch: Environment, *flags: str, **variables: Any) -> Outcome:
    return scratch.play("cleanup", variables, *flags)


def why(outcome: Outcome, name: str) -> str:
    found = [one["why"] for one in outcome.stats["kept"] if one["name"] == name]
    assert len(found) == 1, outcome.stats["kept"]
    return str(found[0])


def names(outcome: Outcome, part: str = "done") -> List[str]:
    return [one["name"] for one in outcome.stats[part]]


def events(scratch: Environment, kind: str = "cleanup.%") -> List[str]:
    return [found["kind"] for found in scratch.rows("SELECT kind FROM db_events WHERE kind LIKE %s ORDER BY happened_at", (kind,))]


def unchanged_by_check(scratch: Environment, **variables: Any) -> Outcome:
    before = scratch.dump()
    outcome = cleanup(scratch, "--check", **variables).succeeded()
    assert not difference(before, scratch.dump())
    return outcome


def same(check: Outcome, run: Outcome) -> None:
    """A --check lists exactly what the run then did."""
    for part in ("done", "kept", "left"):
        assert check.stats[part] == run.stats[part], part
    assert run.stats["failed"] == []


def nothing_left(scratch: Environment, **variables: Any) -> Outcome:
    before = scratch.dump()
    again = cleanup(scratch, **variables).succeeded()
    assert again.changed == 0, again.output
    assert again.stats["status"] == "clean"
    assert not difference(before, scratch.dump())
    return again


@pytest.mark.parametrize("how", ["running", "stopped", "crashed", "locked out"])
def test_a_tenant_database_hidden_on_a_failed_server(scratch: Environment, how: str) -> None:
    """No allocation tells of it. Nothing is deleted, and the reason is told."""
    server = pool(scratch, "postgres-pool-hidden")
    with contextlib.closing(scratch.connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE {0}".format(HIDDEN))
        if how == "locked out":
            cursor.execute("ALTER ROLE postgres PASSWORD 'another'")
        if how != "crashed":
            cursor.execute("CHECKPOINT")
    if how in ("stopped", "crashed"):
        stop(server, "fast" if how == "stopped" else "immediate")
    fail(scratch, server["name"])
    before = scratch.dump()
    check = cleanup(scratch, "--check").succeeded()
    outcome = cleanup(scratch).succeeded()
    assert not difference(before, scratch.dump())
    assert outcome.changed == 0
    assert outcome.stats["status"] == "clean" and outcome.stats["done"] == []
    expected = {
        "running": "it answers, and holds {0}".format(HIDDEN),
        "stopped": "its directory holds {0}".format(HIDDEN),
        # Its row of pg_database may be in the write-ahead log alone, and then its OID is its name.
        "crashed": "its directory holds ",
        "locked out": "its directory proves nothing: a PostgreSQL runs in it",
    }[how]
    assert expected in why(outcome, server["name"])
    same(check, outcome)
    assert (Path(server["storage_path"]) / "data" / "PG_VERSION").exists()


def test_empty_failed_servers_are_archived(scratch: Environment) -> None:
    running, stopped, crashed = (pool(scratch, "postgres-pool-" + name) for name in ("running", "stopped", "crashed"))
    stop(stopped)
    stop(crashed, "immediate")
    young = pool(scratch, "postgres-pool-young")
    for server in (running, stopped, crashed):
        fail(scratch, server["name"])
    fail(scratch, young["name"], hours=23)
    check = unchanged_by_check(scratch)
    outcome = cleanup(scratch).succeeded()
    same(check, outcome)
    assert sorted(names(outcome)) == ["postgres-pool-running", "postgres-pool-stopped"]
    assert "stays in error until" in why(outcome, young["name"])
    assert "it was not shut down in order" in why(outcome, crashed["name"])
    states = {server["name"]: server["status"] for server in scratch.servers()}
    assert (states[running["name"]], states[stopped["name"]]) == ("deprovisioned", "deprovisioned")
    assert (states[crashed["name"]], states[young["name"]]) == ("error", "error")
    for server in (running, stopped):
        path = Path(server["storage_path"])
        assert not path.exists()
        archives = list((path.parent / "archived").glob(path.name + "-*"))
        assert len(archives) == 1 and (archives[0] / "data" / "PG_VERSION").exists()
    assert events(scratch) == ["cleanup.began", "cleanup.deprovisioned", "cleanup.deprovisioned", "cleanup.ended"]
    nothing_left(scratch)


def test_a_server_that_never_came_up(scratch: Environment) -> None:
    """One that was begun and has no directory, one whose maker died in initdb, and one that started once without ever being opened."""
    pool(scratch, "postgres-pool-other")
    server = pool(scratch, "postgres-pool-bare")
    half = pool(scratch, "postgres-pool-half")
    crashed = pool(scratch, "postgres-pool-once")
    discard(Path(server["storage_path"]))
    stop(half)
    subprocess.run(["rm", "-rf", str(Path(half["storage_path"]) / "data")], check=True)
    stop(crashed, "immediate")
    for one in (server, half, crashed):
        fail(scratch, one["name"])
    scratch.execute("UPDATE db_servers SET activated_at = NULL WHERE status = 'error'")
    outcome = cleanup(scratch).succeeded()
    assert sorted(names(outcome)) == ["postgres-pool-bare", "postgres-pool-half", "postgres-pool-once"]
    assert {one["status"] for one in scratch.servers()} == {"active", "deprovisioned"}
    nothing_left(scratch)


def test_reservations_and_released_databases(scratch: Environment) -> None:
    tenants = instances(4)
    scratch.play("allocate", {"allocations": tenants}).succeeded()
    ids = [tenant["instance_id"] for tenant in tenants]
    scratch.play("release", {"instance_ids": ids[:2]}).succeeded()
    scratch.execute("UPDATE db_allocations SET drop_after = now() - interval '1 hour' WHERE instance_id = %s", (ids[0],))
    server = scratch.servers()[0]
    late, waiting = instances(2)
    for one, seconds in ((late, -60), (waiting, 600)):
        scratch.execute(
            "INSERT INTO db_allocations (instance_id, customer_id, plan_tier, server_id, database_name, role_name, password_encrypted,"
            " connections, storage_bytes, expires_at) VALUES (%s, %s, 'standard', %s, %s, %s, 'gAAAA', 6, 1, now() + %s * interval '1 second')",
            (one["instance_id"], one["customer_id"], server["id"], "odoo_" + one["instance_id"][:8], "u_" + one["instance_id"][:8], seconds),
        )
    held = {database["name"] for database in scratch.contents(server)["databases"]}
    check = unchanged_by_check(scratch)
    outcome = cleanup(scratch, result_file=str(scratch.home / "cleanup.json")).succeeded()
    same(check, outcome)
    assert json.loads((scratch.home / "cleanup.json").read_text()) == outcome.stats
    assert (scratch.home / "cleanup.json").stat().st_mode & 0o777 == 0o600
    found = {
        one["instance_id"]: (one["status"], one["dropped_at"] is not None)
        for one in scratch.rows("SELECT instance_id::text, status, dropped_at FROM db_allocations")
    }
    assert found[ids[0]] == ("released", True) and found[ids[1]] == ("released", False)
    assert found[late["instance_id"]] == ("expired", False) and found[waiting["instance_id"]] == ("reserved", False)
    assert [one["action"] for one in outcome.stats["done"]] == ["expire", "drop"]
    quarantined = {one["quarantine_name"]: one["instance_id"] for one in scratch.rows("SELECT quarantine_name, instance_id::text FROM db_allocations")}
    gone = held - {database["name"] for database in scratch.contents(server)["databases"]}
    assert [quarantined[name] for name in gone] == [ids[0]]
    assert [one["why"][:16] for one in outcome.stats["kept"] if one["what"] == "released database"] == ["it is kept until"]
    assert "cleanup.dropped" in events(scratch)
    nothing_left(scratch)


def move(
    scratch: Environment, instance_id: str, source: Dict[str, Any], target: Dict[str, Any], proof: Dict[str, Any], days: Optional[float]
) -> str:
    """A row as a completed move leaves it; what it says of its proof then is *proof*. Without *days* its source was dropped."""
    made = scratch.rows(
        "INSERT INTO db_tenant_migrations (allocation_id, source_server_id, target_server_id, mode) SELECT id, %s, %s, 'dump'"
        " FROM db_allocations WHERE instance_id = %s RETURNING id::text",
        (source["id"], target["id"], instance_id),
    )[0]["id"]
    for status in ("preparing", "copying", "verifying", "cutover", "completed"):
        scratch.execute("UPDATE db_tenant_migrations SET status = %s, proof = '{\"equal\": true}' WHERE id = %s", (status, made))
    scratch.execute(
        "UPDATE db_tenant_migrations SET proof = %s::jsonb, retained_until = now() + %s * interval '1 day' WHERE id = %s",
        (json.dumps(proof), days, made),
    )
    return str(made)


def test_moved_sources(scratch: Environment) -> None:
    """A source of which all is proved is dropped; one that is not proved, not due or whose tenant went elsewhere without a proof stays."""
    tenants = instances(5)
    source = pool(scratch, "postgres-pool-source")
    scratch.play("allocate", {"allocations": tenants}).succeeded()
    scratch.execute("UPDATE db_servers SET status = 'maintenance'")
    target = pool(scratch, "postgres-pool-target")
    scratch.execute("UPDATE db_servers SET status = 'active' WHERE status = 'maintenance'")
    ids = [tenant["instance_id"] for tenant in tenants]
    names_of = {one["instance_id"]: one["database_name"] for one in scratch.rows("SELECT instance_id::text, database_name FROM db_allocations")}
    # As a release puts a database aside.
    quarantined(scratch, source, names_of[ids[0]], "aside")
    quarantined(scratch, source, names_of[ids[4]], "moved_on")
    good = {"equal": True, "source_database": "aside"}
    for number, (proof, days) in enumerate([(good, -1), ({"equal": False, "source_database": "b"}, -1), (good, 1), (good, -1)]):
        move(scratch, ids[number], source, target, proof, days)
    move(scratch, ids[3], target, source, {"equal": False}, None)
    # There and back again, with a proof each time.
    move(scratch, ids[4], source, target, {"equal": True, "source_database": "moved_on"}, -1)
    move(scratch, ids[4], target, source, good, None)
    before = {database["name"] for database in scratch.contents(source)["databases"]}
    check = unchanged_by_check(scratch)
    outcome = cleanup(scratch).succeeded()
    same(check, outcome)
    assert [(one["action"], one["what"]) for one in outcome.stats["done"]] == [("drop", "moved source")] * 2
    assert before - {database["name"] for database in scratch.contents(source)["databases"]} == {"aside", "moved_on"}
    reasons = sorted(one["why"] for one in outcome.stats["kept"] if one["what"] == "moved source")
    assert len(reasons) == 3
    for reason, words in zip(reasons, ("it is kept until", "its tenant is on postgres-pool-source now", "there is no proof")):
        assert words in reason
    kept = scratch.rows("SELECT count(*) FROM db_tenant_migrations WHERE retained_until IS NOT NULL")
    assert kept == [{"count": 3}]
    nothing_left(scratch)


def test_applications_forget_where_they_were(scratch: Environment) -> None:
    """When the source of a move is dropped there is no way back: what is kept beside an application's file for it goes too."""
    tenants = instances(2)
    settings = [scratch.home / "settled{0}.conf".format(number) for number in range(2)]
    pool(scratch, "postgres-pool-source")
    for tenant, file in zip(tenants, settings):
        file.write_text("[options]\ndb_port = 1\n")
        tenant["application"] = {"file": [{"path": str(file), "keys": {"db_port": "port"}}]}  # type: ignore[assignment]
    scratch.play("allocate", {"allocations": tenants}).succeeded()
    scratch.execute("UPDATE db_servers SET status = 'maintenance'")
    target = pool(scratch, "postgres-pool-target")
    scratch.execute("UPDATE db_servers SET status = 'active' WHERE status = 'maintenance'")
    for tenant in tenants:
        scratch.play("migrate", {"instance_id": tenant["instance_id"], "target": target["name"]}).succeeded()
    former = [file.parent / ".{0}.postgres_pools.json".format(file.name) for file in settings]
    assert all(file.exists() for file in former) and nothing_left(scratch) and all(file.exists() for file in former)
    scratch.execute("UPDATE db_tenant_migrations SET retained_until = now() - interval '1 hour'")
    # As if the second one's were a service, of a Swarm that nobody can ask: that is told, and the source goes all the same.
    second = "(SELECT id FROM db_allocations WHERE instance_id = %s)"
    scratch.execute(
        "UPDATE db_tenant_migrations SET application = %s::jsonb WHERE allocation_id = " + second, (json.dumps({"service": "s"}), tenants[1]["instance_id"])
    )
    cleanup(scratch, "--check").succeeded()
    assert all(file.exists() for file in former)
    outcome = cleanup(scratch)
    assert outcome.rc != 0 and [one["what"] for one in outcome.stats["failed"]] == ["application"], outcome.output
    assert "tenant_application_manager must name a Swarm manager" in outcome.stats["failed"][0]["why"]
    assert [one["what"] for one in outcome.stats["done"]] == ["moved source", "moved source"]
    assert [file.exists() for file in former] == [False, True]
    assert [file.read_text() for file in settings] == ["[options]\ndb_port = {0}\n".format(target["port"])] * 2
    nothing_left(scratch)


def test_a_dedicated_server_whose_tenant_is_gone(scratch: Environment) -> None:
    first, second = (dict(one, plan_tier="premium") for one in instances(2))
    scratch.play("allocate", {"allocations": [first, second]}).succeeded()
    # One that waits for its tenant was emptied by nobody.
    scratch.play("provision_dedicated", dict(instances(1)[0], plan_tier="premium")).succeeded()
    scratch.play("release", {"instance_ids": [first["instance_id"]]}).succeeded()
    soon = 1 / 3600
    assert cleanup(scratch, emptied_hours=soon).succeeded().stats["done"] == [], "its database is kept"
    scratch.execute("UPDATE db_allocations SET drop_after = now() - interval '1 hour' WHERE instance_id = %s", (first["instance_id"],))
    assert [one["what"] for one in cleanup(scratch, emptied_hours=soon).succeeded().stats["done"]] == ["released database"]
    nothing_left(scratch)
    time.sleep(1)
    check = unchanged_by_check(scratch, emptied_hours=soon)
    outcome = cleanup(scratch, emptied_hours=soon).succeeded()
    same(check, outcome)
    name = "postgres-dedicated-" + first["instance_id"][:8]
    assert names(outcome) == [name] and "it answers and holds no database" in outcome.stats["done"][0]["why"]
    assert sorted(server["status"] for server in scratch.servers()) == ["active", "deprovisioned", "full"]
    assert row(scratch, name)["status"] == "deprovisioned" and not Path(row(scratch, name)["storage_path"]).exists()
    nothing_left(scratch, emptied_hours=soon)


def quarantined(scratch: Environment, server: Dict[str, Any], name: str, aside: str) -> None:
    password = scratch.cipher().decrypt(server["admin_password_encrypted"], server["name"])
    run(
        scratch,
        [
            module(
                "tenant_database",
                "put_aside",
                login_host=server["host"],
                login_port=server["port"],
                login_user="postgres",
                login_password=password,
                state="quarantined",
                databases=[{"name": name, "quarantine_name": aside}],
            )
        ],
    ).succeeded()


def test_directories_without_a_row(scratch: Environment) -> None:
    """An empty one and a stopped one go into the archive when they are old; a running one with a database stays, and so does what is not ours."""
    known = [pool(scratch, "postgres-pool-known{0}".format(number)) for number in range(4)]
    lost = {name: pool(scratch, "postgres-pool-" + name) for name in ("empty", "young", "inuse", "held")}
    for name in ("inuse", "held"):
        with contextlib.closing(scratch.connect(lost[name])) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE {0}".format(HIDDEN))
    for name in ("empty", "young", "held"):
        stop(lost[name])
    scratch.execute("DELETE FROM db_servers WHERE name NOT LIKE 'postgres-pool-known%'")
    paths = {name: Path(server["storage_path"]) for name, server in lost.items()}
    root = Path(known[0]["storage_path"]).parent
    for name in ("empty", "inuse", "held"):
        age(paths[name], 2)
    foreign = root / "pool-foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("not a server's")
    age(foreign, 9)
    # Five without a row and four with one would be refused.
    pool(scratch, "postgres-pool-known4")
    check = unchanged_by_check(scratch)
    outcome = cleanup(scratch).succeeded()
    same(check, outcome)
    assert sorted(names(outcome)) == sorted(str(paths[name]) for name in ("empty", "held"))
    assert "left alone until" in why(outcome, str(paths["young"]))
    # Its row of pg_database may not be on the disk yet, and then its OID is its name.
    assert "a PostgreSQL runs in it, and it holds" in why(outcome, str(paths["inuse"]))
    assert "no part of a server" in why(outcome, str(foreign))
    archived = {path.name.rpartition("-")[0] for path in (root / "archived").iterdir()}
    assert archived == {"pool-empty", "pool-held"}
    assert {server["status"] for server in scratch.servers()} == {"active"}
    with contextlib.closing(scratch.connect(lost["inuse"], HIDDEN)):
        pass
    nothing_left(scratch)


def test_old_archives(scratch: Environment) -> None:
    """One goes whose databases are all known and gone; those that hold a live tenant's, an unknown one or are young stay."""
    pool(scratch, "postgres-pool-present")
    tenant = instances(1)[0]
    scratch.play("allocate", tenant).succeeded()
    live = scratch.rows("SELECT database_name FROM db_allocations")[0]["database_name"]
    root = Path(scratch.servers()[0]["storage_path"]).parent
    archived = {}
    for name in ("gone", "live", "unknown", "young"):
        server = pool(scratch, "postgres-pool-" + name)
        if name in ("live", "unknown"):
            with contextlib.closing(scratch.connect(server)) as connection, connection.cursor() as cursor:
                cursor.execute('CREATE DATABASE "{0}"'.format(live if name == "live" else HIDDEN))
        stop(server)
        days = 40 if name != "young" else 5
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - days * DAY))
        (root / "archived").mkdir(exist_ok=True)
        archived[name] = root / "archived" / "pool-{0}-{1}".format(name, stamp)
        Path(server["storage_path"]).rename(archived[name])
        scratch.execute("DELETE FROM db_servers WHERE name = %s", (server["name"],))
    half = root / "archived" / ".removing-pool-half-20200101T000000Z"
    (half / "data" / "base").mkdir(parents=True)
    check = unchanged_by_check(scratch)
    outcome = cleanup(scratch).succeeded()
    same(check, outcome)
    assert sorted(names(outcome)) == sorted([str(half), str(archived["gone"])])
    assert "it holds {0}, which is allocated".format(live) in why(outcome, str(archived["live"]))
    assert "it holds {0}, which the inventory database never knew".format(HIDDEN) in why(outcome, str(archived["unknown"]))
    assert "it is kept until" in why(outcome, str(archived["young"]))
    assert {path.name for path in (root / "archived").iterdir()} == {archived[name].name for name in ("live", "unknown", "young")}
    assert events(scratch).count("cleanup.removed") == 2
    nothing_left(scratch)


def test_a_limit_over_all_that_goes(scratch: Environment) -> None:
    servers = [pool(scratch, "postgres-pool-many{0}".format(number)) for number in range(3)]
    for number, server in enumerate(servers):
        fail(scratch, server["name"], hours=30 + number)
    first = cleanup(scratch, limit=2).succeeded()
    # The oldest first.
    assert names(first) == ["postgres-pool-many2", "postgres-pool-many1"]
    assert names(first, "left") == ["postgres-pool-many0"]
    assert unchanged_by_check(scratch, limit=0).stats["done"] == []
    second = cleanup(scratch, limit=2).succeeded()
    assert names(second) == ["postgres-pool-many0"] and names(second, "left") == []
    nothing_left(scratch)


def test_a_registry_that_knows_less_than_there_is(scratch: Environment) -> None:
    """As after a restore from an old backup: nothing at all is done."""
    servers = [pool(scratch, "postgres-pool-fleet{0}".format(number)) for number in range(3)]
    for server in servers:
        stop(server)
        age(Path(server["storage_path"]), 90)
    scratch.execute("DELETE FROM db_servers WHERE name <> 'postgres-pool-fleet0'")
    fail(scratch, "postgres-pool-fleet0", hours=90)
    refused(scratch, "There are 2 servers without a row, more than the 1 that the inventory database knows.")
    scratch.execute("DELETE FROM db_servers")
    refused(scratch, "The inventory database knows no server, but there are 3 without a row")
    assert all((Path(server["storage_path"]) / "data" / "PG_VERSION").exists() for server in servers)


def refused(scratch: Environment, words: str) -> None:
    before = scratch.dump()
    for flags in ((), ("--check",)):
        outcome = cleanup(scratch, *flags)
        assert outcome.rc != 0
        assert words in " ".join(outcome.output.split()), outcome.output
    assert not difference(before, scratch.dump())


def test_two_at_once(scratch: Environment) -> None:
    server = pool(scratch, "postgres-pool-once")
    fail(scratch, server["name"])
    runs = [scratch.start("cleanup") for _each in range(2)]
    outcomes = [run.wait(300).succeeded() for run in runs]
    done = [outcome for outcome in outcomes if outcome.stats["done"]]
    assert len(done) == 1
    other = next(outcome for outcome in outcomes if outcome is not done[0])
    # It came while the other was at work, or after it had ended.
    assert other.stats["status"] in ("busy", "clean")
    assert other.changed == 0
    assert events(scratch) == ["cleanup.began", "cleanup.deprovisioned", "cleanup.ended"]
    assert len(list((Path(server["storage_path"]).parent / "archived").iterdir())) == 1


def test_a_run_beside_another_is_told_so(scratch: Environment) -> None:
    server = pool(scratch, "postgres-pool-busy")
    fail(scratch, server["name"])
    begun = "INSERT INTO db_events (kind, detail) VALUES ('cleanup.began', jsonb_build_object('until', now() + %s * interval '1 second'))"
    scratch.execute(begun, (60,))
    busy = cleanup(scratch).succeeded()
    assert busy.stats["status"] == "busy" and busy.changed == 0
    assert row(scratch, server["name"])["status"] == "error"
    # A lease that ran out is nobody's.
    scratch.execute(begun, (-1,))
    assert cleanup(scratch).succeeded().stats["status"] == "cleaned"


def test_a_server_that_cannot_be_asked_for_a_drop_stops_no_other(scratch: Environment) -> None:
    tenants = instances(1)
    first = pool(scratch, "postgres-pool-first")
    scratch.play("allocate", {"allocations": tenants}).succeeded()
    scratch.execute("UPDATE db_servers SET allocation_strategy = 'manual'")
    other = pool(scratch, "postgres-pool-second")
    more = instances(1)
    scratch.play("allocate", {"allocations": more}).succeeded()
    scratch.play("release", {"instance_ids": [one["instance_id"] for one in tenants + more]}).succeeded()
    scratch.execute("UPDATE db_allocations SET drop_after = now() - interval '1 hour'")
    stop(first)
    outcome = cleanup(scratch)
    assert outcome.rc != 0 and outcome.stats["status"] == "failed", outcome.output
    assert [one["name"].rpartition(" on ")[2] for one in outcome.stats["failed"]] == [first["name"]]
    assert [one["name"].rpartition(" on ")[2] for one in outcome.stats["done"]] == [other["name"]]
    dropped = scratch.rows("SELECT s.name FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.dropped_at IS NOT NULL")
    assert [found["name"] for found in dropped] == [other["name"]]
    with pytest.raises(psycopg2.OperationalError):
        scratch.connect(first)


def test_bad_input_is_refused(scratch: Environment) -> None:
    pool(scratch, "postgres-pool-input")
    before = scratch.dump()
    for variables, words in (({"limit": -1}, "limit is -1"), ({"archive_days": -0.5}, "archive_days is -0.5"), ({"limit": "many"}, "many")):
        outcome = cleanup(scratch, **variables)
        assert outcome.rc != 0
        assert words in outcome.output, outcome.output
    assert not difference(before, scratch.dump())

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import struct
from typing import Any, Dict, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cleanup_files, _cleanup_storage
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cleanup_plan import (
    Facts,
    Rules,
    decide,
    moment,
    swarm_objects,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.timezone.utc)
ROOT = "/srv/postgres_pools"


def ago(**how: float) -> datetime.datetime:
    return NOW - datetime.timedelta(**how)


def server(name: str = "postgres-pool-1", **more: Any) -> Dict[str, Any]:
    base = {
        "name": name,
        "server_type": "shared",
        "status": "error",
        "storage_path": "{0}/{1}".format(ROOT, name.replace("postgres-", "", 1)),
        "backend": "process",
        "leased": False,
        "used": True,
        "live": 0,
        "undropped": 0,
        "since": ago(hours=25),
        "answer": {"databases": []},
    }
    return dict(base, **more)


def directory(name: str = "pool-1", **more: Any) -> Dict[str, Any]:
    archived = more.get("archived", False)
    base = {
        "path": "{0}/{1}{2}".format(ROOT, "archived/" if archived else "", name),
        "name": name,
        "root": ROOT,
        "archived": False,
        "half_removed": False,
        "since": ago(days=60).isoformat(),
        "made": True,
        "running": False,
        "held": "",
        "databases": [],
        "clean": True,
        "unreadable": "",
        "backend": "process",
        "place": "process",
    }
    return dict(base, **more)


DEFAULTS = Rules()


def decided(rules: Rules = DEFAULTS, **facts: Any) -> Any:
    return decide(Facts(NOW, **facts), rules)


def kept(plan: Any) -> str:
    assert plan.items == [] and not plan.refused
    assert len(plan.kept) == 1, plan.kept
    return str(plan.kept[0]["why"])


SILENT = {"answer": {"problem": "connection refused."}}


@pytest.mark.parametrize(
    ("row", "files", "reason"),
    [
        (server(live=1), None, "it has 1 live allocation"),
        (server(live=2, since=ago(days=9)), None, "it has 2 live allocations"),
        (server(undropped=1), None, "must be dropped first"),
        (server(leased=True), None, "a run is making it"),
        (server(since=ago(hours=23)), None, "until 2026-03-01 13:00 UTC"),
        (server(server_type="platform"), None, "the platform's own"),
        (server(answer={"databases": ["a", "b"]}), directory(), "it answers, and holds a, b"),
        (server(answer={"databases": list("abcdefg")}), None, "holds a, b, c, d, e and 2 more"),
        (server(answer=None), None, "it was not asked"),
        (server(**SILENT), None, "its directory /srv/postgres_pools/pool-1 was not found"),
        (server(**SILENT), directory(databases=["odoo_x"]), "does not answer (connection refused), and its directory holds odoo_x"),
        (server(**SILENT), directory(clean=False), "its write-ahead log may hold more"),
        (server(**SILENT), directory(unreadable="it has tablespaces"), "proves nothing: it has tablespaces"),
        (server(**SILENT), directory(held="a PostgreSQL runs in it", running=True), "proves nothing: a PostgreSQL runs in it"),
        (server(used=False, **SILENT), directory(databases=["OID 16384"]), "its directory holds OID 16384"),
    ],
)
def test_a_failed_server_is_kept(row: Dict[str, Any], files: Any, reason: str) -> None:
    plan = decided(servers=[row], directories=[files] if files else [], roots=frozenset([ROOT]))
    assert reason in kept(plan)


@pytest.mark.parametrize(
    ("row", "files", "proof"),
    [
        (server(), directory(), "it answers and holds no database"),
        (server(**SILENT), directory(), "it was shut down in order and its directory holds no database"),
        (server(used=False, **SILENT), directory(clean=False), "it never came up and its directory holds no database"),
        (server(used=False, **SILENT), None, "it was never made: there is no /srv/postgres_pools/pool-1"),
    ],
)
def test_a_failed_server_that_is_proved_empty_goes(row: Dict[str, Any], files: Any, proof: str) -> None:
    plan = decided(servers=[row], directories=[files] if files else [], roots=frozenset([ROOT]))
    assert [(item["action"], item["name"]) for item in plan.items] == [("deprovision", row["name"])]
    assert proof in plan.items[0]["why"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"emptied": ago(hours=71)}, "it was emptied, and is kept until 2026-03-01 13:00 UTC"),
        ({"answer": {"databases": ["odoo_x"]}}, "its tenant is gone, and it holds odoo_x"),
        ({"answer": {"problem": "connection refused."}}, "it was emptied, and does not answer (connection refused)"),
        ({"answer": None}, "it was not asked"),
    ],
)
def test_a_server_whose_tenant_is_gone_is_kept(more: Dict[str, Any], reason: str) -> None:
    row = server("postgres-dedicated-1", **dict({"server_type": "dedicated", "status": "active", "emptied": ago(hours=73)}, **more))
    assert reason in kept(decided(Rules(emptied_hours=72), servers=[row]))


def test_a_server_whose_tenant_is_gone_goes_when_that_is_asked_for() -> None:
    row = server("postgres-dedicated-1", server_type="dedicated", status="active", emptied=ago(hours=73))
    plan = decided(Rules(emptied_hours=72), servers=[row])
    assert [(item["action"], item["name"], item["emptied"]) for item in plan.items] == [("deprovision", "postgres-dedicated-1", True)]
    assert "gone since 2026-02-26 11:00 UTC; it answers and holds no database" in plan.items[0]["why"]
    plan = decided(servers=[row])
    assert plan.items == [] and plan.kept == []


def test_a_storage_that_is_not_there_proves_nothing() -> None:
    assert "was not found" in kept(decided(servers=[server(used=False, **SILENT)]))


def test_servers_in_use_are_not_spoken_of_and_a_begun_removal_goes_on() -> None:
    plan = decided(servers=[server(status="active"), server("postgres-pool-2", status="deprovisioning", since=ago(minutes=1))])
    assert [item["name"] for item in plan.items] == ["postgres-pool-2"]
    assert plan.kept == []


def released(**more: Any) -> Dict[str, Any]:
    base = {"quarantine_name": "x_released", "database": "x", "server": "postgres-pool-1", "server_status": "active", "drop_after": ago(days=1)}
    return dict(base, **more)


def test_released_databases() -> None:
    assert [item["action"] for item in decided(released=[released()]).items] == ["drop"]
    assert "it is kept until 2026-03-02" in kept(decided(released=[released(drop_after=ago(days=-1))]))
    assert kept(decided(released=[released(server_status="error")])) == "its server is error"


def test_one_name_is_dropped_once_on_a_server() -> None:
    twice = [released(), released(quarantine_name="y_released"), released(server="postgres-pool-2")]
    plan = decided(released=twice)
    assert len(plan.items) == 2
    assert [item["name"] for item in plan.left] == ["y_released on postgres-pool-1"]


def moved(**more: Any) -> Dict[str, Any]:
    base = {
        "proof": {"equal": True, "source_database": "x_aside"},
        "database": "x",
        "server": "a",
        "target": "b",
        "place": "b",
        "allocation_status": "active",
        "server_status": "active",
        "retained_until": ago(days=1),
    }
    return dict(base, **more)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"retained_until": ago(days=-1)}, "kept until"),
        ({"allocation_status": "migrating"}, "its allocation is migrating"),
        ({"place": "a"}, "its tenant is on a now"),
        ({"place": "c"}, "its tenant is on c now"),
        ({"place": "b", "led_to": "c"}, "its tenant is on b now"),
        ({"proof": None}, "no proof"),
        ({"proof": {"equal": False, "source_database": "x_aside"}}, "no proof"),
        ({"proof": {"equal": True}}, "under which name"),
        ({"proof": {"equal": True, "source_database": "x"}}, "under which name"),
        ({"server_status": "error"}, "its server is error"),
    ],
)
def test_a_moved_source_is_kept(more: Dict[str, Any], reason: str) -> None:
    assert reason in kept(decided(moves=[moved(**more)]))


def test_a_moved_source_goes() -> None:
    # So too where later moves, each proved, led the tenant on, or back to where it came from.
    for more in ({}, {"place": "c", "led_to": "c"}, {"place": "a", "led_to": "a"}):
        plan = decided(moves=[moved(**more)])
        assert [(item["action"], item["row"]["quarantine_name"]) for item in plan.items] == [("drop", "x_aside")]


def test_a_registry_without_servers_refuses() -> None:
    assert "knows no server" in decided(directories=[directory()]).refused
    assert "knows no server" in decided(directories=[directory("pool-1-20250101T000000Z", archived=True)]).refused
    assert not decided().refused
    lost = [directory("pool-{0}".format(number)) for number in range(2, 5)]
    plan = decided(servers=[server(status="active"), server("postgres-pool-9", status="deprovisioned")], directories=lost)
    assert "3 servers without a row, more than the 1" in plan.refused
    assert plan.items == [] and plan.kept == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"name": "alpha"}, "no name that the collection gives"),
        ({"since": ago(hours=23).isoformat()}, "left alone until"),
        ({"since": None}, "how old it is"),
        ({"made": False}, "it has no lock"),
        ({"unreadable": "it holds 'x'"}, "it holds 'x'"),
        ({"held": "another run is at work on it"}, "another run is at work"),
        ({"held": "a PostgreSQL runs in it", "running": True, "databases": ["odoo_x"]}, "holds odoo_x"),
        ({"databases": ["odoo_live"]}, "it holds odoo_live, which is allocated"),
    ],
)
def test_a_directory_without_a_row_is_kept(more: Dict[str, Any], reason: str) -> None:
    one = directory("pool-2", **{key: value for key, value in more.items() if key != "name"})
    if "name" in more:
        one.update(name=more["name"], path="{0}/{1}".format(ROOT, more["name"]))
    plan = decided(servers=[server(status="active")], directories=[directory(), one], wanted_databases=frozenset(["odoo_live"]))
    assert reason in kept(plan)


def test_less_than_an_hour_is_never_old() -> None:
    young = directory("pool-2", since=ago(minutes=50).isoformat())
    assert "left alone" in kept(decided(Rules(orphan_hours=0), servers=[server(status="active")], directories=[young]))


def test_a_directory_with_another_place_in_the_registry_is_kept() -> None:
    elsewhere = server(status="active", storage_path="/other/postgres_pools/pool-1")
    assert "has its data elsewhere" in kept(decided(servers=[elsewhere], directories=[directory()]))


@pytest.mark.parametrize("more", [{}, {"databases": ["odoo_gone"]}, {"held": "a PostgreSQL runs in it", "running": True}])
def test_a_directory_without_a_row_is_archived(more: Dict[str, Any]) -> None:
    plan = decided(servers=[server(status="active")], directories=[directory("pool-2", **more)])
    assert [(item["action"], item["server"]) for item in plan.items] == [("archive", "postgres-pool-2")]


def archive(days: float = 31, **more: Any) -> Dict[str, Any]:
    return directory("pool-7-20260101T000000Z", archived=True, since=ago(days=days).isoformat(), **more)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (archive(29), "kept until"),
        (archive(databases=["live"]), "it holds live, which is allocated"),
        (archive(databases=["stranger"]), "it holds stranger, which the inventory database never knew"),
        (archive(unreadable="it cannot be read"), "cannot be read"),
        (archive(held="a PostgreSQL runs in it"), "runs in it"),
        (dict(archive(), since=None), "does not say when"),
        (archive(half_removed=True, held="a PostgreSQL runs in it"), "runs in it"),
    ],
)
def test_an_archive_is_kept(one: Dict[str, Any], reason: str) -> None:
    known = {"wanted_databases": frozenset(["live"]), "known_databases": frozenset(["live", "gone"])}
    assert reason in kept(decided(servers=[server(status="active")], directories=[one], **known))


@pytest.mark.parametrize("one", [archive(), archive(databases=["gone"]), archive(half_removed=True, unreadable="half of it is gone")])
def test_an_archive_goes(one: Dict[str, Any]) -> None:
    plan = decided(servers=[server(status="active")], directories=[one], known_databases=frozenset(["gone"]))
    assert [(item["action"], item["path"]) for item in plan.items] == [("remove", one["path"])]


def test_the_oldest_first_and_no_more_than_the_limit() -> None:
    rows = [server("postgres-pool-{0}".format(number), since=ago(days=number)) for number in range(2, 9)]
    plan = decided(Rules(limit=3), servers=rows)
    assert [item["name"][-1] for item in plan.items] == ["8", "7", "6"]
    assert [item["name"][-1] for item in plan.left] == ["5", "4", "3", "2"]


# --- a Swarm's objects, in the shape that docker inspect gives


def inspected(name: str, server_name: str, mounts: Any = None, updated: str = "2026-02-01T10:00:00.123456789Z") -> Dict[str, Any]:
    spec: Dict[str, Any] = {"Name": name, "Labels": {"postgres_pools.managed": "true", "postgres_pools.server": server_name}}
    if mounts is not None:
        spec["TaskTemplate"] = {"ContainerSpec": {"Image": "postgres:18-alpine", "Mounts": mounts}}
    return {"ID": "2m7vvn0e0qj3", "Version": {"Index": 21}, "CreatedAt": "2026-02-01T09:00:00Z", "UpdatedAt": updated, "Spec": spec}


def mounts(path: str) -> List[Dict[str, Any]]:
    return [
        {"Type": "bind", "Source": path, "Target": "/var/lib/postgresql"},
        {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": 1, "Mode": 1023}},
    ]


def test_what_docker_tells() -> None:
    path = "/mnt/cephfs/postgres_pools/pool-5"
    found = swarm_objects("service", [inspected("postgres-pool-5", "postgres-pool-5", mounts(path))])
    when = datetime.datetime(2026, 2, 1, 10, tzinfo=datetime.timezone.utc)
    assert found == [{"kind": "service", "name": "postgres-pool-5", "server": "postgres-pool-5", "since": when, "path": path}]
    assert swarm_objects("config", [{"Spec": {"Name": "other", "Labels": None}}]) == []
    assert swarm_objects("secret", [inspected("x-superuser", "x")])[0]["path"] is None
    assert moment("rubbish") is None


def swarm_fleet(files: Any, extra: Any = ()) -> Any:
    path = "{0}/pool-5".format(ROOT)
    objects = [
        *swarm_objects("service", [inspected("postgres-pool-5", "postgres-pool-5", mounts(path)), inspected("inventory-db", "inventory-db", mounts("/mnt/i"))]),
        *swarm_objects("secret", [inspected("postgres-pool-5-superuser", "postgres-pool-5"), inspected("postgres-pool-1-superuser", "postgres-pool-1")]),
        *swarm_objects("config", [inspected("postgres-pool-6-hba-1", "postgres-pool-6")]),
    ]
    return decided(servers=[server(status="active"), server("postgres-pool-2", status="active"), *extra], objects=objects, directories=files)


def test_a_service_without_a_row_goes_when_its_directory_is_empty_of_tenants() -> None:
    five = directory("pool-5", backend="swarm", held="a PostgreSQL holds its lock")
    plan = swarm_fleet([five])
    # The secret of a service that goes is its removal's business; that of the inventory database's own service nobody's.
    assert sorted((item["action"], item["what"], item["name"]) for item in plan.items) == [
        ("archive", "service", "postgres-pool-5"),
        ("remove", "config", "postgres-pool-6-hba-1"),
    ]
    assert [(one["name"], one["why"]) for one in plan.kept] == [("postgres-pool-5-superuser", "the service postgres-pool-5 is there")]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "nobody can say what it holds"),
        ([directory("pool-5", databases=["odoo_x"])], "it holds odoo_x"),
        ([directory("pool-5", unreadable="it cannot be read")], "it cannot be read"),
    ],
)
def test_a_service_without_a_row_stays_when_it_may_hold_a_tenant(files: Any, reason: str) -> None:
    plan = swarm_fleet(files)
    assert "postgres-pool-5" not in [item["name"] for item in plan.items]
    assert reason in next(one["why"] for one in plan.kept if one["name"] == "postgres-pool-5")


# --- the files of a data directory


def page_of(*rows: Any) -> bytes:
    """A heap page with rows of pg_database: (flags, OID, name)."""
    page = bytearray(8192)
    upper, lower = 8192, 24
    for flags, oid, name in rows:
        body = bytearray(24) + struct.pack("=I", oid) + name.encode().ljust(64, b"\0") + bytes(20)
        body[22] = 24
        upper -= len(body)
        page[upper : upper + len(body)] = body
        struct.pack_into("=I", page, lower, upper | flags << 15 | len(body) << 17)
        lower += 4
    struct.pack_into("=HH", page, 12, lower, upper)
    return bytes(page)


def test_the_names_in_a_page_of_pg_database() -> None:
    page = page_of((1, 5, "postgres"), (1, 16384, "odoo_ä"), (0, 16385, "unused"), (2, 16386, "redirected"))
    assert _cleanup_files.rows_of_page(page) == {5: "postgres", 16384: "odoo_ä"}
    assert _cleanup_files.rows_of_page(bytes(8192)) == {}
    assert _cleanup_files.rows_of_page(b"\xff" * 8192) == {}


def test_what_may_be_removed(tmp_path: Any) -> None:
    root = tmp_path / "postgres_pools"
    old = root / "archived" / "pool-1-20250101T000000Z"
    (old / "data").mkdir(parents=True)
    (old / "data" / "file").write_text("x")
    (old / "link").symlink_to(tmp_path)
    live = root / "pool-2"
    live.mkdir()
    options = {"roots": [str(root)], "state": "removed", "mount_path": "", "cluster_fsid": "", "timeout": 5}
    for path in (live, root, root / "archived", tmp_path / "archived" / "x", root / "archived" / ".." / "pool-2"):
        with pytest.raises(PoolsError, match="is no archive below"):
            _cleanup_storage.run(dict(options, paths=[str(path)]), False)
    assert _cleanup_storage.run(dict(options, paths=[str(old)]), True)["removed"] == [str(old)]
    assert old.exists()
    assert _cleanup_storage.run(dict(options, paths=[str(old)]), False) == {"changed": True, "removed": [str(old)], "failures": []}
    assert list((root / "archived").iterdir()) == [] and live.exists() and tmp_path.exists()
    assert not _cleanup_storage.run(dict(options, paths=[str(old)]), False)["changed"]

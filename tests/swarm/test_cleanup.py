# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cleanup.yml on a real Swarm: a server in error that holds nothing, one that holds a tenant's database, and a directory without a row."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, Dict

from swarm_fixture import Bed

POOLS = "/mnt/cephfs/postgres_pools"


def cleanup(bed: Bed, tmp_path: Path, *arguments: str) -> Dict[str, Any]:
    told = tmp_path / "{0}.json".format(uuid.uuid4().hex)
    done = bed.play("cleanup", *arguments, result_file=str(told))
    assert done.returncode == 0, done.stdout[-3000:]
    return dict(json.loads(told.read_text())) if told.exists() else {}


def a_pool(bed: Bed) -> Dict[str, Any]:
    done = bed.play("provision_pool")
    assert done.returncode == 0, done.stdout[-3000:]
    return bed.servers()[-1]


def failed_yesterday(bed: Bed, name: str) -> None:
    bed.sql_do("UPDATE db_servers SET status = 'error', status_reason = 'said by a test' WHERE name = '{0}'".format(name))
    bed.sql_do("UPDATE db_servers SET status_changed_at = now() - interval '25 hours' WHERE name = '{0}'".format(name))


def test_what_is_proved_empty_is_archived_and_what_holds_a_database_is_kept(bed: Bed, tmp_path: Path) -> None:
    empty, holding = a_pool(bed), a_pool(bed)
    node, container = bed.container(holding["name"])
    bed.inside(node, container, "psql", "-U", "postgres", "-qAtc", "CREATE DATABASE hidden")
    for row in (empty, holding):
        failed_yesterday(bed, row["name"])
    # As one that was copied there by hand, two days ago.
    stray = POOLS + "/pool-stray"
    bed.manager("mkdir", stray)
    bed.manager("touch", stray + "/.guard")
    bed.manager("touch", "-d", "2 days ago", stray + "/.guard", stray)

    cleanup(bed, tmp_path, "--check")
    assert {row["status"] for row in bed.servers() if row["name"] in (empty["name"], holding["name"])} == {"error"}

    found = cleanup(bed, tmp_path)
    assert {(one["what"], one["name"]) for one in found["done"]} == {("server", empty["name"]), ("directory", stray)}
    kept = {one["name"]: one["why"] for one in found["kept"]}
    assert kept[holding["name"]] == "it answers, and holds hidden"
    services = bed.manager("docker", "service", "ls", "--format", "{{.Name}}").split()
    assert holding["name"] in services and empty["name"] not in services
    archived = bed.manager("ls", POOLS + "/.archived").split()
    for name in ("pool-stray", Path(empty["storage_path"]).name):
        assert [one for one in archived if one.startswith(name + "-")], archived
    bed.manager("test", "!", "-e", stray)

    again = cleanup(bed, tmp_path)
    assert (again["status"], again["done"]) == ("clean", [])
    bed.inside(node, container, "psql", "-U", "postgres", "-qAtc", "DROP DATABASE hidden")
    assert [one["name"] for one in cleanup(bed, tmp_path)["done"]] == [holding["name"]]


def test_with_a_fake_age_a_service_without_a_row_is_removed(bed: Bed, tmp_path: Path) -> None:
    """Docker says itself when a service was made, and none is touched within its first hour: so the answers are made older on their way."""
    # Cleanup stops where more servers are without a row than have one: that would be an old inventory database.
    a_pool(bed)
    name = a_pool(bed)["name"]
    bed.sql_do("DELETE FROM db_health_checks WHERE server_id = (SELECT id FROM db_servers WHERE name = '{0}')".format(name))
    bed.sql_do("DELETE FROM db_servers WHERE name = '{0}'".format(name))

    def there(kind: str) -> bool:
        return name in bed.manager("docker", kind, "ls", "--format", "{{.Name}}")

    kept = {one["name"]: one["why"] for one in cleanup(bed, tmp_path)["kept"]}
    assert "is left alone until" in kept[name] and there("service")

    old: Dict[str, Any] = {}
    for kind in ("service", "secret", "config"):
        ids = bed.manager("docker", kind, "ls", "--quiet", "--filter", "label=postgres_pools.server").split()
        objects = json.loads(bed.manager("docker", kind, "inspect", *ids))
        old[kind] = [dict(one, CreatedAt="2020-01-01T00:00:00Z", UpdatedAt="2020-01-01T00:00:00Z") for one in objects]
    told = tmp_path / "aged.json"
    done = bed.play("cleanup", _fleet_cleanup_swarm=old, result_file=str(told))
    assert done.returncode == 0, done.stdout[-3000:]
    assert name in {one["name"] for one in json.loads(told.read_text())["done"]}
    assert not there("service") and not there("secret") and not there("config")

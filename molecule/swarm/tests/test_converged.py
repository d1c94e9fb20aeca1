# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Swarm and the CephFS as converge.yml left them: services, mounts, secrets, limits, labels, and the tenants' databases."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List

import pytest
from swarm_fixture import Bed

GIB = 1 << 30


@pytest.fixture(scope="module")
def pool(bed: Bed) -> Dict[str, Any]:
    return next(row for row in bed.servers() if row["name"] == bed.result("shared")["server"])


@pytest.fixture(scope="module")
def services(bed: Bed) -> Dict[str, Dict[str, Any]]:
    names = bed.manager("docker", "service", "ls", "--filter", "label=postgres_pools.managed=true", "--format", "{{.Name}}").split()
    return {one["Spec"]["Name"]: one for one in json.loads(bed.manager("docker", "service", "inspect", *names))}


def container(service: Dict[str, Any]) -> Dict[str, Any]:
    return dict(service["Spec"]["TaskTemplate"]["ContainerSpec"])


def test_there_are_a_pool_a_dedicated_server_and_the_inventory_database(services: Dict[str, Any], bed: Bed) -> None:
    pool = bed.result("shared")["server"]
    assert sorted(services) == ["inventory-db", "postgres-dedicated-5e2b9d34", pool]
    rows = {row["name"]: row for row in bed.servers()}
    assert {name: row["status"] for name, row in rows.items()} == {pool: "active", "postgres-dedicated-5e2b9d34": "full"}
    for name, row in rows.items():
        assert (row["swarm_service_id"], row["swarm_service_name"]) == (services[name]["ID"], name)
        assert (row["backend"], row["host"], row["port"], row["health_status"]) == ("swarm", name, 5432, "healthy")


def test_a_service_is_one_that_postgres_can_live_in(services: Dict[str, Any]) -> None:
    for service in services.values():
        spec = service["Spec"]
        assert spec["Mode"] == {"Replicated": {"Replicas": 1}}
        assert spec["EndpointSpec"]["Mode"] == "dnsrr"
        assert spec["TaskTemplate"]["Placement"]["Constraints"] == ["node.labels.role == database"]
        assert spec["UpdateConfig"]["Order"] == "stop-first"
        restart = spec["TaskTemplate"]["RestartPolicy"]
        assert (restart["Condition"], restart.get("MaxAttempts", 0)) == ("any", 0)
        assert restart["Delay"] > 0
        assert container(service)["StopGracePeriod"] == 120 * 10**9
        assert container(service)["StopSignal"] == "SIGINT"


def test_limits_and_half_of_them_reserved(services: Dict[str, Any], bed: Bed) -> None:
    for row in bed.servers():
        resources = services[row["name"]]["Spec"]["TaskTemplate"]["Resources"]
        assert resources["Limits"] == {"NanoCPUs": int(row["cpu_limit"] * 10**9), "MemoryBytes": row["memory_limit_bytes"]}
        assert resources["Reservations"] == {"NanoCPUs": int(row["cpu_limit"] * 10**9) // 2, "MemoryBytes": row["memory_limit_bytes"] // 2}


def test_data_lie_on_cephfs_with_owner_and_quota(bed: Bed) -> None:
    for row in bed.servers():
        found = bed.manager("stat", "-c", "%u:%g %a", row["storage_path"]).split()
        assert found == ["999:999", "700"]
        quota = int(bed.manager("getfattr", "--absolute-names", "--only-values", "-n", "ceph.quota.max_bytes", row["storage_path"]))
        assert quota > row["storage_budget_bytes"]
        # Up to 17 the image's volume lies one level deeper.
        data = "pgdata" if row["postgres_image"] == bed.facts["swarm_bed_images"]["postgres_15"] else "18"
        assert sorted(bed.manager("ls", "-A", row["storage_path"]).split()) == sorted([".guard", data, "tls"])


def test_the_container_has_its_data_and_enough_shared_memory(bed: Bed, pool: Dict[str, Any]) -> None:
    node, container_id = bed.container(pool["name"])
    size = int(bed.inside(node, container_id, "df", "--output=size", "-B1", "/dev/shm").split()[1])
    assert size == pytest.approx(pool["memory_limit_bytes"] / 4, rel=0.01)
    assert bed.inside(node, container_id, "sh", "-c", "echo $PGDATA").strip() == "/var/lib/postgresql/18/docker"
    fsid = bed.on(node, "getfattr", "--absolute-names", "--only-values", "-n", "ceph.cluster_fsid", pool["storage_path"])
    assert fsid == bed.facts["swarm_bed_cluster_fsid"]


def test_the_lock_is_held_by_the_server(bed: Bed, pool: Dict[str, Any]) -> None:
    node, container_id = bed.container(pool["name"])
    refused = bed.inside(node, container_id, "sh", "-c", "exec 9>>/var/lib/postgresql/.guard; flock -n 9 || echo refused")
    assert refused.strip() == "refused"


def test_no_password_in_what_docker_shows_nor_in_a_process_list(services: Dict[str, Any], bed: Bed) -> None:
    shown = json.dumps(services)
    ids = bed.manager("docker", "service", "ps", "--quiet", "--no-trunc", *services).split()
    shown += bed.manager("docker", "inspect", "--type", "task", *ids)
    configs = bed.manager("docker", "config", "ls", "--quiet").split()
    configs_shown = json.loads(bed.manager("docker", "config", "inspect", *configs))
    shown += json.dumps(configs_shown) + "".join(bed.decoded(config) for config in configs_shown)
    for node in bed.nodes:
        shown += bed.on(node, "ps", "-eww", "-o", "args")
        running = bed.on(node, "docker", "ps", "--quiet").split()
        if running:
            shown += bed.on(node, "docker", "inspect", *running)
    secrets = bed.secrets()
    assert len(secrets) >= 6
    for secret in secrets:
        assert secret not in shown
    # The search itself works: what may be seen is.
    assert "POSTGRES_PASSWORD_FILE" in shown


def test_a_tenant_reaches_its_database_by_name_from_another_node(bed: Bed) -> None:
    for kind, major in (("shared", 18), ("dedicated", 15)):
        result = bed.result(kind)
        node, _unused = bed.container(result["server"])
        other = next(one for one in bed.nodes if one != node)
        answer = bed.query_from(other, result, "SELECT current_user || ' ' || current_database() || ' ' || current_setting('server_version_num')")
        assert re.match(r"{0} {1} {2}\d+$".format(result["user"], result["database"], major), answer)


def test_tenants_come_by_tls_with_the_authority_that_was_handed_out(bed: Bed) -> None:
    result = bed.result("shared")
    assert result["sslmode"] == "verify-full"
    assert "sslmode=verify-full" in result["dsn"]
    assert bed.query_from("sw1", result, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
    with pytest.raises(AssertionError, match="no encryption"):
        bed.query_from("sw1", result, "SELECT 1", sslmode="disable")
    # One of the world's authorities, whole, that has nothing to do with it.
    other = dict(result, ca_certificate=bed.on("sw1", "sh", "-c", 'cat "$(ls /etc/ssl/certs/*.pem | head -n 1)"'))
    with pytest.raises(AssertionError, match="certificate verify failed"):
        bed.query_from("sw1", other, "SELECT 1")


def test_the_settings_fit_the_memory_limit(bed: Bed, pool: Dict[str, Any]) -> None:
    node, container_id = bed.container(pool["name"])
    values = bed.inside(node, container_id, "psql", "-U", "postgres", "-qAtc", "SELECT pg_size_bytes(current_setting('shared_buffers'))").split()
    assert int(values[0]) == pool["memory_limit_bytes"] // 4


def test_the_wall_is_the_one_in_force(bed: Bed, pool: Dict[str, Any]) -> None:
    node, container_id = bed.container(pool["name"])
    query = "SELECT type || ' ' || auth_method FROM pg_hba_file_rules ORDER BY line_number"
    lines: List[str] = bed.inside(node, container_id, "psql", "-U", "postgres", "-qAtc", query).split("\n")
    assert lines[0] == "local peer"
    assert [line for line in lines if line][-1] == "host reject"

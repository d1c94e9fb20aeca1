# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant moved between servers of the Swarm, from PostgreSQL 15 to 18, over TLS and out of the client host."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, Dict

from swarm_fixture import Bed


def good(done: Any) -> str:
    assert done.returncode == 0, done.stdout[-4000:]
    return str(done.stdout)


def test_from_a_server_of_its_own_to_a_pool_and_back(bed: Bed, tmp_path: Path) -> None:
    small = "cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20, connections = 4, storage_bytes = 1::bigint << 30"
    bed.sql_do("UPDATE db_plans SET {0} WHERE plan_tier IN ('free', 'premium')".format(small))
    instance_id, result_file = str(uuid.uuid4()), tmp_path / "result.json"
    request: Dict[str, Any] = {"instance_id": instance_id, "customer_id": instance_id, "result_file": str(result_file)}

    def connection() -> Dict[str, Any]:
        good(bed.play("allocate", plan_tier="premium", **request))
        return dict(json.loads(result_file.read_text()))

    good(bed.play("allocate", plan_tier="premium", postgres_pools_image="postgres:15", **request))
    before = connection()
    bed.query_from("sw1", before, "CREATE TABLE kept AS SELECT n AS number FROM generate_series(1, 50000) n; CREATE INDEX ON kept (number)")
    assert bed.query_from("sw2", before, "SELECT current_setting('server_version_num')::int / 10000") == "15"

    good(bed.play("change_plan", instance_id=instance_id, plan_tier="free"))
    pooled = connection()
    assert pooled["server"] != before["server"] and (pooled["database"], pooled["user"], pooled["password"]) == tuple(
        before[key] for key in ("database", "user", "password")
    )
    assert bed.query_from("sw2", pooled, "SELECT count(*), current_setting('server_version_num')::int / 10000 FROM kept") == "50000|18"
    move = bed.sql(
        "SELECT m.status, m.proof FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id WHERE a.instance_id = '{0}'".format(instance_id)
    )[0]
    assert move["status"] == "completed" and move["proof"]["equal"] and move["proof"]["downtime_seconds"] < 120

    good(bed.play("rollback", instance_id=instance_id))
    assert connection()["server"] == before["server"]
    assert bed.query_from("sw1", before, "INSERT INTO kept VALUES (0) RETURNING number") == "0"

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many callers at once, and no pool that has room."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict

from swarm_fixture import Bed

CALLERS, PLACES = 20, 5


def test_twenty_callers_get_four_pools_and_no_fifth_is_begun(bed: Bed, tmp_path: Path) -> None:
    # No pool of before has room for them, so that all they get is made for them.
    bed.sql_do("UPDATE db_servers SET allocation_strategy = 'manual' WHERE server_type = 'shared'")
    before = {row["name"] for row in bed.servers()}

    def ask(number: int) -> Dict[str, Any]:
        result = tmp_path / "{0}.json".format(number)
        done = bed.play(
            "allocate", limit=560, instance_id=str(uuid.uuid4()), customer_id=str(uuid.uuid4()), plan_tier="free", wait_timeout=540, result_file=str(result)
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return dict(json.loads(result.read_text()))

    with ThreadPoolExecutor(CALLERS) as pool:
        results = list(pool.map(ask, range(CALLERS)))

    made = [row for row in bed.servers() if row["name"] not in before]
    assert len(made) == CALLERS // PLACES
    assert {(row["status"], row["current_instances"]) for row in made} == {("full", PLACES)}
    assert {result["server"] for result in results} == {row["name"] for row in made}
    assert len({result["database"] for result in results}) == CALLERS
    services = bed.manager("docker", "service", "ls", "--filter", "label=postgres_pools.managed=true", "--format", "{{.Name}}").split()
    assert set(services) - before - {"inventory-db"} == {row["name"] for row in made}
    answers = [bed.query_from(bed.nodes[0], result, "SELECT 1") for result in results[:: CALLERS // 4]]
    assert answers == ["1"] * 4

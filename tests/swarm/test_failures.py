# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that cannot be made: the cause is named within a minute, kept with the row, and the next run after it is mended succeeds."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, NamedTuple

import pytest
from swarm_fixture import Bed

SECONDS = 60


class Cause(NamedTuple):
    """What is wrong, by variables, and words that the message must hold."""

    name: str
    variables: Dict[str, Any]
    words: List[str]


CAUSES = [
    Cause(
        "wrong cluster",
        {"postgres_pools_cephfs": {"mount_path": "/mnt/cephfs", "cluster_fsid": "00000000-0000-4000-8000-000000000000"}},
        ["00000000-0000-4000-8000-000000000000", "/mnt/cephfs"],
    ),
    Cause("full quota", {"_postgres_server_quota": 16 << 20}, ["The storage is full", "quota"]),
    Cause("missing label", {"postgres_pools_node_label": {"name": "role", "value": "nobody"}}, ["no suitable node", "the label that servers are placed by"]),
    Cause("no image", {"postgres_server_image": "postgres:17-none"}, ["No such image: postgres:17-none", "cannot be pulled"]),
    Cause("too little memory", {"postgres_server_memory_limit": "200G"}, ["no suitable node", "the memory"]),
    Cause("manager unreachable", {"postgres_pools_manager": "sw9"}, ["The Swarm manager sw9 cannot be reached"]),
    Cause("not a manager", {"postgres_pools_manager": "sw2"}, ["The Swarm manager sw2", "no manager"]),
]


def ask(bed: Bed, instance_id: str, **variables: Any) -> Any:
    return bed.play(
        "allocate", instance_id=instance_id, customer_id=instance_id, plan_tier="free", require_dedicated=True, postgres_pools_lease_seconds=60, **variables
    )


@pytest.fixture(scope="module", autouse=True)
def small_plan(bed: Bed) -> None:
    """Several dedicated servers are to fit on the bed at once."""
    bed.sql_do("UPDATE db_plans SET cpu_limit = 0.2, memory_limit_bytes = 512::bigint << 20 WHERE plan_tier = 'free'")


def row_of(bed: Bed, instance_id: str) -> Dict[str, Any]:
    rows = bed.sql("SELECT * FROM db_servers WHERE dedicated_instance_id = '{0}' ORDER BY created_at DESC".format(instance_id))
    return rows[0] if rows else {}


def test_each_cause_is_named_and_once_mended_forgotten(bed: Bed) -> None:
    def fail_and_mend(cause: Cause) -> List[str]:
        wrong: List[str] = []
        instance_id, start = str(uuid.uuid4()), time.monotonic()
        failed = ask(bed, instance_id, **cause.variables)
        seconds = time.monotonic() - start
        row, told = row_of(bed, instance_id), " ".join(failed.stdout.split())
        if failed.returncode == 0:
            return ["{0}: it did not fail".format(cause.name)]
        for words in cause.words:
            if words not in told or words not in (row.get("status_reason") or ""):
                wrong.append("{0}: not said: {1!r} in {2!r}; {3}".format(cause.name, words, row.get("status_reason"), failed.stdout[-1500:]))
        if row.get("status") != "error":
            wrong.append("{0}: the row is {1}".format(cause.name, row.get("status")))
        if "Traceback" in failed.stdout:
            wrong.append("{0}: a traceback".format(cause.name))
        print("{0}: {1:.0f} s".format(cause.name, seconds))
        if seconds > SECONDS * 2:
            wrong.append("{0}: {1:.0f} s".format(cause.name, seconds))
        mended = ask(bed, instance_id)
        if mended.returncode != 0 or row_of(bed, instance_id)["status"] != "full":
            wrong.append("{0}: mended, and still: {1}".format(cause.name, mended.stdout[-1500:]))
        return wrong

    # Two at a time: more only wait for each other on two cores, and the limit is meant for one.
    with ThreadPoolExecutor(2) as pool:
        wrong = [told for found in pool.map(fail_and_mend, CAUSES) for told in found]
    assert not wrong, "\n".join(wrong)


def test_an_unmounted_cephfs_is_named_and_nothing_lands_on_the_local_disk(bed: Bed) -> None:
    instance_id = str(uuid.uuid4())
    bed.fault("umount", "sw1")
    try:
        failed = ask(bed, instance_id)
        assert failed.returncode != 0
        assert bed.manager("ls", "-A", "/mnt/cephfs") == ""
        reason = row_of(bed, instance_id)["status_reason"]
        assert "/mnt/cephfs" in reason and "CephFS" in reason, reason
        assert "This may pass by itself" in " ".join(failed.stdout.split())
    finally:
        bed.fault("mount", "sw1")
    assert ask(bed, instance_id).returncode == 0
    assert row_of(bed, instance_id)["status"] == "full"

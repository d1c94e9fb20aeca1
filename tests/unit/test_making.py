# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Optional

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _making
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

PLAN = {"plan_tier": "standard", "connections": 6, "storage_bytes": 3 << 30}


SIZES = {"memory_limit": "4G", "storage_limit": "250G", "cpu_limit": 2.0, "max_instances": 50}
OPTIONS = dict(SIZES, backend="process", host="127.0.0.1", first_port=1, last_port=2, storage_root="/srv")


def pool(storage: str) -> _making.NewServer:
    return _making.NewServer.from_options(dict(OPTIONS, storage_limit=storage))


def test_a_pool_that_would_not_hold_one_tenant_is_refused() -> None:
    with pytest.raises(PoolsError, match="storage_limit of 1024 MiB for a new pool is less than the 3072 MiB that one tenant of plan standard takes"):
        _making._budgets(pool("1G"), "shared", PLAN)
    assert _making._budgets(pool("3G"), "shared", PLAN)["storage_budget_bytes"] == 3 << 30


@pytest.mark.parametrize(
    ("backend", "storage", "node", "told"),
    [
        ("process", "cephfs", None, "the machine's disk"),
        ("swarm", "local", None, "not the name of a node"),
        ("swarm", "local", "node.labels.a == b", "not the name of a node"),
    ],
)
def test_a_storage_that_cannot_be_is_refused(backend: str, storage: str, node: Optional[str], told: str) -> None:
    with pytest.raises(PoolsError, match=told):
        _making.NewServer.from_options(dict(OPTIONS, backend=backend, storage=storage, node_placement=node))


@pytest.mark.parametrize(("backend", "storage"), [("process", "local"), ("swarm", "cephfs")])
def test_storage_follows_the_backend(backend: str, storage: str) -> None:
    assert _making.NewServer.from_options(dict(OPTIONS, backend=backend)).storage == storage

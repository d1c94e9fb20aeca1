# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves in a real inventory database: tenants to move, calls as the module makes them, and what must be true whatever happened."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _audit_registry, _lifecycle, _moving
from registry_fixture import NEW_SERVER, Registry

EQUAL = {"equal": True}
MAKING = dict(NEW_SERVER, storage=None, priority=100, allocation_strategy="auto", postgres_image=None, node_placement=None, admin_user="postgres", tls=False)
# Each counter is the sum of what is counted, and within its limit.
_SUMS = """
SELECT s.name FROM db_servers s LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE place) AS n, coalesce(sum(c) FILTER (WHERE place), 0) AS c,
    coalesce(sum(b), 0) AS b FROM (
        SELECT status IN ('reserved', 'active', 'migrating', 'releasing') AS place, connections AS c, storage_bytes AS b FROM db_allocations
        WHERE server_id = s.id AND (status IN ('reserved', 'active', 'migrating', 'releasing') OR (status = 'released' AND dropped_at IS NULL))
        UNION ALL SELECT true, connections, storage_bytes FROM db_tenant_migrations
        WHERE target_server_id = s.id AND status IN ('planned', 'preparing', 'copying', 'verifying')
        UNION ALL SELECT status = 'cutover' OR returning_at IS NOT NULL, source_connections, source_storage_bytes FROM db_tenant_migrations
        WHERE source_server_id = s.id AND (status = 'cutover' OR (status = 'completed' AND (retained_until IS NOT NULL OR returning_at IS NOT NULL)))
    ) held) t ON true
WHERE (s.current_instances, s.promised_connections, s.promised_storage_bytes) IS DISTINCT FROM (t.n, t.c, t.b)
    OR s.current_instances > s.max_instances OR s.promised_connections > s.connection_budget OR s.promised_storage_bytes > s.storage_budget_bytes
"""


def tenant(registry: Registry, plan: str = "standard", **given: Any) -> str:
    """A new active tenant; its instance."""
    placed = registry.place(plan, making=False, **given)
    with registry.open() as inventory:
        _lifecycle.activate(inventory, [placed["instance_id"]])
    return str(placed["instance_id"])


def options(**given: Any) -> Dict[str, Any]:
    defaults: Dict[str, Any] = {name: option.get("default") for name, option in _moving.OPTIONS.items()}
    unknown = set(given) - set(defaults)
    assert not unknown, unknown
    return dict(defaults, **given)


def call(registry: Registry, instance_id: str, state: str = "planned", dry_run: bool = False, **given: Any) -> Dict[str, Any]:
    with registry.open(dry_run) as inventory:
        return _moving.work(options(instance_id=instance_id, state=state, **given), inventory, registry.cipher)


def through(registry: Registry, instance_id: str, *states: str, lease: Optional[str] = None, **given: Any) -> Dict[str, Any]:
    """Plan a move, unless *lease* is of one, and take it through *states*; the last result."""
    told: Dict[str, Any] = {}
    if lease is None:
        told = call(registry, instance_id, **given)
        lease = told["migration"]["lease"]
    for state in states:
        more: Dict[str, Any] = {"proof": EQUAL} if state == "cutover" else {"reason": "asked for"} if state == "rolled_back" else {}
        told = call(registry, instance_id, state, lease=lease, **more)
    return told


ALL = ("preparing", "copying", "verifying", "cutover", "completed")


def where(registry: Registry, instance_id: str) -> Any:
    """Server, status and plan of the instance's allocation."""
    return registry.query(
        "SELECT s.name, a.status, a.plan_tier FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = %s"
        " ORDER BY a.reserved_at DESC LIMIT 1",
        (instance_id,),
    )[0]


def used(registry: Registry, server: str) -> Any:
    """Places, connections and GiB of storage that a server has given away."""
    return registry.query(
        "SELECT current_instances, promised_connections, promised_storage_bytes >> 30 FROM db_servers WHERE name = %s", (server,)
    )[0]


def findings(registry: Registry) -> List[Any]:
    with registry.open() as inventory:
        return list(_audit_registry.registry_findings(inventory, None, 3600, 1))


def in_order(registry: Registry) -> bool:
    """Counters are true and within their limits, by a count of the test's own and by the audit's."""
    assert registry.query(_SUMS) == []
    assert findings(registry) == []
    moving = "SELECT count(*) FROM db_allocations a WHERE (a.status = 'migrating') <> EXISTS (SELECT FROM db_tenant_migrations m WHERE"
    moving += " m.allocation_id = a.id AND (m.status NOT IN ('completed', 'rolled_back') OR m.returning_at IS NOT NULL))"
    assert registry.query(moving) == [(0,)]
    return True

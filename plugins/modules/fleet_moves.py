#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_moves
short_description: Say which tenants should be moved, and where to
version_added: 0.9.0
description:
  - Finds the tenants whose place or limits do not fit their plan, those that have to leave a server, or those whose move makes the pools evenly loaded.
  - It reads the inventory database and changes nothing. M(saasodoo.postgres_pools.tenant_migration) moves a tenant.
  - Tenants that are reserved, being moved or being released are not proposed; they are in RV(others).
options:
  state:
    description:
      - V(mismatched) finds allocations that do not fit their plan. That is a tenant of a shared plan on a server of its own or the other way round, one
        whose connections or storage are other than its plan's, and one that O(platform_plans) has in another plan.
      - V(of_server) proposes a place for every tenant of O(server).
      - V(rebalance) proposes the fewest moves after which the pools are even. They are even when the loads of the fullest and of the emptiest, as parts of
        their places, are no further apart than O(tolerance), or than one tenant of the smallest pool. No move makes that worse, and the smallest tenants move.
        Pools out of placement, in bad health or in maintenance are left as they are.
    type: str
    choices: [mismatched, of_server, rebalance]
    required: true
  server:
    description: Name of a server. Needed with V(of_server); with V(mismatched) only its tenants are looked at.
    type: str
  target:
    description: Name of the one server to move to. Without it, tenants are placed as new ones are.
    type: str
  exclude:
    description: Names of servers that nobody is moved to. With V(rebalance) nobody is moved away from them either.
    type: list
    elements: str
    default: []
  platform_plans:
    description:
      - What the platform's own table says of plans. It wins over the allocation's, with V(mismatched). Instances without an allocation are passed over.
    type: list
    elements: dict
    suboptions:
      instance_id:
        description: UUID of the application instance.
        type: str
        required: true
      plan_tier:
        description: The plan that it is to have.
        type: str
        required: true
  limit:
    description: The most proposals to make; RV(found) counts the others too.
    type: int
  tolerance:
    description: The difference in load that is even enough, with V(rebalance), as a part of a pool's places from 0 to 1.
    type: float
    default: 0.1
  window:
    description: When moves may be made, such as V(22:00-04:00), in UTC. It changes nothing but RV(in_window).
    type: str
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
seealso:
  - module: saasodoo.postgres_pools.tenant_migration
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: See who should move so that the pools are even
  saasodoo.postgres_pools.fleet_moves:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    state: rebalance
    limit: 10
  register: proposed

- name: See who does not fit the plan that the platform has
  saasodoo.postgres_pools.fleet_moves:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    state: mismatched
    platform_plans:
      - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
        plan_tier: premium
    window: 22:00-04:00
"""

RETURN = r"""
proposals:
  description:
    - The moves, each with C(instance_id), C(from), C(to), C(why), C(plan_tier), and C(copy), which is false where the tenant gets what it should have without
      leaving its server. C(to) is null where no server has room and one would be made.
    - What one takes is counted in for those after it, so all of them can be done.
  returned: success
  type: list
  elements: dict
  sample:
    - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
      from: postgres-pool-1
      to: postgres-pool-2
      why: postgres-pool-1 has 50 of 50 places taken, postgres-pool-2 has 10 of 50
      plan_tier: standard
      copy: true
found:
  description: How many moves there would be without O(limit).
  returned: success
  type: int
  sample: 1
problems:
  description: Tenants of whom nothing can be said, since C(db_plans) does not have their plan. Each with C(instance_id) and C(why).
  returned: success
  type: list
  elements: dict
  sample: []
others:
  description: Tenants that are not proposed because of their C(status).
  returned: success
  type: list
  elements: dict
  sample:
    - instance_id: 7d1f0f4e-2f0b-4a38-8e53-7a5b1c9d2e10
      status: migrating
loads:
  description: For each pool C(server), C(places), and how many of them are taken C(before) and C(after). Empty but with O(state=rebalance).
  returned: success
  type: list
  elements: dict
  sample:
    - server: postgres-pool-1
      places: 50
      before: 50
      after: 32
in_window:
  description: Whether it is now within O(window); true without one.
  returned: success
  type: bool
  sample: true
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _moving_fleet, _registry_module


def main():
    _registry_module.run(_moving_fleet.OPTIONS, _moving_fleet.work, read_only=True, supports_check_mode=True, **_moving_fleet.RULES)


if __name__ == "__main__":
    main()

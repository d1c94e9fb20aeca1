#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: allocation
short_description: Give instances their place on a PostgreSQL server, and take it back
version_added: 0.9.0
description:
  - Finds a server for each instance and writes the place down, in one transaction. With O(state=present) it then makes the databases as
    M(saasodoo.postgres_pools.tenant_database) does, and records them as active. The other states work on the inventory database only.
  - Asking again for an instance returns the place it has, with the same names and the same password.
  - Where no server has room, a place is taken on a server in the making, and a new server is begun only when those are spoken for too.
    A server that this call is to make is in RV(to_make).
options:
  allocations:
    description:
      - The instances. All are checked before anything is done; the message names every entry that is wrong.
      - Each commits on its own, so an interrupted call keeps what it had settled and the next one goes on from there.
      - Needed for O(state=present) and O(state=reserved).
    type: list
    elements: dict
    suboptions:
      instance_id:
        description: UUID of the application instance.
        type: str
        required: true
      customer_id:
        description: UUID of who pays for it. Needed with O(state=present) and O(state=reserved).
        type: str
      plan_tier:
        description: A row of C(db_plans). Needed with O(state=present) and O(state=reserved).
        type: str
      require_dedicated:
        description: A server of its own whatever the plan says.
        type: bool
        default: false
      application:
        description:
          - The tenant's application, as the role C(tenant_application) takes it. It is kept with the allocation, also with one that was there before, and
            every move stops it and gives it the new connection. Without it what was kept stays; an empty one is none.
          - It must not hold a password; a secret is described by the part that it is to hold.
        type: dict
        version_added: 0.9.0
  instance_ids:
    description: UUIDs of the instances, instead of O(allocations), for the other states.
    type: list
    elements: str
  state:
    description:
      - V(present) does all of it, as far as the servers are there.
      - V(reserved) finds a place or the one there is; V(active) confirms it when the database is ready.
      - V(releasing) closes an allocation; V(released) frees its place when the database is quarantined; V(dropped) records that released
        databases whose time has passed are gone.
    type: str
    choices: [present, reserved, active, releasing, released, dropped]
    default: present
  strategy:
    description:
      - V(priority) takes the lowest priority, then the least loaded; V(spread) the least loaded; V(pack) the fullest that still has room.
    type: str
    choices: [priority, spread, pack]
    default: priority
  name_prefix:
    description: Databases are called C(PREFIX_<customer 16 hex>_<instance 8 hex>), never longer than 63 bytes.
    type: str
    default: odoo
  reservation_seconds:
    description: How long a reservation holds without being renewed.
    type: int
    default: 900
  lease_seconds:
    description: How long a server may stay in the making before another run may take it over.
    type: int
    default: 120
  wait_timeout:
    description: Seconds to wait for servers that other runs are making; 0 does not wait.
    type: int
    default: 0
  max_parallel:
    description: Databases made at a time on each server, with O(state=present).
    type: int
    default: 4
  keep_days:
    description: Days that a released database is kept in quarantine.
    type: float
    default: 7
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
  - saasodoo.postgres_pools.inventory_db.new_server
attributes:
  check_mode:
    description: Does the work in a transaction that is rolled back.
    support: full
  diff_mode:
    description: Shows each allocation before and after.
    support: full
seealso:
  - module: saasodoo.postgres_pools.tenant_database
  - module: saasodoo.postgres_pools.allocation_info
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Reserve a place
  saasodoo.postgres_pools.allocation:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    allocations:
      - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
        customer_id: 7d1f0f4e-2f0b-4a38-8e53-7a5b1c9d2e10
        plan_tier: standard
        application:
          service: odoo_acme
          env:
            DB_HOST: host
            DB_PORT: port
    state: reserved
    new_server:
      backend: process
      storage_root: /srv/postgres
  register: reserved

- name: Confirm it once the database is ready
  saasodoo.postgres_pools.allocation:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    instance_ids: [0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90]
    state: active
  when: reserved.status == 'ready'
"""

RETURN = r"""
status:
  description:
    - V(ready) when every allocation is on a server that can be used and, with O(state=present), its database is in use.
    - V(make) when this call is to make a server first, V(provisioning) when others are still making them.
  returned: when O(state) is V(present) or V(reserved)
  type: str
  sample: ready
retry_after:
  description: Seconds after which to ask again.
  returned: when RV(status=provisioning)
  type: int
  sample: 10
to_make:
  description: The server that this call is to make, with the lease that says so. Null when there is none. Call again after it is made.
  returned: when O(state) is V(present) or V(reserved)
  type: dict
  sample:
    name: postgres-pool-1
    lease: 6d1f1c52-40a3-4b0e-8d0e-3b7b4d2a9a55
allocations:
  description: The live allocations of the instances, as they are after the call.
  returned: always
  type: list
  elements: dict
  sample:
    - allocation_id: 4a1c0a7e-0b1d-4e0e-9c1f-6f6f5d0c9b8a
      instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
      customer_id: 7d1f0f4e-2f0b-4a38-8e53-7a5b1c9d2e10
      plan_tier: standard
      status: reserved
      database: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
      user: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
      server: postgres-pool-1
      server_status: active
      host: 127.0.0.1
      port: 15433
      application: {service: odoo_acme, env: {DB_HOST: host, DB_PORT: port}}
placements:
  description: For each new place, its server, and for every other server that was looked at (at most 50) why it was not chosen.
  returned: when O(state) is V(present) or V(reserved)
  type: list
  elements: dict
  sample:
    - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
      server: postgres-pool-1
      others:
        - server: postgres-pool-2
          reason: it is maintenance
        - server: postgres-pool-3
          reason: it has room too, but comes later in the order
actions:
  description:
    - What was done to the database of each instance, in words; in check mode, what would be. Instances with nothing to do are left out.
    - What was done to a server as a whole is under its C(host:port).
  returned: when O(state=present) and RV(status=ready)
  type: dict
  sample:
    0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90: [database odoo_7d1f0f4e2f0b4a38_0b6c5c1e made]
ways_back:
  description: Old places of the instances that still follow the database, as M(saasodoo.postgres_pools.database_follow) takes them by C(source) and C(target).
  returned: when O(state=releasing)
  type: list
  elements: dict
  sample: []
tenant_databases:
  description:
    - What M(saasodoo.postgres_pools.tenant_database) takes as its option O(saasodoo.postgres_pools.tenant_database#module:databases).
    - Passwords in it are encrypted with the secret key, as they are in the inventory database.
  returned: always
  type: list
  elements: dict
  sample:
    - name: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
      owner: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
      connection_limit: 6
      login_host: 127.0.0.1
      login_port: 15433
dropped:
  description: Allocations whose databases are due to be dropped, or were recorded as dropped.
  returned: when O(state) is V(released) or V(dropped)
  type: list
  elements: str
  sample: []
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _allocation, _registry_module


def main():
    _registry_module.run(_allocation.OPTIONS, _allocation.work, needs_keys=True, supports_check_mode=True, **_allocation.RULES)


if __name__ == "__main__":
    main()

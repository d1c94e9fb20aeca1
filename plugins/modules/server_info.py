#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_info
short_description: The PostgreSQL servers of the inventory database, and their totals
version_added: 0.9.0
description:
  - Reads the inventory database. Nothing it returns is secret.
options:
  name:
    description: Only this server, with its tenants. It is an error if there is none of that name.
    type: str
  status:
    description: Only servers in this state. V(deprovisioned) ones are shown only when asked for.
    type: str
    choices: [provisioning, initializing, active, full, maintenance, error, deprovisioning, deprovisioned]
  server_type:
    description: Only servers of this type.
    type: str
    choices: [shared, dedicated, platform]
  growth:
    description: Tell RV(growth) too, which reads all allocations that ever were.
    type: bool
    default: false
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
  - module: saasodoo.postgres_pools.server
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: List the pools
  saasodoo.postgres_pools.server_info:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    server_type: shared
"""

RETURN = r"""
servers:
  description: The servers, oldest first. With O(name), the server has its live allocations in C(tenants), each with the Swarm C(service) of its application.
  returned: success
  type: list
  elements: dict
  sample:
    - name: postgres-pool-1
      server_type: shared
      status: active
      health_status: healthy
      current_instances: 12
      max_instances: 50
      host: 127.0.0.1
      port: 15433
totals:
  description:
    - Pools, those in use among them (active or full), their places, the places taken, and the latter in percent of the former;
      beside them the number of dedicated servers. Over the servers shown.
  returned: success
  type: dict
  sample:
    pools: 3
    active: 2
    dedicated: 1
    capacity: 100
    used: 62
    utilization: 62.0
growth:
  description:
    - The tenants that the pools gained (C(instances)) in the last C(days) days, 30 or as many as there have been pools, and how many a day that is.
    - C(full_at) is the day on which no place in the pools in use is free any more at that pace. Where there is no such day it is null, and
      C(reason) says why. Over all pools, whichever servers are shown.
  returned: with O(growth=true)
  type: dict
  sample:
    days: 30
    instances: 12
    per_day: 0.4
    full_at: "2027-02-25"
    reason: null
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _capacity, _registry_module, _totals
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import plain
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import check_server_name

STATES = ["provisioning", "initializing", "active", "full", "maintenance", "error", "deprovisioning", "deprovisioned"]
OPTIONS = dict(
    name=dict(type="str"),
    status=dict(type="str", choices=STATES),
    server_type=dict(type="str", choices=["shared", "dedicated", "platform"]),
    growth=dict(type="bool", default=False),
)


def read(params, inventory, cipher):
    name = params["name"]
    servers = inventory.servers([check_server_name(name)] if name else None, params["status"], params["server_type"])
    if name and not servers:
        raise PoolsError(
            "There is no server {0!r} in the inventory database.".format(name),
            "playbooks/pools.yml lists those there are.",
        )
    shown = [plain(server) for server in servers]
    if name:
        shown[0]["tenants"] = [
            plain(row)
            for row in inventory.rows(
                'SELECT a.instance_id::text, a.customer_id::text, a.plan_tier, a.status, a.database_name AS database, a.role_name AS "user",'
                " a.application ->> 'service' AS service"
                " FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE s.name = %(name)s"
                " AND a.status IN ('reserved', 'active', 'migrating', 'releasing') ORDER BY a.reserved_at",
                {"name": name},
            )
        ]
    result = dict(changed=False, servers=shown, totals=_totals.totals(servers))
    if params["growth"]:
        result["growth"] = _capacity.growth(inventory)
    return result


def main():
    _registry_module.run(OPTIONS, read, read_only=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: allocation_info
short_description: Where instances have their databases
version_added: 0.9.0
description:
  - Reads the inventory database. Nothing it returns is secret, unless O(credentials) asks for it.
options:
  instance_ids:
    description: UUIDs of the instances.
    type: list
    elements: str
    required: true
  history:
    description: Whether to return released and expired allocations too, newest first.
    type: bool
    default: false
  credentials:
    description: Whether to return RV(connections), which hold passwords. Set C(no_log) on the task.
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
  - module: saasodoo.postgres_pools.allocation
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Where does this instance have its database?
  saasodoo.postgres_pools.allocation_info:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    instance_ids: [0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90]
"""

RETURN = r"""
allocations:
  description: The allocations found; none for an instance that has none.
  returned: success
  type: list
  elements: dict
  sample:
    - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
      status: active
      server: postgres-pool-1
      host: 127.0.0.1
      port: 15433
      database: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
      user: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
      application: {service: odoo_acme, env: {DB_HOST: host, DB_PORT: port}}
connections:
  description: For each active allocation C(instance_id), C(server), C(host), C(port), C(database), C(user), C(password), C(sslmode) and C(dsn);
    for a server with TLS also C(ca_certificate), the certificates of the authorities to trust, as PEM.
  returned: when O(credentials=true)
  type: list
  elements: dict
  sample: []
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _allocation, _registry_module
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._dsn import tenant_connection
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import parse_uuid
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher, keys_from

OPTIONS = dict(
    instance_ids=dict(type="list", elements="str", required=True),
    history=dict(type="bool", default=False),
    credentials=dict(type="bool", default=False),
)


def read(params, inventory, cipher):
    ids = [parse_uuid(value, "instance_ids") for value in params["instance_ids"]]
    rows = inventory.allocations(ids, live=not params["history"])
    result = dict(changed=False, allocations=[_allocation.public(row) for row in rows])
    if params["credentials"]:
        cipher = Cipher(keys_from(params))
        result["connections"] = [
            tenant_connection(row, cipher) for row in rows if row["status"] in ("active", "migrating")
        ]
    return result


def main():
    _registry_module.run(OPTIONS, read, read_only=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

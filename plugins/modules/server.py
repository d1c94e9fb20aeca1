#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server
short_description: Enter a PostgreSQL server in the inventory database, and take it from one state to the next
version_added: 0.9.0
description:
  - Works on the inventory database only; the role C(postgres_server) makes the server itself.
  - The states and their order are the database's own rules; a step it does not allow is an error that names it.
options:
  name:
    description:
      - The server's name, 1 to 63 lower-case letters, digits and hyphens.
      - Without it, O(state=provisioning) takes up a server that was begun and that nobody makes, or begins one with a name from the sequence.
    type: str
  state:
    description:
      - V(provisioning) makes the row, or claims the making of a server whose maker's lease has run out.
      - The other states are the steps after it. V(active) on a server whose places are all taken reads V(full).
    type: str
    choices: [provisioning, initializing, active, maintenance, error, deprovisioning, deprovisioned]
    default: provisioning
  server_type:
    description: A pool, or a server for one instance.
    type: str
    choices: [shared, dedicated]
    default: shared
  instance_id:
    description: The instance that a dedicated server is for.
    type: str
  customer_id:
    description: The customer that a dedicated server is for.
    type: str
  plan_tier:
    description: The plan that says how large a dedicated server is.
    type: str
  spare:
    description:
      - With O(state=provisioning), no O(name) and O(server_type=shared), begin a pool only when fewer than this many pools are empty.
      - A pool that was begun and that nobody makes is taken up in any case. Where there is nothing to do, RV(server) is null.
    type: int
  lease:
    description: What an earlier call gave the maker; steps of a server in the making need it while it has not run out.
    type: str
  lease_seconds:
    description: How long the maker may take to its next step before another run may take over.
    type: int
    default: 120
  reason:
    description: Why the server is in its state; kept, and shown wherever the server is passed over. At most 2000 characters.
    type: str
  host:
    description: Record this address.
    type: str
  port:
    description: Record this port.
    type: int
  postgres_version:
    description: Record this version.
    type: str
  postgres_image:
    description: Record this image. The role C(server_update) then deploys it.
    type: str
  cpu_limit:
    description: Record this limit, in CPUs.
    type: float
  memory_limit:
    description:
      - Record this limit, in bytes or with a unit such as V(8G), and with it the connections that it fits, up to
        C(connections_per_instance) of O(new_server) (or 6) for each tenant of a pool.
      - Refused where tenants were promised more connections than it fits.
    type: str
  swarm_service_id:
    description: Record the service's id.
    type: str
  swarm_service_name:
    description: Record the service's name.
    type: str
  health_status:
    description: Record this health.
    type: str
    choices: [unknown, healthy, degraded, unhealthy]
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
  - saasodoo.postgres_pools.inventory_db.new_server
attributes:
  check_mode:
    description: Does the work in a transaction that is rolled back.
    support: full
  diff_mode:
    description: Shows the row before and after.
    support: full
seealso:
  - module: saasodoo.postgres_pools.server_info
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Begin a pool
  saasodoo.postgres_pools.server:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    name: postgres-pool-example
    new_server:
      backend: process
      storage_root: /srv/postgres
  register: begun

- name: Give it up, with the reason
  saasodoo.postgres_pools.server:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    name: postgres-pool-example
    state: error
    lease: "{{ begun.lease }}"
    reason: the disk is not there
"""

RETURN = r"""
server:
  description: The row as it is after the call, without its password. Null when O(spare) asked for nothing.
  returned: success
  type: dict
  sample:
    name: postgres-pool-1
    server_type: shared
    status: provisioning
    host: 127.0.0.1
    port: 15433
    max_instances: 50
    current_instances: 0
lease:
  description: What the later steps have to show. Null when the server is not this call's to make.
  returned: success
  type: str
  sample: 6d1f1c52-40a3-4b0e-8d0e-3b7b4d2a9a55
admin_password_encrypted:
  description: Password of the server's superuser, encrypted with the secret key as it is in the inventory database.
  returned: success
  type: str
  sample: gAAAAABn...
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _registry_module, _server


def main():
    _registry_module.run(_server.OPTIONS, _server.work, needs_keys=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

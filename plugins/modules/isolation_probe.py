#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: isolation_probe
short_description: Log in as a tenant and try what it must not reach
version_added: 0.9.0
description:
  - On each server it logs in with the real password of a tenant and tries to reach other tenants' databases, the server's own databases, files and
    programs, passwords, other roles, other sessions, the server's settings, replication, and its own limits. What is let through is a finding of kind
    C(isolation).
  - No attempt leaves anything behind, not even one that is let through. A session that it tries to end is its own, of another tenant.
  - It takes two of the connections of a tenant's limit for as long as it is at work there, one for each of two tenants.
  - Runs on a client host, which reaches the servers.
options:
  name:
    description: Only this server. It is an error if there is none of that name.
    type: str
  tenants:
    description: V(one) tries as one tenant of each server, another one each day. V(all) tries as each of them.
    type: str
    choices: [one, all]
    default: one
  timeout:
    description: Seconds for one server, and for each of its tenants with O(tenants=all) as many again.
    type: int
    default: 60
  connect_timeout:
    description: Seconds that a connection may take to be made.
    type: int
    default: 10
  max_parallel:
    description: How many servers are probed at once.
    type: int
    default: 16
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: It changes nothing in any mode.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
seealso:
  - module: saasodoo.postgres_pools.server_audit
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Try what a tenant of each server must not reach
  saasodoo.postgres_pools.isolation_probe:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
"""

RETURN = r"""
status:
  description: V(alarm) where anything was let through, V(findings) where an attempt ended in a way that says nothing, else V(clean).
  returned: success
  type: str
  sample: clean
counts:
  description: How many findings there are of each kind.
  returned: success
  type: dict
  sample: {}
findings:
  description: What was let through, or ended in a way that says nothing, as the findings of M(saasodoo.postgres_pools.server_audit).
  returned: success
  type: list
  elements: dict
  sample: []
probed:
  description: As whom it was tried, and how many attempts were made.
  returned: success
  type: list
  elements: dict
  sample:
    - server: postgres-pool-1
      user: odoo_0123456789abcdef_01234567_user
      attempts: 62
"""

import time

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _audit,
    _audit_registry,
    _audit_servers,
    _isolation,
    _registry_module,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import check_server_name

OPTIONS = dict(
    name=dict(type="str"),
    tenants=dict(type="str", default="one", choices=["one", "all"]),
    timeout=dict(type="int", default=60),
    connect_timeout=dict(type="int", default=10),
    max_parallel=dict(type="int", default=16),
)


def work(params, inventory, cipher):
    name = check_server_name(params["name"]) if params["name"] else None
    _audit.check_limits(**{limit: params[limit] for limit in ("timeout", "connect_timeout", "max_parallel")})
    servers = _audit_registry.expectations(inventory, cipher, name)
    everybody = params["tenants"] == "all"
    most = max([1] + [len(expected.tenants) for expected in servers]) if everybody else 1
    orders = _audit_servers.Orders(
        settings={}, timeout=params["timeout"] * most, max_parallel=params["max_parallel"], connect_timeout=params["connect_timeout"]
    )
    findings, probed = _isolation.probe(servers, orders, everybody, int(time.time() // 86400))
    return dict(changed=False, findings=_audit.in_order(findings), probed=probed, **_audit.summary(findings))


def main():
    _registry_module.run(OPTIONS, work, needs_keys=True, read_only=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_audit
short_description: Compare the inventory database with what the servers hold
version_added: 0.9.0
description:
  - Asks all servers at once for their databases, roles, memberships, limits, settings, C(pg_hba.conf) and version, and compares both ways with the
    inventory database, which is also compared with itself. What it finds is in RV(findings).
  - The wanted state is that of M(saasodoo.postgres_pools.tenant_database); what that module would do for a tenant is what is found here.
  - A server that does not answer within O(timeout) is a finding of its own and holds up no other.
  - A server with findings is looked at twice, with its rows read again between, so that another run at work is not told as drift.
  - Runs on a client host, which reaches the servers.
options:
  name:
    description: Only this server. It is an error if there is none of that name.
    type: str
  repair:
    description:
      - Mend what is safe. That is limits, attributes and settings of roles, the roles and memberships of the wall, memberships that no row speaks of,
        and what PUBLIC may do.
      - Nothing is dropped, no tenant's data are made, no password is set, and what has no row is not touched.
    type: bool
    default: false
  settings:
    description: The settings that each server should run with, by the server's name. Servers that are not here are not asked for their settings.
    type: dict
    default: {}
  stale_seconds:
    description: How long a lease may have run out, a reservation be overdue or a release be unfinished before it is told.
    type: int
    default: 900
  certificate_days:
    description: How many days a certificate has to be valid still.
    type: float
    default: 14
  timeout:
    description: Seconds that one server may take for all its answers.
    type: int
    default: 60
  connect_timeout:
    description: Seconds that a connection may take to be made.
    type: int
    default: 10
  max_parallel:
    description: How many servers are asked at once.
    type: int
    default: 16
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Says what O(repair) would mend.
    support: full
  diff_mode:
    description: Shows what was mended as it was and as it is.
    support: full
seealso:
  - module: saasodoo.postgres_pools.storage_audit
  - module: saasodoo.postgres_pools.swarm_audit
  - module: saasodoo.postgres_pools.isolation_probe
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: See whether the servers hold what the inventory database says
  saasodoo.postgres_pools.server_audit:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
"""

RETURN = r"""
status:
  description: V(clean), or V(findings) where something is left that was not mended.
  returned: success
  type: str
  sample: findings
counts:
  description: How many findings there are of each kind, without those that were mended.
  returned: success
  type: dict
  sample:
    connection_limit: 1
findings:
  description:
    - What differs. C(server), C(kind) and C(object) say what it is about, C(expected) and C(found) how it differs, C(remedy) what to do.
    - C(safe_to_repair) says whether O(repair) mends it, and C(repaired) whether it did, or in check mode would.
  returned: success
  type: list
  elements: dict
  sample:
    - server: postgres-pool-1
      kind: connection_limit
      object: odoo_0123456789abcdef_01234567_user
      expected: 6
      found: -1
      safe_to_repair: true
      repaired: false
      remedy: Run playbooks/audit.yml -e repair=true.
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _audit,
    _audit_registry,
    _audit_servers,
    _registry_module,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import check_server_name

OPTIONS = dict(
    name=dict(type="str"),
    repair=dict(type="bool", default=False),
    settings=dict(type="dict", default={}),
    stale_seconds=dict(type="int", default=900),
    certificate_days=dict(type="float", default=14),
    timeout=dict(type="int", default=60),
    connect_timeout=dict(type="int", default=10),
    max_parallel=dict(type="int", default=16),
)


def work(params, inventory, cipher):
    name = check_server_name(params["name"]) if params["name"] else None
    limits = ("stale_seconds", "certificate_days", "timeout", "connect_timeout", "max_parallel")
    _audit.check_limits(**{limit: params[limit] for limit in limits})
    orders = _audit_servers.Orders(
        settings=params["settings"],
        repair=params["repair"],
        check_mode=inventory.dry_run,
        timeout=params["timeout"],
        max_parallel=params["max_parallel"],
        connect_timeout=params["connect_timeout"],
    )
    findings = _audit_servers.fleet(lambda: _audit_registry.expectations(inventory, cipher, name), orders)
    repaired = [one for one in findings if one["repaired"]]
    _audit_registry.record(inventory, repaired)
    findings = findings + _audit_registry.registry_findings(inventory, name, params["stale_seconds"], params["certificate_days"])
    sides = {
        side: {"{server}/{object}: {kind}".format(**one): one[key] for one in repaired}
        for side, key in (("before", "found"), ("after", "expected"))
    }
    return dict(changed=bool(repaired), findings=_audit.in_order(findings), diff=sides, **_audit.summary(findings))


def main():
    _registry_module.run(OPTIONS, work, needs_keys=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

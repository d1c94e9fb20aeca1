#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_audit
short_description: Compare servers' directories, and what runs in them, with the inventory's rows
version_added: 0.9.0
description:
  - Runs on the host that has the directories. It only reads, in a child process that is left behind where the file system hangs.
  - Finds directories without a row and rows without a directory. For local servers, with O(processes), also PostgreSQL servers that run without a row,
    rows whose server does not run, and files C(postgresql.pools.conf) and C(pg_hba.conf) that are not as they would be written.
options:
  servers:
    description: The servers, as M(saasodoo.postgres_pools.server_info) gives them, of which C(name), C(status) and C(storage_path) are read.
    type: list
    elements: dict
    required: true
  bases:
    description: Directories below which nothing but servers' directories may be. Hidden ones and C(archived) are passed over.
    type: list
    elements: path
    required: true
  expected:
    description: Directories that may be there without a row.
    type: list
    elements: path
    default: []
  processes:
    description: Whether these are local servers, whose processes and configuration files are looked at.
    type: bool
    default: false
  descriptions:
    description: How each local server is deployed, as the role C(server_deployment) says it with C(server_deployment_state=described).
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds that one step on the file system may take.
    type: int
    default: 20
attributes:
  check_mode:
    description: It only looks.
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
- name: Look for directories that no server has
  saasodoo.postgres_pools.storage_audit:
    servers:
      - {name: postgres-pool-1, status: provisioning, storage_path: /var/tmp/postgres_pools/pool-1}
    bases: [/var/tmp/postgres_pools]
"""

RETURN = r"""
findings:
  description: What differs, as the findings of M(saasodoo.postgres_pools.server_audit).
  returned: success
  type: list
  elements: dict
  sample:
    - server: ""
      kind: directory_without_row
      object: /var/tmp/postgres_pools/pool-7
      expected: no such directory
      found: there
      safe_to_repair: false
      repaired: false
      remedy: Look whose it is. Nothing that has no row is ever changed or dropped by an audit.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _audit, _audit_storage
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def audit(params: dict) -> list:
    _audit.check_limits(timeout=params["timeout"])
    for server in params["servers"]:
        if not {"name", "status", "storage_path"} <= set(server):
            raise PoolsError("Each of servers needs name, status and storage_path.")
    wanted = _audit_storage.Wanted(params["servers"], params["bases"], params["expected"])
    findings = _audit_storage.directories(wanted, params["timeout"])
    if params["processes"]:
        findings += _audit_storage.processes(wanted, {one["name"]: one for one in params["descriptions"]})
    return _audit.in_order(findings)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "servers": {"type": "list", "elements": "dict", "required": True},
            "bases": {"type": "list", "elements": "path", "required": True},
            "expected": {"type": "list", "elements": "path", "default": []},
            "processes": {"type": "bool", "default": False},
            "descriptions": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, findings=audit(module.params))
    except PoolsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

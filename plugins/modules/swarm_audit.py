#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_audit
short_description: Compare a Swarm's services, secrets and configs with the inventory's rows
version_added: 0.9.0
description:
  - Runs on a manager, with the command C(docker). It only reads, and only what bears the label C(postgres_pools.managed).
  - Finds services, secrets and configs without a row, rows without them, and services whose image, replicas, limits, directory, placement, secrets,
    configs or settings are not as they would be deployed.
options:
  servers:
    description: The servers of this Swarm, as M(saasodoo.postgres_pools.server_info) gives them, of which C(name) and C(status) are read.
    type: list
    elements: dict
    required: true
  descriptions:
    description: How each is deployed, as the role C(server_deployment) says it with C(server_deployment_state=described).
    type: list
    elements: dict
    default: []
  expected:
    description: Names of servers that are deployed without a row.
    type: list
    elements: str
    default: []
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
- name: Look for services that no server has
  saasodoo.postgres_pools.swarm_audit:
    servers: []
    expected: [inventory-db]
"""

RETURN = r"""
findings:
  description: What differs, as the findings of M(saasodoo.postgres_pools.server_audit).
  returned: success
  type: list
  elements: dict
  sample:
    - server: postgres-pool-1
      kind: service_drift
      object: memory_limit
      expected: 4294967296
      found: 2147483648
      safe_to_repair: false
      repaired: false
      remedy: "Run playbooks/update_server.yml for the server: it deploys what the row says."
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _audit, _audit_swarm, _swarm_task
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def labelled(module: AnsibleModule, docker: str, kind: str) -> list:
    code, out, err = module.run_command([docker, kind, "ls", "--quiet", "--filter", "label=" + _audit_swarm.MANAGED])
    if code or not out.split():
        return _refuse(kind, err) if code else []
    code, out, err = module.run_command([docker, kind, "inspect", *out.split()])
    found = _swarm_task.inspected(code, out, err)
    return _refuse(kind, err) if found is None else found


def _refuse(kind: str, err: str) -> list:
    raise PoolsError("docker {0}: {1}".format(kind, " ".join(err.split())[-500:]))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "servers": {"type": "list", "elements": "dict", "required": True},
            "descriptions": {"type": "list", "elements": "dict", "default": []},
            "expected": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params, docker = module.params, module.get_bin_path("docker", required=True)
    try:
        swarm = _audit_swarm.Swarm(*(labelled(module, docker, kind) for kind in ("service", "secret", "config")))
        descriptions = {one["name"]: one for one in params["descriptions"]}
        findings = _audit_swarm.compare(swarm, params["servers"], descriptions, params["expected"])
    except PoolsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, findings=_audit.in_order(findings))


if __name__ == "__main__":
    main()

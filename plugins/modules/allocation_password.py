#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: allocation_password
short_description: Rotate the passwords of tenants in the inventory database
version_added: 0.9.0
description:
  - Works on the inventory database only, in two steps around M(saasodoo.postgres_pools.tenant_database), which gives the password to the server.
  - The next password is written down before the server gets it, so a run that was interrupted is finished by the next one.
options:
  instance_ids:
    description: UUIDs of instances with an active allocation.
    type: list
    elements: str
    required: true
  state:
    description: V(prepared) writes the next password beside the present one; V(confirmed) puts it in its place.
    type: str
    choices: [prepared, confirmed]
    default: prepared
  max_age_days:
    description: Leave alone the passwords that are younger. 0 rotates all.
    type: float
    default: 0
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Does the work in a transaction that is rolled back.
    support: full
  diff_mode:
    description: Names the instances; never a password.
    support: full
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Write a next password
  saasodoo.postgres_pools.allocation_password:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    instance_ids: [0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90]
  register: rotation
"""

RETURN = r"""
instance_ids:
  description: The instances whose password is being rotated, or was by this call.
  returned: success
  type: list
  elements: str
  sample: [0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90]
tenant_databases:
  description: What M(saasodoo.postgres_pools.tenant_database) takes to give the next passwords to the servers; they are encrypted in it.
  returned: when O(state=prepared)
  type: list
  elements: dict
  sample: []
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _allocation, _registry_module, _rotation
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import parse_uuid

OPTIONS = dict(
    instance_ids=dict(type="list", elements="str", required=True),
    state=dict(type="str", choices=["prepared", "confirmed"], default="prepared"),
    max_age_days=dict(type="float", default=0.0),
)


def work(params, inventory, cipher):
    ids = [parse_uuid(value, "instance_ids") for value in params["instance_ids"]]
    if params["state"] == "confirmed":
        changed = _rotation.confirm(inventory, ids)
        return dict(
            changed=changed > 0,
            instance_ids=ids,
            diff=dict(before="", after="{0} passwords confirmed\n".format(changed)),
        )
    prepared = _rotation.prepare(inventory, cipher, ids, params["max_age_days"])
    wanted = [row["instance_id"] for row in prepared]
    rows = [dict(row, password_encrypted=row["next_password_encrypted"]) for row in inventory.allocations(wanted)]
    return dict(
        changed=any(row["changed"] for row in prepared),
        instance_ids=wanted,
        tenant_databases=_allocation.tenant_databases(rows, inventory.plans()),
        diff=dict(before="", after="".join("next password for instance {0}\n".format(one) for one in wanted)),
    )


def main():
    _registry_module.run(OPTIONS, work, needs_keys=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

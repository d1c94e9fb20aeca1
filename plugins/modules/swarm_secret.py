#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_secret
short_description: Have a Swarm keep tenants' connection secrets
version_added: 0.9.0
description:
  - Runs on a manager of the Swarm, which needs the program C(docker). What a secret holds comes from M(saasodoo.postgres_pools.connection_secret).
  - A secret can be neither read nor changed. A label has a keyed digest of what it holds, by which an equal content is known again.
    Another content under a name that is taken gets a version of its own, whose name ends with part of its digest. The former one stays, since services may
    use it.
  - A secret that was not made here is never touched.
options:
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      instance_id:
        description: UUID of the instance whose connection it holds. A name belongs to one instance.
        type: str
        required: true
      name:
        description: Its name.
        type: str
        required: true
      content:
        description: What it holds. Needed with O(state=present).
        type: str
        default: ""
      digests:
        description: The content's digests, of which one made now gets the first. Needed with O(state=present).
        type: list
        elements: str
        default: []
  state:
    description:
      - V(present) sees that there is a secret with each content.
      - V(probed) only sees that the names are free for these instances.
      - V(absent) removes all versions. Docker keeps those that a service uses, and the module then fails.
    type: str
    choices: [present, probed, absent]
    default: present
attributes:
  check_mode:
    description: Nothing is changed; the names are those that would be.
    support: full
  diff_mode:
    description: Shows names, never a content.
    support: full
seealso:
  - module: saasodoo.postgres_pools.connection_secret
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Remove what the application of a tenant that left connected with
  saasodoo.postgres_pools.swarm_secret:
    secrets:
      - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
        name: odoo-acme-database
    state: absent
  delegate_to: "{{ groups['swarm_managers'][0] }}"
"""

RETURN = r"""
secrets:
  description:
    - For each C(instance_id), the C(name) that was asked for, and whether it was C(changed).
    - With O(state=present) also C(secret), the name of the one that holds the content. With O(state=absent) also C(removed), names.
  returned: when O(state) is V(present) or V(absent)
  type: list
  elements: dict
  sample:
    - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
      name: odoo-acme-database
      secret: odoo-acme-database-5f0a3c2a6f0d
      changed: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _connection_secret_swarm
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    options = {
        "instance_id": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "content": {"type": "str", "default": "", "no_log": True},
        "digests": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "secrets": {"type": "list", "elements": "dict", "required": True, "no_log": False, "options": options},
            "state": {"type": "str", "default": "present", "choices": ["present", "probed", "absent"]},
        },
        supports_check_mode=True,
    )
    state, wanted, docker = module.params["state"], module.params["secrets"], module.get_bin_path("docker", required=True)
    if state == "present" and not all(one["content"] and one["digests"] for one in wanted):
        module.fail_json(msg="Each secret needs content and digests with state present, as module connection_secret gives them.")

    def run(words, data):
        return module.run_command([docker, *words], data=data, binary_data=True, encoding="utf-8")

    swarm = _connection_secret_swarm.Secrets(run, module.check_mode)
    try:
        if state == "probed":
            swarm.probe(wanted)
            module.exit_json(changed=False)
        told = swarm.present(wanted) if state == "present" else swarm.absent(wanted)
    except PoolsError as error:
        module.fail_json(msg=str(error))
    changed = [one for one in told if one["changed"]]
    diff = {"before": "", "after": _connection_secret_swarm.shown(changed)} if changed else {}
    module.exit_json(changed=bool(changed), secrets=told, diff=diff)


if __name__ == "__main__":
    main()

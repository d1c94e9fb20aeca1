#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: connection_secret
short_description: Say what tenants' connection secrets are to hold
version_added: 0.9.0
description:
  - Reads where instances have their databases, opens their passwords and fills the contents of secrets with them.
    M(saasodoo.postgres_pools.swarm_secret) then has a Swarm keep them.
  - The result has passwords in clear, so the task must be C(no_log), unless O(check_only=true).
options:
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      instance_id:
        description: UUID of the instance. One that has no database to connect to is left out of the result.
        type: str
        required: true
      name:
        description: Name of the secret, at most 64 letters, digits, dots, hyphens and underscores, a letter or digit first and last.
        type: str
        required: true
      content:
        description:
          - One of C(host), C(port), C(database), C(user), C(sslmode), C(password), C(dsn), C(ca_certificate),
            or a text with some of them in braces.
        type: str
        default: dsn
      optional:
        description:
          - Whether the secret is left out of the result where the connection has no part that O(secrets[].content) names, such as C(ca_certificate)
            without TLS.
        type: bool
        default: false
  check_only:
    description: Whether only to look at what is asked, before anything is done. RV(secrets) has no contents then, and no password is opened.
    type: bool
    default: false
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: It only reads and computes.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
seealso:
  - module: saasodoo.postgres_pools.swarm_secret
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Fill the secret of an application with its connection
  saasodoo.postgres_pools.connection_secret:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    secrets:
      - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
        name: odoo-acme-database
        content: dsn
  register: filled
  no_log: true
"""

RETURN = r"""
secrets:
  description:
    - For each secret C(instance_id) and C(name), C(content) in clear, and C(digests) of the content, by each secret key, the newest first.
      They tell who knows the keys whether two contents are equal, and nobody anything else.
  returned: success
  type: list
  elements: dict
  sample:
    - instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
      name: odoo-acme-database
      content: postgres-pool-1
      digests: [5f0a3c2a6f0d4b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e]
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _connection_secret, _registry_module
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import parse_uuid
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import keys_from

OPTIONS = dict(
    secrets=dict(
        type="list",
        elements="dict",
        required=True,
        no_log=False,
        options=dict(
            instance_id=dict(type="str", required=True),
            name=dict(type="str", required=True),
            content=dict(type="str", default="dsn"),
            optional=dict(type="bool", default=False),
        ),
    ),
    check_only=dict(type="bool", default=False),
)


def read(params, inventory, cipher):
    entries = params["secrets"]
    _connection_secret.check(entries)
    ids = [parse_uuid(entry["instance_id"], "instance_id") for entry in entries]
    if params["check_only"]:
        return dict(changed=False, secrets=[dict(instance_id=one, name=entry["name"]) for one, entry in zip(ids, entries)])
    return dict(changed=False, secrets=_connection_secret.filled(entries, inventory.allocations(ids), keys_from(params)))


def main():
    _registry_module.run(OPTIONS, read, needs_keys=True, read_only=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_secret
short_description: Say what an application's secrets are to hold
version_added: 0.9.0
description:
  - Opens the password of a connection and fills the contents of secrets with it. Runs where the keys may be, such as a client host.
  - The result has passwords in clear, so the task must be C(no_log).
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: It only computes.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
options:
  connection:
    description: The connection.
    type: dict
    required: true
    suboptions:
      host:
        description: Name or address of the server.
        type: str
      port:
        description: Its TCP port.
        type: int
      database:
        description: Name of the database.
        type: str
      user:
        description: Name of the role.
        type: str
      sslmode:
        description: As libpq's C(sslmode).
        type: str
      ca_certificate:
        description: Certificate of the authority that the server is verified by.
        type: str
      password_encrypted:
        description: The role's password, encrypted as the inventory database keeps it.
        type: str
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      target:
        description: Where the secret is in the container.
        type: str
        required: true
      content:
        description:
          - One of C(host), C(port), C(database), C(user), C(sslmode), C(password), C(dsn), C(ca_certificate),
            or a text with some of them in braces.
        type: str
        required: true
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Fill the secret of an application that has the password from elsewhere
  saasodoo.postgres_pools.application_secret:
    connection:
      host: postgres-pool-1
      port: 5432
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
      user: odoo_0b6c5c1e4a5f4a7e_9c582f3d_user
    secrets:
      - target: db_url
        content: postgresql://{user}@{host}:{port}/{database}
  register: filled
  no_log: true
"""

RETURN = r"""
secrets:
  description: For each secret C(target), and C(content) in clear.
  returned: success
  type: list
  elements: dict
  sample:
    - target: db_host
      content: postgres-pool-1
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_connection import (
    connection_spec,
    contents,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import CRYPTOGRAPHY_IMPORT_ERROR


def main() -> None:
    secret = {"target": {"type": "str", "required": True}, "content": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "connection": {
                "type": "dict",
                "required": True,
                "options": {**connection_spec(), "ca_certificate": {"type": "str"}, "password_encrypted": {"type": "str", "no_log": False}},
            },
            "secrets": {"type": "list", "elements": "dict", "required": True, "no_log": False, "options": secret},
            **keys_spec(),
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_IMPORT_ERROR)
    try:
        module.exit_json(changed=False, secrets=contents(module.params["connection"], module.params["secrets"], module.params))
    except PoolsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: scram_verifier
short_description: What PostgreSQL keeps of a password
version_added: 0.9.0
description:
  - Makes the SCRAM-SHA-256 verifier of a password, the same one each time for the same password and O(name).
  - A new server is given it in place of its superuser's password, so that neither a Docker secret nor a container ever holds that.
  - Whoever has the verifier cannot log in with it.
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
  name:
    description: Whose password it is. The salt is made of it and of the password.
    type: str
    required: true
  password:
    description: The password. This or O(password_encrypted) is required.
    type: str
  password_encrypted:
    description: The same, encrypted with the secret key as the inventory database keeps it.
    type: str
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Make the verifier of a new server's superuser
  saasodoo.postgres_pools.scram_verifier:
    name: postgres-pool-1
    password: "{{ lookup('ansible.builtin.password', '/dev/null', length=32) }}"
  register: superuser
"""

RETURN = r"""
verifier:
  description: The verifier, as in C(pg_authid).
  returned: success
  type: str
  sample: SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy
"""

import hashlib
import hmac

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _scram
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec, open_secrets


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "no_log": True},
            "password_encrypted": {"type": "str", "no_log": False},
            **keys_spec(),
        },
        required_one_of=[("password", "password_encrypted")],
        supports_check_mode=True,
    )
    try:
        open_secrets(module, [module.params], "password")
        password = _scram.check_password(module.params["password"], module.params["name"])
        salt = hmac.new(password.encode("ascii"), module.params["name"].encode(), hashlib.sha256).digest()
        verifier = _scram.verifier(password, salt[: _scram.SALT_BYTES])
    except PoolsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, verifier=verifier)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_rotation
short_description: Encrypt the passwords in the inventory database with the newest key
version_added: 0.9.0
description:
  - Opens each password with whichever key fits, and encrypts it with the first key where another had encrypted it. All or nothing.
  - Afterwards the older keys are needed no more, except for backups of the inventory database.
options: {}
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Does the work in a transaction that is rolled back.
    support: full
  diff_mode:
    description: Shows how many passwords change in each column; never a password.
    support: full
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Use the newest key for all
  saasodoo.postgres_pools.secret_rotation:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
"""

RETURN = r"""
rotated:
  description: How many passwords were encrypted anew, by table and column.
  returned: success
  type: dict
  sample:
    db_servers.admin_password_encrypted: 3
    db_allocations.password_encrypted: 120
    db_allocations.next_password_encrypted: 0
    db_authorities.private_key_encrypted: 1
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _registry_module, _rotation


def work(params, inventory, cipher):
    rotated = _rotation.reencrypt(inventory, cipher)
    return dict(changed=any(rotated.values()), rotated=rotated, diff=dict(before={}, after=rotated))


def main():
    _registry_module.run({}, work, needs_keys=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

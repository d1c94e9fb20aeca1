#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_pooler
short_description: Let a PgBouncer in front of an application hold its questions back, and go on
version_added: 1.0.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Works on one database of a PgBouncer, by its admin console. Its file is changed by M(saasodoo.postgres_pools.application_file) with C(pooled=true).
options:
  pooler:
    description: The pooler, and the tenant's database there.
    type: dict
    required: true
    suboptions:
      host:
        description: Host of its admin console.
        type: str
        required: true
      port:
        description: Port of it.
        type: int
        default: 6432
      user:
        description: One of its C(admin_users).
        type: str
        default: pgbouncer
      passfile:
        description: A password file as libpq's, on the host where this module runs. The default is libpq's own, C(~/.pgpass).
        type: path
      sslmode:
        description: How far TLS is asked for.
        type: str
        default: prefer
      database:
        description: Name of the tenant's database in the pooler's section C([databases]).
        type: str
        required: true
      config:
        description: The pooler's file with that section. This module does not touch it.
        type: path
        required: true
      config_host:
        description: The host with that file. This module does not touch it.
        type: str
  state:
    description:
      - V(paused) returns when no transaction is open any more. Whoever asks something from then on waits for the answer.
      - V(resumed) has the pooler read its file anew, and lets those who wait go on.
    type: str
    choices: [paused, resumed]
    default: resumed
  timeout:
    description: Seconds to wait for open transactions with V(paused). After that all go on as before, and the module fails.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Looks whether it is paused.
  diff_mode:
    support: none
    description: There is nothing to be shown.
requirements:
  - psycopg2 >= 2.8
"""

EXAMPLES = r"""
- name: Let it go on
  saasodoo.postgres_pools.application_pooler:
    pooler:
      host: pooler.example.org
      database: acme
      config: /etc/pgbouncer/pgbouncer.ini
    state: resumed
"""

RETURN = r"""
paused:
  description: Whether the pooler holds back what is asked of the database, after this call; in check mode whether it does now.
  returned: success
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _pooler
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection import PSYCOPG2_IMPORT_ERROR
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "pooler": {"type": "dict", "required": True, "options": _pooler.SPEC},
            "state": {"type": "str", "default": "resumed", "choices": ["paused", "resumed"]},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    try:
        module.exit_json(**_pooler.work(module.params, module.check_mode))
    except PoolsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

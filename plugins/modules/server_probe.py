#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_probe
short_description: Ask a PostgreSQL server whether it serves
version_added: 0.9.0
description:
  - Logs in as the administrator, reads a table and its file, and says the server's version. A server that only accepts connections does not serve,
    nor does one in recovery, which takes no writes.
  - Runs on a client host, which reaches the servers.
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: It only looks.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
options:
  login_host:
    description: Name or address of the server.
    type: str
    required: true
  login_port:
    description: Its port.
    type: int
    default: 5432
  login_user:
    description: Its administrator.
    type: str
    default: postgres
  login_password:
    description: The administrator's password. This or O(login_password_encrypted) is required.
    type: str
  login_password_encrypted:
    description: The same, encrypted with the secret key as the inventory database keeps it.
    type: str
  ssl_mode:
    description: How far TLS is asked for, as libpq's C(sslmode). Without it V(prefer), or V(verify-full) where O(ca_certificate) is given.
    type: str
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: File with the certificates of the authorities that the server's certificate is checked against.
    type: path
  ca_certificate:
    description:
      - The same certificates as text, PEM, as the inventory database keeps them.
      - With it and no O(ssl_mode), the certificate is checked as by V(verify-full).
    type: str
  timeout:
    description: Seconds within which the server has to answer. Until then it is asked again.
    type: int
    default: 5
requirements:
  - psycopg2
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Ask the inventory database's own server
  saasodoo.postgres_pools.server_probe:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ admin_password }}"
"""

RETURN = r"""
version:
  description: The server's C(server_version_num).
  returned: success
  type: int
  sample: 180004
data_directory:
  description: Path of its data, as the server itself sees it.
  returned: success
  type: str
  sample: /var/lib/postgresql/18/docker
databases:
  description: Databases beside PostgreSQL's own three, those in quarantine among them.
  returned: success
  type: list
  elements: str
  sample: [odoo_0123456789abcdef_01234567]
latency_ms:
  description: Milliseconds from the login to the answer.
  returned: success
  type: float
  sample: 12.5
"""

import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _connection, _probe
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec, open_secrets


def ask(params: dict, timeout: float) -> dict:
    login = {key: value for key, value in _connection.libpq_arguments(params).items() if key not in ("host", "port")}
    target = _probe.Target(params["login_host"], params["login_port"], dict(login, dbname="postgres"), params["ca_certificate"] or "")
    limit = max(2.0, timeout)
    answer = _probe.sweep([target], limit, limit + 1)[0]
    if not answer.serves:
        raise PoolsError(answer.problem)
    return {
        "version": answer.facts["server_version_num"],
        "data_directory": answer.facts["data_directory"],
        "databases": answer.facts["databases"],
        "latency_ms": answer.latency_ms,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "login_host": {"type": "str", "required": True},
            "login_port": {"type": "int", "default": 5432},
            "login_user": {"type": "str", "default": "postgres"},
            "login_password": {"type": "str", "no_log": True},
            "login_password_encrypted": {"type": "str", "no_log": False},
            "ssl_mode": {
                "type": "str",
                "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
            },
            "ca_cert": {"type": "path"},
            "ca_certificate": {"type": "str"},
            "timeout": {"type": "int", "default": 5},
            **keys_spec(),
        },
        required_one_of=[("login_password", "login_password_encrypted")],
        supports_check_mode=True,
    )
    if _connection.PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=_connection.PSYCOPG2_IMPORT_ERROR)
    module.params["ssl_mode"] = module.params["ssl_mode"] or ("verify-full" if module.params["ca_certificate"] else "prefer")
    deadline = time.monotonic() + module.params["timeout"]
    try:
        open_secrets(module, [module.params], "login_password")
        while True:
            try:
                module.exit_json(changed=False, **ask(module.params, deadline - time.monotonic()))
            except PoolsError as error:
                if time.monotonic() + 0.5 >= deadline or "authentication failed" in str(error):
                    raise
                time.sleep(0.5)
    except PoolsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_key
short_description: Keep the TLS key and certificate of servers where PostgreSQL reads them
version_added: 0.9.0
description:
  - Runs on a host that has the servers' storage. Each server's key is made there, in C(tls/server.key) with mode 0600, and never leaves it.
  - Returns a request, for M(saasodoo.postgres_pools.server_certificate) to sign, and puts the signed certificate into C(tls/server.crt) by a rename.
  - The key stays the same when the certificate is renewed. For another one, move both files away.
options:
  servers:
    description: The servers.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The server's name.
        type: str
        required: true
      path:
        description: Absolute path of its storage on this host.
        type: path
        required: true
  certificates:
    description: Certificates to put in their place, as PEM, by the server's name. For the other servers what is there stays.
    type: dict
    default: {}
  owner:
    description:
      - Who PostgreSQL runs as, the user's name, its uid or C(uid:gid).
      - Empty leaves the files to whom they belong. New ones are then for the current user; for root, C(postgres) when there is such a user, else C(nobody).
    type: str
    default: ""
  make_path:
    description: Whether to make a server's storage where it is missing. Otherwise that is an error, since its file system may not be mounted.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would change; a key that is still to be made has no request.
    support: full
  diff_mode:
    description: Names the files that change; never what is in them.
    support: full
requirements:
  - the program openssl, 1.1.1 or newer
seealso:
  - module: saasodoo.postgres_pools.server_certificate
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: See that a server has a key
  saasodoo.postgres_pools.server_key:
    servers:
      - name: postgres-pool-2
        path: /var/tmp/postgres-pool-2
    make_path: true
  register: keys
"""

RETURN = r"""
servers:
  description: For each server its request and certificate, null where there is none, the paths of both files, and what is wrong (C(msg)).
    One server's trouble does not stop the others', and does not fail the module.
  returned: success
  type: list
  elements: dict
  sample:
    - name: postgres-pool-2
      changed: true
      request: "-----BEGIN CERTIFICATE REQUEST-----..."
      certificate: null
      key_file: /var/tmp/postgres-pool-2/tls/server.key
      certificate_file: /var/tmp/postgres-pool-2/tls/server.crt
      msg: ""
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_key import ServerKey


def ensure(entry: Dict[str, Any], params: Dict[str, Any], check: bool) -> Dict[str, Any]:
    files = ServerKey(entry["name"], entry["path"], params["owner"], check)
    told = {
        "name": entry["name"],
        "changed": False,
        "request": None,
        "certificate": None,
        "key_file": files.key_file,
        "certificate_file": files.certificate_file,
        "msg": "",
    }
    try:
        told.update(files.ensure(params["certificates"].get(entry["name"]), params["make_path"])._asdict())
    except PoolsError as error:
        # One server's trouble is told beside the others' success.
        told["msg"] = str(error)
    return told


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "servers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                },
            },
            "certificates": {"type": "dict", "default": {}},
            "owner": {"type": "str", "default": ""},
            "make_path": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    told = [ensure(entry, module.params, module.check_mode) for entry in module.params["servers"]]
    diff = {
        "before": "",
        "after": "".join("{name}: {certificate_file}\n".format(**one) for one in told if one["changed"]),
    }
    module.exit_json(changed=any(one["changed"] for one in told), servers=told, diff=diff)


if __name__ == "__main__":
    main()

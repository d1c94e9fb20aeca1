#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_file
short_description: Put another connection into an application's INI file
version_added: 0.9.0
description:
  - Changes options of one section, such as C(db_host) in C(odoo.conf). Comments, order, spacing, all other options, mode and owner stay.
  - The new file is written beside and moved into its place, so a reader finds the one or the other. Where a container has this one file mounted, and not its
    directory, it sees the new one when it is started anew.
  - What the options held is kept in a file beside, of mode 0600, from before the first change until it is put back or O(state=settled).
attributes:
  check_mode:
    description: Says whether the file would change.
    support: full
  diff_mode:
    description: Shows the options and nothing else of the file, and none of a pooler's, whose lines may hold passwords.
    support: full
options:
  path:
    description: The file, which must be there. Of a link it is the file that it leads to.
    type: path
    required: true
  section:
    description: The section, which must be there.
    type: str
    default: options
  state:
    description:
      - V(started) puts O(connection) in.
      - V(restored) puts back what was there where V(started) put another one in than O(connection). Without a file beside nothing is put back.
      - V(withdrawn) puts back what was there where V(started) put just O(connection) in.
      - V(settled) forgets what was there.
    type: str
    choices: [started, restored, withdrawn, settled]
    default: started
  keys:
    description:
      - For each option of the section the part of the connection that it holds, one of C(host), C(port), C(database), C(user), C(sslmode).
      - An option that is not there is added at the end of the section, one that is there more than once is changed everywhere.
    type: dict
    required: true
  pooled:
    description:
      - Whether the options are databases of PgBouncer's section C([databases]), named by O(keys) whatever part is given there. In each such line
        host and port become the connection's, and all else of it stays. Such a line has to be there.
    type: bool
    default: false
    version_added: 1.0.0
  connection:
    description:
      - The connection. Required when O(state=started) and O(state=withdrawn).
      - With O(state=restored) the one of where the tenant is to stay, so that after a move that was settled long ago nothing is put back.
    type: dict
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
seealso:
  - module: saasodoo.postgres_pools.swarm_application
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Let Odoo connect to where its database is now
  saasodoo.postgres_pools.application_file:
    path: /srv/odoo/acme/odoo.conf
    keys:
      db_host: host
      db_port: port
    connection:
      host: postgres-dedicated-0b6c5c1e
      port: 5432
"""

RETURN = r"""
path:
  description: The file itself, where O(path) was a link.
  returned: success
  type: str
  sample: /srv/odoo/acme/odoo.conf
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_connection import (
    config_spec,
    connection_spec,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_file import bring
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "default": "started", "choices": ["started", "restored", "withdrawn", "settled"]},
            "pooled": {"type": "bool", "default": False},
            "connection": {"type": "dict", "options": connection_spec()},
            **config_spec(),
        },
        required_if=[("state", "started", ["connection"]), ("state", "withdrawn", ["connection"])],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**bring(module.params, module.check_mode, module.atomic_move))
    except PoolsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

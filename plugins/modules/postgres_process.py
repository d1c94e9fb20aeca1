#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_process
short_description: Run a local PostgreSQL server as an unprivileged user
version_added: 0.9.0
description:
  - Makes, configures, starts, stops or archives one PostgreSQL server of this machine, without a service manager or containers.
  - This is the C(process) backend of the collection, made for a first try and for tests. In production use another backend.
  - The server is O(path) with its data in C(data) and its log in C(log/postgres.log). It accepts TCP connections only.
  - One run at a time works on a server, held by a lock in O(path). A run that was killed anywhere is completed by the next one.
  - A server survives the end of the playbook, but not a restart of the machine. Run the module again after that.
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Predicts the actions and changes nothing.
    support: full
  diff_mode:
    description: Shows the state, the settings and the lines of C(pg_hba.conf) before and after.
    support: full
options:
  name:
    description: The server's name, for messages.
    type: str
    required: true
  path:
    description:
      - Absolute path of the server's own directory. It is made when it is missing.
      - A directory that holds something else than a server is refused.
    type: path
    required: true
  state:
    description:
      - V(started) makes the data directory when there is none, writes the configuration, and waits until the administrator's query is answered.
      - A changed setting is loaded by a reload, or by a restart where PostgreSQL asks for one.
      - V(stopped) ends the server's sessions and stops it in order.
      - V(absent) stops it and moves its directory into O(archive_path). Nothing is deleted.
    type: str
    choices: [started, stopped, absent]
    default: started
  port:
    description: TCP port. Required when O(state=started).
    type: int
  listen_addresses:
    description: Addresses to listen on, with commas between them; V(*) for all.
    type: str
    default: 127.0.0.1
  admin_user:
    description: Name of the superuser made with the data directory.
    type: str
    default: postgres
  admin_password:
    description:
      - Password of the superuser. Required when O(state=started).
      - It is set when the data directory is made. Afterwards a password that the server does not accept is an error; it is never reset.
    type: str
  admin_password_encrypted:
    description: The same, encrypted with the secret key, as M(saasodoo.postgres_pools.server) returns it.
    type: str
  settings:
    description:
      - Settings of C(postgresql.conf), by name. PostgreSQL judges them before anything is changed.
      - A boolean becomes V(on) or V(off). Settings that are not here have PostgreSQL's own default.
      - Settings that other options decide, such as C(port), are refused.
    type: dict
    default: {}
  hba:
    description:
      - Lines of C(pg_hba.conf), in their order. They replace the whole file.
      - Empty means the collection's wall, which lets in the administrator everywhere and a tenant to the tenant's own database.
    type: list
    elements: str
    default: []
  bin_dir:
    description:
      - Directory of C(postgres), C(initdb) and C(pg_ctl), version 15 or newer.
      - Empty takes the environment variable E(POSTGRES_POOLS_BIN_DIR), else the newest below C(/usr/lib/postgresql) or C(/usr/pgsql-*), else C(PATH).
      - An existing data directory takes the programs of its own major version.
    type: path
    default: ""
  run_as:
    description:
      - User that PostgreSQL runs as.
      - Empty means the current user; for root, C(postgres) when there is such a user, else C(nobody).
    type: str
    default: ""
  locale:
    description: Locale of a new data directory. It must exist on this machine.
    type: str
    default: C.UTF-8
  encoding:
    description: Encoding of a new data directory.
    type: str
    default: UTF8
  archive_path:
    description:
      - Directory that receives the server's directory when O(state=absent), under its name and the time. It must be on the same file system.
      - Empty means C(archived) beside O(path).
    type: path
    default: ""
  timeout:
    description:
      - Seconds for the whole work, waiting for another run's lock and for crash recovery included.
      - The default is the time that the reference platform of the collection grants a new server.
    type: int
    default: 180
requirements:
  - psycopg2
  - PostgreSQL 15 or newer on the machine
  - Linux
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Run a PostgreSQL of this user's own
  saasodoo.postgres_pools.postgres_process:
    name: postgres-pool-1
    path: /var/tmp/postgres-pool-1
    port: 15499
    admin_password: "{{ lookup('ansible.builtin.password', '/var/tmp/postgres-pool-1.password', chars=['ascii_letters', 'digits']) }}"
    settings:
      max_connections: 50
      log_min_duration_statement: 1s

- name: Stop it and keep its data
  saasodoo.postgres_pools.postgres_process:
    name: postgres-pool-1
    path: /var/tmp/postgres-pool-1
    state: stopped

- name: Archive it
  saasodoo.postgres_pools.postgres_process:
    name: postgres-pool-1
    path: /var/tmp/postgres-pool-1
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample: [write the configuration, reload]
host:
  description: Address at which this machine reaches the server.
  returned: success
  type: str
  sample: 127.0.0.1
port:
  description: TCP port, as given.
  returned: success
  type: int
  sample: 15433
version:
  description: The server's C(server_version_num). In check mode and before a start it is that of the programs. Null unless O(state=started).
  returned: success
  type: int
  sample: 150018
data_directory:
  description: Path of the data directory.
  returned: success
  type: str
  sample: /var/lib/postgres_pools/postgres-pool-1/data
bin_dir:
  description: Directory of the programs that were used. Null when none were needed.
  returned: success
  type: str
  sample: /usr/lib/postgresql/15/bin
pid:
  description: Process ID of the server. Null when it does not run.
  returned: success
  type: int
  sample: 4711
archive:
  description: Where the directory was moved. Null when it was not.
  returned: success
  type: str
  sample: /var/lib/postgres_pools/archived/postgres-pool-1-20260102T030405Z
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _hba
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec, open_secrets
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_session import PSYCOPG2_ERROR


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
            "port": {"type": "int"},
            "listen_addresses": {"type": "str", "default": "127.0.0.1"},
            "admin_user": {"type": "str", "default": "postgres"},
            "admin_password": {"type": "str", "no_log": True},
            "admin_password_encrypted": {"type": "str", "no_log": False},
            "settings": {"type": "dict", "default": {}},
            "hba": {"type": "list", "elements": "str", "default": []},
            "bin_dir": {"type": "path", "default": ""},
            "run_as": {"type": "str", "default": ""},
            "locale": {"type": "str", "default": "C.UTF-8"},
            "encoding": {"type": "str", "default": "UTF8"},
            "archive_path": {"type": "path", "default": ""},
            "timeout": {"type": "int", "default": 180},
            **keys_spec(),
        },
        required_if=[
            ("state", "started", ("port",)),
            ("state", "started", ("admin_password", "admin_password_encrypted"), True),
        ],
        supports_check_mode=True,
    )
    if PSYCOPG2_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    try:
        open_secrets(module, [module.params], "admin_password")
        options = {
            key: value
            for key, value in module.params.items()
            if key not in keys_spec() and key != "admin_password_encrypted"
        }
        del options["name"]
        state = options.pop("state")
        options["hba"] = options["hba"] or _hba.lines(options["admin_user"])
        result = ensure(Wanted(**options), state, module.check_mode)
    except PoolsError as error:
        module.fail_json(msg="{0}: {1}".format(module.params["name"], error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_schema
short_description: Bring the schema of the inventory database to a version
version_added: 0.9.0
description:
  - Runs numbered SQL scripts up or down, a transaction each, and keeps their checksums in C(db_schema_versions).
  - Log in as the owner of the database; the role C(inventory_db) passes the scripts and does the rest.
options:
  login_host:
    description: Host of the inventory database. Empty means E(PGHOST), then the local socket.
    type: str
    default: ""
  login_port:
    description: Its port. E(PGPORT) is the default where it is set.
    type: int
    default: 5432
  login_user:
    description: Owner of the database. E(PGUSER) is the default where it is set.
    type: str
    default: postgres
  login_password:
    description: The owner's password. Empty leaves it to libpq, which reads a password file.
    type: str
    default: ""
  login_db:
    description: Name of the inventory database. E(PGDATABASE) is the default where it is set.
    type: str
    default: postgres_pools
  login_unix_socket:
    description: Directory of a local socket, used where O(login_host) is empty.
    type: str
    default: ""
  ssl_mode:
    description: How far TLS is asked for, as libpq's C(sslmode).
    type: str
    default: prefer
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: File with the certificates of the authorities that the server's certificate is checked against.
    type: path
    aliases: [ssl_rootcert]
  ssl_cert:
    description: File with the client's certificate.
    type: path
  ssl_key:
    description: File with the client certificate's key.
    type: path
  connect_params:
    description: More libpq keywords; they win over the options above.
    type: dict
    default: {}
  migrations:
    description: Scripts by file name, C(NNNN_name.up.sql) and C(NNNN_name.down.sql), without a gap from 0001.
    type: dict
    required: true
  version:
    description: The version to be at, 0 for none. Without it, the newest.
    type: int
  grants:
    description: SQL that gives the service role its privileges; C({service}) and C({database}) stand for their quoted names.
    type: str
    default: ""
  service_role:
    description: The role that O(grants) is for.
    type: str
    default: database_service
  discard:
    description: Roll back to version 0 also when servers or allocations would be forgotten by it.
    type: bool
    default: false
requirements:
  - psycopg2 >= 2.8
attributes:
  check_mode:
    description: Says what is pending, and runs none of it.
    support: full
  diff_mode:
    description: Shows the version before and after, and the scripts between.
    support: full
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Bring the schema up to date
  saasodoo.postgres_pools.inventory_schema:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_user: postgres
    login_password: "{{ admin_password }}"
    login_db: example
    migrations:
      0001_example.up.sql: CREATE TABLE example (id integer);
      0001_example.down.sql: DROP TABLE example;
"""

RETURN = r"""
version:
  description: The version before the call in check mode, after it otherwise.
  returned: success
  type: int
  sample: 5
applied:
  description: Scripts that were run up; in check mode, that would be.
  returned: success
  type: list
  elements: str
  sample: [0004_registry_revised, 0005_watching]
rolled_back:
  description: Scripts that were run down; in check mode, that would be.
  returned: success
  type: list
  elements: str
  sample: []
granted:
  description: Whether the service role lacked a privilege.
  returned: success
  type: bool
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _schema
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection import PSYCOPG2_IMPORT_ERROR, connect
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import connection_spec


def bring(params, check_mode):
    connection = connect(params)
    try:
        schema = _schema.Schema(connection, _schema.migrations_from(params["migrations"]))
        schema.lock()
        before = schema.version()
        up, down = schema.pending(params["version"])
        if params["discard"]:
            schema.allow_discarding()
        else:
            schema.check_discardable(down)
        if not check_mode:
            schema.run(up, down)
        version = schema.version()
        # The grants are written for the newest version: before it, and in check mode on the way to it, what they name is not there.
        granted = (
            bool(params["grants"])
            and version == len(params["migrations"]) // 2
            and schema.grant(params["grants"], params["service_role"], check_mode)
        )
    finally:
        connection.close()
    applied, rolled_back = [one.label for one in up], [one.label for one in down]
    after = before + len(up) - len(down)
    return dict(
        changed=bool(up or down or granted),
        version=version,
        applied=applied,
        rolled_back=rolled_back,
        granted=granted,
        diff=dict(
            before=dict(version=before),
            after=dict(version=after, applied=applied, rolled_back=rolled_back, granted=granted),
        ),
    )


def main():
    spec = connection_spec()
    spec["login_user"]["default"] = "postgres"
    module = AnsibleModule(
        argument_spec=dict(
            spec,
            migrations=dict(type="dict", required=True),
            version=dict(type="int"),
            grants=dict(type="str", default=""),
            service_role=dict(type="str", default="database_service"),
            discard=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    try:
        result = bring(module.params, module.check_mode)
    except PoolsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

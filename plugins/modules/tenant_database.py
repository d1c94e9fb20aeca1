#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tenant_database
short_description: Make, quarantine or drop tenants' databases
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Brings one or many tenant databases, on one or many PostgreSQL servers (15 or later), to the wanted state in a
    single call. Servers are worked on side by side, and several databases of each at a time.
  - A tenant database is a database made from C(template0), the role that owns it, and the gate, a NOLOGIN role
    named as the database, whose only member is the owner. The gate is what C(samerole) in C(pg_hba.conf) asks for,
    and so keeps other tenants out also after an owner has granted CONNECT to everybody.
  - Limits are set on the owner role, because a database's owner can lift those of the database.
  - Only SCRAM-SHA-256 verifiers are sent to the server, never a clear password; a password that is set already is
    not set again.
  - An interrupted call is completed by the next one. Until a new database is finished it has a connection limit of
    0, which keeps out everybody but superusers.
  - Roles made by this module bear a comment that says so. A role or database that was not made by it is never taken
    over, changed or dropped.
extends_documentation_fragment:
  - community.postgresql.postgres
  - saasodoo.postgres_pools.inventory_db.keys
options:
  databases:
    description:
      - The databases, each with its server if that is not the one of the module's own O(login_host) and
        O(login_port).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the database and of its gate role, 1 to 63 bytes of UTF-8.
          - V(postgres), V(template0), V(template1), V(tenant_bus), names that begin with V(pg_) and words with a
            meaning of their own in C(pg_hba.conf) are refused.
        type: str
        required: true
      owner:
        description:
          - The role that owns the database. It may log in, and has no other privilege on the server.
          - The default is O(databases[].name) with V(_user) after it.
        type: str
      password:
        description:
          - The owner's password, of printable ASCII characters. Required with O(state=present) and O(state=restored).
        type: str
      password_encrypted:
        description:
          - The owner's password encrypted with the secret key, as M(saasodoo.postgres_pools.allocation) returns it; instead of O(databases[].password).
        type: str
      profile:
        description:
          - V(odoo) makes the extensions C(pg_trgm) and C(unaccent) in the schema C(public), and C(unaccent(text\))
            IMMUTABLE so that Odoo can index on it.
          - V(plain) makes no extension. Extensions that are there are left as they are.
        type: str
        choices: [odoo, plain]
        default: odoo
      connection_limit:
        description:
          - How many connections the owner may have at a time, 1 or more.
          - The default is what the reference platform plans for each tenant; give what the plan promises.
        type: int
        default: 20
      temp_file_limit:
        description:
          - How much disk one process of the owner's may take for temporary files, in bytes, or with one of
            PostgreSQL's units C(B), C(kB), C(MB), C(GB), C(TB); V(-1) for no limit. Rounded up to whole kB.
          - Without it what is set is left as it is.
        type: str
      bus:
        description:
          - Whether the owner may connect to the database C(postgres), where Odoo's bus uses LISTEN and NOTIFY, as a
            member of the role C(tenant_bus).
          - Tenants there can read each other's notifications and the names of all databases and roles, so it is
            closed by default.
        type: bool
        default: false
      lc_collate:
        description: Collation of a new database. An existing one with another is an error.
        type: str
        default: C
      lc_ctype:
        description:
          - Character classes of a new database. An existing one with others is an error.
          - With V(C) only ASCII letters have upper and lower case, so that C(ILIKE) and trigrams tell C(É) from
            C(é), and words without ASCII letters have no trigrams; V(C.UTF-8) knows all letters.
        type: str
        default: C.UTF-8
      encoding:
        description: Encoding of a new database. An existing one with another is an error.
        type: str
        default: UTF8
      quarantine_name:
        description:
          - What the database is called in quarantine, 1 to 58 bytes; its owner is called this with V(_user) after
            it.
          - Required with O(state=quarantined) and O(state=restored). With O(state=absent) only the quarantined database is dropped; one
            called O(databases[].name) is left alone.
          - Not used with O(state=present) and O(state=closed).
        type: str
      follows:
        description: With O(state=quarantined), whether it goes on following the place that its tenant moved to. Nobody but a superuser enters it then either.
        type: bool
        default: false
        version_added: 1.0.0
      login_host:
        description: This database's server, if not the module's O(login_host).
        type: str
      login_port:
        description: Its port, if not the module's O(login_port).
        type: int
      login_user:
        description: The administrator there, if not the module's O(login_user). All databases of one server take
          the same.
        type: str
      login_password:
        description: The administrator's password there, if not the module's O(login_password).
        type: str
      login_password_encrypted:
        description: The same, encrypted with the secret key.
        type: str
      login_ssl_mode:
        description: How far TLS is asked for there, if not by the module's O(ssl_mode).
        type: str
        choices: [allow, disable, prefer, require, verify-ca, verify-full]
      login_ca_certificate:
        description: Certificates of the authorities that the server's certificate is checked against, as PEM, if not those in the module's O(ca_cert).
        type: str
  state:
    description:
      - V(present) makes what is missing and mends what differs.
      - V(quarantined) stops the owner from logging in and anybody from connecting, ends all connections, and then
        renames the database and both roles in one transaction. The data stays, owned by the renamed role.
      - V(restored) brings it back from there under its own name, and then does as V(present).
      - V(closed) stops the owner from logging in and ends all connections, and leaves the rest as it is, so that the administrator can
        copy what nobody changes any more. V(present) opens it again.
      - V(absent) ends all connections, and drops the database and both roles.
      - What is not there needs neither quarantine nor dropping, and is no error.
    type: str
    choices: [present, closed, quarantined, restored, absent]
    default: present
  max_parallel:
    description:
      - How many databases of one server are worked on at a time, each over a connection of its own. Up to 16
        servers are worked on side by side.
    type: int
    default: 4
  require_wall:
    description:
      - Whether O(state=present) refuses a server whose C(pg_hba.conf) would let a tenant into another's database.
        The file must let tenants in by C(host samerole all all scram-sha-256), then reject all others by C(host all
        all all reject), and have nothing before it that lets any user into other databases. The file is read from
        the server; it is assumed to have been loaded.
    type: bool
    default: true
  connect_timeout:
    description: How many seconds to wait for a server to answer.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: Nothing is changed; the same values are returned, as they would be.
  diff_mode:
    support: full
    description: Shows each thing that differs, by what was done about it. Never a password or verifier.
notes:
  - The login must be a superuser's, since verifiers are read from C(pg_authid).
  - CONNECT and TEMPORARY on the databases C(postgres) and C(template1) are taken from PUBLIC.
  - Nobody but the owner may be a member of the gate; other members are removed.
seealso:
  - module: community.postgresql.postgresql_db
  - module: community.postgresql.postgresql_user
requirements:
  - psycopg2 >= 2.8
"""

EXAMPLES = r"""
- name: Make one tenant's database
  saasodoo.postgres_pools.tenant_database:
    login_host: "{{ server_host }}"
    login_port: "{{ server_port }}"
    login_user: postgres
    login_password: "{{ server_password }}"
    databases:
      - name: odoo_0b6c5c1e4a5f4a7e_9c582f3d
        password: "{{ tenant_password }}"
        connection_limit: 6
        temp_file_limit: 1GB

- name: Make databases on two servers at once
  saasodoo.postgres_pools.tenant_database:
    login_user: postgres
    login_password: "{{ server_password }}"
    login_port: "{{ server_port }}"
    databases:
      - name: first
        password: "{{ tenant_password }}"
        login_host: 127.0.0.1
      - name: second
        password: "{{ tenant_password }}"
        profile: plain
        login_host: "{{ server_host }}"

- name: Take a tenant's database out of use, and keep its data
  saasodoo.postgres_pools.tenant_database:
    login_host: "{{ server_host }}"
    login_port: "{{ server_port }}"
    login_user: postgres
    login_password: "{{ server_password }}"
    state: quarantined
    databases:
      - name: first
        quarantine_name: first_released

- name: Bring it back
  saasodoo.postgres_pools.tenant_database:
    login_host: "{{ server_host }}"
    login_port: "{{ server_port }}"
    login_user: postgres
    login_password: "{{ server_password }}"
    state: restored
    databases:
      - name: first
        quarantine_name: first_released
        password: "{{ tenant_password }}"

- name: Keep its tenant out while it is copied
  saasodoo.postgres_pools.tenant_database:
    login_host: "{{ server_host }}"
    login_port: "{{ server_port }}"
    login_user: postgres
    login_password: "{{ server_password }}"
    state: closed
    databases:
      - name: first

- name: Take it out of use again
  saasodoo.postgres_pools.tenant_database:
    login_host: "{{ server_host }}"
    login_port: "{{ server_port }}"
    login_user: postgres
    login_password: "{{ server_password }}"
    state: quarantined
    databases:
      - name: first
        quarantine_name: first_released

- name: Drop it for good
  saasodoo.postgres_pools.tenant_database:
    login_host: "{{ server_host }}"
    login_port: "{{ server_port }}"
    login_user: postgres
    login_password: "{{ server_password }}"
    state: absent
    databases:
      - name: first
        quarantine_name: first_released
"""

RETURN = r"""
databases:
  description: What became of each database, in the order given; also when some failed.
  returned: always, unless the arguments were refused
  type: list
  elements: dict
  contains:
    name:
      description: The database's name as given.
      type: str
      sample: odoo_0b6c5c1e4a5f4a7e_9c582f3d
    owner:
      description: Its owner.
      type: str
      sample: odoo_0b6c5c1e4a5f4a7e_9c582f3d_user
    host:
      description: Its server's host.
      type: str
      sample: 127.0.0.1
    port:
      description: Its server's port.
      type: int
      sample: 5432
    changed:
      description: Whether something was done, or would be in check mode.
      type: bool
      sample: true
    actions:
      description: What was done, or would be in check mode, in words.
      type: list
      elements: str
      sample: [database odoo_0b6c5c1e4a5f4a7e_9c582f3d made]
    failed:
      description: Whether it could not be brought to the wanted state.
      type: bool
      sample: false
    msg:
      description: Why not; empty if it was.
      type: str
      sample: ""
servers:
  description: What was done on each server apart from the tenants' own databases.
  returned: always, unless the arguments were refused
  type: list
  elements: dict
  contains:
    host:
      description: The server's host.
      type: str
      sample: 127.0.0.1
    port:
      description: The server's port.
      type: int
      sample: 5432
    changed:
      description: Whether something was done, or would be in check mode.
      type: bool
      sample: true
    actions:
      description: What was done, in words.
      type: list
      elements: str
      sample: [database postgres closed to PUBLIC]
    failed:
      description: Whether the server as a whole could not be used.
      type: bool
      sample: false
    msg:
      description: Why not; empty if it could.
      type: str
      sample: ""
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.community.postgresql.plugins.module_utils.postgres import postgres_common_argument_spec
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection import PSYCOPG2_IMPORT_ERROR
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec, open_secrets
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant import STATES
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_report import answer, arrange


def argument_spec() -> dict:
    spec = postgres_common_argument_spec()
    spec.update(
        databases={
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": {"type": "str", "required": True},
                "owner": {"type": "str"},
                "password": {"type": "str", "no_log": True},
                "password_encrypted": {"type": "str", "no_log": False},
                "profile": {"type": "str", "choices": ["odoo", "plain"], "default": "odoo"},
                "connection_limit": {"type": "int", "default": 20},
                "temp_file_limit": {"type": "str"},
                "bus": {"type": "bool", "default": False},
                "lc_collate": {"type": "str", "default": "C"},
                "lc_ctype": {"type": "str", "default": "C.UTF-8"},
                "encoding": {"type": "str", "default": "UTF8"},
                "quarantine_name": {"type": "str"},
                "follows": {"type": "bool", "default": False},
                "login_host": {"type": "str"},
                "login_port": {"type": "int"},
                "login_user": {"type": "str"},
                "login_password": {"type": "str", "no_log": True},
                "login_password_encrypted": {"type": "str", "no_log": False},
                "login_ssl_mode": {
                    "type": "str",
                    "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
                },
                "login_ca_certificate": {"type": "str"},
            },
        },
        state={"type": "str", "choices": list(STATES), "default": "present"},
        max_parallel={"type": "int", "default": 4},
        require_wall={"type": "bool", "default": True},
        connect_timeout={"type": "int", "default": 10},
        **keys_spec(),
    )
    return spec


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    try:
        for option in ("password", "login_password"):
            open_secrets(module, module.params["databases"], option)
        result = answer(*arrange(module.params, module.check_mode))
    except PoolsError as error:
        module.fail_json(msg=str(error))
    if result["failed"]:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

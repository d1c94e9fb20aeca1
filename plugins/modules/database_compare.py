#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: database_compare
short_description: Prove that two databases hold the same
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Compares any two databases, on one or two PostgreSQL servers of any major from 15 on, and names what differs.
  - "The schema: tables, partitions and their bounds, columns, defaults, constraints, indexes, views, materialized views, rules, triggers, policies,
    sequences, types, functions, operators, text search, event triggers, extensions and all else that a database has; with owners, privileges, default
    privileges, comments, security labels, storage parameters and statistics targets, and whether indexes are valid, constraints validated and triggers
    enabled."
  - "The content: each table's and materialized view's number of rows and a checksum of 128 bits over them, where sequences stand, and each large object's
    length and checksum. Generated columns and unlogged tables are included, row-level security hides nothing, temporary tables do not count."
  - "What a dump forgets: the database's encoding, locale, privileges, connection limit, comment and settings, settings of roles in it; and of the roles
    that have to do with it, attributes, limits, settings, memberships and whether they have the same password."
  - Checksums are computed in the servers, piece by piece in bounded memory, over O(jobs) sessions on each side; no row leaves its server. Each side is read
    on one snapshot. Where rows lie, in which order, and the order of columns does not matter to a checksum, nor do the database's settings.
  - What PostgreSQL's majors say differently of the same thing is no difference.
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.move
  - saasodoo.postgres_pools.inventory_db.keys
options:
  source:
    description: The database that the other one shall be like.
    type: dict
    required: true
    suboptions: &side
      database:
        description: Its name.
        type: str
        required: true
      owner:
        description:
          - Its owner. Given on both sides, the source's is taken to be the target's, by whatever name. Without it an owner of another name is a difference.
        type: str
      login_host:
        description: The server's host. Empty means the local socket.
        type: str
      login_port:
        description: Its port.
        type: int
        default: 5432
      login_user:
        description: A superuser there.
        type: str
        default: postgres
      login_password:
        description: The superuser's password. Without it libpq looks for one, in a password file for instance.
        type: str
      login_password_encrypted:
        description: The same, encrypted with the secret key.
        type: str
      login_ssl_mode:
        description: How far TLS is asked for, as libpq's C(sslmode).
        type: str
        choices: [allow, disable, prefer, require, verify-ca, verify-full]
        default: prefer
      login_ca_certificate:
        description: Certificates of the authorities that the server's certificate is checked against, as PEM.
        type: str
  target:
    description: The database that is looked at.
    type: dict
    required: true
    suboptions: *side
  role_map:
    description:
      - Names of roles of the source, each with the name that the same role has on the target.
      - The first superuser, a role named as the database and, where O(source.owner) and O(target.owner) are given, the owner need not be in it.
    type: dict
    default: {}
  data:
    description:
      - V(checksum) compares each row and each large object; V(count) only how many rows there are; V(none) the schema and sequences alone.
    type: str
    choices: [checksum, count, none]
    default: checksum
  jobs:
    description: How many sessions read on each side, beside the one that holds the snapshot.
    type: int
    default: 2
  ignore:
    description:
      - What may differ, each by its kind (V(comment)), its name (V(public.visits)), both (V(index public.visits_day)), or a kind and what differs of it
        (V(role.connection limit)), as RV(differences) says them.
    type: list
    elements: str
    default: []
  max_differences:
    description: How many differences RV(differences) tells at most. All are counted.
    type: int
    default: 20
  fail_on_difference:
    description: Whether a difference makes the task fail. RV(differences) is returned then too.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed, so a run in check mode is the same.
  diff_mode:
    support: none
    description: There is nothing that would change; RV(differences) tells what differs.
notes:
  - A server that answers no login for 15 seconds ends the comparison.
  - "Rows are read on a snapshot, sequences and the catalogs' definitions as they are when their turn comes: a database that is written to meanwhile can
    differ from itself."
  - Where the majors differ, views that are written otherwise are made as temporary views on the newer server, in a transaction that is rolled back, to see
    how that server would write them. It has to accept writes for that.
  - A checksum keeps nobody from forging rows that have the same; it finds what was lost or broken on the way. It is made of PostgreSQL's own hash functions,
    which depend on the byte order of the machine, and one kept in a proof is not for comparing with those of later majors.
  - Rows of foreign tables and virtual generated columns are not compared, nor the versions of collations, since those are the operating system's.
  - A row whose text is longer than 1 GB cannot be compared, nor could C(pg_dump) write it.
seealso:
  - module: saasodoo.postgres_pools.database_copy
  - module: saasodoo.postgres_pools.tenant_database
requirements:
  - psycopg2 >= 2.8
"""

EXAMPLES = r"""
- name: See whether a copy is complete
  saasodoo.postgres_pools.database_compare:
    source:
      login_host: "{{ source_host }}"
      login_port: "{{ source_port }}"
      login_password: "{{ source_password }}"
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
    target:
      login_host: "{{ target_host }}"
      login_port: "{{ target_port }}"
      login_password: "{{ target_password }}"
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
    fail_on_difference: true

- name: Compare schemas alone, whatever the limits of roles are
  saasodoo.postgres_pools.database_compare:
    source:
      login_host: "{{ source_host }}"
      login_port: "{{ source_port }}"
      login_password: "{{ source_password }}"
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
    target:
      login_host: "{{ target_host }}"
      login_port: "{{ target_port }}"
      login_password: "{{ target_password }}"
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
    data: none
    ignore:
      - role.connection limit
      - role.settings
"""

RETURN = r"""
equal:
  description: Whether nothing differs but for what O(ignore) says.
  returned: success or difference
  type: bool
  sample: false
differences:
  description: The first O(max_differences) things that differ.
  returned: success or difference
  type: list
  elements: dict
  contains:
    kind:
      description: What kind of object it is.
      type: str
      sample: table
    name:
      description: Its name, quoted as in SQL; roles by the target's name. Empty for the database itself.
      type: str
      sample: public.visits
    what:
      description: What of it differs; V(existence) if only one side has it.
      type: str
      sample: rows
    source:
      description: How the source has it, of long texts the part where they begin to differ. Of privileges only those that the target lacks. Never a secret.
      type: str
      sample: "1000"
    target:
      description: How the target has it, likewise.
      type: str
      sample: "999"
difference_count:
  description: How many things differ.
  returned: success or difference
  type: int
  sample: 1
tables:
  description: How many tables and materialized views of the source were read.
  returned: success or difference
  type: int
  sample: 421
rows:
  description: How many rows they hold.
  returned: success or difference
  type: int
  sample: 812345
bytes:
  description: How many bytes the source's tables and large objects take, without indexes.
  returned: success or difference
  type: int
  sample: 734003200
seconds:
  description: How long it took, in seconds.
  returned: success or difference
  type: float
  sample: 4.21
proof:
  description:
    - What to keep of it. Holds RV(equal), RV(difference_count), RV(differences), RV(rows), RV(bytes) and RV(seconds); further C(when) in UTC, C(data) and
      C(ignored) as asked for, C(table_count), and C(tables), the source's first 5,000 tables each with C(name), C(rows) and C(checksum).
    - C(source) and C(target) say where each is, its C(version), digests of schema, tables and sequences, and the number, bytes and digest of large objects.
  returned: success or difference
  type: dict
  sample:
    equal: true
    when: "2026-01-31T03:12:45Z"
    table_count: 421
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._compare import compare, login
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection import PSYCOPG2_IMPORT_ERROR
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._moving_watch import watch_spec, watched
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec, open_secrets


def argument_spec() -> dict:
    side = {
        "database": {"type": "str", "required": True},
        "owner": {"type": "str"},
        "login_host": {"type": "str"},
        "login_port": {"type": "int", "default": 5432},
        "login_user": {"type": "str", "default": "postgres"},
        "login_password": {"type": "str", "no_log": True},
        "login_password_encrypted": {"type": "str", "no_log": False},
        "login_ssl_mode": {
            "type": "str",
            "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
            "default": "prefer",
        },
        "login_ca_certificate": {"type": "str"},
    }
    return dict(
        source={"type": "dict", "required": True, "options": side},
        target={"type": "dict", "required": True, "options": side},
        role_map={"type": "dict", "default": {}},
        data={"type": "str", "choices": ["checksum", "count", "none"], "default": "checksum"},
        jobs={"type": "int", "default": 2},
        ignore={"type": "list", "elements": "str", "default": []},
        max_differences={"type": "int", "default": 20},
        fail_on_difference={"type": "bool", "default": False},
        **watch_spec(),
        **keys_spec(),
    )


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    try:
        open_secrets(module, [module.params["source"], module.params["target"]], "login_password")
        with watched(module.params):
            result = compare(login(module.params, "source"), login(module.params, "target"), module.params)
    except PoolsError as error:
        module.fail_json(msg=str(error))
    if module.params["fail_on_difference"] and not result["equal"]:
        first = result["differences"][0] if result["differences"] else {"kind": "", "name": "", "what": ""}
        module.fail_json(
            msg="The databases differ in {0} places, first in {1} {2}: {3}.".format(result["difference_count"], first["kind"], first["name"], first["what"]),
            **result,
        )
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()

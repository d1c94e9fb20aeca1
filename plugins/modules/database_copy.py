#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: database_copy
short_description: Copy a database from one PostgreSQL server to another
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Copies one database, as one exported snapshot sees it, from a server of PostgreSQL 15 or later to one that is not older. The rows go over pipes
    from server to server through the host that this runs on, several tables at a time; a dump without rows is kept in memory, and nothing lies on a disk.
  - Also carried is what a dump forgets, namely the database's encoding, locale, comment, grants, settings and connection limit, settings of roles in
    it, the owner's SCRAM verifier, limits and settings, altered functions of extensions, and roles that own something or are granted something. Such roles
    are made without login where they are missing, and left as they are where they are not.
  - The target's database is made anew. Until the copy is whole it has a connection limit of 0, which keeps out everybody but superusers, and a comment
    that says that it is unfinished. A broken-off copy is begun anew by the next O(state=present), and thrown away by O(state=absent).
  - A server that answers no login for 15 seconds, as behind a network that swallows packets, ends the copy, within about 20 seconds of its falling silent.
    A session that is cut off alone, as by a firewall that forgot it, is ended by TCP after two minutes.
  - Statistics are made. Publications and subscriptions are left out and reported.
  - Nothing is changed on the source. Its tables are locked against changes of their definition until their rows have been read; rows may be written
    meanwhile, but are not copied.
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.move
  - saasodoo.postgres_pools.inventory_db.keys
options:
  source:
    description:
      - The database to copy, with the login of a superuser.
      - Required with O(state=checked) and O(state=present).
    type: dict
    suboptions: &side
      database:
        description: Name of the database. The target's default is the source's.
        type: str
      owner:
        description: The role that owns it. It has the same name on both sides; the target's default is the source's.
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
        description: The same, encrypted with the secret key, as M(saasodoo.postgres_pools.allocation) returns it.
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
    description: Where the copy is made, with the login of a superuser.
    type: dict
    required: true
    suboptions: *side
  state:
    description:
      - V(checked) only looks for what stands against a copy.
      - V(present) looks, and copies if nothing does.
      - V(absent) throws away what a broken-off copy has left on the target, and changes nothing when nothing is left.
    type: str
    choices: [checked, present, absent]
    default: present
  replace:
    description:
      - Whether O(state=present) may throw away a database on the target that holds something. An empty one, and the rest of a broken-off copy, are
        made anew without asking.
      - A database of another owner is never thrown away.
    type: bool
    default: false
  force:
    description: Whether O(state=absent) also drops a copy that is whole, or any other database of that name and owner.
    type: bool
    default: false
  drop_roles:
    description:
      - Whether O(state=absent) also drops the roles that bear the mark of this collection as made for this database, and O(roles). A role that is needed
        elsewhere is kept, with a warning.
      - The roles that a copy makes bear a mark until it is whole, then the comment that they have on the source.
    type: bool
    default: false
  roles:
    description: What a whole copy has returned as RV(roles), for O(drop_roles). Of these, one that may log in is dropped only if it is the owner.
    type: list
    elements: str
  fail:
    description: Whether O(state=checked) fails when something stands against the copy. Otherwise it is only returned in RV(problems).
    type: bool
    default: true
  jobs:
    description: How many tables, indexes or statistics are worked on at a time, 1 to 64. Each takes a session on either server.
    type: int
    default: 2
  maintenance_work_mem:
    description:
      - Memory that each session on the target may take to build an index, with one of PostgreSQL's units such as V(256MB).
      - The default is the server's.
    type: str
  timeout:
    description: After how many seconds a copy is given up; V(0) for never.
    type: int
    default: 0
  bin_dir:
    description:
      - Directory with C(pg_dump) and C(pg_restore), of a major version that is not older than either server.
      - The default is E(POSTGRES_POOLS_BIN_DIR), or what is installed where packages of Debian and of PostgreSQL put it, or is on E(PATH).
    type: path
  target_free_bytes:
    description:
      - How many bytes are free where the target keeps its data. With it, a copy that would not fit is refused; 1.3 times the database's size is
        asked for.
    type: int
  target_budget_bytes:
    description:
      - How many bytes all databases of the target's server may take together. With it, a copy is refused that would not fit beside those that are
        there; 1.3 times the database's size is asked for.
    type: int
    version_added: 0.9.0
  refuse_code:
    description:
      - Whether a database is refused of which the restore would run code that does more than compute, in CHECK constraints of tables and domains, in stored
        generated columns, and in casts. A restore is a superuser's, so on a server that others share that code could reach what is theirs.
      - PostgreSQL's own functions are allowed where they only compute, and the immutable ones that an extension has in C.
    type: bool
    default: false
    version_added: 0.9.0
  ignore_follower:
    description:
      - Whether O(state=checked) leaves out what M(saasodoo.postgres_pools.database_follow) has made on the source for a database that follows it, because the
        caller ends that before the copy. With O(state=present) it would stand in the way all the same, and nothing is left out.
    type: bool
    default: false
    version_added: 1.0.0
  progress_file:
    description:
      - A file that is written anew about once a second, at mode 0600, with an object in JSON of C(phase), C(tables), C(tables_done), C(bytes)
        and C(bytes_done). It is not removed.
    type: path
attributes:
  check_mode:
    support: full
    description: Nothing is changed. With O(state=present) all is looked for that stands against the copy.
  diff_mode:
    support: full
    description: Shows which database is made or dropped.
notes:
  - A copy is not idempotent. A target that holds a whole copy is refused, unless O(replace) is set.
  - Materialized views are filled anew from their tables.
seealso:
  - module: saasodoo.postgres_pools.tenant_database
  - module: community.postgresql.postgresql_db
requirements:
  - psycopg2 >= 2.8
  - pg_dump and pg_restore
"""

EXAMPLES = r"""
- name: See what stands against a copy
  saasodoo.postgres_pools.database_copy:
    source: &source
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
      owner: odoo_0b6c5c1e4a5f4a7e_9c582f3d_user
      login_host: "{{ source_host }}"
      login_port: "{{ source_port }}"
      login_password: "{{ source_password }}"
    target: &target
      login_host: "{{ target_host }}"
      login_port: "{{ target_port }}"
      login_password: "{{ target_password }}"
    state: checked
    fail: false
  register: checked

- name: Copy it with four tables at a time
  saasodoo.postgres_pools.database_copy:
    source: *source
    target: *target
    jobs: 4
    maintenance_work_mem: 256MB
    progress_file: /var/tmp/copy.json

- name: Throw the copy away, whole or broken off
  saasodoo.postgres_pools.database_copy:
    target:
      database: odoo_0b6c5c1e4a5f4a7e_9c582f3d
      owner: odoo_0b6c5c1e4a5f4a7e_9c582f3d_user
      login_host: "{{ target_host }}"
      login_port: "{{ target_port }}"
      login_password: "{{ target_password }}"
    state: absent
    force: true
    drop_roles: true
"""

RETURN = r"""
problems:
  description: What stands against the copy. The module fails if there is anything, except with O(state=checked) and O(fail=false).
  returned: always, unless the arguments were refused or a server could not be reached
  type: list
  elements: dict
  contains:
    what:
      description: What kind of thing it is.
      type: str
      sample: extension
    problem:
      description: What is wrong.
      type: str
      sample: The target has no extension vector (0.7.0 on the source).
    remedy:
      description: What to do about it.
      type: str
      sample: Install its package on the target, or drop it on the source.
warnings:
  description: What is worth knowing and stands against nothing, such as publications, which are left out. Shown as warnings too.
  returned: success
  type: list
  elements: str
  sample: ["Publications are not copied: analytics."]
facts:
  description: What was counted on the source.
  returned: with O(state=checked) or O(state=present)
  type: dict
  contains:
    size:
      description: Size of the database in bytes, with indexes.
      type: int
      sample: 1073741824
    relations:
      description: How many tables, sequences and views it has.
      type: int
      sample: 812
    large_objects:
      description: How many large objects it holds.
      type: int
      sample: 12
    large_object_bytes:
      description: How many bytes they take.
      type: int
      sample: 81920
    unlogged_tables:
      description: How many of its tables are unlogged. Their rows are copied.
      type: int
      sample: 0
    event_triggers:
      description: How many event triggers it has.
      type: int
      sample: 0
bytes:
  description: How many bytes of tables and large objects were copied, as they lay on the source without indexes.
  returned: success
  type: int
  sample: 734003200
tables:
  description: How many tables were copied.
  returned: success
  type: int
  sample: 320
sequences:
  description: How many sequences were set.
  returned: success
  type: int
  sample: 290
roles:
  description: The roles that the copy made on the target, since they were missing there.
  returned: success
  type: list
  elements: str
  sample: [reports]
large_objects:
  description: How many large objects were copied.
  returned: success
  type: int
  sample: 12
seconds:
  description: How many seconds each phase took, namely preflight, schema, rows, indexes, statistics and settings.
  returned: success
  type: dict
  sample: {preflight: 0.1, schema: 1.2, rows: 20.5, indexes: 14.1, statistics: 2.0, settings: 0.1}
actions:
  description: What was thrown away, or would be in check mode, in words.
  returned: with O(state=absent)
  type: list
  elements: str
  sample: [database odoo_0b6c5c1e4a5f4a7e_9c582f3d dropped]
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _copy
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection import PSYCOPG2_IMPORT_ERROR
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._moving_watch import watch_spec, watched
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._registry_module import keys_spec, open_secrets

_SIDE: Dict[str, Any] = dict(
    database=dict(type="str"),
    owner=dict(type="str"),
    login_host=dict(type="str"),
    login_port=dict(type="int", default=5432),
    login_user=dict(type="str", default="postgres"),
    login_password=dict(type="str", no_log=True),
    login_password_encrypted=dict(type="str", no_log=False),
    login_ssl_mode=dict(
        type="str", default="prefer", choices=["allow", "disable", "prefer", "require", "verify-ca", "verify-full"]
    ),
    login_ca_certificate=dict(type="str"),
)


def argument_spec() -> Dict[str, Any]:
    return dict(
        source=dict(type="dict", options=_SIDE),
        target=dict(type="dict", required=True, options=_SIDE),
        state=dict(type="str", default="present", choices=["checked", "present", "absent"]),
        replace=dict(type="bool", default=False),
        force=dict(type="bool", default=False),
        drop_roles=dict(type="bool", default=False),
        roles=dict(type="list", elements="str"),
        fail=dict(type="bool", default=True),
        jobs=dict(type="int", default=2),
        maintenance_work_mem=dict(type="str"),
        timeout=dict(type="int", default=0),
        bin_dir=dict(type="path"),
        target_free_bytes=dict(type="int"),
        target_budget_bytes=dict(type="int"),
        refuse_code=dict(type="bool", default=False),
        ignore_follower=dict(type="bool", default=False),
        progress_file=dict(type="path"),
        **watch_spec(),
        **keys_spec(),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "checked", ("source",)), ("state", "present", ("source",))],
        supports_check_mode=True,
    )
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    try:
        open_secrets(module, [entry for entry in (module.params["source"], module.params["target"]) if entry], "login_password")
        with watched(module.params) as heartbeat:
            told = (heartbeat.progress, heartbeat.check) if heartbeat else ()
            result = _copy.carry_out(module.params, module.check_mode, *told)
    except PoolsError as error:
        module.fail_json(msg=str(error))
    # Ansible returns them beside the rest.
    for warning in result.pop("warnings"):
        module.warn(warning)
    if result["failed"]:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

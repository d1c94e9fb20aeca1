#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: database_follow
short_description: Copy a database that is written to, and follow it until its writers move over
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Copies a database as M(saasodoo.postgres_pools.database_copy) does, while it is written to, and has the copy follow every change from the copy's
    snapshot on, by PostgreSQL's logical replication. Nobody has to stop writing before O(state=drained), however large the database is.
  - The steps are O(state=checked), O(state=started), O(state=watched), then the caller refuses writes on the source, O(state=drained), a comparison
    by M(saasodoo.postgres_pools.database_compare) if one is wanted, and, for a way back with what is written afterwards, O(state=reversed) before
    anybody writes to the target. That way back is gone by O(state=drained) with O(source) and O(target) exchanged.
  - Of the source are changed, until O(state=drained) or O(state=absent), a publication, a replication slot, a role, and with O(full_identity) the replica
    identity of tables without a key. All bear names made from the database's, so that O(state=absent) finds them after a run that was killed.
  - Rows are carried, and sequences and materialized views at O(state=drained). Definitions, large objects, unlogged tables and rows of extensions' tables
    are not; where there are such rows, or definitions change meanwhile, the switch is refused.
  - Tables are not locked against changes of their definition. Whoever waits to make one makes the copy give up.
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.move
  - saasodoo.postgres_pools.inventory_db.keys
options:
  source:
    description: The database that is written to, with the login of a superuser.
    type: dict
    required: true
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
      peer_host:
        description: The host by which the other server reaches this one. The default is the login's.
        type: str
      peer_port:
        description: Its port there. The default is the login's.
        type: int
  target:
    description: Where the copy is made, with the login of a superuser.
    type: dict
    required: true
    suboptions: *side
  state:
    description:
      - V(checked) only looks for what stands against it.
      - V(started) looks, and if nothing does, copies, and follows from then on. The copy is kept closed, as an unfinished one is. A copy that
        follows already is left alone; the rest of a broken-off one is begun anew.
      - V(watched) waits until the target is no further behind than O(lag_bytes). When the source has to keep too much WAL for it, definitions were changed,
        or the target cannot apply what comes, the copy is given up and nothing is left of it.
      - V(compared) compares both while the tenant works, all rows and definitions. Rows that are written at that moment are told by the WAL and looked up
        afterwards, so nobody waits; but tables without a key that are written to are locked against writers, one after the other, for a moment of
        O(fence_timeout) at the most. A slot of its own keeps what is changed from there on, for O(compare).
      - V(drained) waits until the target has applied all that was committed, sets sequences, fills materialized views, and then lets go of
        the source and opens the copy. It is for a time at which writes are refused; it fails, and leaves all as it was, while sessions other than superusers'
        are in the database, when definitions were changed, and after O(switch_timeout).
      - V(reversed) has the source follow the target, for a way back. Both have to hold the same, and nobody may write meanwhile.
      - V(absent) takes away what is left, in both directions, and a copy that is not whole.
    type: str
    choices: [checked, started, watched, compared, drained, reversed, absent]
    default: started
  full_identity:
    description:
      - Whether tables without a key that tells their rows apart may have the replica identity FULL for the time. It makes the source write more WAL for
        them, and the target search through them for each row that is changed.
      - What they had before is put back.
    type: bool
    default: false
  wal_limit_bytes:
    description: How many bytes of WAL the publishing server may have to keep for the other, before the copy is given up.
    type: int
    default: 4294967296
  lag_bytes:
    description: How many bytes of WAL behind is near enough for O(state=watched).
    type: int
    default: 1048576
  timeout:
    description: After how many seconds a copy is given up, or O(state=watched) returns without being near; V(0) for never.
    type: int
    default: 0
  switch_timeout:
    description: After how many seconds O(state=drained) leaves things as they were, or O(state=reversed) is given up.
    type: int
    default: 10
  fence_timeout:
    description:
      - For how many seconds O(state=compared) may keep those waiting who write to a table without a key. Where a transaction that wrote to it stays open
        for longer, it lets them go on, and tries again after some seconds until O(timeout), or 120 seconds.
    version_added: 1.0.0
    type: float
    default: 0.5
  compare:
    description:
      - Whether O(state=drained) proves, before it lets go, that the target is equal, and needs the comparison of O(state=compared) for it. Each row that was
        changed since is then looked up on both sides by its key. Tables that have none, or were truncated, or of which more than 20000 rows were
        changed, are compared as a whole, or where the time left by O(switch_timeout) does not suffice, counted. Sequences are compared, and that no
        definition was changed on either side. At the end so are roles, and what is set for the database.
    version_added: 1.0.0
    type: bool
    default: false
  ignore:
    description: What may differ, as in M(saasodoo.postgres_pools.database_compare).
    version_added: 1.0.0
    type: list
    elements: str
    default: []
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
      - Whether O(state=absent), and whatever else throws a copy away, also drops the roles that bear the mark of this collection as made for this
        database, and O(roles). A role that is needed elsewhere is kept, with a warning.
      - The roles that a copy makes bear a mark until it is whole, then the comment that they have on the source.
    type: bool
    default: false
  roles:
    description: What a whole copy has returned as RV(roles), for O(drop_roles). Of these, one that may log in is dropped only if it is the owner.
    type: list
    elements: str
  fail:
    description: Whether O(state=checked) fails when something stands against it. Otherwise it is only returned in RV(problems).
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
  progress_file:
    description:
      - A file that is written anew about once a second, at mode 0600, with an object in JSON of C(phase), C(tables), C(tables_done), C(bytes)
        and C(bytes_done). It is not removed.
    type: path
attributes:
  check_mode:
    support: full
    description: Nothing is changed. All is looked for that stands against what is asked for, and O(state=watched) looks once.
  diff_mode:
    support: none
    description: RV(actions) tells what was taken away.
notes:
  - The subscribing server logs in to the publishing one as a role that may replicate, enter this database and read no table, with a random password.
    PostgreSQL keeps that password in C(pg_subscription), where superusers of the subscribing server see it, so the role goes when the following
    ends. It is in no statement that is logged. With TLS asked for by O(source.login_ssl_mode), channel binding proves the server instead of a file with
    certificates, which the other server would need.
  - A C(pg_hba.conf) with a line C(samerole) lets the role in, where a role bears the database's name.
  - Each of the two servers needs the settings that O(state=checked) names, of which C(wal_level=logical) takes a restart.
  - While a copy is made, the publishing server keeps WAL and dead rows from its beginning on.
  - Sessions of superusers are not taken for writers.
seealso:
  - module: saasodoo.postgres_pools.database_copy
  - module: saasodoo.postgres_pools.database_compare
requirements:
  - psycopg2 >= 2.8
  - pg_dump and pg_restore
"""

EXAMPLES = r"""
- name: See what stands against it
  saasodoo.postgres_pools.database_follow:
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

- name: Copy it while it is written to, and follow
  saasodoo.postgres_pools.database_follow:
    source: *source
    target: *target
    jobs: 4
    full_identity: true

- name: Wait until it is near
  saasodoo.postgres_pools.database_follow:
    source: *source
    target: *target
    state: watched
    timeout: 600

- name: Compare all while it is written to
  saasodoo.postgres_pools.database_follow:
    source: *source
    target: *target
    state: compared

- name: Let go of the source, now that nobody writes
  saasodoo.postgres_pools.database_follow:
    source: *source
    target: *target
    state: drained
    compare: true

- name: Have the old place follow the new one
  saasodoo.postgres_pools.database_follow:
    source: *source
    target: *target
    full_identity: true
    state: reversed

- name: End that, and throw the new place away
  saasodoo.postgres_pools.database_follow:
    source: *source
    target: *target
    state: absent
    force: true
    drop_roles: true
"""

RETURN = r"""
problems:
  description: What stands against it. The module fails if there is anything, except with O(state=checked) and O(fail=false).
  returned: always, unless the arguments were refused or a server could not be reached
  type: list
  elements: dict
  contains:
    what:
      description: What kind of thing it is.
      type: str
      sample: replica identity
    problem:
      description: What is wrong.
      type: str
      sample: "2 tables have no key that tells their rows apart, and could not be updated while they are followed: public.a, public.b."
    remedy:
      description: What to do about it.
      type: str
      sample: Give them primary keys, or let their replica identity be FULL for the time by full_identity=true.
warnings:
  description: What is worth knowing and stands against nothing. Shown as warnings too.
  returned: success
  type: list
  elements: str
  sample: ["Publications are not copied: analytics."]
facts:
  description: What was counted on the source.
  returned: with O(state=checked) or O(state=started)
  type: dict
  contains:
    size:
      description: Size of the database in bytes, with indexes.
      type: int
      sample: 1073741824
    tables:
      description: How many tables are followed.
      type: int
      sample: 320
    without_identity:
      description: Of how many tables the replica identity becomes FULL.
      type: int
      sample: 2
progress:
  description: How far the following is.
  returned: with O(state=watched)
  type: dict
  contains:
    phase:
      description: Always V(following).
      type: str
      sample: following
    lag_bytes:
      description: How many bytes of WAL the target has yet to confirm.
      type: int
      sample: 8192
    retained_bytes:
      description: How many bytes of WAL the publishing server keeps for it.
      type: int
      sample: 65536
    errors:
      description: How often the target failed to apply something, since it follows.
      type: int
      sample: 0
    active:
      description: Whether the slot is read just now.
      type: bool
      sample: true
caught_up:
  description: Whether the target is as near as asked for.
  returned: with O(state=watched)
  type: bool
  sample: true
given_up:
  description: Whether the copy was given up.
  returned: with O(state=watched)
  type: bool
  sample: false
bytes:
  description: How many bytes of tables were copied, as they lay on the source without indexes.
  returned: when a copy was made
  type: int
  sample: 734003200
tables:
  description: How many tables were copied.
  returned: when a copy was made
  type: int
  sample: 320
large_objects:
  description: How many large objects were copied, which is none.
  returned: when a copy was made
  type: int
  sample: 0
sequences:
  description: How many sequences were set.
  returned: when a copy was made, and with O(state=drained)
  type: int
  sample: 290
roles:
  description: The roles that the copy made on the target, since they were missing there.
  returned: when a copy was made
  type: list
  elements: str
  sample: [reports]
lsn:
  description: Up to where in the source's WAL the target has applied all.
  returned: with O(state=drained)
  type: str
  sample: 0/4A3B2C1D
seconds:
  description: How many seconds each phase took; with O(state=compared) these are C(compare) and C(fence), the longest that a writer waited; with
    O(state=drained) C(drain), C(compare) and C(finish).
  returned: when a copy was made, and with O(state=compared) or O(state=drained)
  type: dict
  sample: {drain: 0.1, compare: 0.1, finish: 0.2}
proof:
  description:
    - What both were compared by, as M(saasodoo.postgres_pools.database_compare) returns it. With C(since) for the rows that were changed while all was
      compared, and after O(state=drained) with C(at_switch) for those that were changed since then.
    - Of a table in C(counted) only the number of rows was compared at the switch.
  returned: with O(state=compared), and with O(state=drained) and O(compare=true)
  type: dict
  sample:
    {equal: true, rows: 734003, lsn: 0/4A3B2C1D, at_switch: {changes: 812, rows: 640, tables: 9, whole_tables: 1, counted: [], seconds: 0.2}}
actions:
  description: What was taken away, or would be in check mode, in words.
  returned: success
  type: list
  elements: str
  sample: [subscription pools_follow_2c26b46b68ffc68f dropped]
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _follow
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
    peer_host=dict(type="str"),
    peer_port=dict(type="int"),
)


def argument_spec() -> Dict[str, Any]:
    return dict(
        source=dict(type="dict", required=True, options=_SIDE),
        target=dict(type="dict", required=True, options=_SIDE),
        state=dict(type="str", default="started", choices=["checked", "started", "watched", "compared", "drained", "reversed", "absent"]),
        full_identity=dict(type="bool", default=False),
        wal_limit_bytes=dict(type="int", default=4 * 1024**3),
        lag_bytes=dict(type="int", default=1024**2),
        timeout=dict(type="int", default=0),
        switch_timeout=dict(type="int", default=10),
        fence_timeout=dict(type="float", default=0.5),
        compare=dict(type="bool", default=False),
        ignore=dict(type="list", elements="str", default=[]),
        replace=dict(type="bool", default=False),
        force=dict(type="bool", default=False),
        drop_roles=dict(type="bool", default=False),
        roles=dict(type="list", elements="str"),
        fail=dict(type="bool", default=True),
        jobs=dict(type="int", default=2),
        maintenance_work_mem=dict(type="str"),
        bin_dir=dict(type="path"),
        target_free_bytes=dict(type="int"),
        progress_file=dict(type="path"),
        **watch_spec(),
        **keys_spec(),
    )


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    try:
        open_secrets(module, [module.params["source"], module.params["target"]], "login_password")
        with watched(module.params) as heartbeat:
            told = (heartbeat.progress, heartbeat.check) if heartbeat else ()
            result = _follow.carry_out(module.params, module.check_mode, *told)
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

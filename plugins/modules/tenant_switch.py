#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tenant_switch
short_description: Let a tenant go over to the copy that follows its database, within seconds
version_added: 1.0.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - The part of a move online that the tenant notices, in one call. Writes are refused in the old place, the new one is drained up to the last commit and
    proved, the inventory database has the tenant there, and the new place is opened.
  - What cannot be done within O(switch_timeout) is taken back, the old place opened again, and RV(switched) is false with the reason in RV(why). The copy
    follows on then, and the same call can be made again later.
  - It belongs between M(saasodoo.postgres_pools.database_follow) and the end of the move by M(saasodoo.postgres_pools.tenant_migration); the role
    C(tenant_migration) shows all of it.
options:
  instance_id:
    description: UUID of the application instance.
    type: str
    required: true
  state:
    description:
      - V(switched) goes from O(source) to O(target). The move has to be C(verifying).
      - V(linked) has the old place follow the new one, after it was put aside under another name, by which O(source.database) and O(source.owner) go then.
      - V(returned) goes from O(target) back to O(source), which followed it, with all that was written meanwhile. The move has to be on its way back.
        It leaves the move C(rolled_back) and unfinished.
    type: str
    choices: [switched, returned, linked]
    default: switched
  lease:
    description: Of the run whose move it is.
    type: str
    required: true
  lease_seconds:
    description: Seconds after which the move may be taken over when nothing more is heard.
    type: int
    default: 20
  source:
    description: The old place, as RV(saasodoo.postgres_pools.tenant_migration#module:source) gives it.
    type: dict
    required: true
    suboptions: &side
      database:
        description: Name of the database.
        type: str
        required: true
      owner:
        description: The role that owns it.
        type: str
        required: true
      login_host:
        description: The server's host.
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
        description: The superuser's password.
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
      peer_host:
        description: The host by which the other server reaches this one. The default is the login's.
        type: str
      peer_port:
        description: Its port there. The default is the login's.
        type: int
  target:
    description: The new place, in the same form.
    type: dict
    required: true
    suboptions: *side
  source_tenant_database:
    description: One of O(saasodoo.postgres_pools.tenant_database#module:databases), for the old place. All states but V(linked) need it.
    type: dict
  tenant_database:
    description: The same for the new place.
    type: dict
  pooler:
    description:
      - A PgBouncer in front of the tenant. It is told to pause before the old place is closed and to resume when one of them is open, so that an application
        waits for an answer instead of being thrown out. Its file has to name the new place by then; it is read again before the resuming.
    type: dict
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
        description: A password file as libpq's, on the host where this module runs.
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
  switch_timeout:
    description: After how many seconds a switch is taken back.
    type: int
    default: 10
  lag_bytes:
    description: How many bytes of WAL the follower may be behind before a switch is tried at all.
    type: int
    default: 1048576
  way_back:
    description: Whether the new place keeps what is written to it for the old one, until V(linked).
    type: bool
    default: true
  way_back_timeout:
    description: After how many seconds a way back is given up that does not begin, since somebody on the new server writes in a long transaction.
    type: int
    default: 30
  wal_limit_bytes:
    description: How many bytes of WAL a server may have to keep for the other.
    type: int
    default: 4294967296
  ignore:
    description: What the comparison leaves out, as with M(saasodoo.postgres_pools.database_compare).
    type: list
    elements: str
    default: []
  retention_days:
    description: Days from the switch on that the old place is kept.
    type: float
    default: 7
  reason:
    description: Why the tenant goes back. V(returned) needs it.
    type: str
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Looks whether the follower is near enough, and changes nothing.
    support: full
  diff_mode:
    support: none
    description: Of a switch there is nothing to be shown but RV(seconds).
seealso:
  - module: saasodoo.postgres_pools.database_follow
  - module: saasodoo.postgres_pools.tenant_migration
requirements:
  - psycopg2 >= 2.8
"""

EXAMPLES = r"""
# The role tenant_migration shows what comes before and after it.
- name: Switch
  saasodoo.postgres_pools.tenant_switch:
    instance_id: "{{ instance_id }}"
    lease: "{{ move.migration.lease }}"
    source: "{{ move.source }}"
    target: "{{ move.target }}"
    source_tenant_database: "{{ move.source_tenant_database }}"
    tenant_database: "{{ move.tenant_database }}"
    switch_timeout: 5
"""

RETURN = r"""
switched:
  description: Whether the tenant is in its new place by the inventory database.
  returned: success, but for V(linked)
  type: bool
  sample: true
opened:
  description: Whether it has been let in there. Where not, that is what is left to do.
  returned: success, but for V(linked)
  type: bool
  sample: true
why:
  description: Why it was not switched, or not opened; else empty.
  returned: success, but for V(linked)
  type: str
  sample: ""
seconds:
  description: How long each part took.
  returned: success, but for V(linked)
  type: dict
  sample: {closed: 0.31, drained: 0.42, turned: 0.12, cutover: 0.03, opened: 0.11}
following:
  description: Whether the old place follows the new one; in check mode as it is before.
  returned: with V(linked)
  type: bool
  sample: true
way_back:
  description: V(prepared), or why there is no way back with what is written from now on; null where none was asked for.
  returned: success, but for V(linked)
  type: str
  sample: prepared
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _registry_module, _switch


def main():
    _registry_module.run(_switch.OPTIONS, _switch.work, needs_keys=True, supports_check_mode=True, **_switch.RULES)


if __name__ == "__main__":
    main()

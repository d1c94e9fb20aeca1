#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tenant_migration
short_description: Record a tenant's move to another server, step by step
version_added: 0.9.0
description:
  - Keeps the record of one tenant's move in the inventory database. It touches no tenant database, and asks its server for nothing but its size, where the
    tenant is to have less storage. Whoever copies calls it before and after each step.
  - A move holds a place on its target from the beginning, so that the cutover cannot fail for want of room. Until it is completed it holds the place on the
    source too, and then the storage there until the source is dropped, so that there is a way back.
  - A run owns its move by a lease, RV(migration.lease), which it renews. The move of a run that died is taken over by the next one, where it was.
  - Taking a step again that was taken changes nothing.
options:
  instance_id:
    description: UUID of the application instance.
    type: str
    required: true
  state:
    description:
      - V(planned) finds a target, holds a place on it, and closes the allocation to other work. It returns the move that was begun before, if nobody is at it
        any more. A run that is at it renews its lease, so this waits up to O(lease_seconds) and a second, and then says who it is.
      - V(preparing), V(copying), V(verifying), V(cutover) and V(completed) follow on each other. With V(cutover), which asks for a proof, the allocation is on
        the target. With V(completed) it is open to other work again.
      - V(rolled_back) ends the move with the tenant where it was. Before the cutover, and until it is completed, that always works.
      - V(returning) begins the way back of a completed move, as long as its source is retained. It holds the tenant's old place again, or says why it cannot.
        V(rolled_back) or V(completed) then ends it.
      - V(returned) ends what V(rolled_back) with O(unfinished=true) left to do. Until then no other run begins a move of the tenant; one that comes after the
        lease ran out is given this move with V(planned), RV(migration.status) V(rolled_back), to let the tenant in and to take the copy away.
      - V(renewed) renews the lease, and keeps O(progress), O(proof) and O(steps).
    type: str
    choices: [planned, renewed, preparing, copying, verifying, cutover, completed, rolled_back, returned, returning]
    default: planned
  lease:
    description:
      - RV(migration.lease) of the run whose move it is. All states but V(planned) and V(returning) need it. With these two it says that the move is this
        run's own, as after a server was made for it.
    type: str
  lease_seconds:
    description: Seconds after which the move of a run that does not renew its lease may be taken over. Every call renews it.
    type: int
    default: 20
  plan_tier:
    description:
      - The plan that the tenant is to have, a row of C(db_plans). Where it can have it on its own server, nothing moves, and RV(no_copy) is true.
      - Without it the tenant keeps its plan, and what that once promised.
    type: str
  require_dedicated:
    description: Whether it is to have a server of its own whatever the plan says. Without it this stays as it is.
    type: bool
  size_bytes:
    description:
      - Size of the tenant's database, in bytes. A plan with less storage than before, and less than this, is refused before anything is recorded.
      - Without it the tenant's server is asked, where the plan has less storage than before.
    type: int
  target:
    description:
      - Name of the server to move to, also one that takes tenants by hand only. Without it one is chosen as for a new tenant, other than its own.
    type: str
  exclude:
    description: Names of servers that are not chosen. With the tenant's own among them, it moves also where its new plan would fit.
    type: list
    elements: str
    default: []
  strategy:
    description: In what order servers are chosen, as with M(saasodoo.postgres_pools.allocation).
    type: str
    choices: [priority, spread, pack]
    default: priority
  mode:
    description:
      - How the data are moved. V(dump), also without a word, copies them while nobody writes, V(online) while the tenant works. V(auto) is to be decided
        until V(preparing), which takes what it was decided to be.
    type: str
    choices: [dump, online, auto]
  mode_reason:
    description: Why the move is made in this mode, where it was not asked for.
    type: str
    version_added: 1.0.0
  way_back:
    description:
      - Whether the old place follows the new one, so that a way back loses nothing of what was written since. V(prepared) until it does, V(following) as
        long as it does, V(ended) afterwards. V(rolled_back) ends it, and that of an earlier move of the tenant ends with V(preparing).
    type: str
    choices: [prepared, following, ended]
    version_added: 1.0.0
  way_back_reason:
    description: Why there is none, or why it ended.
    type: str
    version_added: 1.0.0
  server_lease_seconds:
    description: How long a server may stay in the making before another run may take it over.
    type: int
    default: 120
  wait_timeout:
    description: Seconds to wait for a target that another run is making; 0 does not wait, and makes none.
    type: int
    default: 0
  proof:
    description:
      - What the comparison of both databases found, kept with what was kept before. V(cutover) needs C(equal=true) in it.
      - C(source_database) is added at the cutover, and C(downtime_seconds) with O(writes_resumed), at the end at the latest, where it is not given and
        O(writes_stopped) was.
    type: dict
  retention_days:
    description: Days from the cutover on that the source is kept for a way back.
    type: float
    default: 7
  application:
    description:
      - The tenant's application, as the role C(tenant_application) takes it. It is kept with the move, for a later run, the way back and the cleanup.
        With V(planned) and V(returning); what is wrong with it is refused before anything is recorded, and so is a password in it.
      - Without it that of the allocation, which M(saasodoo.postgres_pools.allocation) records. An empty one is none.
    type: dict
    version_added: 0.9.0
  writes_stopped:
    description: Whether the application cannot write any more from now on. The first time is kept.
    type: bool
    default: false
  writes_resumed:
    description: Whether the tenant can write again from now on. The seconds since O(writes_stopped) are kept as C(downtime_seconds) of the proof.
    type: bool
    default: false
    version_added: 0.9.0
  try_again:
    description: Whether writes went on in the old place after O(writes_stopped), which is forgotten then.
    type: bool
    default: false
    version_added: 1.0.0
  unfinished:
    description: With V(rolled_back), whether the tenant's old place is still to be opened, and the copy to be taken away. The lease goes on then.
    type: bool
    default: false
    version_added: 0.9.0
  reason:
    description: Why the move is made, or was rolled back. V(rolled_back) needs it.
    type: str
  steps:
    description:
      - What was done, each with C(step), and where known C(seconds) and more, added to what was kept before. One that is kept already is not kept twice.
      - One without C(seconds) gets those since the step before. Each is kept with C(at), when it was recorded.
    type: list
    elements: dict
    default: []
  progress:
    description: How far the current step is; it replaces what was kept before.
    type: dict
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
  - saasodoo.postgres_pools.inventory_db.new_server
attributes:
  check_mode:
    description: Does the work in a transaction that is rolled back.
    support: full
  diff_mode:
    description: Shows the move before and after.
    support: full
seealso:
  - module: saasodoo.postgres_pools.fleet_moves
  - module: saasodoo.postgres_pools.tenant_database
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
# Where the tenant can have the plan on its own server, this is all. Where it cannot, a move is planned, and the role tenant_migration
# shows how each of its steps is recorded.
- name: Give a tenant another plan
  saasodoo.postgres_pools.tenant_migration:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    instance_id: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
    plan_tier: professional
    new_server:
      backend: process
      storage_root: /srv/postgres
  register: planned
"""

RETURN = r"""
status:
  description:
    - V(ready) when the target can be used, V(make) when this call is to make it first, V(provisioning) when others are still making it.
  returned: success
  type: str
  sample: ready
found:
  description: Whether the move had been begun before this call; its C(status) then tells where it was.
  returned: success
  type: bool
  sample: false
no_copy:
  description: Whether the tenant got its new plan where it is, and nothing has to move. RV(migration) is null then.
  returned: success
  type: bool
  sample: false
to_make:
  description: The server that this call is to make, with the lease that says so. Null when there is none. Plan again, with O(lease), after it is made.
  returned: success
  type: dict
  sample:
    name: postgres-dedicated-0b6c5c1e
    lease: 6d1f1c52-40a3-4b0e-8d0e-3b7b4d2a9a55
retry_after:
  description: Seconds after which to ask again.
  returned: when RV(status=provisioning)
  type: int
  sample: 10
migration:
  description: The move, as it is after the call. Times are ISO 8601 in UTC. Null when RV(no_copy) is true.
  returned: success
  type: dict
  contains:
    id:
      description: Of the move.
      type: str
      sample: 5f0f6b1a-7f3f-4f0e-8a53-7a5b1c9d2e10
    instance_id:
      description: UUID of the instance.
      type: str
      sample: 0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90
    status:
      description: Its step. A move on its way back is V(completed) and has C(returning_at).
      type: str
      sample: planned
    status_reason:
      description: O(reason) as it was last given.
      type: str
      sample: the plan is premium
    mode:
      description: O(mode); so too C(mode_reason), C(way_back) and C(way_back_reason).
      type: str
      sample: dump
    source:
      description: Name of the server that the tenant leaves.
      type: str
      sample: postgres-pool-1
    target:
      description: Name of the server that it goes to.
      type: str
      sample: postgres-dedicated-0b6c5c1e
    database:
      description: Name of its database, on both.
      type: str
      sample: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
    source_database:
      description: Name under which the source is put aside after the cutover.
      type: str
      sample: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_moved_5f0f6b1a7f3f
    plan_tier:
      description: The plan after the move; C(source_plan_tier) is the one before, and so with C(requires_dedicated), C(connections) and C(storage_bytes).
      type: str
      sample: premium
    lease:
      description: Says whose the move is; the following calls need it.
      type: str
      sample: 2c9f3d52-40a3-4b0e-8d0e-3b7b4d2a9a11
    lease_actor:
      description: Who holds the lease.
      type: str
      sample: awx-job-7
    lease_expires_at:
      description: When another run may take the move over; null when it has ended.
      type: str
      sample: "2026-11-23T02:00:20+00:00"
    steps:
      description: What was done.
      type: list
      elements: dict
      sample: [{step: copied, seconds: 41.2, at: "2026-11-23T02:01:20.512+00:00"}]
    progress:
      description: How far the current step is.
      type: dict
      sample: {tables_done: 12, tables: 340}
    proof:
      description: What the comparison found.
      type: dict
      sample: {equal: true, tables: 340}
    application:
      description: O(application) that the move works with; empty where there is none.
      type: dict
      sample: {service: odoo_acme, env: {DB_HOST: host}}
    created_at:
      description: When it was planned; so too C(started_at), C(writes_stopped_at), C(cutover_at), C(returning_at) and C(ended_at), null until then.
      type: str
      sample: "2026-11-23T02:00:00+00:00"
    retained_until:
      description: Until when the source is kept; null before the cutover, and after it was dropped.
      type: str
      sample: "2026-11-30T02:00:00+00:00"
source:
  description:
    - The server that the tenant leaves, as C(login_*) options with an encrypted password, and the names C(database) and C(owner).
  returned: success
  type: dict
  sample:
    database: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
    owner: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
    login_host: 127.0.0.1
    login_port: 15433
    login_user: postgres
target:
  description: The server that the tenant goes to, in the same form as RV(source).
  returned: success
  type: dict
  sample:
    database: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
    owner: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
    login_host: 127.0.0.1
    login_port: 15434
    login_user: postgres
tenant_database:
  description:
    - One of O(saasodoo.postgres_pools.tenant_database#module:databases), for the target, with the limits that the tenant has after the move.
  returned: success
  type: dict
  sample:
    name: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
    owner: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
    connection_limit: 50
    login_host: 127.0.0.1
    login_port: 15434
source_tenant_database:
  description: The same for the source, with the limits that the tenant had, for the way back.
  returned: success
  type: dict
  sample:
    name: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
    owner: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
    connection_limit: 6
    login_host: 127.0.0.1
    login_port: 15433
quarantine:
  description: One of O(saasodoo.postgres_pools.tenant_database#module:databases), with which the source is put aside. Null when RV(no_copy) is true.
  returned: success
  type: dict
  sample:
    name: odoo_7d1f0f4e2f0b4a38_0b6c5c1e
    owner: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user
    quarantine_name: odoo_7d1f0f4e2f0b4a38_0b6c5c1e_moved_5f0f6b1a7f3f
    login_host: 127.0.0.1
    login_port: 15433
following:
  description:
    - Old places that follow where the tenant is now, of moves before this one, as M(saasodoo.postgres_pools.database_follow) takes them by C(source) and
      C(target). They have to be ended before V(preparing).
  returned: success
  type: list
  elements: dict
  sample: []
considered:
  description: The servers that were looked at for a new move (at most 50), and why each could not take the tenant; null for one that could.
  returned: success
  type: list
  elements: dict
  sample:
    - server: postgres-pool-2
      reason: null
    - server: postgres-pool-1
      reason: the tenant is on it
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _moving, _registry_module


def main():
    _registry_module.run(_moving.OPTIONS, _moving.work, needs_keys=True, supports_check_mode=True, **_moving.RULES)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_cleanup
short_description: Decide what of the fleet may go, and record that it went
version_added: 0.9.0
description:
  - With O(state=begun) it ends overdue reservations, and plans what else may go. That are released databases and moved sources past
    their retention, servers in error that are proved empty, what has no row any more, and old archives. For everything that it keeps it says why.
  - It takes nothing else away itself. The role C(fleet_cleanup) does, step by step, and has each step recorded in the event log.
  - Servers in C(error) are asked what they hold. One that does not answer is judged by its files in O(directories), and kept where they prove nothing.
  - One cleanup at a time. A run holds a lease in the event log, which each recorded step renews, and which runs out when the run dies.
  - Nothing is planned at all, RV(status) is V(refused), where the inventory database knows no server, or fewer than there are without a row. It may
    have been restored from an old backup.
options:
  state:
    description:
      - V(begun) plans, and takes the lease where there is something to do.
      - V(recorded) records that O(items) were done.
      - V(ended) records the same, and gives the lease back.
    type: str
    choices: [begun, recorded, ended]
    default: begun
  directories:
    description:
      - C(directories) of M(saasodoo.postgres_pools.server_storage) by where they lie, which is V(process), V(swarm) for what all nodes share, or else the name
        of a node.
    type: dict
    default: {}
  roots:
    description: C(roots) of M(saasodoo.postgres_pools.server_storage) from all hosts.
    type: list
    elements: str
    default: []
  swarm:
    description:
      - What C(docker inspect) says of the objects with the label C(postgres_pools.server), by kind, V(service), V(secret) or V(config).
        It shows no secret's content.
    type: dict
    default: {}
  error_hours:
    description: Hours that a server must have been in error, and without a live allocation, before it is looked at.
    type: float
    default: 24
  orphan_hours:
    description: Hours that what has no row must be old. Less than one hour counts as one.
    type: float
    default: 24
  end_ways_back:
    description: Whether no old place follows a new one any more, also within its time.
    type: bool
    default: false
    version_added: 1.0.0
  emptied_hours:
    description:
      - Hours that a server of one instance must have been without its tenant, which moved or was released, until it goes too. Nothing of a move or of a release
        may be kept on it, and it must answer that it holds no database. V(0) keeps such servers.
    type: float
    default: 0
    version_added: 0.9.0
  archive_days:
    description: Days that archives are kept.
    type: float
    default: 30
  limit:
    description: How many things one run may take away, the oldest first. Reservations do not count, since nothing is deleted with them.
    type: int
    default: 10
  timeout:
    description: Seconds that a server in error has for its answer.
    type: int
    default: 5
  lease_seconds:
    description: Seconds that a run may take to its next recorded step before another run may begin.
    type: int
    default: 300
  run:
    description: RV(run) of the call that began. Required with O(state=recorded) and O(state=ended).
    type: str
  items:
    description: Those of RV(items) that were done.
    type: list
    elements: dict
    default: []
  databases:
    description: C(databases) of M(saasodoo.postgres_pools.tenant_database), where O(items) are databases. Those that failed there are not recorded.
    type: list
    elements: dict
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Does the work in a transaction that is rolled back, so the plan is that of a run.
    support: full
  diff_mode:
    description: Shows the plan.
    support: full
seealso:
  - module: saasodoo.postgres_pools.server_storage
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: See what would go, by the inventory database alone
  saasodoo.postgres_pools.fleet_cleanup:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
  check_mode: true
"""

RETURN = r"""
status:
  description:
    - V(cleaned) where there is something to do or was done, V(clean) where there is nothing.
    - V(busy) while another cleanup is at work, V(refused) where none should be. Then nothing was planned.
  returned: when O(state=begun)
  type: str
  sample: cleaned
items:
  description: What is to be done, the oldest first; RV(items[].action=expire) is done already.
  returned: when O(state=begun)
  type: list
  elements: dict
  contains:
    action:
      description: V(expire), V(unlink), V(drop), V(deprovision), V(archive) or V(remove).
      type: str
      sample: drop
    what:
      description: V(reservation), V(way back), V(released database), V(moved source), V(server), V(directory), V(service), V(secret), V(config) or V(archive).
      type: str
      sample: released database
    name:
      description: Which one.
      type: str
      sample: odoo_0123456789abcdef_01234567_released_0123456789ab on postgres-pool-1
    why:
      description: Why it may go, the proof included.
      type: str
      sample: its time ended 2026-01-02 03:04 UTC
    since:
      description: What its age is counted from.
      type: str
      sample: "2026-01-02T03:04:05+00:00"
kept:
  description: What was looked at and stays, each with C(what), C(name) and C(why).
  returned: when O(state=begun)
  type: list
  elements: dict
  sample:
    - what: server
      name: postgres-pool-2
      why: it answers, and holds odoo_0123456789abcdef_01234567
left:
  description: What may go and is over O(limit), left for the next run.
  returned: when O(state=begun)
  type: list
  elements: dict
  sample: []
ways_back:
  description:
    - Old places that are to follow the new ones no more, as M(saasodoo.postgres_pools.database_follow) takes them by C(source) and C(target), each with its
      C(item) of RV(items).
  returned: when O(state=begun)
  type: list
  elements: dict
  sample: []
tenant_databases:
  description: The databases to be dropped, as M(saasodoo.postgres_pools.tenant_database) takes them, in the order of RV(items).
  returned: when O(state=begun)
  type: list
  elements: dict
  sample: []
applications:
  description:
    - The applications that have no way back any more once their moved sources are dropped, for the role C(tenant_application) to let them forget it. Each
      with C(migration_id), C(instance_id), C(application), and C(host), C(port) and C(database) of the source.
  returned: when O(state=begun)
  type: list
  elements: dict
  sample: []
failures:
  description: Those of O(items) that O(databases) says failed, each with C(what), C(name) and C(why).
  returned: when O(state=recorded) or O(state=ended)
  type: list
  elements: dict
  sample: []
run:
  description: What the later calls have to show. Null where there is nothing to take away.
  returned: when O(state=begun)
  type: str
  sample: 6d1f1c52-40a3-4b0e-8d0e-3b7b4d2a9a55
why:
  description: Why the cleanup is refused; empty where it is not.
  returned: when O(state=begun)
  type: str
  sample: ""
other:
  description: The cleanup that is at work, its C(actor) and C(until) when it may take for its present step.
  returned: when O(state=begun)
  type: dict
  sample:
    actor: root@client
    until: "2026-01-02T03:04:05+00:00"
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cleanup, _registry_module


def main():
    _registry_module.run(_cleanup.OPTIONS, _cleanup.work, needs_keys=True, supports_check_mode=True, **_cleanup.RULES)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_health
short_description: Ask all servers of the inventory database whether they serve, and bring their states up to date
version_added: 0.9.0
description:
  - Asks every server that is V(initializing), V(active), V(full), V(maintenance) or V(error), all of them side by side from the host it runs on, which
    has to be a client host.
  - "A check fails, with what is wrong in RV(servers[].problem), when the server's name is not resolved, it does not take the connection, its
    certificate does not fit the authority in the inventory database, the administrator is not let in, a query that reads a table and that table's file
    is not answered, or the server is in recovery; or when all of this takes longer than O(timeout)."
  - The first failure makes a server C(degraded), the third in a row C(unhealthy), and takes one that was V(active) or V(full) to V(error), with
    the reason. Placement chooses neither. The first success makes it C(healthy), and takes it from V(error) back to V(active), or V(full) by its count.
  - V(maintenance) stays V(maintenance). V(initializing) becomes V(active) when the server serves and the lease of its maker has run out; as long as the
    lease lasts, nothing is written. A server that never was V(active) stays in V(error) although it answers, since its maker gave it up.
  - "A server that serves may have findings in RV(servers[].findings), which change no state. Their kinds are: C(version), another version than recorded;
    C(missing_database), an active allocation's database is not there; C(unknown_database), one that no allocation accounts for (databases in quarantine
    and those that a move left are accounted for); C(connections), 90% or more of those that clients may have are used; C(old_transaction), open for an hour
    or longer; C(wraparound), twice the age at which autovacuum begins to freeze; C(storage), the databases take 90% or more of what the server has for
    tenants; C(replication_slot), one that nobody reads; C(unmeasured), the time was not enough to see all of this; C(unfinished), a
    server in error that answers and was never active."
  - A server whose password cannot be decrypted, or that the check had no time for, is not asked and keeps its state.
  - Each answer is kept in C(db_health_checks). Writing that history and the time of the check is no change; another state or health is.
  - Only one check runs at a time. A second one changes nothing and says V(busy) in RV(status).
options:
  name:
    description: Only these servers. Empty means all.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that each server has, from the lookup of its name to its answer.
    type: int
    default: 5
  total_timeout:
    description: Seconds that all of them have together. What was not asked by then is asked first by the next check.
    type: int
    default: 60
  parallel:
    description: How many are asked at the same time.
    type: int
    default: 200
  history_days:
    description: Days for which answers are kept. Older ones are deleted.
    type: int
    default: 30
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Asks the servers, and does the rest in a transaction that is rolled back.
    support: full
  diff_mode:
    description: Shows state and health of each server before and after.
    support: full
seealso:
  - module: saasodoo.postgres_pools.server_probe
  - module: saasodoo.postgres_pools.server_info
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Ask all servers
  saasodoo.postgres_pools.server_health:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
  register: health
  failed_when: health.status | default('alarm') == 'alarm'

- name: Ask one
  saasodoo.postgres_pools.server_health:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    name: [postgres-pool-1]
    timeout: 10
"""

RETURN = r"""
status:
  description:
    - C(ok), nothing to look at.
    - C(degraded), a server failed its check, could not be asked, or has findings.
    - C(alarm), a server that was active once is unhealthy.
    - C(busy), another check was running, and this one did nothing.
    - Servers in maintenance are asked and shown, and do not count here.
  returned: success
  type: str
  sample: degraded
summary:
  description: Numbers of servers after the check, of findings, of rows pruned from the history, and the seconds it took.
  returned: success
  type: dict
  sample:
    servers: 42
    healthy: 40
    degraded: 1
    unhealthy: 1
    unknown: 0
    not_asked: 0
    alarms: 1
    findings: 3
    taken_out: 1
    brought_back: 0
    pruned: 42
    seconds: 5.3
servers:
  description: Servers with a problem, with findings or with a new state; those of O(name) in any case.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The server's name.
      type: str
      sample: postgres-pool-1
    server_type:
      description: Its type.
      type: str
      sample: shared
    status:
      description: Its state after the check.
      type: str
      sample: error
    status_before:
      description: Its state before.
      type: str
      sample: active
    health_status:
      description: Its health after the check.
      type: str
      sample: unhealthy
    health_status_before:
      description: Its health before.
      type: str
      sample: degraded
    failures:
      description: Checks in a row that failed.
      type: int
      sample: 3
    asked:
      description: Whether it was asked at all.
      type: bool
      sample: true
    level:
      description: What it weighs in RV(status).
      type: str
      sample: alarm
    problem:
      description: Why the check failed, or why the server was not asked. Empty when it serves.
      type: str
      sample: "10.0.0.7 port 5432: Connection refused."
    findings:
      description: What is worth a look on a server that serves, by kind and in words.
      type: list
      elements: dict
      sample:
        - kind: replication_slot
          message: Nobody reads the replication slot 'old', which keeps 512 MiB of WAL.
    latency_ms:
      description: Milliseconds from the lookup of its name to the answer. Null when there was none.
      type: float
      sample: 12.5
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _health, _registry_module

OPTIONS = dict(
    name=dict(type="list", elements="str", default=[]),
    timeout=dict(type="int", default=5),
    total_timeout=dict(type="int", default=60),
    parallel=dict(type="int", default=200),
    history_days=dict(type="int", default=30),
)


def main():
    _registry_module.run(OPTIONS, _health.work, needs_keys=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

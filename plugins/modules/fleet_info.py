#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_info
short_description: A picture of the whole fleet, as the inventory database knows it
version_added: 0.9.0
description:
  - Reads, in one transaction, what M(saasodoo.postgres_pools.fleet_report) makes metrics and a page of. Nothing it returns is secret.
  - It asks no server. What it says of their health is what the last probe found.
options:
  listed_tenants:
    description: The most tenants of the whole fleet that are listed one by one. Where there are more, each server has their number by plan only.
    type: int
    default: 2000
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
seealso:
  - module: saasodoo.postgres_pools.fleet_report
  - module: saasodoo.postgres_pools.server_info
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Look at the whole fleet
  saasodoo.postgres_pools.fleet_info:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
  register: found
"""

RETURN = r"""
fleet:
  description: The picture.
  returned: success
  type: dict
  contains:
    generated_at:
      description: The moment that all of it is of.
      type: str
      sample: "2026-11-22T02:00:00+00:00"
    totals:
      description: As RV(saasodoo.postgres_pools.server_info#module:totals).
      type: dict
      sample: {pools: 3, active: 2, dedicated: 1, capacity: 100, used: 62, utilization: 62.0}
    growth:
      description: As RV(saasodoo.postgres_pools.server_info#module:growth).
      type: dict
      sample: {days: 30, instances: 12, per_day: 0.4, full_at: "2027-02-25", reason: null}
    history:
      description: Tenants in pools and the pools' places, at the end of each of the last 30 days and now.
      type: list
      elements: dict
      sample: [{day: "2026-11-22", tenants: 62, places: 100}]
    available:
      description: How many tenants of each plan on shared servers the pools would take now.
      type: list
      elements: dict
      sample: [{plan_tier: standard, places: 38}]
    servers:
      description:
        - The servers that are not gone, with their last probe, tenants, and the worst of each of the last 24 hours.
        - The latter is a letter for each, C(h) healthy, C(d) degraded, C(u) unhealthy, C(-) not probed.
      type: list
      elements: dict
      sample: [{name: postgres-pool-1, status: active, health_status: healthy, hours: "-----------------------h"}]
    tenants_listed:
      description: Whether the servers' C(tenants) are listed.
      type: bool
      sample: true
    allocations:
      description: Live allocations by state, how many ever took each step, and how many are overdue.
      type: dict
      sample: {live: {active: 62}, steps: {reserved: 70, activated: 68}, reservations_overdue: 0, drops_overdue: 0}
    durations:
      description: Histograms of what took how many seconds.
      type: dict
      sample: {allocation: {"": {count: 68, sum: 40.5, buckets: [[0.5, 60], [1, 68]]}}}
    server_steps:
      description: How often servers stepped into each state.
      type: dict
      sample: {provisioning: 3, active: 3}
    provisioning_failures:
      description: Servers whose making was given up, by type and class of the reason.
      type: list
      elements: dict
      sample: [{server_type: shared, class: storage, count: 1}]
    provisioning_failures_recent:
      description: The latest of them within 24 hours, with the reason.
      type: list
      elements: dict
      sample: [{name: postgres-pool-4, class: storage, reason: the disk is full}]
    moves:
      description: Tenant migrations counted by mode, and those that run.
      type: dict
      sample: {counts: [{mode: dump, started: 2, ended: 2, rolled_back: 0}], running: []}
    cleanup:
      description: What cleaning up did, by kind of event.
      type: dict
      sample: {drop: 4}
    events:
      description: The latest events, the newest first.
      type: list
      elements: dict
      sample: [{kind: server.active, server: postgres-pool-1}]
    authorities:
      description: The authorities whose certificates the servers serve.
      type: list
      elements: dict
      sample: [{name: postgres-pools, current: true, expires_at: "2036-11-22T02:00:00+00:00"}]
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _registry_module, _report_facts

OPTIONS = dict(listed_tenants=dict(type="int", default=_report_facts.LISTED_TENANTS))


def read(params, inventory, cipher):
    return dict(changed=False, fleet=_report_facts.read(inventory, max(0, params["listed_tenants"])))


def main():
    _registry_module.run(OPTIONS, read, read_only=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

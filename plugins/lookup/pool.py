# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pool
short_description: Which server a plan's next tenant would be placed on, and why not the others
version_added: 0.9.0
description:
  - Reads the inventory database from the controller and reserves nothing. The rules are the very ones that
    M(saasodoo.postgres_pools.allocation) chooses by.
options:
  _terms:
    description: Plan tiers.
    type: list
    elements: str
    required: true
  strategy:
    description: The order of choice, as in M(saasodoo.postgres_pools.allocation).
    type: str
    choices: [priority, spread, pack]
    default: priority
  limit:
    description: How many servers to speak of.
    type: int
    default: 50
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.environment
  - saasodoo.postgres_pools.inventory_db.keys
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Say where a standard tenant would go
  ansible.builtin.debug:
    msg: "{{ lookup('saasodoo.postgres_pools.pool', 'standard', **postgres_pools_inventory_db) }}"
"""

RETURN = r"""
_list:
  description:
    - For each plan tier C(plan_tier), C(placement) (V(shared) or V(dedicated)), C(server) (null when none has room, and one would be made) and
      C(considered), a list of C(server) and C(reason) (null for one that could take the tenant).
  type: list
  elements: dict
"""

from ansible.plugins.lookup import LookupBase
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._placement import (
    Request,
    considered,
    placement_of,
)
from ansible_collections.saasodoo.postgres_pools.plugins.plugin_utils._reading import reading

# No instance has this id, so no dedicated server is its own.
NOBODY = "00000000-0000-0000-0000-000000000000"


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        with reading(self.get_options(), "lookup pool") as inventory:
            plans = inventory.plans()
            unknown = [repr(term)[:60] for term in terms if term not in plans]
            if unknown:
                raise PoolsError(
                    "plan_tier {0} is unknown; db_plans has {1}.".format(", ".join(unknown), ", ".join(sorted(plans)))
                )
            return [self._answer(inventory, term, plans[term]) for term in terms]

    def _answer(self, inventory, tier, plan):
        request = Request(NOBODY, NOBODY, tier)
        servers = considered(inventory, request, plan, self.get_option("strategy"), self.get_option("limit"))
        candidates = [row["server"] for row in servers if row["reason"] is None]
        return {
            "plan_tier": tier,
            "placement": placement_of(request, plan),
            "server": candidates[0] if candidates else None,
            "considered": servers,
        }

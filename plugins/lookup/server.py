# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: server
short_description: A PostgreSQL server as the inventory database has it
version_added: 0.9.0
description:
  - Reads the inventory database from the controller. The result is the row without its password.
options:
  _terms:
    description: Names of servers.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.environment
  - saasodoo.postgres_pools.inventory_db.keys
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Say how full a pool is
  ansible.builtin.debug:
    msg: "{{ pool.current_instances }} of {{ pool.max_instances }}"
  vars:
    pool: "{{ lookup('saasodoo.postgres_pools.server', 'postgres-pool-1', **postgres_pools_inventory_db) }}"
"""

RETURN = r"""
_list:
  description: For each name the server's row, as in M(saasodoo.postgres_pools.server_info). It is an error if there is none.
  type: list
  elements: dict
"""

from ansible.plugins.lookup import LookupBase
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import plain
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import check_server_name
from ansible_collections.saasodoo.postgres_pools.plugins.plugin_utils._reading import reading


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        with reading(self.get_options(), "lookup server") as inventory:
            found = {row["name"]: plain(row) for row in inventory.servers([check_server_name(term) for term in terms])}
            for term in terms:
                if term not in found:
                    raise PoolsError("There is no server {0!r} in the inventory database.".format(term))
            return [found[term] for term in terms]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: connection
short_description: How to connect to the database of an instance
version_added: 0.9.0
description:
  - Reads the inventory database from the controller. The result holds the tenant's password, so set C(no_log) on the task that uses it.
options:
  _terms:
    description: UUIDs of instances.
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
- name: Write the tenant's connection into a file that only its owner reads
  ansible.builtin.copy:
    content: "{{ lookup('saasodoo.postgres_pools.connection', instance_id, **postgres_pools_inventory_db).dsn }}"
    dest: "{{ dsn_file }}"
    mode: "0600"
  no_log: true

- name: Write the authority's certificates beside it, for sslrootcert
  ansible.builtin.copy:
    content: "{{ tenant.ca_certificate | default('') }}"
    dest: "{{ dsn_file }}.ca.pem"
    mode: "0644"
  vars:
    tenant: "{{ lookup('saasodoo.postgres_pools.connection', instance_id, **postgres_pools_inventory_db) }}"
  no_log: true
"""

RETURN = r"""
_list:
  description:
    - For each instance C(instance_id), C(server), C(host), C(port), C(database), C(user), C(password), C(sslmode) and C(dsn),
      a URI that libpq reads.
    - For a server with TLS C(sslmode) is V(verify-full), and C(ca_certificate) has the certificates of the authorities to trust, as PEM.
      libpq reads them from a file only. Write them to one, and name it by C(sslrootcert) or E(PGSSLROOTCERT).
    - It is an error if an instance has no active allocation.
  type: list
  elements: dict
"""

from ansible.plugins.lookup import LookupBase
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._dsn import tenant_connection
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._names import parse_uuid
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher, keys_from
from ansible_collections.saasodoo.postgres_pools.plugins.plugin_utils._reading import reading


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        with reading(self.get_options(), "lookup connection") as inventory:
            ids = [parse_uuid(term, "the instance") for term in terms]
            cipher = Cipher(keys_from(self.get_options()))
            found = {
                row["instance_id"]: row
                for row in inventory.allocations(ids)
                if row["status"] in ("active", "migrating")
            }
            for instance_id in ids:
                if instance_id not in found:
                    raise PoolsError(
                        "Instance {0} has no active allocation.".format(instance_id),
                        "Run playbooks/allocate.yml for it first.",
                    )
            return [tenant_connection(found[instance_id], cipher) for instance_id in ids]

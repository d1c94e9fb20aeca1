# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgres_settings
short_description: Settings of a PostgreSQL server that fit its memory limit
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Computes settings of C(postgresql.conf) from a server's memory, its CPUs and the connections that its tenants are promised.
  - The sum of what the settings allow to be used at once stays within the memory limit. What does not fit is refused, with the
    number of connections that would fit and the memory that would do.
  - The settings are known to PostgreSQL 15 to 18. Where each figure comes from is said in C(plugins/module_utils/_sizing.py).
positional: cpus, connections
options:
  _input:
    description: The memory limit, in bytes or as a number with a unit (powers of 1024), such as V(4G), V(4GiB) or V(512M).
    type: raw
    required: true
  cpus:
    description: The CPU limit.
    type: float
    required: true
  connections:
    description: Connections that tenants are promised, all together.
    type: int
    required: true
  spare:
    description: Connections beside those, at least 3, for the administrator, probes and moves.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Show what a pool of 50 tenants with 6 connections each would run with
  ansible.builtin.debug:
    msg: "{{ '4G' | saasodoo.postgres_pools.postgres_settings(2, 300) }}"
"""

RETURN = r"""
_value:
  description: Names of settings and their values, with units.
  type: dict
  sample:
    max_connections: "310"
    shared_buffers: 1024MB
    work_mem: 4MB
"""

from typing import Any, Callable, Dict

from ansible.errors import AnsibleFilterError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _sizing
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def postgres_settings(memory: Any, cpus: Any, connections: Any, spare: Any = 10) -> Dict[str, str]:
    try:
        return _sizing.settings(_sizing.parse_size(memory), float(cpus), int(connections), int(spare))
    except PoolsError as error:
        raise AnsibleFilterError("postgres_settings: {0}".format(error)) from error
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(
            "postgres_settings: cpus, connections and spare must be numbers: {0}".format(error)
        ) from error


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"postgres_settings": postgres_settings}

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgres_hba
short_description: The lines of pg_hba.conf that keep the tenants of a server apart
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - Tenants come to databases of their own role only, the administrator everywhere, everybody by SCRAM, and nobody else at all.
  - For a server in a container, the administrator comes by the socket as well, as the user that PostgreSQL runs as; its health check does.
options:
  _input:
    description: Name of the administrator.
    type: str
    required: true
  tls:
    description: Whether connections are let in by TLS only.
    type: bool
    default: false
  socket:
    description: Whether the administrator is let in by the socket, as the system's user of the same name.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the wall
  ansible.builtin.debug:
    msg: "{{ 'postgres' | saasodoo.postgres_pools.postgres_hba(socket=true) }}"
"""

RETURN = r"""
_value:
  description: The lines, in their order.
  type: list
  elements: str
  sample:
    - 'host all "postgres" all scram-sha-256'
    - host samerole all all scram-sha-256
    - host all all all reject
"""

from typing import Any, Callable, Dict, List

from ansible.errors import AnsibleFilterError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _hba
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def postgres_hba(admin_user: Any, tls: Any = False, socket: Any = False) -> List[str]:
    try:
        wall = _hba.lines(str(admin_user), tls=bool(tls))
    except PoolsError as error:
        raise AnsibleFilterError("postgres_hba: {0}".format(error)) from error
    return (['local all "{0}" peer'.format(admin_user)] if socket else []) + wall


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"postgres_hba": postgres_hba}

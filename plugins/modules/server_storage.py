#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_storage
short_description: What lies in the directories of servers, and archives removed
version_added: 0.9.0
description:
  - Reads on the host that has the storage which servers' directories and archives there are, and from their files which databases they hold.
    No PostgreSQL is needed for that, and nothing is started.
  - Data directories of PostgreSQL 15 to 18 can be read. What cannot is told in C(unreadable), and proves nothing.
  - Removes archives, and nothing that is not in a directory C(archived) or C(.archived) right below one of O(roots).
attributes:
  check_mode:
    description: Predicts the removals and changes nothing.
    support: full
  diff_mode:
    description: Not shown; RV(removed) says all.
    support: none
options:
  roots:
    description: Directories that servers' directories lie in. One that is not there is passed over.
    type: list
    elements: path
    required: true
  state:
    description: V(listed) only looks. V(removed) deletes the archives O(paths) for good.
    type: str
    choices: [listed, removed]
    default: listed
  paths:
    description: Look at these only, or remove these. Required with O(state=removed).
    type: list
    elements: path
  mount_path:
    description: Where a CephFS is mounted that O(roots) lie on. It is proved first, as by M(saasodoo.postgres_pools.cephfs_directory). Empty for other storage.
    type: path
    default: ""
  cluster_fsid:
    description: The C(fsid) that the CephFS must have. Empty takes any.
    type: str
    default: ""
  timeout:
    description: Seconds that CephFS may take for a single step.
    type: int
    default: 20
requirements:
  - Linux
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Look what lies there
  saasodoo.postgres_pools.server_storage:
    roots: [/var/tmp/servers/postgres_pools, /var/tmp/servers/postgres_dedicated]

- name: Remove an archive
  saasodoo.postgres_pools.server_storage:
    roots: [/var/tmp/servers/postgres_pools]
    state: removed
    paths: [/var/tmp/servers/postgres_pools/archived/pool-1-20260102T030405Z]
"""

RETURN = r"""
roots:
  description: Those of O(roots) that are there.
  returned: when O(state=listed)
  type: list
  elements: str
  sample: [/srv/postgres/postgres_pools]
directories:
  description: The servers' directories and the archives.
  returned: when O(state=listed)
  type: list
  elements: dict
  contains:
    path:
      description: Its path.
      type: str
      sample: /srv/postgres/postgres_pools/pool-1
    name:
      description: Its name.
      type: str
      sample: pool-1
    root:
      description: Which of O(roots) it is of.
      type: str
      sample: /srv/postgres/postgres_pools
    archived:
      description: Whether it is an archive.
      type: bool
      sample: false
    half_removed:
      description: Whether it is an archive whose removal was begun.
      type: bool
      sample: false
    since:
      description: When it was archived, or when something was last made or written there. Null when nobody can say.
      type: str
      sample: "2026-01-02T03:04:05+00:00"
    made:
      description: Whether it has the lock that every server's directory has.
      type: bool
      sample: true
    running:
      description: Whether a PostgreSQL of this host runs there.
      type: bool
      sample: false
    held:
      description: Who holds it, in words; empty for nobody.
      type: str
      sample: a PostgreSQL runs in it
    databases:
      description: Databases beside PostgreSQL's own three.
      type: list
      elements: str
      sample: [odoo_0123456789abcdef_01234567]
    clean:
      description: Whether it was shut down in order, so that its files show all.
      type: bool
      sample: true
    unreadable:
      description: Why it cannot be judged; empty when it can.
      type: str
      sample: ""
removed:
  description: The archives that are gone, or in check mode would be.
  returned: when O(state=removed)
  type: list
  elements: str
  sample: [/srv/postgres/postgres_pools/archived/pool-1-20260102T030405Z]
failures:
  description: Those that are not, each with C(what), C(name) and C(why). They do not fail the module, since the others are gone.
  returned: when O(state=removed)
  type: list
  elements: dict
  sample: []
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cleanup_storage
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "roots": {"type": "list", "elements": "path", "required": True},
            "state": {"type": "str", "choices": ["listed", "removed"], "default": "listed"},
            "paths": {"type": "list", "elements": "path"},
            "mount_path": {"type": "path", "default": ""},
            "cluster_fsid": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 20},
        },
        required_if=[("state", "removed", ("paths",))],
        supports_check_mode=True,
    )
    try:
        result = _cleanup_storage.run(module.params, module.check_mode)
    except PoolsError as error:
        module.fail_json(msg="{0}: {1}".format(platform.node(), error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cephfs_subvolume
short_description: Subvolumes of a CephFS, with their quotas
version_added: 0.9.0
description:
  - Makes subvolumes of a CephFS, changes their quotas, or archives them, by the C(ceph) command.
  - It mounts nothing and gives no owner. M(saasodoo.postgres_pools.cephfs_directory) does that, at the path that this module returns.
attributes:
  check_mode:
    description: Predicts the actions and changes nothing. The path of a subvolume that is not there yet is empty then.
    support: full
  diff_mode:
    description: Shows path and quota of each subvolume that differs, before and after.
    support: full
options:
  volume:
    description: The file system, as C(ceph fs volume ls) shows it.
    type: str
    required: true
  group:
    description: The subvolumes' group. It is made with the first subvolume.
    type: str
    required: true
  subvolumes:
    description: The subvolumes.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      quota:
        description:
          - Bytes that it may hold, as a number or with a unit, such as V(250G). V(0) is no quota.
          - One that is lower than what is in use is refused. Without it, that of an existing subvolume stays.
        type: str
  state:
    description:
      - V(present) makes what is missing and corrects quotas.
      - V(archived) takes a snapshot of each subvolume and keeps that alone, until somebody deletes it. C(ceph fs subvolume snapshot clone) brings it back.
    type: str
    choices: [present, archived]
    default: present
  cluster_fsid:
    description: The C(fsid) that the cluster must have. Empty takes any.
    type: str
    default: ""
  ceph_conf:
    description: The cluster's configuration file. Empty takes what the C(ceph) command takes, as with O(ceph_keyring) and O(ceph_id).
    type: path
    default: ""
  ceph_keyring:
    description: A file with the client's key.
    type: path
    default: ""
  ceph_id:
    description: The client's name, without C(client.). It needs the capability to give commands to the manager.
    type: str
    default: ""
  timeout:
    description: Seconds that a single command may take.
    type: int
    default: 30
requirements:
  - the C(ceph) command, of package ceph-common
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: A pool's subvolume
  saasodoo.postgres_pools.cephfs_subvolume:
    volume: cephfs
    group: postgres_pools
    subvolumes:
      - name: postgres-pool-1
        quota: 300G

- name: Keep its last state, and nothing else
  saasodoo.postgres_pools.cephfs_subvolume:
    volume: cephfs
    group: postgres_pools
    state: archived
    subvolumes:
      - name: postgres-pool-1
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample: [make subvolume postgres-pool-1 of 322122547200 bytes]
cluster_fsid:
  description: The cluster.
  returned: success
  type: str
  sample: 0f5d1a6e-9a3c-4d4e-8c67-5a2d3a3c8b1f
subvolumes:
  description: Each subvolume, as it is now or in check mode would be.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: As given.
      type: str
      sample: postgres-pool-1
    state:
      description: V(present), V(archived) by this call, or V(absent).
      type: str
      sample: present
    path:
      description: Where it is in the file system.
      returned: when present
      type: str
      sample: /volumes/postgres_pools/postgres-pool-1/3c1d9f6e-6a53-4b0e-8f2c-1f6f0a4f7d11
    quota:
      description: Bytes; V(0) is none.
      returned: when present
      type: int
      sample: 322122547200
    used:
      description: Bytes in it.
      returned: when present
      type: int
      sample: 48234496
    archive:
      description: The snapshot that was kept.
      returned: when archived
      type: str
      sample: archived-20260102T030405Z
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_subvolume import ensure
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "volume": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "subvolumes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"name": {"type": "str", "required": True}, "quota": {"type": "str"}},
            },
            "state": {"type": "str", "choices": ["present", "archived"], "default": "present"},
            "cluster_fsid": {"type": "str", "default": ""},
            "ceph_conf": {"type": "path", "default": ""},
            "ceph_keyring": {"type": "path", "no_log": False, "default": ""},
            "ceph_id": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = ensure(module.params, module.check_mode)
    except PoolsError as error:
        module.fail_json(msg="{0}: {1}".format(platform.node(), error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cephfs_directory
short_description: Directories with owner and quota on a CephFS that is proved to be mounted
version_added: 0.9.0
description:
  - Makes directories below the mount point of a CephFS, gives them owner, mode and quota, or archives them. Nothing is ever deleted.
  - Before that, and each time, it proves the mount. What is mounted right at O(mount_path) is a live CephFS, it is that of O(cluster_fsid),
    and a ceph-fuse has page caching off, which would give a PostgreSQL stale data after a takeover by another node.
    Otherwise it fails and writes nothing, least of all to the local disk below.
  - Whether page caching is off is asked of the running ceph-fuse by its admin socket; where none answers, its command line
    and its configuration file count, unless the file is newer than the mount. The kernel's client needs no such setting.
  - All work is done below one open descriptor of the proved mount, by names that are no links, so that an unmount in between cannot redirect it.
  - A mount that hangs is given up after O(timeout), with the step it hung at.
attributes:
  check_mode:
    description: Proves the mount, predicts the actions and changes nothing. Whether the client may set quotas is not tried.
    support: full
  diff_mode:
    description: Shows owner, group, mode and quota of each directory that differs, before and after.
    support: full
options:
  mount_path:
    description: The directory that CephFS is mounted at, on this host.
    type: path
    required: true
  cluster_fsid:
    description: The C(fsid) that the cluster must have. Empty takes any.
    type: str
    default: ""
  state:
    description:
      - V(present) makes what is missing and corrects what differs.
      - V(archived) moves each directory to C(.archived/NAME-TIME) beside it. One that is not there counts as archived before.
      - V(probed) proves the mount and does nothing else.
    type: str
    choices: [present, archived, probed]
    default: present
  directories:
    description: The directories. Parents that are missing are made with mode V(0755) and belong to root.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Path relative to O(mount_path), or absolute and below it.
          - Symbolic links and other mounts on the way are refused.
        type: str
        required: true
      owner:
        description:
          - Number or name of the user. A name is looked up on this host, which need not be what the name means in an image; prefer the number.
          - Without it, that of an existing directory stays and a new one is root's. The same holds for O(directories[].group).
        type: str
      group:
        description: Number or name of the group.
        type: str
      mode:
        description: A quoted octal number such as V('0700'). Without it, that of an existing directory stays and a new one gets V(0755).
        type: str
      quota:
        description:
          - Bytes that may lie below the directory, as a number or with a unit, such as V(250G). V(0) takes the quota away.
          - One that is lower than what is in use is refused. Without it, the quota stays as it is.
          - The client needs the C(p) in its MDS capability; C(ceph fs authorize FS client.NAME / rw) does not give it.
        type: str
  immutable_mountpoint:
    description:
      - Makes the bare directory below the mount immutable (C(chattr +i)), so that nobody writes to the local disk while CephFS is not mounted.
      - CephFS stays mounted meanwhile; the directory is reached in a mount namespace of the module alone. Mounting and unmounting go on working.
      - Refused when the bare directory holds something. V(false) never takes the attribute away; by hand that is C(chattr -i) after unmounting.
    type: bool
    default: false
  timeout:
    description: Seconds that a single step may take.
    type: int
    default: 20
requirements:
  - Linux
  - root
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Prove the mount
  saasodoo.postgres_pools.cephfs_directory:
    mount_path: /mnt/cephfs
    state: probed

- name: A pool's directory, for the postgres of an Alpine image
  saasodoo.postgres_pools.cephfs_directory:
    mount_path: /mnt/cephfs
    cluster_fsid: 0f5d1a6e-9a3c-4d4e-8c67-5a2d3a3c8b1f
    directories:
      - path: postgres_pools/postgres-pool-1
        owner: 70
        group: 70
        mode: "0700"
        quota: 300G

- name: Archive it
  saasodoo.postgres_pools.cephfs_directory:
    mount_path: /mnt/cephfs
    state: archived
    directories:
      - path: postgres_pools/postgres-pool-1
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample: [make /mnt/cephfs/postgres_pools/postgres-pool-1]
directories:
  description: Each directory, as it is now or in check mode would be. Parents that were not named are among them when O(state=present).
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Absolute path on this host.
      type: str
      sample: /mnt/cephfs/postgres_pools/postgres-pool-1
    state:
      description: V(present), V(archived) by this call, or V(absent).
      type: str
      sample: present
    owner:
      description: Number of the user.
      returned: when present
      type: int
      sample: 70
    group:
      description: Number of the group.
      returned: when present
      type: int
      sample: 70
    mode:
      description: Octal.
      returned: when present
      type: str
      sample: "0700"
    quota:
      description: Bytes; V(0) is none.
      returned: when present
      type: int
      sample: 322122547200
    used:
      description: Bytes below it before the call, as CephFS accounts them, which lags behind by seconds.
      returned: when present
      type: int
      sample: 48234496
    archive:
      description: Where it was moved.
      returned: when archived
      type: str
      sample: /mnt/cephfs/postgres_pools/.archived/postgres-pool-1-20260102T030405Z
mount:
  description: What was proved.
  returned: success
  type: dict
  contains:
    path:
      description: The mount point, free of links.
      type: str
      sample: /mnt/cephfs
    type:
      description: Type of the file system, V(ceph) or V(fuse.ceph-fuse).
      type: str
      sample: fuse.ceph-fuse
    cluster_fsid:
      description: The cluster.
      type: str
      sample: 0f5d1a6e-9a3c-4d4e-8c67-5a2d3a3c8b1f
    page_cache:
      description: How it was learnt that no stale page is served.
      type: str
      sample: off, told by the admin socket /var/run/ceph/ceph-client.node.4711.asok
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_directory import ensure
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mount_path": {"type": "path", "required": True},
            "cluster_fsid": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "archived", "probed"], "default": "present"},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                    "mode": {"type": "str"},
                    "quota": {"type": "str"},
                },
            },
            "immutable_mountpoint": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 20},
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

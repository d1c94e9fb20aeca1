#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cephfs_client
short_description: Evict a host's clients from a CephFS
version_added: 1.0.0
description:
  - Ends the sessions that a host's clients have at the metadata servers of a CephFS, by the C(ceph) command. From then on the cluster takes no write
    of theirs any more, and what they had locked is free.
  - It is for a host that is lost. On one that lives every program that uses the file system gets errors, until it is unmounted there and mounted again.
  - Clients are found by the host name that they have told the metadata server, C(client_metadata.hostname) of C(ceph tell mds.0 client ls).
attributes:
  check_mode:
    description: Tells whom it would evict.
    support: full
  diff_mode:
    description: Shows the ids of the clients, before and after.
    support: full
options:
  hostname:
    description: The host's name, as C(hostname) says there. One without a domain also finds a client that told a domain.
    type: str
    required: true
  state:
    description: What the host's clients are to be.
    type: str
    choices: [evicted]
    default: evicted
  volume:
    description: The file system, as C(ceph fs ls) shows it. Empty takes the only one.
    type: str
    default: ""
  cluster_fsid:
    description: The C(fsid) that the cluster must have. Empty takes any.
    type: str
    default: ""
  ceph_conf:
    description: The cluster's configuration file. Empty takes what the C(ceph) command takes, as with O(ceph_keyring) and O(ceph_id).
    type: path
    default: ""
  ceph_keyring:
    description: A file with the key of O(ceph_id).
    type: path
    default: ""
  ceph_id:
    description:
      - The login's name, without C(client.).
      - C(ceph auth get-or-create client.fence mon 'allow r' mds 'allow *') makes one that may do this, and read or write no file.
    type: str
    default: ""
  timeout:
    description: Seconds that a single command may take.
    type: int
    default: 30
requirements:
  - the C(ceph) command, of package ceph-common
notes:
  - An evicted client stays blocked for C(mon_osd_blocklist_default_expire), an hour by default. A host that was frozen for longer, with writes under
    way, may still send them when it wakes up, so give that setting a day or more.
seealso:
  - name: Ceph file system client eviction
    description: What an eviction is, and how a client comes back.
    link: https://docs.ceph.com/en/latest/cephfs/eviction/
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Let nobody on the lost node write any more
  saasodoo.postgres_pools.cephfs_client:
    hostname: node2
    state: evicted
"""

RETURN = r"""
evicted:
  description: The sessions that were ended, or in check mode would be. A mount has one at each metadata server that it spoke to.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The client's number.
      type: int
      sample: 4305
    rank:
      description: The metadata server's rank.
      type: int
      sample: 0
    hostname:
      description: The host, as the client told it.
      type: str
      sample: node2
    mount_point:
      description: Where it had mounted the file system, if it told that.
      type: str
      sample: /mnt/cephfs
    state:
      description: The session's state before.
      type: str
      sample: open
    address:
      description: The address that is blocked now.
      type: str
      sample: 10.0.0.12:0/2051267134
hostnames:
  description: All hosts that had a client, for a look at how they are called.
  returned: success
  type: list
  elements: str
  sample: [manager1, node1, node2]
volume:
  description: The file system.
  returned: success
  type: str
  sample: cephfs
cluster_fsid:
  description: The cluster.
  returned: success
  type: str
  sample: 0f5d1a6e-9a3c-4d4e-8c67-5a2d3a3c8b1f
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_client import ensure
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "hostname": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["evicted"], "default": "evicted"},
            "volume": {"type": "str", "default": ""},
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

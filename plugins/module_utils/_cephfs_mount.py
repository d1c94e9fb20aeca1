# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that a path is where a live CephFS is mounted, the right one, and by a client that is safe for PostgreSQL."""

from __future__ import annotations

import errno
import os
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_page_cache
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

UNTOUCHED = "Nothing was written."
# ENOTCONN: ceph-fuse has ended. ESHUTDOWN, which is Ceph's EBLOCKLISTED: the cluster has evicted this client.
DEAD = {errno.ENOTCONN: "its client has ended", errno.ESHUTDOWN: "the cluster has evicted its client"}


class MountPoint(NamedTuple):
    mount_id: int
    path: str
    kind: str


class Mount(NamedTuple):
    path: str
    # Everything is opened below this descriptor. It keeps to the mount that was proved, also when that is unmounted meanwhile.
    handle: int
    mount_id: int
    kind: str
    cluster_fsid: str
    page_cache: str

    def facts(self) -> Dict[str, Any]:
        return {"path": self.path, "type": self.kind, "cluster_fsid": self.cluster_fsid, "page_cache": self.page_cache}


def mount_points(mountinfo: str) -> List[MountPoint]:
    """The lines of /proc/PID/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        before, _dash, after = line.partition(" - ")
        fields = before.split()
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4])
        found.append(MountPoint(int(fields[0]), path, after.split()[0]))
    return found


def mount_id(handle: int) -> int:
    """The mount that an open file lies on. Unlike its device number it also tells a bind mount from what is below."""
    with open("/proc/self/fdinfo/{0}".format(handle), encoding="ascii") as stream:
        for line in stream:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise PoolsError("This kernel does not tell which mount a file lies on.", "Linux 3.15 or newer is needed.")


def prove(path: str, cluster_fsid: str, step: Callable[[str], None]) -> Mount:
    """The mount at a path, open; only when all is well with it.

    :raises PoolsError: what is mounted there is no CephFS, is dead, is another cluster's, or caches pages.
    """
    step("open {0}".format(path))
    place = os.path.realpath(path)
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _no_mount(path, error) from error
    here = mount_id(handle)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        point = judged(path, place, here, mount_points(stream.read()))
    step("ask {0} for its cluster".format(path))
    try:
        found = os.getxattr(handle, "ceph.cluster_fsid").decode()
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            raise _other(path, point.kind) from error
        raise _no_mount(path, error) from error
    if cluster_fsid and found != cluster_fsid:
        raise PoolsError(
            "{0} is the CephFS of cluster {1}, not of {2}. {3}".format(path, found, cluster_fsid, UNTOUCHED),
            "Mount the right one, or correct cluster_fsid.",
        )
    page_cache = "the kernel's client keeps it coherent"
    if point.kind != "ceph":
        step("ask the ceph-fuse of {0} about page caching".format(path))
        page_cache = _cephfs_page_cache.proof_that_it_is_off(place)
    return Mount(place, handle, here, point.kind, found, page_cache)


def judged(path: str, place: str, here: int, points: List[MountPoint]) -> MountPoint:
    """The mount that a directory lies on, when it is mounted right there and may be CephFS."""
    point: Optional[MountPoint] = next((one for one in points if one.mount_id == here), None)
    if point is None or point.path != place:
        under = "; it lies on the {0} of {1}".format(point.kind, point.path) if point else ""
        raise PoolsError(
            "Nothing is mounted at {0}{1}. {2}".format(path, under, UNTOUCHED), "Mount CephFS there, and run this again."
        )
    if point.kind != "ceph" and not point.kind.startswith("fuse"):
        raise _other(path, point.kind)
    return point


def _other(path: str, kind: str) -> PoolsError:
    return PoolsError(
        "What is mounted at {0} is {1}, not CephFS. {2}".format(path, kind, UNTOUCHED), "Mount CephFS there, or correct mount_path."
    )


def _no_mount(path: str, error: OSError) -> PoolsError:
    if error.errno in DEAD:
        return PoolsError(
            "The mount at {0} is dead: {1}. {2}".format(path, DEAD[error.errno], UNTOUCHED),
            "Unmount it (umount -l) and mount it again. Servers that ran on it have ended, and Swarm starts them anew.",
        )
    if error.errno == errno.ENOENT:
        return PoolsError("There is no {0}. {1}".format(path, UNTOUCHED), "Make it, and mount CephFS there.")
    return PoolsError("{0} cannot be read: {1}. {2}".format(path, error.strerror, UNTOUCHED), "Is CephFS mounted there?")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bare directory below a mount, made immutable, so that nothing is written to the local disk while CephFS is not mounted.

The mount hides that directory. So the file system it lies on is shown a second time, in a mount namespace of this process
alone: nobody else sees that, and it ends with the process. CephFS stays mounted and in use.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

CLONE_NEWNS = 0x00020000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10


def ensure_immutable(mount_path: str, check_mode: bool) -> bool:
    """Whether the bare mountpoint had to be made immutable. Only for a process that ends soon: it gets a namespace of its own."""
    bare = _reveal(mount_path)
    try:
        handle = os.open(bare, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise PoolsError(
            "The bare mountpoint below {0} cannot be opened: {1}.".format(mount_path, error.strerror),
            "Leave immutable_mountpoint out for this host.",
        ) from error
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(handle, FS_IOC_GETFLAGS, flags, True)
        if flags[0] & FS_IMMUTABLE_FL:
            return False
        strangers = sorted(os.listdir(handle))
        if strangers:
            raise PoolsError(
                "The bare mountpoint below {0} holds {1}: written to the local disk while CephFS was not mounted.".format(
                    mount_path, ", ".join(strangers[:5])
                ),
                "Stop what uses {0}, unmount it, and move these away.".format(mount_path),
            )
        if not check_mode:
            flags[0] |= FS_IMMUTABLE_FL
            fcntl.ioctl(handle, FS_IOC_SETFLAGS, flags)
        return True
    except OSError as error:
        reason = error.strerror
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            reason = "its file system knows no such attribute"
        raise PoolsError(
            "The bare mountpoint below {0} cannot be made immutable: {1}.".format(mount_path, reason),
            "Leave immutable_mountpoint out for this host.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)


def _reveal(mount_path: str) -> str:
    """Where this process alone now sees the directory that the mount hides."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: object) -> None:
        if getattr(libc, function)(*arguments) != 0:
            raise PoolsError(
                "The bare mountpoint below {0} cannot be looked at: {1}.".format(mount_path, os.strerror(ctypes.get_errno())),
                "Root with CAP_SYS_ADMIN is needed, or leave immutable_mountpoint out.",
            )

    above, name = os.path.split(mount_path)
    call("unshare", CLONE_NEWNS)
    # Before anything is mounted: what happens here must not spread to the host.
    call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    # Without MS_REC: the file system above alone, without what is mounted on it.
    call("mount", os.fsencode(above), os.fsencode(mount_path), None, ctypes.c_ulong(MS_BIND), None)
    return os.path.join(mount_path, name)

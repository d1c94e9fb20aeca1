# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories on CephFS: made, given owner and quota, or archived. Everything happens below the one descriptor that was proved."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_mountpoint
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_child import Step, bounded
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_mount import Mount, mount_id, prove
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_wanted import (
    ARCHIVE,
    NEW_MODE,
    Found,
    Wanted,
    after,
    check_quota,
    wanted_from,
    with_parents,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

QUOTA = "ceph.quota.max_bytes"
USED = "ceph.dir.rbytes"


def ensure(options: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The whole call of the module, as its result.

    :raises PoolsError: the mount is not proved, an entry is wrong, or CephFS refused.
    """
    entries = wanted_from(options["directories"], options["mount_path"])

    def work(step: Step) -> Dict[str, Any]:
        mount = prove(options["mount_path"], options["cluster_fsid"], step)
        directories = Directories(mount, step, check_mode)
        if options["state"] == "present":
            directories.make(with_parents(entries))
        elif options["state"] == "archived":
            directories.archive(entries)
        if options["immutable_mountpoint"]:
            step("look at the bare mountpoint")
            if _cephfs_mountpoint.ensure_immutable(mount.path, check_mode):
                directories.actions.append("make the bare mountpoint of {0} immutable".format(mount.path))
        return directories.result()

    return bounded(options["mount_path"], options["timeout"], work)


class Directories:
    """One call's work, and what came of it."""

    def __init__(self, mount: Mount, step: Step, check_mode: bool) -> None:
        self.mount = mount
        self.check_mode = check_mode
        self.actions: List[str] = []
        self._step = step
        self._facts: Dict[str, Dict[str, Any]] = {}
        self._before: Dict[str, Any] = {}

    def result(self) -> Dict[str, Any]:
        changed = {path for path, facts in self._facts.items() if self._before[path] != facts}
        return {
            "changed": bool(self.actions),
            "actions": self.actions,
            "mount": self.mount.facts(),
            "directories": [dict(facts, path=path) for path, facts in self._facts.items()],
            "diff": {"before": _shown(self._before, changed), "after": _shown(self._facts, changed)},
        }

    def make(self, entries: Sequence[Wanted]) -> None:
        """Everything is looked at before the first is changed, so that a quota that is refused leaves all as it was."""
        plan: List[Tuple[Wanted, Optional[Found]]] = []
        for one in entries:
            found = self._find(one.path)
            check_quota(self._full(one.path), one, found)
            plan.append((one, found))
        for one, found in plan:
            path, goal = self._full(one.path), after(one, found)
            self._note(path, found)
            told = self._differences(path, found, goal)
            self.actions.extend(told)
            if told and not self.check_mode:
                self._apply(one, found, goal)
            self._facts[path] = goal.facts()

    def archive(self, entries: Sequence[Wanted]) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for one in entries:
            path, found = self._full(one.path), self._find(one.path)
            self._note(path, found)
            self._facts[path] = {"state": "absent"}
            if found is None:
                continue
            above, name = os.path.split(one.path)
            target = os.path.join(above, ARCHIVE, "{0}-{1}".format(name, stamp))
            while self._find(target) is not None:
                target += "-2"
            if not self.check_mode:
                self._move(one.path, target)
            self.actions.append("move {0} to {1}".format(path, self._full(target)))
            self._facts[path] = {"state": "archived", "archive": self._full(target)}

    def _note(self, path: str, found: Optional[Found]) -> None:
        self._before[path] = found.facts() if found else {"state": "absent"}

    @staticmethod
    def _differences(path: str, found: Optional[Found], goal: Found) -> List[str]:
        if found is None:
            told = ["make {0}".format(path)]
            return told + (["give {0} a quota of {1} bytes".format(path, goal.quota)] if goal.quota else [])
        told = []
        if goal.quota != found.quota:
            told.append("quota of {0} from {1} to {2} bytes".format(path, found.quota, goal.quota))
        if (goal.uid, goal.gid) != (found.uid, found.gid):
            told.append("owner of {0} from {1}:{2} to {3}:{4}".format(path, found.uid, found.gid, goal.uid, goal.gid))
        if goal.mode != found.mode:
            told.append("mode of {0} from {1:04o} to {2:04o}".format(path, found.mode, goal.mode))
        return told

    def _apply(self, wanted: Wanted, found: Optional[Found], goal: Found) -> None:
        path = self._full(wanted.path)
        above, name = os.path.split(wanted.path)
        self._step("make {0}".format(path) if found is None else "change {0}".format(path))
        with self._explained(path), self._open(above) as parent:
            made = False
            if found is None:
                # Nobody but root may write into it before it has its quota.
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, goal.mode & NEW_MODE, dir_fd=parent)
                    made = True
            with self._open(name, parent) as handle:
                now = self._look(handle)
                if goal.quota != now.quota:
                    self._set_quota(path, handle, goal.quota, parent if made else None)
                if (goal.uid, goal.gid) != (now.uid, now.gid):
                    os.fchown(handle, goal.uid, goal.gid)
                if goal.mode != now.mode:
                    os.fchmod(handle, goal.mode)

    def _set_quota(self, path: str, handle: int, quota: int, made_in: Optional[int]) -> None:
        try:
            os.setxattr(handle, QUOTA, str(quota).encode())
        except OSError as error:
            if made_in is not None:
                # rmdir takes an empty directory only.
                os.rmdir(os.path.basename(path), dir_fd=made_in)
            if error.errno in (errno.EPERM, errno.EACCES):
                raise PoolsError(
                    "The CephFS client of {0} may not set the quota of {1}: its MDS capability lacks 'p'.".format(self.mount.path, path),
                    "Use the host whose client has it (group storage_hosts), or give it that: ceph fs authorize FS client.NAME / rwp.",
                ) from error
            raise
        if self._look(handle).quota != quota:
            raise PoolsError(
                "{0} did not keep its quota of {1} bytes.".format(path, quota), "The kernel's client needs Linux 4.17 or newer."
            )

    def _move(self, path: str, target: str) -> None:
        above, name = os.path.split(path)
        self._step("archive {0}".format(self._full(path)))
        with self._explained(self._full(path)), self._open(above) as parent:
            with contextlib.suppress(FileExistsError):
                os.mkdir(ARCHIVE, 0o700, dir_fd=parent)
            with self._open(ARCHIVE, parent) as archive:
                os.rename(name, os.path.basename(target), src_dir_fd=parent, dst_dir_fd=archive)

    def _full(self, path: str) -> str:
        return os.path.join(self.mount.path, path)

    def _find(self, path: str) -> Optional[Found]:
        self._step("look at {0}".format(self._full(path)))
        with self._explained(self._full(path)):
            try:
                with self._open(path) as handle:
                    return self._look(handle)
            except FileNotFoundError:
                return None

    @staticmethod
    def _look(handle: int) -> Found:
        status = os.fstat(handle)
        return Found(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), _attribute(handle, QUOTA), _attribute(handle, USED))

    @contextlib.contextmanager
    def _open(self, path: str, below: Optional[int] = None) -> Iterator[int]:
        """A directory, opened name by name: no link and no other mount on the way is followed."""
        handle = os.dup(self.mount.handle if below is None else below)
        try:
            for name in [part for part in path.split("/") if part]:
                try:
                    further = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                except OSError as error:
                    if error.errno in (errno.ENOTDIR, errno.ELOOP):
                        raise PoolsError(
                            "'{0}' of {1} is no directory but a file or a symbolic link, which could lead out of CephFS.".format(
                                name, self._full(path)
                            ),
                            "Move it away.",
                        ) from error
                    raise
                os.close(handle)
                handle = further
                if mount_id(handle) != self.mount.mount_id:
                    raise PoolsError(
                        "Something else is mounted at '{0}' of {1}. Nothing was written there.".format(name, self._full(path)),
                        "Unmount that, or choose another path.",
                    )
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = {
                errno.EXDEV: "It and the archive beside it lie under different quotas: take the quota off {0}.".format(ARCHIVE),
                errno.EROFS: "It is a snapshot, or the mount is read-only.",
                errno.EDQUOT: "Raise the quota of a directory above it.",
                errno.EBUSY: "Something is mounted on it, or it holds what cannot be moved.",
                errno.EACCES: "The CephFS client may not write there: ceph fs authorize FS client.NAME / rw.",
                errno.EPERM: "Run this as root, with a client that may write: ceph fs authorize FS client.NAME / rw.",
            }.get(error.errno or 0, "")
            raise PoolsError("CephFS refused to work on {0}: {1}.".format(path, error.strerror), remedy) from error


def _shown(facts: Mapping[str, Dict[str, Any]], paths: Set[str]) -> Dict[str, Any]:
    return {path: {key: value for key, value in facts[path].items() if key != "used"} for path in sorted(paths)}


def _attribute(handle: int, name: str) -> int:
    try:
        return int(os.getxattr(handle, name).decode() or 0)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return 0
        raise

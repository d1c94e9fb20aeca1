# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of servers on the host that has them: what is there, and archives removed for good."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from . import _cleanup_files
from ._cephfs_child import bounded
from ._cephfs_mount import prove
from ._errors import PoolsError
from ._server_dir import UNFINISHED, ServerDirectory

# What the backends call the directory that receives archives.
ARCHIVES = ("archived", ".archived")
# An archive on its way out: what was begun is finished by the next run, whatever is left of it.
REMOVING = ".removing-"
_STAMP = re.compile(r"-([0-9]{8}T[0-9]{6}Z)(-2)*\Z")
# A server's own entries beside its data; see _server_dir.py and the role postgres_server.
_MARKS = (".lock", ".guard")
_OWN = frozenset([*_MARKS, "tls", "log", ".snap"])
Step = Callable[[str], None]


def run(options: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """One call of the module ``server_storage``.

    :raises PoolsError: a path that may not be removed, or a CephFS that is not proved or hangs.
    """
    roots = [_absolute(root) for root in options["roots"]]
    paths = [_absolute(path) for path in options["paths"]] if options["paths"] is not None else None
    if options["state"] == "removed":
        if paths is None:
            raise PoolsError("state removed needs paths.", "Name the archives that are to be removed.")
        for path in paths:
            _refuse_no_archive(path, roots)

    def work(step: Step) -> Dict[str, Any]:
        storage = Storage(roots, step)
        if options["mount_path"]:
            storage.mounted(options["mount_path"], options["cluster_fsid"] or "")
        if options["state"] == "removed":
            return storage.remove(paths or [], check_mode)
        try:
            return {"changed": False, "roots": storage.present_roots(), "directories": storage.survey(paths)}
        except OSError as error:
            raise PoolsError(
                "{0} cannot be read: {1}.".format(error.filename, error.strerror), "Run this as a user who may read it."
            ) from error

    if options["mount_path"]:
        # A CephFS may hang, and then only a process of its own can be left behind.
        return bounded(options["mount_path"], options["timeout"], work)
    return work(lambda _words: None)


class Storage:
    """The roots that servers' directories lie in, reached by their paths or below the one descriptor of a proved mount."""

    def __init__(self, roots: Sequence[str], step: Step) -> None:
        self._roots = roots
        self._step = step
        self._mount: Optional[str] = None
        self._below = ""

    def mounted(self, mount_path: str, cluster_fsid: str) -> None:
        mount = prove(mount_path, cluster_fsid, self._step)
        self._mount = os.path.normpath(mount_path)
        self._below = "/proc/self/fd/{0}".format(mount.handle)

    def present_roots(self) -> List[str]:
        return [root for root in self._roots if os.path.isdir(self._at(root))]

    def survey(self, paths: Optional[Sequence[str]]) -> List[Dict[str, Any]]:
        """Every server's directory and every archive below the roots, or those of *paths* that are there."""
        if paths is not None:
            return [self._look(path) for path in paths if os.path.lexists(self._at(path))]
        found: List[Dict[str, Any]] = []
        for root in self.present_roots():
            for name in self._directories(root):
                path = os.path.join(root, name)
                if name in ARCHIVES:
                    found.extend(self._look(os.path.join(path, archive)) for archive in self._directories(path))
                else:
                    found.append(self._look(path))
        return found

    def remove(self, paths: Sequence[str], check_mode: bool) -> Dict[str, Any]:
        """Archives, each by itself: one that resists is told and stops no other."""
        removed: List[str] = []
        failed: List[Dict[str, str]] = []
        for path in paths:
            try:
                if not os.path.lexists(self._at(path)):
                    continue
                if os.path.islink(self._at(path)):
                    raise PoolsError("It is a link, which is not followed.")
                held = self._held(path)
                if held:
                    raise PoolsError("{0}.".format(held))
                if not check_mode:
                    self._delete(path)
                removed.append(path)
            except OSError as error:
                failed.append({"what": "archive", "name": path, "why": "{0}.".format(error.strerror)})
            except PoolsError as error:
                failed.append({"what": "archive", "name": path, "why": str(error)})
        return {"changed": bool(removed), "removed": removed, "failures": failed}

    def _at(self, path: str) -> str:
        if self._mount is None:
            return path
        if not path.startswith(self._mount.rstrip("/") + "/"):
            raise PoolsError("{0} is not below the mount point {1}.".format(path, self._mount))
        return self._below + path[len(self._mount.rstrip("/")) :]

    def _directories(self, path: str) -> List[str]:
        self._step("list {0}".format(path))
        place = self._at(path)
        return [name for name in sorted(os.listdir(place)) if os.path.isdir(os.path.join(place, name))]

    def _look(self, path: str) -> Dict[str, Any]:
        self._step("look at {0}".format(path))
        above, name = os.path.split(path)
        archived = os.path.basename(above) in ARCHIVES
        told: Dict[str, Any] = {
            "path": path,
            "name": name,
            "root": os.path.dirname(above) if archived else above,
            "archived": archived,
            "half_removed": archived and name.startswith(REMOVING),
            "since": None,
            "made": False,
            "running": False,
            "held": "",
            "databases": [],
            "clean": True,
            "unreadable": "",
        }
        try:
            if os.path.islink(self._at(path)):
                raise PoolsError("it is a link, which is not followed")
            told["running"] = self._running(path)
            told["held"] = self._held(path)
            told["made"] = any(os.path.lexists(os.path.join(self._at(path), mark)) for mark in _MARKS)
            clusters = self._clusters(path)
            for cluster in clusters:
                data = _cleanup_files.read(cluster)
                told["databases"] += data.databases
                told["clean"] = told["clean"] and data.clean
            told["since"] = _stamp(name) if archived else self._newest(path, clusters)
        except PoolsError as error:
            told["unreadable"] = str(error).replace(self._below, self._mount or "") if self._mount else str(error)
        except OSError as error:
            told["unreadable"] = "it cannot be read: {0}".format(error.strerror)
        return told

    def _clusters(self, path: str) -> List[str]:
        """The data directories in a server's directory, wherever its backend and its image put them.

        :raises PoolsError: there is something that no server has there.
        """
        place = self._at(path)
        found = []
        for name in sorted(os.listdir(place)):
            here = os.path.join(place, name)
            if name in _OWN or name.startswith(UNFINISHED):
                continue
            data = os.path.join(here, "docker") if name.isdigit() else here
            if name.isdigit() or name in ("data", "pgdata"):
                if os.path.lexists(os.path.join(data, "PG_VERSION")):
                    found.append(data)
                    continue
                if os.path.isdir(data) and not os.listdir(data):
                    continue
            raise PoolsError("it holds {0!r}, which is no part of a server".format(name))
        return found

    def _newest(self, path: str, clusters: Sequence[str]) -> str:
        """When something was last made or written there; a running server writes its control file at each checkpoint."""
        place = self._at(path)
        looked = [place, *(os.path.join(place, mark) for mark in _MARKS), *clusters]
        looked += [os.path.join(cluster, "global", "pg_control") for cluster in clusters]
        times = []
        for one in looked:
            with contextlib.suppress(FileNotFoundError):
                times.append(os.stat(one).st_mtime)
        return _iso(datetime.datetime.fromtimestamp(max(times), datetime.timezone.utc))

    def _running(self, path: str) -> bool:
        # On shared storage the process may be another node's, and postmaster.pid tells nothing: there the lock does.
        return self._mount is None and ServerDirectory(path, None).postmaster() is not None  # type: ignore[arg-type]

    def _held(self, path: str) -> str:
        """Who has a lock there, in words; empty for nobody."""
        for mark, words in ((".guard", "a PostgreSQL holds its lock"), (".lock", "another run is at work on it")):
            try:
                handle = os.open(os.path.join(self._at(path), mark), os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                return words
            finally:
                os.close(handle)
        if self._running(path):
            return "a PostgreSQL runs in it"
        return ""

    def _delete(self, path: str) -> None:
        above, name = os.path.split(self._at(path))
        place = os.path.join(above, name)
        if not name.startswith(REMOVING):
            # In one step it is no archive any more: half of one must never be taken for one that shows all it holds.
            place = os.path.join(above, REMOVING + name)
            os.rename(os.path.join(above, name), place)
        for folder, folders, files in _bottom_up(place):
            self._step("remove {0}".format(folder))
            for file in files:
                os.unlink(os.path.join(folder, file))
            for below in folders:
                here = os.path.join(folder, below)
                os.unlink(here) if os.path.islink(here) else os.rmdir(here)
        os.rmdir(place)


def _bottom_up(place: str) -> Iterator[Any]:
    def refused(error: OSError) -> None:
        raise error

    return os.walk(place, topdown=False, onerror=refused)


def _absolute(path: str) -> str:
    if not os.path.isabs(path):
        raise PoolsError("The path {0!r} is not absolute.".format(path[:200]))
    return os.path.normpath(path)


def _refuse_no_archive(path: str, roots: Sequence[str]) -> None:
    above = os.path.dirname(path)
    if os.path.basename(above) not in ARCHIVES or os.path.dirname(above) not in roots:
        raise PoolsError(
            "{0} is no archive below {1}. Nothing was removed.".format(path, ", ".join(roots) or "no root"),
            "Only what lies in {0} there is ever removed.".format(" or ".join(ARCHIVES)),
        )


def _stamp(name: str) -> Optional[str]:
    found = _STAMP.search(name)
    if found is None:
        return None
    with contextlib.suppress(ValueError):
        return _iso(datetime.datetime.strptime(found.group(1), "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc))
    return None


def _iso(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A local server's own directory: its lock, its files, and the PostgreSQL that runs there.

PATH/.lock, PATH/data, PATH/log/postgres.log. PATH belongs to the caller and data and log to the user PostgreSQL runs
as, so that root never creates or follows a name which that user could have put there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from typing import Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import Account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

CONF = "postgresql.pools.conf"
HBA = "pg_hba.conf"
UNFINISHED = ".unfinished-"
LOG_LIMIT = 10 * 1024 * 1024


class Postmaster(NamedTuple):
    pid: int
    host: str
    port: int


class ServerDirectory:
    def __init__(self, path: str, who: Account) -> None:
        if not os.path.isabs(path):
            raise PoolsError("The path of a server must be absolute, not '{0}'.".format(path))
        self.path = os.path.normpath(path)
        self.who = who
        self.data = os.path.join(self.path, "data")
        self.log = os.path.join(self.path, "log", "postgres.log")
        self._lock = os.path.join(self.path, ".lock")

    def exists(self) -> bool:
        """Whether there is a server's directory; one of anything else is refused, so that it is neither filled nor moved."""
        if not os.path.isdir(self.path):
            if os.path.lexists(self.path):
                raise PoolsError("{0} is not a directory.".format(self.path))
            return False
        # Asked twice, since another run may make the lock between the first look and the second.
        # The TLS files are there before the server is.
        if not os.path.lexists(self._lock) and set(os.listdir(self.path)) - {"tls"} and not os.path.lexists(self._lock):
            raise PoolsError("{0} holds something else than a server.".format(self.path), "Choose an empty path.")
        return os.path.lexists(self._lock)

    @contextlib.contextmanager
    def locked(self, timeout: float, create: bool) -> Iterator[None]:
        """One run at a time works on a server; the lock ends with the process that holds it, however that ends."""
        if not self.exists():
            if not create:
                yield
                return
            self._make()
        deadline = time.monotonic() + timeout
        while True:
            try:
                # A descriptor that Python opens is closed in every program it starts: PostgreSQL must not hold this lock.
                lock = os.open(self._lock, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
            except FileNotFoundError:
                if not create:
                    yield
                    return
                self._make()
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The directory may have been archived while this run waited for its lock.
                if os.path.lexists(self._lock) and os.path.samestat(os.fstat(lock), os.lstat(self._lock)):
                    break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOENT):
                    raise
            os.close(lock)
            if time.monotonic() > deadline:
                raise PoolsError("Another run has been at work on {0} for {1:.0f} seconds.".format(self.path, timeout))
            time.sleep(0.02)
        try:
            if create:
                self._clear_unfinished()
            yield
        finally:
            os.close(lock)

    def major(self) -> Optional[int]:
        """The major version of the data directory, or None when there is none."""
        text = self.read("PG_VERSION")
        if text is not None:
            return int(text.strip().split(".")[0])
        if os.path.isdir(self.data) and os.listdir(self.data):
            raise PoolsError("{0} is not empty and not a PostgreSQL data directory.".format(self.data))
        return None

    def unfinished(self) -> str:
        """A directory beside the data, of the same file system, to become it in one step."""
        directory = tempfile.mkdtemp(prefix=UNFINISHED, dir=self.path)
        os.chown(directory, self.who.uid, self.who.gid)
        return directory

    def read(self, name: str) -> Optional[str]:
        try:
            handle = os.open(os.path.join(self.data, name), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def candidate(self, text: str) -> str:
        """A new file of the server's user, complete on disk, to be renamed to its place."""
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.path)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchown(stream.fileno(), self.who.uid, self.who.gid)
            os.fsync(stream.fileno())
        return name

    def write(self, files: Dict[str, str], data: str = "") -> None:
        for name, text in files.items():
            os.rename(self.candidate(text), os.path.join(data or self.data, name))

    def postmaster(self) -> Optional[Postmaster]:
        """The PostgreSQL that runs on this data directory. A process ID alone proves nothing: it may be another's by now."""
        lines = (self.read("postmaster.pid") or "").splitlines()
        if not lines or not lines[0].strip().isdigit() or not self._works_here(int(lines[0])):
            return None
        lines += [""] * 8
        host = lines[5].strip()
        return Postmaster(int(lines[0]), host, int(lines[3]) if lines[3].strip().isdigit() else 0)

    def clear_stale_pid(self) -> None:
        """Remove a postmaster.pid whose number is another process's now.

        PostgreSQL itself removes one whose process is gone; but after a crash of the machine the number may be that of
        a neighbouring server of the same user, and then it refuses to start.
        """
        if os.path.isdir("/proc/self") and not any(self._works_here(pid, unsure=True) for pid in self._own_processes()):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.data, "postmaster.pid"))

    def _own_processes(self) -> List[int]:
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and os.stat("/proc/" + name).st_uid == self.who.uid:
                    found.append(int(name))
        return found

    def open_log(self) -> int:
        """Make the log ready for a start; how long it is already."""
        directory = os.path.dirname(self.log)
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
        os.chown(directory, self.who.uid, self.who.gid)
        length = os.lstat(self.log).st_size if os.path.lexists(self.log) else 0
        if length > LOG_LIMIT:
            os.rename(self.log, self.log + ".1")
            return 0
        return length

    def last_log_lines(self, start: int, count: int = 12) -> str:
        try:
            handle = os.open(self.log, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return ""
        with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
            stream.seek(start)
            return "\n".join(stream.read().splitlines()[-count:])

    def archive(self, into: str) -> str:
        """Move the whole directory away; where to."""
        into = into or os.path.join(os.path.dirname(self.path), "archived")
        os.makedirs(into, 0o711, exist_ok=True)
        target = os.path.join(
            into, "{0}-{1}".format(os.path.basename(self.path), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        )
        # rename() would put nothing into a directory that is in the way, but would replace an empty one.
        while os.path.lexists(target):
            target += "-2"
        try:
            os.rename(self.path, target)
        except OSError as error:
            raise PoolsError(
                "{0} cannot be moved to {1}: {2}.".format(self.path, target, error.strerror),
                "Set archive_path to a directory on the same file system.",
            ) from error
        return target

    def _make(self) -> None:
        missing, above = [], self.path
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        # The server's user has to pass through, whatever the caller's umask; a chmod afterwards could be lost to a kill.
        before = os.umask(0o066)
        try:
            for directory in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o711 if self.who.switch else 0o700)
        finally:
            os.umask(before)

    def _clear_unfinished(self) -> None:
        for name in os.listdir(self.path):
            if name.startswith(UNFINISHED):
                place = os.path.join(self.path, name)
                if os.path.isdir(place):
                    # An initdb whose module was killed may still write there; what is left goes the next time.
                    shutil.rmtree(place, ignore_errors=True)
                else:
                    os.unlink(place)

    def _works_here(self, pid: int, unsure: bool = False) -> bool:
        """Whether a process has the data directory as its own, as every process of a PostgreSQL does."""
        process = "/proc/{0}".format(pid)
        try:
            return os.path.samefile(process + "/cwd", self.data)
        except PermissionError:
            return unsure or self._names_data(process)
        except OSError:
            if os.path.isdir("/proc/self"):
                return False
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True

    def _names_data(self, process: str) -> bool:
        # A container without CAP_SYS_PTRACE hides even from root where another user's process works, not how it was called.
        try:
            with open(process + "/cmdline", "rb") as stream:
                return self.data.encode() in stream.read().split(b"\0")
        except OSError:
            return False

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled jobs on this host: what is there, what would be refused, and the steps from there to what is wanted."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import pwd
import shutil
import subprocess
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _schedule_run
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._schedule import (
    MARK,
    PREFIX,
    SEARCH_PATH,
    Directories,
    Entry,
    Job,
    Settings,
    check_paths,
    entries,
    is_file,
    jobs_from,
)

SYSTEMD_RUNS = "/run/systemd/system"
SECONDS = 60


def schedule(params: Mapping[str, Any], python: str, dry_run: bool) -> Dict[str, Any]:
    """One call of the module, from its options to its result."""
    directories = Directories(*(os.path.normpath(params[field + "_directory"]) for field in Directories._fields))
    python = params["python"] or python
    check_paths(directories, python)
    kind: Optional[str] = None
    jobs: List[Job] = []
    wanted: Dict[str, Entry] = {}
    user: Optional[pwd.struct_passwd] = None
    if params["state"] == "present":
        kind = _kind(params["kind"], params["start"])
        user = _user(params["user"], params["directory"])
        settings = Settings(
            params["directory"], params["ansible_playbook"], params["inventory"], user.pw_name, python,
            params["environment_file"], float(params["grace"]), float(params["randomized_delay"]),
        )  # fmt: skip
        jobs = jobs_from(params["jobs"], kind)
        _check_there(settings, jobs)
        if kind == "systemd":
            _check_calendars(jobs)
        wanted = entries(kind, jobs, settings, directories, _program())
    host = _Host(directories, wanted, user, params["start"] and os.path.isdir(SYSTEMD_RUNS))
    return dict(
        host.bring(dry_run),
        kind=kind,
        jobs=[{"name": job.name, "playbook": job.playbook, "when": job.when, "timeout": job.timeout} for job in jobs],
    )


def _program() -> str:
    # A module comes to the host in a ZIP file, in which there is no path to open.
    return str(_schedule_run.__loader__.get_source(_schedule_run.__name__))  # type: ignore[union-attr]


# --- what is refused before anything is touched


def _kind(kind: str, start: bool) -> str:
    systemd = os.path.isdir(SYSTEMD_RUNS)
    if kind == "auto":
        kind = "systemd" if systemd else "cron"
    if start and kind == "systemd" and not systemd:
        raise PoolsError("systemd does not run here.", "Take the kind cron, or set start to false when this is an image of a host to come.")
    if start and kind == "cron" and not any(shutil.which(name, path=SEARCH_PATH) for name in ("cron", "crond")):
        raise PoolsError(
            "{0}there is no cron here.".format("" if systemd else "systemd does not run and "),
            "Install it, or set start to false when this is an image of a host to come.",
        )
    return kind


def _user(name: str, directory: str) -> pwd.struct_passwd:
    if not os.path.isdir(directory):
        raise PoolsError("The directory {0} is not there.".format(directory), "Give the one in which ansible-playbook is to run.")
    try:
        return pwd.getpwnam(name) if name else pwd.getpwuid(os.stat(directory).st_uid)
    except KeyError:
        who = "user {0!r}".format(name) if name else "user that owns {0}".format(directory)
        raise PoolsError("There is no {0} on this host.".format(who), "Give the user that the jobs are to run as.") from None


def _check_there(settings: Settings, jobs: Sequence[Job]) -> None:
    """Each file that a job names. A name of an inventory with a comma is a list of hosts and no file."""
    problems = []
    for source in settings.inventory:
        if "," not in source and not os.path.exists(os.path.join(settings.directory, source)):
            problems.append("the inventory {0}".format(source))
    if not os.access(settings.ansible_playbook, os.X_OK) or not os.path.isabs(settings.ansible_playbook):
        problems.append("the program {0!r}, with its whole path".format(settings.ansible_playbook))
    if settings.environment_file and not (os.path.isabs(settings.environment_file) and os.path.isfile(settings.environment_file)):
        problems.append("the environment file {0!r}, with its whole path".format(settings.environment_file))
    for job in jobs:
        if is_file(job.playbook) and not os.path.isfile(os.path.join(settings.directory, job.playbook)):
            problems.append("the playbook {0} of the job {1}".format(job.playbook, job.name))
    if problems:
        raise PoolsError("On this host there is not: {0}.".format("; ".join(problems)), "Every run would fail.")


def _check_calendars(jobs: Sequence[Job]) -> None:
    """By systemd itself. Where its program is not there, it will say so when the timers are loaded."""
    program = shutil.which("systemd-analyze", path=SEARCH_PATH)
    if not program or not jobs:
        return
    done = _run([program, "calendar", "--", *(job.when for job in jobs)])
    if done.returncode:
        raise PoolsError(
            "systemd refuses a calendar expression: {0}.".format("; ".join(done.stderr.split("\n")).strip("; ")),
            "`systemd-analyze calendar` shows what it makes of one; man systemd.time describes them.",
        )


# --- what is there, and the steps


class _Host:
    def __init__(
        self, directories: Directories, wanted: Dict[str, Entry], user: Optional[pwd.struct_passwd], systemd: bool
    ) -> None:
        self.directories = directories
        self.wanted = wanted
        self.user = user
        self.systemd = systemd
        self.found = self._found()
        self.written = [path for path, entry in wanted.items() if self.found.get(path) != entry]
        # What starts a job goes first, what the job needs last.
        self.removed = [path for path in reversed(list(self.found)) if path not in wanted]
        self.made = [path for path in self._needed() if not os.path.isdir(path)]

    def bring(self, dry_run: bool) -> Dict[str, Any]:
        """Do all that is to be done, or only say it."""
        self._check_places()
        units = self._units() if self.systemd else {}
        timers = [os.path.basename(path) for path in self.wanted if os.path.dirname(path) == self.directories.wants]
        gone = [os.path.basename(path) for path in self.removed if path.endswith(".timer") and os.path.dirname(path) == self.directories.unit]
        stopped = [name for name in gone if units.get(name, {}).get("ActiveState") == "active"]
        started = [name for name in timers if self.systemd and units.get(name, {}).get("ActiveState") != "active"]
        reload = any(unit.get("NeedDaemonReload") == "yes" for unit in units.values()) or (
            self.systemd and any(os.path.dirname(path) == self.directories.unit for path in [*self.written, *self.removed])
        )
        with self._locks() as locks:
            moved = self._state_of_another()
            removed = [*self.removed, *locks]
            removed += self._emptied(removed)
            if not dry_run:
                _systemctl("stop", *stopped)
                self._write(moved)
                _remove(removed)
                if reload:
                    _systemctl("daemon-reload")
                _systemctl("start", *started)
        changed = bool(self.written or removed or self.made or moved or reload or stopped or started)
        return dict(
            changed=changed, written=self.written, removed=removed, started=started, stopped=stopped, diff=self._diff(removed)
        )

    def _found(self) -> Dict[str, Entry]:
        """Our own files here, those that use others last."""
        at = self.directories
        patterns = [
            at.run_job, os.path.join(at.config, "*.json"),
            *(os.path.join(at.unit, PREFIX + "-*" + suffix) for suffix in (".service", ".timer")),
            at.crontab,
        ]  # fmt: skip
        found = {}
        for path in (path for pattern in patterns for path in sorted(glob.glob(pattern))):
            with contextlib.suppress(OSError, UnicodeError), open(path, encoding="utf-8") as stream:
                content = stream.read()
                if MARK in content and not os.path.islink(path):
                    found[path] = Entry(content)
        for path in sorted(glob.glob(os.path.join(at.wants, PREFIX + "-*.timer"))):
            target = os.path.join(at.unit, os.path.basename(path))
            if os.path.islink(path) and os.readlink(path) == target and (target in found or not os.path.exists(target)):
                found[path] = Entry(target=target)
        return found

    def _needed(self) -> List[str]:
        """The directories that are made here. Those for units and crontabs belong to systemd and to cron."""
        if not self.wanted:
            return []
        at = self.directories
        uses_units = any(os.path.dirname(path) == at.wants for path in self.wanted)
        return [at.program, at.config, at.state, *([at.wants] if uses_units else [])]

    def _check_places(self) -> None:
        foreign = [path for path in self.written if os.path.lexists(path) and path not in self.found]
        if foreign:
            raise PoolsError("{0}: this was not made by the schedule.".format(", ".join(foreign)), "Move it away, then run this again.")
        for path in [*self.written, *self.removed, *self.made]:
            place = os.path.dirname(path)
            if place in self.made:
                continue
            if not os.path.isdir(place):
                raise PoolsError("The directory {0} is not there.".format(place), "Without it nothing reads what would be put there.")
            if not os.access(place, os.W_OK):
                raise PoolsError("{0} cannot be written to.".format(place), "Become root for this (become: true).")
        if self.wanted and self.user and os.geteuid() not in (0, self.user.pw_uid):
            raise PoolsError("Only root can have jobs run as {0}.".format(self.user.pw_name), "Become root for this (become: true).")

    @contextlib.contextmanager
    def _locks(self) -> Iterator[List[str]]:
        """The lock files that nobody needs any more, held meanwhile. A run that holds one must end first."""
        jobs = {os.path.basename(path) for path in self.wanted if os.path.dirname(path) == self.directories.config}
        surplus = []
        with contextlib.ExitStack() as stack:
            for path in sorted(glob.glob(os.path.join(self.directories.state, "*.lock"))):
                name = os.path.basename(path)[: -len(".lock")]
                if name + ".json" in jobs and not (self.user and os.lstat(path).st_uid != self.user.pw_uid):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    # No link: the directory belongs to the user that the jobs run as.
                    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    stack.callback(os.close, lock)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        holder = os.pread(lock, 100, 0).decode(errors="replace").strip()
                        raise PoolsError(
                            "The job {0} is running ({1}).".format(name, holder), "Let it end or stop it, then run this again."
                        ) from None
                    surplus.append(path)
            yield surplus

    def _state_of_another(self) -> bool:
        """Whether the directory of the locks is there and not this user's alone."""
        try:
            told = os.stat(self.directories.state)
        except FileNotFoundError:
            return False
        return bool(self.user) and (told.st_uid, told.st_mode & 0o777) != (self.user.pw_uid if self.user else 0, 0o700)

    def _write(self, moved: bool) -> None:
        state = self.directories.state
        for path in self.made:
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103  the jobs' user reads what is in it
        if self.user and (moved or state in self.made):
            os.chmod(state, 0o700)
            os.chown(state, self.user.pw_uid, self.user.pw_gid)
        for path in self.written:
            place, name = os.path.split(path)
            # Always the same name: what an interrupted run left is taken up by the next. Neither systemd nor cron reads it.
            unfinished = os.path.join(place, ".{0}.new".format(name))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)
            entry = self.wanted[path]
            if entry.target:
                os.symlink(entry.target, unfinished)
            else:
                with open(unfinished, "x", encoding="utf-8") as stream:
                    os.fchmod(stream.fileno(), 0o644)
                    stream.write(entry.content)
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(unfinished, path)

    def _emptied(self, removed: Sequence[str]) -> List[str]:
        """Directories that hold nothing but what is removed, and that nothing wanted is put into. Not one that has something else."""
        at = self.directories
        used = {os.path.dirname(path) for path in self.wanted} | ({at.state} if self.wanted else set())
        return [
            place
            for place in (at.wants, at.state, at.config, at.program)
            if place not in used and os.path.isdir(place) and {os.path.join(place, name) for name in os.listdir(place)} <= set(removed)
        ]

    def _units(self) -> Dict[str, Dict[str, str]]:
        names = sorted({os.path.basename(path) for path in [*self.wanted, *self.found] if path.endswith((".timer", ".service"))})
        if not names:
            return {}
        done = _systemctl("show", "--property=Id,ActiveState,NeedDaemonReload", *names)
        blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in done.split("\n\n")]
        return {block["Id"]: block for block in blocks if "Id" in block}

    def _diff(self, removed: Sequence[str]) -> List[Dict[str, str]]:
        def side(path: str, of: Mapping[str, Entry]) -> str:
            entry = of.get(path, Entry())
            return entry.content or ("link to {0}\n".format(entry.target) if entry.target else "")

        return [
            {"before_header": path, "after_header": path, "before": side(path, self.found), "after": side(path, self.wanted)}
            for path in [*self.written, *removed]
        ]


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        # Somebody else may have been quicker, or put something into a directory.
        with contextlib.suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            else:
                os.unlink(path)


def _systemctl(verb: str, *arguments: str) -> str:
    if not arguments and verb != "daemon-reload":
        return ""
    done = _run(["systemctl", verb, *arguments])
    if done.returncode:
        raise PoolsError("systemctl {0} failed: {1}".format(verb, (done.stderr or done.stdout).strip()), "Run it by hand to see more.")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = dict(os.environ, LC_ALL="C", SYSTEMD_PAGER="", SYSTEMD_COLORS="0")
    try:
        return subprocess.run(list(command), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise PoolsError("{0} did not answer within {1} s.".format(command[0], SECONDS)) from None
    except OSError as error:
        raise PoolsError("{0} cannot be run: {1}.".format(command[0], error.strerror)) from None

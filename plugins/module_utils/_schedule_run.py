# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one scheduled job: never twice at once, for a limited time, and say how it ended.

This file is put on the host as a program of its own, so it imports nothing of the collection.

What it ends with: the command's own code; 75 when a run before is not over; 124 when the time was up; 127 when the command is not there;
78 when the job's file is wrong; 128 and the signal's number when it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

SKIPPED, MISCONFIGURED, TIMEOUT, MISSING = 75, 78, 124, 127
# Priorities and the facility of daemons, as syslog numbers them.
ERROR, WARNING, INFO, DAEMON = 3, 4, 6, 3 << 3
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
AWAITED = STOPPING | {signal.SIGCHLD}
# After SIGKILL: what is still there then hangs in the kernel, on a dead mount for instance.
KILL_SECONDS = 10.0
# What the command did not end itself is given this long at most.
LEFTOVERS_SECONDS = 5.0
DATAGRAM = 4000

LIBC = ctypes.CDLL(None, use_errno=True)


class Job(NamedTuple):
    name: str
    command: List[str]
    directory: str
    environment_file: str
    lock: str
    # Seconds for the run, and for what it started to end in good order after that.
    timeout: float
    grace: float


class JobError(Exception):
    """The job's file, or what it names, is wrong."""


class BusyError(Exception):
    """Another run of the job is not over."""


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Log:
    """Where lines go: to standard output, which under systemd is the journal, or to the socket of a syslog."""

    def __init__(self, name: str, address: str) -> None:
        self.tag = "postgres-pools-{0}[{1}]".format(name, os.getpid())
        self.syslog = self._connected(address) if address else None
        # The journal takes a priority from the head of a line.
        self.levels = "JOURNAL_STREAM" in os.environ

    @staticmethod
    def _connected(address: str) -> Optional[socket.socket]:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.connect(address)
        except OSError as error:
            # What cron gets on standard output it mails: better there than nowhere.
            _print("The syslog does not answer at {0}: {1}.".format(address, error.strerror))
            made.close()
            return None
        return made

    def say(self, priority: int, text: str) -> None:
        if self.syslog is None:
            _print("<{0}>{1}".format(priority, text) if self.levels else text)
            return
        data = text.encode(errors="replace")
        for start in range(0, len(data) or 1, DATAGRAM):
            head = "<{0}>{1}: ".format(DAEMON | priority, self.tag).encode()
            try:
                self.syslog.send(head + data[start : start + DATAGRAM])
            except OSError:
                _print(text)
                return

    def follow(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.say(INFO, line.decode(errors="replace").rstrip())


def read_job(path: str) -> Job:
    try:
        with open(path, encoding="utf-8") as stream:
            told = json.load(stream)
        return Job(**{field: told[field] for field in Job._fields})
    except OSError as error:
        raise JobError("{0} cannot be read: {1}.".format(path, error.strerror)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError("{0} does not describe a job: {1!r}.".format(path, error)) from None


def environment(path: str) -> Dict[str, str]:
    """This process's, with the lines NAME=VALUE of the file. As in systemd's, a value may be in quotes and "#" begins a comment."""
    found = dict(os.environ)
    # Without one that says UTF-8 Ansible does not start, and cron gives none.
    found.setdefault("LANG", "C.UTF-8")
    if not path:
        return found
    try:
        with open(path, encoding="utf-8") as stream:
            lines = [line.strip() for line in stream]
    except (OSError, UnicodeError) as error:
        raise JobError("The environment file {0} cannot be read: {1}.".format(path, error)) from None
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith(("#", ";")):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier():
            # The line itself may hold what nobody should read in a log.
            raise JobError("Line {0} of the environment file {1} is not NAME=VALUE.".format(number, path))
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[name] = value[1:-1] if quoted else value
    return found


def take_lock(path: str) -> int:
    """The descriptor that holds the lock. The command inherits it: should this process be killed, the next run still sees the command."""
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JobError("The lock {0} cannot be opened: {1}.".format(path, error.strerror)) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode(errors="replace").strip()
            os.close(lock)
            raise BusyError(holder or "another process") from None
        with contextlib.suppress(FileNotFoundError):
            # Else somebody removed the file in between, and the lock is on what nobody else will open.
            if os.path.samestat(os.stat(path), os.fstat(lock)):
                now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
                os.ftruncate(lock, 0)
                os.pwrite(lock, "process {0}, since {1}\n".format(os.getpid(), now).encode(), 0)
                return lock
        os.close(lock)


class Command:
    """The job's command and all that comes of it."""

    def __init__(self, job: Job, env: Dict[str, str], lock: int, log: Log) -> None:
        self.grace = job.grace
        self.status: Optional[int] = None
        self.follower: Optional[threading.Thread] = None
        # Whatever loses its parent becomes a child of this process, and is found when the run is to end.
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.process = subprocess.Popen(
            job.command,
            cwd=job.directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if log.syslog else None,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
            preexec_fn=_in_the_child,  # noqa: PLW1509  there are no threads yet
        )
        if self.process.stdout:
            self.follower = threading.Thread(target=log.follow, args=(self.process.stdout,), daemon=True)
            self.follower.start()

    def wait(self, seconds: float) -> Optional[int]:
        """Until it ends, the time is up or a signal says to stop: that signal. After it, *status* is None if the command still runs."""
        deadline = time.monotonic() + seconds
        while True:
            self.reap()
            left = deadline - time.monotonic()
            if self.status is not None or left <= 0:
                return None
            got = signal.sigtimedwait(AWAITED, left)
            if got is not None and got.si_signo in STOPPING:
                return got.si_signo

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.process.pid:
                    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                    self.status = self.process.returncode = code

    def end(self) -> List[int]:
        """End everything that the run started and that is left; the processes that did not end even so."""
        if self.status is None:
            # First the command alone, which knows best in what order the rest is to end.
            with contextlib.suppress(OSError):
                os.kill(self.process.pid, signal.SIGTERM)
            self._until(lambda: self.status is not None, self.grace)
        told: Set[int] = set()

        def all_ended(number: int) -> bool:
            left = descendants()
            # SIGTERM once to each, for a second one can cut short what the first began.
            for pid in left if number == signal.SIGKILL else [pid for pid in left if pid not in told]:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            told.update(left)
            return not left

        self._until(lambda: all_ended(signal.SIGTERM), min(self.grace, LEFTOVERS_SECONDS))
        self._until(lambda: all_ended(signal.SIGKILL), KILL_SECONDS)
        if self.follower:
            self.follower.join(5)
        self.process.returncode = self.status if self.status is not None else -1
        return descendants()

    def _until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.reap()
            if done():
                return
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)


def _in_the_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    # When this program itself is killed, nobody is left to watch over the time.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def descendants() -> List[int]:
    """The processes below this one that still run."""
    parents: Dict[int, int] = {}
    dead: Set[int] = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open("/proc/{0}/stat".format(entry), encoding="utf-8", errors="replace") as stream:
                # The program's name, in brackets, may hold anything.
                state, parent = stream.read().rpartition(")")[2].split()[:2]
                parents[int(entry)] = int(parent)
                if state in "ZX":
                    dead.add(int(entry))
    found = {os.getpid()}
    more = set(found)
    while more:
        more = {pid for pid, parent in parents.items() if parent in more and pid not in found}
        found |= more
    return sorted(found - dead - {os.getpid()})


def run(job: Job, log: Log) -> Tuple[int, int, str]:
    """The exit code, the priority of what is to be said, and that."""
    lock = take_lock(job.lock)
    env = environment(job.environment_file)
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    began = time.monotonic()
    try:
        command = Command(job, env, lock, log)
    except (OSError, subprocess.SubprocessError) as error:
        return MISSING, ERROR, "failed, exit code {0}: {1} cannot be run: {2}".format(MISSING, job.command[0], error)
    stopped = command.wait(job.timeout)
    in_time = command.status is not None
    left = command.end()
    seconds = "{0:.1f} s".format(time.monotonic() - began)
    hanging = "; not even SIGKILL ended {0}".format(", ".join(map(str, left))) if left else ""
    if stopped and not in_time:
        name = signal.Signals(stopped).name
        return 128 + stopped, WARNING, "stopped, exit code {0}, {1}: {2} came{3}".format(128 + stopped, seconds, name, hanging)
    if command.status is None or not in_time:
        said = "timeout, exit code {0}, {1}: it had {2:g} s, and was ended with all that it had started{3}"
        return TIMEOUT, ERROR, said.format(TIMEOUT, seconds, job.timeout, hanging)
    if command.status:
        return command.status, ERROR, "failed, exit code {0}, {1}{2}".format(command.status, seconds, hanging)
    return 0, INFO, "ok, exit code 0, {0}{1}".format(seconds, hanging)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Run one scheduled job: never twice at once, and for a limited time.")
    parser.add_argument("job", help="the job's file")
    parser.add_argument("--syslog", metavar="SOCKET", default="", help="say everything there, and nothing on standard output")
    given = parser.parse_args(arguments)
    name = os.path.splitext(os.path.basename(given.job))[0]
    log = Log(name, given.syslog)
    outcome: Any
    try:
        outcome = run(read_job(given.job), log)
    except JobError as error:
        outcome = MISCONFIGURED, ERROR, "failed, exit code {0}: {1}".format(MISCONFIGURED, error)
    except BusyError as busy:
        outcome = SKIPPED, WARNING, "skipped, exit code {0}: the run before is not over ({1})".format(SKIPPED, busy)
    code, priority, said = outcome
    log.say(priority, "{0}: {1}".format(name, said))
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and waits, each with a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, List, Optional, Sequence

from settings import LOGS


class BedError(Exception):
    """What went wrong, in a sentence for whoever started the bed."""


def run(*command: str, limit: float = 60, check: bool = True, given: Optional[str] = None) -> str:
    """What a command printed. Its errors are part of the message when it fails."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as problem:
        if not check:
            return ""
        raise BedError("{0} was not done after {1} s".format(" ".join(command), limit)) from problem
    except FileNotFoundError as problem:
        raise BedError("there is no {0} on this machine".format(command[0])) from problem
    if check and done.returncode:
        raise BedError("{0} ended with {1}: {2}".format(" ".join(command), done.returncode, (done.stderr or done.stdout).strip()[-2000:]))
    return done.stdout.strip()


def works(*command: str, limit: float = 10) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=limit, check=False).returncode == 0
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return False


def wait_for(what: str, limit: float, question: Callable[[], bool], pause: float = 0.1) -> None:
    end = time.monotonic() + limit
    while not question():
        if time.monotonic() > end:
            raise BedError("{0}: not so after {1} s; see {2}".format(what, limit, LOGS))
        time.sleep(pause)


def start_daemon(name: str, command: Sequence[str], pid_file: Path) -> None:
    """A process that outlives this one, in a session of its own."""
    with (LOGS / (name + ".log")).open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    pid_file.write_text(str(process.pid))


def alive(pid_file: Path, program: str) -> int:
    """The process that a pid file names, if it runs that program; a number used again by another process is not it."""
    try:
        pid = int(pid_file.read_text())
        arguments = Path("/proc/{0}/cmdline".format(pid)).read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    return pid if os.path.basename(arguments[0].decode()) == program else 0


def stop_daemon(pid_file: Path, program: str, polite: float) -> None:
    """SIGTERM first where a daemon has something to put away, SIGKILL when that takes longer than the limit."""
    for number, limit in ((signal.SIGTERM, polite), (signal.SIGKILL, 10.0)):
        pid = alive(pid_file, program)
        if not pid:
            break
        if limit:
            os.kill(pid, number)
            end = time.monotonic() + limit
            while alive(pid_file, program) and time.monotonic() < end:
                time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def kill_users(folder: Path) -> None:
    """Those that name the folder in their arguments, or have a root, folder or program below it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = str(folder).encode() in (process / "cmdline").read_bytes()
            links = [os.readlink(process / link) for link in ("root", "cwd", "exe")]
        except OSError:
            continue
        if named or any(link.startswith(str(folder)) for link in links):
            os.kill(int(process.name), signal.SIGKILL)


def mounts_below(folder: Path) -> List[str]:
    """The deepest first, as they must be unmounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(str(folder) + "/")), reverse=True)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs a scheduled job, as the host runs it: a process of its own with real commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _schedule_run

PROGRAM = str(_schedule_run.__file__)
# Long enough to be far from any limit here, short enough not to outlive a failing test for long.
LONG = "120"
PATIENCE = 20.0


class Bench:
    """A job named "trial" in a directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "trial.json"
        self.started: List[subprocess.Popen[str]] = []

    def job(self, script: str, **changed: Any) -> None:
        told = {
            "name": "trial", "command": ["/bin/sh", "-c", script], "directory": str(self.home), "environment_file": "",
            "lock": str(self.home / "trial.lock"), "timeout": 60, "grace": 5,
        }  # fmt: skip
        self.file.write_text(json.dumps(dict(told, **changed)))

    def start(self, *options: str, env: Any = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", PROGRAM, *options, str(self.file)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=dict({name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}, **(env or {})),
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, script: str, *options: str, env: Any = None, **changed: Any) -> Any:
        """The exit code and the lines."""
        self.job(script, **changed)
        return outcome(self.start(*options, env=env))

    def wait_for(self, name: str) -> str:
        """Until a command has written something into the file."""
        path = self.home / name
        until(lambda: path.exists() and path.read_text().endswith("\n"))
        return path.read_text().strip()


def outcome(process: subprocess.Popen[str]) -> Any:
    output, _none = process.communicate(timeout=PATIENCE)
    return process.returncode, output.splitlines()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "not within {0} s".format(PATIENCE)
        time.sleep(0.02)


def runs(pid: Any) -> bool:
    """Not a dead one that nobody has collected yet."""
    try:
        return Path("/proc/{0}/stat".format(pid)).read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(name="bench")
def fixture_bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for process in bench.started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    # What a failing test left, and what would keep the pipes open; every script writes its processes into a file of this name.
    for path in tmp_path.glob("*.pid"):
        for pid in path.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    for process in bench.started:
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo out; echo err >&2", 0, r"trial: ok, exit code 0, 0\.\d s"),
        ("exit 7", 7, r"trial: failed, exit code 7, 0\.\d s"),
        ("kill -9 $$", 137, r"trial: failed, exit code 137, 0\.\d s"),
        ("sleep 1.2; exit 2", 2, r"trial: failed, exit code 2, 1\.\d s"),
    ],
)
def test_the_exit_code_is_kept_and_the_last_line_says_it_with_the_seconds(bench: Bench, script: str, code: int, said: str) -> None:
    found, lines = bench.run(script)
    assert found == code
    assert re.fullmatch(said, lines[-1]), lines
    assert sorted(lines[:-1]) == (["err", "out"] if "out" in script else [])


def test_a_second_run_is_left_out_and_a_third_after_the_first_is_not(bench: Bench) -> None:
    bench.job("echo ran >> ran; until [ -e go ]; do sleep 0.05; done")
    first = bench.start()
    bench.wait_for("ran")
    code, lines = outcome(bench.start())
    assert code == _schedule_run.SKIPPED
    assert re.fullmatch(
        r"trial: skipped, exit code 75: the run before is not over \(process {0}, since \d{{4}}-\d\d-\d\dT[\d:]{{8}}\+00:00\)".format(first.pid), lines[-1]
    ), lines
    assert first.poll() is None and bench.wait_for("ran") == "ran"
    (bench.home / "go").touch()
    assert outcome(first)[0] == 0
    assert outcome(bench.start())[0] == 0
    assert bench.wait_for("ran").split() == ["ran", "ran"]


def test_jobs_of_two_kinds_run_at_once(bench: Bench) -> None:
    bench.job("echo ran > first; until [ -e go ]; do sleep 0.05; done")
    first = bench.start()
    bench.wait_for("first")
    assert bench.run("true", lock=str(bench.home / "other.lock"))[0] == 0
    (bench.home / "go").touch()
    assert outcome(first)[0] == 0


# A process that hears no SIGTERM, and others that left its session or its parent; each tells its number.
STUBBORN = """
trap '' TERM
echo $$ > shell.pid
setsid sh -c 'trap "" TERM; echo $$ > session.pid; while :; do sleep 1; done' &
(setsid sh -c 'echo $$ > orphan.pid; exec sleep {long}' &)
while :; do sleep 1; done
""".format(long=LONG)


def test_a_run_that_hangs_is_ended_in_time_with_all_that_it_started(bench: Bench) -> None:
    began = time.monotonic()
    code, lines = bench.run(STUBBORN, timeout=1.5, grace=1)
    seconds = time.monotonic() - began
    assert code == _schedule_run.TIMEOUT
    assert re.fullmatch(r"trial: timeout, exit code 124, [3-6]\.\d s: it had 1\.5 s, and was ended with all that it had started", lines[-1]), lines
    assert 3.5 <= seconds < 8
    pids = [path.read_text().strip() for path in bench.home.glob("*.pid")]
    assert len(pids) == 3 and not any(runs(pid) for pid in pids)
    assert bench.run("true")[0] == 0


def test_a_run_that_hears_sigterm_ends_in_good_order_and_its_grace_is_not_waited_out(bench: Bench) -> None:
    began = time.monotonic()
    code, lines = bench.run("trap 'echo tidied; exit 0' TERM; while :; do sleep 0.1; done", timeout=1, grace=60)
    assert code == _schedule_run.TIMEOUT and lines[0] == "tidied"
    assert time.monotonic() - began < 10


def test_what_a_run_leaves_behind_ends_with_it(bench: Bench) -> None:
    code, lines = bench.run("(setsid sh -c 'echo $$ > orphan.pid; exec sleep {0}' &); until [ -s orphan.pid ]; do sleep 0.05; done".format(LONG))
    assert code == 0 and lines[-1].startswith("trial: ok")
    assert not runs((bench.home / "orphan.pid").read_text().strip())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_in_good_order(bench: Bench, number: signal.Signals) -> None:
    bench.job("sleep {0} & echo $$ $! > both.pid; wait".format(LONG))
    process = bench.start()
    pids = bench.wait_for("both.pid").split()
    process.send_signal(number)
    code, lines = outcome(process)
    assert code == 128 + number
    assert re.fullmatch(r"trial: stopped, exit code {0}, \d\.\d s: {1} came".format(code, number.name), lines[-1]), lines
    assert not any(runs(pid) for pid in pids)


def test_when_the_program_is_killed_its_command_ends_and_until_then_holds_the_lock(bench: Bench) -> None:
    bench.job("trap 'echo heard > heard; until [ -e go ]; do sleep 0.05; done; exit' TERM; echo $$ > shell.pid; while :; do sleep 0.05; done")
    first = bench.start()
    pid = bench.wait_for("shell.pid")
    first.kill()
    bench.wait_for("heard")
    assert runs(pid)
    # Not through outcome(): the orphan keeps the pipe of the first open.
    second = bench.start()
    assert outcome(second)[0] == _schedule_run.SKIPPED
    (bench.home / "go").touch()
    until(lambda: not runs(pid))
    assert bench.run("true")[0] == 0


def test_signals_are_not_blocked_in_the_command(bench: Bench) -> None:
    code, lines = bench.run("grep SigBlk /proc/self/status")
    assert code == 0 and lines[0].split() == ["SigBlk:", "0" * 16]


# --- the job's file and its environment


def test_the_environment_file_is_read(bench: Bench) -> None:
    (bench.home / "env").write_text("# a comment\n; another\n\nONE=1\nTWO=\"two words\"\n THREE='x=y' \nFOUR=\nHOME=/nowhere\n")
    env = {"LANG": "", "HOME": "/somewhere", "KEPT": "kept"}
    code, lines = bench.run("echo $ONE,$TWO,$THREE,$FOUR,$HOME,$KEPT", environment_file=str(bench.home / "env"), env=env)
    assert (code, lines[0]) == (0, "1,two words,x=y,,/nowhere,kept")


def test_a_language_is_given_where_there_is_none(bench: Bench) -> None:
    bench.job("echo $LANG")
    bare = subprocess.run([sys.executable, "-I", PROGRAM, str(bench.file)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert bare.stdout.splitlines()[0] == "C.UTF-8"
    assert bench.run("echo $LANG", env={"LANG": "en_US.UTF-8"})[1][0] == "en_US.UTF-8"


@pytest.mark.parametrize("line", ["hunter2", "export ONE=hunter2", "1X=hunter2", "A-B=hunter2", "=hunter2"])
def test_a_bad_line_of_the_environment_file_is_named_but_not_shown(bench: Bench, line: str) -> None:
    (bench.home / "env").write_text("ONE=1\n{0}\n".format(line))
    code, lines = bench.run("echo ran", environment_file=str(bench.home / "env"))
    assert code == _schedule_run.MISCONFIGURED
    assert lines == ["trial: failed, exit code 78: Line 2 of the environment file {0} is not NAME=VALUE.".format(bench.home / "env")]


def broken(bench: Bench, **changed: Any) -> Any:
    code, (line,) = bench.run("echo ran", **changed)
    return code, line


def test_what_is_not_there_is_named(bench: Bench) -> None:
    code, line = broken(bench, environment_file="/nonexistent/env")
    assert code == _schedule_run.MISCONFIGURED and "/nonexistent/env cannot be read" in line
    code, line = broken(bench, lock="/nonexistent/lock")
    assert code == _schedule_run.MISCONFIGURED and "/nonexistent/lock cannot be opened" in line
    code, line = broken(bench, command=["/nonexistent/ansible-playbook"])
    assert code == _schedule_run.MISSING and "exit code 127: /nonexistent/ansible-playbook cannot be run" in line
    code, line = broken(bench, directory="/nonexistent/directory")
    assert code == _schedule_run.MISSING and "/nonexistent/directory" in line


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"name": "trial"}'])
def test_a_file_that_is_no_job_is_refused(bench: Bench, content: Any) -> None:
    if content is not None:
        bench.file.write_text(content)
    code, lines = outcome(bench.start())
    assert code == _schedule_run.MISCONFIGURED
    assert len(lines) == 1 and lines[0].startswith("trial: failed, exit code 78: {0} ".format(bench.file))


def test_a_lock_that_is_a_link_is_not_followed(bench: Bench) -> None:
    """The directory of the locks belongs to the jobs' user, and the program may be started by root."""
    (bench.home / "elsewhere").write_text("kept")
    (bench.home / "trial.lock").symlink_to(bench.home / "elsewhere")
    code, _line = broken(bench)
    assert code == _schedule_run.MISCONFIGURED
    assert (bench.home / "elsewhere").read_text() == "kept"


# --- where it is said


@pytest.fixture(name="syslog")
def fixture_syslog(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "log"))
        bound.settimeout(PATIENCE)
        yield bound


def received(syslog: socket.socket) -> List[str]:
    syslog.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(syslog.recv(65536).decode())
    return found


def test_the_syslog_gets_every_line_with_the_jobs_name_and_the_last_with_its_priority(bench: Bench, syslog: socket.socket) -> None:
    code, lines = bench.run("echo out; echo err >&2; printf 'no end'; exit 3", "--syslog", str(syslog.getsockname()))
    assert (code, lines) == (3, [])
    pid = bench.started[-1].pid
    tag = "postgres-pools-trial[{0}]: ".format(pid)
    *output, last = received(syslog)
    assert output == ["<30>" + tag + text for text in ("out", "err", "no end")]
    assert re.fullmatch(re.escape("<27>" + tag) + r"trial: failed, exit code 3, \d\.\d s", last)


def test_a_line_longer_than_a_datagram_comes_in_pieces(bench: Bench, syslog: socket.socket) -> None:
    text = "".join("{0:07d}".format(number) for number in range(2000))
    (bench.home / "long").write_text(text)
    code, _lines = bench.run("cat long", "--syslog", str(syslog.getsockname()))
    assert code == 0
    pieces = [message.split("]: ", 1)[1] for message in received(syslog)[:-1]]
    assert "".join(pieces) == text and len(pieces) == 4


def test_without_a_syslog_it_is_said_on_standard_output_for_cron_to_mail(bench: Bench) -> None:
    code, lines = bench.run("echo out", "--syslog", str(bench.home / "nowhere"))
    assert code == 0
    assert "does not answer" in lines[0] and lines[1] == "out" and lines[2].startswith("trial: ok")


@pytest.mark.parametrize(("script", "priority"), [("true", 6), ("false", 3)])
def test_the_journal_gets_a_priority(bench: Bench, script: str, priority: int) -> None:
    _code, lines = bench.run(script, env={"JOURNAL_STREAM": "8:1"})
    assert lines[-1].startswith("<{0}>trial: ".format(priority))


def test_the_command_is_started_without_a_shell(bench: Bench) -> None:
    told: Dict[str, Any] = {"command": ["/bin/echo", "$HOME; %s", shlex.quote("a b")]}
    code, lines = bench.run("", **told)
    assert (code, lines[0]) == (0, "$HOME; %s 'a b'")

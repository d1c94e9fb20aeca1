# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook schedules.yml and the role schedule, with the directories of a host in the scratch environment.

systemd itself does not run here, so timers are not started: its own programs say whether it would take what is written.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _calendar
from environment import ROOT, Environment, children, environment
from role_fixture import Call, refused, role, run, unchanged

NAMES = ("health", "capacity", "cleanup", "audit")
TRIAL = {"name": "trial", "playbook": "saasodoo.postgres_pools.pools", "calendar": "*:0/5", "timeout": 60}
NEEDS_SYSTEMD = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="NOT TESTED: what systemd makes of the units; systemd-analyze (Debian: systemd) is not here"
)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        for name in ("units", "cron", "lib", "etc", "var"):
            (made.state / "host" / name).mkdir(parents=True)
        yield made.ready()


@pytest.fixture(autouse=True)
def _empty_host(scratch: Environment) -> Iterator[None]:
    yield
    for place in host(scratch).iterdir():
        shutil.rmtree(str(place))
        place.mkdir()


def host(scratch: Environment) -> Path:
    return scratch.state / "host"


def options(scratch: Environment, **changed: Any) -> Dict[str, Any]:
    """Of the role, but for its name before each."""
    at = host(scratch)
    given = {
        "kind": "systemd",
        "start": False,
        "directory": str(ROOT),
        "user": "root" if os.geteuid() == 0 else "",
        "unit_directory": str(at / "units"),
        "cron_directory": str(at / "cron"),
        "config_directory": str(at / "etc" / "jobs"),
        "program_directory": str(at / "lib" / "program"),
        "state_directory": str(at / "var" / "state"),
    }
    return {key: value for key, value in dict(given, **changed).items() if value is not None}


def variables(scratch: Environment, **changed: Any) -> Dict[str, Any]:
    """Of the playbook."""
    return {"ansible_become": False, **{"schedule_" + key: value for key, value in options(scratch, **changed).items()}}


def there(scratch: Environment) -> List[str]:
    at = host(scratch)
    return sorted(str(path.relative_to(at)) for path in at.rglob("*") if path.is_symlink() or not path.is_dir())


def units(*names: str) -> List[str]:
    return sorted(
        path.format(name)
        for name in names
        for path in ("units/postgres-pools-{0}.service", "units/postgres-pools-{0}.timer", "units/timers.target.wants/postgres-pools-{0}.timer")
    )


def files(*names: str) -> List[str]:
    return sorted(["lib/program/run_job.py", *("etc/jobs/{0}.json".format(name) for name in names)])


# --- what is there after a run


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_the_four_jobs_are_installed_once_and_removed_without_a_trace(scratch: Environment, kind: str, tmp_path: Path) -> None:
    empty = scratch.dump()
    result = tmp_path / "result.json"
    wanted = dict(variables(scratch, kind=kind), result_file=str(result))
    before = scratch.play("schedules", wanted, "--check", "--diff").succeeded()
    assert before.changed == 1 and {"systemd": "OnCalendar=*:0/5", "cron": "*/5 * * * *"}[kind] in before.output
    unchanged(scratch, empty)

    outcome = scratch.play("schedules", wanted).succeeded()
    assert outcome.changed == 2  # and the result file
    assert there(scratch) == sorted(files(*NAMES) + (units(*NAMES) if kind == "systemd" else ["cron/postgres-pools"]))
    assert outcome.stats["status"] == "scheduled" and outcome.stats["kind"] == kind
    times = {"systemd": ["*:0/5", "hourly", "*-*-* 02:00:00", "*-*-* 02:00:00"], "cron": ["*/5 * * * *", "0 * * * *", "0 2 * * *", "0 2 * * *"]}
    assert [(job["name"], job["when"]) for job in outcome.stats["jobs"]] == list(zip(NAMES, times[kind]))
    assert json.loads(result.read_text()) == outcome.stats and result.stat().st_mode & 0o777 == 0o600

    installed = scratch.dump()
    for flags in ((), ("--check", "--diff")):
        assert scratch.play("schedules", wanted, *flags).succeeded().changed == 0
        unchanged(scratch, installed)

    gone = {key: value for key, value in wanted.items() if key != "result_file"}
    gone["schedule_state"] = "absent"
    assert scratch.play("schedules", gone, "--check").succeeded().changed == 1
    unchanged(scratch, installed)
    outcome = scratch.play("schedules", gone).succeeded()
    assert outcome.changed == 1 and outcome.stats["status"] == "removed"
    unchanged(scratch, empty)
    assert scratch.play("schedules", gone).succeeded().changed == 0


def test_a_job_off_the_list_and_the_other_kind_leave_nothing_and_others_files_stay(scratch: Environment) -> None:
    at = host(scratch)
    others = ["cron/other", "etc/jobs/own.json", "units/postgres-pools-own.service", "units/postgres-pools-own.timer"]
    (at / "etc" / "jobs").mkdir()
    for name in others:
        (at / name).write_text("somebody else's\n")
    two = [TRIAL, dict(TRIAL, name="second")]

    def installed(*tasks: Any) -> List[str]:
        for task in tasks:
            outcome = run(scratch, [task]).succeeded()
            assert outcome.changed == 1, outcome.output
        return sorted(set(there(scratch)) - set(others))

    assert installed(role("schedule", **options(scratch, jobs=two))) == sorted(files("trial", "second") + units("trial", "second"))
    assert installed(role("schedule", **options(scratch, jobs=two[:1]))) == sorted(files("trial") + units("trial"))
    assert installed(role("schedule", **options(scratch, jobs=[], more_jobs=two[1:]))) == sorted(files("second") + units("second"))
    assert installed(role("schedule", **options(scratch, jobs=two, kind="cron"))) == sorted([*files("trial", "second"), "cron/postgres-pools"])
    assert installed(role("schedule", **options(scratch, jobs=two))) == sorted(files("trial", "second") + units("trial", "second"))
    assert installed(role("schedule", **options(scratch, state="absent"))) == []
    assert there(scratch) == sorted(others)
    assert all((at / name).read_text() == "somebody else's\n" for name in others)


def test_what_an_interrupted_run_left_is_taken_up(scratch: Environment) -> None:
    wanted = role("schedule", **options(scratch, jobs=[TRIAL]))
    run(scratch, [wanted]).succeeded()
    whole = scratch.dump()
    at = host(scratch)
    (at / "units" / "postgres-pools-trial.timer").unlink()
    (at / "units" / ".postgres-pools-trial.timer.new").write_text("half of i")
    shutil.rmtree(str(at / "var" / "state"))
    assert run(scratch, [wanted]).succeeded().changed == 1
    unchanged(scratch, whole)


def test_everybody_may_read_what_systemd_and_cron_read_and_only_the_user_the_locks(scratch: Environment) -> None:
    run(scratch, [role("schedule", **options(scratch, jobs=[TRIAL]))]).succeeded()
    at = host(scratch)
    modes = {name: (at / name).stat().st_mode & 0o777 for name in [*there(scratch), "etc/jobs", "lib/program", "var/state"]}
    assert {mode for name, mode in modes.items() if name.endswith((".json", ".py", ".service", ".timer"))} == {0o644}
    assert (modes["etc/jobs"], modes["lib/program"], modes["var/state"]) == (0o755, 0o755, 0o700)


# --- what is refused


def test_what_cannot_be_is_refused_and_nothing_is_written(scratch: Environment) -> None:
    def one(*says: str, job: Any = None, **changed: Any) -> Call:
        return Call("schedule", options(scratch, jobs=[dict(TRIAL, **(job or {}))], **changed), says)

    calls = {
        "a kind of init there is not": one("schedule_kind must be one of: auto, systemd, cron", kind="upstart"),
        "a state of letters": one("schedule_state must be one of: present, absent", state="gone"),
        "a job without a playbook": Call("schedule", options(scratch, jobs=[{"name": "trial"}]), ("playbook",)),
        "a job that is none": Call("schedule", options(scratch, jobs=["health"]), ("schedule_jobs",)),
        "a name with a path": one(r"Job 1 \(\.\./x\)", "is no name for a job", job={"name": "../x"}),
        "a name twice": Call("schedule", options(scratch, jobs=[TRIAL, TRIAL]), (r"Job 2 \(trial\): there is a job of this name",)),
        "no time": one("does not say when to run", job={"calendar": ""}),
        "another unit's lines in a time": one("is no time", job={"calendar": "daily\nUnit=other"}),
        "a time of neither": one("is no time for cron", "61", kind="cron", job={"calendar": "", "cron": "61 * * * *"}),
        "a bad cron beside a good calendar": one("is no time for cron", job={"cron": "* * *"}),
        "a calendar that cron cannot say": one("cannot be put into cron's five fields", kind="cron", job={"calendar": "*:*:30"}),
        "no time to run": one("a timeout of 0 s ends every run", job={"timeout": 0}),
        "an option for a playbook": one("'--list-hosts' is no playbook", job={"playbook": "--list-hosts"}),
        "a playbook that is not there": one("the playbook playbooks/none.yml of the job trial", job={"playbook": "playbooks/none.yml"}),
        "a directory that is not there": one("The directory /nonexistent/pools is not there", directory="/nonexistent/pools"),
        "an inventory that is not there": one("the inventory /nonexistent/hosts", inventory=["/nonexistent/hosts"]),
        "an Ansible that is not there": one("/nonexistent/ansible-playbook", ansible_playbook="/nonexistent/ansible-playbook"),
        "an environment that is not there": one("the environment file '/nonexistent/env'", environment_file="/nonexistent/env"),
        "a user that is not there": one("There is no user 'nobody-of-that-name'", user="nobody-of-that-name"),
        "units nowhere": one("The directory /nonexistent/units is not there", unit_directory="/nonexistent/units"),
        "crontabs nowhere": one("The directory /nonexistent/cron.d is not there", kind="cron", cron_directory="/nonexistent/cron.d"),
        "a path with a space": one("cannot stand in a unit or a crontab", config_directory=str(host(scratch) / "a b")),
    }
    if shutil.which("systemd-analyze"):
        calls["a time that systemd does not know"] = one("systemd refuses a calendar expression", "'nightly'", job={"calendar": "nightly"})
    if not os.path.isdir("/run/systemd/system"):
        calls["a systemd that does not run"] = one("systemd does not run here", "kind cron", start=True)
    refused(scratch, calls)


@pytest.mark.parametrize("name", ["units/postgres-pools-trial.service", "units/timers.target.wants/postgres-pools-trial.timer"])
def test_somebody_elses_file_in_the_way_is_not_written_over(scratch: Environment, name: str) -> None:
    path = host(scratch) / name
    path.parent.mkdir(exist_ok=True)
    # As `systemctl mask` leaves a unit.
    path.symlink_to("/dev/null")
    refused(scratch, {"a file in the way": Call("schedule", options(scratch, jobs=[TRIAL]), (re.escape(str(path)), "was not made by the schedule"))})


def test_a_job_that_runs_is_not_removed_from_under_itself(scratch: Environment, tmp_path: Path) -> None:
    run(scratch, [role("schedule", **options(scratch, jobs=[TRIAL]))]).succeeded()
    job = shown(scratch, "trial")
    go, began = tmp_path / "go", tmp_path / "began"
    script = "touch {0}; until [ -e {1} ]; do sleep 0.05; done".format(began, go)
    own = tmp_path / "trial.json"
    own.write_text(json.dumps(dict(job, command=["/bin/sh", "-c", script])))
    with subprocess.Popen([sys.executable, str(host(scratch) / "lib/program/run_job.py"), str(own)], stdout=subprocess.DEVNULL) as process:
        try:
            until(began.exists)
            says = (r"The job trial is running \(process {0}, since ".format(process.pid),)
            refused(
                scratch,
                {
                    "to remove all": Call("schedule", options(scratch, state="absent"), says),
                    "to remove the job": Call("schedule", options(scratch, jobs=[dict(TRIAL, name="other")]), says),
                },
            )
            # A changed time is no removal.
            run(scratch, [role("schedule", **options(scratch, jobs=[dict(TRIAL, calendar="hourly")]))]).succeeded()
        finally:
            go.touch()
        assert process.wait(20) == 0
    run(scratch, [role("schedule", **options(scratch, state="absent"))]).succeeded()
    assert there(scratch) == []


# --- a job that really runs


def shown(scratch: Environment, name: str) -> Dict[str, Any]:
    return dict(json.loads((host(scratch) / "etc" / "jobs" / (name + ".json")).read_text()))


def start(scratch: Environment, name: str, log: Path) -> subprocess.Popen[bytes]:
    """As the timer or cron would: from /, with next to nothing in the environment."""
    at = host(scratch)
    with open(str(log), "wb") as stream:
        return subprocess.Popen(
            [sys.executable, str(at / "lib/program/run_job.py"), str(at / "etc" / "jobs" / (name + ".json"))],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": str(scratch.temp)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within {0} s".format(seconds)
        time.sleep(0.05)


def test_a_job_runs_its_playbook_with_the_environment_file_and_its_variables(scratch: Environment, tmp_path: Path) -> None:
    names = ("POSTGRES_POOLS_STATE", "POSTGRES_POOLS_PORT_BASE", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP")
    env = tmp_path / "env"
    env.write_text("".join("{0}={1}\n".format(name, scratch.base[name]) for name in names))
    result = tmp_path / "pools.json"
    job = dict(TRIAL, extra_vars={"result_file": str(result)})
    run(scratch, [role("schedule", **options(scratch, jobs=[job], environment_file=str(env)))]).succeeded()
    assert scratch.base["POSTGRES_POOLS_STATE"] not in json.dumps(shown(scratch, "trial")["command"])

    log = tmp_path / "log"
    assert start(scratch, "trial", log).wait(120) == 0, log.read_text()
    assert re.search(r"^trial: ok, exit code 0, \d+\.\d s$", log.read_text(), re.M), log.read_text()
    assert json.loads(result.read_text())["totals"]["pools"] == 0


HANGING = """
- name: A play that hangs
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Hang in a module, in a session of its worker's own
      ansible.builtin.command: {{argv: [sh, -c, "trap '' TERM; echo $$ > {pid}; while :; do sleep 1; done"]}}
      changed_when: false
"""


def test_a_playbook_that_hangs_is_ended_with_its_workers_and_modules(scratch: Environment, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    playbook = tmp_path / "hanging.yml"
    playbook.write_text(HANGING.format(pid=pid_file))
    job = dict(TRIAL, playbook=str(playbook), timeout=25)
    inventory = {"inventory": ["localhost,"], "grace": 2}
    run(scratch, [role("schedule", **options(scratch, jobs=[job], **inventory))]).succeeded()
    log = tmp_path / "log"
    process = start(scratch, "trial", log)
    try:
        until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), 25)
        tree = [process.pid]
        for member in tree:
            tree.extend(children(member))
        hanging = int(pid_file.read_text())
        assert hanging in tree and len(tree) >= 4
        assert process.wait(60) == 124, log.read_text()
    finally:
        process.terminate()
        process.wait(40)
    assert re.search(r"^trial: timeout, exit code 124, (2[5-9]|3\d)\.\d s: it had 25 s", log.read_text(), re.M), log.read_text()
    assert not [member for member in tree if os.path.exists("/proc/{0}".format(member))]


# --- what systemd makes of it


@NEEDS_SYSTEMD
def test_systemd_takes_the_units_without_a_word(scratch: Environment) -> None:
    run(scratch, [role("schedule", **options(scratch))]).succeeded()
    made = sorted(str(path) for path in (host(scratch) / "units").glob("*.*") if path.is_file())
    assert len(made) == 2 * len(NAMES)
    assert verified(made) == (0, "")
    # A word of ours that systemd does not know would be seen.
    path = Path(made[0])
    path.write_text(path.read_text().replace("KillMode=mixed", "KilMode=mixed"))
    assert "KilMode" in verified(made)[1]


def verified(made: List[str]) -> Any:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *made], capture_output=True, text=True, timeout=60, check=False)
    # Others' units on this machine are none of ours.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "postgres-pools-" in line]
    return (0 if not ours else done.returncode), "\n".join(ours)


EXPRESSIONS = [
    "*:0/5", "*:2/5", "hourly", "*-*-* 02:00:00", "00/6:30", "08..18/2:15", "Mon..Fri 08:00", "Sat..Sun 23:59", "*-02-28,01 03:05", "weekly", "monthly",
]  # fmt: skip
# A leap year's February, with every day of the week.
FIRST = datetime.datetime(2028, 2, 26)
MINUTES = 5 * 24 * 60


@NEEDS_SYSTEMD
@pytest.mark.parametrize("calendar", EXPRESSIONS)
def test_cron_would_start_a_job_at_the_same_minutes_as_systemd(calendar: str) -> None:
    end = FIRST + datetime.timedelta(minutes=MINUTES)
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=2000", "--base-time=2028-02-25 23:59:59", calendar],
        env=dict(os.environ, TZ="UTC", LC_ALL="C"), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told = [datetime.datetime.strptime(one, "%Y-%m-%d %H:%M:%S") for one in re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout)]
    by_systemd = {moment for moment in told if FIRST <= moment < end}
    fields = [set_of(field, text) for field, text in zip(_calendar.FIELDS, _calendar.cron_from(calendar).split())]
    by_cron = {moment for moment in (FIRST + datetime.timedelta(minutes=number) for number in range(MINUTES)) if fires(fields, moment)}
    assert by_cron == by_systemd and by_cron


def set_of(field: _calendar.Field, text: str) -> Set[int]:
    found: Set[int] = set()
    for entry in text.split(","):
        span, _slash, step = entry.partition("/")
        first, _dash, last = span.partition("-")
        low = field.low if first == "*" else int(first)
        high = field.high if first == "*" else int(last or first)
        found.update(range(low, high + 1, int(step or 1)))
    return found


def fires(fields: List[Set[int]], moment: datetime.datetime) -> bool:
    minute, hour, day, month, weekday = fields
    # None of the expressions above limits both kinds of day, for which cron has a rule of its own.
    return (
        moment.minute in minute and moment.hour in hour and moment.day in day and moment.month in month
        and bool({moment.isoweekday() % 7, moment.isoweekday()} & weekday)
    )  # fmt: skip


# --- what cron makes of it

CRON = """
set -e
# Everything from here on is seen by this process and what it starts only.
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/spool
mkdir -p /var/spool/cron/crontabs
mount --bind "$2" /etc/cron.d
exec "$1" -f -L 0
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("apt-get"), reason="NOT TESTED: that a real cron starts the jobs; it needs root and Debian's packages"
)
def test_a_real_cron_starts_the_job_and_the_syslog_has_what_it_said(scratch: Environment, tmp_path: Path) -> None:
    """Debian's cron, unpacked and not installed, with a directory of crontabs that only it sees."""
    cron = unpacked_cron(tmp_path)
    # Its crontab refers to the program and the job by their paths, which cron sees as they are.
    job = dict(TRIAL, playbook=str(written_play(tmp_path)), calendar="*:*")
    given = options(scratch, kind="cron", jobs=[job], inventory=["localhost,"])
    run(scratch, [role("schedule", **given)]).succeeded()
    crontab = host(scratch) / "cron" / "postgres-pools"
    log = tmp_path / "syslog"
    # A job of cron's finds its syslog at /dev/log, which this machine's may own: here it is a socket of the test's.
    crontab.write_text(crontab.read_text().replace("--syslog /dev/log", "--syslog {0}".format(log)))
    crontab.chmod(0o644)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(log))
        syslog.settimeout(90)
        with open(str(tmp_path / "cron.log"), "wb") as stream:
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", CRON, "sh", str(cron), str(host(scratch) / "cron")],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            lines = [syslog.recv(65536).decode()]
            while "trial: " not in lines[-1]:
                lines.append(syslog.recv(65536).decode())
        except socket.timeout:
            raise AssertionError("cron started nothing:\n" + (tmp_path / "cron.log").read_text()) from None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert all(re.match(r"<\d+>postgres-pools-trial\[\d+\]: ", line) for line in lines)
    assert any("said by the play" in line for line in lines)
    assert re.search(r"trial: ok, exit code 0, \d+\.\d s$", lines[-1]), lines


def written_play(folder: Path) -> Path:
    path = folder / "trial.yml"
    say = {"name": "Say", "ansible.builtin.debug": {"msg": "said by the play"}}
    path.write_text(json.dumps([{"name": "A trial", "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [say]}]))
    return path


def unpacked_cron(folder: Path) -> Path:
    packages = folder / "packages"
    packages.mkdir()
    # Readable for the unprivileged user that apt downloads as.
    done = subprocess.run(["apt-get", "download", "cron"], cwd=str(packages), capture_output=True, text=True, timeout=120, check=False)
    found = list(packages.glob("cron_*.deb"))
    if not found:
        pytest.skip("NOT TESTED: that a real cron starts the jobs; its package cannot be fetched: " + done.stderr.strip()[-200:])
    subprocess.run(["dpkg", "-x", str(found[0]), str(folder / "cron")], check=True, timeout=60)
    return folder / "cron" / "usr" / "sbin" / "cron"

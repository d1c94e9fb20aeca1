# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled jobs as they were asked for, and the files that make a host run them. Pure: nothing here looks at the host."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._calendar import LETTERS, check_cron, cron_from
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

# What every file of ours says of itself; only such files are ever changed or removed.
MARK = "Made by saasodoo.postgres_pools.schedule"
PREFIX = "postgres-pools"
PROGRAM = "run_job.py"
WANTS = "timers.target.wants"
# The program's codes for "the run before is not over".
SKIPPED = 75
# What systemd waits beyond the program's own limits before it steps in.
MARGIN = 30
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_FULL_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*){2,}")
# Paths that stand in units and in a crontab: nothing that either would read as more than itself.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+,@:=-]*")

SERVICE = """\
# {mark}. Changes are overwritten: `systemctl edit {unit}.service` is for your own.
[Unit]
Description=PostgreSQL pools: {name}
Documentation=https://github.com/saasodoo/postgres_pools/blob/main/docs/schedules.md
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=oneshot
User={user}
SyslogIdentifier={unit}
ExecStart={python} {program} {job_file}
# The run before is not over: no failure.
SuccessExitStatus={skipped}
# The program ends a run that hangs; should it hang itself, systemd ends both.
TimeoutStartSec={start_limit:g}
TimeoutStopSec={stop_limit:g}
KillMode=mixed
UMask=0077
NoNewPrivileges=true
LockPersonality=true
PrivateTmp=true
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectSystem=full
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
"""

TIMER = """\
# {mark}. Changes are overwritten: `systemctl edit {unit}.timer` is for your own.
[Unit]
Description=PostgreSQL pools: when {name} runs

[Timer]
OnCalendar={calendar}
# After the machine was off, what was missed is made up for, once.
Persistent=true
RandomizedDelaySec={delay:g}
AccuracySec=1s

[Install]
WantedBy=timers.target
"""

CRONTAB = """\
# {mark}. Changes are overwritten.
SHELL=/bin/sh
PATH={search_path}
"""


class Job(NamedTuple):
    name: str
    playbook: str
    # When: an expression of systemd, or cron's fields, as the kind has it.
    when: str
    timeout: float
    extra_vars: Dict[str, Any]

    @property
    def unit(self) -> str:
        return "{0}-{1}".format(PREFIX, self.name)


class Directories(NamedTuple):
    """Where on the host the files are."""

    unit: str
    cron: str
    config: str
    program: str
    state: str

    @property
    def wants(self) -> str:
        return os.path.join(self.unit, WANTS)

    @property
    def crontab(self) -> str:
        return os.path.join(self.cron, PREFIX)

    @property
    def run_job(self) -> str:
        return os.path.join(self.program, PROGRAM)

    def job_file(self, name: str) -> str:
        return os.path.join(self.config, name + ".json")

    def lock(self, name: str) -> str:
        return os.path.join(self.state, name + ".lock")


class Settings(NamedTuple):
    """What all jobs of a host have in common."""

    directory: str
    ansible_playbook: str
    inventory: List[str]
    user: str
    python: str
    environment_file: str
    grace: float
    delay: float


class Entry(NamedTuple):
    """A file with its content, or a link to a target."""

    content: str = ""
    target: str = ""


def jobs_from(entries: Sequence[Mapping[str, Any]], kind: str) -> List[Job]:
    """The jobs, or everything that is wrong with them at once."""
    jobs: List[Job] = []
    problems: List[str] = []
    for number, entry in enumerate(entries, start=1):
        try:
            job = _job(entry, kind)
            if job.name in [other.name for other in jobs]:
                raise PoolsError("there is a job of this name already.")
            jobs.append(job)
        except PoolsError as error:
            problems.append("Job {0} ({1}): {2}".format(number, entry["name"], error))
    if problems:
        raise PoolsError(" ".join(problems))
    return jobs


def _job(entry: Mapping[str, Any], kind: str) -> Job:
    name, playbook = entry["name"], entry["playbook"]
    calendar, cron = entry.get("calendar") or "", entry.get("cron") or ""
    if not _NAME.fullmatch(name):
        raise PoolsError("{0!r} is no name for a job.".format(name), "Use a lower case letter, then up to 39 of a-z, 0-9, '_' and '-'.")
    if not is_file(playbook) and not _FULL_NAME.fullmatch(playbook):
        raise PoolsError("{0!r} is no playbook.".format(playbook), "Give a file that ends in .yml or .yaml, or a name as saasodoo.postgres_pools.health.")
    if entry["timeout"] <= 0:
        raise PoolsError("a timeout of {0} s ends every run.".format(entry["timeout"]), "Give it more than 0.")
    for expression in filter(None, (calendar, cron)):
        if not LETTERS.fullmatch(expression):
            raise PoolsError("{0!r} is no time.".format(expression), "It has letters that neither systemd nor cron knows.")
    # Told also where it is not used, so that it is not found wrong on the day the kind changes.
    cron = check_cron(cron) if cron else ""
    if kind == "systemd":
        if not calendar:
            raise PoolsError("it does not say when to run.", "Give calendar, an OnCalendar expression of systemd such as '*:0/5'.")
        when = calendar
    elif cron or calendar:
        when = cron or cron_from(calendar)
    else:
        raise PoolsError("it does not say when to run.", "Give cron or calendar.")
    return Job(name, playbook, when, float(entry["timeout"]), dict(entry.get("extra_vars") or {}))


def is_file(playbook: str) -> bool:
    return playbook.endswith((".yml", ".yaml")) and not playbook.startswith("-")


def check_paths(directories: Directories, python: str) -> None:
    for path in [*directories, python]:
        if not _PLAIN_PATH.fullmatch(path):
            raise PoolsError(
                "{0!r} cannot stand in a unit or a crontab.".format(path),
                "Give an absolute path of letters, digits and _ . / + , @ : = -",
            )


def entries(kind: str, jobs: Sequence[Job], settings: Settings, directories: Directories, program: str) -> Dict[str, Entry]:
    """Everything that is to be on the host, by path, in the order in which it is put there: what uses a file comes after it."""
    wanted = {directories.run_job: Entry("# {0}. Changes are overwritten.\n{1}".format(MARK, program))}
    for job in jobs:
        wanted[directories.job_file(job.name)] = Entry(_job_file(job, settings, directories))
    if kind == "cron":
        wanted[directories.crontab] = Entry(_crontab(jobs, settings, directories))
        return wanted
    for job in jobs:
        service, timer = (os.path.join(directories.unit, job.unit + suffix) for suffix in (".service", ".timer"))
        wanted[service] = Entry(_service(job, settings, directories))
        wanted[timer] = Entry(TIMER.format(mark=MARK, unit=job.unit, name=job.name, calendar=job.when, delay=settings.delay))
        # As `systemctl enable` does, which needs a systemd to talk to.
        wanted[os.path.join(directories.wants, job.unit + ".timer")] = Entry(target=timer)
    return wanted


def _job_file(job: Job, settings: Settings, directories: Directories) -> str:
    command = [settings.ansible_playbook, job.playbook]
    for source in settings.inventory:
        command += ["-i", source]
    if job.extra_vars:
        command += ["-e", json.dumps(job.extra_vars, sort_keys=True)]
    told = {
        "made_by": MARK,
        "name": job.name,
        "command": command,
        "directory": settings.directory,
        "environment_file": settings.environment_file,
        "lock": directories.lock(job.name),
        "timeout": job.timeout,
        "grace": settings.grace,
    }
    return json.dumps(told, indent=2) + "\n"


def _service(job: Job, settings: Settings, directories: Directories) -> str:
    return SERVICE.format(
        mark=MARK,
        unit=job.unit,
        name=job.name,
        user=settings.user,
        python=settings.python,
        program=directories.run_job,
        job_file=directories.job_file(job.name),
        skipped=SKIPPED,
        start_limit=job.timeout + settings.grace + MARGIN,
        stop_limit=settings.grace + MARGIN,
    )


def _crontab(jobs: Sequence[Job], settings: Settings, directories: Directories) -> str:
    text = CRONTAB.format(mark=MARK, search_path=SEARCH_PATH)
    for job in jobs:
        command = [settings.python, directories.run_job, "--syslog", "/dev/log", directories.job_file(job.name)]
        text += "{0} {1} {2}\n".format(job.when, settings.user, " ".join(command))
    return text

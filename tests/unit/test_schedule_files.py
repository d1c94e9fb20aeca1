# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled jobs from their description to the text of their files."""

from __future__ import annotations

import json
from typing import Any, Dict

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _schedule, _schedule_run
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

DIRECTORIES = _schedule.Directories("/units", "/cron", "/config", "/program", "/state")
SETTINGS = _schedule.Settings(
    "/srv/pools", "/opt/venv/bin/ansible-playbook", ["inventories/mine", "one,two"], "deploy", "/usr/bin/python3", "/etc/pools.env", 20, 10
)


def entry(**changed: Any) -> Dict[str, Any]:
    return dict({"name": "health", "playbook": "saasodoo.postgres_pools.health", "calendar": "*:0/5", "timeout": 240}, **changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "Health"}, "'Health' is no name for a job"),
        ({"name": "../health"}, "'../health' is no name for a job"),
        ({"name": "a" * 41}, "is no name for a job"),
        ({"name": "a\nb"}, "is no name for a job"),
        ({"playbook": "--version"}, "'--version' is no playbook"),
        ({"playbook": "--syntax.yml"}, "'--syntax.yml' is no playbook"),
        ({"playbook": "health"}, "'health' is no playbook"),
        ({"timeout": 0}, "ends every run"),
        ({"timeout": -5}, "ends every run"),
        ({"calendar": ""}, "does not say when to run"),
        ({"calendar": None}, "does not say when to run"),
        ({"calendar": "daily\nExecStart=/bin/sh"}, "is no time"),
        ({"calendar": "daily%i"}, "is no time"),
        ({"cron": "*/5 * * * * root rm"}, "it has 7 fields"),
        ({"cron": "* * * * *\n* * * * *"}, "is no time"),
    ],
)
def test_a_job_that_cannot_be_is_refused(changed: Dict[str, Any], says: str) -> None:
    with pytest.raises(PoolsError) as refused:
        _schedule.jobs_from([entry(**changed)], "systemd")
    assert "Job 1 (" in str(refused.value) and says in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(PoolsError) as refused:
        _schedule.jobs_from([entry(), entry(), entry(name="x", timeout=0)], "systemd")
    assert "Job 2 (health): there is a job of this name already." in str(refused.value)
    assert "Job 3 (x): a timeout of 0 s" in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "changed", "when"),
    [
        ("systemd", {}, "*:0/5"),
        ("systemd", {"cron": "1 * * * *"}, "*:0/5"),
        ("cron", {}, "*/5 * * * *"),
        ("cron", {"cron": "1  * * * *"}, "1 * * * *"),
        ("cron", {"cron": "1 * * * *", "calendar": None}, "1 * * * *"),
    ],
)
def test_each_kind_has_its_own_way_to_say_when(kind: str, changed: Dict[str, Any], when: str) -> None:
    assert [job.when for job in _schedule.jobs_from([entry(**changed)], kind)] == [when]


def test_what_only_systemd_can_say_is_refused_for_cron() -> None:
    assert _schedule.jobs_from([entry(calendar="*:*:30")], "systemd")
    with pytest.raises(PoolsError, match="cannot be put into cron's five fields"):
        _schedule.jobs_from([entry(calendar="*:*:30")], "cron")


@pytest.mark.parametrize("path", ["relative", "/with space", "/a%b", "/a;b", "/a\nb", "/$HOME", ""])
def test_a_path_that_a_unit_or_a_crontab_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(PoolsError, match="cannot stand in a unit or a crontab"):
        _schedule.check_paths(DIRECTORIES._replace(config=path), "/usr/bin/python3")
    with pytest.raises(PoolsError, match="cannot stand in a unit or a crontab"):
        _schedule.check_paths(DIRECTORIES, path)


def wanted(kind: str, *changes: Dict[str, Any]) -> Dict[str, _schedule.Entry]:
    jobs = _schedule.jobs_from([entry(**changed) for changed in changes], kind)
    return _schedule.entries(kind, jobs, SETTINGS, DIRECTORIES, "the program")


def test_a_job_has_its_files_and_each_file_bears_the_mark() -> None:
    files = wanted("systemd", {}, {"name": "audit"})
    expected = ["/program/run_job.py", "/config/health.json", "/config/audit.json"]
    for name in ("health", "audit"):
        timer = "postgres-pools-{0}.timer".format(name)
        expected += ["/units/postgres-pools-{0}.service".format(name), "/units/" + timer, "/units/timers.target.wants/" + timer]
    assert list(files) == expected
    assert all(_schedule.MARK in file.content for file in files.values() if not file.target)
    assert files["/units/timers.target.wants/postgres-pools-audit.timer"].target == "/units/postgres-pools-audit.timer"


def test_one_crontab_is_for_all_jobs() -> None:
    files = wanted("cron", {}, {"name": "audit", "calendar": "02:00"})
    assert list(files) == ["/program/run_job.py", "/config/health.json", "/config/audit.json", "/cron/postgres-pools"]
    assert [line for line in files["/cron/postgres-pools"].content.splitlines() if line[:1] in "*0123456789"] == [
        "*/5 * * * * deploy /usr/bin/python3 /program/run_job.py --syslog /dev/log /config/health.json",
        "0 2 * * * deploy /usr/bin/python3 /program/run_job.py --syslog /dev/log /config/audit.json",
    ]


def test_a_job_file_is_what_the_program_reads() -> None:
    """With variables that neither a unit nor a shell must get to see."""
    extra = {"report_dir": "/srv/a b", "text": "100% $HOME \"'\n"}
    told = json.loads(wanted("cron", {"extra_vars": extra})["/config/health.json"].content)
    job = _schedule_run.Job(**{field: told[field] for field in _schedule_run.Job._fields})
    assert job.command[:6] == [SETTINGS.ansible_playbook, "saasodoo.postgres_pools.health", "-i", "inventories/mine", "-i", "one,two"]
    assert job.command[6] == "-e" and json.loads(job.command[7]) == extra and len(job.command) == 8
    assert job[2:] == ("/srv/pools", "/etc/pools.env", "/state/health.lock", 240, 20)


def test_systemd_steps_in_only_after_the_program_should_have() -> None:
    service = wanted("systemd", {"timeout": 100})["/units/postgres-pools-health.service"].content
    limits = dict(line.split("=", 1) for line in service.splitlines() if line.startswith("Timeout"))
    after = SETTINGS.grace + _schedule_run.LEFTOVERS_SECONDS + _schedule_run.KILL_SECONDS
    assert float(limits["TimeoutStartSec"]) > 100 + after
    assert float(limits["TimeoutStopSec"]) > after


def test_the_two_sides_agree_on_the_code_for_a_run_left_out() -> None:
    """The program imports nothing, so the number stands twice."""
    assert _schedule.SKIPPED == _schedule_run.SKIPPED

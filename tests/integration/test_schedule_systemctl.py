# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module schedule asks of a running systemd, whose systemctl is a fake here: where tests run, another program is process 1."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _schedule_host
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

# It keeps which units are active as files, and what of the units it has read as a copy of them.
FAKE = """#!/bin/sh
cd "{home}" || exit 1
verb=$1; shift
[ "$verb" = show ] || echo "$verb $*" >> calls
[ ! -e "refuse-$verb" ] || {{ echo "the fake refuses" >&2; exit 1; }}
case $verb in
    daemon-reload) rm -rf read; cp -r units read ;;
    start) for unit; do [ -e "read/$unit" ] || exit 5; touch "active/$unit"; done ;;
    stop) for unit; do rm "active/$unit" || exit 5; done ;;
    show)
        shift
        for unit; do
            reload=no; state=inactive
            [ ! -e "active/$unit" ] || state=active
            if [ -e "read/$unit" ] && ! cmp -s "read/$unit" "units/$unit"; then reload=yes; fi
            printf 'Id=%s\\nActiveState=%s\\nNeedDaemonReload=%s\\n\\n' "$unit" "$state" "$reload"
        done ;;
esac
"""
JOBS = [{"name": name, "playbook": "saasodoo.postgres_pools." + name, "calendar": "*:0/5", "timeout": 60} for name in ("health", "audit")]


class Machine:
    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("units", "cron", "read", "active", "bin"):
            (home / name).mkdir()
        systemctl = home / "bin" / "systemctl"
        systemctl.write_text(FAKE.format(home=home))
        systemctl.chmod(0o755)

    def bring(self, dry_run: bool = False, **changed: Any) -> Dict[str, Any]:
        params = dict(
            state="present", kind="auto", jobs=JOBS, directory=str(self.home), ansible_playbook=sys.executable, inventory=[], user="",
            environment_file="", python="", grace=20, randomized_delay=10, start=True, unit_directory=str(self.home / "units"),
            cron_directory=str(self.home / "cron"), config_directory=str(self.home / "jobs"), program_directory=str(self.home / "lib"),
            state_directory=str(self.home / "state"),
        )  # fmt: skip
        (self.home / "calls").unlink(missing_ok=True)
        return _schedule_host.schedule(dict(params, **changed), "/usr/bin/python3", dry_run)

    @property
    def calls(self) -> List[str]:
        path = self.home / "calls"
        return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def active(self) -> List[str]:
        return sorted(path.name for path in (self.home / "active").iterdir())


@pytest.fixture(name="machine")
def fixture_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", "{0}:{1}".format(tmp_path / "bin", os.environ["PATH"]))
    monkeypatch.setattr(_schedule_host, "SYSTEMD_RUNS", str(tmp_path))
    yield made


BOTH = ["postgres-pools-audit.timer", "postgres-pools-health.timer"]


def test_with_a_fake_systemctl_timers_are_loaded_and_started_once(machine: Machine) -> None:
    told = machine.bring(dry_run=True)
    assert told["changed"] and sorted(told["started"]) == BOTH
    assert (machine.calls, machine.active) == ([], [])
    done = machine.bring()
    assert done == dict(told, kind="systemd")
    assert machine.calls == ["daemon-reload", "start postgres-pools-health.timer postgres-pools-audit.timer"]
    assert machine.active == BOTH
    assert not machine.bring()["changed"] and machine.calls == []
    assert not machine.bring(dry_run=True)["changed"]


def test_with_a_fake_systemctl_a_changed_time_is_loaded_and_a_dead_timer_started(machine: Machine) -> None:
    machine.bring()
    done = machine.bring(jobs=[dict(JOBS[0], calendar="hourly"), JOBS[1]])
    assert machine.calls == ["daemon-reload"] and done["started"] == []
    (machine.home / "active" / BOTH[0]).unlink()
    assert machine.bring(jobs=[dict(JOBS[0], calendar="hourly"), JOBS[1]])["started"] == [BOTH[0]]
    assert machine.calls == ["start " + BOTH[0]]


def test_with_a_fake_systemctl_a_run_killed_before_the_reload_is_completed(machine: Machine) -> None:
    machine.bring()
    (machine.home / "refuse-daemon-reload").touch()
    with pytest.raises(PoolsError, match="systemctl daemon-reload failed: the fake refuses"):
        machine.bring(jobs=[dict(JOBS[0], calendar="hourly"), JOBS[1]])
    (machine.home / "refuse-daemon-reload").unlink()
    done = machine.bring(jobs=[dict(JOBS[0], calendar="hourly"), JOBS[1]])
    assert done["changed"] and done["written"] == [] and machine.calls == ["daemon-reload"]
    assert not machine.bring(jobs=[dict(JOBS[0], calendar="hourly"), JOBS[1]])["changed"]


def test_with_a_fake_systemctl_what_goes_is_stopped_before_its_files_are_gone(machine: Machine) -> None:
    machine.bring()
    assert machine.bring(jobs=JOBS[:1])["stopped"] == [BOTH[0]]
    assert machine.calls == ["stop " + BOTH[0], "daemon-reload"] and machine.active == [BOTH[1]]
    (machine.home / "refuse-stop").touch()
    with pytest.raises(PoolsError, match="systemctl stop failed"):
        machine.bring(state="absent")
    assert (machine.home / "units" / BOTH[1]).exists()
    (machine.home / "refuse-stop").unlink()
    assert machine.bring(state="absent")["stopped"] == [BOTH[1]]
    assert machine.active == [] and list((machine.home / "units").iterdir()) == []
    assert not machine.bring(state="absent")["changed"] and machine.calls == []


def test_with_a_fake_systemctl_going_over_to_cron_leaves_no_timer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.bring()
    (machine.home / "bin" / "cron").write_text("#!/bin/sh\n")
    (machine.home / "bin" / "cron").chmod(0o755)
    monkeypatch.setattr(_schedule_host, "SEARCH_PATH", str(machine.home / "bin"))
    assert machine.bring(kind="cron")["kind"] == "cron"
    stop, reload = machine.calls
    assert (sorted(stop.split()), reload) == ([*BOTH, "stop"], "daemon-reload")
    assert machine.active == [] and list((machine.home / "units").iterdir()) == []


def test_without_systemd_and_without_cron_it_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_schedule_host, "SYSTEMD_RUNS", str(machine.home / "nowhere"))
    monkeypatch.setattr(_schedule_host, "SEARCH_PATH", str(machine.home / "bin"))
    with pytest.raises(PoolsError, match="systemd does not run and there is no cron here"):
        machine.bring()
    assert list((machine.home / "cron").iterdir()) == []

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role tenant_application without a Swarm: files and hooks, as tenant_migration calls it. The service is in tests/swarm/test_application.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

import pytest
import yaml
from environment import Environment, Outcome, environment
from role_fixture import fact_of, guarded, role, run

TEXT = "[options]\n; theirs\ndb_host = 127.0.0.1\nadmin_passwd = hidden0word\n"
AFTER = TEXT.replace("127.0.0.1", "127.0.0.2") + "db_port = 5433\n"
# As the inventory database keeps passwords; nothing here opens one.
TOKEN = "gAAAAAtoken0of1a2password"
OLD: Dict[str, Any] = {"host": "127.0.0.1", "port": 5432, "database": "d", "user": "u", "sslmode": "prefer"}
NEW: Dict[str, Any] = dict(OLD, host="127.0.0.2", port=5433)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        # Without an inventory database: nothing here asks it.
        yield made


class Application:
    """One with a file, and a program that stands for what starts and stops it: it writes down how it was called."""

    def __init__(self, scratch: Environment, folder: Path) -> None:
        self.scratch, self.folder = scratch, folder
        self.file, self.calls = folder / "odoo.conf", folder / "calls"
        self.file.write_text(TEXT)
        self.file.chmod(0o640)
        os.chown(str(self.file), 12345, 23456)
        program = folder / "application"
        program.write_text('#!/bin/sh\nprintf "%s %s:%s %s\\n" "$1" "$POSTGRES_POOLS_HOST" "$POSTGRES_POOLS_PORT" "$POSTGRES_POOLS_USER" >>"{0}"\n'
                           'env >>"{0}.env"\n[ ! -e "{1}/refuses-$1" ] || {{ echo "no room for $1" >&2; exit 3; }}\n'.format(self.calls, folder))  # fmt: skip
        program.chmod(0o755)
        tasks = folder / "tasks.yml"
        tasks.write_text(
            "- name: Tell\n  ansible.builtin.copy:\n    content: '{{ tenant_application_connection.host }}'\n"
            "    dest: '%s'\n    mode: '0600'\n" % (folder / "told")
        )
        hooks: Dict[str, List[Dict[str, Any]]] = {
            when: [{"name": "application " + when, "command": [str(program), when]}] for when in ("stop", "start", "restore")
        }
        hooks["start"].append({"name": "tell", "tasks_file": str(tasks)})
        self.described = {"file": [{"path": str(self.file), "keys": {"db_host": "host", "db_port": "port"}}], "hooks": hooks}

    def tasks(self, *states: Any) -> Dict[str, Any]:
        """Each call of the role by the name of the fact that its failure is kept under."""
        more = {"password_encrypted": TOKEN}
        return {
            "failed_{0}".format(number): role(
                "tenant_application", state=state, application=self.described, connection={**connection, **more} if connection else {}
            )
            for number, (state, connection) in enumerate(states)
        }

    def bring(self, *states: Any, flags: Any = ()) -> Outcome:
        tasks: List[Any] = []
        for number, task in enumerate(self.tasks(*states).values()):
            tasks += [task, fact_of("done_{0}".format(number), "{{ tenant_application_result }}")]
        tells: Mapping[str, str] = {"changed": "{{ [%s] }}" % ", ".join("done_{0}.changed".format(number) for number in range(len(states)))}
        return run(self.scratch, tasks, *flags, tells=tells).succeeded()

    def called(self) -> List[str]:
        told = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.write_text("")
        return told


@pytest.fixture()
def application(scratch: Environment, tmp_path: Path) -> Application:
    return Application(scratch, tmp_path)


def test_a_move_and_the_way_back(application: Application) -> None:
    outcome = application.bring(("stopped", None), ("started", NEW), ("started", NEW), flags=["--diff"])
    assert application.file.read_text() == AFTER
    told = application.file.stat()
    assert (told.st_uid, told.st_gid, told.st_mode & 0o777) == (12345, 23456, 0o640)
    assert (application.folder / "told").read_text() == "127.0.0.2"
    assert application.called() == ["stop : ", "start 127.0.0.2:5433 u", "start 127.0.0.2:5433 u"]
    assert "-[options] db_host = 127.0.0.1" in outcome.output and "+[options] db_host = 127.0.0.2" in outcome.output
    for words in (outcome.output, (application.folder / "calls.env").read_text()):
        assert TOKEN not in words and "hidden0word" not in words

    application.bring(("stopped", NEW), ("restored", OLD), ("settled", None))
    assert application.file.read_text() == TEXT
    assert application.called() == ["stop 127.0.0.2:5433 u", "restore 127.0.0.1:5432 u"]
    assert [one.name for one in application.folder.iterdir() if one.name.startswith(".")] == []


def test_a_start_that_fails_leaves_it_stopped_where_it_was(application: Application) -> None:
    (application.folder / "refuses-start").touch()
    told = guarded(application.scratch, application.tasks(("stopped", None), ("started", NEW))).stats
    assert (told["failed_0"], told["failed_1"]) == ("", "The hook application start failed: no room for start")
    assert application.file.read_text() == TEXT
    assert application.called() == ["stop : ", "start 127.0.0.2:5433 u", "stop 127.0.0.2:5433 u"]
    (application.folder / "refuses-stop").touch()
    told = guarded(application.scratch, application.tasks(("started", NEW))).stats
    for words in ("no room for start", "Putting the former connection back failed too", "no room for stop"):
        assert words in told["failed_0"]
    assert application.file.read_text() == TEXT


def test_check_mode_says_and_does_nothing(application: Application) -> None:
    outcome = application.bring(("stopped", None), ("started", NEW), flags=["--check", "--diff"])
    assert "+[options] db_host = 127.0.0.2" in outcome.output
    assert application.file.read_text() == TEXT and application.called() == []
    assert not (application.folder / "told").exists()


def test_no_application_is_nothing_to_do(scratch: Environment) -> None:
    outcome = run(scratch, [role("tenant_application", state=state) for state in ("stopped", "started", "restored", "settled")]).succeeded()
    assert outcome.changed == 0


def test_what_cannot_be_is_refused_before_anything_is_stopped(application: Application) -> None:
    described = application.described
    entry: Dict[str, Any] = described["file"][0]  # type: ignore[index]
    one = {
        "absent": ({"file": [dict(entry, path="/nowhere/odoo.conf")]}, "/nowhere/odoo.conf cannot be used: No such file"),
        "section": ({"file": [dict(entry, section="x")]}, "no section [x]. Name one that it has ([options])"),
        "password": ({"file": [dict(entry, keys={"db_password": "password"})]}, "asks for password, which could then be read where it does not belong"),
        "host": ({"file": [dict(entry, host="unreached")]}, "The host unreached with the file"),
        "hook": ({"hooks": {"stop": [{"name": "both", "command": ["true"], "tasks_file": "x"}]}}, "The hook both must have either"),
        "manager": ({"service": "x"}, "tenant_application_manager must name"),
        "unknown": ({"services": "x"}, "services. Supported parameters include"),
    }
    unreached = {"name": "unreached", "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    tasks: Dict[str, Any] = {"added": {"name": "Add a host that nobody answers for", "ansible.builtin.add_host": unreached}}
    tasks.update({fact: role("tenant_application", state="stopped", application={**described, **more}) for fact, (more, _words) in one.items()})
    tasks["nobody"] = role("tenant_application", state="stopped", application={**described, "service": "x"}, manager="unreached")
    tasks["connection"] = role("tenant_application", state="started", application=described)
    told = guarded(application.scratch, tasks).stats
    for fact, (_more, words) in one.items():
        assert words in told[fact], (fact, told[fact])
    assert "The Swarm manager unreached cannot be reached: " in told["nobody"]
    assert "tenant_application_connection is empty" in told["connection"]
    assert application.called() == [] and application.file.read_text() == TEXT
    assert "hidden0word" not in json.dumps(told)


def test_the_example_of_the_file_runs(scratch: Environment, tmp_path: Path) -> None:
    from ansible_collections.saasodoo.postgres_pools.plugins.modules import application_file

    path = tmp_path / "odoo.conf"
    path.write_text(TEXT)
    tasks = yaml.safe_load(application_file.EXAMPLES.replace("/srv/odoo/acme/odoo.conf", str(path)))
    run(scratch, tasks).succeeded()
    assert "db_host = postgres-dedicated-0b6c5c1e\n" in path.read_text()

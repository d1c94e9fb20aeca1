# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook, by what it and its roles say: it ends with artifacts that have a status, for the whole run, and that are made of nothing secret.

tests/tarball/test_playbooks.py runs them and looks at the artifacts themselves.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
PREFIX = "saasodoo.postgres_pools."
# What registered results and variables with passwords, keys or tokens in them are called in the roles.
SECRET = re.compile(r"password|_encrypted|dsn|secret_key|token|connections\b|\bkeys\b|_filled|private")
# Names, and no contents: of secrets, and of what was made in AWX.
HARMLESS = {"_connection_secret_summary", "_awx_names", "_awx_schedule_names", "_awx_workflow_names"}
# It counts up what each node gives, in a play for all of them.
AGGREGATED = {"swarm_node": True, "tenant_migration": "{{ tenant_migration_listed | bool }}"}


class Loader(yaml.SafeLoader):
    """With Ansible's own tag for a text that is no template."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


class Told(NamedTuple):
    role: str
    data: Any
    options: Dict[str, Any]


def tasks_in(tasks: Any) -> Iterator[Dict[str, Any]]:
    for task in tasks or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_in(task.get(part))


def action(task: Dict[str, Any], *names: str) -> Any:
    return next((task[full] for name in names for full in ("ansible.builtin." + name, name) if full in task), None)


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader)


class Playbook:
    """What a playbook's own roles do, and those that they call, without running them."""

    def __init__(self, name: str) -> None:
        self.plays: List[Dict[str, Any]] = read(ROOT / "playbooks" / (name + ".yml"))

    def told(self) -> List[Told]:
        found: List[Told] = []
        for play in self.plays:
            for role in play.get("roles") or []:
                found += list(self._role(role if isinstance(role, str) else role["role"], "main", set()))
            for part in ("pre_tasks", "tasks", "post_tasks"):
                found += list(self._of("", play.get(part), set()))
        return found

    def _role(self, name: str, entry: str, seen: Set[str]) -> Iterator[Told]:
        role = name[len(PREFIX) :]
        assert name.startswith(PREFIX), name
        yield from self._file(role, entry + ".yml", seen)

    def _file(self, role: str, name: str, seen: Set[str]) -> Iterator[Told]:
        folder = ROLES / role / "tasks"
        # A name that is put together stands for every file that it may be.
        paths = sorted(folder.glob(re.sub(r"\{\{.*?\}\}", "*", name)))
        assert paths, (role, name)
        for path in paths:
            if str(path) not in seen:
                seen.add(str(path))
                yield from self._of(role, read(path), seen)

    def _of(self, role: str, tasks: Any, seen: Set[str]) -> Iterator[Told]:
        for task in tasks_in(tasks):
            stats, file = action(task, "set_stats"), action(task, "include_tasks", "import_tasks")
            other = action(task, "include_role", "import_role")
            if stats:
                yield Told(role, stats["data"], stats)
            if file and role:
                name = file if isinstance(file, str) else file["file"]
                if not re.fullmatch(r"\{\{.*\}\}", name):
                    yield from self._file(role, name, seen)
            if other and other["name"].startswith(PREFIX):
                entry = str(other.get("tasks_from", "main"))
                yield from self._role(other["name"], "*" if "{{" in entry else entry.replace(".yml", ""), seen)


def variables(role: str) -> Dict[str, Any]:
    folder = ROLES / role / "vars"
    paths = [*folder.glob("main.yml"), *folder.glob("main/*.yml")] if role else []
    return {name: value for path in paths for name, value in (read(path) or {}).items()}


def resolved(told: Told) -> str:
    """The data with the role's own variables in place of their names, as text."""
    known, text = variables(told.role), str(told.data)
    for _round in range(6):
        for name, value in known.items():
            if name not in HARMLESS:
                text = re.sub(r"(?<![\w']){0}\b".format(re.escape(name)), lambda match, value=value: " {0} ".format(value), text)
    return text


def has_status(told: Told) -> bool:
    return bool(re.search(r"'status'\s*:", resolved(told)))


def test_there_are_playbooks() -> None:
    assert {"allocate", "migrate", "prepare", "schedules"} <= set(PLAYBOOKS)


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_it_ends_with_a_status(name: str) -> None:
    found = Playbook(name).told()
    assert [told.role for told in found if has_status(told)], "no set_stats with a status: {0}".format(found)


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_the_artifacts_are_of_the_whole_run(name: str) -> None:
    """AWX takes those only; and what is aggregated would be added to what an earlier task gave, text to text."""
    for told in Playbook(name).told():
        assert told.options.get("per_host") is False, told
        assert told.options.get("aggregate") == AGGREGATED.get(told.role, False), told


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_nothing_secret_is_in_them(name: str) -> None:
    for told in Playbook(name).told():
        # What a role is called says nothing of what is in its variables.
        text = re.sub(r"\b_?{0}_".format(told.role or "-"), "", resolved(told))
        found = SECRET.search(text)
        assert not found, "{0} of the role {1}: {2}".format(found and found.group(), told.role, told.data)


def test_a_secret_would_be_seen() -> None:
    for data in ({"status": "x", "password": "{{ x }}"}, "{{ tenant_allocation_secret.connections[0] }}", "{{ x.admin_password_encrypted }}"):
        assert SECRET.search(resolved(Told("", data, {})))
    # Behind a variable of the role.
    assert "tenant_allocation_placed" in resolved(Told("tenant_allocation", "{{ _tenant_allocation_summary }}", {}))
    assert not has_status(Told("", {"servers": []}, {})) and has_status(Told("", {"status": "ok"}, {}))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles called by name with their own variables, as another collection's play would, in a scratch environment."""

from __future__ import annotations

import contextlib
import re
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import yaml
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from environment import Environment, Outcome, Run, difference

NAMESPACE = "saasodoo.postgres_pools"
Task = Dict[str, Any]


class Call(NamedTuple):
    """A role that must refuse, and what it must say: regular expressions that are all found in its message."""

    role: str
    variables: Mapping[str, Any]
    says: Sequence[str]


def module(action: str, register: str, **arguments: Any) -> Task:
    return {"name": action, "{0}.{1}".format(NAMESPACE, action): arguments, "register": register}


def role(role_name: str, **variables: Any) -> Task:
    """With its variables as they are after its name: role("pool_listing", status="error")."""
    return {
        "name": "Role " + role_name,
        "ansible.builtin.include_role": {"name": "{0}.{1}".format(NAMESPACE, role_name)},
        "vars": {"{0}_{1}".format(role_name, key): value for key, value in variables.items()},
    }


def fact_of(name: str, value: str) -> Task:
    """What a later role of the same play would write over, kept under a name."""
    return {"name": "Keep " + name, "ansible.builtin.set_fact": {name: value}}


def run(scratch: Environment, tasks: Sequence[Task], *flags: str, tells: Optional[Mapping[str, str]] = None) -> Outcome:
    """One play of these tasks. *tells* are templates whose values are afterwards in the outcome's stats."""
    play: Task = {
        "name": "A play of somebody else's",
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {
            "group/{0}.inventory_db".format(NAMESPACE): "{{ postgres_pools_inventory_db }}",
            "group/{0}.keys".format(NAMESPACE): "{{ postgres_pools_keys }}",
        },
        "tasks": list(tasks),
    }
    if tells:
        play["tasks"].append({"name": "Tell", "ansible.builtin.set_stats": {"data": dict(tells), "per_host": False}})
    playbook = scratch.temp / "{0}.yml".format(uuid.uuid4().hex)
    playbook.write_text(yaml.safe_dump([play], sort_keys=False, width=1000))
    playbook.chmod(0o600)
    return Run([str(Path(sys.executable).parent / "ansible-playbook"), str(playbook), *flags], scratch.base, scratch.temp).wait()


def guarded(scratch: Environment, tasks: Mapping[str, Task], *more: Task, tells: Optional[Mapping[str, str]] = None) -> Outcome:
    """One play in which each of *tasks* may fail; the stats have its message by its key, "" where it did not."""
    guards: List[Task] = []
    for fact, task in tasks.items():
        told = "{{ [ansible_failed_result.msg | default('no message')] | union(ansible_failed_result.argument_errors | default([])) | join('\n') }}"
        guards.append({"name": fact, "block": [task], "rescue": [fact_of(fact, told)]})
    messages = {fact: "{{ %s | default('') }}" % fact for fact in tasks}
    outcome = run(scratch, [*guards, *more], tells=dict(messages, **(tells or {}))).succeeded()
    assert "Traceback" not in outcome.output, outcome.output
    return outcome


def refused(scratch: Environment, calls: Mapping[str, Call]) -> None:
    """Each call must fail, say what it should, and leave everything as it was. All in one play, since a play costs a second."""
    before = scratch.dump()
    facts = {"refused_{0}".format(number): name for number, name in enumerate(calls)}
    outcome = guarded(scratch, {fact: role(calls[name].role, **calls[name].variables) for fact, name in facts.items()})
    for fact, name in facts.items():
        message = outcome.stats[fact]
        assert message, "{0} was not refused:\n{1}".format(name, outcome.output)
        for expression in calls[name].says:
            assert re.search(expression, message), "{0}: {1!r} is not in: {2}".format(name, expression, message)
    unchanged(scratch, before)


def unchanged(scratch: Environment, before: Dict[str, Any]) -> None:
    assert not difference(before, scratch.dump())


@contextlib.contextmanager
def inventory(scratch: Environment) -> Iterator[Inventory]:
    """The inventory database as the modules see it."""
    login = {
        "login_host": "127.0.0.1",
        "login_port": scratch.port_base,
        "login_user": "database_service",
        "login_password": scratch.secret("database_service"),
        "login_db": "postgres_pools",
    }
    with contextlib.closing(Inventory(login)) as opened:
        yield opened

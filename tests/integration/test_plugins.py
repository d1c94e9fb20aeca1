# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookups, the inventory plugin, and the modules that the playbooks' own tests do not reach, run by Ansible against real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
import yaml
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from cryptography.fernet import Fernet
from environment import ROOT, Environment, Run, connect, environment, instances

NAMESPACE = "saasodoo.postgres_pools"
BIN = Path(sys.executable).parent
SHARED, LARGE = instances(2)
LARGE = dict(LARGE, plan_tier="premium")
DEDICATED = "postgres-dedicated-{0}".format(LARGE["instance_id"][:8])
POOL = "postgres-pool-1"
NOBODY = str(uuid.uuid4())


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    """A pool with one tenant, and a dedicated server."""
    with environment() as made:
        made.ready().play("allocate", {"allocations": [SHARED, LARGE]}).succeeded()
        yield made


def run(scratch: Environment, tasks: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Run tasks as the playbooks do; what they registered, by name."""
    names = [task["register"] for task in tasks if "register" in task]
    answer = scratch.temp / "answer.json"
    play = {
        "name": "Tasks of a test",
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {
            "group/{0}.inventory_db".format(NAMESPACE): "{{ postgres_pools_inventory_db }}",
            "group/{0}.keys".format(NAMESPACE): "{{ postgres_pools_keys }}",
        },
        "vars": {"access": "{{ postgres_pools_inventory_db | combine(postgres_pools_keys) }}"},
        "tasks": [
            *tasks,
            {
                "name": "Hand it over",
                "ansible.builtin.copy": {
                    "content": "{{ {%s} | to_json }}" % ", ".join("'{0}': {0}".format(name) for name in names),
                    "dest": str(answer),
                    "mode": "0600",
                },
                "no_log": True,
            },
        ],
    }
    playbook = scratch.temp / "tasks.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False, width=1000))
    Run([str(BIN / "ansible-playbook"), str(playbook)], scratch.base, scratch.temp).wait().succeeded()
    return dict(json.loads(answer.read_text()))


def module(register: str, name: str, **arguments: Any) -> Dict[str, Any]:
    return {"name": register, "{0}.{1}".format(NAMESPACE, name): arguments, "register": register}


def refused(task: Dict[str, Any]) -> Dict[str, Any]:
    """The task's failure is what is looked at."""
    return dict(task, failed_when=False)


def lookup(register: str, call: str, terms: str, more: str = "") -> Dict[str, Any]:
    wanted = "{{ query('%s.%s', %s, **(access | combine({%s}))) }}" % (NAMESPACE, call, terms, more)
    return {"name": register, "ansible.builtin.command": {"cmd": "true"}, "register": register, "vars": {"wanted": wanted}}


# --- lookups


def test_lookups(scratch: Environment) -> None:
    def ask(name: str, call: str, terms: str, more: str = "") -> Dict[str, Any]:
        wanted = "{{ query('%s.%s', %s, **(access | combine({%s}))) }}" % (NAMESPACE, call, terms, more)
        return {"name": name, "ansible.builtin.set_fact": {name: wanted}, "no_log": True, "register": "register_" + name}

    def fail(name: str, call: str, terms: str, more: str = "") -> Dict[str, Any]:
        return {
            "name": name,
            "block": [ask(name, call, terms, more)],
            "rescue": [{"name": "Keep it", "ansible.builtin.set_fact": {name: "{{ ansible_failed_result.msg }}"}}],
        }

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-doc shows is complete and true of every plugin and role, and the examples in it run."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import yaml
from ansible.module_utils import basic
from environment import ROOT, Environment, Run, environment

NAMESPACE = "saasodoo.postgres_pools"
BIN = Path(sys.executable).parent
# Where a plugin's files lie, by what ansible-doc calls its type.
FOLDERS = {"module": "modules", "lookup": "lookup", "inventory": "inventory", "filter": "filter", "test": "test"}
PLUGINS = [
    (kind, path.stem)
    for kind, folder in FOLDERS.items()
    for path in sorted((ROOT / "plugins" / folder).glob("*.py"))
    if path.stem != "__init__"
]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml"))
# Their examples need a Swarm, a CephFS or an application, and run in tests/swarm.
ON_THE_BED = (
    *("application_file", "cephfs_client", "cephfs_directory", "cephfs_subvolume"),
    *("swarm_application", "swarm_audit", "swarm_secret", "swarm_service_wait"),
)
# Theirs need a pooler or a move under way; test_migrate_online.py and test_migrate_online_pooler.py run them as tasks of the roles.
IN_A_MOVE = ("application_pooler", "tenant_switch")
# Theirs need two servers, and come one between the others.
BETWEEN_TWO = ("database_compare", "database_copy", "database_follow")
MODULES = [name for kind, name in PLUGINS if kind == "module"]
PG_VARIABLES = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE")


@pytest.fixture(scope="module")
def shown() -> Dict[str, Any]:
    """All that ansible-doc has to say of the collection, by type and name."""
    done = subprocess.run(
        [str(BIN / "ansible-doc"), "--metadata-dump", "--no-fail-on-errors", NAMESPACE],
        cwd=str(ROOT),
        env=dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout)["all"])


def test_nothing_is_forgotten() -> None:
    """A folder of plugins that the tests here do not know would go unseen."""
    private = {"doc_fragments", "module_utils", "plugin_utils"}
    folders = {path.name for path in (ROOT / "plugins").iterdir() if any(path.glob("*.py"))}
    assert folders - private == set(FOLDERS.values())
    assert sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()) == ROLES


# --- plugins


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_is_described(shown: Dict[str, Any], kind: str, name: str) -> None:
    told = shown[kind]["{0}.{1}".format(NAMESPACE, name)]
    assert not told.get("error")
    doc = told["doc"]
    for part in ("short_description", "description", "author", "version_added"):
        assert doc.get(part), part
    assert (told["examples"] or "").strip()
    assert kind == "inventory" or told["return"]
    for path, option in options_of(doc["options"]):
        assert option.get("description"), path
        assert option.get("type"), path
    for path, value in values_of(told["return"] or {}):
        assert value.get("description") and value.get("type"), path
    if kind == "module":
        assert {"check_mode", "diff_mode"} <= set(doc["attributes"])


def options_of(options: Dict[str, Any], above: str = "") -> Iterator[Tuple[str, Dict[str, Any]]]:
    for name, option in options.items():
        yield above + name, option
        yield from options_of(option.get("suboptions") or {}, "{0}{1}.".format(above, name))


def values_of(values: Dict[str, Any], above: str = "") -> Iterator[Tuple[str, Dict[str, Any]]]:
    for name, value in values.items():
        yield above + name, value
        yield from values_of(value.get("contains") or {}, "{0}{1}.".format(above, name))


class SpecificationError(Exception):
    """Ends a module at the moment it says what it takes."""


def specification(name: str, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    """The argument spec that the module really gives to Ansible."""
    caught: Dict[str, Any] = {}

    def catch(self: Any, argument_spec: Dict[str, Any], *_more: Any, **_named: Any) -> None:
        caught.update(argument_spec)
        raise SpecificationError

    for variable in PG_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(basic.AnsibleModule, "__init__", catch)
    module = importlib.import_module("ansible_collections.saasodoo.postgres_pools.plugins.modules." + name)
    with pytest.raises(SpecificationError):
        module.main()
    return caught


@pytest.mark.parametrize("name", MODULES)
def test_a_module_takes_what_it_says(shown: Dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    doc = shown["module"]["{0}.{1}".format(NAMESPACE, name)]["doc"]
    assert facts_of(doc["options"]) == facts_of(specification(name, monkeypatch))


def facts_of(options: Dict[str, Any]) -> Dict[str, Any]:
    """What a documentation and an argument spec both tell of options."""
    facts = {}
    for name, option in options.items():
        kind = option.get("type", "str")
        default = option.get("default")
        facts[name] = {
            "type": kind,
            "elements": option.get("elements"),
            "required": bool(option.get("required")),
            "choices": sorted(option.get("choices") or [], key=str),
            "aliases": sorted(option.get("aliases") or []),
            "default": float(default) if kind == "float" and default is not None else default,
            "options": facts_of(option.get("suboptions") or option.get("options") or {}),
        }
    return facts


def test_a_filter_takes_what_it_says(shown: Dict[str, Any]) -> None:
    for kind, name in PLUGINS:
        if kind != "filter":
            continue
        module = importlib.import_module("ansible_collections.saasodoo.postgres_pools.plugins.filter." + name)
        doc = shown["filter"]["{0}.{1}".format(NAMESPACE, name)]["doc"]
        unsaid = inspect.Parameter.empty
        taken = [
            (one.name, None if one.default is unsaid else one.default, one.default is unsaid)
            for one in inspect.signature(module.FilterModule().filters()[name]).parameters.values()
        ]
        documented = {
            option: (told.get("default"), bool(told.get("required"))) for option, told in doc["options"].items()
        }
        assert {option: rest for option, *rest in taken[1:]} == {
            option: list(rest) for option, rest in documented.items() if option != "_input"
        }
        assert [option for option, _default, required in taken[1:] if required] == [
            option for option in doc.get("positional", "").split(", ") if option
        ]


# --- roles


@pytest.mark.parametrize("name", ROLES)
def test_a_role_is_described(shown: Dict[str, Any], name: str) -> None:
    entry = shown["role"]["{0}.{1}".format(NAMESPACE, name)]["entry_points"]["main"]
    for part in ("short_description", "description", "author"):
        assert entry.get(part), part
    for path, option in options_of({key: dict(one, suboptions=one.get("options")) for key, one in entry["options"].items()}):
        assert option.get("description") and option.get("type"), path
        assert path.startswith(name + "_"), path


@pytest.mark.parametrize("name", ROLES)
def test_a_role_has_the_defaults_it_says(shown: Dict[str, Any], name: str) -> None:
    options = shown["role"]["{0}.{1}".format(NAMESPACE, name)]["entry_points"]["main"]["options"]
    defaults = yaml.safe_load((ROOT / "roles" / name / "defaults" / "main.yml").read_text()) or {}
    assert set(defaults) <= set(options), "not documented"
    for option, told in options.items():
        found = defaults.get(option)
        if told.get("required"):
            assert option not in defaults, option
        elif isinstance(found, str) and "{{" in found:
            # A figure in the documentation is the one that the template falls back on.
            assert str(told.get("default", "")) in found, option
        elif "default" in told:
            assert option in defaults and found == told["default"], option
        else:
            assert option not in defaults, "{0} has a default that is not documented".format(option)
            assert "Required when" in str(told["description"]), "{0}: neither required nor with a default".format(option)


# --- examples

INSTANCE = "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90"
# Others' examples ask for the instance of this one's.
FIRST = "allocation"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("provision_pool", {"server": "postgres-pool-1"}).succeeded()
        made.execute("CREATE DATABASE example")
        yield made


def examples(shown: Dict[str, Any], kind: str, name: str) -> Any:
    return yaml.safe_load(shown[kind]["{0}.{1}".format(NAMESPACE, name)]["examples"])


@pytest.mark.parametrize(("kind", "name"), [plugin for plugin in PLUGINS if plugin[0] != "inventory"])
def test_an_example_uses_the_plugin(shown: Dict[str, Any], kind: str, name: str) -> None:
    tasks = examples(shown, kind, name)
    assert isinstance(tasks, list) and tasks
    full = "{0}.{1}".format(NAMESPACE, name)
    for task in tasks:
        assert task["name"]
        assert full in task if kind == "module" else full in json.dumps(task)


def plays(shown: Dict[str, Any], variables: Dict[str, Any]) -> List[Dict[str, Any]]:
    """A play for each plugin, its examples as they stand for tasks."""
    here = (plugin for plugin in PLUGINS if plugin[0] != "inventory" and plugin[1] not in ON_THE_BED + IN_A_MOVE + BETWEEN_TWO)
    order = sorted(here, key=lambda one: one[1] != FIRST)
    return [
        {
            "name": "{0} {1}".format(*plugin),
            "hosts": "localhost",
            "gather_facts": False,
            "vars": variables,
            "tasks": examples(shown, *plugin),
        }
        for plugin in order
    ]


def test_the_examples_run(shown: Dict[str, Any], scratch: Environment) -> None:
    pool = scratch.servers()[0]
    variables = {
        "inventory_port": scratch.port_base,
        "inventory_password": scratch.secret("database_service"),
        "admin_password": scratch.secret("inventory_admin"),
        "secret_key_file": str(scratch.state / "secrets" / "keys"),
        "server_host": pool["host"],
        "server_port": pool["port"],
        "server_password": scratch.cipher().decrypt(pool["admin_password_encrypted"], pool["name"]),
        "tenant_password": "a-password-of-the-examples",
        "instance_id": INSTANCE,
        "dsn_file": str(scratch.home / "dsn"),
    }
    text = yaml.safe_dump(plays(shown, variables), sort_keys=False, width=1000)
    # The one thing changed in them: what they put on this machine is put into the scratch environment.
    for example, ours in (("/var/tmp/", "{0}/".format(scratch.home)), ("port: 15499", "port: {0}".format(scratch.port_base + 98))):
        assert example in text
        text = text.replace(example, ours)
    playbook = scratch.temp / "examples.yml"
    playbook.write_text(text)
    playbook.chmod(0o600)

    outcome = play(scratch, playbook).succeeded()
    assert "skipping:" not in outcome.output, outcome.output
    assert "[WARNING]" not in outcome.output, outcome.output
    assert (scratch.home / "dsn").read_text().startswith("postgresql://odoo_")
    assert (scratch.home / "dsn").stat().st_mode & 0o777 == 0o600


def test_the_examples_of_a_copy_and_its_proof_run(shown: Dict[str, Any], scratch: Environment) -> None:
    scratch.play("provision_pool", {"server": "postgres-pool-of-copies"}).succeeded()
    variables = {}
    for side, name in (("source", scratch.servers()[0]["name"]), ("target", "postgres-pool-of-copies")):
        server = next(row for row in scratch.servers() if row["name"] == name)
        password = scratch.cipher().decrypt(server["admin_password_encrypted"], name)
        variables.update({side + "_host": server["host"], side + "_port": server["port"], side + "_password": password})
    compared, copied, followed = (examples(shown, "module", name) for name in BETWEEN_TWO)
    made = {"name": "odoo_0b6c5c1e4a5f4a7e_9c582f3d", "password": "a-password-of-the-examples", "login_host": "{{ source_host }}"}
    made.update(login_port="{{ source_port }}", login_password="{{ source_password }}")
    tasks = [{"saasodoo.postgres_pools.tenant_database": {"login_user": "postgres", "databases": [made]}}, *copied[:-1], *compared, copied[-1]]
    # The copy is thrown away by then, and the same is done anew.
    tasks += followed
    text = yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}], sort_keys=False, width=1000)
    playbook = scratch.temp / "examples-of-a-copy.yml"
    playbook.write_text(text.replace("/var/tmp/", "{0}/".format(scratch.home)))
    playbook.chmod(0o600)
    outcome = play(scratch, playbook).succeeded()
    assert "skipping:" not in outcome.output and len(copied) == 3 and len(compared) == 2


def play(scratch: Environment, playbook: Path) -> Any:
    return Run(
        [str(BIN / "ansible-playbook"), str(playbook)],
        # Of the examples that need a key, the lookups' take it from here.
        dict(scratch.base, POSTGRES_POOLS_SECRET_KEY_FILE=str(scratch.state / "secrets" / "keys")),
        scratch.temp,
    ).wait()


def test_the_inventory_plugins_examples_run(shown: Dict[str, Any], scratch: Environment) -> None:
    for kind, name in PLUGINS:
        if kind != "inventory":
            continue
        source = scratch.temp / "{0}.postgres_pools.yml".format(name)
        config = examples(shown, kind, name)
        assert config["plugin"] == "{0}.{1}".format(NAMESPACE, name)
        # This machine's inventory database in place of the example's.
        config.update(login_host="127.0.0.1", login_password_file=str(scratch.state / "secrets" / "database_service"))
        source.write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [str(BIN / "ansible-inventory"), "-i", str(source), "--list"],
            cwd=str(ROOT),
            env=dict(scratch.base, PGPORT=str(scratch.port_base)),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "postgres-pool-1" in json.loads(done.stdout)["postgres_pools"]["hosts"], done.stderr

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbook awx.yml with the modules of awx.awx 24.6.1 against a fake: a recorded contract of AWX's REST API, that refuses what AWX would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

import pytest
import yaml
from awx_contract import ENCRYPTED, Awx, RefusedError, awx, check_rrule, render
from environment import ROOT
from registry_fixture import registry_server

TOKEN = "a-token-that-nobody-may-see"
PASSWORD = "pass:word\\of the-inventory"
PLAYBOOKS = sorted(path.name for path in ROOT.glob("playbooks/*.yml"))
VARS = ROOT / "roles" / "awx" / "vars" / "main"
MARK = "[saasodoo.postgres_pools.awx postgres-pools-]"
CREDENTIALS = {
    "inventory_database": {"host": "inventory-db", "user": "database_service", "password": PASSWORD},
    "secret_keys": {"keys": "bmV3ZXN0LWtleQ==\nb2xkZXIta2V5"},
}


class Tag(yaml.SafeLoader):
    """Ansible's files, with what is marked as no template."""


Tag.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


def dictionary(name: str) -> Dict[str, Any]:
    """A file of the role's variables, as it is written."""
    return dict(yaml.load((VARS / (name + ".yml")).read_text(), Loader=Tag))


TEMPLATES = dictionary("job_templates")["_awx_all_job_templates"]
QUESTIONS = dictionary("questions")["_awx_questions"]
TYPES = dictionary("credential_types")["_awx_credential_types"]
SCHEDULES = dictionary("schedules")["_awx_all_schedules"]


class Done(NamedTuple):
    rc: int
    output: str
    changed: int
    # What this run alone wrote.
    writes: List[Any]
    # What was said of each item of each task of the role: changed or ok.
    each: Dict[Tuple[str, str], str]

    def succeeded(self) -> Done:
        assert self.rc == 0, self.output
        return self


def play(there: Awx, variables: Dict[str, Any], *flags: str, **environment: str) -> Done:
    before = len(there.writes)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "playbooks/awx.yml", "-i", "/dev/null", "-e", json.dumps(variables), *flags],
        cwd=str(ROOT),
        env=dict(
            {name: value for name, value in os.environ.items() if not name.startswith(("CONTROLLER_", "TOWER_", "PG", "ANSIBLE_"))},
            CONTROLLER_HOST=there.url,
            CONTROLLER_OAUTH_TOKEN=TOKEN,
            PGHOST="127.0.0.1",
            PGPORT="1",
            **environment,
        ),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    output = done.stdout + done.stderr
    # Whatever a run is asked for, it tells neither.
    assert TOKEN not in output and PASSWORD not in output and json.dumps(PASSWORD)[1:-1] not in output, output
    assert "Traceback" not in output, output
    counted = re.search(r"changed=(\d+)", done.stdout)
    return Done(done.returncode, output, int(counted.group(1)) if counted else -1, there.writes[before:], told_of_each(done.stdout))


def told_of_each(output: str) -> Dict[Tuple[str, str], str]:
    each: Dict[Tuple[str, str], str] = {}
    task = ""
    for line in output.splitlines():
        begun = re.match(r"TASK \[saasodoo\.postgres_pools\.awx : (.+)\] \*+$", line)
        task = begun.group(1) if begun else task
        one = re.match(r"(changed|ok): \[localhost\](?: => \(item=(.*)\))?", line)
        if one:
            each[task, one.group(2) or ""] = one.group(1)
    return each


def dash(name: str) -> str:
    return "postgres-pools-" + name.replace("_", "-")


# --- all of it, once

ALL = {
    "awx_credentials": CREDENTIALS,
    "awx_execution_environment_image": "registry.example.org/postgres-pools-ee:0.9.0",
    "awx_more_credentials": ["swarm-hosts"],
    "awx_queues": {
        "provisioning": {"name": "provisioning", "settings": {"max_concurrent_jobs": 40}},
        "monitoring": {"name": "default"},
        "maintenance": {"name": "default"},
    },
}


@pytest.fixture(scope="module")
def there() -> Iterator[Awx]:
    """An AWX with things of others in it, and what two runs of the role made."""
    with awx(TOKEN, ["playbooks/" + name for name in PLAYBOOKS]) as made:
        made.add("instance_groups", name="default")
        other = made.add("organizations", name="Default")
        machine = made.create("credential_types", {"name": "Machine", "kind": "cloud", "inputs": {"fields": []}, "injectors": {}})["id"]
        made.add("credentials", name="swarm-hosts", credential_type=machine, organization=other)
        yield made


@pytest.fixture(scope="module")
def others(there: Awx) -> Set[int]:
    """What is not of the role, by id."""
    return {identity for members in there.objects.values() for identity in members}


@pytest.fixture(scope="module")
def first(there: Awx, others: Set[int]) -> Done:
    return play(there, ALL).succeeded()


def test_every_playbook_has_a_job_template(there: Awx, first: Done) -> None:
    found = there.named("job_templates")
    assert sorted(found) == sorted(map(dash, TEMPLATES))
    assert {one["playbook"] for one in found.values()} == {"playbooks/" + name for name in PLAYBOOKS}
    assert first.changed > 0
    for name, one in found.items():
        told = next(told for template, told in TEMPLATES.items() if dash(template) == name)
        assert one["description"] == "{0} {1}".format(told["says"], MARK)
        assert one["timeout"] == told.get("timeout", 3600) and one["timeout"] > 0
        assert one["allow_simultaneous"] is told.get("simultaneous", False)
        assert one["ask_variables_on_launch"] is told.get("variables", False)
        assert there.linked("job_templates", one["id"], "labels") == sorted(told["labels"])
        group = "provisioning" if told.get("queue") == "provisioning" else "default"
        assert there.linked("job_templates", one["id"], "instance_groups") == [group]
        assert one["execution_environment"] == there.named("execution_environments")["postgres-pools-environment"]["id"]
        asked = [question["variable"] for question in told.get("survey", [])]
        assert list(there.survey(name)) == asked and one["survey_enabled"] is bool(asked)


def test_a_survey_asks_as_the_playbook_does(there: Awx, first: Done) -> None:
    survey = there.survey("postgres-pools-allocate")
    assert survey["instance_id"] == {
        "variable": "instance_id",
        "type": "text",
        "question_name": "Instance",
        "question_description": "UUID of the tenant's instance",
        "required": True,
        "min": 36,
        "max": 36,
    }
    assert survey["plan_tier"]["choices"] == ["free", "starter", "standard", "professional", "premium", "enterprise"]
    assert survey["wait_timeout"]["default"] == 300 and not survey["wait_timeout"]["required"]
    # What callers give as true and false passes beside the survey, which knows texts only.
    assert "wait" not in survey and "require_dedicated" not in survey
    assert there.survey("postgres-pools-audit")["repair"]["default"] == "false"
    assert not there.survey("postgres-pools-allocate-many").get("instance_id")


def test_credentials_are_where_they_are_needed(there: Awx, first: Done) -> None:
    templates = there.named("job_templates")
    both = ["postgres-pools-inventory-database", "postgres-pools-secret-keys", "swarm-hosts"]
    assert sorted(there.linked("job_templates", templates["postgres-pools-allocate"]["id"], "credentials")) == both
    # The superuser's login is not given, and the keys are nothing for the schema.
    schema = templates["postgres-pools-inventory-db"]["id"]
    assert sorted(there.linked("job_templates", schema, "credentials")) == ["postgres-pools-inventory-database", "swarm-hosts"]
    assert there.named("credentials")["postgres-pools-inventory-database"]["inputs"]["password"] == PASSWORD
    shown = there.shown("credentials", there.named("credentials")["postgres-pools-inventory-database"])
    assert shown["inputs"]["password"] == ENCRYPTED


def test_what_stands_beside_the_templates(there: Awx, first: Done) -> None:
    schedules = there.named("schedules")
    assert {name: one["rrule"] for name, one in schedules.items()} == {dash(name): told["rrule"] for name, told in SCHEDULES.items()}
    assert schedules["postgres-pools-health"]["rrule"].endswith("FREQ=MINUTELY;INTERVAL=5")
    assert schedules["postgres-pools-cleanup"]["rrule"] == "DTSTART:20260101T020000Z RRULE:FREQ=DAILY;INTERVAL=1"
    assert [one["source_path"] for one in there.named("inventory_sources").values()] == ["inventories/awx.postgres_pools.yml"]
    assert (ROOT / "inventories" / "awx.postgres_pools.yml").exists()
    group = there.named("groups")["database_clients"]
    assert there.linked("groups", group["id"], "hosts") == ["client"]
    assert json.loads(there.named("hosts")["client"]["variables"])["ansible_python_interpreter"] == "{{ ansible_playbook_python }}"
    assert there.named("instance_groups")["provisioning"]["max_concurrent_jobs"] == 40


def paths(there: Awx, workflow: str) -> Dict[str, List[str]]:
    identity = there.named("workflow_job_templates")[workflow]["id"]
    nodes = [one for one in there.objects["workflow_job_template_nodes"].values() if one["workflow_job_template"] == identity]
    return {one["identifier"]: there.linked("workflow_job_template_nodes", one["id"], "success_nodes") for one in nodes}


def test_workflows(there: Awx, first: Done) -> None:
    assert paths(there, "postgres-pools-allocate-or-provision") == {"ask": ["provision"], "provision": ["answer"], "answer": []}
    approved = {"preflight": ["approval"], "approval": ["move"], "move": ["verify"], "verify": []}
    assert paths(there, "postgres-pools-change-plan-approved") == approved
    nodes = there.named("workflow_job_template_nodes")
    assert nodes["preflight"]["job_type"] == "check" and nodes["move"]["job_type"] is None
    assert there.objects["workflow_approval_templates"][nodes["approval"]["unified_job_template"]]["timeout"] == 86400
    assert nodes["ask"]["extra_data"] == {"wait": False}
    assert list(there.survey("postgres-pools-change-plan-approved", "workflow_job_templates")) == ["instance_id", "plan_tier"]


# Which task makes which kind of object, one by one. Only an approval is made with something else, its node.
MAKERS = {
    "The organization": "organizations",
    "The execution environment": "execution_environments",
    "The labels": "labels",
    "The project": "projects",
    "Instance groups that are to be made": "instance_groups",
    "Types of credentials": "credential_types",
    "Credentials": "credentials",
    "The inventory": "inventories",
    "Its hosts": "hosts",
    "Its groups": "groups",
    "Its sources": "inventory_sources",
    "Job templates": "job_templates",
    "Schedules": "schedules",
    "Workflows": "workflow_job_templates",
    "Nodes": "workflow_job_template_nodes",
}
AFTERWARDS = "What comes after an approval"


def test_the_first_run_changes_each_object_and_the_second_none(there: Awx, first: Done, others: Set[int]) -> None:
    changed = {one for one, said in first.each.items() if said == "changed"}
    made = Counter(kind for kind, members in there.objects.items() for identity in members if identity not in others)
    assert made.pop("workflow_approval_templates") == 1
    assert {kind: len([one for one in changed if one[0] == task]) for task, kind in MAKERS.items()} == made
    assert {task for task, _item in changed} == {*MAKERS, AFTERWARDS}
    assert len(there.objects["job_templates"]) == len(TEMPLATES) >= 26

    second = play(there, ALL).succeeded()
    assert second.changed == 0 and not second.writes, second.output
    # Its module was run for each object again, and found it as it should be; but a label has nothing that could differ.
    assert {one: second.each.get(one, "left out") for one in changed} == {one: "left out" if one[0] == "The labels" else "ok" for one in changed}


# --- what is the same for all templates, with few


@pytest.fixture
def small() -> Iterator[Awx]:
    with awx(TOKEN, ["playbooks/" + name for name in PLAYBOOKS]) as made:
        yield made


def few(**variables: Any) -> Dict[str, Any]:
    return dict({"awx_only": ["change_plan", "health"], "awx_inventory_sources": {}}, **variables)


def test_from_a_check_to_the_removal_in_an_organization_of_somebody_else(small: Awx) -> None:
    platform = small.add("organizations", name="Platform", description="of somebody else")
    checked = play(small, few(awx_organization="Platform"), "--check").succeeded()
    assert "job_templates postgres-pools-health" in checked.output and checked.changed == 1
    assert not checked.writes

    with registry_server() as make:
        registry = make()
        registry.query(
            "INSERT INTO db_plans (plan_tier, placement, connections, storage_bytes, temp_file_limit_bytes, cpu_limit, memory_limit_bytes)"
            " VALUES ('campus', 'shared', 6, 4::bigint << 30, 1::bigint << 30, 1, 2::bigint << 30)"
        )
        play(small, few(awx_organization="Platform", awx_credentials=CREDENTIALS, awx_inventory_db=registry.params)).succeeded()
    # The plans of the inventory database, where it is reached.
    choices = small.survey("postgres-pools-change-plan")["plan_tier"]["choices"]
    assert choices == ["free", "starter", "standard", "campus", "professional", "premium", "enterprise"]

    wanted = few(
        awx_organization="Platform",
        awx_credentials=dict(CREDENTIALS, secret_keys={"keys": "another"}),
        awx_inventory_hosts={},
        awx_job_templates={"change_plan": {"timeout": 900}, "health": None},
        awx_plan_tiers=choices,
    )
    # With everything there, a check says which objects would change.
    told = play(small, dict(wanted, awx_job_templates={"change_plan": {"timeout": 900}}), "--check").succeeded()
    assert told.changed == 2 and not told.writes
    changed = play(small, wanted).succeeded()
    assert small.named("job_templates")["postgres-pools-change-plan"]["timeout"] == 900
    # Secrets of credentials are left alone, and what is wanted no more goes, with its schedule and its label.
    wrote = {(method, path.split("/")[3]) for method, path, _body in changed.writes}
    assert wrote == {("PATCH", "job_templates"), ("DELETE", "schedules"), ("DELETE", "job_templates"), ("DELETE", "hosts")}
    assert list(small.named("job_templates")) == ["postgres-pools-change-plan"]
    assert small.named("credentials")["postgres-pools-secret-keys"]["inputs"]["keys"] == CREDENTIALS["secret_keys"]["keys"]

    before = json.dumps(small.objects, sort_keys=True)
    gone = {"awx_organization": "Platform", "awx_state": "absent"}
    checked = play(small, gone, "--check").succeeded()
    assert checked.changed > 0 and not checked.writes and json.dumps(small.objects, sort_keys=True) == before
    play(small, gone).succeeded()
    assert {kind: list(members) for kind, members in small.objects.items() if members} == {"organizations": [platform], "users": [1]}
    assert small.named("organizations")["Platform"]["description"] == "of somebody else"


def test_an_organization_of_its_own_goes_when_nothing_of_others_is_left_in_it(small: Awx) -> None:
    play(small, few(awx_only=["health"])).succeeded()
    organization = small.named("organizations")["PostgreSQL pools"]["id"]
    foreign = small.add("projects", name="somebody's", organization=organization, scm_type="git", scm_url="https://git.example.org/x")
    play(small, {"awx_state": "absent"}).succeeded()
    left = {kind: list(members) for kind, members in small.objects.items() if members}
    assert left == {"organizations": [organization], "projects": [foreign], "users": [1]}
    small.delete("projects", foreign)
    last = play(small, {"awx_state": "absent"}).succeeded()
    assert [path for _method, path, _body in last.writes] == ["/api/v2/organizations/{0}/".format(organization)]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"awx_token": "another"}, r"does not\s+take the token in awx_token \(HTTP 401\)"),
        ({"awx_token": ""}, "awx_token a token of a system administrator"),
        ({"awx_controller_url": "http://127.0.0.1:1"}, "does not answer as an AWX"),
        ({"awx_more_credentials": ["swarm-hosts"], "awx_queues": {"monitoring": {"name": "nowhere"}}}, "no instance group nowhere, credential swarm-hosts"),
        ({"awx_state": "gone"}, "value of awx_state must be one of: present, absent"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(small: Awx, variables: Dict[str, Any], says: str) -> None:
    done = play(small, variables)
    assert done.rc == 2 and not done.writes
    assert re.search(says, re.sub(r"\s+", " ", done.output)), done.output


def test_a_project_without_the_playbooks_is_refused(small: Awx) -> None:
    small.playbooks = ["playbooks/health.yml"]
    done = play(small, few())
    assert done.rc == 2
    assert "has no playbooks/change_plan.yml" in re.sub(r"\s+", " ", done.output)
    assert not small.objects["job_templates"]


# --- without a run


def test_a_survey_asks_for_variables_that_the_playbook_has() -> None:
    for name, told in TEMPLATES.items():
        text = (ROOT / "playbooks" / (told["playbook"] + ".yml")).read_text()
        roles = re.findall(r"saasodoo\.postgres_pools\.(\w+)", text)
        specs = [ROOT / "roles" / role / "meta" / "argument_specs.yml" for role in roles]
        known = {option for spec in specs if spec.exists() for option in yaml.safe_load(spec.read_text())["argument_specs"]["main"]["options"]}
        for question in told.get("survey", []):
            variable = question["variable"]
            assert variable in QUESTIONS
            assert variable in known or re.search(r"\b{0}\b \|".format(variable), text), "{0}: {1} is no variable of it".format(name, variable)


def test_schedules_are_those_of_a_machine_without_awx() -> None:
    jobs = yaml.safe_load((ROOT / "roles" / "schedule" / "defaults" / "main.yml").read_text())["schedule_jobs"]
    for job in jobs:
        told = SCHEDULES[job["name"]]
        template = TEMPLATES[told["job_template"]]
        assert job["playbook"] == "saasodoo.postgres_pools." + template["playbook"]
        assert job["timeout"] == template["timeout"]
        times = {"*:0/5": "FREQ=MINUTELY;INTERVAL=5", "hourly": "FREQ=HOURLY;INTERVAL=1", "*-*-* 02:00:00": "FREQ=DAILY;INTERVAL=1"}
        assert told["rrule"].endswith(times[job["calendar"]])
        assert ("T020000Z" in told["rrule"]) == job["calendar"].endswith("02:00:00")


def test_what_a_job_gets_of_the_credentials() -> None:
    inputs = {"host": "db", "port": "", "database": "", "user": "service", "password": PASSWORD, "ssl_mode": ""}
    given = render(TYPES["inventory_database"]["injectors"], inputs)
    # libpq's password file has its own escapes.
    assert given["file"]["template"] == "*:*:*:*:pass\\:word\\\\of the-inventory"
    assert PASSWORD not in given["env"].values() and given["env"]["PGPORT"] == "5432"
    assert given["extra_vars"]["postgres_pools_inventory_db"] == {
        "login_host": "db",
        "login_port": "5432",
        "login_user": "service",
        "login_password": PASSWORD,
        "login_db": "postgres_pools",
        "ssl_mode": "prefer",
    }
    keys = render(TYPES["secret_keys"]["injectors"], {"keys": "one=\ntwo=\n"})
    assert keys["extra_vars"]["postgres_pools_keys"]["secret_keys"] == "one=,two="
    plain = render(TYPES["docker"]["injectors"], {"host": "tcp://m:2376", "ca_certificate": "", "client_certificate": "", "client_key": ""})
    assert plain["extra_vars"]["ansible_docker_extra_args"] == "-H tcp://m:2376"
    with_tls = render(TYPES["docker"]["injectors"], {"host": "tcp://m:2376", "ca_certificate": "x", "client_certificate": "y", "client_key": "z"})
    assert "--tlsverify --tlscacert /runner/env/ca" in with_tls["extra_vars"]["ansible_docker_extra_args"]


@pytest.mark.parametrize(
    "rule",
    ["", "RRULE:FREQ=DAILY;INTERVAL=1", "DTSTART:20260101T000000Z RRULE:FREQ=DAILY", "DTSTART:20260101T000000Z RRULE:FREQ=SECONDLY;INTERVAL=5"],
)
def test_the_contract_refuses_rules_as_awx_does(rule: str) -> None:
    with pytest.raises(RefusedError):
        check_rrule(rule)


def test_the_contract_refuses_what_awx_would_not_know() -> None:
    with awx(TOKEN, []) as made:
        organization = made.add("organizations", name="one")
        for kind, body in (
            ("organizations", {"name": "two", "unknown": 1}),
            ("organizations", {"name": "one"}),
            ("organizations", {"name": 5}),
            ("labels", {"name": "without an organization"}),
            ("labels", {"name": "of another", "organization": 99}),
            ("job_templates", {"name": "x", "project": made.add("projects", name="p", organization=organization), "playbook": "gone.yml"}),
        ):
            with pytest.raises(RefusedError):
                made.create(kind, body)

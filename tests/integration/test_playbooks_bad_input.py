# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: an exit status other than 0, a message that says what and where, no traceback, and nothing left behind."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from cryptography.fernet import Fernet
from environment import Environment, Outcome, environment, instances

TENANT, OTHER, GOOD = instances(3)
SERVER = {
    "backend": "process",
    "host": "127.0.0.1",
    "storage_root": "/nonexistent/postgres-pools",
}


class Case(NamedTuple):
    name: str
    playbook: str
    variables: Dict[str, Any]
    # Every one of these regular expressions must be found in the message.
    says: Tuple[str, ...]


def allocate(name: str, *says: str, **variables: Any) -> Case:
    return Case(
        name, "allocate", {key: value for key, value in dict(GOOD, **variables).items() if value is not None}, says
    )


CASES = [
    allocate("quotes", "instance_id must be a UUID", "DROP TABLE", instance_id="'; DROP TABLE db_servers; --\""),
    allocate("braces of a template", "instance_id must be a UUID", instance_id="{% raw %}{{ 1 + 1 }}{% endraw %}"),
    allocate("unicode", "customer_id must be a UUID", "ÿ雪", customer_id="ÿ雪-\u202e"),
    allocate("200 characters", r"instance_id must be a UUID, got 'a{50,56}\.\.\.", instance_id="a" * 200),
    allocate("not a UUID", "instance_id must be a UUID", "0b6c5c1e", instance_id="0b6c5c1e4a5f4a7e9c582f3d1e6a7b90"),
    allocate("a number", "instance_id must be a UUID", "42", instance_id=42),
    allocate("a null byte", "instance_id must be a UUID", instance_id="\x00" + GOOD["instance_id"]),
    allocate("unknown plan", "plan_tier 'golden' is unknown", "free.*premium.*standard", plan_tier="golden"),
    allocate("a plan with quotes", "plan_tier .* is unknown", plan_tier="standard'\"; DROP"),
    allocate("no instance", "instance_id must be a UUID", instance_id=None),
    allocate("no customer", "customer_id must be a UUID", customer_id=None),
    allocate("no plan", "plan_tier .* is unknown", plan_tier=None),
    allocate("another customer's instance", "belongs to another customer", instance_id=TENANT["instance_id"]),
    allocate(
        "result file nowhere",
        "result_file",
        "/nonexistent/directory/result.json",
        result_file="/nonexistent/directory/result.json",
    ),
    allocate("bad wait_timeout", "wait_timeout", "soon", wait_timeout="soon"),
    Case(
        "entry 2 and 3 of a list",
        "allocate",
        {"allocations": [GOOD, dict(OTHER, instance_id="zwei"), dict(OTHER, plan_tier="golden")]},
        ("entry 2: instance_id must be a UUID", "entry 3: plan_tier 'golden' is unknown"),
    ),
    Case("the same entry twice", "allocate", {"allocations": [GOOD, GOOD]}, ("entry 2:", "stands in entry 1 already")),
    Case("a list that is none", "allocate", {"allocations": "all"}, ("tenant_allocation_requests",)),
    allocate(
        "ports the wrong way round",
        "ports 20 to 10 are an empty range",
        postgres_pools_new_server=dict(SERVER, first_port=20, last_port=10),
    ),
    allocate(
        "memory that is no size",
        "much",
        postgres_pools_new_server=dict(SERVER, first_port=9, last_port=9, memory_limit="much"),
    ),
    Case(
        "memory too small",
        "provision_pool",
        {
            "server": "postgres-pool-small",
            "postgres_pools_new_server": dict(SERVER, first_port=7, last_port=7, memory_limit="16M"),
        },
        ("memory_limit of 16 MiB", "Raise memory_limit to"),
    ),
    Case("a pool for nobody", "provision_pool", {"max_instances": 0}, ("max_instances is 0",)),
    Case(
        "max_instances with a letter",
        "provision_pool",
        {"max_instances": "fünfzig"},
        ("max_instances", "fünfzig|f..nfzig"),
    ),
    Case(
        "a server name with quotes",
        "provision_pool",
        {"server": "pool'; --"},
        ("cannot be a server's name", "lower-case letters"),
    ),
    Case("a server name of 200 letters", "provision_pool", {"server": "p" * 200}, ("cannot be a server's name",)),
    Case("a dedicated server for nobody", "provision_dedicated", {"plan_tier": "premium"}, ("instance_id",)),
    Case(
        "a dedicated server of no plan",
        "provision_dedicated",
        dict(GOOD, plan_tier="golden"),
        ("plan_tier 'golden' is unknown",),
    ),
    Case("release of what is no UUID", "release", {"instance_id": "' OR 1=1"}, ("instance_id must be a UUID",)),
    Case(
        "release of an instance that never was",
        "release",
        {"instance_id": "99999999-9999-4999-8999-999999999999"},
        ("never was an allocation of instance 99999999-9999", "Nothing was released"),
    ),
    Case("release of nothing", "release", {}, ("instance_id must be a UUID",)),
    Case("bad keep_days", "release", {"instance_id": TENANT["instance_id"], "keep_days": "a week"}, ("keep_days",)),
    Case("an unknown status", "pools", {"status": "splendid"}, ("status", "splendid")),
    Case("an unknown server", "pools", {"server": "nowhere"}, ("nowhere",)),
    Case(
        "a new password for nobody", "rotate_password", {"instance_id": "-"}, ("instance_ids? must be a UUID, got '-'",)
    ),
    Case("no schema version 99", "inventory_db", {"inventory_db_version": 99}, ("99",)),
    Case("absent while there are servers", "inventory_db", {"inventory_db_state": "absent"}, ("discard|servers",)),
]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    """With one pool and one tenant in it."""
    with environment() as made:
        made.ready().play("allocate", TENANT).succeeded()
        yield made


def refused(scratch: Environment, outcome: Outcome, says: Tuple[str, ...], before: Dict[str, Any]) -> None:
    assert outcome.rc != 0, outcome.output
    assert "Traceback" not in outcome.output, outcome.output
    told = messages(outcome)
    assert told, "no message:\n" + outcome.output
    for expression in says:
        assert re.search(expression, told), "{0!r} is not in: {1}".format(expression, told)
    assert scratch.dump() == before


def messages(outcome: Outcome) -> str:
    """What the failed tasks said, and why."""
    found: List[str] = []
    for text in re.findall(r"^(?:fatal|failed): .*?=> (\{.*\})\s*$", outcome.output, re.M):
        result = json.loads(text)
        found.append(str(result.get("msg")))
        found.extend(str(error) for error in result.get("argument_errors", ()))
    return "\n".join(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(scratch: Environment, case: Case) -> None:
    before = scratch.dump()
    refused(scratch, scratch.play(case.playbook, case.variables), case.says, before)


def test_no_port_is_free(scratch: Environment) -> None:
    before = scratch.dump()
    # The inventory database itself is at it.
    new_server = dict(SERVER, first_port=scratch.port_base, last_port=scratch.port_base)
    outcome = scratch.play("allocate", dict(GOOD, require_dedicated=True, postgres_pools_new_server=new_server))
    says = ("No port from {0} to {0} is free on 127.0.0.1".format(scratch.port_base), "Widen the range")
    refused(scratch, outcome, says, before)


@pytest.mark.parametrize("playbook", ["allocate", "pools"])
def test_an_inventory_database_out_of_reach(scratch: Environment, playbook: str) -> None:
    before = scratch.dump()
    elsewhere = dict(
        login_host="127.0.0.1",
        login_port=9,
        login_user="database_service",
        login_password="x",
        login_db="postgres_pools",
    )
    outcome = scratch.play(playbook, dict(GOOD, postgres_pools_inventory_db=elsewhere))
    refused(scratch, outcome, ("postgres_pools", "127.0.0.1 port 9", "database_service"), before)


def test_a_wrong_password_of_the_service_role(scratch: Environment) -> None:
    before = scratch.dump()
    login = dict(
        login_host="127.0.0.1",
        login_port=scratch.port_base,
        login_user="database_service",
        login_password="x",
        login_db="postgres_pools",
    )
    outcome = scratch.play("allocate", dict(GOOD, postgres_pools_inventory_db=login))
    refused(scratch, outcome, ("password authentication failed", "port {0}".format(scratch.port_base)), before)


def test_a_missing_key_file(scratch: Environment) -> None:
    before = scratch.dump()
    outcome = scratch.play("allocate", dict(GOOD, postgres_pools_keys={"secret_key_file": "/nonexistent/keys"}))
    refused(scratch, outcome, ("/nonexistent/keys cannot be read", "secret_key_file"), before)


def test_a_key_that_is_none(scratch: Environment) -> None:
    before = scratch.dump()
    path = scratch.home / "nonsense"
    path.write_text("nonsense\n")
    outcome = scratch.play("allocate", dict(GOOD, postgres_pools_keys={"secret_key_file": str(path)}))
    refused(scratch, outcome, ("Secret key number 1 of 1 is not a Fernet key",), before)


def test_another_key_than_that_of_the_inventory(scratch: Environment) -> None:
    before = scratch.dump()
    path = scratch.home / "another-key"
    path.write_text(Fernet.generate_key().decode() + "\n")
    keys = {"secret_key_file": str(path)}
    outcome = scratch.play("allocate", dict(TENANT, postgres_pools_keys=keys))
    refused(
        scratch, outcome, ("server postgres-pool-1 was encrypted with a key that is not among those given",), before
    )

    # Without a check beforehand, a new one would have its place and a password that the right key cannot read.
    for playbook in ("allocate", "provision_pool"):
        outcome = scratch.play(playbook, dict(GOOD, postgres_pools_keys=keys))
        refused(scratch, outcome, ("encrypted with a key that is not among those given",), before)


def test_a_schema_of_another_version() -> None:
    with environment() as scratch:
        scratch.ready().play("inventory_db", {"inventory_db_version": 1}).succeeded()
        before = scratch.dump()
        for playbook in ("allocate", "pools", "release"):
            outcome = scratch.play(playbook, GOOD)
            refused(scratch, outcome, ("schema version 1, this code needs", "inventory_db.yml"), before)

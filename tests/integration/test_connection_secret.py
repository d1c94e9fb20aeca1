# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""allocate.yml with connection_secret on the embedded backend, with a fake of the docker command in place of a Swarm.

tests/swarm/test_connection_secret.py has a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
from environment import Environment, Outcome, difference, environment, instances
from role_fixture import guarded, role

TENANT, SECOND, THIRD, LATER = instances(4)
FAKE = Path(__file__).resolve().parent / "fake_docker.py"


class Platform:
    """Whoever calls the playbook, beside a Swarm."""

    def __init__(self, scratch: Environment, folder: Path) -> None:
        self.scratch, self.folder = scratch, folder
        (folder / "docker").write_text("#!{0}\n{1}".format(sys.executable, FAKE.read_text()))
        (folder / "docker").chmod(0o755)
        self.env = {"PATH": "{0}:{1}".format(folder, os.environ["PATH"])}
        scratch.base.update(self.env)

    def allocate(self, *flags: str, **variables: Any) -> Outcome:
        outcome = self.scratch.play("allocate", dict({"postgres_pools_manager": "localhost"}, **variables), "-vvv", "--diff", *flags)
        for row in self.scratch.rows("SELECT instance_id FROM db_allocations"):
            assert (self.scratch.password(row["instance_id"]) or "-----") not in outcome.output + self.calls()
        return outcome

    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""

    def secrets(self) -> Dict[str, Dict[str, Any]]:
        path = self.folder / "secrets.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def put(self, name: str) -> None:
        (self.folder / "secrets.json").write_text(json.dumps(dict(self.secrets(), **{name: {"labels": {}, "content": "theirs"}})))


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made.ready()


@pytest.fixture(scope="module")
def platform(scratch: Environment, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return Platform(scratch, tmp_path_factory.mktemp("swarm"))


def connected(content: str) -> List[Any]:
    with contextlib.closing(psycopg2.connect(content)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        return list(cursor.fetchone())


def test_a_signup_gets_its_connection_as_a_secret(platform: Platform) -> None:
    told = platform.allocate(connection_secret="acme", **TENANT).succeeded()
    stats = told.stats
    assert stats["status"] == "allocated" and stats["connection_secret"] == "acme" and stats["connection_secrets"] == {TENANT["instance_id"]: "acme"}
    (secret,) = platform.secrets().values()
    assert connected(secret["content"]) == [stats["user"], stats["database"]]
    assert secret["labels"]["postgres_pools.instance"] == TENANT["instance_id"]
    assert "secret create" in platform.calls()
    assert len(secret["labels"]["postgres_pools.content"]) == 64

    for flags in ((), ("--check",)):
        again = platform.allocate(*flags, connection_secret="acme", **TENANT).succeeded()
        assert again.changed == 0 and again.stats == stats


def test_a_new_password_is_in_a_new_version(platform: Platform) -> None:
    before = platform.secrets()
    platform.scratch.play("rotate_password", {"instance_id": TENANT["instance_id"]}).succeeded()
    told = platform.allocate(connection_secret="acme", **TENANT).succeeded().stats
    assert told["connection_secret"].startswith("acme-")
    after = platform.secrets()
    assert after["acme"] == before["acme"]
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connected(before["acme"]["content"])
    assert connected(after[told["connection_secret"]]["content"])


def test_each_of_a_list_has_its_own(platform: Platform) -> None:
    entries = [dict(SECOND, connection_secret="second", connection_secret_content="password"), THIRD]
    entries.append(dict(LATER, connection_secret="later", connection_secret_content="{host}:{port}/{database}"))
    told = platform.allocate(allocations=entries).succeeded().stats
    assert told["connection_secrets"] == {SECOND["instance_id"]: "second", LATER["instance_id"]: "later"} and "connection_secret" not in told
    assert platform.secrets()["second"]["content"] == platform.scratch.password(SECOND["instance_id"])
    place = next(one for one in told["allocations"] if one["instance_id"] == LATER["instance_id"])
    assert platform.secrets()["later"]["content"] == "{host}:{port}/{database}".format(**place)


def test_what_is_not_there_yet_has_none(platform: Platform) -> None:
    new = dict(instances(1)[0], require_dedicated=True, wait=False)
    told = platform.allocate(connection_secret="patient", **new).succeeded().stats
    assert told["status"] == "provisioning" and "connection_secrets" not in told
    assert "patient" not in platform.secrets()


def test_what_cannot_be_is_refused_before_anything(platform: Platform) -> None:
    platform.put("theirs")
    new = instances(1)[0]
    before, secrets = platform.scratch.dump(), platform.secrets()
    for variables, says in (
        (dict(new, connection_secret="-x"), "cannot be a Swarm secret's name"),
        ({"allocations": [new, dict(new, connection_secret="theirs")]}, "it is no connection secret"),
    ):
        outcome = platform.allocate(**variables)
        assert outcome.rc != 0 and says in outcome.output, outcome.output
    asked = dict(instance_id=new["instance_id"], connection_secret="new")
    one: Dict[str, Any] = {
        "content": (dict(asked, connection_secret_content="{password"), "names no part of a connection"),
        "instance": (dict(asked, instance_id="1"), "must be a UUID"),
        "taken": (dict(asked, connection_secret="acme"), "is that of instance " + TENANT["instance_id"]),
    }
    tasks = {name: check(entry) for name, (entry, _says) in one.items()}
    tasks["manager"] = check(asked, manager="")
    (platform.folder / "no-manager").touch()
    tasks["worker"] = check(asked)
    told = guarded(platform.scratch, {name: task for name, task in tasks.items() if name not in ("worker", "taken")}).stats
    told.update(guarded(platform.scratch, {"worker": tasks["worker"]}).stats)
    (platform.folder / "no-manager").unlink()
    told.update(guarded(platform.scratch, {"taken": tasks["taken"]}).stats)
    for name, (_entry, says) in one.items():
        assert says in told[name], (name, told[name])
    assert "names no manager" in told["manager"] and "does not answer for a Swarm" in told["worker"]
    assert not difference(before, platform.scratch.dump()) and platform.secrets() == secrets


def check(entry: Dict[str, Any], manager: str = "localhost") -> Dict[str, Any]:
    task = role("connection_secret", requests=[entry], manager=manager)
    task["ansible.builtin.include_role"]["tasks_from"] = "check"
    return task


def test_a_release_removes_it_with_its_versions(platform: Platform) -> None:
    assert any(name.startswith("acme-") for name in platform.secrets())
    wanted = {"instance_id": TENANT["instance_id"], "connection_secret": "acme", "postgres_pools_manager": "localhost"}
    assert platform.scratch.play("release", wanted).succeeded().stats["status"] == "released"
    assert sorted(platform.secrets()) == ["later", "second", "theirs"]

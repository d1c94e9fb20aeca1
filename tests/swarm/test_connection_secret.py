# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""allocate.yml with connection_secret on a real Swarm: a service that mounts the secret reaches its database by nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from typing import Any, Dict, Iterator, List

import pytest
import yaml
from swarm_fixture import EPHEMERAL, FOLDER, ROOT, Bed

NAME = "secret-of-a-test"
# It has a connection from the file alone, and says who it is there; an error ends it, and Swarm starts it anew.
APPLICATION = """
import pathlib, time, psycopg2
with psycopg2.connect(pathlib.Path("/run/secrets/dsn").read_text(), connect_timeout=5) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT current_user || ' ' || current_database()")
    print("is " + cursor.fetchone()[0], flush=True)
while True:
    time.sleep(1)
"""


class Signup:
    """One tenant, and what is in the Swarm for it."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.tenant = {"instance_id": str(uuid.uuid4()), "customer_id": str(uuid.uuid4()), "plan_tier": "standard"}
        self.result = EPHEMERAL / "connection-secret.json"
        self.services: List[str] = []

    def allocate(self, *flags: str, fails: bool = False, **more: Any) -> Dict[str, Any]:
        """The artifacts. Nothing of what is printed has the password in it."""
        EPHEMERAL.mkdir(parents=True, exist_ok=True)
        settings = {"ANSIBLE_SHOW_CUSTOM_STATS": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
        variables = dict(self.tenant, **more)
        done = self.bed.play("allocate", "-vvv", "--diff", *flags, env=settings, limit=600, result_file=str(self.result), **variables)
        assert (done.returncode != 0) == fails, done.stdout[-5000:]
        if self.result.exists():
            assert self.password() not in done.stdout
        told = done.stdout.rpartition("RUN: {")[2]
        return {"output": done.stdout} if fails else dict(json.JSONDecoder().raw_decode("{" + told)[0])

    def password(self) -> str:
        return str(json.loads(self.result.read_text())["password"])

    def serve(self, secret: str, authority: str = NAME + "-ca") -> str:
        """A service with these secrets as its only knowledge; what it says it is."""
        name = "application-of-" + secret
        self.services.append(name)
        image = self.bed.manager("docker", "image", "inspect", "--format", "{{.Id}}", self.bed.facts["swarm_bed_images"]["postgres_pools_client_18"]).strip()
        words = ["--detach", "--quiet", "--no-resolve-image", "--network", "saasodoo-network", "--restart-delay", "1s", "--name", name]
        mounts = ["--secret", "source={0},target=dsn".format(secret), "--secret", "source={0},target=ca".format(authority)]
        words += ["--env", "PGSSLROOTCERT=/run/secrets/ca"]
        self.bed.manager("docker", "service", "create", *words, *mounts, image, "python3", "-c", APPLICATION)
        deadline = time.monotonic() + 90
        while True:
            log = self.bed.manager("sh", "-c", "timeout 15 docker service logs --raw {0} 2>&1 || true".format(name))
            said = [line for line in log.splitlines() if line.startswith("is ")]
            if said:
                return said[-1][3:]
            assert time.monotonic() < deadline, log[-2000:]
            time.sleep(1)

    def stop(self) -> None:
        for name in self.services:
            self.bed.manager("sh", "-c", "docker service rm {0} || true".format(name))
        self.services.clear()
        deadline = time.monotonic() + 60
        # Swarm keeps a secret until the last task that had it is gone.
        while self.bed.manager("docker", "ps", "--quiet", "--filter", "name=application-of-" + NAME).split():
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def secrets(self) -> Dict[str, Dict[str, str]]:
        """Labels by name, of those of the test."""
        names = [one for one in self.bed.manager("docker", "secret", "ls", "--format", "{{.Name}}").split() if one.startswith(NAME)]
        found = json.loads(self.bed.manager("docker", "secret", "inspect", *names)) if names else []
        return {one["Spec"]["Name"]: one["Spec"].get("Labels") or {} for one in found}

    def clear(self) -> None:
        self.stop()
        for name in self.secrets():
            self.bed.manager("docker", "secret", "rm", name)


@pytest.fixture(scope="module")
def signup(bed: Bed) -> Iterator[Signup]:
    made = Signup(bed)
    made.clear()
    try:
        yield made
    finally:
        made.clear()
        bed.play("release", instance_id=made.tenant["instance_id"], keep_days=0)
        made.result.unlink(missing_ok=True)


def test_a_service_reaches_its_database_by_the_secret_alone(signup: Signup) -> None:
    told = signup.allocate(connection_secret=NAME)
    assert told["status"] == "allocated" and (told["connection_secret"], told["connection_secret_authority"]) == (NAME, NAME + "-ca")
    assert signup.serve(NAME) == "{user} {database}".format(**told)
    for what in ("service", "secret"):
        names = ["application-of-" + NAME] if what == "service" else [NAME]
        assert signup.password() not in signup.bed.manager("docker", what, "inspect", *names)
    labels = signup.secrets()[NAME]
    assert labels["postgres_pools.instance"] == signup.tenant["instance_id"] and signup.password() not in json.dumps(labels)

    again = signup.allocate(connection_secret=NAME)
    assert again == told and set(signup.secrets()) == {NAME, NAME + "-ca"}


def test_a_new_password_is_in_a_version_of_its_own(signup: Signup) -> None:
    done = signup.bed.play("rotate_password", instance_id=signup.tenant["instance_id"])
    assert done.returncode == 0, done.stdout[-3000:]
    checked = signup.allocate("--check", connection_secret=NAME)
    assert set(signup.secrets()) == {NAME, NAME + "-ca"}
    told = signup.allocate(connection_secret=NAME)
    assert told["connection_secret"] == checked["connection_secret"] and told["connection_secret"].startswith(NAME + "-")
    assert set(signup.secrets()) == {NAME, NAME + "-ca", told["connection_secret"]}
    assert signup.serve(told["connection_secret"]) == "{user} {database}".format(**told)


def test_a_name_that_is_taken_is_refused_before_anything(signup: Signup) -> None:
    theirs = NAME + ".theirs"
    signup.bed.manager("sh", "-c", 'printf theirs | docker secret create "$1" -', "sh", theirs)
    new = {"instance_id": str(uuid.uuid4()), "customer_id": str(uuid.uuid4())}
    says = {theirs: "it is no connection secret", NAME: "is that of instance " + signup.tenant["instance_id"], "a b": "cannot be a Swarm secret"}
    for name, words in says.items():
        told = signup.allocate(fails=True, connection_secret=name, **new)["output"]
        assert words in " ".join(told.split()), told[-3000:]
    assert not signup.bed.sql("SELECT 1 FROM db_allocations WHERE instance_id = '{instance_id}'".format(**new))
    assert signup.secrets()[theirs] == {}


def example(signup: Signup) -> List[Dict[str, Any]]:
    from ansible_collections.saasodoo.postgres_pools.plugins.modules import swarm_secret

    text = swarm_secret.EXAMPLES
    for told, ours in (("odoo-acme-database", NAME), ("0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90", signup.tenant["instance_id"])):
        assert told in text
        text = text.replace(told, ours)
    return list(yaml.safe_load(text))


def test_the_example_removes_all_versions_once_nobody_uses_them(signup: Signup) -> None:
    playbook = EPHEMERAL / "connection-secret.yml"
    playbook.write_text(yaml.safe_dump([{"name": "Clear up", "hosts": "database_clients", "gather_facts": False, "tasks": example(signup)}]))
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(FOLDER / "inventory"), str(playbook)]

    def play() -> subprocess.CompletedProcess[str]:
        env = dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"))
        return subprocess.run(command, cwd=str(ROOT), env=env, capture_output=True, text=True, timeout=120, check=False)

    held = play()
    assert held.returncode != 0 and "are used by a service" in " ".join(held.stdout.split()), held.stdout
    signup.stop()
    done = play()
    assert done.returncode == 0, done.stdout
    assert set(signup.secrets()) == {NAME + ".theirs", NAME + "-ca"}
    assert "changed=0" in play().stdout
    playbook.unlink()

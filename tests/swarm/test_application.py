# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role tenant_application on a real Swarm: an application that is told its connection by a variable, by a config and by a secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
import yaml
from cryptography.fernet import Fernet
from swarm_fixture import FOLDER, ROOT, SECRETS, Bed

NAME, OLD, NEW = "application-of-a-test", "database-before", "database-after"
PASSWORD = "Tenants0Password1Of2The3Swarm4Test"
CONF = "[options]\n; of the tenant\ndb_host = {0}\nadmin_passwd = hidden0word\n".format(OLD)
# It ends when it cannot reach its database, as Odoo does, and says where it looked.
APPLICATION = """
import configparser, os, pathlib, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *unused: sys.exit(0))
conf = configparser.RawConfigParser()
conf.read("/etc/application.conf")
dsn = pathlib.Path("/run/secrets/dsn").read_text()
assert conf["options"]["admin_passwd"] == "hidden0word"
hosts = [os.environ["DB_HOST"], conf["options"]["db_host"], dsn.rpartition("@")[2].partition(":")[0]]
print("asks " + " ".join(hosts), flush=True)
for host in hosts:
    socket.create_connection((host, 5432), 3).close()
pathlib.Path("/tmp/connected").touch()
print("reached " + " ".join(hosts), flush=True)
while True:
    time.sleep(0.2)
"""
DATABASE = """
import socket
with socket.create_server(("0.0.0.0", 5432)) as server:
    while True:
        server.accept()[0].close()
"""
DESCRIBED: Dict[str, Any] = {
    "service": NAME,
    "env": {"DB_HOST": "host"},
    "config": [{"target": "/etc/application.conf", "keys": {"db_host": "host", "db_port": "port"}}],
    "secrets": [{"target": "dsn", "content": "dsn"}],
    "healthy_timeout": 60,
    "stop_timeout": 40,
    "stable_seconds": 2,
}


class Application:
    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed, self.folder = bed, folder
        key = (SECRETS / "key").read_text().split()[0]
        self.token = Fernet(key if key.endswith("=") else key + "=").encrypt(PASSWORD.encode()).decode()

    # --- calls of the role

    def connection(self, host: str) -> Dict[str, Any]:
        return {"host": host, "port": 5432, "database": "d", "user": "u", "sslmode": "prefer", "password_encrypted": self.token}

    def command(self, *states: Any, flags: Any = (), **more: Any) -> List[str]:
        tasks = []
        for state, host in states:
            variables = {"state": state, "application": dict(DESCRIBED, **more), "connection": self.connection(host) if host else {}}
            tasks.append(
                {
                    "name": state,
                    "ansible.builtin.include_role": {"name": "saasodoo.postgres_pools.tenant_application"},
                    "vars": {"tenant_application_" + name: value for name, value in variables.items()},
                }
            )
        return self.playbook(tasks, *flags)

    def playbook(self, tasks: List[Dict[str, Any]], *flags: str) -> List[str]:
        play = {
            "name": "A play of somebody else's",
            "hosts": "database_clients",
            "gather_facts": False,
            "module_defaults": {"saasodoo.postgres_pools.application_secret": "{{ postgres_pools_keys }}"},
            "tasks": tasks,
        }
        playbook = self.folder / "play.yml"
        playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        return [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(FOLDER / "inventory"), str(playbook), *flags]

    def start(self, command: List[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=dict(os.environ, POSTGRES_POOLS_SECRETS=str(SECRETS), ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def bring(self, *states: Any, flags: Any = (), fails: bool = False, **more: Any) -> str:
        return self.run(self.command(*states, flags=flags, **more), fails)

    def run(self, command: List[str], fails: bool = False) -> str:
        run = self.start(command)
        try:
            told = run.communicate(timeout=300)[0]
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
        assert (run.returncode != 0) == fails, told[-4000:]
        assert PASSWORD not in told and "hidden0word" not in told
        return " ".join(told.split())

    # --- what is there

    def spec(self) -> Dict[str, Any]:
        return dict(json.loads(self.bed.manager("docker", "service", "inspect", NAME))[0]["Spec"])

    def looks(self) -> Dict[str, Any]:
        spec = self.spec()
        container = spec["TaskTemplate"]["ContainerSpec"]
        return {
            "env": sorted(container["Env"]),
            "configs": container["Configs"],
            "secrets": container["Secrets"],
            "labels": sorted(spec.get("Labels") or {}),
            "replicas": spec["Mode"]["Replicated"]["Replicas"],
            "objects": sorted(self.bed.manager("docker", kind, "ls", "--format", "{{.Name}}").split() for kind in ("config", "secret")),
        }

    def running(self) -> List[str]:
        """What each of its containers reached last, on whatever node."""
        told = []
        for node in self.bed.nodes:
            for container in self.bed.on(node, "docker", "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=" + NAME).split():
                # One that has just begun, or just ended, has nothing to say.
                log = self.bed.on(node, "sh", "-c", "docker logs {0} 2>&1 || true".format(container)).strip()
                told.append(log.splitlines()[-1] if log else "")
        return told

    def labelled(self, label: str, limit: float = 60) -> None:
        deadline = time.monotonic() + limit
        while label not in (self.spec().get("Labels") or {}):
            assert time.monotonic() < deadline, label
            time.sleep(0.1)


def create(bed: Bed, name: str, program: str, *more: str) -> None:
    # By its id: for a name each start of a task would ask a registry that there is not, for 20 s.
    image = bed.manager("docker", "image", "inspect", "--format", "{{.Id}}", bed.facts["swarm_bed_images"]["postgres_pools_client_18"]).strip()
    words = ["--detach", "--quiet", "--no-resolve-image", "--network", "saasodoo-network", "--endpoint-mode", "dnsrr", "--name", name, *more]
    bed.manager("docker", "service", "create", *words, image, "python3", "-c", program)


def put(bed: Bed, kind: str, name: str, content: str) -> None:
    bed.manager("sh", "-c", 'printf %s "$1" | docker {0} create "$2" -'.format(kind), "sh", content, name)


def remove(bed: Bed, *names: str) -> None:
    for name in names:
        bed.manager("sh", "-c", "docker service rm {0} || true".format(name))
    for kind in ("config", "secret"):
        bed.manager("sh", "-c", "docker {0} ls --format '{{{{.Name}}}}' | grep '^{1}-' | xargs -r docker {0} rm".format(kind, NAME))


@pytest.fixture(scope="module")
def databases(bed: Bed) -> Iterator[None]:
    remove(bed, NAME, OLD, NEW)
    for name in (OLD, NEW):
        create(bed, name, DATABASE)
    yield
    remove(bed, NAME, OLD, NEW)


@pytest.fixture()
def application(bed: Bed, databases: None, tmp_path: Path) -> Iterator[Application]:
    try:
        yield made(bed, tmp_path, 2, "--health-cmd", "test -e /tmp/connected", "--health-interval", "1s", "--health-retries", "5")
    finally:
        remove(bed, NAME)


def made(bed: Bed, folder: Path, replicas: int, *more: str) -> Application:
    dsn = "postgresql://u:{0}@{1}:5432/d".format(PASSWORD, OLD)
    put(bed, "config", NAME + "-conf", CONF)
    put(bed, "secret", NAME + "-dsn", dsn)
    words = ["--replicas", str(replicas), "--env", "DB_HOST=" + OLD, "--env", "KEPT=a=b", "--restart-delay", "1s", "--stop-grace-period", "5s"]
    words += ["--config", "source={0}-conf,target=/etc/application.conf,mode=0440".format(NAME), "--secret", "source={0}-dsn,target=dsn".format(NAME)]
    create(bed, NAME, APPLICATION, *words, *more)
    found = Application(bed, folder)
    deadline = time.monotonic() + 60
    while found.running() != ["reached " + " ".join([OLD] * 3)] * replicas:
        assert time.monotonic() < deadline, found.running()
        time.sleep(0.5)
    return found


def reached(host: str, replicas: int = 2) -> List[str]:
    return ["reached {0} {0} {0}".format(host)] * replicas


def test_a_move_and_the_way_back(application: Application) -> None:
    before = application.looks()
    told = application.bring(("stopped", OLD), flags=["--check", "--diff"])
    assert "-replicas: 2 +replicas: 0" in told and application.looks() == before

    application.bring(("stopped", OLD))
    assert application.running() == []
    told = application.bring(("started", NEW), flags=["--diff"])
    assert application.running() == reached(NEW)
    assert "-env DB_HOST: {0} ".format(OLD) in told and "+env DB_HOST: {0} ".format(NEW) in told
    there = application.looks()
    assert there["env"] == ["DB_HOST=" + NEW, "KEPT=a=b"] and there["configs"][0]["File"] == before["configs"][0]["File"]
    config = application.bed.manager("docker", "config", "inspect", "--format", "{{json .Spec.Data}}", there["configs"][0]["ConfigName"])
    assert application.bed.decoded({"Spec": {"Data": config}}) == CONF.replace("= " + OLD, "= " + NEW) + "db_port = 5432\n"
    assert PASSWORD not in application.bed.manager("docker", "service", "inspect", NAME)
    again = application.bring(("started", NEW))
    assert "changed=0" in again and application.looks() == there

    application.bring(("stopped", NEW), ("restored", OLD))
    assert application.running() == reached(OLD)
    assert application.looks() == before
    assert "changed=0" in application.bring(("restored", OLD), ("settled", None))


def test_the_examples_run(application: Application) -> None:
    from ansible_collections.saasodoo.postgres_pools.plugins.modules import swarm_application

    text = swarm_application.EXAMPLES
    for example, ours in (("odoo-acme", NAME), ("postgres-dedicated-0b6c5c1e", NEW), ("HOST:", "DB_HOST:"), ("/etc/odoo/odoo.conf", "/etc/application.conf")):
        assert example in text
        text = text.replace(example, ours)
    application.run(application.playbook(yaml.safe_load(text)))
    # Its secret was not told of.
    assert application.running() == ["reached {0} {0} {1}".format(NEW, OLD)] * 2


def test_one_that_does_not_start_says_why_and_goes_back(application: Application) -> None:
    before = application.looks()
    application.bring(("stopped", OLD))
    began = time.monotonic()
    told = application.bring(("started", "127.0.0.1"), fails=True)
    seconds = time.monotonic() - began
    for words in ("does not come up", "task: non-zero exit (1)", "Connection refused", "Its former connection was put back, and it is stopped"):
        assert words in told, told[-3000:]
    assert application.running() == []
    assert seconds < 30
    application.bring(("restored", OLD))
    assert application.running() == reached(OLD)
    assert application.looks() == before


def test_killed_between_and_called_again(application: Application) -> None:
    before = application.looks()
    for state, host, label in (("stopped", OLD, "postgres_pools.replicas"), ("started", NEW, "postgres_pools.former")):
        run = application.start(application.command((state, host)))
        try:
            application.labelled(label)
        finally:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
        application.bring((state, host))
        assert application.running() == ([] if state == "stopped" else reached(NEW))
    application.bring(("stopped", NEW), ("restored", OLD))
    assert application.looks() == before


def test_one_that_somebody_else_stopped_stays_so(application: Application) -> None:
    application.bed.manager("docker", "service", "scale", "--detach", NAME + "=0")
    told = application.bring(("stopped", OLD), ("started", NEW), ("restored", OLD))
    assert "stays without replicas: it was not stopped here" in told
    assert application.looks()["replicas"] == 0 and application.running() == []


def test_one_on_a_node_that_is_down_is_not_taken_for_stopped(bed: Bed, application: Application) -> None:
    victim = bed.nodes[-1]
    bed.manager("docker", "service", "update", "--detach", "--quiet", "--constraint-add", "node.hostname==" + victim, "--replicas", "1", NAME)
    wait: Optional[float] = time.monotonic() + 60
    while application.running() != reached(OLD, 1) or not bed.on(victim, "docker", "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=" + NAME):
        assert wait and time.monotonic() < wait
        time.sleep(0.5)
    bed.fault("kill", victim)
    try:
        told = application.bring(("stopped", OLD), fails=True)
        assert "1 of its tasks on {0}, which is down, and may still write".format(victim) in told, told[-3000:]
    finally:
        bed.fault("start", victim)
    application.bring(("stopped", OLD), ("restored", OLD))
    assert application.running() == reached(OLD, 1)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a Swarm service, against a fake of the docker command: also killed at each of its commands and called again.

The fake keeps to what was seen of Docker's own; tests/swarm/test_application.py has the real one.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
from typing import Any, Dict, List, Optional, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _application_wait
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_manager import Manager
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_swarm import Application
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

CONF = "[options]\n; theirs\ndb_host = pool\nadmin_passwd = hidden\n"
OLD = {"host": "pool", "port": "5432", "user": "u"}
NEW = {"host": "dedicated", "port": "5433", "user": "u"}
OTHER = {"host": "third", "port": "5434", "user": "u"}
PARTS: Dict[str, Any] = {
    "env": {"DB_HOST": "host", "DB_PORT": "port"},
    "config": [{"target": "/etc/app.conf", "section": "options", "keys": {"db_host": "host", "db_port": "port"}}],
}


class Killed(BaseException):
    """As SIGKILL: nothing of the module runs after it."""


class Swarm:
    """One service app with two replicas, a config, a secret, and nodes that do at once what they are told."""

    def __init__(self) -> None:
        self.objects: Dict[str, Dict[str, Tuple[str, Dict[str, str]]]] = {
            "config": {"app-conf": (CONF, {"stack": "x"})},
            "secret": {"app-dsn": ("(secret)", {})},
        }
        file = {"UID": "0", "GID": "0", "Mode": 0o440}
        self.container: Dict[str, Any] = {
            "Env": ["DB_HOST=pool", "KEPT=a=b"],
            "Configs": [{"File": {"Name": "/etc/app.conf", **file}, "ConfigName": "app-conf"}],
            "Secrets": [{"File": {"Name": "dsn", **file}, "SecretName": "app-dsn"}],
        }
        self.labels: Dict[str, str] = {"theirs": "1"}
        self.replicas, self.version = 2, 0
        self.tasks: List[Dict[str, Any]] = []
        self.node = "ready"
        # Hosts that the application does not come up with.
        self.bad = ("broken",)
        self.commands: List[List[str]] = []
        self.dies_at: Optional[int] = None
        self._schedule()

    def service(self) -> Dict[str, Any]:
        spec = {
            "Name": "app",
            "Labels": self.labels,
            "TaskTemplate": {"ContainerSpec": self.container},
            "Mode": {"Replicated": {"Replicas": self.replicas}},
        }
        return copy.deepcopy({"ID": "1", "UpdatedAt": "2026-01-01T00:00:{0:02}.5Z".format(self.version), "Spec": spec})

    def _schedule(self) -> None:
        for task in self.tasks:
            task["DesiredState"] = "shutdown"
            if task["Status"]["State"] == "running" and self.node == "ready":
                task["Status"]["State"] = "shutdown"
        env = dict(one.split("=", 1) for one in self.container["Env"])
        for slot, again in itertools.product(range(self.replicas), range(2)):
            broken = env.get("DB_HOST") in self.bad
            if broken or not again:
                self.tasks.append(
                    {
                        "ID": "t{0}".format(len(self.tasks)),
                        "Slot": slot,
                        "NodeID": "n1",
                        "CreatedAt": "2026-01-01T00:00:{0:02}.{1}Z".format(self.version, again),
                        "DesiredState": "shutdown" if broken else "running",
                        "Spec": {"ContainerSpec": copy.deepcopy(self.container)},
                        "Status": {"State": "failed", "Err": "task: non-zero exit (3)"} if broken else {"State": "running"},
                    }
                )

    def run(self, words: List[str], data: Optional[str]) -> Tuple[int, str, str]:
        self.commands.append(words)
        if self.dies_at is not None and len(self.commands) > self.dies_at:
            raise Killed
        kind, verb = words[:2]
        if kind in self.objects:
            return self._object(kind, verb, words[2:], data)
        if words[:2] == ["service", "inspect"]:
            return (0, json.dumps([self.service()]), "") if words[2] == "app" else (1, "[]", "Status: Error: no such service: x\n")
        if words[:2] == ["service", "update"]:
            self._update(words[4:-1])
        told = {
            "service ps": "\n".join(task["ID"] for task in self.tasks),
            "inspect --type": json.dumps([task for task in self.tasks if task["ID"] in words]),
            "node ls": "n1 node1 {0}\n".format(self.node.capitalize()),
            "service logs": "cannot connect\n",
            "service update": "",
        }
        return 0, told["{0} {1}".format(kind, verb)], ""

    def _object(self, kind: str, verb: str, words: List[str], data: Optional[str]) -> Tuple[int, str, str]:
        there = self.objects[kind]
        if verb == "ls":
            key, _equals, value = words[1].partition("=")
            label, _equals, wanted = value.partition("=")
            names = [name for name, one in there.items() if (value in name if key == "name" else one[1].get(label) == wanted)]
            return 0, "\n".join(names), ""
        if verb == "inspect":
            content, labels = there[words[0]]
            data = base64.b64encode(content.encode()).decode() if kind == "config" else None
            return 0, json.dumps([{"Spec": {"Labels": labels, "Data": data}}]), ""
        if verb == "rm":
            del there[words[0]]
            return 0, "", ""
        assert data is not None and words[-2] not in there
        there[words[-2]] = (data, dict(word.split("=", 1) for word in words[1:-2:2]))
        return 0, "", ""

    def _update(self, words: List[str]) -> None:
        before = json.dumps([self.container, self.replicas])
        for flag, word in zip(words[::2], words[1::2]):
            what, _dash, verb = flag[2:].rpartition("-")
            name = word.split("=", 1)[0]
            if flag == "--replicas":
                self.replicas = int(word)
            elif what == "label":
                self.labels.pop(name, None)
                self.labels.update([word.split("=", 1)] if verb == "add" else [])
            elif what == "env":
                self.container["Env"] = [one for one in self.container["Env"] if one.split("=", 1)[0] != name] + ([word] if verb == "add" else [])
            else:
                key, named = what.capitalize() + "s", what.capitalize() + "Name"
                if verb == "rm":
                    self.container[key] = [one for one in self.container[key] if one[named] != word]
                    continue
                parts = dict(part.split("=", 1) for part in word.split(","))
                assert parts["source"] in self.objects[what]
                file = {"Name": parts["target"], "UID": parts["uid"], "GID": parts["gid"], "Mode": int(parts["mode"], 8)}
                self.container[key].append({"File": file, named: parts["source"]})
        self.version += 1
        if json.dumps([self.container, self.replicas]) != before:
            self._schedule()

    def looks(self) -> Dict[str, Any]:
        """What the application is told, and how much of it runs."""
        names = [one["ConfigName"] for one in self.container["Configs"]] + [one["SecretName"] for one in self.container["Secrets"]]
        return {
            "env": sorted(self.container["Env"]),
            "config": self.objects["config"][names[0]][0],
            "secret": self.objects["secret"][names[1]][0],
            "running": sum(task["Status"]["State"] == "running" for task in self.tasks),
            "labels": sorted(self.labels),
            "objects": sorted(itertools.chain(*self.objects.values())),
        }


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_application_wait, "PAUSE", 0)


def bring(swarm: Swarm, state: str, connection: Optional[Dict[str, str]] = None, dry: bool = False, **more: Any) -> Dict[str, Any]:
    secrets = [{"target": "dsn", "content": "dsn of " + connection["host"] if connection and state == "started" else ""}]
    params = dict(PARTS, service="app", state=state, connection=connection, secrets=secrets, log_lines=5)
    params.update({"stable_seconds": 0, "healthy_timeout": 1, "stop_timeout": 0.2, **more})
    return Application(Manager(swarm.run), params, dry).bring()


def moved(swarm: Swarm, connection: Dict[str, str]) -> None:
    bring(swarm, "stopped")
    bring(swarm, "started", connection)


def test_a_move_and_the_way_back() -> None:
    swarm = Swarm()
    before = swarm.looks()
    assert bring(swarm, "stopped")["changed"]
    assert swarm.looks() == dict(before, running=0, labels=["postgres_pools.replicas", "theirs"])
    told = bring(swarm, "started", NEW)
    assert told["replicas"] == 2 and "env DB_HOST: pool\n" in told["diff"]["before"] and "env DB_HOST: dedicated\n" in told["diff"]["after"]
    assert "[options] db_host: dedicated" in told["diff"]["after"] and "hidden" not in json.dumps(told)
    there = swarm.looks()
    assert there["env"] == ["DB_HOST=dedicated", "DB_PORT=5433", "KEPT=a=b"]
    assert there["config"] == CONF.replace("= pool", "= dedicated") + "db_port = 5433\n"
    assert (there["secret"], there["running"]) == ("dsn of dedicated", 2)
    assert there["labels"] == ["postgres_pools.former", "theirs"]
    assert [one["File"]["Mode"] for one in swarm.container["Configs"]] == [0o440]
    assert [labels["stack"] for name, (_content, labels) in swarm.objects["config"].items()] == ["x", "x"]

    bring(swarm, "stopped")
    told = bring(swarm, "restored", OLD)
    assert swarm.looks() == before and len(told["removed"]) == 2
    assert not bring(swarm, "restored", OLD)["changed"]


def test_settled_forgets_and_keeps_what_others_made() -> None:
    swarm = Swarm()
    moved(swarm, NEW)
    first = swarm.looks()["objects"]
    moved(swarm, OTHER)
    # Two moves that nobody settled: each way back is there.
    assert len(swarm.looks()["objects"]) == 6
    assert bring(swarm, "settled")["changed"]
    after = swarm.looks()
    assert after["labels"] == ["theirs"] and "DB_HOST=third" in after["env"] and after["running"] == 2
    assert {"app-conf", "app-dsn"} < set(after["objects"]) and len(after["objects"]) == 4 and after["objects"] != first
    assert not bring(swarm, "settled")["changed"]


def test_a_move_that_was_not_begun_puts_nothing_of_an_older_one_back() -> None:
    swarm = Swarm()
    moved(swarm, NEW)
    there = swarm.looks()
    bring(swarm, "stopped")
    bring(swarm, "restored", NEW)
    assert swarm.looks() == there
    # The older one still has its way back.
    bring(swarm, "stopped")
    bring(swarm, "restored", OLD)
    assert swarm.looks() == Swarm().looks()


def test_what_does_not_start_is_put_back_and_stopped() -> None:
    swarm = Swarm()
    bring(swarm, "stopped")
    stopped = swarm.looks()
    with pytest.raises(PoolsError, match=r"node1: task: non-zero exit \(3\)\. Its former connection was put back, .* log: cannot connect$"):
        bring(swarm, "started", dict(NEW, host="broken"))
    after = swarm.looks()
    assert dict(after, objects=stopped["objects"]) == stopped
    bring(swarm, "restored", OLD)
    assert swarm.looks() == Swarm().looks()


def test_what_does_not_start_keeps_the_memory_of_the_move_before() -> None:
    swarm = Swarm()
    moved(swarm, NEW)
    bring(swarm, "stopped")
    with pytest.raises(PoolsError):
        bring(swarm, "started", dict(OTHER, host="broken"))
    bring(swarm, "restored", NEW)
    assert "DB_HOST=dedicated" in swarm.looks()["env"]
    bring(swarm, "restored", OLD)
    assert swarm.looks() == Swarm().looks()


def test_what_is_put_in_twice_is_remembered_as_it_was_before_the_first_time() -> None:
    swarm = Swarm()
    moved(swarm, NEW)
    swarm._update(["--env-add", "DB_HOST=by hand"])
    assert bring(swarm, "started", NEW)["changed"]
    bring(swarm, "restored", OLD)
    assert swarm.looks() == Swarm().looks()


def test_a_service_that_somebody_else_stopped_stays_so() -> None:
    swarm = Swarm()
    swarm.replicas = 0
    swarm._schedule()
    assert bring(swarm, "stopped")["warnings"]
    told = bring(swarm, "started", NEW)
    assert told["warnings"] and told["replicas"] == 0 and "DB_HOST=dedicated" in swarm.looks()["env"]
    bring(swarm, "restored", OLD)
    assert (swarm.replicas, swarm.looks()["running"]) == (0, 0)


@pytest.mark.parametrize("state", ["stopped", "started", "restored", "settled"])
def test_killed_at_each_command_and_called_again(state: str) -> None:
    def prepared() -> Swarm:
        swarm = Swarm()
        if state != "stopped":
            bring(swarm, "stopped")
        if state in ("restored", "settled"):
            bring(swarm, "started", NEW)
        return swarm

    connection = {"started": NEW, "restored": OLD}.get(state)
    whole = prepared()
    begun = len(whole.commands)
    bring(whole, state, connection)
    for command in range(begun, len(whole.commands)):
        swarm = prepared()
        swarm.dies_at = command
        with pytest.raises(Killed):
            bring(swarm, state, connection)
        swarm.dies_at = None
        bring(swarm, state, connection)
        assert swarm.looks() == whole.looks(), whole.commands[command]
        done = len(swarm.commands)
        assert not bring(swarm, state, connection)["changed"]
        assert all(words[1] in ("inspect", "ls", "ps", "--type") for words in swarm.commands[done:])


@pytest.mark.parametrize("state", ["stopped", "started", "restored", "settled"])
def test_check_mode_tells_and_changes_nothing(state: str) -> None:
    swarm = Swarm()
    if state in ("restored", "settled"):
        moved(swarm, NEW)
    before, done = swarm.looks(), len(swarm.commands)
    assert bring(swarm, state, {"started": NEW, "restored": OLD}.get(state), dry=True)["changed"]
    assert swarm.looks() == before
    assert all(words[1] in ("inspect", "ls", "ps", "--type") for words in swarm.commands[done:])


def test_a_task_on_a_node_that_is_down_is_not_taken_for_stopped() -> None:
    swarm = Swarm()
    swarm.node = "down"
    with pytest.raises(PoolsError, match=r"2 of its tasks on node1, which is down, and may still write.*docker node rm"):
        bring(swarm, "stopped")
    swarm.node = "ready"
    swarm._schedule()
    bring(swarm, "stopped")


def test_nothing_is_taken_from_somebody_who_changed_it_meanwhile() -> None:
    swarm = Swarm()
    bring(swarm, "stopped")
    real = swarm.run

    def run(words: List[str], data: Optional[str]) -> Tuple[int, str, str]:
        if words[:2] == ["service", "ps"]:
            swarm.replicas = 1
        return real(words, data)

    swarm.run = run  # type: ignore[method-assign]
    with pytest.raises(PoolsError, match="changed by somebody else"):
        bring(swarm, "started", NEW, stable_seconds=0.1)
    assert swarm.replicas == 1 and "DB_HOST=dedicated" in swarm.looks()["env"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"service": "x"}, "no service x"),
        ({"env": {"A": "password"}}, "The variable A asks for password"),
        ({"env": {"A": "hots"}}, "asks for 'hots', which no connection has"),
        ({"config": [{"target": "/etc/other", "section": "options", "keys": {}}]}, r"no config at /etc/other. It has /etc/app.conf"),
        ({"config": [{"target": "/etc/app.conf", "section": "x", "keys": {}}]}, r"no section \[x\]"),
        ({"config": [{"target": "/etc/app.conf", "section": "options", "keys": {"a": "dsn"}}]}, "key a asks for dsn"),
        ({"secrets": [{"target": "other", "content": ""}]}, "no secret at other"),
    ],
)
def test_what_could_not_be_put_in_is_refused_while_it_still_runs(more: Dict[str, Any], words: str) -> None:
    swarm = Swarm()
    params = dict(PARTS, service="app", state="stopped", connection=None, secrets=[], stop_timeout=1)
    params.update(more)
    with pytest.raises(PoolsError, match=words):
        Application(Manager(swarm.run), params, False).bring()
    assert swarm.looks() == Swarm().looks()

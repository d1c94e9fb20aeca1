# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an application is told of its connection, and what its service's tasks say. The tasks' shape is that of the Docker API."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _application_connection,
    _application_service,
    _application_tasks,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from cryptography.fernet import Fernet

CONNECTION = {"host": "h", "port": "5432", "database": "d b", "user": "u@x", "sslmode": "verify-full", "ca_certificate": "-----\nx\n"}
NODES = {"n1": {"name": "one", "status": "ready"}, "n2": {"name": "two", "status": "down"}}
SPEC = {"ContainerSpec": {"Image": "x"}}


def test_secrets_are_filled_and_the_password_is_opened() -> None:
    key = Fernet.generate_key().decode()
    token = Cipher([key]).encrypt("p")
    entries = [{"target": one, "content": one} for one in ("host", "password", "dsn", "ca_certificate", "{host}:{port}:{password} {{")]
    told = _application_connection.contents(dict(CONNECTION, password_encrypted=token), entries, {"secret_keys": [key]})
    assert {one["target"]: one["content"] for one in told} == {
        "host": "h",
        "password": "p",
        "dsn": "postgresql://u%40x:p@h:5432/d%20b?sslmode=verify-full",
        "ca_certificate": "-----\nx\n",
        "{host}:{port}:{password} {{": "h:5432:p {{",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [("plain", "names no part"), ("{host}{hots}", "no connection has hots"), ("password", "asks for password, which the connection given does not")],
)
def test_a_secret_that_cannot_be_filled(content: str, words: str) -> None:
    with pytest.raises(PoolsError, match=words):
        _application_connection.contents(CONNECTION, [{"target": "t", "content": content}], {})


def test_the_place_is_known_again_when_the_rest_changed() -> None:
    told = _application_connection.place(CONNECTION)
    assert told == _application_connection.place({"host": "h", "port": 5432, "sslmode": "prefer"}) == "h:5432"
    assert told not in [_application_connection.place(dict(CONNECTION, **more)) for more in ({"host": "i"}, {"port": 1})]
    assert _application_connection.place({"host": None}) == _application_connection.place({}) == ""


def task(state: str, slot: int = 1, desired: str = "running", node: str = "n1", made: str = "05", error: str = "") -> Dict[str, Any]:
    return {
        "ID": "{0}{1}{2}".format(state, slot, made),
        "Slot": slot,
        "NodeID": node,
        "CreatedAt": "2026-01-01T00:00:{0}.1Z".format(made),
        "DesiredState": desired,
        "Spec": SPEC,
        "Status": {"State": state, "Err": error},
    }


@pytest.mark.parametrize(
    ("tasks", "state"),
    [
        ([], "ready"),
        ([task("shutdown"), task("failed"), task("complete"), task("rejected")], "ready"),
        ([task("running", desired="shutdown")], "waiting"),
        ([task("starting", desired="shutdown")], "waiting"),
        ([task("pending", node="")], "waiting"),
        ([task("pending", node="", desired="shutdown")], "ready"),
        ([task("running", desired="shutdown", node="n2")], "failed"),
        ([task("orphaned", desired="shutdown", node="n2")], "failed"),
        ([task("orphaned", desired="shutdown")], "ready"),
        ([task("shutdown", node="n2")], "ready"),
        ([task("running", desired="shutdown"), task("running", desired="shutdown", node="n2")], "waiting"),
        ([task("running", desired="shutdown", node="removed")], "ready"),
    ],
)
def test_stopped(tasks: Any, state: str) -> None:
    assert _application_tasks.stopped(tasks, NODES).state == state


@pytest.mark.parametrize(
    ("tasks", "state", "words"),
    [
        ([], "waiting", "0 of 2 running"),
        ([task("running"), task("running", 2)], "ready", "running"),
        ([task("running"), task("starting", 2)], "waiting", "1 of 2 running, starting"),
        ([task("running"), task("running", 2, desired="shutdown")], "waiting", "1 of 2 running, running"),
        ([task("running"), task("ready", 2), task("failed", 2, error="e"), task("failed", 2, error="e")], "failed", "e"),
        # Errors of before the service was stopped are no sign of how it starts now.
        ([task("running"), task("ready", 2), task("failed", 2, error="e", made="01"), task("failed", 2, error="e", made="02")], "waiting", "1 of 2"),
        ([task("running"), task("ready", 2), task("complete", 2), task("complete", 2)], "failed", "the task ended by itself"),
    ],
)
def test_started(tasks: Any, state: str, words: str) -> None:
    service = {"UpdatedAt": "2026-01-01T00:00:04.9Z", "Spec": {"TaskTemplate": SPEC, "Mode": {"Replicated": {"Replicas": 2}}}}
    verdict = _application_tasks.started(service, tasks, 2, 0)
    assert (verdict.state, verdict.words[: len(words)]) == (state, words)


def test_one_config_at_two_places_is_exchanged_at_one() -> None:
    def config(target: str) -> Dict[str, Any]:
        return {"File": {"Name": target, "UID": "0", "GID": "0", "Mode": 0o444}, "ConfigName": "both"}

    container = {"Configs": [config("/a,b"), config("/c"), {"Runtime": {}, "ConfigName": "credentials"}]}
    service = {"Spec": {"Name": "app", "TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": 1}}}}
    words = _application_service.update(service, _application_service.Found({}, {"/a,b": "new"}, {}), {}, 1)
    kept = "source=both,target=/c,uid=0,gid=0,mode=0444"
    assert words == ["--config-rm", "both", "--config-add", 'source=new,"target=/a,b",uid=0,gid=0,mode=0444', "--config-add", kept]


@pytest.mark.parametrize("mode", [{"Global": {}}, {"ReplicatedJob": {}}])
def test_a_service_that_has_no_replicas_is_refused(mode: Dict[str, Any]) -> None:
    with pytest.raises(PoolsError, match="has no replicas"):
        _application_service.replicas({"Spec": {"Name": "app", "Mode": mode}})


@pytest.mark.parametrize(("label", "value"), [("former", "x"), ("former", "{}"), ("replicas", "-1"), ("replicas", "two")])
def test_a_label_that_somebody_else_wrote_is_named(label: str, value: str) -> None:
    service = {"Spec": {"Name": "app", "Labels": {"postgres_pools." + label: value}}}
    with pytest.raises(PoolsError, match="postgres_pools." + label):
        {"former": _application_service.memory, "replicas": _application_service.remembered}[label](service)


def test_names_of_configs_stay_within_dockers_limit() -> None:
    name = _application_service.object_name("x" * 64, "content")
    assert len(name) == 64 and name != _application_service.object_name("x" * 64, "other")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("host=a port=1 dbname=shop pool_size=4", "host=h port=5432 dbname=shop pool_size=4"),
        ("dbname = shop host = a", "port=5432 dbname=shop host=h"),
        ("host=a password='it''s = here' port=1", "host=h password='it''s = here' port=5432"),
        ("", "host=h port=5432"),
    ],
)
def test_a_poolers_line_keeps_all_but_host_and_port(line: str, told: str) -> None:
    where = "the file x, shop"
    found = _application_connection.pooled(CONNECTION, line, where)
    assert sorted(found.replace("'it''s = here'", "secret").split()) == sorted(told.replace("'it''s = here'", "secret").split())
    assert _application_connection.pooled(CONNECTION, found, where) == found


@pytest.mark.parametrize("line", ["host=a,b port=1", "host a", "host=a 'x"])
def test_a_poolers_line_that_is_none_or_leads_to_several_hosts_is_refused(line: str) -> None:
    with pytest.raises(PoolsError, match="the file x, shop"):
        _application_connection.pooled(CONNECTION, line, "the file x, shop")

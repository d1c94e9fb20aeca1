# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of a service's tasks. Their shape is that of the Docker API; the errors are Swarm's own words."""

from __future__ import annotations

import datetime
from typing import Any, Dict, Optional

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _failures, _swarm_task

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc).timestamp()
SPEC = {
    "ContainerSpec": {"Image": "postgres:18", "DNSConfig": {}},
    "Networks": [{"Target": "by name"}],
    "ForceUpdate": 0,
    "Runtime": "container",
}
NO_NODE = "no suitable node (insufficient resources on 2 nodes)"


def service(replicas: int = 1, spec: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    return {"Spec": {"TaskTemplate": spec or SPEC, "Mode": {"Replicated": {"Replicas": replicas}}}}


def task(state: str, age: int = 1, error: str = "", spec: Optional[Dict[str, Any]] = None, desired: str = "running") -> Dict[str, Any]:
    made = datetime.datetime.fromtimestamp(NOW - age, tz=datetime.timezone.utc)
    return {
        "Spec": spec or {"ContainerSpec": {"Image": "postgres:18"}, "Networks": [{"Target": "by id"}]},
        "CreatedAt": made.strftime("%Y-%m-%dT%H:%M:%S") + ".123456789Z",
        "DesiredState": desired,
        "NodeID": "n1",
        "Status": {"State": state, "Err": error},
    }


@pytest.mark.parametrize(
    ("tasks", "state", "words"),
    [
        ([], "waiting", "waiting for Swarm"),
        ([task("preparing")], "waiting", "preparing"),
        ([task("running")], "ready", "running"),
        ([task("running", desired="shutdown")], "waiting", "running"),
        ([task("running", spec={"ContainerSpec": {"Image": "postgres:15"}})], "waiting", "stopping the task before it"),
        ([task("starting"), task("running", 60, spec={"ContainerSpec": {"Image": "postgres:15"}})], "waiting", "stopping the task before it"),
        ([task("pending", 5, NO_NODE)], "waiting", "pending (" + NO_NODE),
        ([task("pending", 30, NO_NODE)], "failed", NO_NODE),
        ([task("ready"), task("rejected", 6, "No such image: x")], "waiting", "ready (No such image: x)"),
        ([task("ready"), task("rejected", 6, "No such image: x"), task("rejected", 12, "No such image: x")], "failed", "No such image: x"),
        ([task("ready"), task("failed", 6, "one"), task("failed", 12, "another")], "waiting", "ready (one)"),
        ([task("running"), task("failed", 6, "one"), task("failed", 12, "one")], "ready", "running"),
    ],
)
def test_judge(tasks: Any, state: str, words: str) -> None:
    verdict = _swarm_task.judge(service(), tasks, NOW)
    assert (verdict.state, verdict.words[: len(words)]) == (state, words)


def test_a_stopped_service_is_ready_once_no_container_is_left() -> None:
    assert _swarm_task.judge(service(0), [task("running", desired="shutdown")], NOW).state == "waiting"
    assert _swarm_task.judge(service(0), [task("shutdown", desired="shutdown")], NOW).state == "ready"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NO_NODE, "memory"),
        ("no suitable node (scheduling constraints not satisfied on 3 nodes)", "label"),
        ("No such image: postgres:99", "image"),
        ('invalid mount config for type "bind": bind source path does not exist: /mnt/cephfs/x', "directory is not there"),
        ("task: non-zero exit (74)", "storage gives errors"),
        ("task: non-zero exit (75)", "lock"),
        ("task: non-zero exit (137): dockerexec: unhealthy container", "health check"),
        ("task: non-zero exit (137)", "memory"),
    ],
)
def test_a_known_error_is_explained(error: str, cause: str) -> None:
    assert cause in _swarm_task.explain(error)[0]


def test_a_full_storage_is_told_from_the_log() -> None:
    assert "full" in _swarm_task.explain("task: non-zero exit (1)", ["initdb: error: could not write: Disk quota exceeded"])[0]


def test_an_unknown_error_is_not_explained() -> None:
    assert not _swarm_task.explain("task: non-zero exit (1)", ["something else"])


@pytest.mark.parametrize(
    ("message", "transient"),
    [
        ("rpc error: code = Unavailable desc = transport is closing", True),
        ("The Swarm manager sw1 cannot be reached: timed out", True),
        ('invalid mount config for type "bind": bind source path does not exist: /mnt/x', True),
        ("No such image: postgres:99", False),
        ("300 connections of tenants do not fit in 512 MiB of memory.", False),
        ("Permission denied", False),
        (NO_NODE, False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(message: str, transient: bool) -> None:
    assert _failures.is_transient(message) is transient


@pytest.mark.parametrize(
    ("code", "out", "err", "found"),
    [
        (0, '[{"ID": "a"}]', "", [{"ID": "a"}]),
        (1, '[{"ID": "a"}]', "Error: No such task: b\n", [{"ID": "a"}]),
        (1, "[]\n", "Error: no such service: b\nError: no such service: c\n", []),
        (1, "[]\n", "Error response from daemon: This node is not a swarm manager.\n", None),
        (1, "", "Error: No such task: b\nCannot connect to the Docker daemon\n", None),
        (1, "", "", None),
    ],
)
def test_what_went_away_meanwhile_is_no_failure(code: int, out: str, err: str, found: Any) -> None:
    assert _swarm_task.inspected(code, out, err) == found

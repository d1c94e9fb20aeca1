# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the newest tasks of a Swarm service say about it: ready, on its way, or failed and why. Pure."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

# States before "running", of https://docs.docker.com/engine/swarm/how-swarm-mode-works/swarm-task-states/.
ON_ITS_WAY = frozenset(["new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting"])
ENDED = frozenset(["failed", "rejected", "complete", "shutdown", "orphaned", "remove"])
# A task that ended is started again by Swarm; this often with one and the same error is no accident.
SAME_ERROR = 2
# Swarm looks for a node again whenever one changes; one that comes up or frees its memory is seen well within this time.
SECONDS_WITHOUT_NODE = 20

_CAUSES = (
    (
        r"no suitable node(?=.*insufficient resources).*scheduling constraints",
        "No node has both the label that servers are placed by and the memory and the CPUs that the server reserves.",
        "Put a node into the group database_nodes and run playbooks/prepare.yml, or free one.",
    ),
    (
        r"no suitable node.*insufficient resources",
        "No node has the memory or the CPUs that the server reserves.",
        "Add a node, free one, or give servers a smaller memory_limit and cpu_limit.",
    ),
    (
        r"no suitable node.*scheduling constraints",
        "No node has the label that servers are placed by.",
        "Put a node into the group database_nodes and run playbooks/prepare.yml.",
    ),
    (
        r"no suitable node",
        "No node can take the server.",
        "Look at `docker node ls`: a node that is down or drained takes none.",
    ),
    (
        r"no such image|pull access denied|manifest unknown|not found: manifest",
        "The image is not on the node and cannot be pulled.",
        "Check postgres_image, and that the nodes reach its registry.",
    ),
    (
        r"bind source path does not exist|invalid mount config",
        "The server's directory is not there on that node.",
        "Look whether CephFS is mounted on it; playbooks/prepare.yml says on which nodes it is not.",
    ),
    (
        r"transport endpoint is not connected|stale file handle",
        "The mount of the storage is dead on that node.",
        "Unmount CephFS there and mount it again.",
    ),
    (
        r"unhealthy",
        "PostgreSQL started and did not answer its health check.",
        "The last lines of its log say why.",
    ),
    (
        r"non-zero exit \(74\)",
        "The storage gives errors on that node.",
        "Unmount CephFS there and mount it again; playbooks/prepare.yml proves it.",
    ),
    (
        r"non-zero exit \(75\)",
        "Another task still holds the lock on the server's directory.",
        "Its log says which task on which node has it. Where that node is lost, run playbooks/fence.yml -e node=NODE.",
    ),
    (
        r"non-zero exit \(78\)",
        "The image is of another major version than the data, or lacks flock or dd.",
        "Give the image of that version; to change it, move the tenants to a new server.",
    ),
    (r"non-zero exit \(137\)", "It was killed, most likely for want of memory.", "Give servers a larger memory_limit."),
)
_FULL = (r"disk quota exceeded|no space left on device", "The storage is full.", "Raise the quota of the server's directory.")


@dataclass(frozen=True)
class Verdict:
    """``state`` is ``ready``, ``waiting`` or ``failed``; ``words`` says it to a person; ``node`` is an id."""

    state: str
    words: str
    node: Optional[str] = None
    error: Optional[str] = None


def judge(service: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], now: float) -> Verdict:
    """Judge a service with one replica by its tasks, both as the Docker API shows them.

    *now* is the manager's time, in seconds since the epoch.

    Only tasks of the service's present specification count: right after an update the old task still runs.
    """
    if service["Spec"].get("Mode", {}).get("Replicated", {}).get("Replicas", 1) == 0:
        left = any(_state(task) == "running" for task in tasks)
        return Verdict("waiting", "stopping") if left else Verdict("ready", "stopped")
    template = _spec(service["Spec"]["TaskTemplate"])
    current = sorted((task for task in tasks if _spec(task["Spec"]) == template), key=_made, reverse=True)
    older = [task for task in tasks if task not in current and _state(task) == "running"]
    if not current or older:
        words = "stopping the task before it" if older else "waiting for Swarm to make a task"
        return Verdict("waiting", words, older[0].get("NodeID") if older else None)
    return _failed(current, now) or _state_of(current)


def _failed(current: Sequence[Mapping[str, Any]], now: float) -> Optional[Verdict]:
    newest = current[0]
    if _state(newest) == "pending" and _error(newest) and now - _made(newest) > SECONDS_WITHOUT_NODE:
        return Verdict("failed", str(_error(newest)), newest.get("NodeID"), _error(newest))
    if _state(newest) == "running":
        return None
    ended = [task for task in current if _state(task) in ENDED and _error(task)]
    alike = [task for task in ended if _error(task) == _error(ended[0])]
    if len(alike) < SAME_ERROR:
        return None
    return Verdict("failed", str(_error(alike[0])), alike[0].get("NodeID"), _error(alike[0]))


def _state_of(current: Sequence[Mapping[str, Any]]) -> Verdict:
    newest = current[0]
    if _state(newest) == "running" and newest.get("DesiredState") == "running":
        return Verdict("ready", "running", newest.get("NodeID"))
    error = _error(newest) or next((_error(task) for task in current[1:] if _error(task)), None)
    words = _state(newest) if not error else "{0} ({1})".format(_state(newest), error)
    return Verdict("waiting", words, newest.get("NodeID"), error)


def is_full(log: Sequence[str]) -> bool:
    """Whether the log says that the storage is full: another start cannot help."""
    return any(re.search(_FULL[0], line, re.IGNORECASE) for line in log)


def explain(error: Optional[str], log: Sequence[str] = ()) -> List[str]:
    """The cause of a task's error in a sentence, and what to do; empty when it is none that is known."""
    if is_full(log):
        return list(_FULL[1:])
    for pattern, cause, remedy in _CAUSES:
        if error and re.search(pattern, error, re.IGNORECASE):
            return [cause, remedy]
    return []


def _state(task: Mapping[str, Any]) -> str:
    return str(task.get("Status", {}).get("State", "new"))


def _made(task: Mapping[str, Any]) -> float:
    """Docker's times are UTC with nanoseconds, which Python does not read."""
    moment = datetime.datetime.strptime(task["CreatedAt"][:19], "%Y-%m-%dT%H:%M:%S")
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()


def _error(task: Mapping[str, Any]) -> Optional[str]:
    return task.get("Status", {}).get("Err") or None


def _spec(spec: Mapping[str, Any]) -> Any:
    # A task shows its networks by id where the service may show names, and neither Runtime nor what is empty.
    return _filled({key: value for key, value in spec.items() if key not in ("Networks", "Runtime")})


def _filled(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _filled(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (None, {}, [], 0, "")}
    return [_filled(one) for one in value] if isinstance(value, list) else value


def inspected(code: int, out: str, err: str) -> Optional[List[Dict[str, Any]]]:
    """What ``docker … inspect`` said of several things, without those that went away since they were listed; None for any other failure."""
    told = [line for line in err.splitlines() if line.strip()]
    if code and not (told and all("no such " in line.lower() for line in told)):
        return None
    return list(json.loads(out or "[]"))

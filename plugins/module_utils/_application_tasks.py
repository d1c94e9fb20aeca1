# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of an application's service say: all up, failing, or really gone. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from ._swarm_task import ENDED, Verdict, judge

# Swarm says so of a node that it no longer hears from; what runs there goes on and may write.
UNREACHED = "down"


def stopped(tasks: Sequence[Mapping[str, Any]], nodes: Mapping[str, Mapping[str, str]]) -> Verdict:
    """``ready`` once no task can run any more, ``failed`` when that cannot be known.

    :param nodes: ``name`` and ``status`` in lower letters, by id. A node that was removed from the Swarm is not there: what ran on it was given up by
      whoever removed it.
    """
    left = [task for task in tasks if _may_run(task, nodes)]
    if not left:
        return Verdict("ready", "stopped")
    lost = [task for task in left if _status(nodes, task) == UNREACHED]
    if len(lost) == len(left):
        names = sorted({nodes[task["NodeID"]]["name"] for task in lost})
        words = "{0} of its tasks on {1}, which is down, and may still write".format(len(lost), ", ".join(names))
        return Verdict("failed", words, lost[0].get("NodeID"))
    return Verdict("waiting", "{0} of its tasks still stopping".format(len(left)), left[0].get("NodeID"))


def started(service: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], replicas: int, now: float) -> Verdict:
    """``ready`` once *replicas* tasks of the present specification run, which with a health check they do only when it is content."""
    recent = [_told(task) for task in tasks if not (_state(task) in ENDED and _before(task, service["UpdatedAt"]))]
    slots: Dict[Any, List[Mapping[str, Any]]] = {}
    for task in recent:
        slots.setdefault(task.get("Slot"), []).append(task)
    verdicts = [judge(service, of_slot, now) for of_slot in slots.values()]
    failed = [verdict for verdict in verdicts if verdict.state == "failed"]
    if failed:
        return failed[0]
    up = sum(verdict.state == "ready" for verdict in verdicts)
    waiting = [verdict for verdict in verdicts if verdict.state == "waiting"]
    if up >= replicas and not waiting:
        return Verdict("ready", "running")
    words = "{0} of {1} running".format(up, replicas)
    if not waiting:
        return Verdict("waiting", words)
    return Verdict("waiting", "{0}, {1}".format(words, waiting[0].words), waiting[0].node, waiting[0].error)


def running(tasks: Sequence[Mapping[str, Any]]) -> List[str]:
    """Ids of the tasks that run and are meant to."""
    return sorted(task["ID"] for task in tasks if _state(task) == "running" and task.get("DesiredState") == "running")


def _may_run(task: Mapping[str, Any], nodes: Mapping[str, Mapping[str, str]]) -> bool:
    if not task.get("NodeID") or task["NodeID"] not in nodes:
        # Not placed yet, it is stopped by not being placed; that has happened once Swarm no longer means it to run.
        return not task.get("NodeID") and task.get("DesiredState") == "running" and _state(task) not in ENDED
    if _state(task) == "orphaned":
        # Given up after a day without a word, which says nothing of what still runs there.
        return _status(nodes, task) == UNREACHED
    return _state(task) not in ENDED


def _status(nodes: Mapping[str, Mapping[str, str]], task: Mapping[str, Any]) -> str:
    return nodes.get(task.get("NodeID") or "", {}).get("status", "")


def _told(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task that ended well has no error; a service's task is not meant to end at all."""
    status = task.get("Status") or {}
    if status.get("State") != "complete" or status.get("Err"):
        return task
    return dict(task, Status=dict(status, Err="the task ended by itself, without an error"))


def _state(task: Mapping[str, Any]) -> str:
    return str((task.get("Status") or {}).get("State", "new"))


def _before(task: Mapping[str, Any], moment: str) -> bool:
    # Both of the manager's clock, in UTC and of one form; to the second they compare as text.
    return str(task["CreatedAt"])[:19] < moment[:19]

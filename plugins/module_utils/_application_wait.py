# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting until an application's service is up, or until no task of it can run any more."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

from . import _application_service, _application_tasks
from ._application_manager import Manager
from ._errors import PoolsError
from ._swarm_task import Verdict

PAUSE = 0.5


class OvertakenError(PoolsError):
    """Somebody else changed the service meanwhile."""


class Waiting:
    """:param params: the options of the module ``swarm_application``. In *dry* mode nothing is waited for."""

    def __init__(self, manager: Manager, params: Mapping[str, Any], dry: bool) -> None:
        self._manager, self._params, self._dry = manager, params, dry
        self._name: str = params["service"]
        # What was seen last.
        self.words = ""

    def service(self) -> Dict[str, Any]:
        """:raises PoolsError: there is none of this name."""
        service = self._manager.service(self._name)
        if service is None:
            raise PoolsError(
                "There is no service {0}, which the allocation names as the tenant's application.".format(self._name),
                "Correct the name: whatever its real name is, it may still write.",
            )
        return service

    def gone(self) -> None:
        """:raises PoolsError: a task still runs at the end of the time, or may do so where nobody can look."""
        deadline = time.monotonic() + self._params["stop_timeout"]
        while not self._dry:
            verdict = _application_tasks.stopped(self._manager.tasks(self._name), self._manager.nodes())
            self.words = verdict.words
            if verdict.state == "ready":
                return
            if verdict.state == "failed":
                raise PoolsError(
                    "The application {0} is not stopped: {1}.".format(self._name, verdict.words),
                    "Bring the node back, or make sure that it is off and remove it by docker node rm --force.",
                )
            if time.monotonic() >= deadline:
                raise PoolsError(
                    "The application {0} is not stopped after {1} s: {2}.".format(self._name, self._params["stop_timeout"], verdict.words),
                    "Give it a greater stop_timeout, or look why it does not end.",
                )
            time.sleep(PAUSE)

    def up(self, count: int, to: Optional[str]) -> None:
        """:param to: the place that the service's memory must go on to name; None is not looked at.
        :raises PoolsError: it fails, or is not up at the end of the time.
        """
        if self._dry or not count:
            return
        deadline = time.monotonic() + self._params["healthy_timeout"]
        since = self.service()["UpdatedAt"]
        steady: Tuple[List[str], float] = ([], 0.0)
        while True:
            service, tasks = self.service(), self._manager.tasks(self._name)
            if _application_service.replicas(service) != count or (to and (_application_service.memory(service) or {}).get("to") != to):
                raise OvertakenError("The application {0} was changed by somebody else while it started.".format(self._name), "Run it again.")
            verdict = _application_tasks.started(service, tasks, count, time.time())
            running, now = _application_tasks.running(tasks), time.monotonic()
            steady = steady if steady[0] == running else (running, now)
            self.words = verdict.words
            # Without a health check a task runs from its first moment, also one that ends in its second.
            if verdict.state == "ready" and now >= steady[1] + self._params["stable_seconds"]:
                return
            if verdict.state == "failed" or now >= deadline:
                raise self._failure(verdict, since)
            time.sleep(PAUSE)

    def _failure(self, verdict: Verdict, since: str) -> PoolsError:
        log = self._manager.log(self._name, since, self._params["log_lines"])
        node = self._manager.nodes().get(verdict.node or "", {}).get("name")
        return PoolsError(
            "The application {0} does not come up{1}: {2}.".format(self._name, " on node " + node if node else "", verdict.words.rstrip(".")),
            "The last lines of its log: {0}".format(" | ".join(log)) if log else "",
        )

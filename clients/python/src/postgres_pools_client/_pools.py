# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one interface, whoever runs the playbooks."""

from __future__ import annotations

import abc
import time
from typing import Any, Callable, Dict, Mapping, Optional, Union

from ._checks import identifier, untemplated, word
from ._errors import JobFailed, ProvisioningFailed, TimedOut
from ._results import Connection, PlanChange, PoolStatus, Provisioning, Released, Server, Totals, build

# What the playbooks wait for a server that another run is making, unless told otherwise.
_PLAYBOOK_WAITS = 300


class PostgresPools(abc.ABC):
    """Every call may be made again at any time: the playbooks know an instance by its id, and give the same answer and the same credentials.

    A call blocks its thread until the playbook has ended; many threads may use one object.
    """

    def __init__(
        self, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep = sleep
        self._clock = clock

    @abc.abstractmethod
    def _run(self, playbook: str, variables: Mapping[str, Any], deadline: float) -> Dict[str, Any]:
        """Run a playbook and give what it told by set_stats. *deadline* is a time of the clock."""

    def allocate_database(
        self,
        instance_id: str,
        customer_id: str,
        plan_tier: str,
        *,
        require_dedicated: bool = False,
        wait: bool = True,
        connection_secret: Optional[str] = None,
        application: Optional[Mapping[str, Any]] = None,
        timeout: float = 600,
    ) -> Union[Connection, Provisioning]:
        """The instance's database, made if it has none.

        With *wait* servers are made where none has room. Without, the answer comes at once, and `Provisioning` means that there is no server
        yet and that this call made none. *connection_secret* names a Swarm secret that the playbook is to put the connection into.
        *application*, as docs/moves.md has it, is kept for every later move to stop the application and to tell it its new place.
        """
        instance = identifier("instance_id", instance_id)
        variables: Dict[str, Any] = {
            "instance_id": instance,
            "customer_id": identifier("customer_id", customer_id),
            "plan_tier": word("plan_tier", plan_tier),
        }
        if require_dedicated:
            variables["require_dedicated"] = True
        if connection_secret is not None:
            variables["connection_secret"] = word("connection_secret", connection_secret)
        if application is not None:
            variables["application"] = untemplated("application", dict(application))
        if not wait:
            variables["wait"] = False
        elif timeout < _PLAYBOOK_WAITS:
            variables["wait_timeout"] = max(1, int(timeout))
        answer = self._provision("allocate", variables, self._clock() + timeout)
        if answer.get("status") == "provisioning":
            return Provisioning(instance, float(answer.get("retry_after") or 10))
        return build(Connection, answer, secret=answer.get("connection_secret"))

    def wait_for_database(
        self,
        instance_id: str,
        customer_id: str,
        plan_tier: str,
        *,
        require_dedicated: bool = False,
        connection_secret: Optional[str] = None,
        application: Optional[Mapping[str, Any]] = None,
        timeout: float = 300,
    ) -> Connection:
        """The instance's database, however often it has to be asked for within *timeout* seconds; then `TimedOut`."""
        deadline = self._clock() + timeout
        while True:
            answer = self.allocate_database(
                instance_id,
                customer_id,
                plan_tier,
                require_dedicated=require_dedicated,
                connection_secret=connection_secret,
                application=application,
                timeout=deadline - self._clock(),
            )
            if isinstance(answer, Connection):
                return answer
            self._pause(answer, deadline, timeout)

    def provision_dedicated_server(
        self, instance_id: str, customer_id: str, plan_tier: str, *, timeout: float = 900
    ) -> Server:
        """The instance's own server, made if it has none. Its database is a matter of `allocate_database`."""
        variables = {
            "instance_id": identifier("instance_id", instance_id),
            "customer_id": identifier("customer_id", customer_id),
            "plan_tier": word("plan_tier", plan_tier),
        }
        return build(Server, self._provision("provision_dedicated", variables, self._clock() + timeout)["server"])

    def get_pool_status(
        self,
        *,
        server: Optional[str] = None,
        status: Optional[str] = None,
        server_type: Optional[str] = None,
        timeout: float = 120,
    ) -> PoolStatus:
        """The servers, or those that are asked for, and their totals."""
        asked = {"server": server, "status": status, "server_type": server_type}
        variables = {name: word(name, value) for name, value in asked.items() if value is not None}
        answer = self._run("pools", variables, self._clock() + timeout)
        return PoolStatus(
            servers=tuple(build(Server, each) for each in answer["servers"]),
            totals=build(Totals, answer["totals"]),
            full_at=(answer.get("growth") or {}).get("full_at"),
        )

    def change_plan(
        self,
        instance_id: str,
        plan_tier: str,
        *,
        require_dedicated: Optional[bool] = None,
        application: Optional[Mapping[str, Any]] = None,
        timeout: float = 3600,
    ) -> PlanChange:
        """Another plan for the instance, and another place where the plan asks for it. The tenant cannot write while it is copied.

        *application* is what is to be stopped and started, where another one than was given with the allocation.
        """
        deadline = self._clock() + timeout
        instance = identifier("instance_id", instance_id)
        variables: Dict[str, Any] = {"instance_id": instance, "plan_tier": word("plan_tier", plan_tier)}
        if require_dedicated is not None:
            variables["require_dedicated"] = require_dedicated
        if application is not None:
            variables["application"] = untemplated("application", dict(application))
        while True:
            answer = self._run("change_plan", variables, deadline)
            if answer.get("status") != "provisioning":
                return build(PlanChange, answer)
            self._pause(Provisioning(instance, float(answer.get("retry_after") or 10)), deadline, timeout)

    def release(self, instance_id: str, *, keep_days: Optional[int] = None, timeout: float = 600) -> Released:
        """Take the instance's database out of use. It is kept for *keep_days* (7), and dropped when it is released again after that."""
        variables: Dict[str, Any] = {"instance_id": identifier("instance_id", instance_id)}
        if keep_days is not None:
            variables["keep_days"] = int(keep_days)
        answer = self._run("release", variables, self._clock() + timeout)
        return Released(tuple(answer["instance_ids"]), int(answer.get("dropped") or 0))

    def close(self) -> None:  # noqa: B027  not every one holds something
        """Give back what the object holds open."""

    def __enter__(self) -> PostgresPools:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def _provision(self, playbook: str, variables: Mapping[str, Any], deadline: float) -> Dict[str, Any]:
        try:
            return self._run(playbook, variables, deadline)
        except JobFailed as error:
            raise ProvisioningFailed(str(error), error.playbook, error.job) from None

    def _pause(self, answer: Provisioning, deadline: float, timeout: float) -> None:
        if self._clock() + answer.retry_after >= deadline:
            raise TimedOut(
                "Instance {0} has no server yet after {1:g} s; it is still being made.".format(
                    answer.instance_id, timeout
                )
            )
        self._sleep(answer.retry_after)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wall time of allocate.yml: for one tenant beside stock tasks and an empty play, and for many in one run beside one by one."""

from __future__ import annotations

import math
import statistics
import uuid
from typing import Any, Callable, Dict, List, NamedTuple

import checkout
from embedded import Environment, environment
from fleet import PLACES

_HERE = checkout.ROOT / "tests" / "bench"
_ALLOCATE = checkout.ROOT / "playbooks" / "allocate.yml"


class Plan(NamedTuple):
    rounds: int = 5
    many: int = 200


class Timed(NamedTuple):
    """Seconds. ``single`` is also what *many* singly are reckoned from: its median times their number."""

    empty: float
    single: float
    stock: float
    many: int
    together: float

    @property
    def singly(self) -> float:
        return self.single * self.many


def measure(plan: Plan, say: Callable[[str], None]) -> Timed:
    with environment() as here:
        # On pools that are there: making one takes its own time, and is no part of this job.
        pools = math.ceil((plan.many + 2 * plan.rounds) / PLACES) + 1
        for _unused in range(pools):
            here.play(checkout.ROOT / "playbooks" / "provision_pool.yml", {"max_instances": PLACES})
        # A pool's first tenant brings its wall, which the stock tasks do not make: one for each, by the order of choice.
        here.play(_ALLOCATE, {"allocations": [_tenant() for _unused in range(pools)]})
        seconds: Dict[str, List[float]] = {"empty": [], "single": [], "stock": []}
        for number in range(plan.rounds):
            # Interleaved, so that a busy minute of the machine falls on all of them.
            seconds["empty"].append(here.play(_HERE / "empty.yml", {}))
            seconds["single"].append(here.play(_ALLOCATE, _tenant()))
            seconds["stock"].append(_stock(here, check=number == 0))
            say("allocate: round {0}: {1}".format(number + 1, ", ".join("{0} {1:.1f} s".format(way, times[-1]) for way, times in seconds.items())))
        together = here.play(_ALLOCATE, {"allocations": [_tenant() for _unused in range(plan.many)]})
        say("allocate: {0} tenants in one run: {1:.1f} s".format(plan.many, together))
        made, wanted = here.active(), plan.many + 2 * plan.rounds + pools
        if made != wanted:
            raise SystemExit("bench: {0} tenants are active instead of {1}.".format(made, wanted))
        return Timed(many=plan.many, together=together, **{way: statistics.median(times) for way, times in seconds.items()})


def _tenant() -> Dict[str, Any]:
    return {"instance_id": str(uuid.uuid4()), "customer_id": str(uuid.uuid4()), "plan_tier": "standard"}


def _stock(here: Environment, check: bool) -> float:
    tenant = _tenant()
    took = here.play(_HERE / "stock_allocate.yml", dict(tenant, **here.stock_variables(tenant["instance_id"], tenant["customer_id"])))
    if check and not here.play_changes_nothing(_ALLOCATE, tenant):
        raise SystemExit("bench: the stock tasks did another job, allocate.yml found this to mend:\n" + here.last_output)
    return took

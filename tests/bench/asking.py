# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement through the modules' own Python: several processes, each with its connection, all asking at once."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any, Dict, List, NamedTuple, Tuple

import fleet
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _placement
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from pgbench import Measured, percentile95

# Forked before any of them has a connection; 32 fresh interpreters would take longer than what is measured.
_FORK = multiprocessing.get_context("fork")
_START_SECONDS = 60


class Asked(NamedTuple):
    measured: Measured
    placed: int
    refused: int


def ask(registry: fleet.Fleet, processes: int, requests: int) -> Asked:
    """*requests* in all, each for another instance."""
    gate = _FORK.Barrier(processes)
    answers: Any = _FORK.Queue()
    each = max(1, requests // processes)
    workers = [_FORK.Process(target=_work, args=(registry.login(), each, gate, answers), daemon=True) for _unused in range(processes)]
    for worker in workers:
        worker.start()
    parts: List[Tuple[float, float, List[float], int]] = [answers.get(timeout=600) for _unused in workers]
    for worker in workers:
        worker.join()
    seconds = max(part[1] for part in parts) - min(part[0] for part in parts)
    times = [each_time for part in parts for each_time in part[2]]
    refused = sum(part[3] for part in parts)
    return Asked(Measured(len(times) / seconds, percentile95(times)), len(times) - refused, refused)


def _work(login: Dict[str, Any], requests: int, gate: Any, answers: Any) -> None:
    times: List[float] = []
    refused = 0
    cipher = fleet.new_cipher()
    with Inventory(login) as inventory:
        plan = inventory.plans()["standard"]
        gate.wait(_START_SECONDS)
        start = time.monotonic()
        for _unused in range(requests):
            before = time.monotonic()
            try:
                _placement.place(inventory, cipher, fleet.new_request(), plan, _placement.Policy())
            except PoolsError:
                refused += 1
            times.append((time.monotonic() - before) * 1000)
        answers.put((start, time.monotonic(), times, refused))

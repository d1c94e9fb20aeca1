# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement decisions: how many a second and how long they take, beside a bare counter and beside read-then-increment."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import asking
import decisions
import fleet
from pgbench import Measured, Pgbench
from postgres_fixture import running_server

# fsync stays on, as where it counts; connections for 32 clients and the rest as the embedded inventory database has them.
SETTINGS = {"fsync": "on", "max_connections": 120, "shared_buffers": "256MB"}
WAYS = ("bare", "read_then_increment", "decision", "python")


class Plan(NamedTuple):
    sizes: Sequence[int] = (100, 10000, 100000)
    clients: Sequence[int] = (1, 8, 32)
    # Long enough that the first statements of a connection, which fill its caches, weigh little.
    decisions: int = 10000
    rounds: int = 3


class Cell(NamedTuple):
    """Medians over the rounds; ``share`` is the median of each round's decisions beside the same round's bare ones."""

    servers: int
    clients: int
    ways: Dict[str, Measured]
    share: float


class Contest(NamedTuple):
    """More requests than places: who was placed, and how many of them where there was no room."""

    way: str
    requests: int
    places: int
    placed: int
    over: int


def measure(plan: Plan, say: Callable[[str], None]) -> Tuple[str, List[Cell], List[Contest]]:
    """PostgreSQL's version, the rates, and the contest."""
    with running_server(settings=SETTINGS, hba=fleet.HBA) as server:
        registry = fleet.Fleet(server)
        pgbench = Pgbench(server, fleet.DATABASE, fleet.SERVICE, registry.password)
        version = str(registry.rows("SHOW server_version")[0][0]).split()[0]
        cells = []
        for servers in plan.sizes:
            registry.fill(servers)
            for clients in plan.clients:
                cells.append(_cell(registry, pgbench, servers, clients, plan))
                say("placement: {0} servers, {1} clients: {2:.2f} of the bare rate".format(servers, clients, cells[-1].share))
        return version, cells, _contest(registry, pgbench, max(plan.clients), plan.decisions // 2)


def _cell(registry: fleet.Fleet, pgbench: Pgbench, servers: int, clients: int, plan: Plan) -> Cell:
    # Never more than half of the places: what is measured is the choice, not the end of room.
    number = min(plan.decisions, servers * fleet.PLACES // 2)
    run: Dict[str, Callable[[], Measured]] = {
        "bare": lambda: pgbench.run(decisions.bare(servers), clients, number),
        "read_then_increment": lambda: pgbench.run(decisions.READ_THEN_INCREMENT, clients, number),
        "decision": lambda: _decide(registry, pgbench, clients, number),
        "python": lambda: asking.ask(registry, clients, number).measured,
    }
    rounds: List[Dict[str, Measured]] = []
    for _unused in range(plan.rounds):
        rounds.append({})
        for way in WAYS:
            registry.empty()
            rounds[-1][way] = run[way]()
    ways = {way: _median([one[way] for one in rounds]) for way in WAYS}
    share = statistics.median(one["decision"].per_second / one["bare"].per_second for one in rounds)
    return Cell(servers, clients, ways, share)


def _decide(registry: fleet.Fleet, pgbench: Pgbench, clients: int, number: int) -> Measured:
    script = decisions.decision(registry)
    measured = pgbench.run(script, clients, number)
    placed, asked = registry.rows("SELECT count(*) FROM db_allocations")[0][0], max(1, number // clients) * clients
    # With every candidate's row held by another client one comes back empty, and place() goes its slow way. That is rare.
    if placed < 0.9 * asked:
        raise SystemExit("bench: only {0} of {1} were placed; this measures nothing.".format(placed, asked))
    return measured


def _median(several: Sequence[Measured]) -> Measured:
    return Measured(statistics.median(one.per_second for one in several), statistics.median(one.p95_ms for one in several))


def _contest(registry: fleet.Fleet, pgbench: Pgbench, clients: int, requests: int) -> List[Contest]:
    """*requests* for half as many places on ten servers."""
    each, requests = max(1, requests // 20), max(1, requests // clients) * clients
    counters = "SELECT sum(taken), sum(greatest(taken - places, 0)), sum(places) FROM bare_counters"
    servers = (
        "SELECT sum(count), sum(greatest(count - max_instances, 0)), sum(max_instances) FROM db_servers s,"
        " LATERAL (SELECT count(*) FROM db_allocations a WHERE a.server_id = s.id) AS held"
    )

    def run(way: str, act: Callable[[], Any], outcome: str) -> Contest:
        registry.fill(10, each)
        act()
        placed, over, places = (int(value) for value in registry.rows(outcome)[0])
        return Contest(way, requests, places, placed, over)

    return [
        run("read_then_increment", lambda: pgbench.run(decisions.READ_THEN_INCREMENT, clients, requests), counters),
        run("decision", lambda: pgbench.run(decisions.decision(registry), clients, requests), servers),
        run("python", lambda: asking.ask(registry, clients, requests), servers),
    ]

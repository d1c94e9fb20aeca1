# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page docs/benchmarks.md out of what was measured."""

from __future__ import annotations

import os
from typing import List, Sequence

import allocate
import placement

_TITLE = {
    "read_then_increment": "read, then increment (pgbench)",
    "decision": "the collection's statement alone (pgbench)",
    "python": "the collection, through its Python",
}
_PAGE = """# Benchmarks

Written by `make bench` (`tests/bench/run.py`). All figures come from one run on one machine ({machine}) which runs client and server together;
take the ratios, not the milliseconds. PostgreSQL runs with `fsync` on.

## Placement decisions

A decision is the statement that the module `allocation` sends for a new instance: choose, lock, insert, count and record, with every rule and
trigger of the registry. It is recorded from the code and run by pgbench, which prepares it
once a connection as the code does. The ways beside it are not prepared, which leaves "of bare" somewhat too high:

- **bare**: `BEGIN; UPDATE … SET taken = taken + 1 WHERE id = <a random one>; INSERT …; COMMIT` on two plain tables. It chooses nothing and checks nothing.
- **read, then increment**: look for the emptiest, then that same transaction.
- **Python**: `_placement.place` in as many processes as clients, with names, passwords and their encryption, and the explanation of the choice.

Medians of {rounds} rounds of up to {decisions} decisions. "of bare" is decisions per second over those of the bare transaction in the same round. p95 in ms.

{rates}

Aim: at least 0.50 of bare. {share_verdict}

### How it grows with the number of servers

{growth}

Aim: at {largest} servers at most twice that at {smallest}. {growth_verdict}

### More requests than places

{requests} requests by {clients} clients for {places} places on ten servers.

{contest}

A client of the statement alone may find every free place held by another client for a moment and come back empty; the collection then looks again,
one caller at a time, before it says that there is no room.

## allocate.yml

One new tenant on a pool that is there; medians of {play_rounds} interleaved runs, wall time of the whole `ansible-playbook`.

{plays}

Aim: within 2 s of the empty play. {play_verdict} The stock tasks end with the same roles, database and row (checked: `allocate.yml` run after them finds
nothing to change), but must be told the server, the names and the passwords.

{many} tenants in one run of `allocations=[…]` took {together:.1f} s; one by one they take {many} times {single:.1f} s = {singly:.0f} s (reckoned from the
median above, not run): **{times:.0f} times faster**. Aim: at least 10 times. {many_verdict}
"""


def machine(postgres: str) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "{0} cores, {1:.0f} GiB of memory, PostgreSQL {2}".format(os.cpu_count(), memory, postgres)


def render(
    machine_words: str,
    cells: Sequence[placement.Cell],
    contest: Sequence[placement.Contest],
    timed: allocate.Timed,
    placing: placement.Plan,
    timing: allocate.Plan,
) -> str:
    growth = {clients: _growth(cells, clients) for clients in placing.clients}
    shares = [cell.share for cell in cells]
    over_empty = timed.single - timed.empty
    times = timed.singly / timed.together
    return _PAGE.format(
        machine=machine_words,
        rounds=placing.rounds,
        decisions=placing.decisions,
        rates=_rates(cells),
        share_verdict=_verdict(min(shares) >= 0.5, "{0:.2f} to {1:.2f}".format(min(shares), max(shares))),
        growth=_table(
            ["clients", "p95 of the statement", "p95 through Python"],
            [[str(clients), *("{0:.2f} times".format(value) for value in growth[clients])] for clients in placing.clients],
        ),
        largest=_number(max(placing.sizes)),
        smallest=_number(min(placing.sizes)),
        growth_verdict=_verdict(
            max(values[0] for values in growth.values()) <= 2, "the statement at most {0:.2f} times".format(max(values[0] for values in growth.values()))
        ),
        requests=_number(contest[0].requests),
        clients=max(placing.clients),
        places=contest[0].places,
        contest=_table(["way", "placed", "placed where there was no room"], [[_TITLE[one.way], str(one.placed), str(one.over)] for one in contest]),
        play_rounds=timing.rounds,
        plays=_table(
            ["play", "seconds", "more than the empty play"],
            [
                [name, "{0:.1f}".format(seconds), "{0:.1f}".format(seconds - timed.empty)]
                for name, seconds in (("empty", timed.empty), ("`allocate.yml`", timed.single), ("stock tasks", timed.stock))
            ],
        ),
        play_verdict=_verdict(over_empty <= 2, "{0:.1f} s".format(over_empty)),
        many=timed.many,
        together=timed.together,
        single=timed.single,
        singly=timed.singly,
        times=times,
        many_verdict=_verdict(times >= 10, "{0:.0f}".format(times)),
    )


def _rates(cells: Sequence[placement.Cell]) -> str:
    heads = ["servers", "clients", "bare /s", "decisions /s", "of bare", "read, then increment /s", "Python /s", "p95 bare", "p95 decision", "p95 Python"]
    rows = []
    for cell in cells:
        bare, naive, decision, python = (cell.ways[way] for way in placement.WAYS)
        row = [_number(cell.servers), str(cell.clients), _number(bare.per_second), _number(decision.per_second), "{0:.2f}".format(cell.share)]
        row += [_number(naive.per_second), _number(python.per_second)]
        rows.append(row + ["{0:.1f}".format(way.p95_ms) for way in (bare, decision, python)])
    return _table(heads, rows)


def _growth(cells: Sequence[placement.Cell], clients: int) -> List[float]:
    """p95 at the most servers over p95 at the fewest: of the statement, and through Python."""
    own = sorted((cell for cell in cells if cell.clients == clients), key=lambda cell: cell.servers)
    return [own[-1].ways[way].p95_ms / own[0].ways[way].p95_ms for way in ("decision", "python")]


def _verdict(met: bool, figure: str) -> str:
    return "{0}: {1}.".format("Met" if met else "**Missed**", figure)


def _number(value: float) -> str:
    return "{0:,.0f}".format(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| {0} |".format(" | ".join(line)) for line in lines)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cases took, kept as long as the bed is there, and the page in docs/ that shows it."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Tuple

from swarm_fixture import FOLDER, ROOT

FILE = FOLDER / "faults.json"
PAGE = ROOT / "docs" / "benchmarks-faults.md"
UNGUARDED = "without the guard"
# The cases in the order of the page. What is not here is not recorded, and the page is written when nothing is missing.
CASES = (
    "PostgreSQL is killed",
    "PostgreSQL hangs",
    "a node is killed",
    "a node is killed, and fenced by itself",
    "a node is killed that is also the leading manager",
    "a node is cut off, and the cut heals",
    "a node is cut off and fenced by hand",
    "a node is cut off, and fenced by itself",
    "a node stands still, and goes on",
    "the leading manager is killed",
    "all nodes are restarted at once",
    "ceph-fuse of a node dies, and is mounted anew after 20 s",
    "ceph-fuse of a node stops for 15 s",
    "ceph-fuse of a node stops for 60 s",
    "the metadata server is away for 20 s",
    "tables reach the quota, and it is raised",
    "the log of changes reaches the quota, and it is raised",
)


def kept() -> Dict[str, Any]:
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def _keep(case: str, value: Dict[str, Any]) -> None:
    cases = kept()
    cases[case] = value
    FILE.write_text(json.dumps(cases, indent=2) + "\n")


def keep(case: str, seconds: Dict[str, float], limits: Dict[str, float], acknowledged: int, notes: List[str]) -> None:
    assert case in CASES, case
    _keep(case, {"seconds": seconds, "limits": limits, "acknowledged": acknowledged, "notes": notes})
    told = ", ".join("{0} {1:.1f} s".format(label, value) for label, value in seconds.items())
    print("\n{0}: {1}; {2} commits acknowledged, all there. {3}".format(case, told, acknowledged, "; ".join(notes)))


def keep_unguarded(together: float, outcome: str) -> None:
    _keep(UNGUARDED, {"together": together, "outcome": outcome})
    print("\nwithout the guard: two wrote side by side for {0:.1f} s; {1}".format(together, outcome))


def complete() -> bool:
    return set(kept()) >= {*CASES, UNGUARDED}


def write_page() -> None:
    """Of what was run on this bed."""
    cases = kept()
    rows = [row for case in CASES if case in cases for row in _rows(case, cases[case])]
    table = "\n".join("| {0} |".format(" | ".join(row)) for row in rows)
    beside = "\n".join("| {0} | {1} |".format(case, "; ".join(cases[case]["notes"])) for case in CASES if case in cases and ran_beside(cases[case]))
    PAGE.write_text(
        _PAGE.format(
            cores=os.cpu_count(),
            table=table,
            beside=beside,
            acknowledged=sum(cases[case]["acknowledged"] for case in CASES if case in cases),
            missing="".join("\nNot measured here yet: {0}.\n".format(case) for case in CASES if case not in cases),
            unguarded="two servers accepted writes side by side for {together:.0f} s, and {outcome}".format(**cases[UNGUARDED]),
        )
    )


def ran_beside(case: Dict[str, Any]) -> bool:
    return any(".yml " in note for note in case["notes"])


def _rows(case: str, kept_of_it: Dict[str, Any]) -> List[Tuple[str, str, str, str, str]]:
    rows = []
    for number, (label, seconds) in enumerate(kept_of_it["seconds"].items()):
        limit = kept_of_it["limits"].get(label)
        acknowledged = "" if number else "{0:,}".format(kept_of_it["acknowledged"])
        rows.append(("" if number else case, label, "{0:.1f}".format(seconds), "" if limit is None else str(limit), acknowledged))
    return rows


_PAGE = """# What breaks, and how long it takes

Written by `molecule test -s faults` (`make faults`), which breaks one thing after another on a Swarm of three managers with CephFS, all in one machine
with {cores} cores (`tests/swarm_bed`). CephFS ends a lost client's session after 30 s (`session_timeout`), the Swarm's nodes give a sign of life every 2 s, and
all servers of the tenants are on the node that breaks. Single runs: what to expect, not a measurement to compare by.
The table has the last run of each case. What a server has written since its last checkpoint it reads again when it is taken over, which comes on top.

Meanwhile four tenants, three in a pool and one on a server of its own, commit numbered rows one after another, each from a container on a node that is
not broken; where a node is cut off or stands still, each also from that node. What was acknowledged is remembered outside. In every node a witness writes
into each server that runs there, by its socket. After each case:

- no two PostgreSQL accepted writes on one directory: of the containers of a server, none wrote again after another one had begun to;
- every acknowledged commit is there, once ({acknowledged:,} in all), and rows agree with the counter that was changed in the same transaction;
- `pg_amcheck --heapallindexed` finds nothing in any database of any server;
- `health.yml` and `audit.yml` find everything in order, without anything done to a server by hand.

| what happens | what is counted | seconds | limit | acknowledged commits |
| --- | --- | ---: | ---: | ---: |
{table}
{missing}
## Playbooks that run into it

`allocate.yml`, `release.yml` and `provision_pool.yml` were begun 3 s before. Those that failed did so with a message, and did what they were asked for
when they were run again, (`provision_pool.yml`, which would make another one, was not); nothing was made twice.

| what happens | playbooks |
| --- | --- |
{beside}

## Without the guard

The same cut, of a server whose start takes no lock: {unguarded}. So the checks above can fail.
"""

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth an operator's look on a server that serves: the facts of a probe against the server's row. Pure.

A finding changes no server's state. Each is a ``kind`` of a short list, to be counted by, and a sentence.
"""

from __future__ import annotations

import re
from typing import Any, Collection, Dict, List, Mapping

# Of what is allowed; above it the next tenant's connection or row may be the one that is refused.
CONNECTIONS_SHARE = 0.9
STORAGE_SHARE = 0.9
# Vacuum removes nothing that such a transaction may still see.
OLD_TRANSACTION_SECONDS = 3600
# Autovacuum begins to freeze at once that age; at twice it, it is not keeping up.
WRAPAROUND_SHARE = 2.0
_SHOWN = 5


def findings(
    row: Mapping[str, Any], facts: Mapping[str, Any], known: Collection[str] = (), expected: Collection[str] = ()
) -> List[Dict[str, str]]:
    """:param known: databases that some allocation accounts for, those in quarantine under that name.
    :param expected: databases of active allocations, which have to be there.
    """
    found: List[Dict[str, str]] = []

    def add(kind: str, sentence: str, *values: Any) -> None:
        found.append({"kind": kind, "message": sentence.format(*values)})

    if not _same_version(row.get("postgres_version"), facts.get("server_version_num")):
        add("version", "It runs PostgreSQL {0}, recorded is {1}.", facts["server_version_num"], row["postgres_version"])
    if "databases" in facts:
        there = set(facts["databases"])
        if set(expected) - there:
            add("missing_database", "Active allocations lack their database: {0}.", _some(set(expected) - there))
        if there - set(known) - set(expected):
            add("unknown_database", "No allocation accounts for: {0}.", _some(there - set(known) - set(expected)))
    if facts.get("connections_used", 0) >= CONNECTIONS_SHARE * facts.get("connections_allowed", float("inf")):
        add("connections", "{0} of {1} connections are used.", facts["connections_used"], facts["connections_allowed"])
    if facts.get("oldest_transaction_seconds", 0) >= OLD_TRANSACTION_SECONDS:
        add("old_transaction", "A transaction has been open for {0} s.", facts["oldest_transaction_seconds"])
    if facts.get("wraparound_age", 0) >= WRAPAROUND_SHARE * facts.get("freeze_max_age", float("inf")):
        add("wraparound", "The oldest database is {0} transactions old, autovacuum_freeze_max_age is {1}.", facts["wraparound_age"], facts["freeze_max_age"])
    budget = row.get("storage_budget_bytes") or 0
    if budget and facts.get("database_bytes", 0) >= STORAGE_SHARE * budget:
        add("storage", "Its databases take {0} MiB of {1} MiB.", facts["database_bytes"] >> 20, budget >> 20)
    for slot in facts.get("slots_inactive", ()):
        add("replication_slot", "Nobody reads the replication slot {0!r}, which keeps {1} MiB of WAL.", slot["name"], int(slot["retained_bytes"] or 0) >> 20)
    return found


def _same_version(recorded: Any, seen: Any) -> bool:
    """Recorded is what the server said (150014), or what its image says (15.14, or 15 for any of them)."""
    if not recorded or not seen:
        return True
    parts = [int(part) for part in re.findall(r"\d+", str(recorded))]
    if not parts or parts[0] >= 10000:
        return not parts or parts[0] == seen
    return parts[:2] == [seen // 10000, seen % 10000][: len(parts)]


def _some(names: Collection[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (" and {0} more".format(more) if more > 0 else "")

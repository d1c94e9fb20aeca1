# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a database is copied, as far as it can be decided without asking a server. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ._errors import PoolsError

# What indexes, a fresh WAL and the sorts that build the indexes take beside the data.
SPACE_FACTOR = 1.3
# Below it, one worker with COPY FREEZE is done before a second one would be of use.
SPLIT_BYTES = 256 * 1024**2
# Of these, what COPY sends in binary is the same in every server: no type's number that differs from database to database is in it.
BINARY_TYPES = (
    *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "money", "oid", "text", "varchar", "bpchar", "char", "name"),
    *("bytea", "date", "time", "timetz", "timestamp", "timestamptz", "interval", "uuid", "json", "jsonb", "inet", "cidr"),
    *("macaddr", "macaddr8", "bit", "varbit", "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector"),
)
# PostgreSQL's settings that are lists of quoted names. Given back as one string, they would be a list of one.
_LISTS = frozenset(
    [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ]
)
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*))\s*(?:,|\Z)')


class Problem(NamedTuple):
    """Why a copy must not begin."""

    what: str
    problem: str
    remedy: str

    def told(self) -> str:
        return "{0}: {1} {2}".format(self.what, self.problem, self.remedy).strip()


@dataclass(frozen=True)
class Table:
    """A table whose rows are to be copied."""

    schema: str
    name: str
    columns: Tuple[str, ...]
    # Without its indexes, with what lies in TOAST.
    size: int
    pages: int
    binary: bool
    # None for a table of the tenant's; for one of an extension's, which rows of it are the tenant's (empty: all).
    condition: Optional[str] = None

    @property
    def label(self) -> str:
        return "{0}.{1}".format(self.schema, self.name)


class Part(NamedTuple):
    """What one worker copies at a time: a table, or its pages from *first* up to but not with *last* (None: to the end)."""

    table: Table
    size: int
    first: int = 0
    last: Optional[int] = None
    whole: bool = True


def parts(tables: Iterable[Table], jobs: int) -> List[Part]:
    """The order of work: the largest first, and what would keep one worker busy when the others are done in pieces."""
    all_tables = list(tables)
    share = sum(table.size for table in all_tables) / max(1, jobs)
    made: List[Part] = []
    for table in all_tables:
        # A piece cannot be frozen, since two sessions cannot both have truncated the table: only where it saves more than it costs.
        if jobs < 2 or table.size < SPLIT_BYTES or table.size <= share or table.condition is not None:
            made.append(Part(table, table.size))
            continue
        count = min(jobs * 2, table.pages)
        edges = [table.pages * number // count for number in range(count)]
        ends: List[Optional[int]] = [*edges[1:], None]
        made += [Part(table, table.size // count, first, last, False) for first, last in zip(edges, ends)]
    return sorted(made, key=lambda part: -part.size)


def setting_values(name: str, value: str) -> List[str]:
    """The value of a setting as SET takes it: one string, or for a list each of its items."""
    if name.lower() not in _LISTS:
        return [value]
    items: List[str] = []
    position = 0
    while position < len(value):
        found = _LIST_ITEM.match(value, position)
        if not found or found.end() == position:
            raise PoolsError("The setting {0} is {1!r}, which is no list.".format(name, value), "Set it anew on the source.")
        quoted, bare = found.groups()
        items.append(quoted.replace('""', '"') if quoted is not None else bare.strip().lower())
        position = found.end()
    return items or [""]


class Grant(NamedTuple):
    grantor: str
    # None is PUBLIC.
    grantee: Optional[str]
    privilege: str
    grantable: bool


def in_order(owner: str, acl: Sequence[Mapping[str, Any]]) -> List[Grant]:
    """Grants so that whoever hands a privilege on has got it before."""
    waiting = [Grant(one["grantor"], one["grantee"], one["privilege"], one["grantable"]) for one in acl]
    made: List[Grant] = []
    able = {(owner, grant.privilege) for grant in waiting}
    while waiting:
        ready = [grant for grant in waiting if (grant.grantor, grant.privilege) in able]
        if not ready:
            # Granted by somebody who has lost the right to: the server will say so.
            return made + waiting
        made += ready
        able |= {(grant.grantee, grant.privilege) for grant in ready if grant.grantable and grant.grantee}
        waiting = [grant for grant in waiting if grant not in ready]
    return made


_VOLATILITY = {"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}
_PARALLEL = {"s": "SAFE", "r": "RESTRICTED", "u": "UNSAFE"}


def alterations(source: Mapping[str, Any], target: Mapping[str, Any], same_version: bool) -> List[str]:
    """What somebody changed of an extension's function, as clauses of ALTER ROUTINE. Other versions differ by themselves; there only what an
    index or a generated column may rest upon is carried."""
    clauses: List[str] = []
    if source["volatility"] != target["volatility"] and (same_version or source["volatility"] == "i"):
        clauses.append(_VOLATILITY[source["volatility"]])
    if not same_version:
        return clauses
    if source["parallel"] != target["parallel"]:
        clauses.append("PARALLEL " + _PARALLEL[source["parallel"]])
    words: Dict[str, Tuple[str, str]] = {
        "strict": ("STRICT", "CALLED ON NULL INPUT"),
        "definer": ("SECURITY DEFINER", "SECURITY INVOKER"),
        "leakproof": ("LEAKPROOF", "NOT LEAKPROOF"),
    }
    for key, (on, off) in words.items():
        if source[key] != target[key]:
            clauses.append(on if source[key] else off)
    return clauses

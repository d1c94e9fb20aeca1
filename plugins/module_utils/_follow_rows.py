# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that were changed, looked up on both sides by what tells them apart; and where sequences stand."""

from __future__ import annotations

import functools
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from . import _copy_catalog as catalog
from ._compare_hash import PROBE, Column, hashed
from ._compare_rows import COUNT, RECORD, TEXT, Table
from ._compare_session import fetch
from ._copy_plan import Problem
from ._copy_steps import Check
from ._errors import PoolsError
from ._follow_changes import Changes, Name
from ._follow_ends import at_once

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# What two cores read of whole tables in a second, with both sides on one machine.
_BYTES_A_SECOND = 100 << 20
_KEYS_AT_ONCE = 2000
_TABLES_AT_ONCE = 500
_QUERIES_AT_ONCE = 50
_TABLES = """
SELECT n.nspname, c.relname, format('%%I.%%I', n.nspname, c.relname), (SELECT json_agg(json_build_array(quote_ident(a.attname),
      CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b' THEN t.typname ELSE '' END) ORDER BY a.attname COLLATE "C")
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'),
  (SELECT json_object_agg(a.attname, json_build_array(quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)))
    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), pg_table_size(c.oid)
FROM unnest(%(schemas)s::text[], %(names)s::text[]) x(schema, name) JOIN pg_namespace n ON n.nspname = x.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = x.name"""


class Described(NamedTuple):
    quoted: str
    columns: Sequence[Column]
    # By a column's name, it quoted and its type.
    types: Mapping[str, Tuple[str, str]]
    bytes: int


class _Query(NamedTuple):
    # In the order of the numbers that its rows begin with.
    tables: Sequence[Name]
    text: str
    values: Optional[Sequence[Any]]


def compare(source: Any, target: Any, changes: Changes, deadline: Optional[float], go_on: Check) -> Tuple[List[Problem], Dict[str, Any]]:
    """*source* and *target* are sessions of a comparison that see the same. What takes longer than *deadline* leaves is only counted, or is a problem.

    Also returned is what was compared, in numbers.
    """
    known = described(source, changes)
    how = method(source, target)
    queries = _together([query for name in sorted(changes.keys) for query in _by_keys(name, known[name], changes, how)])
    counted: List[str] = []
    for name in sorted(changes.whole, key=lambda one: known[one].bytes):
        enough = deadline is None or known[name].bytes / _BYTES_A_SECOND < deadline - time.monotonic()
        counted += [] if enough else [".".join(name)]
        queries.append(_whole(name, known[name], how if enough else COUNT))
    problems = _differing(source, target, queries, deadline, go_on)
    rows = sum(map(len, changes.keys.values()))
    return problems, {"changes": changes.count, "rows": rows, "tables": changes.tables, "whole_tables": len(changes.whole), "counted": counted}


def method(source: Any, target: Any) -> str:
    """How rows are hashed: as both servers do it alike."""
    return RECORD if fetch(source, PROBE) == fetch(target, PROBE) else TEXT


def sums(session: Any, changes: Changes, known: Mapping[Name, Described], how: str) -> Iterator[Tuple[Name, int, int, int]]:
    """How many rows of these there are on one side, and the two sums of their hashes."""
    for name in sorted(changes.keys):
        for query in _by_keys(name, known[name], changes, how):
            with session.cursor() as cursor:
                cursor.execute(query.text, query.values)
                _tag, count, first, second = cursor.fetchone()
            yield name, count, int(first), int(second)


def described(session: Any, changes: Changes) -> Dict[Name, Described]:
    """:raises PoolsError: one of them is not there any more, or not as it was."""
    names = sorted({*changes.whole, *changes.keys})
    found: Dict[Name, Described] = {}
    for start in range(0, len(names), _TABLES_AT_ONCE):
        some = names[start : start + _TABLES_AT_ONCE]
        for schema, name, *more in fetch(session, _TABLES, {"schemas": [one[0] for one in some], "names": [one[1] for one in some]}):
            found[schema, name] = Described(*more)
    lost = [name for name in names if name not in found or not set(changes.columns.get(name, ())) <= set(found[name].types)]
    if lost:
        raise PoolsError("Table {0} was dropped or altered since it was written to.".format(".".join(lost[0])), "Begin anew; replication carries no DDL.")
    return found


def _by_keys(name: Name, table: Described, changes: Changes, how: str) -> List[_Query]:
    key, keys = changes.columns[name], sorted(changes.keys[name], key=str)
    types = [table.types[column] for column in key]
    given = ", ".join("%s::text[]" for _one in key)
    aliases = ", ".join("k{0}".format(number) for number in range(len(key)))
    cast = ", ".join("k{0}::{1} AS k{0}".format(number, kind.replace("%", "%%")) for number, (_quoted, kind) in enumerate(types))
    same = " AND ".join("t.{0} = u.k{1}".format(quoted.replace("%", "%%"), number) for number, (quoted, _kind) in enumerate(types))
    # One row after the other, each by the index of the key.
    source = (
        "(SELECT t.* FROM (SELECT DISTINCT {cast} FROM unnest({given}) g({aliases})) u"
        " CROSS JOIN LATERAL (SELECT * FROM ONLY {table} t WHERE {same} OFFSET 0) t) postgres_pools_changed"
    ).format(cast=cast, given=given, aliases=aliases, table=table.quoted.replace("%", "%%"), same=same)
    columns = [(quoted.replace("%", "%%"), kind) for quoted, kind in table.columns]
    text = (
        "SELECT 0, count(*), coalesce(sum(hashtextextended(v, 0)), 0), coalesce(sum(hashtextextended(v, 1)), 0) FROM ({0}) postgres_pools_row"
    ).format(hashed(columns, source, how == RECORD))
    made = []
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        made.append(_Query([name], text, [[one[number] for one in some] for number in range(len(key))]))
    return made


def _together(queries: Sequence[_Query]) -> List[_Query]:
    """Many small ones as few: with hundreds of tables their number is what takes the time."""
    made = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = queries[start : start + _QUERIES_AT_ONCE]
        text = " UNION ALL ".join(query.text.replace("SELECT 0,", "SELECT {0},".format(number), 1) for number, query in enumerate(some))
        made.append(_Query([query.tables[0] for query in some], text, [value for query in some for value in query.values or ()]))
    return made


def _whole(name: Name, table: Described, how: str) -> _Query:
    return _Query([name], Table(table.quoted, table.columns, 0, 0, "").query(0, how), None)


def _differing(source: Any, target: Any, queries: Sequence[_Query], deadline: Optional[float], go_on: Check) -> List[Problem]:
    """Query by query on both sides at once."""
    differing: List[str] = []
    for query in queries:
        go_on()
        try:
            answers = at_once(*(functools.partial(_ask, session, query, deadline) for session in (source, target)))
        except psycopg2.errors.QueryCanceled:
            told = "Table {0} could not be compared in the time that was left.".format(".".join(query.tables[0]))
            return [Problem("switch_timeout", told, "Let writes go on, and try again when less is written; or give more by switch_timeout.")]
        other = {row[0]: row for row in answers[1]}
        differing += [".".join(query.tables[row[0]]) for row in answers[0] if row != other[row[0]]]
    if not differing:
        return []
    shown = ", ".join(list(dict.fromkeys(differing))[:5])
    return [Problem("unequal", "Rows that were changed differ on source and target, in: {0}.".format(shown), "Begin anew.")]


def _ask(session: Any, query: _Query, deadline: Optional[float]) -> Any:
    with session.cursor() as cursor:
        if deadline is not None:
            left = max(1, int((deadline - time.monotonic()) * 1000))
            cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [str(left)])
        cursor.execute(query.text, query.values)
        return cursor.fetchall()


def sequences(source: Any, target: Any) -> List[Problem]:
    """Those that do not stand in the same place."""
    places = []
    for found in at_once(*(functools.partial(catalog.sequences, session) for session in (source, target))):
        places.append({(one["schema"], one["name"]): (one["last_value"], one["is_called"]) for one in found})
    differing = sorted(".".join(name) for name in {*places[0], *places[1]} if places[0].get(name) != places[1].get(name))
    if not differing:
        return []
    return [Problem("unequal", "Sequences stand in other places: {0}.".format(", ".join(differing[:5])), "Try again.")]

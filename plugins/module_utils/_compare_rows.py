# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums of rows, of large objects' content and where sequences stand: computed in the server, piece by piece, by several sessions at a time."""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ._compare_hash import Column, hashed
from ._compare_session import Side, psycopg2
from ._errors import PoolsError

# How much of a table one query reads: small enough that both cores are busy to the end, large enough that a query's own cost is nothing.
PIECE_BYTES = 64 << 20
# So many small tables are read by one query, in which all of them are locked.
TABLES_AT_A_TIME = 50
SEQUENCES_AT_A_TIME = 200
# How much of the rows is looked at: how many, all of each as text, or all of each by what its fields hash to.
COUNT, TEXT, RECORD = "count", "text", "record"
_BLOCK = 8192
_MASK = (1 << 64) - 1

# An extension's own rows come with it; of those it says are the user's, it says which.
_TABLES = """
SELECT c.oid, format('%I.%I', n.nspname, c.relname), (SELECT coalesce(json_agg(json_build_array(quote_ident(a.attname),
      CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b' THEN t.typname ELSE '' END)
    ORDER BY a.attname COLLATE "C"), '[]') FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'),
  pg_relation_size(c.oid), pg_table_size(c.oid), x.condition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
LEFT JOIN (SELECT m.oid, t.id, t.condition FROM pg_extension m, unnest(m.extconfig, m.extcondition) t(id, condition)) x ON x.oid = d.refobjid AND x.id = c.oid
WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND n.nspname !~ '^pg_(temp|toast)' AND c.oid >= 16384 AND (d.objid IS NULL OR x.oid IS NOT NULL)
"""
_SEQUENCES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND n.nspname !~ '^pg_(temp|toast)' AND c.oid >= 16384
AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""


class Sum:
    """Rows counted and their hashes added up, so that neither order nor the cut into pieces matters. A row that is there twice counts twice."""

    def __init__(self) -> None:
        self.count = self.first = self.second = 0

    def add(self, count: int, first: int, second: int) -> None:
        self.count += count
        self.first = (self.first + first) & _MASK
        self.second = (self.second + second) & _MASK

    @property
    def checksum(self) -> str:
        return "{0:016x}{1:016x}".format(self.first, self.second)


class Table(NamedTuple):
    name: str
    columns: Sequence[Column]
    blocks: int
    bytes: int
    condition: str

    def pieces(self) -> int:
        """In how many parts to read it. What lies in TOAST counts: its rows are few and long."""
        return 1 if self.condition else max(1, min(self.blocks, -(-self.bytes // PIECE_BYTES)))

    def query(self, tag: int, method: str, piece: int = 0) -> str:
        """SQL for (tag, number of rows, two sums of hashes) over one piece; *method* is one of COUNT, TEXT and RECORD."""
        pieces = self.pieces()
        source = "ONLY {0}{1}".format(self.name, " " + self.condition if self.condition else "")
        if pieces > 1:
            bounds = [self.blocks * number // pieces for number in (piece, piece + 1)]
            source += " WHERE ctid >= '({0},0)'::tid".format(bounds[0])
            if piece + 1 < pieces:
                source += " AND ctid < '({0},0)'::tid".format(bounds[1])
        if method == COUNT:
            return "SELECT {0}, count(*), 0::numeric, 0::numeric FROM {1}".format(tag, source)
        return (
            "SELECT {0}, count(*), coalesce(sum(hashtextextended(v, 0)), 0), coalesce(sum(hashtextextended(v, 1)), 0) FROM ({1}) postgres_pools_row"
        ).format(tag, hashed(self.columns, source, method == RECORD))


# One query, what it reads (for a message), what to do with its answer, and how much it has to read.
class Task(NamedTuple):
    weight: int
    what: str
    query: str
    take: Callable[[List[Any]], None]


class Content:
    """What one side holds, as far as it is not in the catalogs."""

    def __init__(self) -> None:
        self.tables: Dict[str, Sum] = {}
        self.bytes: Dict[str, int] = {}
        self.sequences: Dict[str, Tuple[int, bool]] = {}
        self.large_objects: Dict[int, Sum] = {}
        self.large_object_bytes: Dict[int, int] = {}


def read_content(side: Side, method: Optional[str], jobs: int) -> Content:
    """Count or sum up all rows, sum up large objects unless rows are only counted, and read all sequences. Without a method sequences only.

    :raises PoolsError: something cannot be read; the message names it.
    """
    content = Content()
    try:
        tasks = list(_sequence_tasks(side, content))
        if method:
            tasks += _table_tasks(side, content, method)
        if method in (TEXT, RECORD):
            tasks += _large_object_tasks(side, content)
    except psycopg2.Error as error:
        raise side.told(error) from error
    _work(side, sorted(tasks, key=lambda task: -task.weight), jobs)
    return content


def _sequence_tasks(side: Side, content: Content) -> Iterable[Task]:
    names = sorted(name for (name,) in side.read(_SEQUENCES))

    def take(rows: List[Any]) -> None:
        for index, last_value, is_called in rows:
            content.sequences[names[index]] = (last_value, is_called)

    for first in range(0, len(names), SEQUENCES_AT_A_TIME):
        last = min(first + SEQUENCES_AT_A_TIME, len(names))
        parts = ["SELECT {0}, last_value, is_called FROM {1}".format(index, names[index]) for index in range(first, last)]
        yield Task(0, "sequences {0} to {1}".format(names[first], names[last - 1]), " UNION ALL ".join(parts), take)


def _table_tasks(side: Side, content: Content, method: str) -> List[Task]:
    tables = []
    for _oid, name, columns, size, whole, condition in sorted(side.read(_TABLES), key=lambda row: row[1]):
        tables.append(Table(name, columns, size // _BLOCK, whole, condition or ""))
        content.tables[name], content.bytes[name] = Sum(), whole
    # Pieces of one table are added up by several workers.
    lock = threading.Lock()

    def take(rows: List[Any]) -> None:
        with lock:
            for index, count, first, second in rows:
                content.tables[tables[index].name].add(count, int(first), int(second))

    tasks: List[Task] = []
    small: List[int] = []
    for index, table in enumerate(tables):
        if table.bytes > PIECE_BYTES // TABLES_AT_A_TIME:
            for piece in range(table.pieces()):
                tasks.append(Task(table.bytes // table.pieces(), "table " + table.name, table.query(index, method, piece), take))
        else:
            small.append(index)
    for start in range(0, len(small), TABLES_AT_A_TIME):
        some = small[start : start + TABLES_AT_A_TIME]
        what = "tables {0} to {1}".format(tables[some[0]].name, tables[some[-1]].name)
        tasks.append(Task(sum(tables[i].bytes for i in some), what, " UNION ALL ".join(tables[i].query(i, method) for i in some), take))
    return tasks


def _large_object_tasks(side: Side, content: Content) -> List[Task]:
    """Large objects' content, page by page.

    A hole reads as zeros, and a copy may have filled it: so zeros at a page's end and pages of nothing but zeros do not count. The length does.
    """
    size = side.read("SELECT pg_relation_size('pg_largeobject')")[0][0]
    pages = Table("pg_largeobject", (), size // _BLOCK, size, "")
    lock = threading.Lock()

    def take(rows: List[Any]) -> None:
        with lock:
            for loid, end, count, first, second in rows:
                content.large_objects.setdefault(loid, Sum()).add(count, int(first), int(second))
                content.large_object_bytes[loid] = max(content.large_object_bytes.get(loid, 0), end)

    tasks = []
    for piece in range(pages.pieces()):
        where = pages.query(0, COUNT, piece).partition(" FROM ONLY pg_largeobject")[2]
        query = (
            "SELECT loid, max(pageno::bigint * 2048 + length(data)), count(*) FILTER (WHERE v <> ''),"
            " coalesce(sum(hashtextextended(pageno || ':' || v, 0)) FILTER (WHERE v <> ''), 0),"
            " coalesce(sum(hashtextextended(pageno || ':' || v, 1)) FILTER (WHERE v <> ''), 0)"
            " FROM (SELECT loid, pageno, data, encode(rtrim(data, '\\x00'::bytea), 'hex') COLLATE \"C\" AS v FROM pg_largeobject{0} OFFSET 0) p GROUP BY loid"
        ).format(where)
        tasks.append(Task(size // pages.pieces(), "large objects", query, take))
    return tasks


def _work(side: Side, tasks: Sequence[Task], jobs: int) -> None:
    """The tasks by *jobs* sessions, the longest first; the first failure ends all."""
    waiting: queue.Queue[Task] = queue.Queue()
    for task in tasks:
        waiting.put(task)
    failures: List[Exception] = []

    def run() -> None:
        task = None
        try:
            with side.worker() as ask:
                while not failures and not side.given_up.is_set():
                    try:
                        task = waiting.get_nowait()
                    except queue.Empty:
                        return
                    task.take(ask(task.query))
        except psycopg2.Error as error:
            failures.append(side.told(error, task.what if task else ""))
        except Exception as error:
            # Raised again below, where somebody hears it.
            failures.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _each in range(min(jobs, len(tasks)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise next((failure for failure in failures if isinstance(failure, PoolsError)), failures[0])

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows: several workers, each with a session on either server and a pipe between them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import Any, Callable, List

from ._copy_plan import Part, Table
from ._copy_progress import Progress
from ._copy_pulse import cut
from ._copy_session import Side

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_BLOCK_BYTES = 1 << 18
# fcntl.F_SETPIPE_SZ, which Python names only from 3.10 on.
_SET_PIPE_SIZE = 1031
_PIPE_BYTES = 1 << 20


class _OtherEndError(Exception):
    """The other half of a pipe failed, and has said why."""


class _Inlet:
    """The pipe's end that COPY FROM reads. An end of data that is no end of the table must not be taken for one."""

    def __init__(self, descriptor: int, complete: threading.Event, count: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._complete = complete
        self._count = count
        self._received = 0

    def read(self, size: int = _BLOCK_BYTES) -> bytes:
        data = os.read(self._descriptor, size)
        if not data and not self._complete.is_set():
            raise _OtherEndError
        self._received += len(data)
        self._count(self._received)
        return data


class Stream:
    """One worker: parts of tables go through it one after the other."""

    def __init__(self, number: int, source: Side, target: Side, snapshot: str, encoding: str, progress: Progress) -> None:
        self._number = number
        self._source_side = source
        self._target_side = target
        self._progress = progress
        self._ended = threading.Event()
        self._source = source.on_snapshot(snapshot, encoding)
        try:
            self._target = target.connect(encoding=encoding)
            self._target.autocommit = False
        except BaseException:
            self._source.close()
            raise

    @property
    def connections(self) -> List[Any]:
        return [self._source, self._target]

    def close(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(psycopg2.Error):
                connection.close()

    def copy(self, part: Part) -> None:
        """:raises PoolsError: naming the table and the side that failed."""
        reading, writing = os.pipe()
        # More than a user may have is refused; then it is as large as it was.
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, _SET_PIPE_SIZE, _PIPE_BYTES)
        complete = threading.Event()
        of_source: List[Exception] = []
        of_target: List[Exception] = []
        sender = threading.Thread(target=self._send, args=(part, writing, complete, of_source), daemon=True)
        sender.start()
        try:
            self._receive(part, _Inlet(reading, complete, lambda received: self._progress.flows(self._number, received)))
        except (psycopg2.Error, _OtherEndError) as error:
            of_target.append(error)
            # Else it would go on reading the table for nobody.
            self._ended.set()
            cut(self._source)
        finally:
            os.close(reading)
            sender.join()
        # A source that failed makes the target fail too; so it comes first.
        for side, doing, errors in ((self._source_side, "reading", of_source), (self._target_side, "writing", of_target)):
            if errors:
                raise side.failure("{0} table {1}".format(doing, part.table.label), errors[0]) from errors[0]
        self._progress.done(self._number, part.size, 1 if part.first == 0 else 0)

    def _send(self, part: Part, descriptor: int, complete: threading.Event, errors: List[Exception]) -> None:
        try:
            with os.fdopen(descriptor, "wb", _BLOCK_BYTES) as outlet, self._source.cursor() as cursor:
                cursor.copy_expert(self._reading(part), outlet, _BLOCK_BYTES)
                outlet.flush()
                complete.set()
        except BrokenPipeError:
            # The target ended first, and says why.
            return
        except Exception as error:  # pylint: disable=broad-exception-caught
            # Cut by the other half, it is not the cause.
            if not self._ended.is_set():
                errors.append(error)

    def _receive(self, part: Part, inlet: _Inlet) -> None:
        with self._target, self._target.cursor() as cursor:
            # Rows into a table that this transaction emptied need no second writing to mark them as visible to all.
            freeze = part.whole and part.table.condition is None
            if freeze:
                cursor.execute(sql.SQL("TRUNCATE ONLY {0}").format(_name(part.table)))
            options = _options(part.table, *(["FREEZE"] if freeze else []))
            cursor.copy_expert(_columned("COPY {0}{1} FROM STDIN" + options, part.table).as_string(self._target), inlet, _BLOCK_BYTES)

    def _reading(self, part: Part) -> str:
        table = part.table
        if part.whole and table.condition is None:
            return str(_columned("COPY {0}{1} TO STDOUT" + _options(table), table).as_string(self._source))
        columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        query = sql.SQL("SELECT {0} FROM ONLY {1} ").format(columns, _name(table)) + sql.SQL(table.condition or "")
        if not part.whole:
            query += sql.SQL("WHERE ctid >= {0}").format(sql.Literal("({0},0)".format(part.first)))
            if part.last is not None:
                query += sql.SQL(" AND ctid < {0}").format(sql.Literal("({0},0)".format(part.last)))
        return str((sql.SQL("COPY (") + query + sql.SQL(") TO STDOUT" + _options(table))).as_string(self._source))


def _columned(statement: str, table: Table) -> Any:
    """A table without columns, or with generated ones only, is named without a list: an empty one is no SQL."""
    names = sql.SQL(" (") + sql.SQL(", ").join(map(sql.Identifier, table.columns)) + sql.SQL(")")
    return sql.SQL(statement).format(_name(table), names if table.columns else sql.SQL(""))


def _name(table: Table) -> Any:
    return sql.Identifier(table.schema, table.name)


def _options(table: Table, *more: str) -> str:
    words = [*more, *(["FORMAT binary"] if table.binary else [])]
    return " WITH ({0})".format(", ".join(words)) if words else ""

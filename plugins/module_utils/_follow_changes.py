# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rows were changed, out of what pgoutput says of them (protocol version 1). Pure."""

from __future__ import annotations

import struct
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

# So many of one table are looked up one by one; of more, the table is read as a whole.
MOST_KEYS = 20000

# A schema's and a table's name.
Name = Tuple[str, str]
# Of the columns that tell a table's rows apart, the values of one row, as text.
Key = Tuple[Optional[str], ...]


class _Relation(NamedTuple):
    name: Name
    # Where the columns of the key are among all, and their names; empty where all of them are.
    positions: Tuple[int, ...]
    columns: Tuple[str, ...]


class Changes:
    """Gathers messages as they come."""

    def __init__(self, fresh: Optional[str] = None) -> None:
        """*fresh*: a place in the WAL from which on what is committed is also told apart."""
        self._from = _place(fresh) if fresh else None
        self._is_fresh = False
        self._fresh: Dict[Name, Set[Key]] = {}
        self._relations: Dict[int, _Relation] = {}
        # How many rows were inserted, updated or deleted, each as often as it was.
        self.count = 0
        self.columns: Dict[Name, Tuple[str, ...]] = {}
        self.keys: Dict[Name, Set[Key]] = {}
        # Those that were truncated, have no key, or too many changes.
        self.whole: Set[Name] = set()

    def add(self, message: bytes) -> None:
        kind = message[:1]
        if kind == b"B":
            self._is_fresh = self._from is not None and struct.unpack_from(">Q", message, 1)[0] >= self._from
        elif kind == b"R":
            self._define(message)
        elif kind in (b"I", b"U", b"D"):
            self.count += 1
            self._change(message)
        elif kind == b"T":
            many = struct.unpack_from(">i", message, 1)[0]
            for number in struct.unpack_from(">{0}I".format(many), message, 6):
                self._give_up(self._relations[number].name)

    def settled(self) -> Changes:
        """Without the rows that were changed, perhaps again, from *fresh* on, and without tables as a whole."""
        found = Changes()
        found.count, found.columns = self.count, self.columns
        found.keys = {name: keys - self._fresh.get(name, set()) for name, keys in self.keys.items()}
        return found

    @property
    def tables(self) -> int:
        return len(self.whole) + len(self.keys)

    def _define(self, message: bytes) -> None:
        number = struct.unpack_from(">I", message, 1)[0]
        schema, at = _text(message, 5)
        table, at = _text(message, at)
        identity, many = struct.unpack_from(">cH", message, at)
        at += 3
        found: List[Tuple[int, str]] = []
        for position in range(many):
            flags = message[at]
            column, at = _text(message, at + 1)
            at += 8
            if flags & 1:
                found.append((position, column))
        if identity == b"f":
            found = []
        # The schema pg_catalog goes without its name, and is nobody's to follow.
        relation = _Relation((schema, table), tuple(one for one, _name in found), tuple(name for _one, name in found))
        if self.columns.setdefault(relation.name, relation.columns) != relation.columns:
            self._give_up(relation.name)
        self._relations[number] = relation

    def _change(self, message: bytes) -> None:
        relation = self._relations[struct.unpack_from(">I", message, 1)[0]]
        if relation.name in self.whole:
            return
        if not relation.positions:
            self._give_up(relation.name)
            return
        keys = self.keys.setdefault(relation.name, set())
        at = 5
        # An update that changed the key has the old one before the new row.
        while at < len(message):
            values, at = _values(message, at + 1, relation.positions)
            keys.add(values)
            if self._is_fresh:
                self._fresh.setdefault(relation.name, set()).add(values)
        if len(keys) > MOST_KEYS:
            self._give_up(relation.name)

    def _give_up(self, name: Name) -> None:
        self.whole.add(name)
        self.keys.pop(name, None)


def _place(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _text(message: bytes, at: int) -> Tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode("utf-8", "surrogateescape"), end + 1


def _values(message: bytes, at: int, positions: Tuple[int, ...]) -> Tuple[Key, int]:
    """Those at *positions* of one row, and where the row ends."""
    many = struct.unpack_from(">H", message, at)[0]
    at += 2
    found: Dict[int, Optional[str]] = {}
    for position in range(many):
        kind = message[at : at + 1]
        at += 1
        if kind == b"t":
            size = struct.unpack_from(">i", message, at)[0]
            at += 4
            if position in positions:
                found[position] = message[at : at + size].decode("utf-8", "surrogateescape")
            at += size
        else:
            found[position] = None
    return tuple(found[position] for position in positions), at

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which databases a PostgreSQL's data directory holds, read from its files while nobody can ask it. Nothing is started or changed.

Each database is a directory of base, named by its OID; PostgreSQL's own three have had the OIDs 1, 4 and 5 since version 15. The
names are in pg_database, whose rows are read here as they lie in its pages.
"""

from __future__ import annotations

import os
import struct
from typing import Dict, List, NamedTuple

from ._errors import PoolsError

OLDEST, NEWEST = 15, 18
_OWN_DATABASES = frozenset([1, 4, 5])
_PG_DATABASE = 1262
_MAP_MAGIC = 0x592717
_PAGE = 8192
_PAGE_HEADER = 24
_LINE_POINTER_NORMAL = 1
_NAME_BYTES = 64
# pg_control begins with the system's identifier (8 bytes) and two versions (4 each); then comes the state.
_STATE_OFFSET = 16
_SHUT_DOWN = (1, 2)


class Data(NamedTuple):
    """``databases`` beside PostgreSQL's own, one whose name cannot be read by its OID; ``clean`` when it was shut down in order."""

    databases: List[str]
    clean: bool


def read(directory: str) -> Data:
    """Look at one data directory.

    :raises PoolsError: it is not whole, or of a version whose files are not known here.
    """
    with open(os.path.join(directory, "PG_VERSION"), encoding="ascii", errors="replace") as stream:
        version = stream.read().strip()
    if not version.isdigit() or not OLDEST <= int(version) <= NEWEST:
        raise PoolsError(
            "{0} is a data directory of PostgreSQL {1}, which is not known here".format(directory, version[:20])
        )
    if os.listdir(os.path.join(directory, "pg_tblspc")):
        raise PoolsError("{0} has tablespaces outside".format(directory))
    oids = {int(name) for name in os.listdir(os.path.join(directory, "base")) if name.isdigit()}
    if not oids >= _OWN_DATABASES:
        raise PoolsError("{0} is no whole data directory: it lacks databases of PostgreSQL's own".format(directory))
    try:
        names = _names(directory)
    except struct.error as error:
        raise PoolsError("{0} has files that are cut off".format(directory)) from error
    return Data(
        [names.get(oid, "OID {0}".format(oid)) for oid in sorted(oids - _OWN_DATABASES)],
        _state(directory) in _SHUT_DOWN,
    )


def _state(directory: str) -> int:
    with open(os.path.join(directory, "global", "pg_control"), "rb") as stream:
        head = stream.read(_STATE_OFFSET + 4)
    return int(struct.unpack_from("=i", head, _STATE_OFFSET)[0]) if len(head) == _STATE_OFFSET + 4 else 0


def _names(directory: str) -> Dict[int, str]:
    """OIDs and names of pg_database, those of rows that were deleted since among them."""
    path = os.path.join(directory, "global", str(_file_number(directory)))
    with open(path, "rb") as stream:
        content = stream.read()
    names: Dict[int, str] = {}
    for start in range(0, len(content) - _PAGE + 1, _PAGE):
        names.update(rows_of_page(content[start : start + _PAGE]))
    return names


def _file_number(directory: str) -> int:
    with open(os.path.join(directory, "global", "pg_filenode.map"), "rb") as stream:
        content = stream.read()
    magic, count = struct.unpack_from("=ii", content)
    if magic != _MAP_MAGIC or not 0 < count <= (len(content) - 8) // 8:
        raise PoolsError("{0} has a pg_filenode.map that is not known here".format(directory))
    mapped = dict(struct.unpack_from("=II", content, 8 + 8 * number) for number in range(count))
    if _PG_DATABASE not in mapped:
        raise PoolsError("{0} does not tell where its pg_database lies".format(directory))
    return mapped[_PG_DATABASE]


def rows_of_page(page: bytes) -> Dict[int, str]:
    """OID and name are the first two columns of pg_database."""
    found: Dict[int, str] = {}
    lower = struct.unpack_from("=H", page, 12)[0]
    for position in range(_PAGE_HEADER, min(lower, _PAGE), 4):
        pointer = struct.unpack_from("=I", page, position)[0]
        offset, flags = pointer & 0x7FFF, pointer >> 15 & 3
        if flags != _LINE_POINTER_NORMAL or offset + 23 > _PAGE:
            continue
        row = offset + page[offset + 22]
        if row + 4 + _NAME_BYTES > _PAGE:
            continue
        name = page[row + 4 : row + 4 + _NAME_BYTES].split(b"\0", 1)[0]
        found[struct.unpack_from("=I", page, row)[0]] = name.decode("utf-8", "replace")
    return found

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL for one hash of one row that tells apart all that a dump would write differently. Pure.

What PostgreSQL holds for equal is not enough: 1.0 and 1.00, 0 and -0, a month and thirty days, and A and a below some collations are equal.
"""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

# By type, an expression whose hash is that of every byte of the value. As they are only where PostgreSQL hashes the whole value: of an int8 it
# folds both halves into one. Floats go as text, since a NaN has many forms and one meaning. All other types, a tenant's own among them, go as the
# text of a record, for which no cast of the tenant's is asked. An enum is hashed by its oid, and a record too long as text: so neither goes as it is.
_EXACT: Dict[str, str] = dict(
    dict.fromkeys(("bool", "int2", "int4", "oid", "date", "uuid", "char", "bytea"), "{0}"),
    **dict.fromkeys(("text", "varchar"), '{0} COLLATE "C"'),
    **dict.fromkeys(("float4", "float8"), '{0}::text COLLATE "C"'),
    int8="int8send({0})",
    numeric="numeric_send({0})",
    timestamp="timestamp_send({0})",
    timestamptz="timestamptz_send({0})",
)
# Servers that agree on this can be asked for hashes of records, which takes a fifth to two thirds of the time; else the record's text is hashed.
PROBE = (
    "SELECT hash_record_extended(ROW(true, 2::int2, 3, 4::oid, '2024-01-01'::date, '00000000-0000-0000-0000-000000000005'::uuid, '6'::\"char\","
    " '\\x07'::bytea, 'eight'::text COLLATE \"C\", 'nine'::varchar COLLATE \"C\", NULL::text, int8send(10), numeric_send(1.10)), 11)"
)

# A column's name as SQL has it, and the name of its type where that is one of PostgreSQL's own, else an empty string.
Column = Tuple[str, str]


def hashed(columns: Sequence[Column], source: str, records: bool) -> str:
    """SQL for (v), a text for each row of *source* that is the same for the same row only.

    The columns stand in the order of their names, since a copy need not have them in the same places. OFFSET keeps PostgreSQL from working a row's
    record out twice.
    """
    if not records or not columns:
        # A record's text quotes its fields, so that no two different rows look the same, and tells NULL from the empty string.
        # A bytea is hashed first, because as text it would be twice as long.
        fields = ("sha256({0})".format(name) if kind == "bytea" else name for name, kind in columns)
        return 'SELECT ROW({0})::text COLLATE "C" AS v FROM {1} OFFSET 0'.format(", ".join(fields), source)
    exact = ", ".join(_EXACT.get(kind, 'ROW({0})::text COLLATE "C"').format(name) for name, kind in columns)
    # A record's hash is a sum over its fields, and would not show that two rows swapped a value: hence the hash of the hash.
    return (
        "SELECT (hash_record_extended(r, 0)::text || ':' || hash_record_extended(r, 1)::text) COLLATE \"C\" AS v"
        " FROM (SELECT ROW({0}) AS r FROM {1} OFFSET 0) postgres_pools_record OFFSET 0"
    ).format(exact, source)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extensions on the target as they are on the source, with what somebody altered of them; then sequences and statistics."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, Sequence

from . import _copy_catalog as catalog
from ._copy_plan import alterations, setting_values
from ._copy_session import execute, rows

try:
    from psycopg2 import sql
except ImportError:
    pass  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_SET_SEQUENCES = """
SELECT count(setval(format('%%I.%%I', x.schema, x.name)::regclass, x.last_value, x.is_called))
FROM json_to_recordset(%s) AS x(schema text, name text, last_value bigint, is_called boolean)"""


def make_extensions(source: Any, target: Any) -> List[str]:
    """What to warn of. They come before everything that rests on them: an index over an altered function must find it altered."""
    there = {one["name"] for one in catalog.extensions(target)}
    schemas = {row["name"] for row in rows(target, "SELECT nspname AS name FROM pg_namespace")}
    wanted = catalog.extensions(source)
    for one in wanted:
        if one["name"] not in there:
            _make_extension(target, one, one["schema"] in schemas)
    return _alter_functions(source, target, {one["name"]: one["version"] for one in wanted})


def _make_extension(target: Any, one: Mapping[str, Any], has_schema: bool) -> None:
    # A schema that is missing is one that the extension makes by itself.
    text = "CREATE EXTENSION {0}" + (" SCHEMA {1}" if has_schema else "")
    statement = sql.SQL(text).format(sql.Identifier(one["name"]), sql.Identifier(one["schema"]))
    if not one["owner_is_superuser"]:
        # An extension's owner cannot be changed afterwards.
        owner = sql.Identifier(one["owner"])
        statement = sql.SQL("SET SESSION AUTHORIZATION {0}; {1}; RESET SESSION AUTHORIZATION").format(owner, statement)
    execute(target, statement)


def _alter_functions(source: Any, target: Any, versions: Mapping[str, str]) -> List[str]:
    target_versions = {one["name"]: one["version"] for one in catalog.extensions(target)}
    there = {_key(one): one for one in catalog.extension_functions(target)}
    warnings = []
    for one in catalog.extension_functions(source):
        other = there.get(_key(one))
        if other is None:
            continue
        same = versions[one["extension"]] == target_versions[one["extension"]]
        # The arguments are the server's own text, quoted where it has to be.
        name = sql.SQL("ALTER ROUTINE {0}.{1}({2}) ").format(
            sql.Identifier(other["schema"]), sql.Identifier(other["name"]), sql.SQL(other["arguments"])
        )
        clauses = list(map(sql.SQL, alterations(one, other, same)))
        if same and one["settings"] != other["settings"]:
            clauses += [sql.SQL("RESET ALL"), *map(_setting, one["settings"] or [])]
        if same and one["owner"] != other["owner"] and not (one["owner_is_superuser"] and other["owner_is_superuser"]):
            execute(target, name + sql.SQL("OWNER TO {0}").format(sql.Identifier(one["owner"])))
        if clauses:
            execute(target, name + sql.SQL(" ").join(clauses))
        if not same and one["volatility"] != other["volatility"] and one["volatility"] != "i":
            warnings.append("Function {0} of extension {1} is of another volatility in the target's version.".format(one["name"], one["extension"]))
    return warnings


def _key(one: Mapping[str, Any]) -> Any:
    return one["extension"], one["name"], one["arguments"]


def _setting(entry: str) -> Any:
    name, value = entry.split("=", 1)
    quoted = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
    return sql.SQL("SET {0} TO {1}").format(quoted, sql.SQL(", ").join(map(sql.Literal, setting_values(name, value))))


def set_sequences(target: Any, found: Sequence[Mapping[str, Any]]) -> None:
    execute(target, _SET_SEQUENCES, [json.dumps(found)])


def analyzing(found: Sequence[Mapping[str, Any]]) -> List[Callable[[Any], None]]:
    """A task for each table; its worker is a session in the target."""
    return [_task(dict(one)) for one in found]


def _task(one: Dict[str, Any]) -> Callable[[Any], None]:
    statement = sql.SQL("ANALYZE " + ("ONLY {0}" if one["only"] else "{0}")).format(sql.Identifier(one["schema"], one["name"]))

    def analyze(connection: Any) -> None:
        execute(connection, statement)

    return analyze

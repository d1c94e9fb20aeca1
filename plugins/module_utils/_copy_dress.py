# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dump of a database forgets: the database itself, its roles, grants on it, settings and limits."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from . import _copy_catalog as catalog
from ._copy_plan import Grant, in_order, setting_values
from ._copy_session import execute, rows
from ._errors import PoolsError
from ._tenant_plan import gate_mark, owner_mark

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# The comment of a database that is not whole yet; it says that it may be thrown away.
UNFINISHED = "saasodoo.postgres_pools copy, unfinished"
_ROLE_MARK = "saasodoo.postgres_pools copied with {0}"
_FLAGS = (("rolinherit", "INHERIT"), ("rolcreaterole", "CREATEROLE"), ("rolcreatedb", "CREATEDB"))
# What the target is asked for a name that is missing there must not come with: rights over the whole server.
POWERS = (("rolsuper", "SUPERUSER"), ("rolreplication", "REPLICATION"), ("rolbypassrls", "BYPASSRLS"))


def existing(connection: Any, names: Iterable[str]) -> List[str]:
    return [row["rolname"] for row in rows(connection, "SELECT rolname FROM pg_roles WHERE rolname = ANY (%(names)s)", {"names": list(names)})]


def make_roles(connection: Any, roles: Sequence[Mapping[str, Any]], owner: str, database: str) -> Tuple[List[str], List[str]]:
    """The names of those that were missing and are made, and what to warn of. Only the owner may log in: nobody has asked for another.

    Until the copy is whole they bear its mark, unless they bear that of the module ``tenant_database`` on the source.
    """
    there = set(existing(connection, (role["name"] for role in roles)))
    made: List[str] = []
    warnings: List[str] = []
    for role in roles:
        if role["name"] in there:
            continue
        login = role["rolcanlogin"] and role["name"] == owner
        flags = " ".join(word if role[key] else "NO" + word for key, word in _FLAGS)
        name = sql.Identifier(role["name"])
        comment = role["comment"] if role["name"] in (owner, database) and role["comment"] else _ROLE_MARK.format(database)
        # As one string they are one transaction: no role is there without its mark.
        execute(
            connection,
            sql.SQL("CREATE ROLE {0} {1}; COMMENT ON ROLE {0} IS {2}").format(
                name, sql.SQL(("LOGIN " if login else "NOLOGIN ") + flags), sql.Literal(comment)
            ),
        )
        made.append(role["name"])
        if role["rolcanlogin"] and not login:
            warnings.append("Role {0} could log in on the source; on the target it was made without.".format(role["name"]))
    return made, warnings


def make_memberships(connection: Any, source: Sequence[Mapping[str, Any]], names: Sequence[str]) -> List[str]:
    """Who is a member of whom among these roles; what to warn of."""
    there = {(row["role"], row["member"]) for row in catalog.members(connection, list(names))}
    warnings = []
    for row in source:
        if (row["role"], row["member"]) in there:
            continue
        if row["role"] not in names:
            warnings.append("Role {0} is a member of {1} on the source, which is not copied.".format(row["member"], row["role"]))
            continue
        statement = "GRANT {0} TO {1}" + (" WITH ADMIN OPTION" if row["admin"] else "")
        execute(connection, sql.SQL(statement).format(sql.Identifier(row["role"]), sql.Identifier(row["member"])))
    return warnings


def make_database(connection: Any, found: Mapping[str, Any], name: str, owner: str) -> None:
    """An empty database like the source's, which only superusers can enter and which says that it is unfinished."""
    text = (
        "CREATE DATABASE {name} TEMPLATE template0 OWNER {owner} ENCODING {encoding} LC_COLLATE {lc_collate} LC_CTYPE {lc_ctype} "
        "LOCALE_PROVIDER {provider} CONNECTION LIMIT 0 TABLESPACE {tablespace}"
    )
    provider = {"c": "libc", "i": "icu", "b": "builtin"}[found["provider"]]
    if found["locale"] and provider != "libc":
        text += " ICU_LOCALE {locale}" if provider == "icu" else " BUILTIN_LOCALE {locale}"
    if found["rules"]:
        text += " ICU_RULES {rules}"
    names = {"name": name, "owner": owner, "tablespace": found["tablespace"]}
    parts: Dict[str, Any] = {key: sql.Identifier(value) for key, value in names.items()}
    parts.update((key, sql.Literal(found[key])) for key in ("encoding", "lc_collate", "lc_ctype", "locale", "rules"))
    execute(connection, sql.SQL(text).format(provider=sql.SQL(provider), **parts))
    execute(connection, sql.SQL("COMMENT ON DATABASE {0} IS {1}").format(sql.Identifier(name), sql.Literal(UNFINISHED)))


def drop_database(connection: Any, name: str) -> None:
    execute(connection, sql.SQL("DROP DATABASE {0} WITH (FORCE)").format(sql.Identifier(name)))


def unmark_roles(connection: Any, roles: Sequence[Mapping[str, Any]], made: Sequence[str]) -> None:
    for role in roles:
        if role["name"] in made:
            execute(connection, sql.SQL("COMMENT ON ROLE {0} IS {1}").format(sql.Identifier(role["name"]), sql.Literal(role["comment"])))


def dress_role(connection: Any, role: Mapping[str, Any], password: bool) -> List[str]:
    """Its limits and settings as on the source, and with *password* the verifier that its password is kept by; what to warn of."""
    name = sql.Identifier(role["name"])
    text = "ALTER ROLE {0} CONNECTION LIMIT {1}"
    text += (" PASSWORD {2}" if password and role["verifier"] else "") + (" VALID UNTIL {3}" if role["valid_until"] else "")
    values = map(sql.Literal, (role["connection_limit"], role["verifier"], role["valid_until"]))
    execute(connection, sql.SQL(text).format(name, *values))
    return _settings(connection, sql.SQL("ALTER ROLE {0} ").format(name), role["settings"], "role " + role["name"])


def dress_database(connection: Any, found: Mapping[str, Any], name: str, missing: Sequence[str] = ()) -> List[str]:
    """Comment, grants, settings and limit as on the source, the limit last: it is what opens the database. What to warn of."""
    database = sql.Identifier(name)
    _grant(connection, name, found)
    warnings = []
    for entry in found["settings"]:
        where = sql.SQL("ALTER DATABASE {0} ").format(database)
        if entry["role"] is not None:
            where = sql.SQL("ALTER ROLE {0} IN DATABASE {1} ").format(sql.Identifier(entry["role"]), database)
        warnings += _settings(connection, where, entry["settings"], "database " + name)
    comment = sql.SQL("COMMENT ON DATABASE {0} IS {1}").format(database, sql.Literal(found["comment"]))
    limit = sql.SQL("ALTER DATABASE {0} WITH CONNECTION LIMIT {1}").format(database, sql.Literal(found["connection_limit"]))
    execute(connection, comment + sql.SQL("; ") + limit)
    return warnings


def _grant(connection: Any, name: str, found: Mapping[str, Any]) -> None:
    if found["default_acl"]:
        return
    database, owner = sql.Identifier(name), sql.Identifier(found["owner"])
    statements = [sql.SQL("REVOKE ALL ON DATABASE {0} FROM PUBLIC, {1}").format(database, owner)]
    for grant in in_order(found["owner"], found["acl"] or []):
        statements.append(_granting(grant, database, found["owner"]))
    execute(connection, sql.SQL("; ").join(statements))


def _granting(grant: Grant, database: Any, owner: str) -> Any:
    grantee = sql.SQL("PUBLIC") if grant.grantee is None else sql.Identifier(grant.grantee)
    text = "GRANT {0} ON DATABASE {1} TO {2}" + (" WITH GRANT OPTION" if grant.grantable else "")
    statement = sql.SQL(text).format(sql.SQL(grant.privilege), database, grantee)
    if grant.grantor == owner:
        return statement
    # Only the role itself can be the grantor.
    return sql.SQL("SET ROLE {0}; {1}; RESET ROLE").format(sql.Identifier(grant.grantor), statement)


def _settings(connection: Any, where: Any, settings: Optional[Sequence[str]], what: str) -> List[str]:
    warnings = []
    execute(connection, where + sql.SQL("RESET ALL"))
    for entry in settings or []:
        name, value = entry.split("=", 1)
        parts = sql.SQL(", ").join(map(sql.Literal, setting_values(name, value)))
        # The name of an extension's setting has a dot in it.
        quoted = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
        try:
            execute(connection, where + sql.SQL("SET {0} TO {1}").format(quoted, parts))
        except (psycopg2.errors.UndefinedObject, psycopg2.errors.InvalidParameterValue) as error:
            said = " ".join(str(error.diag.message_primary).split())
            warnings.append("Setting {0} of {1} was left out: {2}.".format(name, what, said))
    return warnings


def drop_roles(connection: Any, names: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Those that were dropped, and what to warn of: a role that others still need is kept."""
    dropped: List[str] = []
    warnings: List[str] = []
    for name in names:
        try:
            execute(connection, sql.SQL("DROP ROLE {0}").format(sql.Identifier(name)))
            dropped.append(name)
        except psycopg2.errors.DependentObjectsStillExist as error:
            warnings.append("Role {0} was kept: {1}".format(name, " ".join(str(error.diag.message_detail).split())))
    return dropped, warnings


def droppable_roles(connection: Any, database: str, owner: str, named: Sequence[str]) -> List[str]:
    """Those that bear a mark of this database, and of the *named* ones the owner and whoever cannot log in."""
    query = """SELECT rolname FROM pg_roles WHERE NOT rolsuper AND (shobj_description(oid, 'pg_authid') = ANY (%(marks)s)
       OR rolname = ANY (%(named)s) AND (NOT rolcanlogin OR rolname = %(owner)s)) ORDER BY 1"""
    marks = [_ROLE_MARK.format(database), owner_mark(database), gate_mark(database)]
    return [row["rolname"] for row in rows(connection, query, {"marks": marks, "named": list(named), "owner": owner})]


def refuse_foreign(found: Optional[Mapping[str, Any]], owner: str) -> None:
    if found and found["owner"] != owner:
        raise PoolsError(
            "Database {0} is on the target already and belongs to {1}, not to {2}.".format(found["name"], found["owner"], owner),
            "Choose another name; a database of somebody else is never replaced or dropped.",
        )

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads tenant databases from a server and runs the steps that were planned."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import Any, Iterator, List, Mapping, Optional, Sequence

from . import _connection
from ._errors import PoolsError
from ._hba import BUS_ROLE
from ._tenant import Database, Found, Role
from ._tenant_plan import INSIDE, SERVER, Step
from ._tenant_wall import hba_rule, wall_faults

try:
    import psycopg2
    import psycopg2.extensions
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Another call may hold a tenant for as long as a CREATE DATABASE takes on a slow disk.
LOCK_TIMEOUT_SECONDS = 120
# Options of the session win over what a tenant may have set for its database, search_path and role above all.
_SESSION = (
    "-c search_path=pg_catalog -c role=none -c default_transaction_read_only=off -c statement_timeout=0 "
    f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s"
)
_CONTRIB = (
    "Install PostgreSQL's contrib modules there (Debian: postgresql-{0}; Alpine and RHEL: postgresql{0}-contrib)."
)

_ATTRIBUTES = (
    ("rolcanlogin", "LOGIN"),
    ("rolinherit", "INHERIT"),
    ("rolsuper", "SUPERUSER"),
    ("rolcreatedb", "CREATEDB"),
    ("rolcreaterole", "CREATEROLE"),
    ("rolreplication", "REPLICATION"),
    ("rolbypassrls", "BYPASSRLS"),
)

_SERVER_QUERY = """
SELECT json_build_object(
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'sockets', (SELECT CASE WHEN rolsuper THEN current_setting('unix_socket_directories') <> '' END
              FROM pg_roles WHERE rolname = current_user),
  'public', (SELECT coalesce(json_agg(d.datname ORDER BY 1), '[]') FROM pg_database d
             WHERE d.datname IN ('postgres', 'template1') AND EXISTS (
               SELECT 1 FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
               WHERE a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY'))),
  'bus', (SELECT json_build_object('login', rolcanlogin, 'connects', has_database_privilege(oid, 'postgres', 'CONNECT'))
          FROM pg_roles WHERE rolname = %(bus)s))
"""

_HBA_QUERY = (
    "SELECT line_number, type, database, user_name, address, netmask, auth_method, error FROM pg_hba_file_rules"
)

_FOUND_QUERY = """
SELECT json_build_object(
  'roles', (SELECT coalesce(json_agg(json_build_object(
      'name', a.rolname, 'mark', shobj_description(a.oid, 'pg_authid'), 'connection_limit', a.rolconnlimit,
      'rolcanlogin', a.rolcanlogin, 'rolinherit', a.rolinherit, 'rolsuper', a.rolsuper, 'rolcreatedb', a.rolcreatedb,
      'rolcreaterole', a.rolcreaterole, 'rolreplication', a.rolreplication, 'rolbypassrls', a.rolbypassrls,
      'verifier', a.rolpassword,
      'settings', (SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setrole = a.oid AND s.setdatabase = 0),
      'member_of', (SELECT json_object_agg(g.rolname, m.admin) FROM (SELECT roleid, bool_or(admin_option) AS admin
          FROM pg_auth_members WHERE member = a.oid GROUP BY roleid) m JOIN pg_roles g ON g.oid = m.roleid),
      'members', (SELECT json_object_agg(g.rolname, m.admin) FROM (SELECT member, bool_or(admin_option) AS admin
          FROM pg_auth_members WHERE roleid = a.oid GROUP BY member) m JOIN pg_roles g ON g.oid = m.member))), '[]')
    FROM pg_authid a WHERE a.rolname = ANY (%(names)s)),
  'databases', (SELECT coalesce(json_agg(json_build_object(
      'name', d.datname, 'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
      'lc_collate', d.datcollate, 'lc_ctype', d.datctype,
      'provider', CASE d.datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' ELSE 'builtin' END,
      'allows_connections', d.datallowconn, 'connection_limit', d.datconnlimit, 'is_template', d.datistemplate,
      'open_to_public', EXISTS (SELECT 1 FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
          WHERE x.grantee = 0),
      'owner_privileges', (SELECT coalesce(json_agg(DISTINCT x.privilege_type), '[]')
          FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x WHERE x.grantee = d.datdba))), '[]')
    FROM pg_database d WHERE d.datname = ANY (%(names)s)))
"""

_INSIDE_QUERY = """
SELECT json_build_object(
  'extensions', (SELECT json_agg(extname) FROM pg_extension),
  'mutable_unaccent', (SELECT coalesce(json_agg(n.nspname), '[]') FROM pg_extension e
      JOIN pg_depend p ON p.refclassid = 'pg_extension'::regclass AND p.refobjid = e.oid
           AND p.classid = 'pg_proc'::regclass AND p.deptype = 'e'
      JOIN pg_proc f ON f.oid = p.objid JOIN pg_namespace n ON n.oid = f.pronamespace
      WHERE e.extname = 'unaccent' AND f.proname = 'unaccent' AND f.pronargs = 1 AND f.provolatile <> 'i'))
"""


def connect(params: Mapping[str, Any], dbname: str = "postgres") -> psycopg2.extensions.connection:
    """A session of the administrator's, each statement its own transaction.

    :raises PoolsError: the server cannot be reached or refuses the login.
    """
    extra = {"connect_timeout": params.get("connect_timeout") or _connection.DEFAULT_CONNECT_TIMEOUT}
    extra.update(params.get("connect_params") or {})
    extra.update(client_encoding="UTF8", options="{} {}".format(extra.get("options", ""), _SESSION))
    connection = _connection.connect(dict(params, connect_params=extra), dbname)
    connection.autocommit = True
    return connection


def _one(connection: Any, query: str, values: Mapping[str, Any]) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]


def read_server(connection: Any) -> Mapping[str, Any]:
    """Who we are there, who may enter the server's own databases, and the bus role."""
    return _one(connection, _SERVER_QUERY, {"bus": BUS_ROLE})


def check_server(connection: Any, server: Mapping[str, Any], require_wall: bool) -> None:
    """See that tenants can be made on this server and cannot reach each other there.

    :raises PoolsError: the login is no superuser's, PostgreSQL is older than 15, or pg_hba.conf is no wall.
    """
    if connection.server_version < 150000:
        raise PoolsError(
            f"PostgreSQL there is {connection.server_version // 10000}; 15 is the oldest that is supported."
        )
    if not server["superuser"]:
        raise PoolsError(
            f"User {connection.info.user!r} is no superuser there.",
            "Log in as one: verifiers are read from pg_authid, and only a superuser sets temp_file_limit on a role.",
        )
    if not require_wall:
        return
    with connection.cursor() as cursor:
        cursor.execute(_HBA_QUERY)
        faults = wall_faults([hba_rule(row) for row in cursor.fetchall()], server["sockets"])
    if faults:
        raise PoolsError(
            "pg_hba.conf does not keep tenants apart: {}.".format("; ".join(faults)),
            "Give the server the rules of the role postgres_server and reload it, or set require_wall=false "
            "where something else keeps tenants apart.",
        )


def read_found(connection: Any, names: Sequence[str]) -> Found:
    """Roles and databases of these names."""
    raw = _one(connection, _FOUND_QUERY, {"names": list(names)})
    roles, databases = {}, {}
    for item in raw["roles"]:
        attributes = frozenset(word if item.pop(column) else "NO" + word for column, word in _ATTRIBUTES)
        item["settings"] = dict(entry.split("=", 1) for entry in item["settings"] or ())
        item["member_of"], item["members"] = item["member_of"] or {}, item["members"] or {}
        roles[item["name"]] = Role(attributes=attributes, **item)
    for item in raw["databases"]:
        item["owner_privileges"] = frozenset(item["owner_privileges"])
        databases[item["name"]] = Database(**item)
    return Found(roles, databases)


def read_inside(connection: Any) -> Mapping[str, Any]:
    """The extensions of the database that this connection is in, as fields of Database."""
    raw = _one(connection, _INSIDE_QUERY, {})
    return {"extensions": frozenset(raw["extensions"] or ()), "mutable_unaccent": tuple(raw["mutable_unaccent"])}


def check_extensions(connection: Any, extensions: Sequence[str]) -> None:
    """See that the server has these extensions to give.

    :raises PoolsError: one is not installed there; the message names the package.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_available_extensions WHERE name = ANY (%s)", [list(extensions)])
        missing = sorted(set(extensions) - {name for (name,) in cursor.fetchall()})
    if missing:
        raise PoolsError(
            "The server has no extension {}.".format(", ".join(missing)),
            _CONTRIB.format(connection.server_version // 10000),
        )


def run(connection: Any, steps: Sequence[Step]) -> None:
    """Run steps of one ``where`` on the connection they belong to; those of the server in one transaction."""
    statements = [_compose(step) for step in steps]
    if steps and steps[0].where in (SERVER, INSIDE):
        # Several statements sent as one string are one transaction, in one round trip.
        statements = [sql.SQL("; ").join(statements)]
    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _compose(step: Step) -> Any:
    parts = {key: sql.Identifier(name) for key, name in step.names.items()}
    parts.update((key, sql.Literal(value)) for key, value in step.values.items())
    return sql.SQL(step.sql).format(**parts)


def _key(name: str) -> int:
    digest = hashlib.sha256(f"saasodoo.postgres_pools tenant_database {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@contextmanager
def lock(connection: Any, name: str) -> Iterator[None]:
    """Keep other calls off *name* on this server; it is let go with the session at the latest.

    :raises PoolsError: another call held it for LOCK_TIMEOUT_SECONDS.
    """
    try:
        _one(connection, "SELECT pg_advisory_lock(%(key)s)::text", {"key": _key(name)})
    except psycopg2.errors.LockNotAvailable as error:
        raise PoolsError(
            f"Another call has been at work on it for {LOCK_TIMEOUT_SECONDS} seconds.",
            "Wait for it to end and try again.",
        ) from error
    try:
        yield
    finally:
        if not connection.closed:
            try:
                _one(connection, "SELECT pg_advisory_unlock(%(key)s)", {"key": _key(name)})
            except psycopg2.Error:
                # The session is broken, and its locks are gone with it.
                connection.close()


def reason(error: Exception) -> str:
    """A server's complaint in one line, without the statement it complains of (there may be a verifier in it)."""
    diagnosis: Optional[Any] = getattr(error, "diag", None)
    parts: List[str] = (
        [diagnosis.message_primary, diagnosis.message_detail]
        if diagnosis and diagnosis.message_primary
        else [str(error)]
    )
    return " ".join(" ".join(part.split()).rstrip(".") + "." for part in parts if part)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogs say about a database that is to be copied: only reading."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ._copy_plan import BINARY_TYPES, Table
from ._copy_session import rows

try:
    from psycopg2 import sql
except ImportError:
    pass  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Statements stay short enough for a server to parse at once.
_AT_ONCE = 500

_ACL = """(SELECT json_agg(json_build_object('grantor', pg_get_userbyid(a.grantor), 'privilege', a.privilege_type,
   'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, 'grantable', a.is_grantable)) FROM aclexplode({0}) a)"""

_DATABASE = """
SELECT d.oid, d.datname AS name, pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS lc_collate,
   d.datctype AS lc_ctype, d.datlocprovider AS provider, d.datconnlimit AS connection_limit, t.spcname AS tablespace,
   {locale} AS locale, {rules} AS rules, shobj_description(d.oid, 'pg_database') AS comment, d.datacl IS NULL AS default_acl, {acl} AS acl
FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = %(name)s"""

_SETTINGS = """
SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END AS role, s.setconfig AS settings FROM pg_db_role_setting s
JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = %(name)s ORDER BY 1 NULLS FIRST"""

# Whoever owns something in the database or is named in a grant, a policy or a setting of it. What the first superuser owns is not in pg_shdepend.
_ROLES = """
SELECT r.rolname AS name, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls,
   r.rolconnlimit AS connection_limit, r.rolpassword AS verifier, r.rolvaliduntil::text AS valid_until, shobj_description(r.oid, 'pg_authid') AS comment,
   (SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0) AS settings
FROM pg_authid r WHERE r.rolname !~ '^pg_' AND (r.rolname = ANY (%(names)s) OR r.oid IN (
   SELECT refobjid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND (dbid = %(oid)s OR classid = 'pg_database'::regclass AND objid = %(oid)s)
   UNION ALL SELECT setrole FROM pg_db_role_setting WHERE setdatabase = %(oid)s
   UNION ALL SELECT o.owner FROM (
      SELECT oid, relowner AS owner, 'pg_class'::regclass AS class FROM pg_class
      UNION ALL SELECT oid, proowner, 'pg_proc'::regclass FROM pg_proc UNION ALL SELECT oid, nspowner, 'pg_namespace'::regclass FROM pg_namespace
      UNION ALL SELECT oid, typowner, 'pg_type'::regclass FROM pg_type UNION ALL SELECT oid, evtowner, 'pg_event_trigger'::regclass FROM pg_event_trigger
      UNION ALL SELECT oid, collowner, 'pg_collation'::regclass FROM pg_collation UNION ALL SELECT oid, oprowner, 'pg_operator'::regclass FROM pg_operator
      UNION ALL SELECT oid, cfgowner, 'pg_ts_config'::regclass FROM pg_ts_config UNION ALL SELECT oid, dictowner, 'pg_ts_dict'::regclass FROM pg_ts_dict
      UNION ALL SELECT oid, srvowner, 'pg_foreign_server'::regclass FROM pg_foreign_server
      UNION ALL SELECT oid, lomowner, 'pg_largeobject'::regclass FROM pg_largeobject_metadata) o
   JOIN pg_authid p ON p.oid = o.owner AND p.oid < 16384
   WHERE o.oid >= 16384 AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = o.class AND x.objid = o.oid AND x.deptype = 'e')
     -- Of a table's TOAST and of a view's row type nothing is written into a dump.
     AND NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = o.oid AND c.relnamespace = 'pg_toast'::regnamespace)))
ORDER BY 1"""

_MEMBERS = """
SELECT g.rolname AS role, m.rolname AS member, bool_or(x.admin_option) AS admin FROM pg_auth_members x
JOIN pg_authid g ON g.oid = x.roleid JOIN pg_authid m ON m.oid = x.member WHERE m.rolname = ANY (%(names)s) GROUP BY 1, 2 ORDER BY 1, 2"""

_EXTENSIONS = """
SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema, r.rolname AS owner, r.rolsuper AS owner_is_superuser
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_authid r ON r.oid = e.extowner ORDER BY e.oid"""

_FUNCTIONS = """
SELECT e.extname AS extension, n.nspname AS schema, p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments, p.provolatile AS volatility,
   p.proparallel AS parallel, p.proisstrict AS strict, p.prosecdef AS definer, p.proleakproof AS leakproof, p.proconfig AS settings,
   r.rolname AS owner, r.rolsuper AS owner_is_superuser
FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_authid r ON r.oid = p.proowner WHERE p.prokind IN ('f', 'p', 'w')"""

_OF_TENANT = """
LEFT JOIN (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension) x ON x.oid = c.oid
WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND (x.oid IS NOT NULL OR NOT EXISTS (
   SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))"""

_TABLES = """
WITH RECURSIVE safe AS (
   SELECT oid FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = ANY (%(types)s) OR typtype = 'e'
   UNION ALL SELECT t.oid FROM pg_type t JOIN safe ON t.typbasetype = safe.oid WHERE t.typtype = 'd')
SELECT n.nspname AS schema, c.relname AS name, pg_table_size(c.oid) AS size,
   pg_relation_size(c.oid) / current_setting('block_size')::int AS pages, x.condition, a.columns, a.binary
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT coalesce(array_agg(attname::text ORDER BY attnum), '{}') AS columns,
   coalesce(bool_and(atttypid IN (SELECT oid FROM safe)), false) AS binary
   FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') a""" + _OF_TENANT + " AND c.relkind = 'r'"

_SEQUENCES = (
    "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    + _OF_TENANT
    + " AND c.relkind = 'S' ORDER BY 1, 2"
)

_SEQUENCES_AT_ONCE = (
    "SELECT n.nspname AS schema, c.relname AS name, d.last_value, d.is_called FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    + _OF_TENANT.replace("\nWHERE", "\nCROSS JOIN LATERAL pg_get_sequence_data(c.oid) d WHERE", 1)
    + " AND c.relkind = 'S' ORDER BY 1, 2"
)

# A partition is analyzed with its root where the server knows no ANALYZE ONLY.
_TO_ANALYZE = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, pg_relation_size(c.oid) AS size, c.relispartition AS partition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND (c.relkind <> 'm' OR c.relispopulated) ORDER BY 4 DESC"""


def database(connection: Any, name: str) -> Optional[Dict[str, Any]]:
    """The row of a database, from anywhere on its server; None when there is none."""
    version = connection.server_version
    query = _DATABASE.format(
        locale="d.datlocale" if version >= 170000 else "d.daticulocale",
        rules="d.daticurules" if version >= 160000 else "NULL",
        acl=_ACL.format("d.datacl"),
    )
    found = rows(connection, query, {"name": name})
    return dict(found[0], settings=rows(connection, _SETTINGS, {"name": name})) if found else None


def roles(connection: Any, found: Mapping[str, Any], owner: str) -> List[Dict[str, Any]]:
    """The roles that a dump of the database that the connection is in names, its owner and its gate."""
    return rows(connection, _ROLES, {"oid": found["oid"], "names": [owner, found["name"]]})


def members(connection: Any, names: List[str]) -> List[Dict[str, Any]]:
    return rows(connection, _MEMBERS, {"names": names})


def extensions(connection: Any) -> List[Dict[str, Any]]:
    return rows(connection, _EXTENSIONS)


def extension_functions(connection: Any) -> List[Dict[str, Any]]:
    return rows(connection, _FUNCTIONS)


def tables(connection: Any) -> List[Table]:
    names = list(BINARY_TYPES) + ["_" + name for name in BINARY_TYPES]
    return [
        Table(row["schema"], row["name"], tuple(row["columns"]), row["size"], row["pages"], row["binary"], row["condition"])
        for row in rows(connection, _TABLES, {"types": names})
    ]


def to_analyze(connection: Any) -> List[Dict[str, Any]]:
    only = connection.server_version >= 180000
    found = rows(connection, _TO_ANALYZE)
    return [dict(row, only=only and row["kind"] == "p") for row in found if only or not row["partition"]]


def sequences(connection: Any) -> List[Dict[str, Any]]:
    """Every sequence with where it stands. A sequence knows no snapshot, so it stands at least where the rows need it."""
    if connection.server_version >= 180000:
        return rows(connection, _SEQUENCES_AT_ONCE)
    found = rows(connection, _SEQUENCES)
    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {0}::int, last_value, is_called FROM {1}").format(
                sql.Literal(number), sql.Identifier(one["schema"], one["name"])
            )
            for number, one in enumerate(some)
        )
        with connection.cursor() as cursor:
            cursor.execute(query)
            for number, last_value, is_called in cursor.fetchall():
                some[number].update(last_value=last_value, is_called=is_called)
    return found

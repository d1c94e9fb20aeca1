# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL that reads what belongs to a database as a whole and to its roles, most of which a dump forgets; the form is told in ``_compare_tables``."""

from __future__ import annotations

from ._compare_tables import FIRST_USER_OID, acl, ordered

_MY = "(SELECT oid FROM pg_database WHERE datname = current_database())"

# The locale's column was renamed by PostgreSQL 17; the collation's version is the operating system's.
_DATABASE = """
SELECT 'database', NULL, '', json_build_object('owner', pg_get_userbyid(d.datdba), 'acl', {acl}, 'encoding', pg_encoding_to_char(d.encoding),
  'collate', d.datcollate, 'ctype', d.datctype, 'provider', d.datlocprovider, 'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
  'icu rules', to_jsonb(d) ->> 'daticurules', 'connection limit', d.datconnlimit, 'allows connections', d.datallowconn, 'is template', d.datistemplate,
  'comment', shobj_description(d.oid, 'pg_database'), 'labels', (SELECT json_agg(json_build_array(l.provider, l.label) ORDER BY l.provider)
    FROM pg_shseclabel l WHERE l.classoid = 'pg_database'::regclass AND l.objoid = d.oid))
FROM pg_database d WHERE d.datname = current_database()
""".format(acl=acl("d.datacl", "d", "d.datdba"))

_SETTINGS = """
SELECT 'setting', CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, split_part(o, '=', 1), json_build_object('value', substr(o,
    strpos(o, '=') + 1))
FROM pg_db_role_setting s, unnest(s.setconfig) o WHERE s.setdatabase = {my}
""".format(my=_MY)

# Whoever owns something here, is granted something or has settings here; and the gate, a role named as the database.
_ROLES = """
WITH concerned AS (
  SELECT refobjid AS oid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
    AND (dbid = {my} OR dbid = 0 AND classid = 'pg_database'::regclass AND objid = {my})
  UNION SELECT datdba FROM pg_database WHERE oid = {my} UNION SELECT setrole FROM pg_db_role_setting WHERE setdatabase = {my}
  UNION SELECT oid FROM pg_authid WHERE rolname = current_database() OR rolname = ANY (%(roles)s))
SELECT 'role', a.rolname, '', json_build_object('login', a.rolcanlogin, 'inherit', a.rolinherit, 'superuser', a.rolsuper, 'create databases', a.rolcreatedb,
  'create roles', a.rolcreaterole, 'replication', a.rolreplication, 'bypass RLS', a.rolbypassrls, 'connection limit', a.rolconnlimit,
  'valid until', a.rolvaliduntil, 'secret verifier', encode(sha256(convert_to(a.rolpassword, 'UTF8')), 'hex'),
  'comment', shobj_description(a.oid, 'pg_authid'),
  'parameters', (SELECT json_agg(p.parname || ': ' || x.privilege_type ORDER BY p.parname, x.privilege_type)
    FROM pg_parameter_acl p, aclexplode(p.paracl) x WHERE x.grantee = a.oid),
  'settings', (SELECT {settings} FROM pg_db_role_setting s WHERE s.setrole = a.oid AND s.setdatabase = 0),
  'roles', (SELECT json_agg(DISTINCT pg_get_userbyid(m.roleid)) FROM pg_auth_members m WHERE m.member = a.oid),
  '_memberships', (SELECT json_agg(json_build_array(pg_get_userbyid(m.roleid), m.admin_option, to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option'))
    FROM pg_auth_members m WHERE m.member = a.oid))
FROM pg_authid a JOIN concerned USING (oid) WHERE a.oid >= {first}
""".format(my=_MY, settings=ordered("s.setconfig"), first=FIRST_USER_OID)

_DEFAULT_PRIVILEGES = """
SELECT 'default privileges', pg_get_userbyid(d.defaclrole), coalesce(' in schema ' || quote_ident(n.nspname),
    '') || CASE d.defaclobjtype WHEN 'r' THEN ' on tables'
  WHEN 'S' THEN ' on sequences' WHEN 'f' THEN ' on functions' WHEN 'T' THEN ' on types' WHEN 'n' THEN ' on schemas' ELSE ' on large objects' END,
  json_build_object('acl', {acl}) FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
""".format(acl=acl("d.defaclacl"))

_EXTENSIONS = """
SELECT 'extension', NULL, quote_ident(e.extname), json_build_object('_version', e.extversion, 'schema', n.nspname, 'owner', pg_get_userbyid(e.extowner))
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL SELECT 'extension function', NULL, p.oid::regprocedure::text, json_build_object('volatility', p.provolatile,
  'owner', pg_get_userbyid(p.proowner), 'acl', {function_acl}, 'settings', p.proconfig, '_extension', e.extname)
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
UNION ALL SELECT 'extension table', NULL, c.oid::regclass::text, json_build_object('owner', pg_get_userbyid(c.relowner), 'acl', {table_acl},
    '_extension', e.extname)
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_class c ON c.oid = d.objid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'v', 'm', 'p')
""".format(
    function_acl=acl("p.proacl", "f", "p.proowner"),
    table_acl=acl("c.relacl", "r", "c.relowner"),
)


def _changed(catalog: str, kind: str, value: str, owner: str, where: str = "true") -> str:
    # pg_init_privs keeps what initdb granted; only what somebody changed since is the database's own.
    default = "acldefault('{0}', {1})".format(kind, owner)
    sets = tuple(
        '(SELECT array_agg(x::text ORDER BY x::text COLLATE "C") FROM aclexplode(coalesce({0}, {1})) x)'.format(one, default)
        for one in (
            value,
            "(SELECT v.initprivs FROM pg_init_privs v WHERE v.classoid = '{0}'::regclass AND v.objoid = o.oid AND v.objsubid = 0)".format(catalog),
        )
    )
    return (
        "SELECT 'system privileges', NULL, (pg_identify_object('{catalog}'::regclass, o.oid, 0)).identity, json_build_object('acl', {acl})"
        " FROM {catalog} o WHERE o.oid < {first} AND {value} IS NOT NULL AND {where} AND {now} IS DISTINCT FROM {then}"
    ).format(catalog=catalog, acl=acl(value, kind, owner), value=value, first=FIRST_USER_OID, where=where, now=sets[0], then=sets[1])


_SYSTEM = " UNION ALL ".join(
    (
        _changed("pg_proc", "f", "o.proacl", "o.proowner"),
        _changed("pg_class", "r", "o.relacl", "o.relowner", "o.relkind <> 'S'"),
        _changed("pg_type", "T", "o.typacl", "o.typowner"),
        _changed("pg_language", "l", "o.lanacl", "o.lanowner"),
        _changed("pg_namespace", "n", "o.nspacl", "o.nspowner", "o.nspname <> 'public'"),
    )
)

DATABASE = (_DATABASE, _SETTINGS, _ROLES, _DEFAULT_PRIVILEGES, _EXTENSIONS, _SYSTEM)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL that reads a database's tables, and all that hangs on them, in words that every PostgreSQL from 15 on has in common.

Each query gives rows of (kind, role, name, facts). What is compared is ``facts``, a JSON object; ``role`` is put before the name, in the
target's word for it. Keys that begin with an underscore are for the comparison itself; ``owner``, ``acl``, ``roles`` hold roles' names.
"""

from __future__ import annotations

# Everything below 16384 came with initdb; what belongs to an extension comes with the extension.
FIRST_USER_OID = 16384


def mine(catalog: str, oid: str) -> str:
    """Made by somebody, and not by an extension."""
    return (
        "{oid} >= {first} AND NOT EXISTS (SELECT 1 FROM pg_depend ext WHERE ext.classid = '{catalog}'::regclass AND ext.objid = {oid} AND ext.deptype = 'e')"
    ).format(oid=oid, first=FIRST_USER_OID, catalog=catalog)


def acl(value: str, kind: str = "", owner: str = "") -> str:
    """Who may do what; no entry at all means the same as PostgreSQL's defaults written out."""
    wanted = "coalesce({0}, acldefault('{1}', {2}))".format(value, kind, owner) if kind else value
    return (
        "(SELECT json_agg(json_build_array(CASE x.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(x.grantee) END, pg_get_userbyid(x.grantor),"
        " x.privilege_type, x.is_grantable)) FROM aclexplode({0}) x)"
    ).format(wanted)


def ordered(value: str) -> str:
    return '(SELECT json_agg(o ORDER BY o COLLATE "C") FROM unnest({0}) o)'.format(value)


# Sessions' temporary objects and TOAST tables are nobody's to compare.
LASTING = "n.nspname !~ '^pg_(temp|toast)'"
_TABLE = "format('%I.%I', n.nspname, c.relname)"
# Debian's PostgreSQL 15.20 keeps a number of its own among them.
_COLUMN_OPTIONS = "ARRAY(SELECT given FROM unnest(a.attoptions) given WHERE NOT starts_with(given, 'pg_attver='))"
_OF_TABLE = "FROM {0} JOIN pg_class c ON c.oid = {1} JOIN pg_namespace n ON n.oid = c.relnamespace WHERE " + LASTING + " AND " + mine("pg_class", "c.oid")

_RELATIONS = (
    """
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
  NULL, {table}, json_build_object(
  '_oid', c.oid, '_kind', c.relkind, 'partitioned', c.relkind = 'p', 'owner', pg_get_userbyid(c.relowner),
  'acl', CASE c.relkind WHEN 'S' THEN {sequence_acl} ELSE {acl} END,
  'persistence', CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'logged' END, 'options', {options},
  'toast options', (SELECT {toast_options} FROM pg_class t WHERE t.oid = c.reltoastrelid),
  'access method', (SELECT amname FROM pg_am WHERE oid = c.relam), 'tablespace', (SELECT spcname FROM pg_tablespace WHERE oid = c.reltablespace),
  'row security', c.relrowsecurity, 'row security forced', c.relforcerowsecurity, 'replica identity', c.relreplident,
  'partition bound', pg_get_expr(c.relpartbound, c.oid), 'partition key', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
  'parents', (SELECT json_agg(i.inhparent::regclass::text ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid),
  'of type', CASE WHEN c.reloftype <> 0 THEN format_type(c.reloftype, NULL) END,
  'populated', CASE WHEN c.relkind = 'm' THEN c.relispopulated END,
  'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
  'foreign server', (SELECT json_build_array(s.srvname, f.ftoptions)
    FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
  'parameters', (SELECT json_build_object('type', format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement, 'min', q.seqmin,
      'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle) FROM pg_sequence q WHERE q.seqrelid = c.oid),
  'owned by', CASE WHEN c.relkind = 'S' THEN (SELECT format('%s.%I (%s)', d.refobjid::regclass, a.attname, d.deptype) FROM pg_depend d
      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {lasting} AND {mine}
"""
).format(
    table=_TABLE,
    acl=acl("c.relacl", "r", "c.relowner"),
    sequence_acl=acl("c.relacl", "s", "c.relowner"),
    options=ordered("c.reloptions"),
    toast_options=ordered("t.reloptions"),
    lasting=LASTING,
    mine=mine("pg_class", "c.oid"),
)

# The position counts the columns that are there: a dropped one leaves a hole in attnum, which no copy has.
_COLUMNS = (
    """
SELECT 'column', NULL, format('%I.%I.%I', n.nspname, c.relname, a.attname), json_build_object('_of', {table},
  'position', row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), 'type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull,
  'default', pg_get_expr(d.adbin, d.adrelid), 'generated', a.attgenerated, 'identity', a.attidentity,
  'storage', CASE WHEN c.relkind IN ('r', 'p', 'm', 'f') THEN a.attstorage END, 'compression', a.attcompression,
  'statistics target', coalesce(a.attstattarget, -1), 'options', {options}, 'foreign options', a.attfdwoptions, 'local', a.attislocal,
  'collation', CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END, 'acl', {acl})
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND {lasting} AND {mine}
AND (c.relkind <> 'c' OR {type_mine})
"""
).format(
    table=_TABLE, options=ordered(_COLUMN_OPTIONS), acl=acl("a.attacl"), lasting=LASTING, mine=mine("pg_class", "c.oid"), type_mine=mine("pg_type", "c.reltype")
)

# A clone on a partition follows its parent, and PostgreSQL gives it a name by itself. Constraint triggers are told among the triggers.
_CONSTRAINTS = (
    """
SELECT 'constraint', NULL, format('%I on %s', k.conname, {table}), json_build_object('_of', {table}, '_type', k.contype,
  'definition', pg_get_constraintdef(k.oid), 'validated', k.convalidated, 'local', k.conislocal,
  'its triggers', (SELECT json_agg(DISTINCT g.tgenabled::text ORDER BY g.tgenabled::text) FROM pg_trigger g WHERE g.tgconstraint = k.oid)) """
    + _OF_TABLE.format("pg_constraint k", "k.conrelid")
    + " AND k.conparentid = 0 AND k.contype <> 't'"
).format(table=_TABLE)

_DOMAIN_CONSTRAINTS = """
SELECT 'constraint', NULL, format('%I on domain %s', k.conname, format_type(k.contypid, NULL)), json_build_object('_type', k.contype,
  'definition', pg_get_constraintdef(k.oid), 'validated', k.convalidated)
FROM pg_constraint k WHERE k.contypid <> 0 AND """ + mine("pg_type", "k.contypid")

_INDEXES = (
    """
SELECT 'index', NULL, format('%I.%I', n.nspname, r.relname), json_build_object('_of', {table}, 'definition', pg_get_indexdef(i.indexrelid), 'valid',
    i.indisvalid,
  'ready', i.indisready, 'clustered on', i.indisclustered, 'replica identity', i.indisreplident,
  'statistics targets', (SELECT json_agg(coalesce(a.attstattarget, -1) ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = i.indexrelid),
  'tablespace', (SELECT spcname FROM pg_tablespace WHERE oid = r.reltablespace),
  'parent', (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)) """
    + _OF_TABLE.format("pg_index i JOIN pg_class r ON r.oid = i.indexrelid", "i.indrelid")
).format(table=_TABLE)

_TRIGGERS = (
    "SELECT 'trigger', NULL, format('%I on %s', g.tgname, {table}), json_build_object('_of', {table}, 'definition', pg_get_triggerdef(g.oid),"
    " 'enabled', g.tgenabled) " + _OF_TABLE.format("pg_trigger g", "g.tgrelid") + " AND NOT g.tgisinternal"
).format(table=_TABLE)

_RULES = (
    "SELECT 'rule', NULL, format('%I on %s', r.rulename, {table}), json_build_object('_of', {table},"
    " 'definition', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled) " + _OF_TABLE.format("pg_rewrite r", "r.ev_class") + " AND r.rulename <> '_RETURN'"
).format(table=_TABLE)

_POLICIES = (
    """
SELECT 'policy', NULL, format('%I on %s', p.polname, {table}), json_build_object('_of', {table}, 'command', p.polcmd, 'permissive', p.polpermissive,
  'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid),
  'roles', (SELECT json_agg(CASE o WHEN 0 THEN NULL ELSE pg_get_userbyid(o) END) FROM unnest(p.polroles) o)) """
    + _OF_TABLE.format("pg_policy p", "p.polrelid")
).format(table=_TABLE)

_STATISTICS = (
    "SELECT 'statistics', NULL, format('%I.%I', m.nspname, s.stxname), json_build_object('_of', {table}, 'definition', pg_get_statisticsobjdef(s.oid),"
    " 'owner', pg_get_userbyid(s.stxowner), 'statistics target', coalesce(s.stxstattarget, -1)) "
    + _OF_TABLE.format("pg_statistic_ext s JOIN pg_namespace m ON m.oid = s.stxnamespace", "s.stxrelid")
).format(table=_TABLE)

TABLES = (
    _RELATIONS,
    _COLUMNS,
    _CONSTRAINTS,
    _DOMAIN_CONSTRAINTS,
    _INDEXES,
    _TRIGGERS,
    _RULES,
    _POLICIES,
    _STATISTICS,
)

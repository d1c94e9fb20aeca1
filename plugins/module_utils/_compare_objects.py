# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL that reads what a database holds beside its tables; the form of the rows is told in ``_compare_tables``."""

from __future__ import annotations

from ._compare_tables import FIRST_USER_OID, LASTING, acl, mine, ordered

_NAME = "(pg_identify_object('{0}'::regclass, {1}, 0)).identity"

_SCHEMAS = (
    "SELECT 'schema', NULL, quote_ident(n.nspname), json_build_object('owner', pg_get_userbyid(n.nspowner), 'acl', {0}) FROM pg_namespace n"
    " WHERE {1} AND ({2} OR n.nspname = 'public')"
).format(acl("n.nspacl", "n", "n.nspowner"), LASTING, mine("pg_namespace", "n.oid"))

# Arrays and the rows of tables are types that PostgreSQL makes by itself; a multirange goes with its range.
_TYPES = """
SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, NULL, format_type(t.oid, NULL), json_build_object(
  'form', t.typtype, 'owner', pg_get_userbyid(t.typowner), 'acl', {acl}, 'category', t.typcategory, 'preferred', t.typispreferred,
  'labels', (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
  'base', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END, 'not null', t.typnotnull, 'default', pg_get_expr(t.typdefaultbin, 0),
  'collation', CASE WHEN t.typcollation <> 0 THEN t.typcollation::regcollation::text END,
  'range', (SELECT json_build_array(format_type(r.rngsubtype, NULL), o.opcname, r.rngcollation::regcollation::text, r.rngcanonical::regproc::text,
      r.rngsubdiff::regproc::text, format_type(r.rngmultitypid, NULL)) FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc WHERE r.rngtypid = t.oid),
  'base type', CASE WHEN t.typtype = 'b' THEN json_build_array(t.typlen, t.typbyval, t.typalign, t.typstorage, t.typdelim, t.typinput::text, t.typoutput::text,
      t.typreceive::text, t.typsend::text, t.typmodin::text, t.typmodout::text, t.typanalyze::text) END)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE {lasting} AND t.typtype <> 'm' AND (c.relkind = 'c' OR t.typrelid = 0) AND NOT EXISTS (SELECT 1 FROM pg_type a WHERE a.typarray = t.oid) AND {mine}
""".format(acl=acl("t.typacl", "T", "t.typowner"), lasting=LASTING, mine=mine("pg_type", "t.oid"))

_FUNCTIONS = """
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window function' ELSE 'function' END, NULL, {name}, json_build_object(
  'owner', pg_get_userbyid(p.proowner), 'acl', {acl}, 'arguments', pg_get_function_arguments(p.oid), 'result', pg_get_function_result(p.oid),
  'language', l.lanname, 'body', p.prosrc, 'library', p.probin, 'sql body', pg_get_function_sqlbody(p.oid), 'volatility', p.provolatile,
  'strict', p.proisstrict, 'security definer', p.prosecdef, 'leakproof', p.proleakproof, 'parallel', p.proparallel, 'cost', p.procost, 'rows', p.prorows,
  'settings', p.proconfig, 'support', p.prosupport::text, 'transforms', (SELECT json_agg(format_type(o, NULL)) FROM unnest(p.protrftypes) o),
  'aggregate', (SELECT json_build_array(a.aggkind, a.aggnumdirectargs, a.aggtransfn::text, a.aggfinalfn::text, a.aggcombinefn::text, a.aggserialfn::text,
      a.aggdeserialfn::text, a.aggmtransfn::text, a.aggminvtransfn::text, a.aggmfinalfn::text, a.aggfinalextra, a.aggmfinalextra, a.aggfinalmodify,
      a.aggmfinalmodify, a.aggsortop::regoperator::text, format_type(a.aggtranstype, NULL), a.aggtransspace, a.aggmtransspace, a.agginitval, a.aggminitval)
      FROM pg_aggregate a WHERE a.aggfnoid = p.oid))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang WHERE {lasting} AND {mine}
""".format(name="p.oid::regprocedure::text", acl=acl("p.proacl", "f", "p.proowner"), lasting=LASTING, mine=mine("pg_proc", "p.oid"))

_OPERATORS = """
SELECT 'operator', NULL, {name}, json_build_object('owner', pg_get_userbyid(o.oprowner), 'function', o.oprcode::regprocedure::text,
  'commutator', o.oprcom::regoperator::text, 'negator', o.oprnegate::regoperator::text, 'merges', o.oprcanmerge, 'hashes', o.oprcanhash,
  'restrict', o.oprrest::text, 'join', o.oprjoin::text) FROM pg_operator o WHERE {mine}
""".format(name="o.oid::regoperator::text", mine=mine("pg_operator", "o.oid"))

_OPERATOR_CLASSES = """
SELECT 'operator class', NULL, {name}, json_build_object('owner', pg_get_userbyid(o.opcowner), 'default', o.opcdefault, 'input', format_type(o.opcintype, NULL),
  'key', CASE WHEN o.opckeytype <> 0 THEN format_type(o.opckeytype, NULL) END, 'family', {family}) FROM pg_opclass o WHERE {mine}
""".format(name=_NAME.format("pg_opclass", "o.oid"), family=_NAME.format("pg_opfamily", "o.opcfamily"), mine=mine("pg_opclass", "o.oid"))

_OPERATOR_FAMILIES = """
SELECT 'operator family', NULL, {name}, json_build_object('owner', pg_get_userbyid(f.opfowner),
  'operators', (SELECT json_agg(json_build_array(a.amopstrategy, a.amopopr::regoperator::text, a.amoppurpose) ORDER BY a.amopstrategy,
    a.amopopr::regoperator::text)
      FROM pg_amop a WHERE a.amopfamily = f.oid),
  'functions', (SELECT json_agg(json_build_array(a.amprocnum, a.amproc::regprocedure::text) ORDER BY a.amprocnum, a.amproc::regprocedure::text)
      FROM pg_amproc a WHERE a.amprocfamily = f.oid)) FROM pg_opfamily f WHERE {mine}
""".format(name=_NAME.format("pg_opfamily", "f.oid"), mine=mine("pg_opfamily", "f.oid"))

_CASTS = (
    "SELECT 'cast', NULL, {0}, json_build_object('function', c.castfunc::regprocedure::text, 'context', c.castcontext, 'method', c.castmethod)"
    " FROM pg_cast c WHERE {1}"
).format(_NAME.format("pg_cast", "c.oid"), mine("pg_cast", "c.oid"))

# PostgreSQL 17 renamed colliculocale. The version is the operating system's, and says nothing about what the tenant made. For any encoding (-1) or
# for the database's is the same in that database, and a dump makes the one of the other.
_COLLATIONS = """
SELECT 'collation', NULL, format('%I.%I', n.nspname, c.collname), json_build_object('owner', pg_get_userbyid(c.collowner), 'provider', c.collprovider,
  'deterministic', c.collisdeterministic,
  'encoding', CASE WHEN pg_encoding_to_char(c.collencoding) <> getdatabaseencoding() THEN nullif(c.collencoding, -1) END, 'collate', c.collcollate,
  'ctype', c.collctype,
  'locale', coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale'), 'rules', to_jsonb(c) ->> 'collicurules')
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE {0}
""".format(mine("pg_collation", "c.oid"))

_TEXT_SEARCH = """
SELECT 'text search configuration', NULL, {config_name}, json_build_object('owner', pg_get_userbyid(c.cfgowner), 'parser', {config_parser},
  'mappings', (SELECT json_agg(json_build_array(k.alias, {map_dict}) ORDER BY m.maptokentype, m.mapseqno)
      FROM pg_ts_config_map m JOIN ts_token_type(c.cfgparser) k ON k.tokid = m.maptokentype WHERE m.mapcfg = c.oid)) FROM pg_ts_config c WHERE {config_mine}
UNION ALL SELECT 'text search dictionary', NULL, {dict_name}, json_build_object('owner', pg_get_userbyid(d.dictowner), 'template', {dict_template},
  'options', d.dictinitoption) FROM pg_ts_dict d WHERE {dict_mine}
UNION ALL SELECT 'text search parser', NULL, {parser_name}, json_build_object('functions', json_build_array(p.prsstart::text, p.prstoken::text, p.prsend::text,
  p.prsheadline::text, p.prslextype::text)) FROM pg_ts_parser p WHERE {parser_mine}
UNION ALL SELECT 'text search template', NULL, {template_name}, json_build_object('functions', json_build_array(t.tmplinit::text, t.tmpllexize::text))
FROM pg_ts_template t WHERE {template_mine}
""".format(
    config_name=_NAME.format("pg_ts_config", "c.oid"),
    config_parser=_NAME.format("pg_ts_parser", "c.cfgparser"),
    map_dict=_NAME.format("pg_ts_dict", "m.mapdict"),
    config_mine=mine("pg_ts_config", "c.oid"),
    dict_name=_NAME.format("pg_ts_dict", "d.oid"),
    dict_template=_NAME.format("pg_ts_template", "d.dicttemplate"),
    dict_mine=mine("pg_ts_dict", "d.oid"),
    parser_name=_NAME.format("pg_ts_parser", "p.oid"),
    parser_mine=mine("pg_ts_parser", "p.oid"),
    template_name=_NAME.format("pg_ts_template", "t.oid"),
    template_mine=mine("pg_ts_template", "t.oid"),
)

_REST = """
SELECT 'event trigger', NULL, quote_ident(e.evtname), json_build_object('owner', pg_get_userbyid(e.evtowner), 'event', e.evtevent, 'enabled', e.evtenabled,
  'tags', {tags}, 'function', e.evtfoid::regprocedure::text) FROM pg_event_trigger e WHERE {event_mine}
UNION ALL SELECT 'conversion', NULL, {conversion}, json_build_object('owner', pg_get_userbyid(c.conowner), 'default', c.condefault, 'function', c.conproc::text,
  'encodings', json_build_array(c.conforencoding, c.contoencoding)) FROM pg_conversion c WHERE {conversion_mine}
UNION ALL SELECT 'language', NULL, quote_ident(l.lanname), json_build_object('owner', pg_get_userbyid(l.lanowner), 'acl', {language_acl}, 'trusted',
    l.lanpltrusted,
  'handler', l.lanplcallfoid::regproc::text) FROM pg_language l WHERE {language_mine}
UNION ALL SELECT 'access method', NULL, quote_ident(a.amname), json_build_object('handler', a.amhandler::text, 'type', a.amtype) FROM pg_am a WHERE {am_mine}
UNION ALL SELECT 'transform', NULL, {transform}, json_build_object('functions', json_build_array(t.trffromsql::text, t.trftosql::text))
FROM pg_transform t WHERE {transform_mine}
UNION ALL SELECT 'foreign data wrapper', NULL, quote_ident(f.fdwname), json_build_object('owner', pg_get_userbyid(f.fdwowner), 'acl', {fdw_acl},
  'functions', json_build_array(f.fdwhandler::regproc::text, f.fdwvalidator::regproc::text), 'options', {fdw_options})
    FROM pg_foreign_data_wrapper f WHERE {fdw_mine}
UNION ALL SELECT 'foreign server', NULL, quote_ident(s.srvname), json_build_object('owner', pg_get_userbyid(s.srvowner), 'acl', {server_acl}, 'type', s.srvtype,
  'version', s.srvversion, 'options', {server_options}) FROM pg_foreign_server s WHERE {server_mine}
UNION ALL SELECT 'user mapping', CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(m.umuser) END, format(' on %I', s.srvname),
  json_build_object('secret options', encode(sha256(convert_to(m.umoptions::text, 'UTF8')), 'hex'))
    FROM pg_user_mapping m JOIN pg_foreign_server s ON s.oid = m.umserver
UNION ALL SELECT 'publication', NULL, quote_ident(p.pubname), json_build_object('owner', pg_get_userbyid(p.pubowner), 'all tables', p.puballtables,
  'publishes', json_build_array(p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot),
  'tables', (SELECT json_agg(json_build_array(r.prrelid::regclass::text, pg_get_expr(r.prqual, r.prrelid),
    (SELECT json_agg(a.attname ORDER BY a.attname)
      FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs))) ORDER BY r.prrelid::regclass::text)
      FROM pg_publication_rel r WHERE r.prpubid = p.oid),
  'schemas', (SELECT json_agg(n.pnnspid::regnamespace::text ORDER BY n.pnnspid::regnamespace::text) FROM pg_publication_namespace n WHERE n.pnpubid = p.oid))
FROM pg_publication p
UNION ALL SELECT 'subscription', NULL, quote_ident(s.subname), json_build_object('owner', pg_get_userbyid(s.subowner), 'enabled', s.subenabled,
  'slot', s.subslotname, 'publications', s.subpublications, 'secret connection', encode(sha256(convert_to(s.subconninfo, 'UTF8')), 'hex'))
FROM pg_subscription s WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
""".format(
    tags=ordered("e.evttags"),
    event_mine=mine("pg_event_trigger", "e.oid"),
    conversion=_NAME.format("pg_conversion", "c.oid"),
    conversion_mine=mine("pg_conversion", "c.oid"),
    language_acl=acl("l.lanacl", "l", "l.lanowner"),
    language_mine=mine("pg_language", "l.oid"),
    am_mine=mine("pg_am", "a.oid"),
    transform=_NAME.format("pg_transform", "t.oid"),
    transform_mine=mine("pg_transform", "t.oid"),
    fdw_acl=acl("f.fdwacl", "F", "f.fdwowner"),
    fdw_options=ordered("f.fdwoptions"),
    fdw_mine=mine("pg_foreign_data_wrapper", "f.oid"),
    server_acl=acl("s.srvacl", "S", "s.srvowner"),
    server_options=ordered("s.srvoptions"),
    server_mine=mine("pg_foreign_server", "s.oid"),
)

_LARGE_OBJECTS = (
    "SELECT 'large object', NULL, l.oid::text, json_build_object('owner', pg_get_userbyid(l.lomowner), 'acl', {0}) FROM pg_largeobject_metadata l"
).format(acl("l.lomacl", "L", "l.lomowner"))

# What initdb or an extension's script said about its own objects is theirs; the schema public is the exception, since it is anybody's.
_SAID = """
SELECT '{kind}', NULL, i.type || ' ' || i.identity{more}, json_build_object('text', d.{text}) FROM {catalog} d,
LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i WHERE coalesce(i.schema, '') !~ '^pg_(temp|toast)'
AND (d.objoid >= {first} OR (d.classoid = 'pg_namespace'::regclass AND d.objoid = to_regnamespace('public'))) AND NOT EXISTS (SELECT 1 FROM pg_depend e
  WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')
"""
_COMMENTS = _SAID.format(kind="comment", text="description", catalog="pg_description", first=FIRST_USER_OID, more="")
_LABELS = _SAID.format(kind="security label", text="label", catalog="pg_seclabel", first=FIRST_USER_OID, more=" || ' by ' || d.provider")

_DEPENDENCIES = (
    "SELECT 'dependency', NULL, format('%s %s on extension %I', i.type, i.identity, x.extname), json_build_object('there', true) FROM pg_depend d"
    " JOIN pg_extension x ON x.oid = d.refobjid, LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i"
    " WHERE d.deptype = 'x' AND d.refclassid = 'pg_extension'::regclass"
)

OBJECTS = (
    _SCHEMAS,
    _TYPES,
    _FUNCTIONS,
    _OPERATORS,
    _OPERATOR_CLASSES,
    _OPERATOR_FAMILIES,
    _CASTS,
    _COLLATIONS,
    _TEXT_SEARCH,
    _REST,
    _LARGE_OBJECTS,
    _COMMENTS,
    _LABELS,
    _DEPENDENCIES,
)

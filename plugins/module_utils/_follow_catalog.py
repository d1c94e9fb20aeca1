# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogs say of a database that is followed: only reading."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from ._copy_session import APPLICATION_NAME, rows
from ._follow_plan import Status

try:
    from psycopg2 import sql
except ImportError:
    pass  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Anything of the tenant's that a dump would write.
_LASTING = """SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""
# A catalog's row is never changed but by a new one, which another transaction wrote; so who wrote each of them says it all, and a column that was altered
# and altered back, whose values need not be as they were, does not look as before.
_WRITTEN = "x.xmin"
# But what a server changes by itself, and TRUNCATE and VACUUM FULL do, is no definition: places of files, counts.
_RELATION = (
    "ROW(x.oid, relname, relnamespace, reltype, reloftype, relowner, relam, reltablespace, relpersistence, relkind, relnatts, relchecks, relrowsecurity,"
    " relforcerowsecurity, relispopulated, relreplident, relispartition, relacl, reloptions, relpartbound)"
)
_INDEX = (
    "ROW(indexrelid, indrelid, indnatts, indnkeyatts, indisunique, indnullsnotdistinct, indisprimary, indisexclusion, indimmediate, indisclustered, indisvalid,"
    " indisready, indislive, indisreplident, indkey, indcollation, indclass, indoption, indexprs, indpred)"
)
_OF_RELATIONS = {
    "columns": ("pg_attribute", "attrelid", "x.attnum > 0"),
    "defaults": ("pg_attrdef", "adrelid", ""),
    "indexes": ("pg_index", "indrelid", ""),
    "triggers": ("pg_trigger", "tgrelid", ""),
    "rules and views": ("pg_rewrite", "ev_class", ""),
    "policies": ("pg_policy", "polrelid", ""),
    "inheritance": ("pg_inherits", "inhrelid", ""),
    "partitioning": ("pg_partitioned_table", "partrelid", ""),
    "sequences": ("pg_sequence", "seqrelid", ""),
    "extended statistics": ("pg_statistic_ext", "stxrelid", ""),
}
_OF_SCHEMAS = {
    "functions": ("pg_proc", "pronamespace"),
    "types": ("pg_type", "typnamespace"),
    "operators": ("pg_operator", "oprnamespace"),
    "operator classes": ("pg_opclass", "opcnamespace"),
    "operator families": ("pg_opfamily", "opfnamespace"),
    "collations": ("pg_collation", "collnamespace"),
    "conversions": ("pg_conversion", "connamespace"),
    "text search configurations": ("pg_ts_config", "cfgnamespace"),
    "text search dictionaries": ("pg_ts_dict", "dictnamespace"),
    "text search parsers": ("pg_ts_parser", "prsnamespace"),
    "text search templates": ("pg_ts_template", "tmplnamespace"),
    "constraints": ("pg_constraint", "connamespace"),
}
_BY_THEMSELVES = {
    "values of enums": ("pg_enum", "x.oid >= 16384"),
    "ranges": ("pg_range", "x.rngtypid >= 16384"),
    "aggregates": ("pg_aggregate", "x.aggfnoid >= 16384"),
    "casts": ("pg_cast", "x.oid >= 16384"),
    "languages": ("pg_language", "true"),
    "extensions": ("pg_extension", "true"),
    "event triggers": ("pg_event_trigger", "true"),
    "foreign data wrappers": ("pg_foreign_data_wrapper", "true"),
    "foreign servers": ("pg_foreign_server", "true"),
    "foreign tables": ("pg_foreign_table", "true"),
    "user mappings": ("pg_user_mapping", "true"),
    "default privileges": ("pg_default_acl", "true"),
    "transforms": ("pg_transform", "x.oid >= 16384"),
    "access methods": ("pg_am", "x.oid >= 16384"),
    "operators of families": ("pg_amop", "x.oid >= 16384"),
    "functions of families": ("pg_amproc", "x.oid >= 16384"),
    "text search mappings": ("pg_ts_config_map", "x.mapcfg >= 16384"),
    "schemas": ("pg_namespace", "x.nspname !~ '^pg_(toast|temp)'"),
    "comments": (
        "pg_description",
        "x.classoid NOT IN ('pg_publication'::regclass, 'pg_subscription'::regclass) AND (x.objoid >= 16384 OR x.classoid = 'pg_namespace'::regclass)",
    ),
    "security labels": ("pg_seclabel", "true"),
}
# Neither the order of rows nor of columns matters; and a sum of hashes takes no memory.
_DIGEST = "SELECT {0} AS kind, count(*) || ':' || coalesce(sum(hashtextextended({1}::text, 0)::numeric), 0) AS digest FROM {2} x WHERE {3}"

_FOLLOWED = """FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
   SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2"""
# A table of the tenant's own whose changes are to be followed, and how the subscriber would find the rows of it.
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, pg_table_size(c.oid) AS size, c.relreplident AS kind,
   (SELECT r.relname FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident) AS index,
   CASE c.relreplident WHEN 'f' THEN true
      WHEN 'i' THEN EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
      WHEN 'd' THEN EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
      ELSE false END AS identified,
   (SELECT coalesce(array_agg(DISTINCT format_type(t.oid, NULL)), '{}') FROM pg_attribute a
      LEFT JOIN pg_type d ON d.oid = a.atttypid AND d.typtype = 'd'
      JOIN pg_type y ON y.oid = coalesce(d.typbasetype, a.atttypid)
      JOIN pg_type t ON t.oid = CASE WHEN y.typcategory = 'A' AND y.typelem <> 0 THEN y.typelem ELSE y.oid END
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'b' AND NOT EXISTS (
         SELECT 1 FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname IN ('btree', 'hash') WHERE o.opcdefault AND (o.opcintype = t.oid
            OR EXISTS (SELECT 1 FROM pg_cast k WHERE k.castsource = t.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i'))))
      AS incomparable
""" + _FOLLOWED
_NAMES = "SELECT n.nspname AS schema, c.relname AS name " + _FOLLOWED
# Who drops a table and makes it anew takes it out of a publication.
_PUBLISHED = "SELECT 1 FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = %(name)s AND r.prrelid = c.oid"
_UNPUBLISHED = _NAMES.replace("ORDER BY", "AND NOT EXISTS ({0}) ORDER BY".format(_PUBLISHED))

_UNLOGGED = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' ORDER BY 1, 2"""

# Rows in them that its script calls the user's.
_OF_EXTENSIONS = """
SELECT n.nspname AS schema, c.relname AS name, x.condition FROM (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension) x
JOIN pg_class c ON c.oid = x.oid AND c.relkind = 'r' JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2"""

# Others' sessions, those of superusers set aside; but a background worker writes as whoever it likes, and a subscription's as a superuser.
_SESSIONS = """
SELECT a.pid, coalesce(a.usename::text, a.backend_type) AS who, a.application_name AS application FROM pg_stat_activity a
LEFT JOIN pg_roles r ON r.oid = a.usesysid WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND CASE a.backend_type WHEN 'client backend' THEN NOT coalesce(r.rolsuper, false) ELSE a.backend_type NOT IN %(harmless)s END ORDER BY 1 LIMIT 10"""
_HARMLESS = ("walsender", "autovacuum worker", "parallel worker")
_PREPARED = "SELECT gid, owner::text AS who FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1 LIMIT 10"

# Whoever changes a table's definition waits for the copy's sessions to let go of it, and everybody else waits behind.
_WAITING = """
SELECT l.pid, coalesce(l.relation::regclass::text, '') AS relation, coalesce(a.usename::text, '') AS who FROM pg_locks l
JOIN pg_database d ON d.oid = l.database JOIN pg_stat_activity a ON a.pid = l.pid WHERE d.datname = current_database() AND NOT l.granted
  AND l.locktype = 'relation' AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock') AND a.backend_type = 'client backend'
  AND EXISTS (SELECT 1 FROM pg_stat_activity x WHERE x.pid = ANY (pg_blocking_pids(l.pid)) AND x.application_name = %(copy)s) ORDER BY 1 LIMIT 1"""

_SLOT = """
SELECT coalesce(wal_status, 'lost') AS wal_status, (SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), o.restart_lsn)), 0)::bigint
      FROM pg_replication_slots o WHERE o.slot_name = ANY (%(all)s)) AS retained,
   greatest(0, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0))::bigint AS lag, active
FROM pg_replication_slots WHERE slot_name = %(name)s"""
_REACHED = """
SELECT coalesce(greatest(s.confirmed_flush_lsn, r.replay_lsn) >= %(lsn)s::pg_lsn, false) AS reached FROM pg_replication_slots s
LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = %(name)s"""
# It takes messages one after the other, and only the one that says how far the publisher has come is counted here. The publisher hears of it
# later, when what was applied has been flushed.
_APPLIED = """
SELECT coalesce(t.latest_end_lsn >= %(lsn)s::pg_lsn, false) AS reached FROM pg_subscription s JOIN pg_stat_subscription t ON t.subid = s.oid
WHERE s.subname = %(name)s AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_ERRORS = """
SELECT coalesce(sum(t.apply_error_count + t.sync_error_count), 0)::int AS errors FROM pg_subscription s
JOIN pg_stat_subscription_stats t ON t.subid = s.oid WHERE s.subname = %(name)s
  AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def fingerprint(connection: Any) -> Dict[str, str]:
    """What anybody could have changed of the database but rows, as one digest for each kind of objects."""
    return {row["kind"]: row["digest"] for row in rows(connection, _fingerprint_query())}


def _fingerprint_query() -> str:
    lasting = "IN ({0})".format(_LASTING)
    parts = [("relations", _RELATION, "pg_class", "x.oid {0}".format(lasting))]
    for kind, (catalog, column, more) in _OF_RELATIONS.items():
        content = _INDEX if catalog == "pg_index" else _WRITTEN
        parts.append((kind, content, catalog, "x.{0} {1}{2}".format(column, lasting, " AND " + more if more else "")))
    for kind, (catalog, column) in _OF_SCHEMAS.items():
        temporary = "x.{0} NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast|temp)')".format(column)
        parts.append((kind, _WRITTEN, catalog, "x.oid >= 16384 AND " + temporary))
    parts += [(kind, _WRITTEN, catalog, where) for kind, (catalog, where) in _BY_THEMSELVES.items()]
    return " UNION ALL ".join(_DIGEST.format("'{0}'::text".format(kind), content, catalog, where) for kind, content, catalog, where in parts)


def tables(connection: Any) -> List[Dict[str, Any]]:
    return rows(connection, _TABLES)


def names(connection: Any) -> List[Dict[str, Any]]:
    return rows(connection, _NAMES)


def unpublished(connection: Any, publication: str) -> List[str]:
    """Tables that would have to be followed, and whose changes this publication does not tell."""
    return ["{schema}.{name}".format(**row) for row in rows(connection, _UNPUBLISHED, {"name": publication})]


def sessions(connection: Any) -> List[Dict[str, Any]]:
    return rows(connection, _SESSIONS, {"harmless": _HARMLESS})


def prepared(connection: Any) -> List[Dict[str, Any]]:
    """Transactions of nobody's session, which anybody may commit."""
    return rows(connection, _PREPARED)


def waiting(connection: Any) -> List[Dict[str, Any]]:
    return rows(connection, _WAITING, {"copy": APPLICATION_NAME})


def not_followed(connection: Any) -> List[Tuple[str, str]]:
    """What holds something and whose changes no publication tells of, by its kind and name."""
    found = [("unlogged table", "{schema}.{name}".format(**one)) for one in rows(connection, _UNLOGGED) if _holds(connection, one["schema"], one["name"], "")]
    for one in rows(connection, _OF_EXTENSIONS):
        if _holds(connection, one["schema"], one["name"], one["condition"]):
            found.append(("extension table", "{schema}.{name}".format(**one)))
    count = rows(connection, "SELECT count(*) AS count FROM pg_largeobject_metadata")[0]["count"]
    return found + ([("large objects", str(count))] if count else [])


def _holds(connection: Any, schema: str, name: str, condition: str) -> bool:
    # The condition is the extension's own, as its control file has it.
    query = sql.SQL("SELECT EXISTS (SELECT 1 FROM ONLY {0} {1}) AS holds").format(sql.Identifier(schema, name), sql.SQL(condition))
    return bool(rows(connection, query)[0]["holds"])


def status(publisher: Any, subscriber: Any, name: str, *beside: str) -> Status:
    """Of the slot of this name; what is kept also for those *beside* it."""
    found = rows(publisher, _SLOT, {"name": name, "all": [name, *beside]})
    if not found:
        return Status(None)
    errors = rows(subscriber, _ERRORS, {"name": name})[0]["errors"] if subscriber else 0
    return Status(found[0]["wal_status"], found[0]["lag"], found[0]["retained"], errors, found[0]["active"])


def confirmed(publisher: Any, name: str) -> str:
    """Up to where the subscriber has all, and keeps it."""
    return str(rows(publisher, "SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = %(name)s", {"name": name})[0]["lsn"])


def reached(publisher: Any, subscriber: Any, name: str, lsn: str) -> bool:
    """Whether the subscriber has applied all up to this place, behind which nothing was committed that it is told of."""
    values = {"name": name, "lsn": lsn}
    return any(row["reached"] for row in rows(subscriber, _APPLIED, values)) or any(row["reached"] for row in rows(publisher, _REACHED, values))

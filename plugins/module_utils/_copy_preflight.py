# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands against a copy, looked for before anything is made, and what is worth knowing of it."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from . import _copy_catalog as catalog
from ._copy_dress import POWERS, UNFINISHED, existing
from ._copy_plan import SPACE_FACTOR, Problem
from ._copy_session import Side, execute, rows

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_FACTS = """
SELECT pg_database_size(current_database()) AS size,
   (SELECT count(*) FROM pg_largeobject_metadata) AS large_objects,
   (SELECT coalesce(sum(pg_relation_size(oid)), 0)::bigint FROM pg_class WHERE oid = 'pg_largeobject'::regclass) AS large_object_bytes,
   (SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u' AND oid >= 16384) AS unlogged_tables,
   (SELECT count(*) FROM pg_event_trigger) AS event_triggers,
   (SELECT coalesce(array_agg(pubname::text ORDER BY 1), '{}') FROM pg_publication) AS publications,
   (SELECT coalesce(array_agg(subname::text ORDER BY 1), '{}') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE d.datname = current_database()) AS subscriptions,
   (SELECT coalesce(array_agg(srvname::text ORDER BY 1), '{}') FROM pg_foreign_server) AS foreign_servers,
   (SELECT count(*) FROM pg_user_mapping) AS user_mappings,
   (SELECT count(*) FROM pg_seclabel) + (SELECT count(*) FROM pg_shseclabel) AS security_labels,
   (SELECT coalesce(array_agg(DISTINCT t.spcname::text), '{}') FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
    WHERE t.spcname <> 'pg_global') AS tablespaces,
   (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'S', 'v', 'm', 'f') AND oid >= 16384) AS relations,
   current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) AS locks
"""
# What an earlier copy left of the same database is thrown away first.
_TAKEN = "SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint AS bytes FROM pg_database WHERE datname <> %(name)s"
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1"
_LOCKS = """
SELECT l.pid, coalesce(l.relation::regclass::text, '') AS relation, coalesce(a.usename, '') AS who FROM pg_locks l
JOIN pg_database d ON d.oid = l.database LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE d.datname = current_database() AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
  AND coalesce(a.backend_type, '') <> 'autovacuum worker' ORDER BY 1, 2 LIMIT 10"""
_LONG = """
SELECT pid, usename, extract(epoch FROM now() - xact_start)::int AS seconds FROM pg_stat_activity WHERE datname = current_database()
  AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start < now() - interval '1 minute' ORDER BY xact_start LIMIT 10"""
_SLOTS = "SELECT slot_name::text AS slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"
_COLLATIONS = """
SELECT n.nspname || '.' || c.collname AS name, c.collprovider AS provider, {locale} AS locale, c.collcollate AS lc_collate, c.collctype AS lc_ctype
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid >= 16384 AND n.nspname <> 'pg_catalog' ORDER BY 1"""
# A database that holds nothing of anybody's: what an extension brought is no loss.
_EMPTY = """
SELECT NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'S', 'v', 'm', 'f') AND c.relpersistence <> 't' AND NOT EXISTS (
      SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
  AND NOT EXISTS (SELECT 1 FROM pg_proc p WHERE p.oid >= 16384 AND NOT EXISTS (
      SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
  AND NOT EXISTS (SELECT 1 FROM pg_largeobject_metadata) AS empty"""


class Findings(NamedTuple):
    database: Dict[str, Any]
    facts: Dict[str, Any]
    roles: List[Dict[str, Any]]
    # Of the target's database, None when there is none yet.
    there: Optional[Dict[str, Any]]
    problems: List[Problem]
    warnings: List[str]


class Preflight:
    def __init__(self, source: Side, target: Side, replace: bool, target_free_bytes: Optional[int], target_budget_bytes: Optional[int] = None) -> None:
        self._source = source
        self._target = target
        self._replace = replace
        self._free = target_free_bytes
        self._budget = target_budget_bytes
        self._problems: List[Problem] = []
        self._warnings: List[str] = []

    def look(self, source: Any, server: Any, found: Mapping[str, Any]) -> Findings:
        """*source* is a session in the database, *server* one of the target's own database."""
        facts = rows(source, _FACTS)[0]
        roles = catalog.roles(source, found, self._source.owner)
        there = catalog.database(server, self._target.database)
        self._versions(source, server)
        self._room(server, facts)
        self._place(there, found)
        self._roles(server, roles, found)
        self._extensions(source, server)
        self._locales(source, server, found)
        self._tablespaces(server, [*facts["tablespaces"], found["tablespace"]])
        self._quiet(source, facts)
        self._left_out(source, facts, found)
        return Findings(dict(found), facts, roles, there, self._problems, self._warnings)

    def _refuse(self, what: str, problem: str, remedy: str) -> None:
        self._problems.append(Problem(what, problem, remedy))

    def _versions(self, source: Any, server: Any) -> None:
        for side, connection in ((self._source, source), (self._target, server)):
            if connection.server_version < 150000:
                self._refuse("version", "The {0} is older than PostgreSQL 15.".format(side.where), "15 is the oldest that is supported.")
            if not rows(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0]["rolsuper"]:
                self._refuse("login", "The login to the {0} is no superuser's.".format(side.where), "Log in as one: verifiers are read from pg_authid.")
        majors = source.server_version // 10000, server.server_version // 10000
        if majors[1] < majors[0]:
            self._refuse("version", "The target is PostgreSQL {1}, older than the source's {0}.".format(*majors), "Choose a newer target.")

    def _room(self, server: Any, facts: Mapping[str, Any]) -> None:
        needed = int(facts["size"] * SPACE_FACTOR)
        if self._free is not None and self._free < needed:
            told = "{0} bytes are free on the target; the database of {1} bytes needs {2}.".format(self._free, facts["size"], needed)
            self._refuse("space", told, "Make room there, or choose another target.")
        if self._budget is not None:
            taken = int(rows(server, _TAKEN, {"name": self._target.database})[0]["bytes"])
            if taken + needed > self._budget:
                told = "The target's databases take {0} of its {1} bytes; the database of {2} bytes needs {3}."
                told = told.format(taken, self._budget, facts["size"], needed)
                self._refuse("space", told, "Give that server more storage, or choose another target.")

    def _place(self, there: Optional[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
        if found["owner"] != self._source.owner:
            told = "Database {0} belongs to {1} on the source, not to {2}.".format(found["name"], found["owner"], self._source.owner)
            self._refuse("owner", told, "Give its owner.")
        if self._source.owner != self._target.owner:
            told = "The owner is {0} on the source and {1} on the target.".format(self._source.owner, self._target.owner)
            self._refuse("owner", told, "Give the same; a copy keeps the names of its roles.")
        if there is None:
            return
        name = there["name"]
        if there["owner"] != self._target.owner:
            told = "Database {0} is on the target already and belongs to {1}.".format(name, there["owner"])
            self._refuse("target", told, "Choose another name; a database of somebody else is never replaced.")
        elif not self._replace and there["comment"] != UNFINISHED and there["connection_limit"] != -2 and not self._is_empty():
            told = "Database {0} is on the target already and holds something.".format(name)
            self._refuse("target", told, "Set replace=true if all of it may be thrown away.")

    def _is_empty(self) -> bool:
        with self._target.session() as inside:
            return bool(rows(inside, _EMPTY)[0]["empty"])

    def _roles(self, server: Any, roles: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
        there = set(existing(server, (role["name"] for role in roles)))
        for role in roles:
            powers = [word for key, word in POWERS if role[key]]
            if role["name"] not in there and powers:
                told = "Role {0}, which owns something or is granted something, has {1} and is missing on the target.".format(role["name"], ", ".join(powers))
                self._refuse("role", told, "Make it there, or give what it owns to another role on the source.")
        if self._target.owner != self._source.owner:
            return
        for role in roles:
            if role["name"] == found["owner"] and role["verifier"] and not role["verifier"].startswith("SCRAM-SHA-256$"):
                self._refuse("role", "The password of {0} is kept as MD5.".format(role["name"]), "Set it anew with password_encryption=scram-sha-256.")

    def _extensions(self, source: Any, server: Any) -> None:
        available = {row["name"]: row["version"] for row in rows(server, "SELECT name, default_version AS version FROM pg_available_extensions")}
        for one in catalog.extensions(source):
            if one["name"] not in available:
                told = "The target has no extension {0} ({1} on the source).".format(one["name"], one["version"])
                self._refuse("extension", told, "Install its package on the target, or drop it on the source.")
            elif available[one["name"]] != one["version"]:
                self._warnings.append("Extension {0} is {1} on the source and will be {2}.".format(one["name"], one["version"], available[one["name"]]))

    def _locales(self, source: Any, server: Any, found: Mapping[str, Any]) -> None:
        column = "c.colllocale" if source.server_version >= 170000 else "c.colliculocale"
        wanted = [dict(found, name="database " + found["name"]), *rows(source, _COLLATIONS.format(locale=column))]
        for one in wanted:
            said = locale_refusal(server, one)
            if said:
                self._refuse("collation", "The target cannot have the collation of {0}: {1}".format(one["name"], said), "Install the locale there.")

    def _tablespaces(self, server: Any, names: Sequence[str]) -> None:
        there = {row["name"] for row in rows(server, "SELECT spcname::text AS name FROM pg_tablespace")}
        for name in sorted(set(names) - there):
            self._refuse("tablespace", "The target has no tablespace {0}.".format(name), "Make it there, or move what is in it to pg_default on the source.")

    def _quiet(self, source: Any, facts: Mapping[str, Any]) -> None:
        for row in rows(source, _PREPARED):
            self._refuse("prepared transaction", "Prepared transaction {0} is open.".format(row["gid"]), "Commit it or roll it back.")
        for row in rows(source, _LOCKS):
            told = "Session {0} of {1} holds an exclusive lock on {2}.".format(row["pid"], row["who"], row["relation"])
            self._refuse("lock", told, "Let it end, or end it.")
        for row in rows(source, _SLOTS):
            told = "Replication slot {0} reads this database; its reader would lose the thread.".format(row["slot_name"])
            self._refuse("replication slot", told, "Drop the slot, and set its reader up anew after the move.")
        if facts["relations"] > facts["locks"]:
            told = "{0} relations cannot all be locked: the source has room for {1} locks.".format(facts["relations"], facts["locks"])
            self._refuse("locks", told, "Raise max_locks_per_transaction on the source.")
        for row in rows(source, _LONG):
            told = "Session {0} of {1} has had a transaction open for {2} s; what it has not committed is not copied."
            self._warnings.append(told.format(row["pid"], row["usename"], row["seconds"]))

    def _left_out(self, source: Any, facts: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        for key, what in (("publications", "Publications"), ("subscriptions", "Subscriptions")):
            if facts[key]:
                self._warnings.append("{0} are not copied: {1}.".format(what, ", ".join(facts[key])))
        if facts["foreign_servers"]:
            told = "Foreign servers are copied with their {0} user mappings, passwords among them: {1}."
            self._warnings.append(told.format(facts["user_mappings"], ", ".join(facts["foreign_servers"])))
        if facts["security_labels"]:
            self._warnings.append("Security labels of the database and of roles are not copied.")


def locale_refusal(server: Any, wanted: Mapping[str, Any]) -> str:
    """Why the target's machine does not know this locale; empty when it does. Nothing is kept of the question."""
    provider = wanted["provider"]
    if provider not in ("c", "i"):
        return ""
    text = "CREATE COLLATION pg_temp.copied (provider = libc, lc_collate = {0}, lc_ctype = {1})"
    values = [wanted["lc_collate"], wanted["lc_ctype"]]
    if provider == "i":
        text, values = "CREATE COLLATION pg_temp.copied (provider = icu, locale = {0})", [wanted["locale"]]
    try:
        execute(server, "BEGIN")
        execute(server, sql.SQL(text).format(*map(sql.Literal, values)))
    except psycopg2.Error as error:
        return " ".join(str(error.diag.message_primary).split()) + "."
    finally:
        execute(server, "ROLLBACK")
    return ""

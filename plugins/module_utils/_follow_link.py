# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What links a publisher to its subscriber: role, publication, slot, subscription; and how each of them goes again.

The publication comes first and goes last: its comment says what else was changed, so that it can be put back by whoever comes.
"""

from __future__ import annotations

import time
from typing import Any, List, Mapping, Optional, Sequence

from ._copy_session import execute, rows
from ._errors import PoolsError
from ._follow_plan import Identity, Peer, Record, record, role_mark

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Everybody who comes to a table after us waits behind us, so not for long.
_LOCK_SECONDS = 2
_LOCK_TRIES = 5
_SLOT_SECONDS = 10
_IDENTITY = {"d": "DEFAULT", "n": "NOTHING"}
# A subscription's password is in the statement that makes it.
_UNHEARD = (
    "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_duration_statement = -1; SET log_min_duration_sample = -1; "
    "SET pg_stat_statements.track_utility = off"
)
_FULL = """
SELECT n.nspname AS schema, c.relname AS name, (SELECT coalesce(array_agg(r.relname::text), '{}') FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid
   WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indisvalid) AS indexes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relreplident = 'f'"""
_FORCED = "SELECT EXISTS (SELECT 1 FROM pg_class WHERE relrowsecurity AND relforcerowsecurity) AS forced"


def make_role(server: Any, name: str, database: str, verifier: str) -> None:
    """Whoever the subscriber logs in as: it replicates, enters this one database, and can read no table.

    A wall of pg_hba.conf between tenants lets in members of the role that bears the database's name, where there is one.
    """
    role, place = sql.Identifier(name), sql.Identifier(database)
    text = "CREATE ROLE {0} LOGIN REPLICATION CONNECTION LIMIT 3 PASSWORD {1}; COMMENT ON ROLE {0} IS {2}"
    statements = [sql.SQL(text).format(role, sql.Literal(verifier), sql.Literal(role_mark(database)))]
    if rows(server, "SELECT 1 FROM pg_roles WHERE rolname = %(name)s AND NOT rolcanlogin", {"name": database}):
        statements.append(sql.SQL("GRANT {0} TO {1}").format(place, role))
    execute(server, sql.SQL("; ").join(statements))
    let_in(server, name, database)


def let_in(server: Any, name: str, database: str) -> None:
    """Where neither everybody nor its gate may enter."""
    role, place = sql.Identifier(name), sql.Identifier(database)
    if not rows(server, "SELECT has_database_privilege(%(name)s, %(database)s, 'CONNECT') AS may", {"name": name, "database": database})[0]["may"]:
        execute(server, sql.SQL("GRANT CONNECT ON DATABASE {0} TO {1}").format(place, role))


def set_password(server: Any, name: str, verifier: str) -> None:
    execute(server, sql.SQL("ALTER ROLE {0} PASSWORD {1}").format(sql.Identifier(name), sql.Literal(verifier)))


def drop_role(server: Any, name: str, database: str) -> List[str]:
    """In words what was dropped."""
    query = "SELECT shobj_description(oid, 'pg_authid') AS mark FROM pg_roles WHERE rolname = %(name)s"
    found = rows(server, query, {"name": name})
    if not found or found[0]["mark"] != role_mark(database):
        return []
    role = sql.Identifier(name)
    # It owns nothing; what it was granted is on the database, which may bear another name by now.
    execute(server, sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    return ["role {0} dropped".format(name)]


def make_publication(inside: Any, name: str, tables: Sequence[Mapping[str, Any]], told: Record) -> None:
    """With the replica identities that have to be full, all in one transaction."""
    # Not those of a copy that follows, which came with it: to alter them would wait for who applies what comes.
    full = {(row["schema"], row["name"]) for row in rows(inside, _FULL)} if told.identities else set()
    lacking = [sql.Identifier(one.schema, one.table) for one in told.identities if (one.schema, one.table) not in full]
    statements = [sql.SQL("ALTER TABLE ONLY {0} REPLICA IDENTITY FULL").format(one) for one in lacking]
    names = [sql.SQL("ONLY ") + sql.Identifier(table["schema"], table["name"]) for table in tables]
    listed = sql.SQL(" FOR TABLE ") + sql.SQL(", ").join(names) if names else sql.SQL("")
    statements.append(sql.SQL("CREATE PUBLICATION {0}").format(sql.Identifier(name)) + listed)
    statements.append(_comment(name, told))
    _in_one(inside, statements)


def write_record(inside: Any, name: str, told: Record) -> None:
    execute(inside, _comment(name, told))


def read_record(inside: Any, name: str) -> Optional[Record]:
    """None when there is no such publication, or somebody else's."""
    found = rows(inside, "SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication WHERE pubname = %(name)s", {"name": name})
    return record(found[0]["comment"]) if found else None


def _comment(name: str, told: Record) -> Any:
    return sql.SQL("COMMENT ON PUBLICATION {0} IS {1}").format(sql.Identifier(name), sql.Literal(told.text()))


def drop_publication(inside: Any, name: str) -> List[str]:
    """With it the replica identities are put back. In words what was done."""
    told = read_record(inside, name)
    if told is None:
        return []
    statements, actions = putting_back(inside, told.identities)
    _in_one(inside, [*statements, sql.SQL("DROP PUBLICATION {0}").format(sql.Identifier(name))])
    return [*actions, "publication {0} dropped".format(name)]


def put_back(inside: Any, identities: Sequence[Identity]) -> None:
    """On a subscriber, whose tables came with the publisher's identities."""
    statements, _actions = putting_back(inside, identities)
    if statements:
        _in_one(inside, statements)


def putting_back(inside: Any, identities: Sequence[Identity]) -> Any:
    """Statements, and the same in words. What is not full any more, or not there, somebody has changed since, and it stays."""
    full = {(row["schema"], row["name"]): row["indexes"] for row in rows(inside, _FULL)} if identities else {}
    statements: List[Any] = []
    actions: List[str] = []
    for one in identities:
        if (one.schema, one.table) not in full:
            continue
        # An index that identified the rows and was dropped left a table whose rows nothing identifies.
        before = "n" if one.before == "i" and one.by_index not in full[one.schema, one.table] else one.before
        text = "ALTER TABLE ONLY {0} REPLICA IDENTITY " + ("USING INDEX {1}" if before == "i" else _IDENTITY[before])
        statements.append(sql.SQL(text).format(sql.Identifier(one.schema, one.table), sql.Identifier(one.by_index or "none")))
        actions.append("replica identity of {0}.{1} put back".format(one.schema, one.table))
    return statements, actions


def _in_one(inside: Any, statements: Sequence[Any]) -> None:
    """In one transaction that waits for no lock longer than the tenant can wait behind it."""
    execute(inside, "SET synchronous_commit = on; SET lock_timeout = '{0}s'".format(_LOCK_SECONDS))
    for tried in range(_LOCK_TRIES):
        try:
            execute(inside, sql.SQL("; ").join(statements))
            return
        except psycopg2.errors.LockNotAvailable:
            if tried + 1 == _LOCK_TRIES:
                raise
            time.sleep(1)


# --- slots


def copy_slot(inside: Any, name: str, copy: str) -> None:
    """What one slot keeps the other keeps too from now on, whatever becomes of the one, or of the session that made it.

    The copy of a slot belongs to the database that *inside* is in, which has to be the slot's.
    """
    execute(inside, "SELECT pg_copy_logical_replication_slot(%s, %s, false)", [name, copy])


def make_slot(inside: Any, name: str) -> None:
    execute(inside, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])


def drop_slots(server: Any, names: Sequence[str]) -> List[str]:
    """In words which were dropped, once nobody reads them any more.

    :raises PoolsError: somebody goes on reading one.
    """
    actions = []
    for name in names:
        deadline = time.monotonic() + _SLOT_SECONDS
        while _slot(server, name):
            try:
                execute(server, "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = %s", [name])
                # A passing slot goes with its session.
                execute(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT temporary", [name])
                actions += [] if _slot(server, name) else ["slot {0} dropped".format(name)]
            except psycopg2.errors.ObjectInUse as error:
                if time.monotonic() > deadline:
                    raise PoolsError("Replication slot {0} is still read.".format(name), "End whoever reads it, and run again.") from error
                time.sleep(0.2)
            except psycopg2.errors.UndefinedObject:
                break
    return actions


def _slot(server: Any, name: str) -> bool:
    return bool(rows(server, "SELECT 1 FROM pg_replication_slots WHERE slot_name = %(name)s", {"name": name}))


# --- subscriptions


def make_subscription(inside: Any, name: str, peer: Peer, publication: str = "") -> None:
    """Not yet at work. The subscriber's server logs in to the publisher's, so that what is wrong with the way there is told now.

    :raises PoolsError: it cannot reach it.
    """
    words = ["create_slot = false", "enabled = false", "copy_data = false", "streaming = on", "slot_name = {slot}"]
    if inside.server_version >= 160000:
        # As the tables' owners, the least that will do; but an owner on whom row security is forced could not write all rows.
        words.append("run_as_owner = {0}".format("true" if rows(inside, _FORCED)[0]["forced"] else "false"))
    text = "CREATE SUBSCRIPTION {name} CONNECTION {peer} PUBLICATION {publication} WITH (" + ", ".join(words) + ")"
    execute(inside, _UNHEARD)
    try:
        names = {"name": sql.Identifier(name), "publication": sql.Identifier(publication or name)}
        execute(inside, sql.SQL(text).format(slot=sql.Literal(name), peer=sql.Literal(peer.conninfo()), **names))
    except psycopg2.errors.ConnectionFailure as error:
        said = " ".join(str(error.diag.message_primary).split())
        raise PoolsError(
            "The server that follows cannot reach the other one at {0} port {1}: {2}.".format(peer.host, peer.port, said.rstrip(".")),
            "Give the address that it has for that server by peer_host and peer_port, and let role {0} in by its pg_hba.conf.".format(peer.user),
        ) from error


def try_way(server: Any, name: str, peer: Peer) -> None:
    """See that the subscriber's server gets in, before anything long is begun; nothing is kept of it.

    :raises PoolsError: it cannot reach the publisher's.
    """
    execute(server, "BEGIN")
    try:
        # Of a publication that there is not, none of the tables are looked for here.
        make_subscription(server, name, peer, name + "_none")
    finally:
        execute(server, "ROLLBACK")


def enable(inside: Any, name: str) -> None:
    execute(inside, "SET synchronous_commit = on")
    execute(inside, sql.SQL("ALTER SUBSCRIPTION {0} ENABLE").format(sql.Identifier(name)))


def reconnect(inside: Any, name: str) -> None:
    """End the worker that applies, which the server then starts anew.

    One that began to connect to a server that fell silent waits for its answer without a limit: libpq's connect_timeout does not hold there.
    """
    execute(inside, "SELECT pg_terminate_backend(pid) FROM pg_stat_subscription WHERE subname = %s AND relid IS NULL AND pid IS NOT NULL", [name])


def subscribed(inside: Any, name: str) -> Optional[bool]:
    """Whether a subscription of this name is at work; None when there is none."""
    query = "SELECT subenabled FROM pg_subscription WHERE subname = %(name)s AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    found = rows(inside, query, {"name": name})
    return bool(found[0]["subenabled"]) if found else None


def drop_subscription(inside: Any, name: str) -> List[str]:
    """Without a word to the publisher, which may be gone. In words what was dropped."""
    if subscribed(inside, name) is None:
        return []
    subscription = sql.Identifier(name)
    # With a slot it could be dropped neither in a transaction nor without the publisher.
    execute(inside, "SET synchronous_commit = on")
    for text in ("ALTER SUBSCRIPTION {0} DISABLE", "ALTER SUBSCRIPTION {0} SET (slot_name = NONE)", "DROP SUBSCRIPTION {0}"):
        execute(inside, sql.SQL(text).format(subscription))
    return ["subscription {0} dropped".format(name)]

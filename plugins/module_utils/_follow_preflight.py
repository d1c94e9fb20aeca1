# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands against following a database, beside what stands against copying it, and how each of it is mended."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from . import _follow_catalog
from ._copy_plan import Problem
from ._copy_session import Side, rows
from ._follow_plan import Identity, name_of

# A slot begins when every transaction that writes somewhere on the server has ended once.
LONG_SECONDS = 60
# While it copies there are two for a moment, the passing one and the one that stays.
_SLOTS = 2

_PUBLISHER = """
SELECT current_setting('wal_level') AS wal_level, current_setting('max_replication_slots')::int AS slots, current_setting('max_wal_senders')::int AS senders,
   (SELECT count(*) FROM pg_replication_slots) AS slots_taken, (SELECT count(*) FROM pg_stat_replication) AS senders_taken,
   (SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS kept,
   (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS connections,
   (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type IN ('client backend', 'walsender')) AS connected"""
_SUBSCRIBER = """
SELECT current_setting('max_logical_replication_workers')::int AS workers, current_setting('max_worker_processes')::int AS processes,
   (SELECT count(*) FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'walsender', 'walreceiver', 'autovacuum launcher', 'autovacuum worker',
      'parallel worker', 'background writer', 'walwriter', 'checkpointer', 'archiver', 'startup', 'slotsync worker', 'io worker', 'walsummarizer',
      'logger', 'standalone backend') AND backend_type NOT LIKE 'logical replication %%worker') AS processes_taken,
   (SELECT count(*) FROM pg_subscription WHERE subenabled) AS workers_taken,
   coalesce(current_setting('max_active_replication_origins', true), current_setting('max_replication_slots'))::int AS origins,
   (SELECT count(*) FROM pg_replication_origin) AS origins_taken"""
_LONG = """
SELECT pid, coalesce(usename::text, '') AS who, coalesce(datname::text, '') AS database, extract(epoch FROM now() - xact_start)::int AS seconds
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND backend_type <> 'walsender'
  AND xact_start < now() - %(seconds)s * interval '1 second' ORDER BY xact_start LIMIT 10"""
_PREPARED = "SELECT gid, database::text AS database FROM pg_prepared_xacts WHERE database <> current_database() ORDER BY 1 LIMIT 10"
_SUBSCRIPTIONS = """
SELECT subname::text AS name FROM pg_subscription WHERE subenabled AND NOT subname = ANY (%(ours)s)
  AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1"""
# Of replicated rows these fire too, and what they had done on the publisher comes besides.
_TRIGGERS = """
SELECT g.tgname::text AS name, g.tgrelid::regclass::text AS place FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
WHERE g.tgenabled IN ('A', 'R') AND NOT g.tgisinternal AND c.relpersistence <> 't' ORDER BY 2, 1"""
_LISTED = 5


class Look:
    """The findings: what stands against it, what is worth knowing, and what it takes."""

    def __init__(self, publisher: Side, subscriber: Side, peer_host: str, full_identity: bool, wal_limit: int) -> None:
        self._publisher = publisher
        self._subscriber = subscriber
        self._peer_host = peer_host
        self._full_identity = full_identity
        self._wal_limit = wal_limit
        self.problems: List[Problem] = []
        self.warnings: List[str] = []
        self.tables: List[Dict[str, Any]] = []
        # Which tables become FULL.
        self.identities: List[Identity] = []

    def look(self, inside: Any, other: Any) -> None:
        """*inside* is a session in the publisher's database, *other* one on the subscriber's server."""
        self._servers(rows(inside, _PUBLISHER)[0], rows(other, _SUBSCRIBER, {})[0])
        self._quiet(inside)
        self.tables = _follow_catalog.tables(inside)
        self._identities()
        for kind, name in _follow_catalog.not_followed(inside):
            self.problems.append(left_out(kind, name))
        for row in rows(inside, _SUBSCRIPTIONS, {"ours": [name_of(side.database) for side in (self._publisher, self._subscriber)]}):
            told = "Subscription {name} writes into the database, also while writes are refused.".format(**row)
            self._refuse("subscription", told, "ALTER SUBSCRIPTION ... DISABLE it, and set it up anew after the move.")
        for row in rows(inside, _TRIGGERS):
            told = "Trigger {0} on {1} also fires for replicated rows, and would do its work twice.".format(row["name"], row["place"])
            self._refuse("trigger", told, "ALTER TABLE ... ENABLE TRIGGER makes it an ordinary one; alter it again after the move.")

    def _refuse(self, what: str, problem: str, remedy: str) -> None:
        self.problems.append(Problem(what, problem, remedy))

    def _servers(self, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        publisher, subscriber = self._publisher.where, self._subscriber.where
        if here["wal_level"] != "logical":
            told = "wal_level of the {0} is {1}.".format(publisher, here["wal_level"])
            self._refuse("wal_level", told, "Set wal_level=logical there and restart it.")
        if here["slots"] - here["slots_taken"] < _SLOTS:
            told = "Of {1} replication slots of the {0}, {2} are taken; {3} are needed.".format(publisher, here["slots"], here["slots_taken"], _SLOTS)
            self._refuse("slots", told, "Drop those that nobody reads, or raise max_replication_slots there and restart it.")
        if here["senders"] - here["senders_taken"] < 1:
            told = "All {1} WAL senders of the {0} are taken.".format(publisher, here["senders"])
            self._refuse("senders", told, "Raise max_wal_senders there and restart it.")
        if 0 <= here["connections"] < here["connected"] + _SLOTS:
            told = "The database's connection limit of {0} leaves no room for whoever follows.".format(here["connections"])
            self._refuse("connection limit", told, "Raise it by {0} on the {1}, or lift it.".format(_SLOTS, publisher))
        # The launcher of the workers is one of the processes, and a subscription whose worker is just away will want it again.
        if min(there["workers"], there["processes"] - there["processes_taken"]) - there["workers_taken"] < 1:
            told = "All {1} workers of logical replication of the {0} are taken.".format(subscriber, there["workers"])
            self._refuse("workers", told, "Raise max_logical_replication_workers and max_worker_processes there and restart it.")
        if there["origins"] - there["origins_taken"] < 1:
            told = "All {1} replication origins of the {0} are taken.".format(subscriber, there["origins"])
            self._refuse("origins", told, "Raise max_replication_slots (from PostgreSQL 18 on max_active_replication_origins) there and restart it.")
        if not self._peer_host:
            told = "The {0} is given by its socket, which the other server cannot reach.".format(publisher)
            self._refuse("way", told, "Give its address as the other server sees it by peer_host.")
        if 0 <= here["kept"] < self._wal_limit:
            told = "The {0} gives a slot up at {1} bytes of WAL already (max_slot_wal_keep_size), before wal_limit_bytes is reached."
            self.warnings.append(told.format(publisher, here["kept"]))

    def _quiet(self, inside: Any) -> None:
        for row in rows(inside, _LONG, {"seconds": LONG_SECONDS}):
            told = "Session {pid} of {who} in database {database} has been writing in one transaction for {seconds} s, and a slot waits for its end."
            self._refuse("long transaction", told.format(**row), "Let it end, or end it.")
        for row in rows(inside, _PREPARED):
            told = "Prepared transaction {gid} of database {database} is open, and a slot waits for its end.".format(**row)
            self._refuse("prepared transaction", told, "Commit it or roll it back.")

    def _identities(self) -> None:
        lacking = [table for table in self.tables if not table["identified"]]
        full = [table for table in self.tables if table["kind"] == "f"]
        for table in [*lacking, *full]:
            if table["incomparable"]:
                told = "Table {0}.{1} has no key that tells its rows apart, and no two values of type {2} can be compared for it.".format(
                    table["schema"], table["name"], ", ".join(table["incomparable"])
                )
                self._refuse("replica identity", told, "Give it a primary key.")
        consented = [table for table in lacking if not table["incomparable"]]
        if consented and not self._full_identity:
            told = "{0} tables have no key that tells their rows apart, and could not be updated while they are followed: {1}.".format(
                len(consented), _listed(consented)
            )
            self._refuse("replica identity", told, "Give them primary keys, or let their replica identity be FULL for the time by full_identity=true.")
        elif consented:
            self.identities = [Identity(table["schema"], table["name"], table["kind"], table["index"]) for table in consented]
            self.warnings.append("The replica identity is FULL as long as they are followed, of: {0}.".format(_listed(consented)))


def left_out(kind: str, name: str) -> Problem:
    """What would be lost of what holds something and is not followed."""
    remedies = {
        "unlogged table": "ALTER TABLE ... SET LOGGED, empty it, or move the database by a copy.",
        "extension table": "Move the database by a copy.",
        "large objects": "Move the database by a copy.",
    }
    told = "There are {0} large objects".format(name) if kind == "large objects" else "{0} {1} holds rows".format(kind.capitalize(), name)
    return Problem(kind, told + ", and replication carries no change of them.", remedies[kind])


def _listed(tables: Sequence[Mapping[str, Any]]) -> str:
    names = ["{schema}.{name}".format(**table) for table in tables]
    return ", ".join(names[:_LISTED]) + (" and {0} more".format(len(names) - _LISTED) if len(names) > _LISTED else "")

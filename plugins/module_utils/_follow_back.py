# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back in three steps, of which only the one in the midst needs that nobody writes, and is short.

The old place follows the new one. What takes long, a slot above all, which waits for every transaction on the new server that writes, is made while
the new place still follows the old one.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

from . import _copy, _follow_catalog, _follow_clean, _follow_link
from ._copy_session import execute, rows
from ._errors import PoolsError
from ._follow_ends import Ends, sessions
from ._follow_plan import Peer, Record
from ._follow_preflight import Look
from ._scram import verifier
from ._secrets import new_password

_FLUSHED = "SELECT pg_current_wal_flush_lsn()::text AS lsn"
# It makes all that was applied before it lasting.
_MARKER = "SELECT pg_logical_emit_message(true, 'postgres_pools', 'way back')"


def prepare(here: Ends, params: Mapping[str, Any]) -> Dict[str, Any]:
    """Publication, role and slot on the new place, which still follows. *here* is the way there.

    :raises PoolsError: something stands against it, or it failed; then nothing of the way back is left.
    """
    back = here.swapped()
    with sessions((here.publisher, None), (here.subscriber, None), (here.subscriber, _copy.SERVER_DATABASE), (here.publisher, _copy.SERVER_DATABASE)) as found:
        old, new, server, other = found
        told = _follow_link.read_record(old, here.name)
        if told is None or not told.fingerprint:
            raise PoolsError("Database {0} on the {1} is not followed.".format(here.publisher.database, here.publisher.where), "Begin by state=started.")
        look = Look(back.publisher, back.subscriber, back.peer_host, params["full_identity"], params["wal_limit_bytes"])
        look.look(new, other)
        # An unfinished copy lets nobody in, and is opened before anybody comes for its changes.
        problems = [problem for problem in look.problems if problem.what != "connection limit"]
        if problems:
            raise PoolsError(" ".join(one.problem for one in problems), " ".join(one.remedy for one in problems))
    _follow_clean.unlink(back)
    try:
        with sessions((back.publisher, None), (back.publisher, _copy.SERVER_DATABASE), (back.subscriber, _copy.SERVER_DATABASE)) as (new, server, other):
            # What is full on the new place came so with the copy; to be put back is what the old one had before.
            # Only from 18 on a closed database lets in who replicates it.
            make_way(back, look, Record(told.identities), server, new, other if new.server_version >= 180000 else None)
            make_slot(new, back.name, params.get("way_back_timeout") or params["switch_timeout"], back.publisher.where)
    except BaseException:
        _follow_clean.unlink(back.plain())
        raise
    return {"changed": True, "warnings": look.warnings}


def make_way(here: Ends, look: Look, told: Record, publisher: Any, inside: Any, server: Any) -> Peer:
    """The publication and the role, and the proof that the subscriber's *server* gets in by it."""
    password = new_password()
    peer = peer_of(here, password)
    _follow_link.make_publication(inside, here.name, look.tables, told)
    _follow_link.make_role(publisher, here.name, here.publisher.database, verifier(password))
    if server:
        _follow_link.try_way(server, here.name, peer)
    return peer


def peer_of(here: Ends, password: str) -> Peer:
    source = here.publisher
    return Peer(here.peer_host, here.peer_port, source.database, here.name, password, source.login.get("ssl_mode") or "prefer")


def make_slot(inside: Any, name: str, seconds: int, where: str) -> None:
    """:raises PoolsError: transactions that write were open for longer."""
    # It waits for every transaction on the server that writes.
    execute(inside, "SET statement_timeout = %s", ["{0}s".format(seconds)])
    try:
        _follow_link.make_slot(inside, name)
    except Exception as error:
        if getattr(error, "pgcode", None) != "57014":
            raise
        raise PoolsError(
            "A replication slot could not begin within {0} s: it waits for all transactions that write on the {1}.".format(seconds, where),
            "End those that are open for long, or give more by switch_timeout.",
        ) from error
    finally:
        execute(inside, "SET statement_timeout = 0")


def is_prepared(there: Any, here: Ends) -> bool:
    """Whether the new place, in which *there* is, wants its replica identities as they are."""
    return _follow_link.read_record(there, here.swapped().name) is not None


def begin(here: Ends, _params: Mapping[str, Any]) -> Dict[str, Any]:
    """What is written to the new place from here on goes back; for a time at which nobody writes, and after the end of the way there.

    :raises PoolsError: it was not prepared.
    """
    back = here.swapped()
    with back.publisher.session() as new:
        told = _follow_link.read_record(new, back.name)
        if told is None:
            raise PoolsError("No way back to the {0} was prepared.".format(back.subscriber.where), "Prepare it before the switch.")
        execute(new, "SET synchronous_commit = on")
        execute(new, _MARKER)
        lsn = str(rows(new, _FLUSHED)[0]["lsn"])
        execute(new, "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [back.name, lsn])
        _follow_link.write_record(new, back.name, told._replace(fingerprint=_follow_catalog.fingerprint(new)))
    return {"changed": True, "lsn": lsn, "warnings": []}


def link(back: Ends, _params: Mapping[str, Any]) -> bool:
    """Whether that was to do: the old place follows from where :func:`begin` was. *back* is the way back, whose subscriber may have got another name since.

    :raises PoolsError: it was not begun, or the old place's server cannot reach the new one.
    """
    with sessions((back.publisher, None), (back.publisher, _copy.SERVER_DATABASE), (back.subscriber, None)) as (new, server, old):
        told = _follow_link.read_record(new, back.name)
        if told is None or not told.fingerprint:
            raise PoolsError("No way back to the {0} was begun.".format(back.subscriber.where), "Begin it at the switch.")
        if _follow_link.subscribed(old, back.name) is None:
            # Nobody keeps the password that the way was tried with.
            password = new_password()
            _follow_link.set_password(server, back.name, verifier(password))
            # What the way there has set at its end may have shut it out.
            _follow_link.let_in(server, back.name, back.publisher.database)
            _follow_link.make_subscription(old, back.name, peer_of(back, password))
        elif _follow_link.subscribed(old, back.name):
            return False
        _follow_link.enable(old, back.name)
    return True


def alive(back: Ends) -> bool:
    """Whether a way back that was linked goes on.

    :raises PoolsError: one of its servers cannot be asked.
    """
    with sessions((back.publisher, None), (back.subscriber, None)) as (new, old):
        told = _follow_link.read_record(new, back.name)
        slot = _follow_catalog.status(new, None, back.name).wal_status
        return bool(told and told.fingerprint and slot not in (None, "lost") and _follow_link.subscribed(old, back.name))

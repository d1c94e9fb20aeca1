# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Following until the switch, and the switch itself: nothing of what was committed is left behind."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from . import _copy, _follow_back, _follow_catalog, _follow_clean, _follow_link, _follow_proof
from . import _copy_catalog as catalog
from . import _copy_dress as dress
from . import _copy_extensions as extensions
from ._copy_plan import Problem
from ._copy_progress import Listener
from ._copy_session import Side, execute, rows
from ._copy_steps import Check
from ._errors import PoolsError
from ._follow_ends import Ends, at_once, locked, sessions
from ._follow_plan import Record, Status, changes, given_up, proof_slot_of
from ._follow_preflight import left_out

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# Asked with a session in the source and one in the target for what stands against letting go.
Prove = Callable[[Any, Any], List[Problem]]
_WATCH_SECONDS = 0.5
# Unread for so long, the worker is started anew: several times what a server takes to come back and be found again (wal_retrieve_retry_interval: 5 s).
_RECONNECT_SECONDS = 20
_DRAIN_SECONDS = 0.02
_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = %(name)s"
_MATVIEWS = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname !~ '^pg_' ORDER BY c.oid"""


class LetGoError(PoolsError):
    """The target held all, and follows no more; what was left to do there failed."""


def watch(here: Ends, params: Mapping[str, Any], check_mode: bool, listener: Optional[Listener], go_on: Check) -> Dict[str, Any]:
    """Wait until the target is as near as asked for; what became dangerous or useless is given up, and nothing of it is left."""
    begun = read_at = connecting_since = time.monotonic()
    near = False
    with sessions((here.publisher, None), (here.subscriber, None)) as (inside, there):
        told = _following(here, inside, there)
        proof_slot = proof_slot_of(here.publisher.database)
        first = status = _follow_catalog.status(inside, there, here.name, proof_slot)
        problem = _redefined(inside, told)
        while not problem:
            if status.active:
                read_at = connecting_since = time.monotonic()
            elif time.monotonic() - connecting_since >= _RECONNECT_SECONDS and not check_mode:
                _follow_link.reconnect(there, here.name)
                connecting_since = time.monotonic()
            problem = given_up(status, params["wal_limit_bytes"], first.errors, time.monotonic() - read_at)
            near = status.active and status.lag_bytes <= params["lag_bytes"]
            over = bool(params["timeout"]) and time.monotonic() - begun >= params["timeout"]
            if problem or near or over or check_mode:
                break
            time.sleep(_WATCH_SECONDS)
            go_on()
            before, status = status, _follow_catalog.status(inside, there, here.name, proof_slot)
            if status.errors > before.errors:
                problem = _redefined(inside, told)
            if listener:
                listener(_shown(status))
        problem = problem or _redefined(inside, told)
    result: Dict[str, Any] = {"progress": _shown(status), "caught_up": not problem and near, "given_up": bool(problem)}
    if problem and not check_mode:
        with locked(here.plain(), False):
            actions, warnings = _follow_clean.leave_nothing(here.plain(), params)
        result.update(changed=bool(actions), actions=actions, warnings=warnings)
    return dict(result, problems=[problem] if problem else [])


def _shown(status: Status) -> Dict[str, Any]:
    return {"phase": "following", "lag_bytes": status.lag_bytes, "retained_bytes": status.retained_bytes, "errors": status.errors, "active": status.active}


def _following(here: Ends, inside: Any, there: Any) -> Record:
    told = _follow_link.read_record(inside, here.name)
    if told is None or not told.fingerprint or _follow_link.subscribed(there, here.name) is None:
        raise PoolsError(
            "Database {0} on the {1} does not follow {2} on the {3}.".format(
                here.subscriber.database, here.subscriber.where, here.publisher.database, here.publisher.where
            ),
            "Begin by state=started.",
        )
    return told


def _redefined(inside: Any, told: Record) -> Optional[Problem]:
    kinds = changes(told.fingerprint, _follow_catalog.fingerprint(inside))
    if not kinds:
        return None
    words = "Definitions were changed since the copy began: {0}.".format(", ".join(kinds))
    return Problem("definitions", words, "Begin anew; replication carries no change of them.")


def compare(here: Ends, params: Mapping[str, Any], check_mode: bool, listener: Optional[Listener], go_on: Check) -> Dict[str, Any]:
    """Both hold the same at one moment, while the tenant works; what is changed from there on is remembered for the switch."""
    with sessions((here.publisher, None), (here.subscriber, None)) as (inside, there):
        told = _following(here, inside, there)
        problems = _changed(here, inside, told)
        if problems or check_mode:
            return {"problems": problems, "changed": not problems}
        result = _follow_proof.compared(here, params, told, inside, there, listener, go_on)
        # Of tables that were altered meanwhile, less could be compared than there was.
        problems = _changed(here, inside, told)
    return dict(result, problems=problems or result["problems"], changed=not problems and result["changed"])


def writers(inside: Any, side: Side) -> List[Problem]:
    """Who could still write."""
    told = "Session {pid} of {who} ({application}) is in the database on the {0}."
    found = [Problem("writers", told.format(side.where, **row), "Refuse writes first, and end it.") for row in _follow_catalog.sessions(inside)]
    told = "Prepared transaction {gid} of {who} is open on the {0}, and may be committed any time."
    found += [Problem("prepared transaction", told.format(side.where, **row), "Commit it or roll it back.") for row in _follow_catalog.prepared(inside)]
    return found


def drain(here: Ends, params: Mapping[str, Any], check_mode: bool, go_on: Check, prove: Prove = lambda inside, there: []) -> Dict[str, Any]:
    """The target holds all that was ever committed, and is let go of; or, with ``problems``, it follows on as before.

    *prove* is asked last, with a session in either database, and returns what else stands against it.
    """
    begun = time.monotonic()
    deadline = begun + params["switch_timeout"]
    publisher, subscriber = here.publisher, here.subscriber
    with sessions(*[(publisher, None)] * 3, *[(subscriber, None)] * 2) as (inside, looking, counting, there, beside):
        told = _following(here, inside, there)
        with_way_back = _follow_back.is_prepared(there, here)
        problems = writers(inside, publisher)
        if params["compare"] and not told.proof:
            problems.append(Problem("proof", "Source and target have not been compared.", "Compare them by state=compared, while writes go on."))
        if problems or check_mode:
            problems += _changed(here, inside, told)
            return {"problems": problems, "changed": not problems}
        lsn = _follow_proof.marked(inside)
        # All that takes its time is done while the rest arrives.
        late, problems, sequences, redefined, changes = at_once(
            lambda: _wait(here, params, inside, there, lsn, deadline, go_on),
            lambda: _changed(here, looking, told),
            lambda: catalog.sequences(counting),
            lambda: params["compare"] and _follow_catalog.fingerprint(beside) != told.target,
            lambda: _follow_proof.since(here) if params["compare"] else None,
        )
        problems = late + problems
        if problems:
            return {"problems": problems}
        # It makes all that was applied before it lasting too, before the source is let go of.
        execute(there, "SET synchronous_commit = on")
        execute(there, _follow_proof.MARKER)
        extensions.set_sequences(there, sequences)
        problems = [_late(params, None)] if _refresh(there, deadline) else []
        seconds = {"drain": round(time.monotonic() - begun, 3)}
        proof: Dict[str, Any] = {}
        if params["compare"] and not problems:
            problems, proof = _follow_proof.rest(here, told, changes, redefined, deadline, go_on)
        # Somebody may have come in meanwhile.
        problems += writers(inside, publisher) + prove(inside, there)
        if problems:
            return {"problems": problems, "proof": dict(proof, equal=False)}
        seconds["compare"] = round(time.monotonic() - begun - sum(seconds.values()), 3)
    try:
        actions = _follow_clean.unlink(here)
        dressed, warnings = _finish(here, told, with_way_back)
        problems = _follow_proof.dressed(here, params, with_way_back) if dressed and params["compare"] else []
    except PoolsError as error:
        raise LetGoError(error.problem, error.remedy) from error
    seconds["finish"] = round(time.monotonic() - begun - sum(seconds.values()), 3)
    result = {"changed": True, "actions": actions, "warnings": warnings, "lsn": lsn, "sequences": len(sequences), "seconds": seconds}
    return dict(result, problems=problems, proof=dict(proof, equal=not problems) if proof else {})


def _wait(here: Ends, params: Mapping[str, Any], inside: Any, there: Any, lsn: str, deadline: float, go_on: Check) -> List[Problem]:
    """Until the target has all up to this place; or that it took too long."""
    while not _follow_catalog.reached(inside, there, here.name, lsn):
        go_on()
        if time.monotonic() > deadline:
            return [_late(params, _follow_catalog.status(inside, there, here.name))]
        time.sleep(_DRAIN_SECONDS)
    return []


def _changed(here: Ends, inside: Any, told: Record) -> List[Problem]:
    """What is there by now that is not followed."""
    redefined = _redefined(inside, told)
    problems = [redefined] if redefined else []
    lost = _follow_catalog.unpublished(inside, here.name)
    if lost:
        words = "The publication {0} does not tell of changes in {1}.".format(here.name, ", ".join(lost[:5]))
        problems.append(Problem("publication", words, "Begin anew, and leave the publication alone."))
    return problems + [left_out(kind, name) for kind, name in _follow_catalog.not_followed(inside)]


def _late(params: Mapping[str, Any], status: Optional[Status]) -> Problem:
    rest = " {0} bytes are left".format(status.lag_bytes) if status else " Materialized views were being filled"
    told = "The target was not drained within {0} s.{1}.".format(params["switch_timeout"], rest)
    return Problem("switch_timeout", told, "Let writes go on, and try again when less is written; or give more by switch_timeout.")


def _refresh(there: Any, deadline: float) -> bool:
    """Fill materialized views, of which replication tells nothing; whether that took too long."""
    for one in rows(there, _MATVIEWS):
        left = deadline - time.monotonic()
        if left <= 0:
            return True
        try:
            execute(there, "SET statement_timeout = %s", [max(1, int(left * 1000))])
            execute(there, sql.SQL("REFRESH MATERIALIZED VIEW {0}").format(sql.Identifier(one["schema"], one["name"])))
        except psycopg2.errors.QueryCanceled:
            return True
        finally:
            execute(there, "SET statement_timeout = 0")
    return False


def _finish(here: Ends, told: Record, with_way_back: bool) -> Tuple[bool, List[str]]:
    """The copy is whole: identities as on the source, then roles and the database, which that opens. Whether that was to do, and what to warn of."""
    source, target = here.publisher, here.subscriber
    with sessions((source, None), (target, None), (target, _copy.SERVER_DATABASE)) as (inside, there, server):
        if not with_way_back:
            _follow_link.put_back(there, told.identities)
        # What comes now makes all that was applied before it durable too.
        execute(server, "SET synchronous_commit = on")
        found = catalog.database(server, target.database)
        if not found or found["comment"] != dress.UNFINISHED:
            # A way back: the old place was whole all the time.
            execute(server, _follow_proof.MARKER)
            return False, []
        wanted = catalog.database(inside, source.database)
        if wanted is None:
            raise PoolsError("Database {0} was dropped from the {1}.".format(source.database, source.where))
        roles = catalog.roles(inside, wanted, source.owner)
        made = dress.droppable_roles(server, target.database, target.owner, [])
        warnings: List[str] = []
        for role in roles:
            # They may have got others while they were followed.
            if (role["name"] == target.owner or role["name"] in made) and not role["rolsuper"]:
                # Writes are refused by this limit too.
                limit = role["connection_limit"] or rows(server, _LIMIT, {"name": role["name"]})[0]["rolconnlimit"]
                warnings += dress.dress_role(server, dict(role, connection_limit=limit), password=role["name"] == target.owner)
        dress.unmark_roles(server, roles, made)
        return True, warnings + dress.dress_database(server, wanted, target.database)

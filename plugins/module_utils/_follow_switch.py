# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Following until the switch, and the switch itself: nothing of what was committed is left behind."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional

from . import _copy, _follow_catalog, _follow_clean, _follow_link
from . import _copy_catalog as catalog
from . import _copy_dress as dress
from . import _copy_extensions as extensions
from ._copy_plan import Problem
from ._copy_progress import Listener
from ._copy_session import Side, execute, rows
from ._copy_steps import Check
from ._errors import PoolsError
from ._follow_ends import Ends, locked, sessions
from ._follow_plan import Record, Status, changes, given_up
from ._follow_preflight import left_out

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_WATCH_SECONDS = 0.5
_DRAIN_SECONDS = 0.02
# In its own right a commit, which makes all before it lasting, also that of somebody who did not wait for it.
_MARKER = "SELECT pg_logical_emit_message(true, 'postgres_pools', 'drained')"
_MATVIEWS = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname !~ '^pg_' ORDER BY c.oid"""


def watch(here: Ends, params: Mapping[str, Any], check_mode: bool, listener: Optional[Listener], go_on: Check) -> Dict[str, Any]:
    """Wait until the target is as near as asked for; what became dangerous or useless is given up, and nothing of it is left."""
    begun = read_at = time.monotonic()
    near = False
    with sessions((here.publisher, None), (here.subscriber, None)) as (inside, there):
        told = _following(here, inside, there)
        first = status = _follow_catalog.status(inside, there, here.name)
        problem = _redefined(inside, told)
        while not problem:
            read_at = time.monotonic() if status.active else read_at
            problem = given_up(status, params["wal_limit_bytes"], first.errors, time.monotonic() - read_at)
            near = status.active and status.lag_bytes <= params["lag_bytes"]
            over = bool(params["timeout"]) and time.monotonic() - begun >= params["timeout"]
            if problem or near or over or check_mode:
                break
            time.sleep(_WATCH_SECONDS)
            go_on()
            before, status = status, _follow_catalog.status(inside, there, here.name)
            if status.errors > before.errors:
                problem = _redefined(inside, told)
            if listener:
                listener(_shown(status))
        problem = problem or _redefined(inside, told)
    result: Dict[str, Any] = {"progress": _shown(status), "caught_up": not problem and near, "given_up": bool(problem)}
    if problem and not check_mode:
        with locked(here):
            actions, warnings = _follow_clean.leave_nothing(here, params)
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


def writers(inside: Any, side: Side) -> List[Problem]:
    """Who could still write."""
    told = "Session {pid} of {who} ({application}) is in the database on the {0}."
    return [Problem("writers", told.format(side.where, **row), "Refuse writes first, and end it.") for row in _follow_catalog.sessions(inside)]


def drain(here: Ends, params: Mapping[str, Any], check_mode: bool, go_on: Check) -> Dict[str, Any]:
    """The target holds all that was ever committed, and is let go of; or, with ``problems``, it follows on as before."""
    begun = time.monotonic()
    deadline = begun + params["switch_timeout"]
    publisher, subscriber = here.publisher, here.subscriber
    with sessions((publisher, None), (subscriber, None)) as (inside, there):
        told = _following(here, inside, there)
        problems = _in_the_way(here, inside, told)
        if problems or check_mode:
            return {"problems": problems, "changed": not problems}
        execute(inside, "SET synchronous_commit = on")
        execute(inside, _MARKER)
        lsn = str(rows(inside, "SELECT pg_current_wal_flush_lsn()::text AS lsn")[0]["lsn"])
        while not _follow_catalog.reached(inside, here.name, lsn):
            go_on()
            if time.monotonic() > deadline:
                return {"problems": [_late(params, _follow_catalog.status(inside, there, here.name))]}
            time.sleep(_DRAIN_SECONDS)
        sequences = catalog.sequences(inside)
        extensions.set_sequences(there, sequences)
        late = _refresh(there, deadline)
        # Somebody may have come in meanwhile.
        problems = ([_late(params, None)] if late else []) + writers(inside, publisher)
        if problems:
            return {"problems": problems}
        seconds = {"drain": round(time.monotonic() - begun, 3)}
    actions = _follow_clean.unlink(here)
    warnings = _finish(here, told)
    seconds["finish"] = round(time.monotonic() - begun - seconds["drain"], 3)
    return {"changed": True, "actions": actions, "warnings": warnings, "lsn": lsn, "sequences": len(sequences), "seconds": seconds}


def _in_the_way(here: Ends, inside: Any, told: Record) -> List[Problem]:
    problems = writers(inside, here.publisher)
    redefined = _redefined(inside, told)
    problems += [redefined] if redefined else []
    return problems + [left_out(kind, name) for kind, name in _follow_catalog.not_followed(inside, catalog.tables(inside))]


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


def _finish(here: Ends, told: Record) -> List[str]:
    """The copy is whole: identities as on the source, then roles and the database, which that opens. What to warn of."""
    source, target = here.publisher, here.subscriber
    with sessions((source, None), (target, None), (target, _copy.SERVER_DATABASE)) as (inside, there, server):
        _follow_link.put_back(there, told.identities)
        # What comes now makes all that was applied before it durable too.
        execute(server, "SET synchronous_commit = on")
        found = catalog.database(server, target.database)
        if not found or found["comment"] != dress.UNFINISHED:
            # A way back: the old place was whole all the time.
            execute(server, _MARKER)
            return []
        wanted = catalog.database(inside, source.database)
        if wanted is None:
            raise PoolsError("Database {0} was dropped from the {1}.".format(source.database, source.where))
        roles = catalog.roles(inside, wanted, source.owner)
        for role in roles:
            # It may have got another while it was followed.
            if role["name"] == target.owner and role["verifier"] and not role["rolsuper"]:
                execute(server, sql.SQL("ALTER ROLE {0} PASSWORD {1}").format(sql.Identifier(target.owner), sql.Literal(role["verifier"])))
        dress.unmark_roles(server, roles, dress.droppable_roles(server, target.database, target.owner, []))
        return dress.dress_database(server, wanted, target.database)

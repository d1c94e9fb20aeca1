# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the module ``database_follow``: a copy that goes on following its source until the source's writers have moved over."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List, Mapping, Optional

from . import _copy, _follow_back, _follow_catalog, _follow_clean, _follow_link, _follow_switch, _tenant_sql
from . import _copy_catalog as catalog
from ._copy_clients import find
from ._copy_plan import Problem
from ._copy_preflight import Findings, Preflight
from ._copy_progress import Listener, Progress
from ._copy_steps import Check, Orders
from ._errors import PoolsError
from ._follow_copy import FollowSteps, Watch, slot
from ._follow_ends import Ends, ends, locked, pulsed, sessions, two_databases
from ._follow_plan import Record, given_up, own, passing_slot_of
from ._follow_preflight import Look

# A transaction that writes may be open for as long before it is asked for to be ended.
SLOT_SECONDS = 60.0
_LISTED = 5
_NOTHING: Dict[str, Any] = {"changed": False, "problems": [], "warnings": [], "actions": []}


def carry_out(params: Mapping[str, Any], check_mode: bool, listener: Optional[Listener] = None, go_on: Check = lambda: None) -> Dict[str, Any]:
    """One call of the module, from its options to its result; ``failed`` says whether something stands against what was asked for.

    :raises PoolsError: an option cannot be, a server cannot be reached, or a step failed.
    """
    _check_options(params)
    here = ends(params)
    with contextlib.ExitStack() as stack:
        if params["state"] == "absent":
            if not check_mode:
                stack.enter_context(locked(here, False))
            return _answer(params, _follow_clean.absent(here, params, check_mode))
        here, all_well = stack.enter_context(pulsed(here, go_on))
        if not check_mode and params["state"] in ("started", "compared", "drained", "reversed"):
            stack.enter_context(locked(here))
        return _answer(params, _by_state(here, params, check_mode, listener, all_well))


def _by_state(here: Ends, params: Mapping[str, Any], check_mode: bool, listener: Optional[Listener], go_on: Check) -> Dict[str, Any]:
    state = params["state"]
    if state == "watched":
        return _follow_switch.watch(here, params, check_mode, listener, go_on)
    if state == "compared":
        return _follow_switch.compare(here, params, check_mode, listener, go_on)
    if state == "drained":
        return _follow_switch.drain(here, params, check_mode, go_on)
    if state == "reversed":
        return _reverse(here.swapped(), params, check_mode)
    result = _check(here, params) if check_mode or state == "checked" else start(here, params, listener, go_on)
    begun = result.pop("begun", True)
    return dict(result, changed=state == "started" and begun and not result["problems"])


def _answer(params: Mapping[str, Any], told: Mapping[str, Any]) -> Dict[str, Any]:
    result: Dict[str, Any] = dict(_NOTHING, **told)
    result["problems"] = [problem._asdict() for problem in result["problems"]]
    result["failed"] = bool(result["problems"]) and (params["state"] != "checked" or params["fail"])
    if result["failed"]:
        result["msg"] = " ".join("{problem} {remedy}".format(**problem) for problem in result["problems"])
    return result


def _check_options(params: Mapping[str, Any]) -> None:
    if not 1 <= params["jobs"] <= _copy.MOST_JOBS:
        raise PoolsError("jobs is {0}.".format(params["jobs"]), "Give a number from 1 to {0}.".format(_copy.MOST_JOBS))
    for option, least in (("wal_limit_bytes", 1 << 20), ("lag_bytes", 0), ("timeout", 0), ("switch_timeout", 1)):
        if params[option] < least:
            raise PoolsError("{0} is {1}.".format(option, params[option]), "Give {0} or more.".format(least))


# --- the beginning


def _check(here: Ends, params: Mapping[str, Any]) -> Dict[str, Any]:
    if at_work(here):
        return {"problems": [], "begun": False}
    with sessions((here.publisher, None), (here.subscriber, _copy.SERVER_DATABASE)) as (inside, server):
        two_databases(here, inside, server)
        found, look = _look(here, params, inside, server)
        return _told(found, look)


def start(here: Ends, params: Mapping[str, Any], listener: Optional[Listener] = None, go_on: Check = lambda: None) -> Dict[str, Any]:
    """Copy and follow, unless there are ``problems`` in what is returned, or it is followed already.

    :raises PoolsError: it failed; then nothing is left of it.
    """
    if at_work(here):
        return {"problems": [], "begun": False}
    _follow_clean.unlink(here)
    try:
        return _start(here, params, listener, go_on)
    except BaseException as error:
        _actions, warnings = _follow_clean.leave_nothing(here.plain(), params)
        if warnings and isinstance(error, PoolsError):
            raise PoolsError(error.problem, " ".join([error.remedy, *warnings]).strip()) from error
        raise


def _start(here: Ends, params: Mapping[str, Any], listener: Optional[Listener], go_on: Check) -> Dict[str, Any]:
    source, target = here.publisher, here.subscriber
    orders = Orders(**{key: params[key] for key in Orders._fields if key in params})
    sides = ((source, None), (target, _copy.SERVER_DATABASE), (source, _copy.SERVER_DATABASE), (source, None))
    with sessions(*sides) as (inside, server, publisher, looking):
        two_databases(here, inside, server)
        with _tenant_sql.lock(server, target.database), Progress(orders.progress_file or "", listener) as progress:
            progress.enter("preflight")
            found, look = _look(here, params, inside, server)
            if look.problems:
                return _told(found, look)
            progress.enter("link")
            peer = _follow_back.make_way(here, look, Record(look.identities), publisher, looking, server)
            watch = Watch(looking, go_on, lambda: _judge(looking, here, params["wal_limit_bytes"]))
            with slot(source, SLOT_SECONDS, go_on) as snapshot:
                job = FollowSteps(source, target, orders, found, inside, server, progress, watch)
                job.snapshot = snapshot
                try:
                    job.run()
                finally:
                    job.close()
                _same_tables(job.unpublished)
                _follow_link.copy_slot(looking, passing_slot_of(source.database), here.name)
            _follow_link.write_record(looking, here.name, Record(look.identities, job.fingerprint))
            progress.enter("follow")
            with target.session() as there:
                _follow_link.make_subscription(there, here.name, peer)
                _follow_link.enable(there, here.name)
        return dict(_told(found, look), **job.result(), seconds=progress.seconds)


def at_work(here: Ends) -> bool:
    """Whether all is there that following takes."""
    with here.subscriber.session(_copy.SERVER_DATABASE) as server:
        if catalog.database(server, here.subscriber.database) is None:
            return False
    with sessions((here.subscriber, None), (here.publisher, None)) as (there, inside):
        told = _follow_link.read_record(inside, here.name)
        kept = _follow_catalog.status(inside, None, here.name).wal_status
        return bool(_follow_link.subscribed(there, here.name) and told and told.fingerprint and kept not in (None, "lost"))


def _look(here: Ends, params: Mapping[str, Any], inside: Any, server: Any) -> Any:
    source, target = here.publisher, here.subscriber
    database = catalog.database(inside, source.database)
    if database is None:
        raise PoolsError("Database {0} was dropped from the {1}.".format(source.database, source.where))
    found = Preflight(source, target, params["replace"], params["target_free_bytes"]).look(inside, server, database)
    look = Look(source, target, here.peer_host, params["full_identity"], params["wal_limit_bytes"])
    look.problems += [problem for problem in found.problems if not own(problem, source.database)]
    try:
        find(params["bin_dir"] or "", inside.server_version // 10000, server.server_version // 10000)
    except PoolsError as error:
        look.problems.append(Problem("clients", error.problem, error.remedy))
    if inside.server_version >= 150000:
        look.look(inside, server)
    return found, look


def _told(found: Findings, look: Look) -> Dict[str, Any]:
    facts = {"size": found.facts["size"], "tables": len(look.tables), "without_identity": len(look.identities)}
    return {"problems": look.problems, "warnings": found.warnings + look.warnings, "facts": facts}


def _judge(looking: Any, here: Ends, limit: int) -> None:
    status = _follow_catalog.status(looking, None, passing_slot_of(here.publisher.database))
    problem = given_up(status, limit)
    # Without a slot the copy has not begun yet, or has ended.
    if problem and status.wal_status is not None:
        raise PoolsError(problem.problem, problem.remedy)


def _same_tables(unpublished: List[str]) -> None:
    """Between the publication and the snapshot somebody may have made a table that is not in the publication."""
    if unpublished:
        raise PoolsError("Tables were made while the copy began: {0}.".format(", ".join(unpublished[:_LISTED])), "Begin anew.")


# --- the way back


def _reverse(here: Ends, params: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The old place follows the new one, from a moment at which nobody writes: both must hold the same. *here* is already turned round."""
    publisher, subscriber = here.publisher, here.subscriber
    with sessions((publisher, None), (subscriber, None)) as (inside, there):
        two_databases(here, inside, there)
        if _follow_link.subscribed(inside, here.swapped().name) is not None:
            raise PoolsError("Database {0} on the {1} still follows.".format(publisher.database, publisher.where), "Drain it first.")
        if at_work(here):
            return {}
        look = Look(publisher, subscriber, here.peer_host, params["full_identity"], params["wal_limit_bytes"])
        look.look(inside, there)
        look.problems += _follow_switch.writers(inside, publisher)
        if look.problems or check_mode:
            return {"changed": not look.problems, "problems": look.problems, "warnings": look.warnings}
    _follow_clean.unlink(here)
    try:
        _turn(here, look, params["switch_timeout"])
    except BaseException:
        _follow_clean.unlink(here.plain())
        raise
    return {"changed": True, "warnings": look.warnings}


def _turn(here: Ends, look: Look, seconds: int) -> None:
    with sessions((here.publisher, None), (here.publisher, _copy.SERVER_DATABASE), (here.subscriber, None)) as (inside, publisher, there):
        peer = _follow_back.make_way(here, look, Record(look.identities), publisher, inside, there)
        _follow_back.make_slot(inside, here.name, seconds, here.publisher.where)
        # What was committed before the slot began would never come back.
        problems = _follow_switch.writers(inside, here.publisher)
        if problems:
            raise PoolsError(problems[0].problem, problems[0].remedy)
        _follow_link.write_record(inside, here.name, Record(look.identities, _follow_catalog.fingerprint(inside)))
        _follow_link.make_subscription(there, here.name, peer)
        _follow_link.enable(there, here.name)

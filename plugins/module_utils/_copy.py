# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the module ``database_copy``: looking, copying, and throwing away what a broken-off copy left.

A copy leaves its mark on the target's database until the last step, so that what a broken-off one left is known as such and may be
thrown away, while no database that somebody uses ever is.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from . import _copy_catalog as catalog
from . import _copy_code, _tenant_sql
from . import _copy_dress as dress
from ._copy_clients import find
from ._copy_plan import Problem
from ._copy_preflight import Findings, Preflight
from ._copy_progress import Listener, Progress
from ._copy_pulse import Pulse, watching
from ._copy_session import Side, rows
from ._copy_steps import Check, Orders, Steps
from ._errors import PoolsError
from ._follow_plan import own

# An administrator's own database is on every server, and none is moved from under it.
SERVER_DATABASE = "postgres"
MOST_JOBS = 64
_IDENTITY = "SELECT system_identifier, pg_postmaster_start_time() AS started FROM pg_control_system()"
_TRUST = "Look at it and trust it, by refuse_code=false here or trust_code=true in a move; or choose a server that nobody shares."
_FACTS = ("size", "relations", "large_objects", "large_object_bytes", "unlogged_tables", "event_triggers")
# What is said of a copy before one has been made.
_NOTHING: Dict[str, Any] = {"bytes": 0, "tables": 0, "sequences": 0, "large_objects": 0, "seconds": {}, "roles": []}


def carry_out(
    params: Mapping[str, Any], check_mode: bool, listener: Optional[Listener] = None, go_on: Check = lambda: None
) -> Dict[str, Any]:
    """One call of the module ``database_copy``, from its options to its result; ``failed`` says whether something stands against the copy.

    :raises PoolsError: an option cannot be, a server cannot be reached, or the copy failed.
    """
    state = params["state"]
    if not 1 <= params["jobs"] <= MOST_JOBS:
        raise PoolsError("jobs is {0}.".format(params["jobs"]), "Give a number from 1 to {0}.".format(MOST_JOBS))
    if state == "absent":
        target = side("target", params["target"], params["source"] or {})
        result = clean(target, params["drop_roles"], params["roles"] or [], params["force"], check_mode)
    else:
        orders = Orders(**{key: params[key] for key in Orders._fields if key in params})
        orders = orders._replace(ignore_follower=orders.ignore_follower and state == "checked")
        source = side("source", params["source"], {})
        target = side("target", params["target"], params["source"])
        result = check(source, target, orders) if check_mode or state == "checked" else copy(source, target, orders, listener, go_on)
        result["changed"] = state == "present" and not result["problems"]
    result["failed"] = bool(result["problems"]) and (state == "present" or params["fail"])
    if result["failed"]:
        result["msg"] = " ".join("{problem} {remedy}".format(**problem) for problem in result["problems"])
    before, after = ("", "database {0}\n".format(target.database))[:: -1 if state == "absent" else 1]
    result["diff"] = {"before": before if result["changed"] else "", "after": after if result["changed"] else ""}
    return result


def check(source: Side, target: Side, orders: Orders) -> Dict[str, Any]:
    """What stands against the copy, without making any of it."""
    with _open(source, target) as (inside, server):
        found = _look(source, target, orders, inside, server)
        return dict(_NOTHING, **_told(found), changed=False)


def copy(source: Side, target: Side, orders: Orders, listener: Optional[Listener] = None, go_on: Check = lambda: None) -> Dict[str, Any]:
    """Make the copy, unless there are ``problems`` in what is returned.

    *listener* is called about once a second with how far it is; *go_on* raises a PoolsError when there is no more use in it.

    :raises PoolsError: it failed; then the target is left as it is, for :func:`clean`.
    """
    source, target = (one._replace(pulse=Pulse(one.where, one.login, SERVER_DATABASE)) for one in (source, target))
    with watching(source.pulse, target.pulse, check=go_on) as all_well, _open(source, target) as (inside, server):
        with _tenant_sql.lock(server, target.database), Progress(orders.progress_file or "", listener) as progress:
            progress.enter("preflight")
            found = _look(source, target, orders, inside, server)
            if found.problems:
                return dict(_NOTHING, **_told(found), changed=False)
            job = Steps(source, target, orders, found, inside, server, progress, all_well)
            try:
                job.run()
            finally:
                job.close()
        return dict(_told(found), **job.result(), changed=True, seconds=progress.seconds)


def clean(target: Side, drop_roles: bool, named: Sequence[str], force: bool, check_mode: bool) -> Dict[str, Any]:
    """Throw away what a copy left: the database while it is unfinished, or with *force* also a whole one; and the roles made for it.

    :raises PoolsError: the database is somebody else's, or is no copy's rest.
    """
    actions: List[str] = []
    warnings: List[str] = []
    with target.session(SERVER_DATABASE) as server, _tenant_sql.lock(server, target.database):
        there = catalog.database(server, target.database)
        dress.refuse_foreign(there, target.owner)
        # -2: a DROP that was itself broken off.
        if there and not force and there["comment"] != dress.UNFINISHED and there["connection_limit"] != -2:
            raise PoolsError(
                "Database {0} on the {1} is not the rest of a broken-off copy.".format(target.database, target.where),
                "Set force=true if it may be thrown away all the same.",
            )
        if there:
            actions.append("database {0} dropped".format(target.database))
            if not check_mode:
                dress.drop_database(server, target.database)
        roles = dress.droppable_roles(server, target.database, target.owner, named) if drop_roles else []
        if not check_mode:
            roles, warnings = dress.drop_roles(server, roles)
        actions += ["role {0} dropped".format(role) for role in roles]
    return dict(_NOTHING, changed=bool(actions), actions=actions, problems=[], warnings=warnings)


@contextlib.contextmanager
def _open(source: Side, target: Side) -> Iterator[Any]:
    with source.session() as inside, target.session(SERVER_DATABASE) as server:
        # By what the servers say: one has many addresses, and what is copied onto itself is gone.
        if source.database == target.database and rows(inside, _IDENTITY) == rows(server, _IDENTITY):
            raise PoolsError("Source and target are the same database.", "Give another server, or another database.")
        yield inside, server


def _look(source: Side, target: Side, orders: Orders, inside: Any, server: Any) -> Findings:
    database = catalog.database(inside, source.database)
    if database is None:
        raise PoolsError("Database {0} was dropped from the {1}.".format(source.database, source.where))
    found = Preflight(source, target, orders.replace, orders.target_free_bytes, orders.target_budget_bytes).look(inside, server, database)
    if orders.ignore_follower:
        found.problems[:] = [problem for problem in found.problems if not own(problem, source.database)]
    code = _copy_code.found(inside) if orders.refuse_code else []
    if code:
        told = "With a superuser's rights the restore would run code of the database's own in {0}.".format(", ".join(code))
        found.problems.append(Problem("code", told, _TRUST))
    try:
        find(orders.bin_dir or "", inside.server_version // 10000, server.server_version // 10000)
    except PoolsError as error:
        found.problems.append(Problem("clients", error.problem, error.remedy))
    return found


def _told(found: Findings) -> Dict[str, Any]:
    return {"problems": [problem._asdict() for problem in found.problems], "warnings": found.warnings, "facts": {key: found.facts[key] for key in _FACTS}}


def side(word: str, given: Mapping[str, Any], default: Mapping[str, Any]) -> Side:
    """One of the module's options ``source`` and ``target``.

    :raises PoolsError: no database or no owner is named.
    """
    database = given.get("database") or default.get("database") or ""
    owner = given.get("owner") or default.get("owner") or ""
    for key, value in (("database", database), ("owner", owner)):
        if not value:
            raise PoolsError("The {0} has no {1}.".format(word, key), "Name it by {0}.{1}.".format(word, key))
    if database in (SERVER_DATABASE, "template0", "template1"):
        raise PoolsError("Database {0} is the server's own, and is not copied.".format(database), "Name another.")
    login = {key: given.get(key) for key in ("login_host", "login_port", "login_user", "login_password")}
    login.update(ssl_mode=given.get("login_ssl_mode"), ca_certificate=given.get("login_ca_certificate"))
    return Side(word, login, database, owner)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What following leaves behind, and how it goes: nothing of it may stay on either server."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from . import _copy, _follow_link
from . import _copy_catalog as catalog
from . import _copy_dress as dress
from ._copy_plan import Problem
from ._copy_session import Side, rows
from ._errors import PoolsError
from ._follow_ends import Ends
from ._follow_plan import name_of, passing_slot_of, proof_slot_of

_ON_SERVER = """
SELECT 'slot ' || slot_name AS what FROM pg_replication_slots WHERE slot_name = ANY (%(slots)s) AND NOT temporary
UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname = %(role)s"""
_SUBSCRIBED = """
SELECT s.subname::text AS name FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE s.subname = ANY (%(names)s) AND d.datname = %(database)s ORDER BY 1"""


def unlink(here: Ends) -> List[str]:
    """Subscription, slot, publication and role go, and replica identities are put back. In words what was done."""
    publisher, subscriber, name = here.publisher, here.subscriber, here.name
    actions: List[str] = []
    if _there(subscriber):
        with subscriber.session() as there:
            actions += _follow_link.drop_subscription(there, name)
    with publisher.session(_copy.SERVER_DATABASE) as server:
        actions += _follow_link.drop_slots(server, [passing_slot_of(publisher.database), proof_slot_of(publisher.database), name])
        actions += _follow_link.drop_role(server, name, publisher.database)
    if _there(publisher):
        with publisher.session() as inside:
            actions += _follow_link.drop_publication(inside, name)
    return actions


def leave_nothing(here: Ends, params: Mapping[str, Any]) -> Tuple[List[str], List[str]]:
    """What links both, and the copy as long as it is not whole. In words what was done, and what to warn of: a server that is away keeps
    what it has until the next ``absent``."""
    # What is whole is never dropped because something else went wrong, whatever force says: on the way back it is the tenant's old place.
    actions, problems = _take_away(here, dict(params, force=False), False)
    return actions, ["Not all is tidied, state=absent does it: {0}".format(one.problem) for one in problems]


def absent(here: Ends, params: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Of both directions, on whichever server answers. What is left on one that does not is a problem."""
    actions, problems = _take_away(here, params, check_mode)
    return {"changed": bool(actions), "actions": actions, "problems": problems}


def _take_away(here: Ends, params: Mapping[str, Any], check_mode: bool) -> Tuple[List[str], List[Problem]]:
    actions: List[str] = []
    problems: List[Problem] = []
    # A database that was followed and put aside bears another name by now, and what was made for it bears that of the other.
    databases = sorted({here.publisher.database, here.subscriber.database})
    steps: List[Callable[[], List[str]]] = []
    # The publisher's WAL must not wait for a subscriber that is away.
    steps += [functools.partial(_subscriptions, side, databases, check_mode) for side in (here.subscriber, here.publisher)]
    steps += [functools.partial(_rest, side, databases, check_mode) for side in (here.publisher, here.subscriber)]
    steps.append(functools.partial(_uncopy, here.subscriber, params, check_mode))
    for step in steps:
        try:
            actions += step()
        except PoolsError as error:
            problems.append(Problem("left over", error.problem, " ".join([error.remedy, "Then state=absent takes away the rest."]).strip()))
    return actions, list(dict.fromkeys(problems))


def _subscriptions(side: Side, databases: Sequence[str], check_mode: bool) -> List[str]:
    names = [name_of(database) for database in databases]
    with side.session(_copy.SERVER_DATABASE) as server:
        found = [row["name"] for row in rows(server, _SUBSCRIBED, {"names": names, "database": side.database})]
    if not found or check_mode:
        return ["subscription {0} dropped".format(name) for name in found]
    with side.session() as inside:
        return [action for name in found for action in _follow_link.drop_subscription(inside, name)]


def _rest(side: Side, databases: Sequence[str], check_mode: bool) -> List[str]:
    actions: List[str] = []
    with side.session(_copy.SERVER_DATABASE) as server:
        opened = bool(rows(server, "SELECT 1 FROM pg_database WHERE datname = %(name)s AND datallowconn", {"name": side.database}))
        for database in databases:
            slots = [passing_slot_of(database), proof_slot_of(database), name_of(database)]
            if check_mode:
                actions += [row["what"] + " dropped" for row in rows(server, _ON_SERVER, {"slots": slots, "role": name_of(database)})]
            else:
                actions += _follow_link.drop_slots(server, slots) + _follow_link.drop_role(server, name_of(database), database)
    if opened:
        with side.session() as inside:
            for name in map(name_of, databases):
                if not check_mode:
                    actions += _follow_link.drop_publication(inside, name)
                elif _follow_link.read_record(inside, name):
                    actions.append("publication {0} dropped".format(name))
    return actions


def _uncopy(target: Side, params: Mapping[str, Any], check_mode: bool) -> List[str]:
    with target.session(_copy.SERVER_DATABASE) as server:
        found = catalog.database(server, target.database)
    unfinished = found and found["owner"] == target.owner and (found["comment"] == dress.UNFINISHED or found["connection_limit"] == -2)
    if not (unfinished or (found and params["force"])) and not (found is None and params["drop_roles"]):
        return []
    result = _copy.clean(target, params["drop_roles"], params["roles"] or [], params["force"], check_mode)
    return [*result["actions"], *result["warnings"]]


def _there(side: Side) -> bool:
    with side.session(_copy.SERVER_DATABASE) as server:
        return catalog.database(server, side.database) is not None

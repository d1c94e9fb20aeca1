# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What following leaves behind, and how it goes: nothing of it may stay on either server."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

from . import _copy, _follow_link
from . import _copy_catalog as catalog
from . import _copy_dress as dress
from ._copy_session import Side, rows
from ._errors import PoolsError
from ._follow_ends import Ends
from ._follow_plan import passing_slot_of, proof_slot_of

_ON_SERVER = """
SELECT 'slot ' || slot_name AS what FROM pg_replication_slots WHERE slot_name IN (%(name)s, %(passing)s, %(proof)s) AND NOT temporary
UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname = %(name)s"""


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
    actions: List[str] = []
    warnings: List[str] = []
    # What is whole is never dropped because something else went wrong, whatever force says: on the way back it is the tenant's old place.
    gently = dict(params, force=False)
    for step in (lambda: unlink(here), lambda: _uncopy(here.subscriber, gently, False)):
        try:
            actions += step()
        except PoolsError as error:
            warnings.append("Not all is tidied, state=absent does it: {0}".format(error))
    return actions, warnings


def absent(here: Ends, params: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Of both directions."""
    actions: List[str] = []
    for one in (here, here.swapped()):
        actions += _found(one) if check_mode else unlink(one)
    actions += _uncopy(here.subscriber, params, check_mode)
    return {"changed": bool(actions), "actions": actions}


def _uncopy(target: Side, params: Mapping[str, Any], check_mode: bool) -> List[str]:
    with target.session(_copy.SERVER_DATABASE) as server:
        found = catalog.database(server, target.database)
    unfinished = found and found["owner"] == target.owner and (found["comment"] == dress.UNFINISHED or found["connection_limit"] == -2)
    if not (unfinished or (found and params["force"])) and not (found is None and params["drop_roles"]):
        return []
    result = _copy.clean(target, params["drop_roles"], params["roles"] or [], params["force"], check_mode)
    return [*result["actions"], *result["warnings"]]


def _found(here: Ends) -> List[str]:
    found: List[str] = []
    if _there(here.subscriber):
        with here.subscriber.session() as there:
            found += ["subscription " + here.name] if _follow_link.subscribed(there, here.name) is not None else []
    with here.publisher.session(_copy.SERVER_DATABASE) as server:
        names = {"name": here.name, "passing": passing_slot_of(here.publisher.database), "proof": proof_slot_of(here.publisher.database)}
        found += [row["what"] for row in rows(server, _ON_SERVER, names)]
    if _there(here.publisher):
        with here.publisher.session() as inside:
            found += ["publication " + here.name] if _follow_link.read_record(inside, here.name) else []
    return [one + " dropped" for one in found]


def _there(side: Side) -> bool:
    with side.session(_copy.SERVER_DATABASE) as server:
        return catalog.database(server, side.database) is not None

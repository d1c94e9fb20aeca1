# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``tenant_switch``: a tenant's writers go over from one place to the one that follows it, in one call, since each call has its price
in seconds without writes."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from . import _follow_back, _names
from ._copy_steps import Check
from ._errors import PoolsError
from ._follow_ends import Ends, ends, locked, pulsed
from ._inventory import Inventory
from ._moving_lease import Heartbeat, open_move, taken_over
from ._pooler import SPEC as POOLER
from ._secrets import Cipher
from ._switch_window import Window

_SIDE: Dict[str, Any] = dict(
    database=dict(type="str", required=True),
    owner=dict(type="str", required=True),
    login_host=dict(type="str"),
    login_port=dict(type="int", default=5432),
    login_user=dict(type="str", default="postgres"),
    login_password=dict(type="str", no_log=True),
    login_password_encrypted=dict(type="str", no_log=False),
    login_ssl_mode=dict(type="str", default="prefer", choices=["allow", "disable", "prefer", "require", "verify-ca", "verify-full"]),
    login_ca_certificate=dict(type="str"),
    peer_host=dict(type="str"),
    peer_port=dict(type="int"),
)
OPTIONS: Dict[str, Any] = dict(
    instance_id=dict(type="str", required=True),
    state=dict(type="str", default="switched", choices=["switched", "returned", "linked"]),
    lease=dict(type="str", required=True),
    lease_seconds=dict(type="int", default=20),
    source=dict(type="dict", required=True, options=_SIDE),
    target=dict(type="dict", required=True, options=_SIDE),
    source_tenant_database=dict(type="dict"),
    tenant_database=dict(type="dict"),
    pooler=dict(type="dict", options=POOLER),
    switch_timeout=dict(type="int", default=10),
    lag_bytes=dict(type="int", default=1024**2),
    way_back=dict(type="bool", default=True),
    way_back_timeout=dict(type="int", default=30),
    wal_limit_bytes=dict(type="int", default=4 * 1024**3),
    ignore=dict(type="list", elements="str", default=[]),
    retention_days=dict(type="float", default=7.0),
    reason=dict(type="str"),
)
_CLOSES = [("state", state, ("source_tenant_database", "tenant_database")) for state in ("switched", "returned")]
RULES: Dict[str, Any] = dict(required_if=[*_CLOSES, ("state", "returned", ("reason",))])
# What the engine asks beside.
_FOLLOWED = {"full_identity": True, "jobs": 2, "replace": False, "force": False, "drop_roles": False, "roles": [], "timeout": 0, "compare": True}


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    """One call of the module, from its checked options to its result.

    :raises PoolsError: it cannot be done; where the old place had been closed, it is open again if its server can be reached.
    """
    _names.parse_uuid(params["instance_id"], "instance_id")
    for option, least in (("switch_timeout", 1), ("lag_bytes", 0), ("way_back_timeout", 1), ("lease_seconds", 1)):
        if params[option] < least:
            raise PoolsError("{0} is {1}.".format(option, params[option]), "Give {0} or more.".format(least))
    params = dict(params, **{key: value for key, value in _FOLLOWED.items() if key not in params})
    for side in ("source", "target", "source_tenant_database", "tenant_database"):
        params[side] = _opened(params[side], cipher)
    here = ends(params)
    if params["state"] == "linked":
        return _linked(here.swapped(), params, inventory)
    with _kept(params, inventory) as kept, pulsed(here, kept[1]) as watched, locked(watched[0]):
        return Window(watched[0], params, inventory, watched[1], kept[0]).pass_through()


@contextlib.contextmanager
def _kept(params: Mapping[str, Any], inventory: Inventory) -> Iterator[Tuple[Mapping[str, Any], Check]]:
    """Keep the lease of the move while the block works; it gets the move, and what raises a PoolsError when that is another run's."""
    move = open_move(inventory, params["instance_id"])
    if move is None:
        raise PoolsError("Instance {0} is not being moved.".format(params["instance_id"]), "Plan the move first.")
    if move["lease"] != params["lease"]:
        raise taken_over(move)
    seconds = params["lease_seconds"]
    if inventory.dry_run:
        yield move, lambda: None
        return
    with Heartbeat(params, move["id"], params["lease"], max(1.0, seconds / 4), seconds) as heartbeat:
        yield move, heartbeat.check


def _opened(given: Optional[Mapping[str, Any]], cipher: Cipher) -> Optional[Dict[str, Any]]:
    """With its passwords in clear."""
    opened = dict(given or {})
    for option in ("password", "login_password"):
        token = opened.get(option + "_encrypted")
        if token and not opened.get(option):
            opened[option] = cipher.decrypt(token, option)
    return opened or None


def _linked(back: Ends, params: Mapping[str, Any], inventory: Inventory) -> Dict[str, Any]:
    if inventory.dry_run:
        alive = _follow_back.alive(back)
        return {"changed": not alive, "following": alive}
    with locked(back):
        return {"changed": _follow_back.link(back, params), "following": True}

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a reserved place to a database in use: made on its server, then recorded as active."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from . import _lifecycle
from ._errors import PoolsError
from ._inventory import Inventory
from ._secrets import Cipher
from ._tenant_report import answer, arrange


def hand_out(
    databases: Sequence[Mapping[str, Any]], instances: Mapping[str, str], inventory: Inventory, cipher: Cipher, max_parallel: int
) -> Dict[str, Any]:
    """Bring *databases* to the wanted state, and activate the allocations of those that are.

    :param databases: as _allocation.tenant_databases() gives them.
    :param instances: the instance by the name of its database.
    :returns: ``changed``, and the ``actions`` by instance, or by server for its own.
    :raises PoolsError: some could not be made. The others are active by then, and the next call goes on from there.
    """
    params: Dict[str, Any] = {
        "databases": [_in_clear(database, instances, cipher) for database in databases],
        "state": "present",
        "max_parallel": max_parallel,
        "require_wall": True,
        "connect_timeout": 10,
    }
    told = answer(*arrange(params, inventory.dry_run))
    ready: List[str] = [instances[one["name"]] for one in told["databases"] if not one["failed"]]
    activated = _lifecycle.activate(inventory, ready) if ready else []
    if told["failed"]:
        raise PoolsError(told["msg"], "Run it again when the cause is mended.")
    actions = {instances[one["name"]]: one["actions"] for one in told["databases"] if one["actions"]}
    # What a server's first tenant brings to the server as a whole: the wall.
    actions.update({"{host}:{port}".format(**one): one["actions"] for one in told["servers"] if one["actions"]})
    return {"changed": told["changed"] or bool(activated), "actions": actions}


def _in_clear(database: Mapping[str, Any], instances: Mapping[str, str], cipher: Cipher) -> Dict[str, Any]:
    opened = dict(database)
    opened["password"] = cipher.decrypt(database["password_encrypted"], "instance {0}".format(instances[database["name"]]))
    if database["login_password_encrypted"]:
        server = "the server at {login_host} port {login_port}".format(**database)
        opened["login_password"] = cipher.decrypt(database["login_password_encrypted"], server)
    return opened

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A long step that belongs to a move: it keeps the move's lease, and writes how far it is into the move's row."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, Mapping, Optional

from ._moving_lease import Heartbeat
from ._registry_module import connection_spec


def watch_spec() -> Dict[str, Any]:
    """The options ``migration`` and ``login_*``, which reach the inventory database."""
    move = dict(id=dict(type="str", required=True), lease=dict(type="str", required=True), lease_seconds=dict(type="int", default=20))
    return dict(connection_spec(), migration=dict(type="dict", options=move))


@contextlib.contextmanager
def watched(params: Mapping[str, Any]) -> Iterator[Optional[Heartbeat]]:
    """Keep the lease of ``migration`` while the block works; None where the step belongs to no move.

    :raises PoolsError: after the block, when the move was no longer this run's.
    """
    move = params["migration"]
    if not move:
        yield None
        return
    with Heartbeat(params, move["id"], move["lease"], max(1.0, move["lease_seconds"] / 4), move["lease_seconds"]) as heartbeat:
        yield heartbeat
        heartbeat.check()

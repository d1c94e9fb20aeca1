# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tenants move so that pools are evenly loaded, with the fewest moves; and where each of many goes when all must. Pure.

A server is a mapping with ``name``, ``max_instances``, ``current_instances``, ``connection_budget``, ``promised_connections``,
``storage_budget_bytes`` and ``promised_storage_bytes``; a tenant one with ``instance_id``, ``server``, ``connections`` and ``storage_bytes``.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

Row = Mapping[str, Any]


class Room:
    """What is left on servers while a proposal grows."""

    def __init__(self, servers: Sequence[Row]) -> None:
        self._left = {
            one["name"]: [
                one["max_instances"] - one["current_instances"],
                one["connection_budget"] - one["promised_connections"],
                one["storage_budget_bytes"] - one["promised_storage_bytes"],
            ]
            for one in servers
        }

    def takes(self, server: str, tenant: Row) -> bool:
        places, connections, storage = self._left[server]
        return places >= 1 and connections >= tenant["connections"] and storage >= tenant["storage_bytes"]

    def take(self, server: str, tenant: Row) -> None:
        for index, amount in enumerate((1, tenant["connections"], tenant["storage_bytes"])):
            self._left[server][index] -= amount


def plan(servers: Sequence[Row], tenants: Sequence[Row], limit: Optional[int] = None, tolerance: float = 0.1) -> List[Dict[str, Any]]:
    """The moves, at most *limit*, the ones that help most first: ``instance_id``, ``from``, ``to`` and ``why``.

    Pools are even when the load of the fullest and of the emptiest, as parts of their places, differ by *tolerance* at most, or by one tenant
    of the smallest pool. No move makes the spread worse, and none is to a server without room for it. A move keeps its source's storage until
    the source is dropped, and its connections until the tenant is gone, so nothing that becomes free counts as room.
    """
    pools = sorted((one for one in servers if one["max_instances"] > 0), key=lambda one: str(one["name"]))
    wanted = _wanted(pools, tolerance)
    now = {one["name"]: one["current_instances"] for one in pools}
    places = {one["name"]: one["max_instances"] for one in pools}
    room = Room(pools)
    movable: Dict[str, List[Row]] = {one["name"]: [] for one in pools}
    # The smallest first: that is what a move costs.
    for tenant in sorted(tenants, key=lambda one: (one["storage_bytes"], one["connections"], str(one["instance_id"]))):
        if tenant["server"] in movable:
            movable[tenant["server"]].append(tenant)

    def load(name: str) -> Fraction:
        return Fraction(now[name], places[name])

    moves: List[Dict[str, Any]] = []
    while limit is None or len(moves) < limit:
        givers = sorted((name for name in now if now[name] > wanted[name]), key=lambda name: (-load(name), name))
        takers = sorted((name for name in now if now[name] < wanted[name]), key=lambda name: (load(name), name))
        found = _first_that_fits(givers, takers, movable, room)
        if found is None:
            break
        source, target, tenant = found
        why = "{0} has {1} of {2} places taken, {3} has {4} of {5}".format(source, now[source], places[source], target, now[target], places[target])
        moves.append({"instance_id": tenant["instance_id"], "from": source, "to": target, "why": why})
        movable[source].remove(tenant)
        room.take(target, tenant)
        now[source] -= 1
        now[target] += 1
    return moves


def _first_that_fits(
    givers: Sequence[str], takers: Sequence[str], movable: Mapping[str, Sequence[Row]], room: Room
) -> Optional[Tuple[str, str, Row]]:
    for source in givers:
        for target in takers:
            for tenant in movable[source]:
                if room.takes(target, tenant):
                    return source, target, tenant
    return None


def _wanted(pools: Sequence[Row], tolerance: float) -> Dict[str, int]:
    """How many tenants each pool is to have, so that the fewest move."""
    now = {one["name"]: one["current_instances"] for one in pools}
    if not pools:
        return now
    loads = [Fraction(one["current_instances"], one["max_instances"]) for one in pools]
    lowest, highest = min(loads), max(loads)
    width = max(Fraction(tolerance).limit_denominator(10**6), Fraction(1, min(one["max_instances"] for one in pools)))
    if highest - lowest <= width:
        return now
    best: Optional[Tuple[int, Fraction, Dict[str, Tuple[int, int]]]] = None
    middle = Fraction(sum(now.values()), sum(one["max_instances"] for one in pools))
    # Between two of these no pool's limits change.
    edges = {Fraction(count, one) for one in {pool["max_instances"] for pool in pools} for count in range(one + 1)}
    for begin in sorted({edge for edge in edges | {edge - width for edge in edges} if lowest <= edge <= highest}):
        bounds = {
            one["name"]: (ceil(begin * one["max_instances"]), floor(min(begin + width, highest) * one["max_instances"])) for one in pools
        }
        if any(low > high for low, high in bounds.values()):
            continue
        total = sum(now.values())
        if not sum(low for low, _high in bounds.values()) <= total <= sum(high for _low, high in bounds.values()):
            continue
        moves = max(
            sum(max(0, now[name] - high) for name, (_low, high) in bounds.items()), sum(max(0, low - now[name]) for name, (low, _high) in bounds.items())
        )
        # Of equally few moves, those about the middle.
        key = (moves, abs(begin + width / 2 - middle))
        if best is None or key < best[:2]:
            best = (*key, bounds)
    return _counts(pools, now, best[2]) if best else now


def _counts(pools: Sequence[Row], now: Mapping[str, int], bounds: Mapping[str, Tuple[int, int]]) -> Dict[str, int]:
    """Counts within *bounds* of the same sum, as near to *now* as can be."""
    counts = {name: min(max(now[name], low), high) for name, (low, high) in bounds.items()}
    places = {one["name"]: one["max_instances"] for one in pools}
    missing = sum(now.values()) - sum(counts.values())
    while missing:
        step = 1 if missing > 0 else -1
        free = [name for name, (low, high) in bounds.items() if low <= counts[name] + step <= high]
        # One more for the emptiest, one less for the fullest.
        chosen = min(free, key=lambda name: (step * Fraction(counts[name] + step, places[name]), name))
        counts[chosen] += step
        missing -= step
    return counts


def assign(tenants: Sequence[Row], servers: Sequence[Row], allowed: Mapping[str, Sequence[str]]) -> Dict[str, Optional[str]]:
    """The target of each tenant by its ``instance_id``, as placement would choose them one after the other; None where no server has room.

    :param servers: in the order of their making, with ``priority``.
    :param allowed: the names that the rules allow for each tenant, which is what ``_candidates`` says.
    """
    room = Room(servers)
    taken = {one["name"]: one["current_instances"] for one in servers}
    order = {one["name"]: (one["priority"], one["max_instances"], index) for index, one in enumerate(servers)}
    found: Dict[str, Optional[str]] = {}
    # What takes much first: later it might fit nowhere.
    for tenant in sorted(tenants, key=lambda one: (-one["storage_bytes"], -one["connections"], str(one["instance_id"]))):
        names = [name for name in allowed[tenant["instance_id"]] if room.takes(name, tenant)]
        best = min(names, key=lambda name: (order[name][0], Fraction(taken[name], order[name][1]), order[name][2])) if names else None
        if best is not None:
            room.take(best, tenant)
            taken[best] += 1
        found[tenant["instance_id"]] = best
    return found

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a move's steps took: the one that is recorded took the time since the one before. Pure."""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Mapping, Sequence


def timed(given: Sequence[Mapping[str, Any]], move: Mapping[str, Any], now: datetime.datetime) -> List[Dict[str, Any]]:
    """The steps of *given* that *move* does not have yet, each with ``seconds`` and ``at``, the moment it was recorded.

    One that brings its seconds keeps them. The first that brings none took what is left of the time since the step before.
    """
    new = [dict(one) for one in given if not any(_is(one, kept) for kept in move["steps"])]
    left = (now - _since(move)).total_seconds() - sum(_number(one.get("seconds")) for one in new)
    for one in new:
        if one.get("seconds") is None:
            one["seconds"], left = round(max(0.0, left), 2), 0.0
        one["at"] = now.astimezone(datetime.timezone.utc).isoformat(timespec="milliseconds")
    return new


def _is(one: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    return all(key in kept and kept[key] == value for key, value in one.items())


def _since(move: Mapping[str, Any]) -> datetime.datetime:
    # Those of releases before do not say when they were.
    told = [datetime.datetime.fromisoformat(one["at"]) for one in move["steps"] if one.get("at")]
    return max(told + [one for one in (move["created_at"], move["returning_at"]) if one])


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0

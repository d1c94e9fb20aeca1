# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that never really waits."""

from __future__ import annotations

from typing import Any, List

from awx_server import TOKEN, Awx

from postgres_pools_client import AwxPools


class Time:
    """A clock that moves only when somebody sleeps, so that every pause is seen and none is waited for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: List[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def asking(awx: Awx, time_: Time, **more: Any) -> AwxPools:
    """Without jitter, so that pauses are whole numbers."""
    arguments = dict(sleep=time_.sleep, clock=time_.clock, jitter=lambda: 0.0, request_timeout=5)
    return AwxPools(awx.url, TOKEN, **dict(arguments, **more))

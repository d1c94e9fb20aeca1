# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each step of a move took: every second between its plan and its end is some step's."""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._moving_times import timed

BEGAN = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.timezone.utc)


def after(seconds: float) -> datetime.datetime:
    return BEGAN + datetime.timedelta(seconds=seconds)


def move(steps: Optional[List[Dict[str, Any]]] = None, returning: Optional[float] = None) -> Dict[str, Any]:
    return {"created_at": BEGAN, "returning_at": None if returning is None else after(returning), "steps": steps or []}


def test_a_step_took_the_time_since_the_one_before() -> None:
    first = timed([{"step": "checked"}], move(), after(2))
    assert first == [{"step": "checked", "seconds": 2.0, "at": "2026-03-01T12:00:02.000+00:00"}]
    assert timed([{"step": "prepared"}], move(first), after(3.5))[0]["seconds"] == 1.5


def test_what_is_known_is_kept_and_the_other_gets_what_is_left() -> None:
    told = timed([{"step": "closed"}, {"step": "copied", "seconds": 41.2, "tables": 3}], move(), after(43))
    assert [(one["step"], one["seconds"]) for one in told] == [("closed", 1.8), ("copied", 41.2)] and told[1]["tables"] == 3
    # What was measured elsewhere may be more than there was time for, and may be no number at all.
    assert timed([{"step": "closed"}, {"step": "copied", "seconds": 50}], move(), after(43))[0]["seconds"] == 0.0
    assert timed([{"step": "closed"}, {"step": "copied", "seconds": {"rows": 1}}], move(), after(4))[0]["seconds"] == 4.0


def test_a_step_that_was_recorded_is_not_recorded_twice() -> None:
    kept = timed([{"step": "opened"}, {"step": "copied", "seconds": 4}], move(), after(5))
    assert timed([{"step": "opened"}, {"step": "copied", "seconds": 4}], move(kept), after(9)) == []
    assert len(timed([{"step": "copied", "seconds": 3}], move(kept), after(9))) == 1


def test_a_way_back_days_later_does_not_take_days() -> None:
    kept = timed([{"step": "put aside"}], move(), after(5))
    assert timed([{"step": "fetched back"}], move(kept, returning=86400), after(86403))[0]["seconds"] == 3.0


def test_steps_of_releases_before_have_no_time() -> None:
    assert timed([{"step": "opened"}], move([{"step": "copied", "seconds": 1}]), after(5))[0]["seconds"] == 5.0

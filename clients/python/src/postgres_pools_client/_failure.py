# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a run failed, out of the events that both AWX and ansible-runner give."""

from __future__ import annotations

from typing import Any, Iterable, List, Mapping, Optional

FAILURES = ("runner_on_failed", "runner_on_unreachable")


def message(events: Iterable[Mapping[str, Any]]) -> Optional[str]:
    """The last failure's own words. The last, since a playbook that tidies up after a failure ends by telling of it."""
    told: Optional[str] = None
    for event in events:
        data = event.get("event_data") or {}
        if event.get("event") in FAILURES and not data.get("ignore_errors"):
            told = _words(data) or told
    return told


def _words(data: Mapping[str, Any]) -> Optional[str]:
    result = data.get("res") or {}
    # A hidden result says nothing but that it is hidden; which task it was is all there is to tell.
    if "censored" in result:
        return "The task {0!r} failed; what it said is hidden, since it would show a secret.".format(data.get("task"))
    lines: List[str] = [str(result["msg"])] if result.get("msg") else []
    lines += [str(line) for line in result.get("argument_errors") or [] if str(line) not in lines]
    lines += [
        str(item["msg"])
        for item in result.get("results") or []
        if isinstance(item, dict) and item.get("failed") and item.get("msg")
    ]
    return "\n".join(lines) or None

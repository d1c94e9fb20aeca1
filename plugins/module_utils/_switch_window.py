# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time without writes: it begins when the old place is closed and ends when the new one is open, or the old one is again."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional

from . import _follow_back, _follow_catalog, _follow_switch, _moving, _moving_steps, _tenant_report
from ._copy_steps import Check
from ._errors import PoolsError
from ._follow_ends import Ends, sessions
from ._inventory import Inventory
from ._pooler import Pooler

_CONNECT_SECONDS = 5
_DEFAULTS: Dict[str, Any] = {name: option.get("default") for name, option in _moving.OPTIONS.items()}


class LateError(Exception):
    """The old place is open again, or will be at once: why this try was ended."""


class Window:
    """One passage. ``returned`` goes from the new place back to the old one, which followed it."""

    def __init__(self, here: Ends, params: Mapping[str, Any], inventory: Inventory, check: Check, tries: int = 0) -> None:
        self._params = params
        self._inventory = inventory
        self._check = check
        self._tries = tries
        self._returns = params["state"] == "returned"
        self._here = here.swapped() if self._returns else here
        places = (params["source_tenant_database"], params["tenant_database"])
        self._old, self._new = places[::-1] if self._returns else places
        self._pooler = Pooler(params["pooler"]) if params["pooler"] else None
        self._seconds: Dict[str, float] = {}
        self._begun = self._at = time.monotonic()
        self._back: Optional[str] = None

    # --- what each part took

    def _took(self, name: str) -> None:
        now = time.monotonic()
        self._seconds[name], self._at = round(now - self._at, 3), now

    def _left(self) -> float:
        """:raises LateError: nothing is left of the time that a switch may take."""
        left = self._params["switch_timeout"] - (time.monotonic() - self._begun)
        if left <= 0:
            told = ", ".join("{0} {1:g} s".format(*one) for one in self._seconds.items())
            raise LateError("The switch took longer than {0} s ({1}).".format(self._params["switch_timeout"], told))
        return left

    # --- the passage

    def pass_through(self) -> Dict[str, Any]:
        """:raises PoolsError: it can be neither ended nor taken back by itself; the caller undoes the move."""
        far = self._far()
        if far:
            return self._stayed(far)
        if self._inventory.dry_run:
            return {"changed": True, "switched": False, "opened": False, "why": "", "seconds": {}, "way_back": None}
        if not self._returns and self._params["way_back"]:
            self._prepare_back()
        if self._pooler:
            self._pooler.check()
        stopped: Dict[str, Any] = {"step": "stopped again" if self._returns else "stopped"}
        # A step that was kept already is not kept twice, and each try has its own.
        self._record("renewed", writes_stopped=not self._returns, steps=[dict(stopped, tries=self._tries) if self._tries else stopped])
        self._begun = self._at = time.monotonic()
        drained: Dict[str, Any] = {}
        try:
            drained = self._shut_and_drain()
        except (LateError, PoolsError) as error:
            why = str(error)
            self._reopen()
            if isinstance(error, _follow_switch.LetGoError):
                raise PoolsError(why) from error
            return self._stayed(why)
        try:
            return self._go_over(drained)
        except PoolsError:
            if not self._cut_over:
                self._reopen()
            raise

    _cut_over = False

    def _prepare_back(self) -> None:
        try:
            _follow_back.prepare(self._here, self._params)
        except PoolsError as error:
            # The move is worth more than a way back with data; the one without is there all the same.
            self._back = str(error)

    def _far(self) -> str:
        """Why there is no use in a try now."""
        with sessions((self._here.publisher, None), (self._here.subscriber, None)) as (inside, there):
            status = _follow_catalog.status(inside, there, self._here.name)
        if status.wal_status in (None, "lost"):
            raise PoolsError("The replication slot is {0}.".format("lost" if status.wal_status else "gone"), "Begin the move anew.")
        if status.lag_bytes > self._params["lag_bytes"]:
            return "{0} bytes are still to be applied.".format(status.lag_bytes)
        return ""

    def _shut_and_drain(self) -> Dict[str, Any]:
        if self._pooler:
            if not self._pooler.pause(self._left()):
                raise LateError("The pooler did not come to rest within {0} s: somebody is in a transaction.".format(self._params["switch_timeout"]))
            self._took("paused")
        self._place(self._old, "closed")
        self._took("closed")
        given = dict(self._params, switch_timeout=max(1, int(self._left())))
        result = _follow_switch.drain(self._here, given, False, self._check)
        self._took("drained")
        if result.get("problems"):
            told = " ".join("{0.problem} {0.remedy}".format(problem) for problem in result["problems"])
            # What was changed by it is that the old place was let go of.
            raise _follow_switch.LetGoError(told) if result.get("changed") else PoolsError(told)
        return dict(result)

    def _go_over(self, drained: Mapping[str, Any]) -> Dict[str, Any]:
        warnings: List[str] = list(drained.get("warnings", []))
        if self._returns:
            self._place(dict(self._new, quarantine_name=self._here.subscriber.database), "restored", closed=True)
            self._took("fetched back")
        elif self._params["way_back"] and self._back is None:
            try:
                _follow_back.begin(self._here, self._params)
            except PoolsError as error:
                self._back = str(error)
            self._took("turned")
        self._record_passage(drained)
        self._cut_over = True
        self._took("cutover")
        why = self._open()
        result = {"changed": True, "switched": True, "opened": not why, "why": why, "seconds": self._seconds, "warnings": warnings}
        return dict(result, way_back=None if self._returns or not self._params["way_back"] else self._back or "prepared")

    def _record_passage(self, drained: Mapping[str, Any]) -> None:
        steps: List[Dict[str, Any]] = [{"step": name, "seconds": seconds} for name, seconds in self._seconds.items()]
        if self._returns:
            self._record("rolled_back", steps=steps, unfinished=True, reason=self._params["reason"], way_back="ended", way_back_reason="the tenant went back")
            return
        told: Dict[str, Any] = {}
        if self._params["way_back"]:
            told = {"way_back_reason": self._back} if self._back else {"way_back": "prepared"}
        proof = dict(drained.get("proof") or {}, lsn=drained.get("lsn"))
        self._record("cutover", steps=[*steps, {"step": "cutover"}], proof=proof, retention_days=self._params["retention_days"], **told)

    def _open(self) -> str:
        """Why the tenant is not in its new place yet, though it is there in the inventory database."""
        try:
            self._place(self._new, "present")
            if self._pooler:
                self._pooler.go_on(anew=True)
            self._took("opened")
            opened = [{"step": "opened", "seconds": self._seconds["opened"]}]
            if self._returns:
                # That of the way there stays beside it.
                self._record("renewed", proof={"return_downtime_seconds": round(time.monotonic() - self._begun, 2)})
            else:
                self._record("renewed", writes_resumed=True, steps=opened)
        except Exception as error:
            # The tenant may be writing there: nothing may be taken back any more, and the role opens it again.
            return str(error) or type(error).__name__
        return ""

    def _reopen(self) -> None:
        """:raises PoolsError: the tenant's old place could not be opened again, or the move is not this run's any more."""
        self._place(self._old, "present")
        if self._pooler:
            self._pooler.go_on(anew=False)
        self._took("reopened")
        seconds = round(time.monotonic() - self._begun, 2)
        self._record("renewed", try_again=True, steps=[{"step": "tried", "seconds": seconds, "parts": self._seconds}])

    def _stayed(self, why: str) -> Dict[str, Any]:
        return {"changed": False, "switched": False, "opened": False, "why": why, "seconds": self._seconds, "way_back": None}

    # --- the two records of where a tenant is

    def _place(self, entry: Mapping[str, Any], state: str, closed: bool = False) -> None:
        orders = {"databases": [entry], "state": state, "max_parallel": 1, "require_wall": True, "connect_timeout": _CONNECT_SECONDS}
        told = _tenant_report.answer(*_tenant_report.arrange(orders, False))
        if told["failed"]:
            raise PoolsError(told["msg"])

    def _record(self, state: str, **given: Any) -> None:
        params = dict(_DEFAULTS, lease=self._params["lease"], lease_seconds=self._params["lease_seconds"], state=state, **given)
        _moving_steps.step(params, self._inventory, self._params["instance_id"])

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

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

_CONNECT_SECONDS = 5
_ASK_SECONDS = 10
_DEFAULTS: Dict[str, Any] = {name: option.get("default") for name, option in _moving.OPTIONS.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class LateError(Exception):
    """The old place is open again, or will be at once: why this try was ended."""


class Window:
    """One passage. ``returned`` goes from the new place back to the old one, which followed it."""

    def __init__(self, here: Ends, params: Mapping[str, Any], inventory: Inventory, check: Check, move: Mapping[str, Any]) -> None:
        self._params = params
        self._inventory = inventory
        self._check = check
        self._migration = move["id"]
        self._tries = sum(one.get("step") == "tried" for one in move["steps"])
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
            warnings = list(drained.get("warnings", [])) + self._turn()
        except PoolsError:
            self._reopen()
            raise
        self._enter_passage(drained)
        return dict(self._open(), warnings=warnings)

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

    def _turn(self) -> List[str]:
        """The last that is done before the inventory database has the tenant in the other place; what to warn of."""
        warnings: List[str] = []
        if self._returns:
            self._place(dict(self._new, quarantine_name=self._here.subscriber.database), "restored")
            self._place(self._new, "closed")
            self._took("fetched back")
        elif self._params["way_back"] and self._back is None:
            try:
                warnings += _follow_back.begin(self._here, self._params)["warnings"]
            except PoolsError as error:
                self._back = str(error)
            self._took("turned")
        return warnings

    def _enter_passage(self, drained: Mapping[str, Any]) -> None:
        """:raises PoolsError: it was not recorded, and the old place is open again; or nobody knows, and both stay closed."""
        try:
            self._record_passage(drained)
        except Exception as error:
            # The answer may have been lost after the commit. Then nothing but the row itself says where the tenant is.
            if not self._is_recorded(error):
                self._reopen()
                raise PoolsError("The passage could not be recorded: {0}".format(_line(error))) from error
        self._took("cutover")

    def _is_recorded(self, error: Exception) -> bool:
        try:
            anew = Inventory(self._params)
            # It waits for whoever still has the row, as a commit does that nobody hears of any more.
            anew.execute("SELECT set_config('statement_timeout', %(limit)s, false)", {"limit": "{0}s".format(_ASK_SECONDS)})
            found = anew.row(
                "SELECT status, lease_holder::text AS lease FROM db_tenant_migrations WHERE id = %(id)s::uuid FOR NO KEY UPDATE", {"id": self._migration}
            )
        except (PoolsError, psycopg2.Error) as unknown:
            raise PoolsError(
                "Nobody knows whether the inventory database has instance {0} in its new place: {1}".format(self._params["instance_id"], _line(error)),
                "Both places stay closed. Run it again when the inventory database answers: it opens the right one.",
            ) from unknown
        if found is None or found["lease"] != self._params["lease"]:
            raise PoolsError("The move of instance {0} was taken over by another run.".format(self._params["instance_id"]), "Follow that one.") from error
        self._inventory = anew
        return bool(found["status"] == ("rolled_back" if self._returns else "cutover"))

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

    def _open(self) -> Dict[str, Any]:
        """From here on nothing is taken back: where the tenant is not in its new place yet, though the inventory database has it there, the role lets it in."""
        why = ""
        try:
            self._place(self._new, "present")
            if self._pooler:
                self._pooler.go_on(anew=True)
            self._took("opened")
            if self._returns:
                # That of the way there stays beside it.
                self._record("renewed", proof={"return_downtime_seconds": round(time.monotonic() - self._begun, 2)})
            else:
                self._record("renewed", writes_resumed=True, steps=[{"step": "opened", "seconds": self._seconds["opened"]}])
        except Exception as error:
            why = _line(error)
        way_back = None if self._returns or not self._params["way_back"] else self._back or "prepared"
        return {"changed": True, "switched": True, "opened": not why, "why": why, "seconds": self._seconds, "way_back": way_back}

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

    def _place(self, entry: Mapping[str, Any], state: str) -> None:
        orders = {"databases": [entry], "state": state, "max_parallel": 1, "require_wall": True, "connect_timeout": _CONNECT_SECONDS}
        told = _tenant_report.answer(*_tenant_report.arrange(orders, False))
        if told["failed"]:
            raise PoolsError(told["msg"])

    def _record(self, state: str, **given: Any) -> None:
        params = dict(_DEFAULTS, lease=self._params["lease"], lease_seconds=self._params["lease_seconds"], state=state, **given)
        _moving_steps.step(params, self._inventory, self._params["instance_id"])

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a copy that follows: all of it while the tenant works, and at the end the rows that were changed since.

No moment is needed at which both hold the same. A slot beside that of the following keeps every change since before both were looked at: the rows that
it names up to a place after that are taken out of both sums, and are looked up by their keys later, as all are that it names from there on.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from . import _compare, _follow_catalog, _follow_link, _follow_rows
from ._compare_rows import Content
from ._compare_session import Login, open_session
from ._compare_session import Side as Compared
from ._copy_plan import Problem
from ._copy_progress import Listener
from ._copy_session import Side, execute, rows
from ._copy_steps import Check
from ._errors import PoolsError
from ._follow_changes import Changes, Name
from ._follow_ends import Ends
from ._follow_plan import Record, given_up, proof_slot_of

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# In its own right a commit, which makes all before it lasting, also that of somebody who did not wait for it.
MARKER = "SELECT pg_logical_emit_message(true, 'postgres_pools', 'drained')"
# Writers of one table wait as long at the most for the fence, so it is tried seldom.
_PAUSES = (1, 2, 4, 8)
_FENCE_SECONDS = 120
_DRAIN_SECONDS = 0.01
# What was committed becomes visible after it was sent, if only by a little; until then it would be missing on one side alone.
_SETTLE_SECONDS = 0.3
_ROUNDS = 3
# What differs while one follows, and what is filled or set at the end.
_MEANWHILE = ("database", "role", "setting", "publication", "subscription", "materialized view.rows", "materialized view.checksum")
_SEQUENCES = ("sequence.last value", "sequence.is called")
_SHOWN = 5


class Fence:
    """Keeps writers of one table waiting for a moment, at which the target holds of it what the source holds.

    No writer fails of it: who cannot be waited for within *seconds* is let go on, and it is tried again. Of two tables it could be a deadlock.
    """

    def __init__(self, here: Ends, inside: Any, there: Any, seconds: float, until: float, go_on: Check) -> None:
        """*inside* is a session in the publisher's database for the locks alone, *there* one in the subscriber's."""
        self._here = here
        self._inside = inside
        self._there = there
        self._limit = seconds
        self._until = until
        self._go_on = go_on
        self.tries = 0
        # The longest that a writer may have waited.
        self.seconds = 0.0

    @contextlib.contextmanager
    def around(self, name: Name) -> Iterator[None]:
        statement = sql.SQL("LOCK TABLE ONLY {0} IN SHARE MODE").format(sql.Identifier(*name))
        self.tries = 0
        with self._here.publisher.session() as marking:
            while True:
                begun = time.monotonic()
                try:
                    if self._is_closed(statement, marking):
                        yield
                        return
                finally:
                    execute(self._inside, "ROLLBACK")
                    self.seconds = max(self.seconds, time.monotonic() - begun)
                self._wait()

    def _is_closed(self, statement: Any, marking: Any) -> bool:
        self.tries += 1
        begun = time.monotonic()
        try:
            execute(self._inside, "BEGIN")
            execute(self._inside, "SET LOCAL statement_timeout = %s", [max(1, int(self._limit * 1000))])
            execute(self._inside, statement)
        except (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
            return False
        lsn = marked(marking)
        while not _follow_catalog.reached(marking, self._there, self._here.name, lsn):
            # Twice as long as for the locks, as then nothing new is to come.
            if time.monotonic() - begun > self._limit * 2:
                return False
            time.sleep(_DRAIN_SECONDS)
        return True

    def _wait(self) -> None:
        if time.monotonic() > self._until:
            raise PoolsError(
                "Within {0} tries there was no {1:g} s in which nobody was in the midst of writing.".format(self.tries, self._limit),
                "Let transactions that write for long end, or give more by fence_timeout.",
            )
        pause = time.monotonic() + _PAUSES[min(self.tries, len(_PAUSES)) - 1]
        while time.monotonic() < pause:
            self._go_on()
            time.sleep(0.1)


def marked(session: Any) -> str:
    """A place in the WAL behind all that was committed, and flushed."""
    execute(session, "SET synchronous_commit = on")
    execute(session, MARKER)
    return str(rows(session, "SELECT pg_current_wal_flush_lsn()::text AS lsn")[0]["lsn"])


def compared(here: Ends, params: Mapping[str, Any], told: Record, inside: Any, there: Any, listener: Optional[Listener], go_on: Check) -> Dict[str, Any]:
    """Compare all while it is followed; what is equal is kept in the record, with a slot that keeps what is changed from there on.

    :raises PoolsError: it could not be compared. Then it is followed on, without a proof.
    """
    slot = proof_slot_of(here.publisher.database)
    begun = time.monotonic()
    _forget(here, inside, told, slot)
    try:
        proof, problems, fence = _compare_all(here, params, told, inside, there, _beating(listener, begun, go_on))
    except BaseException:
        with contextlib.suppress(PoolsError, psycopg2.Error):
            _forget(here, inside, told, slot)
        raise
    if problems:
        _forget(here, inside, told, slot)
    else:
        # Each table's own checksum is told and not kept: the digest of all is.
        kept = {key: value for key, value in proof.items() if key != "tables"}
        _follow_link.write_record(inside, here.name, told._replace(proof=kept, target=_follow_catalog.fingerprint(there)))
    seconds = {"compare": round(time.monotonic() - begun, 3), "fence": round(fence.seconds, 3)}
    return {"problems": problems, "proof": proof, "seconds": seconds, "changed": not problems}


def _beating(listener: Optional[Listener], begun: float, go_on: Check) -> Check:
    def beat() -> None:
        go_on()
        if listener:
            listener({"phase": "comparing", "seconds": round(time.monotonic() - begun, 1)})

    return beat


def _forget(here: Ends, inside: Any, told: Record, slot: str) -> None:
    if told.proof:
        _follow_link.write_record(inside, here.name, told._replace(proof={}, target={}))
    _follow_link.drop_slots(inside, [slot])


def _compare_all(here: Ends, params: Mapping[str, Any], told: Record, inside: Any, there: Any, go_on: Check) -> Any:
    slot = proof_slot_of(here.publisher.database)

    def check() -> None:
        go_on()
        problem = given_up(_follow_catalog.status(inside, None, here.name, slot), params["wal_limit_bytes"])
        if problem:
            raise PoolsError(problem.problem, problem.remedy)

    with contextlib.ExitStack() as stack:
        locking = stack.enter_context(here.publisher.session())
        fence = Fence(here, locking, there, params["fence_timeout"], time.monotonic() + (params["timeout"] or _FENCE_SECONDS), check)
        work = _Work(here, inside, slot, fence, check)
        ours = sorted({"comment publication " + one.name for one in (here, here.swapped())})
        # On the way back only the publisher has them full.
        identity = ["table.replica identity"] if told.identities else []
        ignore = [*_MEANWHILE, *_SEQUENCES, *ours, *identity, *params["ignore"]]
        options = {"jobs": params["jobs"], "data": "checksum", "ignore": ignore, "max_differences": 20, "role_map": {}}
        found = _compare.compare(*logins(here), options, work.begin, work.correct, check)
        proof = dict(found["proof"], lsn=work.lsn)
        if not found["equal"]:
            return proof, [_unequal(found["differences"], found["difference_count"])], fence
        problems, proof["since"] = work.again()
    return proof, problems, fence


class _Work:
    """One comparison of a source that is written to all the time."""

    def __init__(self, here: Ends, inside: Any, slot: str, fence: Fence, check: Check) -> None:
        self._here = here
        self._inside = inside
        self._slot = slot
        self._fence = fence
        self._check = check
        # Behind all that either side showed when both were looked at.
        self.lsn = ""
        # Changed meanwhile, and of those what no key tells.
        self._changes = Changes()

    @contextlib.contextmanager
    def begin(self) -> Iterator[None]:
        _follow_link.copy_slot(self._inside, self._here.name, self._slot)
        time.sleep(_SETTLE_SECONDS)
        yield
        self.lsn = marked(self._inside)

    def correct(self, source: Compared, held: Content, target: Compared, copied: Content) -> None:
        """Take out of both sums what was changed about the time at which both were looked at."""
        with contextlib.closing(open_session(logins(self._here)[0])) as reading:
            changes = read_changes(reading, self._slot, self._here.name, self.lsn)
        described = _follow_rows.described(source.session, changes)
        method = _follow_rows.method(source.session, target.session)
        for side, content in ((source, held), (target, copied)):
            for name in changes.whole:
                content.tables.pop(described[name].quoted, None)
            for name, count, first, second in _follow_rows.sums(side.session, changes, described, method):
                content.tables[described[name].quoted].add(-count, -first, -second)

    def again(self) -> Any:
        """What was changed while all was compared: it would take its time at the switch. What differs may be on its way, and is looked at again."""
        problems: List[Problem] = []
        facts: Dict[str, Any] = {}
        for number in range(_ROUNDS):
            time.sleep(_SETTLE_SECONDS * number)
            problems, facts = self._once_more()
            if not problems:
                break
        return problems, facts

    def _once_more(self) -> Any:
        with contextlib.ExitStack() as stack:
            reading, *sides = (stack.enter_context(contextlib.closing(open_session(login))) for login in (logins(self._here)[0], *logins(self._here)))
            confirmed = _follow_catalog.confirmed(self._inside, self._here.name)
            time.sleep(_SETTLE_SECONDS)
            for side in sides:
                execute(side, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                execute(side, "SELECT pg_current_snapshot()")
            lsn = marked(self._inside)
            changes = read_changes(reading, self._slot, self._here.name, lsn, confirmed)
            problems, facts = _follow_rows.compare(sides[0], sides[1], changes.settled(), None, self._check)
            for name in sorted(changes.whole):
                problems += self._whole(name)
            if not problems:
                execute(reading, "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [self._slot, confirmed])
        return problems, dict(facts, whole_tables=len(changes.whole), lsn=confirmed)

    def _whole(self, name: Name) -> List[Problem]:
        self._check()
        with contextlib.ExitStack() as stack:
            sides = [stack.enter_context(contextlib.closing(open_session(login))) for login in logins(self._here)]
            with self._fence.around(name):
                for side in sides:
                    execute(side, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    execute(side, "SELECT pg_current_snapshot()")
            changes = Changes()
            changes.whole.add(name)
            return list(_follow_rows.compare(sides[0], sides[1], changes, None, self._check)[0])


def logins(here: Ends) -> Tuple[Login, Login]:
    return _login(here.publisher), _login(here.subscriber)


def _login(side: Side) -> Login:
    return Login(side.word, {key: value for key, value in side.login.items() if value not in (None, "")}, side.database, side.owner)


def _unequal(differences: Sequence[Mapping[str, Any]], count: int) -> Problem:
    shown = ", ".join("{kind} {name}: {what}".format(**one) for one in differences[:_SHOWN])
    return Problem("unequal", "Source and target differ in {0} things: {1}.".format(count, shown), "Begin anew.")


_PEEK = """
DECLARE changed NO SCROLL CURSOR FOR
SELECT data FROM pg_logical_slot_peek_binary_changes(%s, %s::pg_lsn, NULL, 'proto_version', '1', 'publication_names', %s)"""
_FETCH = "FETCH 2000 FROM changed"


def read_changes(session: Any, slot: str, publication: str, lsn: Optional[str] = None, fresh: Optional[str] = None) -> Changes:
    """All that the slot keeps, or up to *lsn*; it goes on keeping it. What was committed from *fresh* on is told apart."""
    changes = Changes(fresh)
    execute(session, "BEGIN")
    try:
        with session.cursor() as cursor:
            cursor.execute(_PEEK, [slot, lsn, publication])
            found = [b""]
            while found:
                cursor.execute(_FETCH)
                found = [bytes(data) for (data,) in cursor.fetchall()]
                for data in found:
                    changes.add(data)
    finally:
        execute(session, "ROLLBACK")
    return changes


def since(here: Ends) -> Changes:
    """What was changed since the proof on record; for a time at which nobody writes, and all that was committed is flushed."""
    with contextlib.closing(open_session(logins(here)[0])) as reading:
        return read_changes(reading, proof_slot_of(here.publisher.database), here.name)


def rest(here: Ends, told: Record, changes: Changes, redefined: bool, deadline: float, go_on: Check) -> Any:
    """At the switch, with all drained: that what was changed since the proof on record is equal. Problems, and the proof."""
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(contextlib.closing(open_session(login))) for login in logins(here)]
        problems, facts = _follow_rows.compare(sides[0], sides[1], changes, deadline, go_on)
        problems += _follow_rows.sequences(sides[0], sides[1])
    if redefined:
        problems.append(Problem("unequal", "Definitions on the target were changed since it was compared.", "Compare anew."))
    return problems, dict(told.proof, at_switch=dict(facts, seconds=round(time.monotonic() - begun, 3)))


def dressed(here: Ends, params: Mapping[str, Any], with_way_back: bool) -> List[Problem]:
    """What the end has set is as on the source: roles, grants on the database, its settings."""
    # The way back's own role may enter the new place.
    ours = ["role " + here.swapped().name, "database.acl"] if with_way_back else []
    options = {"jobs": 1, "data": _compare.DATABASE_ONLY, "ignore": [*ours, *params["ignore"]], "max_differences": 20, "role_map": {}}
    found = _compare.compare(*logins(here), options)
    return [] if found["equal"] else [_unequal(found["differences"], found["difference_count"])._replace(what="settings", remedy="Go back to the source.")]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a copy that follows its source is named, recorded and judged, as far as no server has to be asked. Pure.

*Publisher* is the side that is written to, *subscriber* the one that follows it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ._copy_plan import Problem

_PREFIX = "pools_follow_"
_MARK = "saasodoo.postgres_pools follow "
# An apply worker that fails is begun anew every 5 s: so many failures, or so long without one, are no restart of a server any more.
MOST_ERRORS = 12
MOST_IDLE_SECONDS = 120
_TLS_ASKED = ("require", "verify-ca", "verify-full")


def name_of(database: str) -> str:
    """Of the slot and the role on a publisher, the publication in its database and the subscription to it.

    A server has one database of a name, so it is no other's; and whoever cleans up after a run that died finds it without being told.
    """
    return _PREFIX + hashlib.sha256(database.encode("utf-8")).hexdigest()[:16]


def passing_slot_of(database: str) -> str:
    """The slot that lasts as long as the session that copies."""
    return name_of(database) + "_copy"


def proof_slot_of(database: str) -> str:
    """The slot that keeps what was changed since both were compared."""
    return name_of(database) + "_proof"


def own(problem: Problem, database: str) -> bool:
    """Whether what a copy finds in its way is there for one that follows this database: its slot, or the role that comes for it."""
    return problem.what in ("replication slot", "role") and name_of(database) in problem.problem


class Identity(NamedTuple):
    """What a table's replica identity was before it became FULL: ``d``, ``n`` or ``i`` as in pg_class, then with its index."""

    schema: str
    table: str
    before: str
    by_index: Optional[str] = None


class Record(NamedTuple):
    """What has to be known after the run that wrote it: the comment of the publication."""

    identities: Sequence[Identity] = ()
    # The schema as it was copied, by kinds of objects; empty until it was.
    fingerprint: Mapping[str, str] = {}
    # What both were compared by while one follows, and the target's schema then; empty until they were.
    proof: Mapping[str, Any] = {}
    target: Mapping[str, str] = {}

    def text(self) -> str:
        told: Dict[str, Any] = {"identities": [list(one) for one in self.identities], "fingerprint": dict(self.fingerprint)}
        told.update(proof=dict(self.proof), target=dict(self.target))
        return _MARK + json.dumps(told, sort_keys=True, separators=(",", ":"))


def record(comment: Optional[str]) -> Optional[Record]:
    """None for a publication that is not this collection's."""
    if not (comment or "").startswith(_MARK):
        return None
    try:
        told = json.loads(str(comment)[len(_MARK) :])
        found = [dict(told.get(key) or {}) for key in ("fingerprint", "proof", "target")]
        return Record([Identity(*one) for one in told["identities"]], *found)
    except (ValueError, KeyError, TypeError):
        return None


def role_mark(database: str) -> str:
    return _MARK + "role of " + database


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> List[str]:
    """The kinds of objects that somebody changed between two fingerprints."""
    return sorted(kind for kind in set(before) | set(now) if before.get(kind) != now.get(kind))


class Peer(NamedTuple):
    """How the subscriber's server reaches the publisher's."""

    host: str
    port: int
    database: str
    user: str
    password: str
    ssl_mode: str

    def conninfo(self) -> str:
        """With TLS asked for, the password's verifier proves the server to the client over the very channel: no file of certificates is
        needed on a server that is not ours to put files on."""
        words: Dict[str, Any] = {"host": self.host, "port": self.port, "dbname": self.database, "user": self.user, "password": self.password}
        words.update(sslmode="require" if self.ssl_mode in _TLS_ASKED else self.ssl_mode)
        if self.ssl_mode in _TLS_ASKED:
            words.update(channel_binding="require")
        words.update(connect_timeout=10, keepalives_idle=30, keepalives_interval=10, keepalives_count=6)
        return " ".join("{0}='{1}'".format(key, str(value).replace("\\", "\\\\").replace("'", "\\'")) for key, value in words.items())


class Status(NamedTuple):
    """How far the following is."""

    # None: there is no such slot.
    wal_status: Optional[str]
    lag_bytes: int = 0
    retained_bytes: int = 0
    errors: int = 0
    # Whether a worker of the subscriber's reads the slot just now.
    active: bool = False


def given_up(status: Status, limit: int, errors_before: int = 0, idle_seconds: float = 0) -> Optional[Problem]:
    """Why there is no more use in following, or it has become a danger to the server that keeps the WAL."""
    if status.wal_status is None:
        return Problem("slot", "The replication slot is gone.", "Begin anew.")
    if status.wal_status == "lost":
        told = "The server gave the replication slot up, since it kept more WAL than max_slot_wal_keep_size."
        return Problem("slot", told, "Begin anew when less is written, or raise that setting where there is room for it.")
    if status.retained_bytes > limit:
        told = "The source keeps {0} bytes of WAL for the target, more than the {1} that it may.".format(status.retained_bytes, limit)
        return Problem("retained WAL", told, "Begin anew when less is written, or raise wal_limit_bytes where there is room for it.")
    if status.errors - errors_before >= MOST_ERRORS:
        told = "The target failed {0} times to apply what the source sends.".format(status.errors - errors_before)
        return Problem("apply", told, "Its log says why; mend that, and begin anew.")
    if idle_seconds > MOST_IDLE_SECONDS:
        told = "The target has read nothing from the source for {0:.0f} s.".format(idle_seconds)
        return Problem("apply", told, "Its log says why, where its server runs; mend that, and begin anew.")
    return None

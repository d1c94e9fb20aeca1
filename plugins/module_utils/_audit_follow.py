# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows a database by logical replication on one server, against the moves and ways back that take it."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from . import _follow_link
from . import _tenant_plan as plan
from ._audit import finding
from ._audit_tenants import Drift

# Slots, roles and subscriptions are the server's; publications are found where the databases are entered anyway.
LISTED = """
SELECT 'slot', slot_name::text, database::text, coalesce(wal_status, 'lost'), active,
   coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE slot_name ~ '^pools_follow_' AND NOT temporary
UNION ALL SELECT 'role', rolname::text, '', '', true, 0 FROM pg_roles WHERE rolname ~ '^pools_follow_'
   AND starts_with(coalesce(shobj_description(oid, 'pg_authid'), ''), 'saasodoo.postgres_pools follow ')
UNION ALL SELECT 'subscription', s.subname::text, d.datname::text, '', s.subenabled, 0
FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE s.subname ~ '^pools_follow_' ORDER BY 1, 2, 3"""
PUBLICATIONS = "SELECT 'publication', pubname::text, current_database()::text, '', true, 0::bigint FROM pg_publication WHERE pubname ~ '^pools_follow_'"
KIND = "follow_left_over"
# Whoever applies comes back every few seconds also where it can go no further: that shows in what is kept for it.
_BEHIND_BYTES = 1 << 30
_SUFFIX = re.compile(r"_(copy|proof)\Z")


class Thing(NamedTuple):
    what: str
    name: str
    database: str
    status: str
    active: bool
    kept_bytes: int

    @property
    def of(self) -> str:
        """The name that all that belongs together has."""
        return _SUFFIX.sub("", self.name)


def left_over(server: str, things: Sequence[Thing], expected: Mapping[str, str]) -> List[Drift]:
    """What no move takes. *expected* says of each name what it is there for: ``move``, ``publisher`` or ``subscriber`` of a way back."""
    drifts = []
    for thing in things:
        if thing.of in expected:
            continue
        label = "{0} {1}".format(thing.what, thing.name) + (" in {0}".format(thing.database) if thing.database else "")
        found = "there, keeping {0} bytes of WAL".format(thing.kept_bytes) if thing.kept_bytes else "there"
        words = "{0} {1} dropped".format(thing.what, thing.name)
        step = plan.Step("follow", words, "", {"what": thing.what, "name": thing.name, "database": thing.database})
        drifts.append(Drift(finding(server, KIND, label, "no move that it is of", found), step))
    return drifts


def broken(server: str, things: Sequence[Thing], expected: Mapping[str, str]) -> List[Drift]:
    """Ways back that would not bring all the data back."""
    there: Dict[Tuple[str, str], Thing] = {(thing.what, thing.name): thing for thing in things}
    drifts = []
    for name, role in sorted(expected.items()):
        what = {"publisher": "slot", "subscriber": "subscription"}.get(role)
        thing = there.get((what or "", name))
        if what is None or (thing and thing.active and thing.status != "lost" and thing.kept_bytes < _BEHIND_BYTES):
            continue
        found = "no such {0}".format(what) if thing is None else "lost" if thing.status == "lost" else "behind" if thing.active else "not at work"
        if thing and thing.kept_bytes:
            found += ", keeping {0} bytes of WAL".format(thing.kept_bytes)
        drifts.append(Drift(finding(server, "way_back_broken", "{0} {1}".format(what, name), "at work until its move's time is over", found)))
    return drifts


def mend(server: Any, inside: Any, thing: Mapping[str, str]) -> None:
    """Take one of them away. *inside* opens a session in a database."""
    what, name = thing["what"], thing["name"]
    if what == "slot":
        _follow_link.drop_slots(server, [name])
    elif what == "role":
        with server.cursor() as cursor:
            cursor.execute(_follow_link.sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(_follow_link.sql.Identifier(name)))
    else:
        session = inside(thing["database"])
        try:
            (_follow_link.drop_publication if what == "publication" else _follow_link.drop_subscription)(session, name)
        finally:
            session.close()

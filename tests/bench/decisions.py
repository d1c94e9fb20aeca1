# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statements under measurement, as pgbench scripts."""

from __future__ import annotations

import re
from typing import Any, List, Mapping, Optional

import fleet
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _placement
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory

# Stand-ins in the recorded statements, and the pgbench variables put in their place. The first eight digits are also the end of the
# database's name, so they never come twice: a count within the client, spread by a factor that has no divisor in common with the modulus.
_INSTANCE, _CUSTOMER = "aaaaaaaa-0000-4000-8000-bbbbbbbbbbbb", "00000000-0000-4000-8000-cccccccccccc"
_VARIABLES = {"a" * 8: ":eight", "b" * 12: ":twelve", "c" * 12: ":customer"}
_NEW_IDS = r"""\set number :number + 1
\set eight 10000000 + (:client_id * 1000000 + :number) * 48271 % 89999999
\set twelve random(100000000000, 999999999999)
\set customer random(100000000000, 999999999999)
"""
_NEW_COUNTER = "\\set counter random(1, {servers})\n"

BARE = _NEW_COUNTER + """BEGIN;
UPDATE bare_counters SET taken = taken + 1 WHERE id = :counter;
INSERT INTO bare_places (counter) VALUES (:counter);
COMMIT;
"""
READ_THEN_INCREMENT = r"""SELECT coalesce(min(id), 0) AS counter FROM
    (SELECT id FROM bare_counters WHERE taken < places ORDER BY taken, id LIMIT 1) AS first \gset
\if :counter > 0
BEGIN;
UPDATE bare_counters SET taken = taken + 1 WHERE id = :counter;
INSERT INTO bare_places (counter) VALUES (:counter);
COMMIT;
\endif
"""


class _Recorder(Inventory):
    """Notes each statement as the driver sends it."""

    sent: List[str]

    def _note(self, statement: str, arguments: Optional[Mapping[str, Any]]) -> None:
        with self._connection.cursor() as cursor:
            self.sent.append(cursor.mogrify(statement, arguments).decode())

    def rows(self, statement: str, arguments: Optional[Mapping[str, Any]] = None) -> Any:
        self._note(statement, arguments)
        return super().rows(statement, arguments)

    def execute(self, statement: str, arguments: Optional[Mapping[str, Any]] = None) -> int:
        self._note(statement, arguments)
        return super().execute(statement, arguments)


def recorded_decision(registry: fleet.Fleet) -> List[str]:
    """What ``_placement.place`` sends for a new instance until its place is taken: a PREPARE, and its EXECUTE."""
    _Recorder.sent = []
    with _Recorder(registry.login()) as inventory:
        plan = inventory.plans()["standard"]
        _Recorder.sent.clear()
        request = _placement.Request(_INSTANCE, _CUSTOMER, "standard")
        _placement.place(inventory, fleet.new_cipher(), request, plan, _placement.Policy())
    registry.empty()
    last = next(number for number, statement in enumerate(_Recorder.sent) if statement.startswith("EXECUTE"))
    return _Recorder.sent[: last + 1]


def decision(registry: fleet.Fleet) -> str:
    """A script that does just that, each time for another instance; as in place(), a connection prepares once."""
    script = _NEW_IDS
    for statement in recorded_decision(registry):
        once = statement.startswith("PREPARE")
        script += "{0}{1};\n{2}".format("\\if :number = 1\n" if once else "", statement.strip(), "\\endif\n" if once else "")
    for stand_in, variable in _VARIABLES.items():
        # Before "_user" pgbench would take the name's end for a part of the variable's.
        script = re.sub(stand_in + "(?!_)", variable, script)
    return script


def bare(servers: int) -> str:
    return BARE.format(servers=servers)

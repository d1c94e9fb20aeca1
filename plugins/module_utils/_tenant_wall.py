# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wall between a server's tenants: what its pg_hba.conf must say, and who may enter its own databases. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from ._hba import BUS_ROLE
from ._tenant_plan import SERVER, Step

# Words of the database column that let nobody into a database of somebody else's.
_OWN_ONLY = frozenset(["samerole", "samegroup", "sameuser", "replication"])
_EVERYWHERE = frozenset(["0.0.0.0", "::"])


@dataclass(frozen=True)
class HbaRule:
    """A row of pg_hba_file_rules."""

    line: int
    kind: Optional[str]
    databases: Sequence[str]
    users: Sequence[str]
    address: Optional[str]
    netmask: Optional[str]
    method: Optional[str]
    error: Optional[str]


def wall_faults(rules: Sequence[HbaRule], sockets: bool) -> List[str]:
    """What is wrong with a pg_hba.conf, as the wall it should be; empty when it holds.

    :param sockets: whether the server listens on Unix sockets; without them ``local`` lines let nobody in.
    """
    faults = [f"line {rule.line} is not valid: {rule.error}" for rule in rules if rule.error]
    lets_in = False
    rejected: FrozenSet[str] = frozenset()
    for rule in rules:
        reached = sockets if rule.kind == "local" else not rejected >= _EVERYWHERE
        if rule.error or not reached:
            continue
        fault = _opening(rule)
        if rule.method == "reject":
            rejected |= _rejects_all(rule)
        elif fault:
            faults.append(f"line {rule.line} {fault}")
        elif rule.kind != "local" and "samerole" in rule.databases and "all" in rule.users:
            lets_in = True
    if not lets_in:
        faults.append("no line lets tenants in by 'host samerole all all scram-sha-256' before the reject")
    if not rejected >= _EVERYWHERE:
        faults.append("no line 'host all all all reject' follows")
    return faults


def _rejects_all(rule: HbaRule) -> FrozenSet[str]:
    if rule.kind != "host" or "all" not in rule.databases or "all" not in rule.users:
        return frozenset()
    if rule.address == "all":
        return _EVERYWHERE
    if rule.address in _EVERYWHERE and rule.netmask == rule.address:
        return frozenset([rule.address])
    return frozenset()


def _opening(rule: HbaRule) -> Optional[str]:
    # A slash begins a regular expression (PostgreSQL 16 and later), which might match any tenant.
    anybody = "all" in rule.users or any(user.startswith("/") for user in rule.users)
    if anybody and not set(rule.databases) <= _OWN_ONLY:
        return "lets any user into {}".format(", ".join(rule.databases))
    if "+" + BUS_ROLE in rule.users and not set(rule.databases) <= _OWN_ONLY | {"postgres"}:
        return "lets {} into {}".format(BUS_ROLE, ", ".join(rule.databases))
    if anybody and rule.method != "scram-sha-256":
        return f"lets users in by {rule.method}"
    return None


def plan_doors(public_databases: Sequence[str], bus: Optional[Mapping[str, Any]], bus_wanted: bool) -> List[Step]:
    """Steps to shut the server's own databases to PUBLIC and to have the bus role.

    :param public_databases: those among postgres and template1 that PUBLIC may enter or make temporary tables in.
    :param bus: the role as found (``login``, ``connects``), or None.
    :param bus_wanted: whether any tenant asks for the bus.
    """
    steps = []
    for name in public_databases:
        sql = "REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"
        words = f"database {name}: closed to PUBLIC"
        steps.append(Step(SERVER, words, sql, {"database": name}, before="open to PUBLIC", after="closed"))
    names = {"bus": BUS_ROLE, "database": "postgres"}
    if bus is None:
        steps.append(Step(SERVER, f"role {BUS_ROLE} made", "CREATE ROLE {bus} NOLOGIN", names, after="NOLOGIN"))
    elif bus["login"]:
        steps.append(
            Step(SERVER, f"role {BUS_ROLE} closed", "ALTER ROLE {bus} NOLOGIN", names, before="LOGIN", after="NOLOGIN")
        )
    if bus_wanted and not (bus and bus["connects"]):
        words = f"role {BUS_ROLE}: may connect to postgres"
        steps.append(
            Step(SERVER, words, "GRANT CONNECT ON DATABASE {database} TO {bus}", names, before=False, after=True)
        )
    return steps


def hba_rule(row: Tuple[Any, ...]) -> HbaRule:
    line, kind, databases, users, address, netmask, method, error = row
    return HbaRule(line, kind, databases or (), users or (), address, netmask, method, error)

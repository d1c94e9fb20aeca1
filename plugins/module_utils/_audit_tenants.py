# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's database and roles as found against the steps that would make them as wanted: each step is a finding. Pure.

The steps are those of _tenant_plan and _tenant_wall, so that the audit and the making of a tenant cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Collection, List, Mapping, Optional, Sequence, Tuple

from . import _tenant_plan as plan
from ._audit import KINDS, Finding, finding
from ._errors import PoolsError
from ._hba import BUS_ROLE
from ._tenant import Database, Found, Wanted

# The kind of finding that a step stands for, by how its statement begins, and whose name it is about.
_KINDS: Tuple[Tuple[str, str, str], ...] = (
    ("CREATE ROLE {gate} ", "wall_role_missing", "gate"),
    ("ALTER ROLE {gate} NOLOGIN", "role_attributes", "gate"),
    ("CREATE ROLE {owner} ", "row_without_role", "owner"),
    ("ALTER ROLE {owner} LOGIN", "role_attributes", "owner"),
    ("ALTER ROLE {owner} NOLOGIN", "quarantine_open", "owner"),
    ("ALTER ROLE {owner} CONNECTION LIMIT", "connection_limit", "owner"),
    ("ALTER ROLE {owner} PASSWORD", "password", "owner"),
    ("ALTER ROLE {owner} SET temp_file_limit", "role_setting", "owner"),
    ("GRANT {gate} TO {owner}", "wall_membership", "owner"),
    ("REVOKE ADMIN OPTION FOR {gate} FROM {owner}", "wall_membership", "owner"),
    ("REVOKE {gate} FROM {stranger}", "wall_membership", "stranger"),
    ("GRANT {bus} TO {owner}", "bus_membership", "owner"),
    ("REVOKE {bus} FROM {owner}", "bus_membership", "owner"),
    ("CREATE DATABASE {database} ", "row_without_database", "database"),
    ("CREATE EXTENSION IF NOT EXISTS {extension} ", "extension_missing", "extension"),
    ("ALTER FUNCTION {schema}.unaccent", "extension_function", "schema"),
    ("REVOKE ALL ON DATABASE {database} FROM PUBLIC", "database_open", "database"),
    ("GRANT ALL ON DATABASE {database} TO {owner}", "owner_privileges", "database"),
    ("ALTER DATABASE {database} WITH IS_TEMPLATE false", "database_template", "database"),
    ("ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true", "database_closed", "database"),
    ("ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false", "quarantine_open", "database"),
    # Of a server as a whole
    ("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC", "own_database_open", "database"),
    ("CREATE ROLE {bus} ", "bus_role", "bus"),
    ("ALTER ROLE {bus} NOLOGIN", "bus_role", "bus"),
    ("GRANT CONNECT ON DATABASE {database} TO {bus}", "bus_role", "bus"),
    # Of the audit alone
    ("REVOKE {group} FROM {member}", "foreign_membership", "member"),
    ("ALTER ROLE {owner} IN DATABASE {database} RESET temp_file_limit", "role_setting", "owner"),
)
_SERVER_WIDE = ("gate", "owner", "database", "bus", "member")
_NEEDS_OWNER = ("{owner} SET", "TO {owner}", "FROM {owner}")


@dataclass(frozen=True)
class Drift:
    """A finding, and the step that mends it where that is safe."""

    finding: Finding
    step: Optional[plan.Step] = None

    @property
    def mendable(self) -> bool:
        return self.step is not None and bool(self.finding["safe_to_repair"])


@dataclass(frozen=True)
class Tenant:
    """An allocation as the audit needs it: what is wanted, the next password of a rotation that was begun, and whether it is in quarantine.

    ``unreadable`` says why its password is not known; then ``wanted`` holds one that nobody has.
    """

    wanted: Wanted
    next_password: str = ""
    quarantined: bool = False
    unreadable: str = ""

    @property
    def names(self) -> Tuple[str, ...]:
        if self.quarantined:
            return (str(self.wanted.quarantine_name), self.wanted.quarantine_owner)
        return (self.wanted.name, self.wanted.owner)


def drift_of(server: str, step: plan.Step, where: str = "") -> Drift:
    """The finding that *step* stands for.

    :raises ValueError: a step that nobody has named a kind for.
    """
    for begins, kind, whose in _KINDS:
        if step.sql.startswith(begins):
            # An extension or a stranger can be on any database of the server.
            thing = step.names[whose] if whose in _SERVER_WIDE else "{0}: {1}".format(where, step.names[whose])
            if kind == "password":
                # Not even which part differs: a verifier is next to it.
                return Drift(finding(server, kind, thing, "the password in the inventory database", "another"))
            expected, found = _told(step)
            return Drift(finding(server, kind, thing, expected, found), step if KINDS[kind].safe else None)
    raise ValueError("no kind of finding is known for: {0}".format(step.sql))


def _told(step: plan.Step) -> Tuple[Any, Any]:
    expected = step.after if step.after is not None else step.words
    return expected, step.before if step.before is not None else "not so"


def live(server: str, tenant: Tenant, found: Found, inside: Callable[[], Mapping[str, Any]]) -> List[Drift]:
    """What differs for an allocation in use.

    :param inside: reads the extensions of its database; only called where there is one that can be entered.
    """
    wanted = tenant.wanted
    owner, database = found.roles.get(wanted.owner), found.databases.get(wanted.name)
    foreign = _foreign(server, wanted, found)
    if foreign:
        return foreign
    if tenant.next_password and owner and _matches(wanted, found, tenant.next_password):
        # The server has taken the new password, and the inventory database has not been told yet.
        wanted = replace(wanted, password=tenant.next_password)
        begun = [Drift(finding(server, "password_rotation", wanted.owner, "one password", "the next one already"))]
    elif tenant.unreadable:
        begun = [Drift(finding(server, "password_unreadable", wanted.owner, "a password that a key given here opens", tenant.unreadable))]
    else:
        begun = []
    try:
        steps = plan.plan_roles(wanted, found)
        if database is None:
            steps += [step for step in plan.plan_database(wanted, found) if step.words]
    except PoolsError as error:
        return [*begun, Drift(finding(server, "database_locale", wanted.name, "as it was made", error.problem))]
    if tenant.unreadable:
        steps = [step for step in steps if not step.sql.startswith("ALTER ROLE {owner} PASSWORD")]
    if owner is None:
        steps = [step for step in steps if not any(part in step.sql for part in _NEEDS_OWNER) or "CREATE" in step.sql]
    if database is not None:
        if database.allows_connections:
            database = replace(database, **inside())
            steps += _without_echo(plan.plan_inside(wanted, database))
        steps += plan.plan_opening(wanted, database)
    return begun + [drift_of(server, step, wanted.name) for step in steps] + _foreign_memberships(server, wanted, found)


def _without_echo(steps: List[plan.Step]) -> List[plan.Step]:
    """An extension that is missing is one finding, not a second one for what would be done to its function."""
    if any(step.names.get("extension") == "unaccent" for step in steps):
        return [step for step in steps if not step.sql.startswith("ALTER FUNCTION")]
    return steps


def _foreign(server: str, wanted: Wanted, found: Found) -> List[Drift]:
    """What is in the way of everything else: somebody else's role or database under the tenant's name."""
    drifts = []
    for name, mark in ((wanted.name, plan.gate_mark(wanted.name)), (wanted.owner, plan.owner_mark(wanted.name))):
        role = found.roles.get(name)
        if role and role.mark != mark:
            drifts.append(Drift(finding(server, "foreign_role", name, mark, role.mark or "no mark")))
    database: Optional[Database] = found.databases.get(wanted.name)
    if database and database.owner != wanted.owner:
        drifts.append(Drift(finding(server, "wrong_owner", wanted.name, wanted.owner, database.owner)))
        if wanted.owner not in found.roles:
            drifts.append(Drift(finding(server, "row_without_role", wanted.owner, "LOGIN", "no such role")))
    return drifts


def _matches(wanted: Wanted, found: Found, password: str) -> bool:
    steps = plan.plan_roles(replace(wanted, password=password), found)
    return not any(step.sql.startswith("ALTER ROLE {owner} PASSWORD") for step in steps)


def _foreign_memberships(server: str, wanted: Wanted, found: Found) -> List[Drift]:
    """Memberships beside the wall's own and the bus: of the tenant's roles in others, and of others in its role."""
    gate, owner = found.roles.get(wanted.name), found.roles.get(wanted.owner)
    pairs = []
    if gate:
        pairs += [(group, wanted.name) for group in gate.member_of]
    if owner:
        pairs += [(group, wanted.owner) for group in owner.member_of if group not in (wanted.name, BUS_ROLE)]
        pairs += [(wanted.owner, member) for member in owner.members]
    drifts = []
    for group, member in sorted(pairs):
        words = "role {0}: no more member of {1}".format(member, group)
        step = plan.Step(plan.SERVER, words, "REVOKE {group} FROM {member}", {"group": group, "member": member})
        drifts.append(Drift(finding(server, "foreign_membership", member, "no member of " + group, "member of " + group), step))
    return drifts


def quarantined(server: str, tenant: Tenant, found: Found, claimed: Collection[str]) -> List[Drift]:
    """What differs for a released database that is kept.

    :param claimed: names of allocations in use: the instance may have come back, under the name it had before.
    """
    wanted = tenant.wanted
    parked = str(wanted.quarantine_name)
    if parked not in found.databases:
        if wanted.name in found.databases and wanted.name not in claimed:
            return [Drift(finding(server, "quarantine_undone", wanted.name, parked, wanted.name))]
        return [Drift(finding(server, "quarantine_missing", parked, "kept until its time", "no such database"))]
    own = Found(
        {name: role for name, role in found.roles.items() if name in tenant.names},
        {name: database for name, database in found.databases.items() if name in tenant.names},
    )
    try:
        steps = plan.plan_quarantine(wanted, own)
    except PoolsError as error:
        return [Drift(finding(server, "quarantine_undone", parked, "the released database", error.problem))]
    return [drift_of(server, step, parked) for step in steps if step.words]


def unknown(
    server: str, tenants: Sequence[Tenant], optional: Sequence[str], databases: Sequence[str], roles: Sequence[str], admin: str
) -> List[Drift]:
    """Databases and roles that no row speaks of.

    :param optional: names that may be there: of reservations, of releases under way and of moves.
    """
    known = {name for tenant in tenants for name in tenant.names} | set(optional)
    # A quarantine that was undone is told as such.
    known |= {name for tenant in tenants if tenant.quarantined for name in (tenant.wanted.name, tenant.wanted.owner)}
    drifts = [
        Drift(finding(server, "database_without_row", name, "no such database", "there"))
        for name in sorted(set(databases) - known)
    ]
    drifts += [
        Drift(finding(server, "role_without_row", name, "no such role", "there"))
        for name in sorted(set(roles) - known - {admin, BUS_ROLE})
    ]
    return drifts

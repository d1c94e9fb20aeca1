# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps from a tenant database as found to one as wanted. Pure: it reads nothing and does nothing.

Roles come first, closed doors before open ones, and what makes a database usable comes last, so that a run that dies
between any two steps leaves something that nobody can enter and that the next run recognises as its own: both roles
bear a mark (their comment), made in the same transaction as they are, and the database belongs to the marked owner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional

from . import _scram
from ._errors import PoolsError
from ._follow_plan import name_of
from ._hba import BUS_ROLE
from ._tenant import INVALID_DATABASE, Database, Found, Role, Wanted

# Where a step runs: on the server (several together are one transaction), on the server outside any transaction,
# or inside the tenant's database.
SERVER, ALONE, INSIDE = "server", "alone", "inside"

_PLAIN = "INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_GATE_ATTRIBUTES = frozenset(["NOLOGIN", *_PLAIN.split()])
_OWNER_ATTRIBUTES = frozenset(["LOGIN", *_PLAIN.split()])
_DATABASE_PRIVILEGES = frozenset(["CONNECT", "CREATE", "TEMPORARY"])


@dataclass(frozen=True)
class Step:
    """One thing to do: *words* for the reader (empty: not worth telling), *sql* with {placeholders}."""

    where: str
    words: str
    sql: str
    names: Mapping[str, str] = field(default_factory=dict)
    # Not shown when a Step is: a verifier may be among them.
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    before: Any = None
    after: Any = None


def gate_mark(name: str, was: str = "") -> str:
    return f"saasodoo.postgres_pools gate of {name}" + (f", was {was}" if was else "")


def owner_mark(name: str, was: str = "") -> str:
    return f"saasodoo.postgres_pools owner of {name}" + (f", was {was}" if was else "")


def _refuse_foreign(found: Found, name: str, owner: str, was: str = "") -> None:
    for role, mark in ((name, gate_mark(name, was)), (owner, owner_mark(name, was))):
        there = found.roles.get(role)
        if there and there.mark != mark:
            raise PoolsError(
                f"Role {role!r} is there already and was not made for database {name!r}: it is marked {there.mark!r}.",
                f"Choose another name, or, if it is this tenant's, give the role the comment {mark!r}.",
            )
    database = found.databases.get(name)
    if database and (database.owner != owner or owner not in found.roles):
        raise PoolsError(
            f"Database {name!r} is there already and belongs to {database.owner!r}, not to {owner!r}.",
            "Choose another name; a database that is not the tenant's is never taken over or dropped.",
        )


def _refuse_invalid(database: Optional[Database]) -> None:
    if database and database.connection_limit == INVALID_DATABASE:
        raise PoolsError(
            f"Database {database.name!r} is the rest of an interrupted DROP DATABASE.",
            "Run this with state=absent to finish the drop.",
        )


def plan_roles(wanted: Wanted, found: Found) -> List[Step]:
    """First part of ``present``: both roles as they should be, the limits and the gate's members.

    :raises PoolsError: a role or the database of that name is somebody else's, or cannot be mended.
    """
    _refuse_foreign(found, wanted.name, wanted.owner)
    database = found.databases.get(wanted.name)
    _refuse_invalid(database)
    if database:
        _refuse_locale(wanted, database)
    names = {"gate": wanted.name, "owner": wanted.owner, "bus": BUS_ROLE}
    gate, owner = found.roles.get(wanted.name), found.roles.get(wanted.owner)
    steps = _plan_gate(wanted, gate, names) + _plan_owner(wanted, owner, names)
    steps += _plan_members(wanted, gate, owner, names)
    return steps


def _plan_gate(wanted: Wanted, gate: Optional[Role], names: Dict[str, str]) -> List[Step]:
    if gate is None:
        values = {"mark": gate_mark(wanted.name)}
        sql = "CREATE ROLE {gate} NOLOGIN " + _PLAIN + "; COMMENT ON ROLE {gate} IS {mark}"
        return [Step(SERVER, f"role {wanted.name} made", sql, names, values, None, "NOLOGIN")]
    if gate.attributes != _GATE_ATTRIBUTES:
        return [
            Step(
                SERVER,
                f"role {wanted.name} closed",
                "ALTER ROLE {gate} NOLOGIN " + _PLAIN,
                names,
                before=sorted(gate.attributes - _GATE_ATTRIBUTES),
                after=sorted(_GATE_ATTRIBUTES - gate.attributes),
            )
        ]
    return []


def _plan_owner(wanted: Wanted, owner: Optional[Role], names: Dict[str, str]) -> List[Step]:
    name, limit = wanted.owner, wanted.connection_limit
    steps = []
    if owner is None:
        sql = (
            "CREATE ROLE {owner} LOGIN "
            + _PLAIN
            + " CONNECTION LIMIT {limit} PASSWORD {verifier}; COMMENT ON ROLE {owner} IS {mark}"
        )
        values = {"limit": limit, "verifier": _scram.verifier(wanted.password), "mark": owner_mark(wanted.name)}
        steps.append(Step(SERVER, f"role {name} made", sql, names, values, None, {"connection_limit": limit}))
    else:
        if owner.attributes != _OWNER_ATTRIBUTES:
            lost, gained = sorted(owner.attributes - _OWNER_ATTRIBUTES), sorted(_OWNER_ATTRIBUTES - owner.attributes)
            steps.append(
                Step(
                    SERVER,
                    "role {}: {}".format(name, " ".join(gained)),
                    "ALTER ROLE {owner} LOGIN " + _PLAIN,
                    names,
                    before=lost,
                    after=gained,
                )
            )
        if owner.connection_limit != limit:
            sql = "ALTER ROLE {owner} CONNECTION LIMIT {limit}"
            words = f"role {name}: connection limit {limit}"
            steps.append(Step(SERVER, words, sql, names, {"limit": limit}, owner.connection_limit, limit))
        if not _scram.matches(owner.verifier, wanted.password):
            values = {"verifier": _scram.verifier(wanted.password)}
            words = f"role {name}: password set"
            steps.append(
                Step(SERVER, words, "ALTER ROLE {owner} PASSWORD {verifier}", names, values, "another", "the one given")
            )
    if wanted.temp_file_limit is not None:
        setting = "-1" if wanted.temp_file_limit == -1 else f"{wanted.temp_file_limit}kB"
        there = owner.settings.get("temp_file_limit") if owner else None
        if there != setting:
            words = f"role {name}: temp_file_limit {setting}"
            steps.append(
                Step(
                    SERVER,
                    words,
                    "ALTER ROLE {owner} SET temp_file_limit = {setting}",
                    names,
                    {"setting": setting},
                    there,
                    setting,
                )
            )
    return steps


def _plan_members(wanted: Wanted, gate: Optional[Role], owner: Optional[Role], names: Dict[str, str]) -> List[Step]:
    steps = []
    members = gate.members if gate else {}
    if wanted.owner not in members:
        words = f"role {wanted.owner}: let through {wanted.name}"
        steps.append(Step(SERVER, words, "GRANT {gate} TO {owner}", names, after=[wanted.owner]))
    elif members[wanted.owner]:
        # With it the owner could let other tenants through its gate.
        words = f"role {wanted.owner}: admin option on {wanted.name} taken away"
        steps.append(Step(SERVER, words, "REVOKE ADMIN OPTION FOR {gate} FROM {owner}", names, before="admin option"))
    # Whoever follows this database logs in as a role of that name, as long as it does.
    for stranger in sorted(set(members) - {wanted.owner, name_of(wanted.name)}):
        words = f"role {stranger}: no more let through {wanted.name}"
        steps.append(
            Step(SERVER, words, "REVOKE {gate} FROM {stranger}", dict(names, stranger=stranger), before=stranger)
        )
    on_bus = bool(owner and BUS_ROLE in owner.member_of)
    if wanted.bus and not on_bus:
        words = f"role {wanted.owner}: member of {BUS_ROLE}"
        steps.append(Step(SERVER, words, "GRANT {bus} TO {owner}", names, before=False, after=True))
    elif on_bus and not wanted.bus:
        steps.append(_leave_bus(wanted.owner, names))
    return steps


def _leave_bus(owner: str, names: Mapping[str, str]) -> Step:
    words = f"role {owner}: no more member of {BUS_ROLE}"
    return Step(SERVER, words, "REVOKE {bus} FROM {owner}", dict(names, bus=BUS_ROLE), before=True, after=False)


def _refuse_locale(wanted: Wanted, database: Database) -> None:
    pairs = (
        ("encoding", database.encoding, wanted.encoding),
        ("lc_collate", database.lc_collate, wanted.lc_collate),
        ("lc_ctype", database.lc_ctype, wanted.lc_ctype),
        ("locale provider", database.provider, "libc"),
    )
    for what, there, asked in pairs:
        if there.lower().replace("-", "") != asked.lower().replace("-", ""):
            raise PoolsError(
                f"Database {wanted.name!r} has {what} {there}, not {asked}, which cannot be changed.",
                "Ask for what it has, or move the tenant to a new database.",
            )


def plan_database(wanted: Wanted, found: Found) -> List[Step]:
    """Second part of ``present``: the database itself, still closed to all but the administrator."""
    names = {"database": wanted.name, "owner": wanted.owner}
    database = found.databases.get(wanted.name)
    if database is None:
        # Nobody but a superuser passes a connection limit of 0, and the owner cannot lift it from outside.
        sql = (
            "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING {encoding} LOCALE_PROVIDER libc"
            " LC_COLLATE {collate} LC_CTYPE {ctype} CONNECTION LIMIT 0"
        )
        values = {"encoding": wanted.encoding, "collate": wanted.lc_collate, "ctype": wanted.lc_ctype}
        after = {
            "owner": wanted.owner,
            "encoding": wanted.encoding,
            "lc_collate": wanted.lc_collate,
            "lc_ctype": wanted.lc_ctype,
        }
        return [Step(ALONE, f"database {wanted.name} made", sql, names, values, None, after)]
    if not database.allows_connections:
        # Closed by an interrupted quarantine: the administrator must look inside before it is opened.
        return [Step(SERVER, "", "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0", names)]
    return []


def plan_inside(wanted: Wanted, database: Optional[Database]) -> List[Step]:
    """Third part of ``present``: the extensions. *database* is None for one that is yet to be made."""
    there = database.extensions if database and database.extensions is not None else frozenset()
    mutable = list(database.mutable_unaccent or ()) if database else []
    steps = []
    for extension in wanted.extensions:
        if extension not in there:
            names = {"extension": extension}
            words = f"extension {extension} made"
            steps.append(
                Step(INSIDE, words, "CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA public", names, after=extension)
            )
            if extension == "unaccent":
                mutable.append("public")
    if "unaccent" in wanted.extensions:
        for schema in mutable:
            # Odoo indexes on it, PostgreSQL takes only immutable functions there, and no tenant may alter this one.
            sql = "ALTER FUNCTION {schema}.unaccent(text) IMMUTABLE"
            steps.append(
                Step(INSIDE, "unaccent made immutable", sql, {"schema": schema}, before="stable", after="immutable")
            )
    return steps


def plan_opening(wanted: Wanted, database: Optional[Database]) -> List[Step]:
    """Last part of ``present``: nobody's but the owner's, and open."""
    names = {"database": wanted.name, "owner": wanted.owner}
    steps = []
    if database is None or database.open_to_public:
        words = f"database {wanted.name}: closed to PUBLIC"
        steps.append(
            Step(
                SERVER,
                words,
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
                names,
                before="open to PUBLIC",
                after="closed",
            )
        )
    if database is not None and not database.owner_privileges >= _DATABASE_PRIVILEGES:
        words = f"database {wanted.name}: owner's privileges given back"
        before, after = sorted(database.owner_privileges), sorted(_DATABASE_PRIVILEGES)
        steps.append(
            Step(SERVER, words, "GRANT ALL ON DATABASE {database} TO {owner}", names, before=before, after=after)
        )
    if database is not None and database.is_template:
        words = f"database {wanted.name}: no template"
        steps.append(
            Step(SERVER, words, "ALTER DATABASE {database} WITH IS_TEMPLATE false", names, before=True, after=False)
        )
    if database is None or database.connection_limit != -1 or not database.allows_connections:
        sql = "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT -1"
        steps.append(
            Step(SERVER, f"database {wanted.name}: opened to its owner", sql, names, before="closed", after="open")
        )
    return steps


def _close(name: str, owner: str, found: Found, follows: bool = False) -> List[Step]:
    database = found.databases.get(name)
    steps = _shut_out(owner, found)
    if follows:
        # Whoever applies what the new place tells of is a superuser, whom no limit keeps out; everybody else it does.
        if database and (database.connection_limit != 0 or not database.allows_connections):
            sql = "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0"
            steps.append(Step(SERVER, f"database {name}: closed to all but its follower", sql, {"database": name}, before="open", after="closed"))
    elif database and database.allows_connections:
        sql = "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false"
        steps.append(Step(SERVER, f"database {name}: closed", sql, {"database": name}, before="open", after="closed"))
    return steps


def _shut_out(owner: str, found: Found) -> List[Step]:
    names = {"owner": owner}
    role = found.roles.get(owner)
    steps = []
    if role and ("LOGIN" in role.attributes or role.connection_limit != 0):
        words = f"role {owner}: cannot log in any more"
        steps.append(
            Step(SERVER, words, "ALTER ROLE {owner} NOLOGIN CONNECTION LIMIT 0", names, before="LOGIN", after="NOLOGIN")
        )
    if role and BUS_ROLE in role.member_of:
        steps.append(_leave_bus(owner, names))
    return steps


def _end_sessions(name: str, owner: str, followers: bool = True) -> Step:
    # The owner may also sit in the database postgres, on the bus. 5000 ms each, so that what follows finds them gone.
    sql = (
        "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity"
        " WHERE (datname = {database} OR usename = {owner}) AND pid <> pg_catalog.pg_backend_pid()"
    )
    if not followers:
        # Who follows the database has to see its last commit, and writes nothing.
        sql += " AND backend_type <> 'walsender'"
    return Step(ALONE, "", sql, values={"database": name, "owner": owner})


def plan_closing(wanted: Wanted, found: Found) -> List[Step]:
    """Steps to ``closed``: the owner cannot log in and its sessions are ended, while the administrator can still read everything.

    :raises PoolsError: it is somebody else's.
    """
    _refuse_foreign(found, wanted.name, wanted.owner)
    if wanted.owner not in found.roles:
        return []
    end = _end_sessions(wanted.name, wanted.owner, followers=False)
    # A login that was let in just before the role was closed may not be seen among the sessions yet.
    return [*_shut_out(wanted.owner, found), end, Step(ALONE, "", "SELECT pg_catalog.pg_sleep(0.2)"), end]


def plan_return(wanted: Wanted, found: Found) -> List[Step]:
    """First part of ``restored``: out of quarantine, in one transaction, still closed; ``present`` opens it.

    :raises PoolsError: it is somebody else's, or its name has been taken since.
    """
    parked_name, parked_owner = str(wanted.quarantine_name), wanted.quarantine_owner
    if parked_name not in found.databases:
        if wanted.name in found.databases:
            return []
        raise PoolsError(f"There is no database {parked_name!r}, nor {wanted.name!r}.", "It was dropped; restore it from a backup.")
    _refuse_foreign(found, parked_name, parked_owner, was=wanted.name)
    taken = [name for name in (wanted.name, wanted.owner) if name in found.roles or name in found.databases]
    if taken:
        raise PoolsError(f"{taken[0]!r} is there already, so {parked_name!r} cannot be called that again.", "Look whose it is.")
    names = {"name": wanted.name, "owner": wanted.owner, "parked": parked_name, "parked_owner": parked_owner}
    values = {"gate_mark": gate_mark(wanted.name), "owner_mark": owner_mark(wanted.name)}
    sql = (
        "ALTER DATABASE {parked} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0; ALTER DATABASE {parked} RENAME TO {name};"
        " ALTER ROLE {parked} RENAME TO {name}; COMMENT ON ROLE {name} IS {gate_mark};"
        " ALTER ROLE {parked_owner} RENAME TO {owner}; COMMENT ON ROLE {owner} IS {owner_mark}"
    )
    words = f"database {parked_name} and its roles renamed to {wanted.name}"
    return [_end_sessions(parked_name, parked_owner), Step(SERVER, words, sql, names, values, before=parked_name, after=wanted.name)]


def plan_quarantine(wanted: Wanted, found: Found) -> List[Step]:
    """Steps to ``quarantined``: closed first, sessions ended, then database and both roles renamed in one transaction.

    :raises PoolsError: one of them is somebody else's, or the quarantine's name is taken.
    """
    parked_name, parked_owner = str(wanted.quarantine_name), wanted.quarantine_owner
    live = [name for name in (wanted.name, wanted.owner) if name in found.roles] + [
        n for n in (wanted.name,) if n in found.databases
    ]
    parked = [n for n in (parked_name, parked_owner) if n in found.roles] + [
        n for n in (parked_name,) if n in found.databases
    ]
    if parked:
        _refuse_foreign(found, parked_name, parked_owner, was=wanted.name)
    if live:
        _refuse_foreign(found, wanted.name, wanted.owner)
        _refuse_invalid(found.databases.get(wanted.name))
        if parked:
            raise PoolsError(
                f"Database {wanted.name!r} cannot go into quarantine as {parked_name!r}: that is there already.",
                "Give another quarantine_name, or drop the older one with state=absent.",
            )
    if not live:
        return _close(parked_name, parked_owner, found, wanted.follows)
    values = {"gate_mark": gate_mark(parked_name, wanted.name), "owner_mark": owner_mark(parked_name, wanted.name)}
    names = {"name": wanted.name, "owner": wanted.owner, "parked": parked_name, "parked_owner": parked_owner}
    parts = []
    if wanted.name in found.databases:
        parts.append("ALTER DATABASE {name} RENAME TO {parked}")
    if wanted.name in found.roles:
        parts.append("ALTER ROLE {name} RENAME TO {parked}; COMMENT ON ROLE {parked} IS {gate_mark}")
    if wanted.owner in found.roles:
        parts.append("ALTER ROLE {owner} RENAME TO {parked_owner}; COMMENT ON ROLE {parked_owner} IS {owner_mark}")
    words = f"database {wanted.name} and its roles renamed to {parked_name}"
    rename = Step(SERVER, words, "; ".join(parts), names, values, before=wanted.name, after=parked_name)
    return [*_close(wanted.name, wanted.owner, found, wanted.follows), _end_sessions(wanted.name, wanted.owner), rename]


def plan_absence(wanted: Wanted, found: Found) -> List[Step]:
    """Steps to ``absent``: the quarantined database if ``quarantine_name`` is given, else the live one; never both.

    :raises PoolsError: it is somebody else's.
    """
    if wanted.quarantine_name:
        name, owner = wanted.quarantine_name, wanted.quarantine_owner
        _refuse_foreign(found, name, owner, was=wanted.name)
    else:
        name, owner = wanted.name, wanted.owner
        _refuse_foreign(found, name, owner)
    names = {"database": name}
    database = found.databases.get(name)
    roles = [role for role in (owner, name) if role in found.roles]
    steps = []
    if database and database.is_template:
        steps.append(Step(SERVER, "", "ALTER DATABASE {database} WITH IS_TEMPLATE false", names))
    if database or roles:
        steps.append(_end_sessions(name, owner))
    if database:
        words = f"database {name} dropped"
        steps.append(Step(ALONE, words, "DROP DATABASE IF EXISTS {database} WITH (FORCE)", names, before=name))
    for role in roles:
        # A member of the bus may have made large objects in the database postgres, which would hold its role back.
        sql = "DROP OWNED BY {role}; DROP ROLE {role}"
        steps.append(Step(SERVER, f"role {role} dropped", sql, {"role": role}, before=role))
    return steps

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant database as it is wanted, and as it is found. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

from ._errors import PoolsError
from ._hba import BUS_ROLE
from ._names import MAX_IDENTIFIER_BYTES
from ._scram import check_password

# What an owner's name is when none is given; also that of a quarantined database's owner.
OWNER_SUFFIX = "_user"
# Odoo wants both; see its --unaccent option and its trigram indexes.
EXTENSIONS: Dict[str, Tuple[str, ...]] = {"odoo": ("pg_trgm", "unaccent"), "plain": ()}
STATES = ("present", "closed", "quarantined", "restored", "absent")
# Those that end with a database in use.
IN_USE = ("present", "restored")
# Names that are PostgreSQL's own, words of pg_hba.conf that mean something else there, or this collection's.
RESERVED = frozenset(
    [
        "postgres",
        "template0",
        "template1",
        "public",
        "none",
        "all",
        "sameuser",
        "samerole",
        "samegroup",
        "replication",
        BUS_ROLE,
    ]
)
_SIZE = re.compile(r"^([0-9]+) ?(B|kB|MB|GB|TB)?\Z")
_UNITS = {None: 1, "B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
# temp_file_limit is a 32-bit number of kB.
_MAX_TEMP_KB = 2**31 - 1
# pg_database.datconnlimit of a database whose DROP was interrupted (PostgreSQL 15.4 and later).
INVALID_DATABASE = -2


@dataclass(frozen=True)
class Wanted:
    """One tenant database as the caller wants it. ``temp_file_limit`` is in kB, -1 for none, None for as it is."""

    name: str
    owner: str
    password: str = field(default="", repr=False)
    profile: str = "odoo"
    connection_limit: int = 20
    temp_file_limit: Optional[int] = None
    bus: bool = False
    lc_collate: str = "C"
    lc_ctype: str = "C.UTF-8"
    encoding: str = "UTF8"
    quarantine_name: Optional[str] = None
    # In quarantine, whether it goes on following the place that the tenant moved to.
    follows: bool = False

    @property
    def quarantine_owner(self) -> str:
        return f"{self.quarantine_name}{OWNER_SUFFIX}"

    @property
    def extensions(self) -> Tuple[str, ...]:
        return EXTENSIONS[self.profile]


@dataclass(frozen=True)
class Role:
    """A role as found; ``attributes`` in the words of CREATE ROLE."""

    name: str
    mark: Optional[str]
    attributes: FrozenSet[str]
    connection_limit: int
    verifier: Optional[str] = field(repr=False)
    settings: Mapping[str, str]
    member_of: Mapping[str, bool]
    members: Mapping[str, bool]


@dataclass(frozen=True)
class Database:
    """A database as found. ``extensions`` and ``mutable_unaccent`` (schemas where unaccent(text) is not IMMUTABLE)
    are None until someone has looked inside."""

    name: str
    owner: str
    encoding: str
    lc_collate: str
    lc_ctype: str
    provider: str
    allows_connections: bool
    connection_limit: int
    is_template: bool
    open_to_public: bool
    owner_privileges: FrozenSet[str]
    extensions: Optional[FrozenSet[str]] = None
    mutable_unaccent: Optional[Tuple[str, ...]] = None


@dataclass(frozen=True)
class Found:
    """What a server has under the names that matter for one tenant."""

    roles: Mapping[str, Role]
    databases: Mapping[str, Database]


def parse_size_kb(value: Any, what: str) -> Optional[int]:
    """A size in bytes, or with PostgreSQL's units (B, kB, MB, GB, TB), in kB rounded up; -1 stands for no limit.

    :raises PoolsError: it is no size, or more than PostgreSQL's own 2147483647 kB.
    """
    if value is None or value == "":
        return None
    text = str(value).strip()
    if text == "-1":
        return -1
    match = _SIZE.match(text)
    kb = -(-int(match.group(1)) * _UNITS[match.group(2)] // 1024) if match else _MAX_TEMP_KB + 1
    if kb > _MAX_TEMP_KB:
        raise PoolsError(
            f"{what} is {text[:60]!r}.",
            "Give bytes, or a number with B, kB, MB, GB or TB, of at most 2147483647 kB, or -1 for no limit.",
        )
    return kb


def check_name(name: Any, what: str, room: int = MAX_IDENTIFIER_BYTES) -> str:
    """Return *name* if a tenant's database or role may be called so.

    :raises PoolsError: empty, over *room* bytes of UTF-8, with NUL or another control character, or reserved.
    """
    if not isinstance(name, str) or not name:
        raise PoolsError(f"{what} is empty.", f"Give a name of 1 to {room} bytes.")
    shown = ascii(name) if len(name) <= 80 else ascii(name[:77]) + "..."
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise PoolsError(f"{what} {shown} is not valid Unicode.") from error
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise PoolsError(f"{what} {shown} holds a control character.", "Take it out.")
    if size > room:
        # PostgreSQL would cut it, and two names cut alike are one.
        raise PoolsError(f"{what} {shown} is {size} bytes long; {room} is the most.", "Choose a shorter name.")
    if name.lower() in RESERVED or name.lower().startswith("pg_"):
        raise PoolsError(f"{what} {shown} is reserved.", "Choose another name.")
    return name


def wanted(raw: Mapping[str, Any], state: str) -> Wanted:
    """Check one item of the option ``databases`` and give it its defaults.

    :raises PoolsError: anything in it cannot be; nothing has been touched yet.
    """
    name = check_name(raw.get("name"), "The database's name")
    what = f"database {name!r}"
    owner = raw.get("owner") or name + OWNER_SUFFIX
    check_name(owner, f"The owner of {what},")
    if owner == name:
        raise PoolsError(
            f"The owner of {what} bears the same name.",
            "Leave owner out, or choose another: the role named as the database is the gate that pg_hba.conf asks for, "
            "and nobody logs in as it.",
        )
    limit = raw.get("connection_limit")
    limit = Wanted.connection_limit if limit is None else limit
    # int(…) of a bool is a number too; Ansible has made an int of it before.
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 262143:
        raise PoolsError(f"The connection_limit of {what} is {limit!r}.", "Give a number from 1 to 262143.")
    profile = raw.get("profile") or Wanted.profile
    if profile not in EXTENSIONS:
        raise PoolsError(
            f"The profile of {what} is {profile!r}.", "Choose one of {}.".format(", ".join(sorted(EXTENSIONS)))
        )
    quarantine = raw.get("quarantine_name") or None
    if quarantine is None and state in ("quarantined", "restored"):
        raise PoolsError(f"{what.capitalize()} has no quarantine_name.", "Say what it is called in quarantine.")
    if quarantine is not None:
        check_name(quarantine, f"The quarantine_name of {what},", MAX_IDENTIFIER_BYTES - len(OWNER_SUFFIX))
        if {quarantine, quarantine + OWNER_SUFFIX} & {name, owner}:
            raise PoolsError(f"The quarantine_name of {what} is its own or its owner's name.", "Choose another.")
    password = raw.get("password") or ""
    if state in IN_USE:
        check_password(password, f"the owner of {what}")
    texts = {
        key: _locale_word(raw.get(key) or getattr(Wanted, key), key, what)
        for key in ("lc_collate", "lc_ctype", "encoding")
    }
    return Wanted(
        name=name,
        owner=owner,
        password=password,
        profile=profile,
        connection_limit=limit,
        temp_file_limit=parse_size_kb(raw.get("temp_file_limit"), f"The temp_file_limit of {what}"),
        bus=bool(raw.get("bus")),
        quarantine_name=quarantine,
        follows=bool(raw.get("follows")),
        **texts,
    )


def _locale_word(value: str, key: str, what: str) -> str:
    if not re.match(r"^[A-Za-z0-9_.@-]{1,63}\Z", value):
        raise PoolsError(f"The {key} of {what} is {value[:60]!r}.", "Give a name such as C, C.UTF-8 or UTF8.")
    return value


def check_apart(all_wanted: Sequence[Wanted], where: str) -> None:
    """See that no two databases of one server want the same name.

    :raises PoolsError: naming the one that comes twice.
    """
    seen: Dict[str, str] = {}
    for one in all_wanted:
        names = [one.name, one.owner] + ([one.quarantine_name, one.quarantine_owner] if one.quarantine_name else [])
        for name in names:
            if name in seen:
                raise PoolsError(
                    f"{name!r} is asked for twice on {where}, for database {seen[name]!r} and for {one.name!r}.",
                    "Name each database, owner and quarantine_name once.",
                )
        seen.update((name, one.name) for name in names)

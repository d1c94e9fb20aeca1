# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One comparison of two databases, from the module's options to its result."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from typing import Any, Callable, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _compare_differences as differing
from ._compare_database import DATABASE
from ._compare_differences import Objects
from ._compare_hash import PROBE
from ._compare_majors import level
from ._compare_objects import OBJECTS
from ._compare_rows import COUNT, RECORD, TEXT, Content, read_content
from ._compare_session import Login, Side, psycopg2, reparsed
from ._compare_tables import TABLES
from ._copy_pulse import Pulse, watching
from ._errors import PoolsError

PROVED_TABLES = 5000
# In place of how much of the rows to compare: nothing but what belongs to the database as a whole and to its roles.
DATABASE_ONLY = "database"
_CHECK_SECONDS = 1.0
_LOGIN = ("login_host", "login_port", "login_user", "login_password")
# The names that a connection has for them.
_TLS = {"login_ssl_mode": "ssl_mode", "login_ca_certificate": "ca_certificate"}
# Not part of the schema's digest: they have digests of their own.
_CONTENT = ("rows", "checksum", "last value", "is called", "content")


def login(params: Mapping[str, Any], side: str) -> Login:
    """One side's way in."""
    given = params[side]
    options = {option: given[option] for option in _LOGIN if given.get(option) not in (None, "")}
    options.update((keyword, given[option]) for option, keyword in _TLS.items() if given.get(option))
    return Login(side, options, given["database"], given.get("owner"))


class _Seen:
    """One side, with all that was read of it."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.rows: List[Any] = []
        self.content = Content()
        self.names: Dict[str, Optional[str]] = {}

    def read(self, method: Optional[str], jobs: int, queries: Sequence[str]) -> None:
        roles = [self.side.login.owner] if self.side.login.owner else []
        try:
            superuser = str(self.side.read("SELECT pg_get_userbyid(10)")[0][0])
            for query in queries:
                self.rows += self.side.read(query, {"roles": roles} if "%(roles)s" in query else None)
        except psycopg2.Error as error:
            raise self.side.told(error, "its catalogs") from error
        self.names = {"superuser": superuser, "owner": self.side.login.owner, "database": self.side.login.database}
        if queries is not DATABASE:
            self.content = read_content(self.side, method, jobs)

    def objects(self, role_map: Mapping[str, str]) -> Objects:
        """Catalogs and content as one: what a table holds is one more thing to be known of it."""
        objects = differing.collect(self.rows, role_map)
        for kind, name in list(objects):
            facts = objects[kind, name]
            if name in self.content.tables and kind in ("table", "materialized view", "extension table"):
                facts["rows"], facts["checksum"] = self.content.tables[name].count, self.content.tables[name].checksum
            elif kind == "sequence" and name in self.content.sequences:
                facts["last value"], facts["is called"] = self.content.sequences[name]
            elif kind == "large object":
                number = int(name)
                held = self.content.large_objects.get(number)
                facts["content"] = [self.content.large_object_bytes.get(number, 0), held.checksum if held else "0" * 32]
        return objects


def compare(
    source: Login,
    target: Login,
    options: Mapping[str, Any],
    begin: Callable[[], ContextManager[Any]] = contextlib.nullcontext,
    correct: Callable[[Side, Content, Side, Content], None] = lambda *_both: None,
    go_on: Callable[[], None] = lambda: None,
) -> Dict[str, Any]:
    """Read both sides at the same time, and say what differs.

    The snapshots of both are taken within *begin*; *correct* may take out of what was read what is known to differ; *go_on* raises a PoolsError when
    there is no more use in it.

    :raises PoolsError: one side cannot be read; the message says which and why.
    """
    for option, lowest in (("jobs", 1), ("max_differences", 0)):
        if not lowest <= options[option] <= 1000:
            raise PoolsError("{0} is {1}.".format(option, options[option]), "Give a number from {0} to 1000.".format(lowest))
    started = time.monotonic()
    given_up = threading.Event()
    source, target = (one._replace(pulse=Pulse(one.where, one.params, one.database)) for one in (source, target))
    with contextlib.ExitStack() as stack:
        all_well = stack.enter_context(watching(source.pulse, target.pulse, check=go_on))
        seen = []
        for one in (source, target):
            side = Side(one, given_up)
            stack.callback(side.close)
            seen.append(_Seen(side))
        with begin():
            for one_side in seen:
                one_side.side.begin()
        if seen[0].side.identity == seen[1].side.identity:
            raise PoolsError("Source and target are the same: {0}.".format(source.where), "Give another database as one of them.")
        method = _method(seen, options["data"])
        _both(given_up, all_well, *(_reading(one, method, options) for one in seen))
        correct(seen[0].side, seen[0].content, seen[1].side, seen[1].content)
    majors = (seen[0].side.major, seen[1].side.major)
    role_map = differing.mapping(seen[0].names, seen[1].names, options["role_map"])
    objects = (seen[0].objects(role_map), seen[1].objects({}))
    newer = source if majors[0] > majors[1] else target
    level(*objects, majors=majors, reparse=lambda definitions: reparsed(newer, definitions))
    _marks(objects, source, target)
    if options["data"] != "checksum":
        for facts in (facts for side in objects for facts in side.values()):
            facts.pop("checksum", None)
            facts.pop("content", None)
    found = differing.differences(*objects, ignore=options["ignore"])
    content = seen[0].content
    result: Dict[str, Any] = {
        "equal": not found,
        "differences": [one._asdict() for one in found[: options["max_differences"]]],
        "difference_count": len(found),
        "tables": len(content.tables),
        "rows": sum(table.count for table in content.tables.values()),
        "bytes": sum(content.bytes.values()) + sum(content.large_object_bytes.values()),
    }
    result["proof"] = _proof(result, objects, seen, options)
    result["seconds"] = result["proof"]["seconds"] = round(time.monotonic() - started, 3)
    return result


def _method(seen: List[_Seen], data: str) -> Optional[str]:
    if data != "checksum":
        return COUNT if data == "count" else None
    try:
        probes = [one.side.read(PROBE)[0][0] for one in seen]
    except psycopg2.Error as error:
        raise seen[0].side.told(error) from error
    return RECORD if probes[0] == probes[1] else TEXT


def _reading(seen: _Seen, method: Optional[str], options: Mapping[str, Any]) -> Callable[[], None]:
    queries = DATABASE if options["data"] == DATABASE_ONLY else (*TABLES, *OBJECTS, *DATABASE)
    return lambda: seen.read(method, options["jobs"], queries)


def _both(given_up: threading.Event, check: Callable[[], None], *works: Callable[[], None]) -> None:
    failures: List[Exception] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            # Raised again below, where somebody hears it.
            failures.append(error)
            given_up.set()

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_CHECK_SECONDS)
            if not given_up.is_set():
                try:
                    check()
                except PoolsError as error:
                    failures.append(error)
                    given_up.set()
    if failures:
        raise next((failure for failure in failures if isinstance(failure, PoolsError)), failures[0])


def _marks(objects: Tuple[Objects, Objects], source: Login, target: Login) -> None:
    """This collection's own comments on roles name the database and the role: those of another name say so."""
    if (source.database, source.owner) == (target.database, target.owner):
        return
    for side in objects:
        for (kind, _name), facts in side.items():
            if kind == "role" and (facts.get("comment") or "").startswith("saasodoo.postgres_pools "):
                facts["comment"] = "saasodoo.postgres_pools"


def _proof(result: Mapping[str, Any], objects: Tuple[Objects, Objects], seen: List[_Seen], options: Mapping[str, Any]) -> Dict[str, Any]:
    """What to keep of a comparison: enough to see later that both sides held the same, and what that was."""
    tables = [
        {"name": name, "rows": held.count, "checksum": held.checksum if options["data"] == "checksum" else None}
        for name, held in sorted(seen[0].content.tables.items())
    ]
    return {
        "equal": result["equal"],
        "difference_count": result["difference_count"],
        "differences": result["differences"],
        "ignored": list(options["ignore"]),
        "data": options["data"],
        "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rows": result["rows"],
        "bytes": result["bytes"],
        "table_count": len(tables),
        "tables": tables[:PROVED_TABLES],
        "source": _side_proof(seen[0], objects[0]),
        "target": _side_proof(seen[1], objects[1]),
    }


def _side_proof(seen: _Seen, objects: Objects) -> Dict[str, Any]:
    content = seen.content
    large = sorted((number, content.large_object_bytes.get(number, 0), held.checksum) for number, held in content.large_objects.items())
    return {
        "host": seen.side.login.params.get("login_host"),
        "port": seen.side.login.params.get("login_port"),
        "database": seen.side.login.database,
        "version": seen.side.version,
        "schema_digest": differing.schema_digest(objects, _CONTENT),
        "tables_digest": differing.digest([[name, held.count, held.checksum] for name, held in sorted(content.tables.items())]),
        "sequences_digest": differing.digest([[name, *where] for name, where in sorted(content.sequences.items())]),
        "large_objects": {
            "count": sum(kind == "large object" for kind, _name in objects),
            "bytes": sum(size for _n, size, _c in large),
            "digest": differing.digest(large),
        },
    }

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All servers asked at once what they hold, each within a limit of its own, and mended where that is safe."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Sequence, Tuple, TypeVar

from . import _audit_follow
from . import _tenant_sql as server_sql
from ._audit import Finding, finding
from ._audit_follow import Thing
from ._audit_registry import Expected
from ._audit_settings import Running, differences
from ._audit_tenants import Drift, Tenant, drift_of, live, quarantined, unknown
from ._errors import PoolsError
from ._findings import findings as facts_differ
from ._served import look
from ._tenant_plan import SERVER, Step
from ._tenant_wall import plan_doors

try:
    import psycopg2
    import psycopg2.extensions
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_LISTED = """
SELECT ARRAY(SELECT datname::text FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')),
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_')
"""
# Such a setting wins over that of the role.
_OVERRIDES = """
SELECT d.datname::text, r.rolname::text, c.config FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS c (config) WHERE c.config LIKE 'temp_file_limit=%%' AND r.rolname = ANY (%s)
"""
# What the client's own environment sets for its session says nothing about the server.
_SETTINGS = "SELECT name, setting, unit, vartype FROM pg_settings WHERE name = ANY (%s) AND source NOT IN ('client', 'session')"


@dataclass(frozen=True)
class Orders:
    """How the servers are asked. ``settings`` are those wanted, by the name of the server.

    ``confirmed`` are the keys of findings that may be mended: what was seen once may be another run at work.
    """

    settings: Mapping[str, Mapping[str, str]]
    repair: bool = False
    confirmed: FrozenSet[Tuple[str, str, str]] = frozenset()
    check_mode: bool = False
    timeout: float = 60.0
    max_parallel: int = 16
    connect_timeout: int = 10


def within(
    work: Callable[[_Item], _Result], items: Sequence[_Item], late: Callable[[_Item], _Result], seconds: float, parallel: int
) -> List[_Result]:
    """*work* on all items, so many at a time; what takes longer than *seconds* is left behind and answered by *late*.

    A thread in a call to a server that hangs cannot be ended, so it is one that does not keep the process from ending.
    """
    answers: Dict[int, Any] = {}
    ended = [threading.Event() for _item in items]
    places = threading.Semaphore(parallel)

    def one(number: int) -> None:
        try:
            answers[number] = work(items[number])
        except BaseException as error:
            answers[number] = error
        finally:
            ended[number].set()

    def follow(number: int) -> None:
        with places:
            threading.Thread(target=one, args=(number,), daemon=True).start()
            ended[number].wait(seconds)

    followers = [threading.Thread(target=follow, args=(number,), daemon=True) for number in range(len(items))]
    for follower in followers:
        follower.start()
    for follower in followers:
        follower.join()
    results = []
    for number, item in enumerate(items):
        answer = answers[number] if ended[number].is_set() else late(item)
        if isinstance(answer, BaseException):
            raise answer
        results.append(answer)
    return results


def key(one: Mapping[str, Any]) -> Tuple[str, str, str]:
    return (one["server"], one["kind"], one["object"])


def audit(servers: Sequence[Expected], orders: Orders) -> List[Finding]:
    """What differs on each server. With ``repair`` what is safe is mended, and told as ``repaired``."""

    def late(expected: Expected) -> List[Finding]:
        return _unreachable(expected, "no answer within {0:g} seconds".format(orders.timeout))

    found = within(lambda expected: _audit_one(expected, orders), servers, late, orders.timeout, orders.max_parallel)
    return [one for findings in found for one in findings]


def _unreachable(expected: Expected, reason: str) -> List[Finding]:
    if expected.row["status"] == "error":
        return []
    return [finding(expected.name, "unreachable", "{host}:{port}".format(**expected.row), "an answer", reason)]


def limited(login: Mapping[str, Any], orders: Orders) -> Dict[str, Any]:
    """*login* with the limits of a connection: to be made, and for what was sent to be acknowledged."""
    limits = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    if psycopg2.extensions.libpq_version() >= 120000:
        limits["tcp_user_timeout"] = int(orders.timeout * 1000)
    return dict(login, connect_timeout=orders.connect_timeout, connect_params=limits)


def _audit_one(expected: Expected, orders: Orders) -> List[Finding]:
    if expected.unreadable:
        wanted = "a password that a key given here opens"
        return [finding(expected.name, "password_unreadable", expected.row["admin_user"], wanted, expected.unreadable)]
    connection = None
    try:
        connection = server_sql.connect(limited(expected.login, orders))
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", (int(orders.timeout * 1000),))
        return _Audit(connection, expected, orders).findings()
    except PoolsError as error:
        return _unreachable(expected, str(error.problem))
    except psycopg2.Error as error:
        return _unreachable(expected, server_sql.reason(error))
    finally:
        if connection is not None:
            connection.close()


class _Audit:
    """One server over the administrator's connection."""

    def __init__(self, connection: Any, expected: Expected, orders: Orders) -> None:
        self.connection = connection
        self.expected = expected
        self.orders = orders
        self.server = expected.name

    def findings(self) -> List[Finding]:
        findings = self._server_as_a_whole()
        if self.expected.row["server_type"] == "platform":
            return findings
        drifts = self._drifts()
        if not self.orders.repair:
            return findings + [one.finding for one in drifts]
        if self.orders.check_mode:
            return findings + [dict(one.finding, repaired=self._may_mend(one)) for one in drifts]
        done = self._repair(drifts)
        # What is still there was not mended, whatever the server said to the statement.
        left = [one.finding for one in self._drifts()] if done else [one.finding for one in drifts]
        keys = {key(one) for one in left}
        return findings + left + [dict(one, repaired=True) for one in done if key(one) not in keys]

    def _may_mend(self, drift: Drift) -> bool:
        return drift.mendable and key(drift.finding) in self.orders.confirmed

    # --- the server

    def _server_as_a_whole(self) -> List[Finding]:
        row, version = self.expected.row, self.connection.server_version
        findings = []
        if facts_differ(row, {"server_version_num": version}):
            findings.append(finding(self.server, "version", "postgres_version", row["postgres_version"], str(version)))
        findings += self._settings()
        if row["server_type"] != "platform":
            findings += self._wall()
        if row["tls"]:
            seen = look(row["host"], row["port"], row["ca_certificate"] or "", self.orders.connect_timeout)
            if seen.problem:
                findings.append(finding(self.server, "certificate_expiring", "served certificate", "one that clients accept", seen.problem))
        return findings

    def _wall(self) -> List[Finding]:
        whole = server_sql.read_server(self.connection)
        server_sql.check_server(self.connection, whole, require_wall=False)
        try:
            server_sql.check_server(self.connection, whole, require_wall=True)
        except PoolsError as error:
            return [finding(self.server, "pg_hba", "pg_hba.conf", "a wall between tenants", error.problem)]
        return []

    def _settings(self) -> List[Finding]:
        wanted = self.orders.settings.get(self.server) or {}
        running = {name: Running(*rest) for name, *rest in self._rows(_SETTINGS, (list(wanted),))} if wanted else {}
        known = {name: value for name, value in wanted.items() if name in running}
        return [finding(self.server, "settings", name, value, found) for name, value, found in differences(known, running)]

    # --- its databases and roles

    def _drifts(self) -> List[Drift]:
        expected = self.expected
        whole = server_sql.read_server(self.connection)
        bus = any(tenant.wanted.bus for tenant in expected.tenants if not tenant.quarantined)
        in_use = [tenant for tenant in expected.tenants if not tenant.quarantined]
        # The first tenant brings the wall; a server without one has none of it yet, and that is no drift.
        doors = plan_doors(whole["public"], whole["bus"], bus) if in_use else []
        drifts = [drift_of(self.server, step) for step in doors]
        databases, roles = self._rows(_LISTED)[0]
        things = [Thing(*row) for row in self._rows(_audit_follow.LISTED)]
        roles = sorted(set(roles) - {thing.name for thing in things if thing.what == "role"})
        drifts += unknown(self.server, expected.tenants, expected.optional, databases, roles, expected.row["admin_user"])
        self._publications: List[Thing] = []
        names = {name for tenant in expected.tenants for name in (*tenant.names, tenant.wanted.name, tenant.wanted.owner)}
        found = server_sql.read_found(self.connection, sorted(names))
        claimed = {tenant.wanted.name for tenant in in_use}
        for tenant in expected.tenants:
            if tenant.quarantined:
                drifts += quarantined(self.server, tenant, found, claimed)
            else:
                drifts += live(self.server, tenant, found, lambda tenant=tenant: self._inside(tenant))  # type: ignore[misc]
        things += self._publications
        drifts += _audit_follow.left_over(self.server, things, expected.followed) + _audit_follow.broken(self.server, things, expected.followed)
        return drifts + self._overrides([tenant.wanted.owner for tenant in in_use])

    def _enter(self, database: str) -> Any:
        return server_sql.connect(limited(self.expected.login, self.orders), database)

    def _inside(self, tenant: Tenant) -> Mapping[str, Any]:
        inside = self._enter(tenant.wanted.name)
        try:
            with inside.cursor() as cursor:
                cursor.execute(_audit_follow.PUBLICATIONS)
                self._publications += [Thing(*row) for row in cursor.fetchall()]
            return server_sql.read_inside(inside)
        finally:
            inside.close()

    def _overrides(self, owners: Sequence[str]) -> List[Drift]:
        drifts = []
        for database, owner, config in self._rows(_OVERRIDES, (list(owners),)):
            words = "role {0} in database {1}: temp_file_limit taken back".format(owner, database)
            step = Step(
                SERVER, words, "ALTER ROLE {owner} IN DATABASE {database} RESET temp_file_limit", {"owner": owner, "database": database},
                before=config, after="none of its own in database {0}".format(database),
            )  # fmt: skip
            drifts.append(drift_of(self.server, step))
        return drifts

    def _repair(self, drifts: Sequence[Drift]) -> List[Finding]:
        """Mend what is safe, one object at a time; what the server refuses stays a finding."""
        done = []
        for one in drifts:
            if not self._may_mend(one) or one.step is None:
                continue
            try:
                # The lock of whoever makes or releases this tenant: its last word is read again inside.
                with server_sql.lock(self.connection, one.step.names.get("gate") or one.step.names.get("database") or ""):
                    if one.finding["kind"] == _audit_follow.KIND:
                        _audit_follow.mend(self.connection, self._enter, one.step.names)
                    else:
                        server_sql.run(self.connection, [one.step])
                done.append(one.finding)
            except (PoolsError, psycopg2.Error):
                continue
        return done

    def _rows(self, query: str, values: Any = None) -> List[Tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())


def fleet(expectations: Callable[[], Sequence[Expected]], orders: Orders) -> List[Finding]:
    """The findings of all servers that two looks agree on; between them the rows are read again.

    A tenant made or released between the reading of its row and that of its server would else be told as drift.
    """
    first = audit(expectations(), replace(orders, repair=False))
    if not first:
        return []
    seen = frozenset(key(one) for one in first)
    suspicious = {one["server"] for one in first}
    again = [expected for expected in expectations() if expected.name in suspicious]
    return [one for one in audit(again, replace(orders, confirmed=seen)) if key(one) in seen]

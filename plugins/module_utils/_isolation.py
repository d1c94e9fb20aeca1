# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one tenant must not be able to do on its server, tried with its real password.

Every attempt is made so that it leaves nothing behind even where it is let through: inside a transaction that is rolled back, or, where
PostgreSQL allows none, with something wrong in it that is looked at only after the leave to do it. Then that later complaint is the alarm.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

from . import _connection
from ._audit import Finding, finding
from ._audit_registry import Expected
from ._audit_servers import Orders, limited, within
from ._audit_tenants import Tenant
from ._errors import PoolsError
from ._hba import BUS_ROLE

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:
    psycopg2 = None  # _connection.PSYCOPG2_IMPORT_ERROR tells the module

# insufficient_privilege. Everything else that is no success says nothing about leave, unless an attempt names it.
_REFUSED = "42501"
_SESSION = "-c search_path=pg_catalog -c role=none -c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=30s"
# Names that nobody has; what is tried with them fails later than on leave.
_NOBODY = "postgres_pools_probe"


class Attempt(NamedTuple):
    """*passed*: SQLSTATEs that only who has leave gets to see. *refused*: those that also mean no, beside the lack of leave.
    *rows*: the statement is always let through, and it is what it returns that counts. *alone*: it can be in no transaction."""

    name: str
    statement: str
    passed: FrozenSet[str] = frozenset()
    refused: FrozenSet[str] = frozenset()
    rows: bool = False
    alone: bool = False


def _codes(*codes: str) -> FrozenSet[str]:
    return frozenset(codes)


def _extension(name: str, extension: str) -> Attempt:
    # In a schema of its own: "public" is the tenant's to drop. What is not installed on the server is no way out either.
    statement = "CREATE SCHEMA {nobody}; CREATE EXTENSION " + extension + " SCHEMA {nobody}"
    return Attempt(name, statement, passed=_codes("42710"), refused=_codes("0A000", "58P01"))


# {me}, {mine}: the tenant's role and database. {victim}: the process of a session that is not its own.
ATTEMPTS: Tuple[Attempt, ...] = (
    # Files and programs of the server
    Attempt("read a file of the server", "SELECT pg_catalog.pg_read_file('PG_VERSION')"),
    Attempt("read a binary file of the server", "SELECT pg_catalog.pg_read_binary_file('PG_VERSION')"),
    Attempt("look at a file of the server", "SELECT pg_catalog.pg_stat_file('PG_VERSION')"),
    Attempt("list the server's directory", "SELECT pg_catalog.pg_ls_dir('.')"),
    Attempt("list the write-ahead log", "SELECT pg_catalog.pg_ls_waldir()"),
    Attempt("list the server's log", "SELECT pg_catalog.pg_ls_logdir()", passed=_codes("58P01")),
    Attempt("read a large object from a file", "SELECT pg_catalog.lo_import('PG_VERSION')"),
    Attempt("write a large object to a file", "SELECT pg_catalog.lo_export(0, '/dev/null')", passed=_codes("42704")),
    Attempt("copy from a file", "CREATE TEMPORARY TABLE probe (line text); COPY pg_temp.probe FROM 'PG_VERSION'", passed=_codes("42602")),
    Attempt("copy to a file", "COPY (SELECT 1) TO '/dev/null'"),
    Attempt("run a program", "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'", passed=_codes("38000")),
    Attempt("load a library", "CREATE FUNCTION pg_temp.probe() RETURNS int LANGUAGE c AS 'postgres_pools_probe'", passed=_codes("58P01")),
    # Passwords, roles and databases
    Attempt("read password verifiers", "SELECT rolpassword FROM pg_catalog.pg_authid LIMIT 1"),
    Attempt("read pg_hba.conf", "SELECT * FROM pg_catalog.pg_hba_file_rules LIMIT 1"),
    Attempt("make a role", "CREATE ROLE {nobody}"),
    Attempt("make a database", "CREATE DATABASE {nobody} TEMPLATE {nobody}", passed=_codes("3D000"), alone=True),
    Attempt("make itself superuser", "ALTER ROLE {me} SUPERUSER"),
    Attempt("make itself a maker of roles", "ALTER ROLE {me} CREATEROLE"),
    Attempt("let itself replicate", "ALTER ROLE {me} REPLICATION"),
    Attempt("bypass row level security", "ALTER ROLE {me} BYPASSRLS"),
    Attempt("lift its connection limit", "ALTER ROLE {me} CONNECTION LIMIT -1"),
    Attempt("lift its temp_file_limit", "SET LOCAL temp_file_limit = -1"),
    Attempt("lift its temp_file_limit for good", "ALTER ROLE {me} SET temp_file_limit = -1"),
    Attempt("lift its database's temp_file_limit", "ALTER DATABASE {mine} SET temp_file_limit = -1"),
    Attempt("take the mark off its role", "COMMENT ON ROLE {me} IS NULL"),
    # The server as a whole
    Attempt("change the server's settings", "ALTER SYSTEM SET work_mem = 'postgres_pools_probe'", passed=_codes("22023"), alone=True),
    Attempt("have the server read its settings", "SELECT pg_catalog.pg_reload_conf()"),
    Attempt("make a tablespace", "CREATE TABLESPACE {nobody} LOCATION 'postgres_pools_probe'", passed=_codes("42P17"), alone=True),
    Attempt("make an event trigger", "CREATE EVENT TRIGGER {nobody} ON ddl_command_start EXECUTE FUNCTION {nobody}()", passed=_codes("42883")),
    Attempt("switch triggers off", "SET LOCAL session_replication_role = replica"),
    Attempt("make a replication slot", "SELECT pg_catalog.pg_create_physical_replication_slot('postgres_pools_probe', false, true)"),
    # Ways to elsewhere. Installed already, each is as good as made.
    _extension("make a way to other servers by dblink", "dblink"),
    _extension("make a way to other servers by postgres_fdw", "postgres_fdw"),
    _extension("make a way to files by file_fdw", "file_fdw"),
    _extension("make an untrusted language", "plpython3u"),
    # Sessions of others
    Attempt(
        "read another session's statement",
        "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = {victim} AND query LIKE '%postgres_pools_probe%'",
        rows=True,
    ),
    Attempt("cancel another session's statement", "SELECT pg_catalog.pg_cancel_backend({victim})"),
    Attempt("end another session", "SELECT pg_catalog.pg_terminate_backend({victim})"),
)
# {other}: a role of somebody else's, or one that PostgreSQL has for its administrators.
ROLE_ATTEMPTS: Tuple[Attempt, ...] = (
    Attempt("become {other}", "SET LOCAL ROLE {other}"),
    Attempt("make itself a member of {other}", "GRANT {other} TO {me}"),
)
ADMINISTRATORS = (
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_monitor",
    "pg_signal_backend",
    "pg_checkpoint",
)
DATABASE_ATTEMPT = Attempt("change database {other}", "ALTER DATABASE {other} CONNECTION LIMIT 1", refused=_codes("55P03"))


@dataclass(frozen=True)
class Trial:
    """What became of one attempt: ``refused``, ``allowed`` or ``unclear``."""

    name: str
    verdict: str
    told: str = ""


def judge(attempt: Attempt, code: Optional[str], rows: int = 0) -> str:
    """*code* is the SQLSTATE that the server gave, or None for success."""
    if code is None:
        return "refused" if attempt.rows and not rows else "allowed"
    if code in attempt.passed:
        return "allowed"
    return "refused" if code == _REFUSED or code in attempt.refused else "unclear"


def chosen(tenants: Sequence[Tenant], everybody: bool, day: int) -> List[Tenant]:
    """All tenants in use whose password is known, or the one whose turn it is: another one each day."""
    in_use = [tenant for tenant in tenants if not tenant.quarantined and not tenant.unreadable]
    if everybody or not in_use:
        return in_use
    return [in_use[day % len(in_use)]]


def probe(servers: Sequence[Expected], orders: Orders, everybody: bool, day: int) -> Tuple[List[Finding], List[Dict[str, Any]]]:
    """Probe each server as its tenants; the findings, and what was tried as whom."""

    def late(expected: Expected) -> Tuple[List[Finding], List[Dict[str, Any]]]:
        told = "no answer within {0:g} seconds".format(orders.timeout)
        return [_unclear(expected, "the probe", told)], []

    def one(expected: Expected) -> Tuple[List[Finding], List[Dict[str, Any]]]:
        return _probe_server(expected, orders, chosen(expected.tenants, everybody, day))

    usable = [expected for expected in servers if expected.row["status"] != "error" and expected.row["server_type"] != "platform" and not expected.unreadable]
    answers = within(one, usable, late, orders.timeout, orders.max_parallel)
    return [each for findings, _told in answers for each in findings], [each for _findings, told in answers for each in told]


def _unclear(expected: Expected, thing: str, told: str) -> Finding:
    return finding(expected.name, "probe_inconclusive", thing, "refused", told)


def _probe_server(expected: Expected, orders: Orders, tenants: Sequence[Tenant]) -> Tuple[List[Finding], List[Dict[str, Any]]]:
    findings: List[Finding] = []
    told = []
    for tenant in tenants:
        me = tenant.wanted.owner
        try:
            trials = _Probe(expected, orders, tenant).trials()
        except PoolsError as error:
            findings.append(_unclear(expected, me, error.problem))
            continue
        except psycopg2.Error as error:
            findings.append(_unclear(expected, me, _one_line(error)))
            continue
        for trial in trials:
            thing = "{0}: {1}".format(me, trial.name)
            if trial.verdict == "allowed":
                findings.append(finding(expected.name, "isolation", thing, "refused", trial.told or "allowed"))
            elif trial.verdict == "unclear":
                findings.append(_unclear(expected, thing, trial.told))
        told.append({"server": expected.name, "user": me, "attempts": len(trials)})
    return findings, told


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Probe:
    """One tenant on one server."""

    def __init__(self, expected: Expected, orders: Orders, tenant: Tenant) -> None:
        self.expected = expected
        self.orders = orders
        self.tenant = tenant
        self.me, self.mine = tenant.wanted.owner, tenant.wanted.name
        self.others = [other for other in expected.tenants if other is not tenant]

    def trials(self) -> List[Trial]:
        """:raises PoolsError: the tenant cannot log in where it should, so nothing can be tried."""
        own = self._login(self.me, self.tenant.wanted.password, self.mine)
        try:
            own.autocommit = True
            with self._victim() as victim:
                trials = [self._try(own, attempt, victim=sql.Literal(victim.pid)) for attempt in ATTEMPTS]
            for role in self._foreign_roles():
                trials += [self._try(own, attempt, role) for attempt in ROLE_ATTEMPTS]
            for database in self._foreign_databases():
                trials.append(self._try(own, DATABASE_ATTEMPT, database))
                trials.append(self._enter("connect to database {0}".format(database), database))
        finally:
            own.close()
        trials.append(self._enter("connect for physical replication", self.mine, "true"))
        trials.append(self._enter("connect for logical replication", self.mine, "database"))
        return trials

    def _foreign_roles(self) -> List[str]:
        roles = [name for other in self.others for name in other.names]
        bus = [] if self.tenant.wanted.bus else [BUS_ROLE]
        return [str(self.expected.row["admin_user"]), *ADMINISTRATORS, *bus, *roles]

    def _foreign_databases(self) -> List[str]:
        own = ["template1"] + ([] if self.tenant.wanted.bus else ["postgres"])
        return own + [other.names[0] for other in self.others]

    def _login(self, user: str, password: str, database: str, **more: Any) -> Any:
        login = dict(limited(self.expected.login, self.orders), login_user=user, login_password=password)
        login["connect_params"] = dict(
            login["connect_params"], client_encoding="UTF8", connect_timeout=self.orders.connect_timeout, **dict({"options": _SESSION}, **more)
        )
        return _connection.connect(login, database)

    def _enter(self, name: str, database: str, replication: str = "") -> Trial:
        more: Dict[str, Any] = {"replication": replication, "options": ""} if replication else {}
        try:
            self._login(self.me, self.tenant.wanted.password, database, **more).close()
        except PoolsError as error:
            # For a failed connection the driver gives no SQLSTATE; that the server said no at all is in its severity.
            said = str(error.__cause__)
            if "FATAL" not in said:
                return Trial(name, "unclear", _one_line(error))
            return Trial(name, "unclear" if "too many connections" in said else "refused")
        return Trial(name, "allowed", "let in")

    def _victim(self) -> _Victim:
        """A session to try on: another tenant's where there is one that can be had, else the administrator's."""
        for other in self.others:
            if other.quarantined or other.unreadable:
                continue
            try:
                return _Victim(self._login(other.wanted.owner, other.wanted.password, other.wanted.name))
            except PoolsError:
                continue
        return _Victim(_connection.connect(limited(self.expected.login, self.orders), "postgres"))

    def _try(self, connection: Any, attempt: Attempt, other: str = "", victim: Any = None) -> Trial:
        name = attempt.name.format(other=other)
        parts = {"me": sql.Identifier(self.me), "mine": sql.Identifier(self.mine), "nobody": sql.Identifier(_name())}
        parts.update(other=sql.Identifier(other or _NOBODY), victim=victim or sql.Literal(0))
        statement = sql.SQL(attempt.statement).format(**parts)
        rows = 0
        try:
            with connection.cursor() as cursor:
                if attempt.alone:
                    cursor.execute(statement)
                else:
                    cursor.execute("BEGIN")
                    cursor.execute(statement)
                rows = cursor.rowcount
        except psycopg2.Error as error:
            verdict = judge(attempt, error.pgcode)
            return Trial(name, verdict, "" if verdict == "refused" else _one_line(error))
        finally:
            if not connection.closed and not attempt.alone:
                with connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
        return Trial(name, judge(attempt, None, rows))


def _name() -> str:
    # Where a name were taken, the attempt would fail for that.
    return "{0}_{1}".format(_NOBODY, secrets.token_hex(6))


class _Victim:
    """A session that stands idle after a statement by which it can be known."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        connection.autocommit = True
        self.pid = connection.info.backend_pid
        with connection.cursor() as cursor:
            cursor.execute("SELECT 'postgres_pools_probe'")

    def __enter__(self) -> _Victim:
        return self

    def __exit__(self, *unused: object) -> None:
        self.connection.close()

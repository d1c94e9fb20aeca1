# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One check of all servers: who is asked, what an answer makes of a server's state, and the history that is kept."""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from . import _findings, _names, _probe
from ._errors import PoolsError
from ._inventory import CA_CERTIFICATE, SERVER_COLUMNS, Inventory
from ._secrets import Cipher

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

# Also those that placement passes over: a server in error that nobody asks would never come back.
PROBED = ("initializing", "active", "full", "maintenance", "error")
UNHEALTHY_AFTER = 3
LEVELS = ("ok", "degraded", "alarm")
# Any number that no other program takes in this database; held by the one check that runs.
_CHECK_LOCK = 0x6865616C7468
_LEASED = "coalesce(s.lease_expires_at > clock_timestamp(), false) AS leased"
# One statement, since a thousand servers make a thousand of each round trip; it returns the row as the triggers leave it.
_WRITE = """WITH kept AS (INSERT INTO db_health_checks
    (server_id, health_status, latency_ms, postgres_version, database_count, connections_used, problem, detail)
    VALUES (%(id)s, %(seen)s, %(latency)s, %(version)s, %(databases)s, %(connections)s, %(problem)s, %(detail)s))
    UPDATE db_servers s SET status = %(status)s, status_reason = %(reason)s, health_status = %(health_status)s,
    health_check_failures = %(failures)s, last_health_check = clock_timestamp(), postgres_version = coalesce(s.postgres_version, %(version)s)
    WHERE s.id = %(id)s RETURNING s.status, s.health_status, s.health_check_failures, """ + _LEASED
_KEPT = (
    "server_version_num",
    "connections_used",
    "connections_allowed",
    "oldest_transaction_seconds",
    "wraparound_age",
    "freeze_max_age",
    "database_bytes",
)


class Step(NamedTuple):
    """What an answer makes of a server's row."""

    status: str
    health_status: str
    failures: int
    reason: Optional[str]


def step(row: Mapping[str, Any], serves: bool, problem: str) -> Optional[Step]:
    """None where the answer says nothing: a server that another run is making need not serve yet, and becomes active by that run.

    :param row: status, health_status, health_check_failures, status_reason, activated_at and leased, as they are now.
    """
    status, reason = row["status"], row["status_reason"]
    making = status == "initializing"
    if making and row["leased"]:
        return None
    if serves:
        # The maker deploys a server with all that protects it before it first answers, so one that died left nothing to do. In error, the
        # maker itself found something wrong: what was never active stays there.
        if making or (status == "error" and row["activated_at"]):
            return Step("active", "healthy", 0, None)
        return Step(status, "healthy", 0, reason)
    failures = row["health_check_failures"] + 1
    if failures < UNHEALTHY_AFTER:
        # One that nobody makes any more is still taken up by whoever needs it next, which its health must not prevent.
        return Step(status, "unknown" if making else "degraded", failures, reason)
    if making or status in ("active", "full"):
        return Step("error", "unhealthy", failures, "{0} health checks in a row failed. The last: {1}".format(failures, problem)[:2000])
    return Step(status, "unhealthy", failures, reason)


def level(row: Mapping[str, Any], trouble: bool) -> str:
    """How much a server's state weighs in the whole: ok, degraded or alarm. One in maintenance is an operator's, who knows."""
    if row["status"] == "maintenance":
        return "ok"
    if row["health_status"] == "unhealthy" and row["activated_at"]:
        return "alarm"
    return "degraded" if trouble else "ok"


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    """Ask the servers, write down what they said, and tell what needs a hand; the result of the module ``server_health``."""
    _refuse_bad(params)
    begun = time.monotonic()
    # A check that changes nothing need not keep another from its work.
    if not inventory.dry_run and not inventory.rows("SELECT pg_try_advisory_lock(%(key)s) AS held", {"key": _CHECK_LOCK})[0]["held"]:
        return {"changed": False, "status": "busy", "summary": _summary([], 0, begun), "servers": []}
    # What a crash of the inventory database takes back, the next check finds again; a wait for its disk at each server would be felt.
    # A row that somebody keeps locked must not hold up the others.
    inventory.execute("SET synchronous_commit = off; SET lock_timeout = '2s'")
    since = inventory.rows("SELECT clock_timestamp() AS now")[0]["now"]
    rows = _rows(inventory, params["name"])
    answers = _answers(rows, cipher, params)
    databases = _databases(inventory, [row["id"] for row in rows], since)
    told = [_told(inventory, row, answers[row["id"]], *databases.get(row["id"], ((), ()))) for row in rows]
    pruned = inventory.execute(
        "DELETE FROM db_health_checks WHERE checked_at < now() - %(days)s * interval '1 day'", {"days": params["history_days"]}
    )
    return {
        "changed": any(_shown(server, "_before") != _shown(server) for server in told),
        "status": max((server["level"] for server in told), key=LEVELS.index, default="ok"),
        "summary": _summary(told, pruned, begun),
        "servers": [server for server in told if params["name"] or _noteworthy(server)],
        "diff": {side: {one["name"]: _shown(one, end) for one in told} for side, end in (("before", "_before"), ("after", ""))},
    }


def _refuse_bad(params: Mapping[str, Any]) -> None:
    for name in params["name"] or ():
        _names.check_server_name(name)
    for option, least in (("timeout", 1), ("total_timeout", params["timeout"]), ("parallel", 1), ("history_days", 0)):
        if params[option] < least:
            raise PoolsError("{0} is {1}.".format(option, params[option]), "Give {0} or more.".format(least))


def _rows(inventory: Inventory, names: Optional[Sequence[str]]) -> List[Dict[str, Any]]:
    """The servers to ask. Those that were not asked for longest come first, should the time not be enough for all."""
    found = inventory.rows(
        "SELECT {0}, s.admin_password_encrypted, {1}, {2} FROM db_servers s WHERE s.status = ANY (%(probed)s)"
        # A platform server that gives us no login is somebody else's to watch.
        " AND (s.server_type <> 'platform' OR s.admin_password_encrypted IS NOT NULL)"
        " AND (%(names)s::text[] IS NULL OR s.name = ANY (%(names)s)) ORDER BY s.last_health_check NULLS FIRST, s.created_at, s.name".format(
            SERVER_COLUMNS, CA_CERTIFICATE, _LEASED
        ),
        {"probed": list(PROBED), "names": list(names) if names else None},
    )
    for missing in sorted(set(names or ()) - {row["name"] for row in found}):
        there = inventory.servers([missing])
        if there:
            raise PoolsError(
                "The server {0!r} cannot be asked: it is {1}.".format(missing, there[0]["status"]), "Asked are servers that are {0}.".format(", ".join(PROBED))
            )
        raise PoolsError("There is no server {0!r} in the inventory database.".format(missing), "playbooks/pools.yml lists those there are.")
    return found


def _answers(rows: Sequence[Mapping[str, Any]], cipher: Cipher, params: Mapping[str, Any]) -> Dict[str, _probe.Answer]:
    """By the servers' ids. One that we cannot log in to for a reason of our own is not asked, and keeps the state it has."""
    answers: Dict[str, _probe.Answer] = {}
    targets: Dict[str, _probe.Target] = {}
    for row in rows:
        try:
            targets[row["id"]] = _target(row, cipher)
        except PoolsError as error:
            answers[row["id"]] = _probe.Answer(asked=False, problem=str(error))
    answers.update(zip(targets, _probe.sweep(list(targets.values()), params["timeout"], params["total_timeout"], params["parallel"])))
    return answers


def _target(row: Mapping[str, Any], cipher: Cipher) -> _probe.Target:
    if not row["admin_password_encrypted"]:
        raise PoolsError("No password of its administrator is recorded.")
    if row["tls"] and not row["ca_certificate"]:
        raise PoolsError("It has TLS, and the inventory database has no authority to check its certificate by.", "Run playbooks/renew_certificates.yml.")
    login = {
        "user": row["admin_user"],
        "password": cipher.decrypt(row["admin_password_encrypted"], "server {0}".format(row["name"])),
        "dbname": "postgres",
        "sslmode": "verify-full" if row["tls"] else "prefer",
    }
    return _probe.Target(row["host"], row["port"], login, row["ca_certificate"] or "")


def _databases(inventory: Inventory, ids: Sequence[str], since: Any) -> Dict[str, Tuple[List[str], List[str]]]:
    """By server: the databases that somebody accounts for, and those of them that have to be there.

    Read after the servers were asked, and lenient with every allocation that changed meanwhile: it was there before or it is there now.
    """
    found = inventory.rows(
        "SELECT server_id::text, array_agg(name) AS known, coalesce(array_agg(name) FILTER (WHERE expected), '{}') AS expected FROM ("
        " SELECT a.server_id, n.name, n.name = a.database_name AND a.status IN ('active', 'migrating') AND a.updated_at < %(since)s AS expected"
        " FROM db_allocations a, unnest(ARRAY[a.database_name, a.quarantine_name]) AS n (name) WHERE n.name IS NOT NULL AND"
        " (a.status IN ('reserved', 'active', 'migrating', 'releasing') OR a.updated_at >= %(since)s"
        " OR (n.name = a.quarantine_name AND a.status = 'released' AND a.dropped_at IS NULL))"
        # What a move left where it was is kept for a way back; what it makes where it goes is there before the row says so.
        " UNION ALL SELECT m.source_server_id, n.name, false FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id"
        " CROSS JOIN unnest(ARRAY[a.database_name, m.source_database]) AS n (name) WHERE m.status IN ('cutover', 'completed') AND n.name IS NOT NULL"
        " UNION ALL SELECT m.target_server_id, a.database_name, false FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id"
        " WHERE m.status NOT IN ('completed', 'rolled_back')) AS names WHERE server_id = ANY (%(ids)s::uuid[]) GROUP BY server_id",
        {"since": since, "ids": list(ids)},
    )
    return {row["server_id"]: (row["known"], row["expected"]) for row in found}


def _told(inventory: Inventory, row: Dict[str, Any], answer: _probe.Answer, known: Sequence[str], expected: Sequence[str]) -> Dict[str, Any]:
    """One server's part of the result, after its row was brought up to date."""
    told = _findings.findings(row, answer.facts, known, expected) if answer.serves else []
    if answer.unmeasured:
        told.append({"kind": "unmeasured", "message": "It serves, but {0}".format(answer.unmeasured)})
    if answer.serves and row["status"] == "error" and not row["activated_at"]:
        told.append({"kind": "unfinished", "message": "It answers, but its making was given up: {0}".format(row["status_reason"] or "no reason was kept")})
    after, problem = row, answer.problem
    if answer.asked:
        try:
            after = _record(inventory, row, answer, told)
        except (psycopg2.errors.LockNotAvailable, psycopg2.IntegrityError) as error:
            problem = "{0} Its row was not written: {1}.".format(problem, (error.diag.message_primary or "").rstrip(".")).strip()
    # Nobody expects one that is being made to serve.
    trouble = bool(problem or told) and not (after["status"] == "initializing" and after["leased"])
    return {
        "name": row["name"],
        "server_type": row["server_type"],
        "status": after["status"],
        "status_before": row["status"],
        "health_status": after["health_status"],
        "health_status_before": row["health_status"],
        "failures": after["health_check_failures"],
        "asked": answer.asked,
        "level": level(dict(after, activated_at=row["activated_at"]), trouble),
        "problem": problem,
        "findings": told,
        "latency_ms": answer.latency_ms,
    }


def _record(inventory: Inventory, row: Mapping[str, Any], answer: _probe.Answer, told: Sequence[Mapping[str, str]]) -> Dict[str, Any]:
    """Bring the row up to date and keep the history; the row as it is then."""
    with inventory.transaction():
        now = inventory.rows(
            "SELECT s.status, s.status_reason, s.status_changed_at, s.health_status, s.health_check_failures, s.activated_at, {0}"
            " FROM db_servers s WHERE s.id = %(id)s FOR NO KEY UPDATE".format(_LEASED),
            {"id": row["id"]},
        )[0]
        in_use = ("active", "full")
        if now["status_changed_at"] != row["status_changed_at"] and not (now["status"] in in_use and row["status"] in in_use):
            # Whoever took the server to another state since it was asked knows more than the answer does.
            return now
        new = step(now, answer.serves, answer.problem)
        if new is None:
            return now
        version = answer.facts.get("server_version_num")
        detail = {key: answer.facts[key] for key in _KEPT if key in answer.facts}
        slots = answer.facts.get("slots_inactive")
        if slots is not None:
            detail.update(slots_inactive=len(slots), slots_retained_bytes=sum(int(slot["retained_bytes"] or 0) for slot in slots))
        if told:
            detail["findings"] = list(told)
        return inventory.rows(
            _WRITE,
            dict(
                new._asdict(),
                id=row["id"],
                # The history knows healthy, degraded and unhealthy.
                seen="degraded" if new.health_status == "unknown" else new.health_status,
                latency=answer.latency_ms,
                version=str(version) if version else None,
                databases=len(answer.facts["databases"]) if "databases" in answer.facts else None,
                connections=answer.facts.get("connections_used"),
                problem=answer.problem or None,
                detail=json.dumps(detail),
            ),
        )[0]


def _noteworthy(server: Mapping[str, Any]) -> bool:
    return bool(server["problem"] or server["findings"] or _shown(server) != _shown(server, "_before"))


def _shown(server: Mapping[str, Any], end: str = "") -> str:
    return "{0}, {1}".format(server["status" + end], server["health_status" + end])


def _summary(told: Sequence[Mapping[str, Any]], pruned: int, begun: float) -> Dict[str, Any]:
    def count(what: str, value: Any) -> int:
        return sum(server[what] == value for server in told)

    left = [server for server in told if server["status"] != server["status_before"]]
    return {
        "servers": len(told),
        "healthy": count("health_status", "healthy"),
        "degraded": count("health_status", "degraded"),
        "unhealthy": count("health_status", "unhealthy"),
        "unknown": count("health_status", "unknown"),
        "not_asked": count("asked", False),
        "alarms": count("level", "alarm"),
        "findings": sum(len(server["findings"]) for server in told),
        "taken_out": sum(server["status"] == "error" for server in left),
        "brought_back": sum(server["status"] in ("active", "full") and server["status_before"] not in ("active", "full") for server in left),
        "pruned": pruned,
        "seconds": round(time.monotonic() - begun, 1),
    }

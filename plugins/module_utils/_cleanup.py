# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup in the inventory database: it begins with a plan, each step is recorded, and it ends. The event log says who is at it.

A move whose source may go is a row of db_tenant_migrations that is completed, with ``retained_until`` and with a ``proof`` that says
``{"equal": true, "source_database": NAME}``. When the source is dropped, ``retained_until`` becomes NULL.
"""

from __future__ import annotations

import datetime
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _allocation, _cleanup_plan, _lifecycle
from ._connection import connect
from ._errors import PoolsError
from ._inventory import CA_CERTIFICATE, Inventory, plain
from ._names import parse_uuid
from ._secrets import Cipher

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

# Any number that no other program takes in this database: who may begin a cleanup is decided one at a time.
_BEGIN_LOCK = 0x636C65616E
_ASKED_AT_ONCE = 16
# What a cleanup did, by the action planned; the events of one run carry its lease.
_EVENTS = {
    "drop": "cleanup.dropped",
    "deprovision": "cleanup.deprovisioned",
    "archive": "cleanup.archived",
    "remove": "cleanup.removed",
}
_LIVE = "('reserved', 'active', 'migrating', 'releasing')"
OPTIONS: Dict[str, Any] = dict(
    state=dict(type="str", default="begun", choices=["begun", "recorded", "ended"]),
    directories=dict(type="dict", default={}),
    roots=dict(type="list", elements="str", default=[]),
    swarm=dict(type="dict", default={}),
    error_hours=dict(type="float", default=24.0),
    orphan_hours=dict(type="float", default=24.0),
    archive_days=dict(type="float", default=30.0),
    limit=dict(type="int", default=10),
    timeout=dict(type="int", default=5),
    lease_seconds=dict(type="int", default=300),
    run=dict(type="str"),
    items=dict(type="list", elements="dict", default=[]),
    databases=dict(type="list", elements="dict"),
)
RULES: Dict[str, Any] = dict(required_if=[("state", "recorded", ("run",)), ("state", "ended", ("run",))])


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    if params["state"] == "begun":
        _refuse_bad(params)
        return _begin(params, inventory, cipher)
    run = parse_uuid(params["run"], "run")
    done, failures = _outcomes(params["items"], params["databases"])
    with inventory.transaction():
        for item in done:
            _record(inventory, run, params["lease_seconds"], item)
        if params["state"] == "ended":
            _event(inventory, "cleanup.ended", {"run": run})
    return {"changed": bool(done) or params["state"] == "ended", "failures": failures}


def _outcomes(
    items: Sequence[Mapping[str, Any]], databases: Optional[Sequence[Mapping[str, Any]]]
) -> Tuple[List[Mapping[str, Any]], List[Dict[str, Any]]]:
    """Which of the items were done, and why each other was not, by what the module tenant_database said of their databases."""
    if databases is None:
        return list(items), []
    told = {(one["host"], one["port"], one["name"]): one for one in databases}
    done: List[Mapping[str, Any]] = []
    failures: List[Dict[str, Any]] = []
    for item in items:
        one = told.get(
            (item.get("host"), item.get("port"), item.get("database")),
            {"failed": True, "msg": "nothing was said of it"},
        )
        if one["failed"]:
            failures.append({"what": item["what"], "name": item["name"], "why": one["msg"]})
        else:
            done.append(item)
    return done, failures


def _refuse_bad(params: Mapping[str, Any]) -> None:
    for option in ("error_hours", "orphan_hours", "archive_days", "limit"):
        if params[option] < 0:
            raise PoolsError("{0} is {1}.".format(option, params[option]), "Give 0 or more. Nothing was cleaned.")
    for option in ("timeout", "lease_seconds"):
        if params[option] < 1:
            raise PoolsError(
                "{0} is {1}.".format(option, params[option]), "Give 1 second or more. Nothing was cleaned."
            )


def _begin(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    rules = _cleanup_plan.Rules(params["error_hours"], params["orphan_hours"], params["archive_days"], params["limit"])
    # Before the lock: a server that does not answer takes its time.
    answers = _ask_all(inventory, cipher, params["timeout"])
    with inventory.transaction():
        inventory.execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _BEGIN_LOCK})
        other = _at_work(inventory)
        if other:
            return dict(_nothing("busy"), other=plain(other))
        facts = _facts(params, inventory, answers)
        plan = _cleanup_plan.decide(facts, rules)
        if plan.refused:
            return dict(_nothing("refused"), why=plan.refused)
        expired = inventory.rows(
            "UPDATE db_allocations a SET status = 'expired' FROM db_servers s"
            " WHERE a.status = 'reserved' AND a.expires_at < now() AND s.id = a.server_id"
            " RETURNING a.instance_id::text, s.name AS server, a.expires_at"
        )
        if expired:
            # A place that was held by one of these may be what a server was kept for.
            plan = _cleanup_plan.decide(_facts(params, inventory, answers), rules)
        run = str(uuid.uuid4())
        if plan.items:
            _begun(inventory, run, params["lease_seconds"], plan.items, len(expired))
        elif expired:
            _event(inventory, "cleanup.ended", {"run": run, "expired": len(expired)})
    return _result(plan, expired, run)


def _begun(
    inventory: Inventory, run: str, lease_seconds: int, items: Sequence[Mapping[str, Any]], expired: int
) -> None:
    """Written before anything is taken away, so that what a run set out to do is known however it ends."""
    told = [{key: item[key] for key in ("action", "what", "name", "why")} for item in items]
    _event(inventory, "cleanup.began", {"run": run, "expired": expired, "items": told}, lease_seconds)


def _nothing(status: str) -> Dict[str, Any]:
    empty: Dict[str, Any] = {name: [] for name in ("items", "kept", "left", "tenant_databases")}
    return dict(empty, changed=False, status=status, run=None, why="", other=None)


def _result(plan: _cleanup_plan.Plan, expired: Sequence[Mapping[str, Any]], run: str) -> Dict[str, Any]:
    items = [
        {
            "action": "expire",
            "what": "reservation",
            "name": "{0} on {1}".format(row["instance_id"], row["server"]),
            "since": row["expires_at"],
            "why": "its time ran out",
        }
        for row in expired
    ]
    databases = [item["row"] for item in plan.items if item["action"] == "drop"]
    result = _nothing("cleaned" if items or plan.items else "clean")
    result.update(
        changed=bool(items or plan.items),
        run=run if plan.items else None,
        items=[plain(item) for item in items] + [_shown(item) for item in plan.items],
        left=[_shown(item) for item in plan.left],
        kept=plan.kept,
        tenant_databases=[
            _allocation.with_login(row, name=row["database"], owner=row["user"], quarantine_name=row["quarantine_name"])
            for row in databases
        ],
    )
    after = ["{0} {1}: {2}".format(item["action"], item["what"], item["name"]) for item in result["items"]]
    result["diff"] = {"before": "", "after": "".join(line + "\n" for line in after)}
    return result


def _shown(item: Mapping[str, Any]) -> Dict[str, Any]:
    """An item with what its recording needs and nothing secret."""
    row = item.get("row") or {}
    shown = plain(item, ("row",))
    shown.update({key: row[key] for key in ("allocation_id", "instance_id", "migration_id") if row.get(key)})
    if row:
        shown.update(server=row["server"], host=row["host"], port=row["port"], database=row["database"])
    return shown


# --- what is there


def _facts(params: Mapping[str, Any], inventory: Inventory, answers: Mapping[str, Any]) -> _cleanup_plan.Facts:
    names = inventory.row(
        "SELECT coalesce(array_agg(n) FILTER (WHERE wanted), '{{}}') AS wanted, coalesce(array_agg(n), '{{}}') AS known"
        " FROM (SELECT status IN {live} OR (status = 'released' AND dropped_at IS NULL) AS wanted,"
        " unnest(ARRAY[database_name, quarantine_name]) AS n FROM db_allocations) found WHERE n IS NOT NULL".format(
            live=_LIVE
        )
        # The copies that moves left behind are in it too.
        if _holds_files(params)
        else "SELECT '{}'::text[] AS wanted, '{}'::text[] AS known"
    )
    moved = inventory.rows(
        "SELECT proof ->> 'source_database' AS name, retained_until FROM db_tenant_migrations WHERE proof ? 'source_database'"
    )
    wanted = set(names["wanted"]) if names else set()
    known = set(names["known"]) if names else set()
    known.update(row["name"] for row in moved)
    wanted.update(row["name"] for row in moved if row["retained_until"])
    objects = [
        one for kind, inspected in params["swarm"].items() for one in _cleanup_plan.swarm_objects(kind, inspected)
    ]
    now = inventory.rows("SELECT now() AS now")[0]["now"]
    servers = [dict(row, answer=answers.get(row["name"])) for row in _servers(inventory)]
    return _cleanup_plan.Facts(
        now,
        servers,
        _released(inventory),
        _moves(inventory),
        frozenset(wanted),
        frozenset(known),
        _directories(params),
        frozenset(params["roots"]),
        objects,
    )


def _holds_files(params: Mapping[str, Any]) -> bool:
    """All names of all allocations are a long list, needed only where files are judged by the databases in them."""
    return any(one["databases"] for one in _directories(params))


def _directories(params: Mapping[str, Any]) -> List[Dict[str, Any]]:
    return [
        dict(one, place=place, backend="process" if place == "process" else "swarm")
        for place, found in params["directories"].items()
        for one in found
    ]


def _servers(inventory: Inventory) -> List[Dict[str, Any]]:
    return inventory.rows(
        "SELECT s.id::text, s.name, s.server_type, s.status, s.storage_path, s.backend,"
        " coalesce(s.lease_expires_at > now(), false) AS leased,"
        " s.activated_at IS NOT NULL OR coalesce(a.used, false) AS used, coalesce(a.live, 0) AS live,"
        " coalesce(a.undropped, 0) + (SELECT count(*) FROM db_tenant_migrations m WHERE m.source_server_id = s.id"
        " AND m.status = 'completed' AND m.retained_until IS NOT NULL) AS undropped,"
        " greatest(s.status_changed_at, a.ended) AS since"
        " FROM db_servers s LEFT JOIN LATERAL (SELECT bool_or(activated_at IS NOT NULL) AS used,"
        " count(*) FILTER (WHERE status IN {0}) AS live, count(*) FILTER (WHERE status = 'released' AND dropped_at IS NULL) AS undropped,"
        " max(CASE status WHEN 'released' THEN released_at WHEN 'expired' THEN least(expires_at, updated_at) END) AS ended"
        " FROM db_allocations WHERE server_id = s.id AND s.status IN ('error', 'deprovisioning')) a ON true"
        " ORDER BY s.created_at, s.name".format(_LIVE)
    )


def _released(inventory: Inventory) -> List[Dict[str, Any]]:
    return inventory.rows(
        'SELECT a.id::text AS allocation_id, a.instance_id::text, a.database_name AS database, a.role_name AS "user", a.quarantine_name,'
        " a.drop_after, s.name AS server, s.status AS server_status, s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0}"
        " FROM db_allocations a JOIN db_servers s ON s.id = a.server_id"
        " WHERE a.status = 'released' AND a.dropped_at IS NULL ORDER BY a.drop_after, a.id".format(CA_CERTIFICATE)
    )


def _moves(inventory: Inventory) -> List[Dict[str, Any]]:
    return inventory.rows(
        'SELECT m.id::text AS migration_id, m.proof, m.retained_until, a.instance_id::text, a.database_name AS database, a.role_name AS "user",'
        " a.status AS allocation_status, s.name AS server, s.status AS server_status, t.name AS target, p.name AS place,"
        " s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0}"
        " FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id JOIN db_servers p ON p.id = a.server_id"
        " JOIN db_servers s ON s.id = m.source_server_id JOIN db_servers t ON t.id = m.target_server_id"
        " WHERE m.status = 'completed' AND m.retained_until IS NOT NULL ORDER BY m.retained_until, m.id".format(
            CA_CERTIFICATE
        )
    )


def _ask_all(inventory: Inventory, cipher: Cipher, timeout: int) -> Dict[str, Dict[str, Any]]:
    """How each server in error answers, all at once, by its name."""
    rows = inventory.rows(
        "SELECT s.name, s.host, s.port, s.admin_user, s.admin_password_encrypted, s.tls, {0}"
        " FROM db_servers s WHERE s.status = 'error'".format(CA_CERTIFICATE)
    )
    if not rows:
        return {}
    with ThreadPoolExecutor(min(len(rows), _ASKED_AT_ONCE)) as pool:
        return dict(zip([row["name"] for row in rows], pool.map(lambda row: _ask(row, cipher, timeout), rows)))


def _ask(row: Mapping[str, Any], cipher: Cipher, timeout: int) -> Dict[str, Any]:
    try:
        password = (
            cipher.decrypt(row["admin_password_encrypted"], "server {0}".format(row["name"]))
            if row["admin_password_encrypted"]
            else ""
        )
        login: Dict[str, Any] = {
            "login_host": row["host"],
            "login_port": row["port"],
            "login_user": row["admin_user"],
            "login_password": password,
            "connect_params": {
                "connect_timeout": max(2, timeout),
                "options": "-c statement_timeout={0}s".format(timeout),
            },
        }
        if row["tls"]:
            login.update(ssl_mode="verify-full", ca_certificate=row["ca_certificate"] or "")
        connection = connect(login, "postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT datname::text FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1"
                )
                return {"databases": [found[0] for found in cursor.fetchall()]}
        finally:
            connection.close()
    except PoolsError as error:
        # libpq's own guess would stand in the midst of a sentence.
        return {"problem": error.problem.split(" Is the server running", 1)[0]}
    except psycopg2.Error as error:
        return {"problem": " ".join(str(error).split())}


# --- what was done


def _at_work(inventory: Inventory) -> Optional[Dict[str, Any]]:
    """The cleanup that has begun, not ended, and whose lease has not run out."""
    found = inventory.row(
        "SELECT kind, actor, happened_at, (detail ->> 'until')::timestamptz AS until, (detail ->> 'until')::timestamptz > now() AS leased"
        " FROM db_events WHERE kind = ANY (%(kinds)s) AND allocation_id IS NULL ORDER BY happened_at DESC LIMIT 1",
        {"kinds": ["cleanup.began", "cleanup.ended", *_EVENTS.values()]},
    )
    return {key: found[key] for key in ("actor", "until")} if found and found["leased"] else None


def _record(inventory: Inventory, run: str, lease_seconds: int, item: Mapping[str, Any]) -> None:
    kind = _EVENTS.get(str(item.get("action")))
    if kind is None:
        raise PoolsError(
            "{0!r} is no action of a cleanup.".format(str(item.get("action"))[:60]),
            "Hand on the items as they were given.",
        )
    if item.get("migration_id"):
        inventory.execute(
            "UPDATE db_tenant_migrations SET retained_until = NULL, updated_at = now() WHERE id = %(id)s::uuid AND status = 'completed'",
            {"id": item["migration_id"]},
        )
    elif item.get("allocation_id"):
        _lifecycle.dropped(inventory, [item["allocation_id"]])
    detail = {key: item[key] for key in ("what", "name", "why", "path", "migration_id") if item.get(key)}
    if item.get("allocation_id"):
        detail["allocation_id"] = item["allocation_id"]
    _event(inventory, kind, dict(detail, run=run), lease_seconds, item)


def _event(
    inventory: Inventory,
    kind: str,
    detail: Mapping[str, Any],
    lease_seconds: Optional[int] = None,
    item: Optional[Mapping[str, Any]] = None,
) -> None:
    if lease_seconds is not None:
        now = inventory.rows("SELECT clock_timestamp() AS now")[0]["now"]
        detail = dict(detail, until=(now + datetime.timedelta(seconds=lease_seconds)).isoformat())
    inventory.execute(
        "INSERT INTO db_events (kind, server_id, instance_id, detail) VALUES (%(kind)s,"
        " (SELECT id FROM db_servers WHERE name = %(server)s), %(instance)s::uuid, %(detail)s::jsonb)",
        {
            "kind": kind,
            "server": (item or {}).get("server")
            or ((item or {}).get("name") if (item or {}).get("what") == "server" else None),
            "instance": (item or {}).get("instance_id"),
            "detail": json.dumps(detail, default=str),
        },
    )

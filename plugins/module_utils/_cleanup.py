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
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _allocation, _cleanup_facts, _cleanup_plan, _lifecycle, _moving_back
from ._errors import PoolsError
from ._inventory import Inventory, plain
from ._names import parse_uuid
from ._secrets import Cipher

# Any number that no other program takes in this database: who may begin a cleanup is decided one at a time.
_BEGIN_LOCK = 0x636C65616E
# What a cleanup did, by the action planned; the events of one run carry its lease.
_EVENTS = {
    "unlink": "cleanup.unlinked",
    "drop": "cleanup.dropped",
    "deprovision": "cleanup.deprovisioned",
    "archive": "cleanup.archived",
    "remove": "cleanup.removed",
}
OPTIONS: Dict[str, Any] = dict(
    state=dict(type="str", default="begun", choices=["begun", "recorded", "ended"]),
    directories=dict(type="dict", default={}),
    roots=dict(type="list", elements="str", default=[]),
    swarm=dict(type="dict", default={}),
    error_hours=dict(type="float", default=24.0),
    orphan_hours=dict(type="float", default=24.0),
    end_ways_back=dict(type="bool", default=False),
    emptied_hours=dict(type="float", default=0.0),
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
    for option in ("error_hours", "orphan_hours", "emptied_hours", "archive_days", "limit"):
        if params[option] < 0:
            raise PoolsError("{0} is {1}.".format(option, params[option]), "Give 0 or more. Nothing was cleaned.")
    for option in ("timeout", "lease_seconds"):
        if params[option] < 1:
            raise PoolsError(
                "{0} is {1}.".format(option, params[option]), "Give 1 second or more. Nothing was cleaned."
            )


def _begin(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    rules = _cleanup_plan.Rules(
        params["error_hours"], params["orphan_hours"], params["archive_days"], params["limit"], params["emptied_hours"]
    )
    # Before the lock: a server that does not answer takes its time.
    answers = _cleanup_facts.answers_of(inventory, cipher, params)
    with inventory.transaction():
        inventory.execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _BEGIN_LOCK})
        other = _at_work(inventory)
        if other:
            return dict(_nothing("busy"), other=plain(other))
        facts = _cleanup_facts.read(params, inventory, answers)
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
            plan = _cleanup_plan.decide(_cleanup_facts.read(params, inventory, answers), rules)
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
    empty: Dict[str, Any] = {name: [] for name in ("items", "kept", "left", "ways_back", "tenant_databases", "applications")}
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
    settled = [row for row in databases if row.get("application")]
    result = _nothing("cleaned" if items or plan.items else "clean")
    result.update(
        changed=bool(items or plan.items),
        run=run if plan.items else None,
        items=[plain(item) for item in items] + [_shown(item) for item in plan.items],
        left=[_shown(item) for item in plan.left],
        kept=plan.kept,
        ways_back=[dict(plain(item["ends"]), item=_shown(item)) for item in plan.items if item["action"] == "unlink"],
        tenant_databases=[
            _allocation.with_login(row, name=row["database"], owner=row["user"], quarantine_name=row["quarantine_name"])
            for row in databases
        ],
        applications=[
            {key: row[key] for key in ("migration_id", "instance_id", "application", "host", "port", "database")} for row in settled
        ],
    )
    after = ["{0} {1}: {2}".format(item["action"], item["what"], item["name"]) for item in result["items"]]
    result["diff"] = {"before": "", "after": "".join(line + "\n" for line in after)}
    return result


def _shown(item: Mapping[str, Any]) -> Dict[str, Any]:
    """An item with what its recording needs and nothing secret."""
    row = item.get("row") or {}
    shown = plain(item, ("row", "ends"))
    shown.update({key: row[key] for key in ("allocation_id", "instance_id", "migration_id") if row.get(key)})
    if row:
        shown.update(server=row["server"], host=row["host"], port=row["port"], database=row["database"])
    return shown


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
    if item["action"] == "unlink":
        _moving_back.end(inventory, [str(item["migration_id"])], str(item["why"]))
    elif item.get("migration_id"):
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

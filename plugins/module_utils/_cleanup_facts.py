# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup is decided by: the rows of the inventory database, and how the servers answer that may be empty."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Mapping

from . import _cleanup_plan, _moving_back
from ._connection import connect
from ._errors import PoolsError
from ._inventory import CA_CERTIFICATE, Inventory
from ._secrets import Cipher

try:
    import psycopg2
except ImportError:
    pass  # _connection reports it with the reason

_ASKED_AT_ONCE = 16
_LIVE = "('reserved', 'active', 'migrating', 'releasing')"


def read(params: Mapping[str, Any], inventory: Inventory, answers: Mapping[str, Any]) -> _cleanup_plan.Facts:
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
    emptied = _emptied(inventory) if params["emptied_hours"] else {}
    servers = [dict(row, answer=answers.get(row["name"]), emptied=emptied.get(row["name"])) for row in _servers(inventory)]
    return _cleanup_plan.Facts(
        now,
        servers,
        _released(inventory),
        _moves(inventory),
        _following(params, inventory),
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


def _emptied(inventory: Inventory) -> Dict[str, datetime.datetime]:
    """Servers of one instance that nobody is on or moving to and that keep nothing, since when; one that no tenant was ever on still waits for its own."""
    found = inventory.rows(
        "SELECT s.name, greatest(s.status_changed_at, a.touched, m.touched) AS since FROM db_servers s,"
        " LATERAL (SELECT count(*) AS n, max(updated_at) AS touched, count(*) FILTER (WHERE status IN {0} OR (status = 'released'"
        " AND dropped_at IS NULL)) AS held FROM db_allocations WHERE server_id = s.id) a,"
        " LATERAL (SELECT count(*) AS n, max(updated_at) AS touched, count(*) FILTER (WHERE status NOT IN ('completed', 'rolled_back')"
        " OR returning_at IS NOT NULL OR lease_expires_at IS NOT NULL OR (source_server_id = s.id AND retained_until IS NOT NULL)) AS held"
        " FROM db_tenant_migrations WHERE s.id IN (source_server_id, target_server_id)) m"
        " WHERE s.server_type = 'dedicated' AND s.current_instances = 0 AND a.n + m.n > 0 AND a.held + m.held = 0"
        # A run that died had taken it out of placement.
        " AND (s.status = 'active' OR (s.status = 'maintenance' AND starts_with(s.status_reason, 'cleanup: ')))".format(_LIVE)
    )
    return {row["name"]: row["since"] for row in found}


def _released(inventory: Inventory) -> List[Dict[str, Any]]:
    return inventory.rows(
        'SELECT a.id::text AS allocation_id, a.instance_id::text, a.database_name AS database, a.role_name AS "user", a.quarantine_name,'
        " a.drop_after, s.name AS server, s.status AS server_status, s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0}"
        " FROM db_allocations a JOIN db_servers s ON s.id = a.server_id"
        " WHERE a.status = 'released' AND a.dropped_at IS NULL ORDER BY a.drop_after, a.id".format(CA_CERTIFICATE)
    )


def _moves(inventory: Inventory) -> List[Dict[str, Any]]:
    # The application's former connection is needed as long as a later move can still be undone.
    return inventory.rows(
        "SELECT CASE WHEN NOT EXISTS (SELECT FROM db_tenant_migrations n WHERE n.allocation_id = m.allocation_id AND n.created_at > m.created_at"
        " AND n.status = 'completed' AND n.retained_until IS NOT NULL) THEN m.application ELSE '{{}}' END"
        ' AS application, m.id::text AS migration_id, m.proof, m.retained_until, a.instance_id::text, a.database_name AS database, a.role_name AS "user",'
        " a.status AS allocation_status, s.name AS server, s.status AS server_status, t.name AS target, p.name AS place,"
        # Moved on since, each time with a proof, the tenant has its data where the last move led.
        " (SELECT led.name FROM db_tenant_migrations l JOIN db_servers led ON led.id = l.target_server_id WHERE l.allocation_id = m.allocation_id"
        " AND l.status = 'completed' AND l.returning_at IS NULL AND l.proof ->> 'equal' = 'true' AND l.cutover_at >= m.cutover_at"
        " ORDER BY l.cutover_at DESC LIMIT 1) AS led_to,"
        " s.host, s.port, s.tls, s.admin_user, s.admin_password_encrypted, {0}"
        " FROM db_tenant_migrations m JOIN db_allocations a ON a.id = m.allocation_id JOIN db_servers p ON p.id = a.server_id"
        " JOIN db_servers s ON s.id = m.source_server_id JOIN db_servers t ON t.id = m.target_server_id"
        " WHERE m.status = 'completed' AND m.retained_until IS NOT NULL ORDER BY m.retained_until, m.id".format(
            CA_CERTIFICATE
        )
    )


def _following(params: Mapping[str, Any], inventory: Inventory) -> List[Dict[str, Any]]:
    asked = "it was asked for" if params["end_ways_back"] else None
    return [dict(one, why=one["why"] or asked) for one in _moving_back.overdue(inventory)]


def answers_of(inventory: Inventory, cipher: Cipher, params: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """How each server in error, and each that was emptied, answers, all at once, by its name."""
    timeout = params["timeout"]
    rows = inventory.rows(
        "SELECT s.name, s.host, s.port, s.admin_user, s.admin_password_encrypted, s.tls, {0}"
        " FROM db_servers s WHERE s.status = 'error' OR s.name = ANY (%(emptied)s)".format(CA_CERTIFICATE),
        {"emptied": list(_emptied(inventory)) if params["emptied_hours"] else []},
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

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory database that has been in use for 60 days: rows only, as the playbooks would have left them, as many servers as asked for."""

from __future__ import annotations

import contextlib
from typing import Any

# Every tenth server is not well: of each ten, the fifth is degraded, and of each hundred one is in error.
# session_replication_role keeps the triggers from taking the rows through all of their states one by one.
FILL = """
SET session_replication_role = replica;
INSERT INTO db_servers (name, server_type, backend, host, port, status, status_reason, health_status, health_check_failures, last_health_check,
    max_instances, current_instances, connection_budget, promised_connections, storage_budget_bytes, promised_storage_bytes, cpu_limit,
    memory_limit_bytes, postgres_version, created_at, activated_at, status_changed_at, tls, certificate_expires_at, admin_password_encrypted,
    dedicated_customer_id, dedicated_instance_id)
SELECT CASE WHEN dedicated THEN 'postgres-dedicated-' ELSE 'postgres-pool-' END || n, CASE WHEN dedicated THEN 'dedicated' ELSE 'shared' END, 'process',
    '10.' || n / 65536 || '.' || n / 256 %% 256 || '.' || n %% 256, 5432, CASE WHEN n %% 100 = 15 THEN 'error' ELSE 'active' END,
    CASE WHEN n %% 100 = 15 THEN 'connection refused' END,
    CASE WHEN n %% 100 = 15 THEN 'unhealthy' WHEN n %% 20 = 5 THEN 'degraded' ELSE 'healthy' END,
    CASE WHEN n %% 100 = 15 THEN 3 WHEN n %% 20 = 5 THEN 1 ELSE 0 END, now() - interval '2 minutes',
    places, taken, places * 6, taken * 6, places * (5::bigint << 30), taken * (3::bigint << 30), 2, 4::bigint << 30, '150014',
    now() - interval '60 days' - n * interval '1 second', now() - interval '60 days', now() - interval '60 days', n %% 7 = 0,
    CASE WHEN n %% 7 = 0 THEN now() + interval '80 days' END, 'gAAAAAsecret-of-a-server',
    CASE WHEN dedicated THEN gen_random_uuid() END, CASE WHEN dedicated THEN gen_random_uuid() END
FROM (SELECT n, n %% 10 = 9 AS dedicated, CASE WHEN n %% 10 = 9 THEN 1 ELSE 50 END AS places,
    CASE WHEN n %% 10 = 9 THEN 1 ELSE 10 + n * 7 %% 38 END AS taken FROM generate_series(1, %(servers)s) n) s;
INSERT INTO db_allocations (instance_id, customer_id, plan_tier, server_id, status, database_name, role_name, password_encrypted, connections,
    storage_bytes, reserved_at, activated_at)
SELECT gen_random_uuid(), gen_random_uuid(), CASE WHEN s.server_type = 'dedicated' THEN 'premium' WHEN n %% 4 = 0 THEN 'professional' ELSE 'standard' END,
    s.id, 'active', 'odoo_' || md5(s.name || '-' || n), 'odoo_' || md5(s.name || '-' || n), 'gAAAAAsecret-of-a-tenant', 6, 3::bigint << 30,
    now() - (n * 59.0 / s.current_instances) * interval '1 day' - interval '3 seconds', now() - (n * 59.0 / s.current_instances) * interval '1 day'
FROM db_servers s CROSS JOIN generate_series(1, 50) n WHERE n <= s.current_instances;
INSERT INTO db_health_checks (server_id, checked_at, health_status, latency_ms, postgres_version, database_count, connections_used, problem, detail)
SELECT s.id, now() - interval '2 minutes' - n * interval '1 hour', CASE WHEN n < 3 THEN s.health_status ELSE 'healthy' END,
    CASE WHEN n < 3 AND s.health_status <> 'healthy' THEN NULL ELSE 2.5 END, '150014', s.current_instances, s.current_instances * 2,
    CASE WHEN n < 3 AND s.health_status <> 'healthy' THEN 'connection refused' END,
    jsonb_build_object('database_bytes', s.current_instances * (200::bigint << 20), 'connections_allowed', s.connection_budget,
        'oldest_transaction_seconds', 4, 'wraparound_age', 123456, 'slots_inactive', 0, 'slots_retained_bytes', 0)
FROM db_servers s CROSS JOIN generate_series(0, 23) n;
INSERT INTO db_events (happened_at, actor, kind, server_id, detail)
SELECT now() - row_number() OVER (ORDER BY name) * interval '7 minutes', 'root@controller', 'server.' || status, id,
    jsonb_build_object('name', name, 'reason', status_reason) FROM db_servers;
RESET session_replication_role;
"""


def fill(registry: Any, servers: int) -> None:
    with contextlib.closing(registry.admin()) as connection, connection.cursor() as cursor:
        cursor.execute(FILL, {"servers": servers})
        cursor.execute("ANALYZE")

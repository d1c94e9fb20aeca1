-- A platform may bring its table of instances at any time; the next run of the role attaches it.
SELECT db_attach_platform();

-- What the service role may do: read all, make and change rows of the registry, and prune health checks.
-- It owns nothing, deletes nothing else, and cannot touch a counter: those follow the allocations.
REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC;
GRANT CONNECT ON DATABASE {database} TO {service};
GRANT USAGE ON SCHEMA public TO {service};
GRANT SELECT ON db_schema_versions, db_state_transitions, db_plans, db_current_plans, db_servers, db_allocations,
    db_tenant_migrations, db_migration_holds, db_health_checks, db_events, db_authorities TO {service};
GRANT USAGE, SELECT ON SEQUENCE db_pool_number TO {service};
GRANT INSERT (name, server_type, backend, host, port, status, status_reason, max_instances, connection_budget, storage_budget_bytes,
    allocation_strategy, priority, cpu_limit, memory_limit_bytes, storage, storage_path, postgres_version, postgres_image, swarm_service_id,
    swarm_service_name, node_placement, admin_user, admin_password_encrypted, dedicated_customer_id, dedicated_instance_id,
    lease_holder, lease_expires_at, tls) ON db_servers TO {service};
GRANT UPDATE (status, status_reason, host, port, health_status, last_health_check, health_check_failures, max_instances,
    connection_budget, storage_budget_bytes, allocation_strategy, priority, cpu_limit, memory_limit_bytes, storage_path,
    postgres_version, postgres_image, swarm_service_id, swarm_service_name, node_placement, admin_user, admin_password_encrypted,
    lease_holder, lease_expires_at, certificate_expires_at) ON db_servers TO {service};
GRANT INSERT (instance_id, customer_id, plan_tier, requires_dedicated, server_id, status, database_name, role_name,
    password_encrypted, connections, storage_bytes, expires_at, application) ON db_allocations TO {service};
-- An allocation changes its server by its move only, and what a move has once been promised stays.
REVOKE UPDATE (server_id) ON db_allocations FROM {service};
REVOKE INSERT, UPDATE ON db_tenant_migrations FROM {service};
GRANT UPDATE (plan_tier, requires_dedicated, status, password_encrypted, next_password_encrypted,
    password_changed_at, connections,
    storage_bytes, quarantine_name, expires_at, activated_at, released_at, drop_after, dropped_at, application) ON db_allocations TO {service};
GRANT INSERT (id, allocation_id, source_server_id, target_server_id, mode, status_reason, plan_tier, requires_dedicated, connections, storage_bytes,
    source_database, lease_holder, lease_actor, lease_expires_at, application) ON db_tenant_migrations TO {service};
GRANT UPDATE (status, status_reason, steps, proof, progress, retained_until, returning_at, writes_stopped_at, lease_holder, lease_actor,
    lease_expires_at, updated_at, application, mode, mode_reason, way_back, way_back_reason) ON db_tenant_migrations TO {service};
GRANT INSERT, DELETE ON db_health_checks TO {service};
GRANT INSERT ON db_events TO {service};
GRANT INSERT (name, certificate, private_key_encrypted, expires_at) ON db_authorities TO {service};
GRANT UPDATE (current, private_key_encrypted) ON db_authorities TO {service};

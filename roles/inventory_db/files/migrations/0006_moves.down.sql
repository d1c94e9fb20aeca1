-- A move that runs could be neither ended nor rolled back without what goes here.
DO $do$
BEGIN
    IF current_setting('postgres_pools.discard', true) IS DISTINCT FROM 'on'
       AND EXISTS (SELECT FROM db_tenant_migrations WHERE status NOT IN ('completed', 'rolled_back') OR returning_at IS NOT NULL) THEN
        RAISE EXCEPTION 'there are moves that have not ended; let them end or roll them back, or set inventory_db_discard=true to lose them';
    END IF;
END $do$;
-- What the moves held of the servers goes with them; which source is kept until when stays in its own column.
UPDATE db_servers s SET current_instances = s.current_instances - h.instances, promised_connections = s.promised_connections - h.connections,
    promised_storage_bytes = s.promised_storage_bytes - h.storage_bytes
FROM (SELECT server_id, sum(instances) AS instances, sum(connections) AS connections, sum(storage_bytes) AS storage_bytes
      FROM db_migration_holds GROUP BY server_id) h WHERE s.id = h.server_id;
DROP TRIGGER follow_step ON db_tenant_migrations;
DROP TRIGGER follow_start ON db_tenant_migrations;
DROP TRIGGER b_check_step ON db_tenant_migrations;
DROP TRIGGER b_check_start ON db_tenant_migrations;
DROP TRIGGER a_refuse_unmoved ON db_allocations;
DROP VIEW db_migration_holds;
DROP FUNCTION db_migrations_follow(), db_migrations_check(), db_allocations_refuse_unmoved(), db_migration_held(db_tenant_migrations);

CREATE OR REPLACE FUNCTION db_allocations_count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    live constant text[] := ARRAY['reserved', 'active', 'migrating', 'releasing'];
    had_place boolean := OLD.status = ANY (live);
    has_place boolean := NEW.status = ANY (live);
    had_bytes bigint := CASE WHEN had_place OR (OLD.status = 'released' AND OLD.dropped_at IS NULL)
                             THEN OLD.storage_bytes ELSE 0 END;
    has_bytes bigint := CASE WHEN has_place OR (NEW.status = 'released' AND NEW.dropped_at IS NULL)
                             THEN NEW.storage_bytes ELSE 0 END;
BEGIN
    IF OLD.server_id <> NEW.server_id THEN
        UPDATE db_servers SET current_instances = current_instances - had_place::int,
            promised_connections = promised_connections - CASE WHEN had_place THEN OLD.connections ELSE 0 END,
            promised_storage_bytes = promised_storage_bytes - had_bytes
        WHERE id = OLD.server_id;
        had_place := false;
        had_bytes := 0;
    END IF;
    IF (has_place, has_bytes) IS DISTINCT FROM (had_place, had_bytes)
       OR (has_place AND OLD.connections <> NEW.connections) THEN
        UPDATE db_servers SET current_instances = current_instances + has_place::int - had_place::int,
            promised_connections = promised_connections + CASE WHEN has_place THEN NEW.connections ELSE 0 END
                                   - CASE WHEN had_place THEN OLD.connections ELSE 0 END,
            promised_storage_bytes = promised_storage_bytes + has_bytes - had_bytes
        WHERE id = NEW.server_id;
    END IF;
    IF OLD.status <> NEW.status THEN
        INSERT INTO db_events (kind, server_id, allocation_id, instance_id)
        VALUES ('allocation.' || NEW.status, NEW.server_id, NEW.id, NEW.instance_id);
    END IF;
    RETURN NULL;
END $$;

DROP INDEX db_servers_one_dedicated;
DO $do$
BEGIN
    IF EXISTS (SELECT FROM db_servers WHERE status IN ('provisioning', 'initializing', 'active', 'full', 'maintenance')
               GROUP BY dedicated_instance_id HAVING count(dedicated_instance_id) > 1) THEN
        IF current_setting('postgres_pools.discard', true) IS DISTINCT FROM 'on' THEN
            RAISE EXCEPTION 'an instance has two servers of its own, of which the older schema knows one; deprovision the one that it moved away from first';
        END IF;
        RETURN;
    END IF;
    CREATE UNIQUE INDEX db_servers_one_dedicated ON db_servers (dedicated_instance_id)
        WHERE status IN ('provisioning', 'initializing', 'active', 'full', 'maintenance');
END $do$;
DROP INDEX db_tenant_migrations_of_allocation;
ALTER TABLE db_tenant_migrations
    DROP COLUMN plan_tier, DROP COLUMN requires_dedicated, DROP COLUMN connections, DROP COLUMN storage_bytes,
    DROP COLUMN source_plan_tier, DROP COLUMN source_requires_dedicated, DROP COLUMN source_connections, DROP COLUMN source_storage_bytes,
    DROP COLUMN source_database, DROP COLUMN lease_holder, DROP COLUMN lease_actor, DROP COLUMN lease_expires_at, DROP COLUMN progress,
    DROP COLUMN started_at, DROP COLUMN writes_stopped_at, DROP COLUMN cutover_at, DROP COLUMN returning_at, DROP COLUMN ended_at;
COMMENT ON COLUMN db_tenant_migrations.retained_until IS NULL;

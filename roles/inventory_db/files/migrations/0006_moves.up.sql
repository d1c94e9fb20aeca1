-- A move holds its place on the target before anything is copied, and its source keeps what is needed for the way back.

ALTER TABLE db_tenant_migrations
    -- What the allocation will be after the cutover, and what it was before: the way back restores it.
    ADD COLUMN plan_tier                 text,
    ADD COLUMN requires_dedicated        boolean,
    ADD COLUMN connections               integer CHECK (connections > 0),
    ADD COLUMN storage_bytes             bigint CHECK (storage_bytes > 0),
    ADD COLUMN source_plan_tier          text,
    ADD COLUMN source_requires_dedicated boolean,
    ADD COLUMN source_connections        integer CHECK (source_connections > 0),
    ADD COLUMN source_storage_bytes      bigint CHECK (source_storage_bytes > 0),
    -- With "_user" after it, it is the owner's.
    ADD COLUMN source_database           text CHECK (octet_length(source_database) BETWEEN 1 AND 58),
    ADD COLUMN lease_holder              uuid,
    ADD COLUMN lease_actor               text,
    ADD COLUMN lease_expires_at          timestamptz,
    ADD COLUMN progress                  jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN started_at                timestamptz,
    ADD COLUMN writes_stopped_at         timestamptz,
    ADD COLUMN cutover_at                timestamptz,
    ADD COLUMN returning_at              timestamptz,
    ADD COLUMN ended_at                  timestamptz,
    ADD CONSTRAINT db_tenant_migrations_returning_when_done CHECK (returning_at IS NULL OR status = 'completed');
COMMENT ON COLUMN db_tenant_migrations.source_database IS 'The name under which the source is put aside after the cutover.';
COMMENT ON COLUMN db_tenant_migrations.returning_at IS 'Since when a completed move is on its way back; the tenant is migrating as long as it is.';
COMMENT ON COLUMN db_tenant_migrations.retained_until IS 'Until when the source is kept for a way back; NULL when there is none, or when it was dropped.';
CREATE INDEX db_tenant_migrations_of_allocation ON db_tenant_migrations (allocation_id, created_at);

-- While a tenant with a server of its own moves to another one, it has two. What must not be is two that are being made.
DROP INDEX IF EXISTS db_servers_one_dedicated;
CREATE UNIQUE INDEX db_servers_one_dedicated ON db_servers (dedicated_instance_id) WHERE status IN ('provisioning', 'initializing');

-- What a move takes of a server, beside what its allocation takes of the one that it is on.
CREATE FUNCTION db_migration_held(m db_tenant_migrations)
RETURNS TABLE (server_id uuid, instances integer, connections integer, storage_bytes bigint) LANGUAGE sql IMMUTABLE AS $$
    SELECT m.target_server_id, 1, m.connections, m.storage_bytes WHERE m.status IN ('planned', 'preparing', 'copying', 'verifying')
    UNION ALL
    -- Until the tenant works in its new place, and while it is brought back, nobody may take the old one.
    SELECT m.source_server_id, 1, m.source_connections, m.source_storage_bytes
    WHERE m.status = 'cutover' OR (m.status = 'completed' AND m.returning_at IS NOT NULL)
    UNION ALL
    SELECT m.source_server_id, 0, 0, m.source_storage_bytes
    WHERE m.status = 'completed' AND m.returning_at IS NULL AND m.retained_until IS NOT NULL
$$;

DO $do$
BEGIN
    IF EXISTS (SELECT FROM db_tenant_migrations WHERE status NOT IN ('completed', 'rolled_back'))
       OR EXISTS (SELECT FROM db_allocations WHERE status = 'migrating') THEN
        RAISE EXCEPTION 'there are moves that have not ended, written by hand: no release before this one made any; complete them or roll them back first';
    END IF;
END $do$;
UPDATE db_tenant_migrations m SET plan_tier = a.plan_tier, requires_dedicated = a.requires_dedicated, connections = a.connections,
    storage_bytes = a.storage_bytes, source_plan_tier = a.plan_tier, source_requires_dedicated = a.requires_dedicated,
    source_connections = a.connections, source_storage_bytes = a.storage_bytes, source_database = left(m.proof ->> 'source_database', 58),
    ended_at = m.updated_at
FROM db_allocations a WHERE a.id = m.allocation_id;
ALTER TABLE db_tenant_migrations
    ALTER COLUMN plan_tier SET NOT NULL, ALTER COLUMN requires_dedicated SET NOT NULL,
    ALTER COLUMN connections SET NOT NULL, ALTER COLUMN storage_bytes SET NOT NULL,
    ALTER COLUMN source_plan_tier SET NOT NULL, ALTER COLUMN source_requires_dedicated SET NOT NULL,
    ALTER COLUMN source_connections SET NOT NULL, ALTER COLUMN source_storage_bytes SET NOT NULL;

CREATE VIEW db_migration_holds AS
    SELECT m.id AS migration_id, h.server_id, h.instances, h.connections, h.storage_bytes
    FROM db_tenant_migrations m CROSS JOIN LATERAL db_migration_held(m) h;
UPDATE db_servers s SET promised_storage_bytes = s.promised_storage_bytes + h.storage_bytes
FROM (SELECT server_id, sum(storage_bytes)::bigint AS storage_bytes FROM db_migration_holds GROUP BY server_id) h WHERE s.id = h.server_id;

-- As before, but for the server: both sides of its change are summed up by the move.
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
    IF OLD.server_id = NEW.server_id AND ((has_place, has_bytes) IS DISTINCT FROM (had_place, had_bytes)
       OR (has_place AND OLD.connections <> NEW.connections)) THEN
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

CREATE FUNCTION db_allocations_refuse_unmoved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    moving boolean := EXISTS (SELECT FROM db_tenant_migrations m WHERE m.allocation_id = NEW.id
                              AND (m.status NOT IN ('completed', 'rolled_back') OR m.returning_at IS NOT NULL));
BEGIN
    -- One level deep is the writer's own statement; a move's trigger is the one that goes deeper.
    IF OLD.server_id <> NEW.server_id AND pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'an allocation changes its server by a move only' USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'server_id';
    ELSIF OLD.status <> NEW.status AND 'migrating' IN (OLD.status, NEW.status) AND moving <> (NEW.status = 'migrating') THEN
        RAISE EXCEPTION 'an allocation is migrating as long as it has a move, and no longer'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'status';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a_refuse_unmoved BEFORE UPDATE OF status, server_id ON db_allocations FOR EACH ROW
    WHEN (OLD.server_id <> NEW.server_id OR (OLD.status <> NEW.status AND 'migrating' IN (OLD.status, NEW.status)))
    EXECUTE FUNCTION db_allocations_refuse_unmoved();

CREATE FUNCTION db_migrations_check() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    tenant db_allocations;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT * INTO tenant FROM db_allocations WHERE id = NEW.allocation_id FOR NO KEY UPDATE;
        IF tenant.status <> 'active' OR tenant.server_id <> NEW.source_server_id THEN
            RAISE EXCEPTION 'only an active allocation is moved, and from the server that it is on; this one is %, on %', tenant.status,
                (SELECT name FROM db_servers WHERE id = tenant.server_id)
                USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'allocation_id';
        END IF;
        NEW.plan_tier := coalesce(NEW.plan_tier, tenant.plan_tier);
        NEW.requires_dedicated := coalesce(NEW.requires_dedicated, tenant.requires_dedicated);
        NEW.connections := coalesce(NEW.connections, tenant.connections);
        NEW.storage_bytes := coalesce(NEW.storage_bytes, tenant.storage_bytes);
        NEW.source_plan_tier := tenant.plan_tier;
        NEW.source_requires_dedicated := tenant.requires_dedicated;
        NEW.source_connections := tenant.connections;
        NEW.source_storage_bytes := tenant.storage_bytes;
        RETURN NEW;
    END IF;
    NEW.updated_at := now();
    IF NEW.status = OLD.status THEN
        RETURN NEW;
    END IF;
    IF NEW.status = 'cutover' THEN
        IF NEW.proof -> 'equal' IS DISTINCT FROM 'true'::jsonb THEN
            RAISE EXCEPTION 'a move without a proof that both databases are equal may not go to cutover'
                USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'proof';
        END IF;
        NEW.cutover_at := now();
    ELSIF NEW.status = 'preparing' THEN
        NEW.started_at := now();
    ELSIF NEW.status = 'completed' THEN
        NEW.ended_at := now();
    ELSIF NEW.status = 'rolled_back' THEN
        IF OLD.status = 'completed' AND OLD.retained_until IS NULL THEN
            RAISE EXCEPTION 'the source of this move was dropped: there is nothing to go back to'
                USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'retained_until';
        END IF;
        NEW.ended_at := now();
        NEW.retained_until := NULL;
        NEW.returning_at := NULL;
    END IF;
    RETURN NEW;
END $$;

-- The allocation and the counters follow the move in the same statement, whoever writes it.
CREATE FUNCTION db_migrations_follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    before db_tenant_migrations;
    was db_allocations;
    tenant db_allocations;
    took_place boolean := false;
    gave_back boolean := false;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := OLD;
        took_place := OLD.status = 'verifying' AND NEW.status = 'cutover';
        gave_back := OLD.status IN ('cutover', 'completed') AND NEW.status = 'rolled_back';
    END IF;
    SELECT * INTO was FROM db_allocations WHERE id = NEW.allocation_id FOR NO KEY UPDATE;
    IF took_place OR gave_back THEN
        IF was.server_id <> (CASE WHEN took_place THEN NEW.source_server_id ELSE NEW.target_server_id END)
           OR was.status NOT IN ('active', 'migrating') THEN
            RAISE EXCEPTION 'the tenant is no longer where this move has it' USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'status';
        END IF;
        -- In one order, whichever way a move goes, so that two of them in opposite directions do not wait for each other.
        PERFORM FROM db_servers WHERE id IN (NEW.source_server_id, NEW.target_server_id) ORDER BY id FOR NO KEY UPDATE;
    END IF;
    IF took_place THEN
        UPDATE db_allocations SET server_id = NEW.target_server_id, plan_tier = NEW.plan_tier, requires_dedicated = NEW.requires_dedicated,
            connections = NEW.connections, storage_bytes = NEW.storage_bytes WHERE id = NEW.allocation_id;
    ELSIF gave_back THEN
        UPDATE db_allocations SET server_id = NEW.source_server_id, plan_tier = NEW.source_plan_tier, status = 'active',
            requires_dedicated = NEW.source_requires_dedicated, connections = NEW.source_connections, storage_bytes = NEW.source_storage_bytes
        WHERE id = NEW.allocation_id;
    ELSIF TG_OP = 'INSERT' OR (before.returning_at IS NULL AND NEW.returning_at IS NOT NULL) THEN
        IF was.status <> 'active' OR (TG_OP = 'UPDATE' AND was.server_id <> NEW.target_server_id) THEN
            RAISE EXCEPTION 'the tenant is no longer where this move left it' USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'status';
        END IF;
        UPDATE db_allocations SET status = 'migrating' WHERE id = NEW.allocation_id;
    ELSIF before.status <> NEW.status AND NEW.status IN ('completed', 'rolled_back')
          OR (before.returning_at IS NOT NULL AND NEW.returning_at IS NULL) THEN
        UPDATE db_allocations SET status = 'active' WHERE id = NEW.allocation_id AND status = 'migrating';
    END IF;
    SELECT * INTO tenant FROM db_allocations WHERE id = NEW.allocation_id;

    UPDATE db_servers s SET current_instances = s.current_instances + d.instances, promised_connections = s.promised_connections + d.connections,
        promised_storage_bytes = s.promised_storage_bytes + d.storage_bytes
    FROM (
        SELECT server_id, sum(instances)::integer AS instances, sum(connections)::integer AS connections, sum(storage_bytes)::bigint AS storage_bytes
        FROM (
            SELECT h.server_id, -h.instances, -h.connections, -h.storage_bytes FROM db_migration_held(before) h
            UNION ALL SELECT h.server_id, h.instances, h.connections, h.storage_bytes FROM db_migration_held(NEW) h
            UNION ALL SELECT was.server_id, -1, -was.connections, -was.storage_bytes WHERE was.server_id <> tenant.server_id
            UNION ALL SELECT tenant.server_id, 1, tenant.connections, tenant.storage_bytes WHERE was.server_id <> tenant.server_id
        ) AS changes (server_id, instances, connections, storage_bytes) GROUP BY server_id
    ) d WHERE s.id = d.server_id AND (d.instances, d.connections, d.storage_bytes) <> (0, 0, 0);

    IF TG_OP = 'INSERT' OR before.status <> NEW.status OR before.returning_at IS DISTINCT FROM NEW.returning_at THEN
        INSERT INTO db_events (kind, server_id, allocation_id, instance_id, detail)
        SELECT 'migration.' || CASE WHEN TG_OP = 'INSERT' OR before.status <> NEW.status THEN NEW.status
                                    WHEN NEW.returning_at IS NOT NULL THEN 'returning' ELSE 'kept' END,
            tenant.server_id, tenant.id, tenant.instance_id, jsonb_strip_nulls(jsonb_build_object(
                'migration_id', NEW.id, 'source', source.name, 'target', target.name, 'mode', NEW.mode, 'plan_tier', NEW.plan_tier,
                'reason', NEW.status_reason))
        FROM db_servers source, db_servers target WHERE source.id = NEW.source_server_id AND target.id = NEW.target_server_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER b_check_start BEFORE INSERT ON db_tenant_migrations FOR EACH ROW EXECUTE FUNCTION db_migrations_check();
CREATE TRIGGER b_check_step BEFORE UPDATE ON db_tenant_migrations FOR EACH ROW EXECUTE FUNCTION db_migrations_check();
CREATE TRIGGER follow_start AFTER INSERT ON db_tenant_migrations FOR EACH ROW EXECUTE FUNCTION db_migrations_follow();
CREATE TRIGGER follow_step AFTER UPDATE ON db_tenant_migrations FOR EACH ROW
    WHEN (OLD.status <> NEW.status OR OLD.returning_at IS DISTINCT FROM NEW.returning_at OR OLD.retained_until IS DISTINCT FROM NEW.retained_until)
    EXECUTE FUNCTION db_migrations_follow();

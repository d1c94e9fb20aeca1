-- The registry of servers, plans and allocations, with the rules that must hold whoever writes to it.

-- Which step each state machine may take. A row with no from_state is where a new row may begin.
CREATE TABLE db_state_transitions (
    machine    text NOT NULL CHECK (machine IN ('server', 'allocation', 'tenant_migration')),
    from_state text,
    to_state   text NOT NULL,
    UNIQUE NULLS NOT DISTINCT (machine, from_state, to_state)
);

INSERT INTO db_state_transitions (machine, from_state, to_state) VALUES
    ('server', NULL, 'provisioning'),
    ('server', 'provisioning', 'initializing'),
    ('server', 'initializing', 'active'),
    ('server', 'active', 'full'),
    ('server', 'full', 'active'),
    ('server', 'active', 'maintenance'),
    ('server', 'full', 'maintenance'),
    ('server', 'maintenance', 'active'),
    ('server', 'provisioning', 'error'),
    ('server', 'initializing', 'error'),
    ('server', 'active', 'error'),
    ('server', 'full', 'error'),
    ('server', 'maintenance', 'error'),
    ('server', 'deprovisioning', 'error'),
    ('server', 'error', 'active'),
    ('server', 'error', 'deprovisioning'),
    ('server', 'maintenance', 'deprovisioning'),
    ('server', 'deprovisioning', 'deprovisioned'),
    ('allocation', NULL, 'reserved'),
    ('allocation', 'reserved', 'active'),
    ('allocation', 'reserved', 'expired'),
    ('allocation', 'active', 'migrating'),
    ('allocation', 'migrating', 'active'),
    ('allocation', 'active', 'releasing'),
    ('allocation', 'releasing', 'released'),
    ('tenant_migration', NULL, 'planned'),
    ('tenant_migration', 'planned', 'preparing'),
    ('tenant_migration', 'preparing', 'copying'),
    ('tenant_migration', 'copying', 'verifying'),
    ('tenant_migration', 'verifying', 'cutover'),
    ('tenant_migration', 'cutover', 'completed'),
    ('tenant_migration', 'planned', 'rolled_back'),
    ('tenant_migration', 'preparing', 'rolled_back'),
    ('tenant_migration', 'copying', 'rolled_back'),
    ('tenant_migration', 'verifying', 'rolled_back'),
    ('tenant_migration', 'cutover', 'rolled_back'),
    ('tenant_migration', 'completed', 'rolled_back');

-- What each plan takes of a server it shares (connections, storage), and the size of a server of its own.
CREATE TABLE db_plans (
    plan_tier             text NOT NULL CHECK (plan_tier ~ '^[a-z][a-z0-9_]{0,31}$'),
    effective_from        timestamptz NOT NULL DEFAULT '-infinity',
    placement             text NOT NULL CHECK (placement IN ('shared', 'dedicated')),
    connections           integer NOT NULL CHECK (connections > 0),
    storage_bytes         bigint NOT NULL CHECK (storage_bytes > 0),
    temp_file_limit_bytes bigint NOT NULL CHECK (temp_file_limit_bytes > 0),
    bus                   boolean NOT NULL DEFAULT false,
    cpu_limit             numeric(6, 2) NOT NULL CHECK (cpu_limit > 0),
    memory_limit_bytes    bigint NOT NULL CHECK (memory_limit_bytes > 0),
    PRIMARY KEY (plan_tier, effective_from)
);
COMMENT ON COLUMN db_plans.bus IS 'May reach the database "postgres" for LISTEN and NOTIFY; tenants of one server that may, read each other''s payloads.';

-- 50 tenants x 6 connections and x 5 GiB are what a pool of 4 GiB memory and 250 GiB storage can keep.
INSERT INTO db_plans (plan_tier, placement, connections, storage_bytes, temp_file_limit_bytes, cpu_limit, memory_limit_bytes) VALUES
    ('free',         'shared',      4,   1::bigint << 30, 256::bigint << 20, 1, 1::bigint << 30),
    ('starter',      'shared',      4,   2::bigint << 30, 512::bigint << 20, 1, 2::bigint << 30),
    ('standard',     'shared',      6,   3::bigint << 30,   1::bigint << 30, 1, 2::bigint << 30),
    ('professional', 'shared',      6,   5::bigint << 30,   2::bigint << 30, 2, 4::bigint << 30),
    ('premium',      'dedicated',  50,  50::bigint << 30,   5::bigint << 30, 2, 4::bigint << 30),
    ('enterprise',   'dedicated', 150, 200::bigint << 30,  20::bigint << 30, 4, 8::bigint << 30);

CREATE VIEW db_current_plans AS
    SELECT DISTINCT ON (plan_tier) * FROM db_plans
    WHERE effective_from <= now()
    ORDER BY plan_tier, effective_from DESC;

-- Names come from a sequence: a count would give a deleted server's number again.
CREATE SEQUENCE db_pool_number;

CREATE TABLE db_servers (
    id                       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                     text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    server_type              text NOT NULL CHECK (server_type IN ('shared', 'dedicated', 'platform')),
    backend                  text NOT NULL CHECK (backend IN ('swarm', 'process')),
    host                     text NOT NULL CHECK (host <> ''),
    port                     integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    status                   text NOT NULL DEFAULT 'provisioning',
    status_reason            text,
    status_changed_at        timestamptz NOT NULL DEFAULT now(),
    health_status            text NOT NULL DEFAULT 'unknown'
                             CHECK (health_status IN ('unknown', 'healthy', 'degraded', 'unhealthy')),
    last_health_check        timestamptz,
    health_check_failures    integer NOT NULL DEFAULT 0 CHECK (health_check_failures >= 0),
    max_instances            integer NOT NULL CHECK (max_instances >= 0),
    current_instances        integer NOT NULL DEFAULT 0,
    connection_budget        integer NOT NULL CHECK (connection_budget >= 0),
    promised_connections     integer NOT NULL DEFAULT 0,
    storage_budget_bytes     bigint NOT NULL CHECK (storage_budget_bytes >= 0),
    promised_storage_bytes   bigint NOT NULL DEFAULT 0,
    load                     real NOT NULL GENERATED ALWAYS AS
                             (CASE WHEN max_instances > 0 THEN current_instances::real / max_instances ELSE 1 END) STORED,
    allocation_strategy      text NOT NULL DEFAULT 'auto' CHECK (allocation_strategy IN ('auto', 'manual')),
    priority                 integer NOT NULL DEFAULT 100,
    cpu_limit                numeric(6, 2) NOT NULL CHECK (cpu_limit > 0),
    memory_limit_bytes       bigint NOT NULL CHECK (memory_limit_bytes > 0),
    storage_path             text,
    postgres_version         text,
    postgres_image           text,
    swarm_service_id         text,
    swarm_service_name       text,
    node_placement           text,
    admin_user               text NOT NULL DEFAULT 'postgres',
    admin_password_encrypted text,
    dedicated_customer_id    uuid,
    dedicated_instance_id    uuid,
    lease_holder             uuid,
    lease_expires_at         timestamptz,
    created_at               timestamptz NOT NULL DEFAULT now(),
    created_by               text NOT NULL DEFAULT coalesce(nullif(current_setting('application_name'), ''), session_user),
    activated_at             timestamptz,
    updated_at               timestamptz NOT NULL DEFAULT now(),
    updated_by               text NOT NULL DEFAULT coalesce(nullif(current_setting('application_name'), ''), session_user),
    CONSTRAINT db_servers_capacity_instances CHECK (current_instances BETWEEN 0 AND max_instances),
    CONSTRAINT db_servers_capacity_connections CHECK (promised_connections BETWEEN 0 AND connection_budget),
    CONSTRAINT db_servers_capacity_storage CHECK (promised_storage_bytes BETWEEN 0 AND storage_budget_bytes),
    CONSTRAINT db_servers_dedicated_to_one CHECK
        ((server_type = 'dedicated') = (dedicated_instance_id IS NOT NULL)
         AND (server_type <> 'dedicated' OR (max_instances = 1 AND dedicated_customer_id IS NOT NULL))),
    CONSTRAINT db_servers_platform_takes_none CHECK (server_type <> 'platform' OR max_instances = 0)
);

CREATE UNIQUE INDEX db_servers_address ON db_servers (host, port) WHERE status <> 'deprovisioned';
CREATE UNIQUE INDEX db_servers_one_dedicated ON db_servers (dedicated_instance_id)
    WHERE status IN ('provisioning', 'initializing', 'active', 'full', 'maintenance');
-- The two orders in which a pool is looked for; only what can be chosen is in them.
CREATE INDEX db_servers_by_priority ON db_servers (priority, load, id)
    WHERE server_type = 'shared' AND status = 'active' AND allocation_strategy = 'auto';
CREATE INDEX db_servers_by_load ON db_servers (load, id)
    WHERE server_type = 'shared' AND status = 'active' AND allocation_strategy = 'auto';
CREATE INDEX db_servers_in_the_making ON db_servers (created_at) WHERE status IN ('provisioning', 'initializing');

CREATE TABLE db_allocations (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    instance_id        uuid NOT NULL,
    customer_id        uuid NOT NULL,
    plan_tier          text NOT NULL,
    requires_dedicated boolean NOT NULL DEFAULT false,
    server_id          uuid NOT NULL REFERENCES db_servers (id),
    status             text NOT NULL DEFAULT 'reserved',
    database_name      text NOT NULL CHECK (octet_length(database_name) BETWEEN 1 AND 63),
    role_name          text NOT NULL CHECK (octet_length(role_name) BETWEEN 1 AND 63),
    password_encrypted text NOT NULL,
    next_password_encrypted text,
    password_changed_at timestamptz NOT NULL DEFAULT now(),
    connections        integer NOT NULL CHECK (connections > 0),
    storage_bytes      bigint NOT NULL CHECK (storage_bytes > 0),
    quarantine_name    text CHECK (octet_length(quarantine_name) BETWEEN 1 AND 63),
    reserved_at        timestamptz NOT NULL DEFAULT now(),
    expires_at         timestamptz,
    activated_at       timestamptz,
    released_at        timestamptz,
    drop_after         timestamptz,
    dropped_at         timestamptz,
    created_by         text NOT NULL DEFAULT coalesce(nullif(current_setting('application_name'), ''), session_user),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT db_allocations_reservation_ends CHECK (status <> 'reserved' OR expires_at IS NOT NULL),
    CONSTRAINT db_allocations_dropped_last CHECK (dropped_at IS NULL OR status IN ('released', 'expired'))
);
COMMENT ON COLUMN db_allocations.next_password_encrypted IS 'A password on its way to the server: kept until the server has taken it, so that an interrupted rotation can be finished.';

CREATE UNIQUE INDEX db_allocations_one_live ON db_allocations (instance_id)
    WHERE status IN ('reserved', 'active', 'migrating', 'releasing');
-- Unique in the whole fleet, so that a move keeps the name: an application may key its files by it.
CREATE UNIQUE INDEX db_allocations_one_database ON db_allocations (database_name)
    WHERE status IN ('reserved', 'active', 'migrating', 'releasing');
CREATE INDEX db_allocations_overdue ON db_allocations (expires_at) WHERE status = 'reserved';
CREATE INDEX db_allocations_undropped ON db_allocations (drop_after) WHERE status = 'released' AND dropped_at IS NULL;

CREATE TABLE db_tenant_migrations (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    allocation_id    uuid NOT NULL REFERENCES db_allocations (id),
    source_server_id uuid NOT NULL REFERENCES db_servers (id),
    target_server_id uuid NOT NULL REFERENCES db_servers (id),
    mode             text NOT NULL CHECK (mode IN ('dump', 'online')),
    status           text NOT NULL DEFAULT 'planned',
    status_reason    text,
    steps            jsonb NOT NULL DEFAULT '[]',
    proof            jsonb,
    retained_until   timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    created_by       text NOT NULL DEFAULT coalesce(nullif(current_setting('application_name'), ''), session_user),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (source_server_id <> target_server_id)
);
CREATE UNIQUE INDEX db_tenant_migrations_one_running ON db_tenant_migrations (allocation_id)
    WHERE status NOT IN ('completed', 'rolled_back');

CREATE TABLE db_health_checks (
    server_id        uuid NOT NULL REFERENCES db_servers (id),
    checked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    health_status    text NOT NULL CHECK (health_status IN ('healthy', 'degraded', 'unhealthy')),
    latency_ms       real,
    postgres_version text,
    database_count   integer,
    connections_used integer,
    problem          text,
    PRIMARY KEY (server_id, checked_at)
);

-- What happened, in the order it happened. Ids are random so that a rolled back --check leaves no trace.
CREATE TABLE db_events (
    happened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    actor         text NOT NULL DEFAULT coalesce(nullif(current_setting('application_name'), ''), session_user),
    kind          text NOT NULL,
    server_id     uuid,
    allocation_id uuid,
    instance_id   uuid,
    detail        jsonb,
    PRIMARY KEY (happened_at, id)
);
CREATE INDEX db_events_of_server ON db_events (server_id, happened_at) WHERE allocation_id IS NULL;

CREATE FUNCTION db_refuse_step() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    before text := CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END;
BEGIN
    IF NOT EXISTS (SELECT FROM db_state_transitions t
                   WHERE t.machine = TG_ARGV[0] AND t.from_state IS NOT DISTINCT FROM before AND t.to_state = NEW.status) THEN
        RAISE EXCEPTION 'a % may not go from % to %', TG_ARGV[0], coalesce(before, 'nothing'), NEW.status
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'status';
    END IF;
    RETURN NEW;
END $$;

-- active and full follow the count, whoever changed it; nobody needs to remember to. It names no table, so it needs no search_path of its own.
CREATE FUNCTION db_servers_follow_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'active' AND NEW.max_instances > 0 AND NEW.current_instances >= NEW.max_instances THEN
        NEW.status := 'full';
    ELSIF NEW.status = 'full' AND NEW.current_instances < NEW.max_instances THEN
        NEW.status := 'active';
    END IF;
    IF NEW.status IS DISTINCT FROM OLD.status THEN
        NEW.status_changed_at := now();
        IF NEW.status = 'active' THEN
            NEW.activated_at := coalesce(NEW.activated_at, now());
        END IF;
    END IF;
    NEW.updated_at := now();
    NEW.updated_by := coalesce(nullif(current_setting('application_name'), ''), session_user);
    RETURN NEW;
END $$;

CREATE FUNCTION db_servers_record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO db_events (kind, server_id, detail)
    VALUES ('server.' || NEW.status, NEW.id, jsonb_strip_nulls(jsonb_build_object('name', NEW.name, 'reason', NEW.status_reason)));
    RETURN NULL;
END $$;

-- Trigger names give the order: the step asked for is checked before it is adjusted to the count.
CREATE TRIGGER a_refuse_start BEFORE INSERT ON db_servers FOR EACH ROW
    WHEN (NEW.status <> 'provisioning') EXECUTE FUNCTION db_refuse_step('server');
CREATE TRIGGER a_refuse_step BEFORE UPDATE OF status ON db_servers FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION db_refuse_step('server');
CREATE TRIGGER b_follow_count BEFORE UPDATE ON db_servers FOR EACH ROW EXECUTE FUNCTION db_servers_follow_count();
CREATE TRIGGER record_start AFTER INSERT ON db_servers FOR EACH ROW EXECUTE FUNCTION db_servers_record();
CREATE TRIGGER record_step AFTER UPDATE ON db_servers FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION db_servers_record();

-- The counters of a server are the sum of what its allocations hold, and only these two functions write them.
-- A released database takes storage until it is dropped; a place and connections only while it is live.
CREATE FUNCTION db_allocations_count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
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

-- A new row is a reservation and nothing else: the short way, since placement waits for it.
CREATE FUNCTION db_allocations_take_place() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE db_servers SET current_instances = current_instances + 1,
        promised_connections = promised_connections + NEW.connections,
        promised_storage_bytes = promised_storage_bytes + NEW.storage_bytes
    WHERE id = NEW.server_id;
    INSERT INTO db_events (kind, server_id, allocation_id, instance_id)
    VALUES ('allocation.reserved', NEW.server_id, NEW.id, NEW.instance_id);
    RETURN NULL;
END $$;

CREATE FUNCTION db_allocations_stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER a_refuse_start BEFORE INSERT ON db_allocations FOR EACH ROW
    WHEN (NEW.status <> 'reserved') EXECUTE FUNCTION db_refuse_step('allocation');
CREATE TRIGGER a_refuse_step BEFORE UPDATE OF status ON db_allocations FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION db_refuse_step('allocation');
CREATE TRIGGER b_stamp BEFORE UPDATE ON db_allocations FOR EACH ROW EXECUTE FUNCTION db_allocations_stamp();
CREATE TRIGGER count_start AFTER INSERT ON db_allocations FOR EACH ROW EXECUTE FUNCTION db_allocations_take_place();
CREATE TRIGGER count_step AFTER UPDATE OF status, server_id, connections, storage_bytes, dropped_at ON db_allocations
    FOR EACH ROW EXECUTE FUNCTION db_allocations_count();

CREATE TRIGGER a_refuse_start BEFORE INSERT ON db_tenant_migrations FOR EACH ROW
    WHEN (NEW.status <> 'planned') EXECUTE FUNCTION db_refuse_step('tenant_migration');
CREATE TRIGGER a_refuse_step BEFORE UPDATE OF status ON db_tenant_migrations FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION db_refuse_step('tenant_migration');

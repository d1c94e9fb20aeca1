CREATE OR REPLACE FUNCTION db_allocations_take_place() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE db_servers SET current_instances = current_instances + 1,
        promised_connections = promised_connections + NEW.connections,
        promised_storage_bytes = promised_storage_bytes + NEW.storage_bytes
    WHERE id = NEW.server_id;
    INSERT INTO db_events (kind, server_id, allocation_id, instance_id)
    VALUES ('allocation.reserved', NEW.server_id, NEW.id, NEW.instance_id);
    RETURN NULL;
END $$;

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

INSERT INTO db_events (happened_at, actor, kind, server_id, allocation_id, instance_id)
SELECT reserved_at, created_by, 'allocation.reserved', server_id, id, instance_id FROM db_allocations WHERE status = 'reserved';

DROP TRIGGER b_follow_count ON db_servers;
CREATE TRIGGER b_follow_count BEFORE UPDATE ON db_servers FOR EACH ROW EXECUTE FUNCTION db_servers_follow_count();

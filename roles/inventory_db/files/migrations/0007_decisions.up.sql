-- Every caller waits for what is written with a decision, so that is only what the decision is made of.

-- A reservation says itself when it was made, and by whom; the event log has it from its first step on, at the time it was made.
CREATE OR REPLACE FUNCTION db_allocations_take_place() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE db_servers SET current_instances = current_instances + 1,
        promised_connections = promised_connections + NEW.connections,
        promised_storage_bytes = promised_storage_bytes + NEW.storage_bytes
    WHERE id = NEW.server_id;
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
    IF OLD.status = 'reserved' AND NEW.status <> 'reserved' THEN
        INSERT INTO db_events (happened_at, actor, kind, server_id, allocation_id, instance_id)
        VALUES (OLD.reserved_at, OLD.created_by, 'allocation.reserved', OLD.server_id, OLD.id, OLD.instance_id);
    END IF;
    IF OLD.status <> NEW.status THEN
        INSERT INTO db_events (kind, server_id, allocation_id, instance_id)
        VALUES ('allocation.' || NEW.status, NEW.server_id, NEW.id, NEW.instance_id);
    END IF;
    RETURN NULL;
END $$;

-- Of those that stand now the log would have it twice.
DELETE FROM db_events e USING db_allocations a WHERE e.kind = 'allocation.reserved' AND a.id = e.allocation_id AND a.status = 'reserved';

-- A count that changes nothing but itself is no reason to look whether the server is full by now.
DROP TRIGGER b_follow_count ON db_servers;
CREATE TRIGGER b_follow_count BEFORE UPDATE ON db_servers FOR EACH ROW
    WHEN (OLD.current_instances = NEW.current_instances OR OLD.status <> 'active' OR NEW.status <> 'active'
          OR NEW.current_instances >= NEW.max_instances)
    EXECUTE FUNCTION db_servers_follow_count();

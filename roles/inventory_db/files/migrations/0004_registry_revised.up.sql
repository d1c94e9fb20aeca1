-- What the use of the first three taught.

ALTER TABLE db_servers ADD CONSTRAINT db_servers_emptied_first
    CHECK (status NOT IN ('deprovisioning', 'deprovisioned') OR current_instances = 0);

-- Every index on what placement chooses by is written at each placement: one serves the usual order, the other strategies sort.
DROP INDEX db_servers_by_load, db_servers_by_priority;
CREATE INDEX db_servers_by_priority ON db_servers (priority, load, created_at, id)
    WHERE server_type = 'shared' AND status = 'active' AND allocation_strategy = 'auto';

-- As 0002, for a platform's table that came after it; whoever brings the schema up to date calls it. Rolling 0002 back undoes both.
CREATE FUNCTION db_attach_platform() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $do$
DECLARE
    key_type text := (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
                      WHERE a.attrelid = to_regclass('public.instances') AND a.attname = 'id' AND NOT a.attisdropped);
BEGIN
    IF to_regclass('public.instances') IS NULL
       OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'public.db_allocations'::regclass AND tgname = 'tell_platform') THEN
        RETURN;
    ELSIF key_type IS NULL THEN
        RAISE EXCEPTION 'the table public.instances has no column "id" to find an instance by';
    END IF;
    ALTER TABLE public.instances
        ADD COLUMN IF NOT EXISTS db_server_id uuid REFERENCES public.db_servers (id),
        ADD COLUMN IF NOT EXISTS plan_tier text,
        ADD COLUMN IF NOT EXISTS requires_dedicated_db boolean NOT NULL DEFAULT false;

    -- The cast is to the platform's own key type (uuid, text, varchar), so that its primary key's index serves.
    EXECUTE format($make$
        CREATE FUNCTION public.db_allocations_tell_platform() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, public, pg_temp AS $body$
        BEGIN
            UPDATE instances SET
                db_server_id = CASE WHEN NEW.status IN ('active', 'migrating') THEN NEW.server_id END,
                plan_tier = NEW.plan_tier,
                requires_dedicated_db = NEW.requires_dedicated
            WHERE id = NEW.instance_id::text::%s;
            RETURN NULL;
        END $body$
    $make$, key_type);
    CREATE TRIGGER tell_platform AFTER UPDATE OF status, server_id, plan_tier, requires_dedicated ON public.db_allocations
        FOR EACH ROW WHEN (NEW.status NOT IN ('reserved', 'expired')) EXECUTE FUNCTION public.db_allocations_tell_platform();

    -- What was allocated before the table came is told now.
    EXECUTE format($tell$
        UPDATE public.instances i SET db_server_id = a.server_id, plan_tier = a.plan_tier, requires_dedicated_db = a.requires_dedicated
        FROM public.db_allocations a WHERE a.status IN ('active', 'migrating') AND i.id = a.instance_id::text::%s
    $tell$, key_type);
END $do$;
REVOKE EXECUTE ON FUNCTION db_attach_platform() FROM PUBLIC;

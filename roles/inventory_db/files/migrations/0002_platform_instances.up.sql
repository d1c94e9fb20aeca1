-- Where the platform keeps its table of instances in the same database, that table learns where each instance's database lies.
-- A platform that brings the table later rolls back to version 1 and up again: nothing else is touched by that.
DO $do$
DECLARE
    key_type text := (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
                      WHERE a.attrelid = to_regclass('public.instances') AND a.attname = 'id' AND NOT a.attisdropped);
BEGIN
    IF to_regclass('public.instances') IS NULL THEN
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
END $do$;

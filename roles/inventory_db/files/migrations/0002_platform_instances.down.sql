DROP TRIGGER IF EXISTS tell_platform ON db_allocations;
DROP FUNCTION IF EXISTS db_allocations_tell_platform();
ALTER TABLE IF EXISTS public.instances
    DROP COLUMN IF EXISTS db_server_id,
    DROP COLUMN IF EXISTS plan_tier,
    DROP COLUMN IF EXISTS requires_dedicated_db;

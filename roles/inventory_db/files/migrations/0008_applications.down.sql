-- Without it the next move would not stop the application: it would write where nobody reads any more.
DO $do$
BEGIN
    IF current_setting('postgres_pools.discard', true) IS DISTINCT FROM 'on'
       AND (EXISTS (SELECT FROM db_allocations WHERE application <> '{}' AND status IN ('reserved', 'active', 'migrating', 'releasing'))
            OR EXISTS (SELECT FROM db_tenant_migrations WHERE application <> '{}' AND status NOT IN ('completed', 'rolled_back'))
            OR EXISTS (SELECT FROM db_tenant_migrations WHERE status = 'rolled_back' AND lease_expires_at IS NOT NULL)) THEN
        RAISE EXCEPTION 'there are allocations with an application, or moves that have not ended, of which the older schema knows less; let the moves end, and set inventory_db_discard=true to forget the applications';
    END IF;
END $do$;
DROP INDEX db_tenant_migrations_returned;
COMMENT ON COLUMN db_tenant_migrations.lease_expires_at IS NULL;
ALTER TABLE db_tenant_migrations DROP COLUMN application;
ALTER TABLE db_allocations DROP COLUMN application;

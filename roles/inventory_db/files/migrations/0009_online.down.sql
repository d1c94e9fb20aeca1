-- What follows a new place keeps WAL there until somebody ends it, and code of the older schema knows of none.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM db_tenant_migrations WHERE way_back IN ('prepared', 'following'))
       OR EXISTS (SELECT FROM db_tenant_migrations WHERE mode = 'auto' AND status = 'planned')
       OR EXISTS (SELECT FROM db_tenant_migrations WHERE mode = 'online' AND status NOT IN ('completed', 'rolled_back')) THEN
        RAISE EXCEPTION 'there are moves online that have not ended, or old places that follow the new one, of which the older schema knows nothing; let the moves end, and end the ways back with playbooks/cleanup.yml -e end_ways_back=true';
    END IF;
END $do$;
DROP INDEX db_tenant_migrations_following;
UPDATE db_tenant_migrations SET mode = 'dump' WHERE mode = 'auto';
ALTER TABLE db_tenant_migrations
    DROP CONSTRAINT db_tenant_migrations_mode_decided,
    DROP CONSTRAINT db_tenant_migrations_mode_check,
    ADD CONSTRAINT db_tenant_migrations_mode_check CHECK (mode IN ('dump', 'online')),
    DROP COLUMN mode_reason, DROP COLUMN way_back, DROP COLUMN way_back_reason;

-- A move while the tenant works: how it is made may be decided when its servers have been looked at, and its old place may go on following the new one.

ALTER TABLE db_tenant_migrations
    DROP CONSTRAINT db_tenant_migrations_mode_check,
    ADD CONSTRAINT db_tenant_migrations_mode_check CHECK (mode IN ('dump', 'online', 'auto')),
    ADD CONSTRAINT db_tenant_migrations_mode_decided CHECK (mode <> 'auto' OR status IN ('planned', 'rolled_back')),
    ADD COLUMN mode_reason     text,
    ADD COLUMN way_back        text CHECK (way_back IN ('prepared', 'following', 'ended')),
    ADD COLUMN way_back_reason text;
COMMENT ON COLUMN db_tenant_migrations.mode_reason IS 'Why the move is made in this mode, where it was not asked for.';
COMMENT ON COLUMN db_tenant_migrations.way_back IS
    'Whether the old place follows the new one, so that the way back loses nothing; NULL where that was never begun. It ends with its retention, or before.';
COMMENT ON COLUMN db_tenant_migrations.way_back_reason IS 'Why there is none, or why it ended.';
CREATE INDEX db_tenant_migrations_following ON db_tenant_migrations (allocation_id) WHERE way_back IN ('prepared', 'following');

-- A tenant's application is known with its allocation, so that every move stops and repoints it, whoever asks for the move.

ALTER TABLE db_allocations ADD COLUMN application jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT db_allocations_application_is_an_object CHECK (jsonb_typeof(application) = 'object'),
    -- What is put into variables and files can be read by others.
    ADD CONSTRAINT db_allocations_application_without_password CHECK (
        NOT jsonb_path_exists(application, '$.env.* ? (@ == "password" || @ == "dsn")')
        AND NOT jsonb_path_exists(application, '$.config[*]."keys".* ? (@ == "password" || @ == "dsn")')
        AND NOT jsonb_path_exists(application, '$.file[*]."keys".* ? (@ == "password" || @ == "dsn")'));
COMMENT ON COLUMN db_allocations.application IS 'The tenant''s application as the role tenant_application takes it; empty is none. Never a password.';

ALTER TABLE db_tenant_migrations ADD COLUMN application jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(application) = 'object');
COMMENT ON COLUMN db_tenant_migrations.application IS
    'The application that the move works with, so that a later run, the way back and the cleanup work with the same one.';

-- The way back of a move is recorded before its last steps are taken; as long as they are, its lease is kept.
COMMENT ON COLUMN db_tenant_migrations.lease_expires_at IS
    'When another run may take the move over. Of one that is rolled_back it is NULL once the tenant is let in and the copy is gone.';
UPDATE db_tenant_migrations SET lease_expires_at = NULL WHERE status IN ('completed', 'rolled_back') AND returning_at IS NULL AND lease_expires_at IS NOT NULL;
CREATE INDEX db_tenant_migrations_returned ON db_tenant_migrations (allocation_id) WHERE status = 'rolled_back' AND lease_expires_at IS NOT NULL;

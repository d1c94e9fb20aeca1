-- What a probe saw beside what every probe sees, and the way to prune a history of millions of rows.
ALTER TABLE db_health_checks ADD COLUMN detail jsonb NOT NULL DEFAULT '{}';
-- Rows come in the order of time: a few blocks of this say where the old ones lie, and an insert hardly pays for it.
CREATE INDEX db_health_checks_by_time ON db_health_checks USING brin (checked_at);
-- Counted by the metrics; allocations, of which there are far more, are counted in their own table.
CREATE INDEX db_events_of_fleet ON db_events (kind, happened_at) WHERE allocation_id IS NULL;

-- What a server's data lie on is said with the server: without it, nobody could remove or audit one of another kind.
ALTER TABLE db_servers ADD COLUMN storage text NOT NULL DEFAULT 'cephfs' CHECK (storage IN ('cephfs', 'local'));
UPDATE db_servers SET storage = 'local' WHERE backend = 'process';
ALTER TABLE db_servers ADD CONSTRAINT db_servers_local_has_a_node CHECK (storage <> 'local' OR backend = 'process' OR node_placement IS NOT NULL);
COMMENT ON COLUMN db_servers.storage IS 'cephfs: any node can take the server over. local: the disk of the machine, or of the one node in node_placement.';

-- What a probe saw beside what every probe sees, and the way to prune a history of millions of rows.
ALTER TABLE db_health_checks ADD COLUMN detail jsonb NOT NULL DEFAULT '{}';
-- Rows come in the order of time: a few blocks of this say where the old ones lie, and an insert hardly pays for it.
CREATE INDEX db_health_checks_by_time ON db_health_checks USING brin (checked_at);
-- Counted by the metrics; allocations, of which there are far more, are counted in their own table.
CREATE INDEX db_events_of_fleet ON db_events (kind, happened_at) WHERE allocation_id IS NULL;

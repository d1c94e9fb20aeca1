DROP INDEX db_events_of_fleet, db_health_checks_by_time;
ALTER TABLE db_servers DROP COLUMN storage;
ALTER TABLE db_health_checks DROP COLUMN detail;

DROP TABLE db_events, db_health_checks, db_tenant_migrations, db_allocations, db_servers;
DROP SEQUENCE db_pool_number;
DROP VIEW db_current_plans;
DROP TABLE db_plans, db_state_transitions;
DROP FUNCTION db_allocations_stamp(), db_allocations_take_place(), db_allocations_count(), db_servers_record(), db_servers_follow_count(), db_refuse_step();

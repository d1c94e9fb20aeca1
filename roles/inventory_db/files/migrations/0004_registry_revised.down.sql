DROP FUNCTION db_attach_platform();
DROP INDEX db_servers_by_priority;
CREATE INDEX db_servers_by_priority ON db_servers (priority, load, id)
    WHERE server_type = 'shared' AND status = 'active' AND allocation_strategy = 'auto';
CREATE INDEX db_servers_by_load ON db_servers (load, id)
    WHERE server_type = 'shared' AND status = 'active' AND allocation_strategy = 'auto';
ALTER TABLE db_servers DROP CONSTRAINT db_servers_emptied_first;

-- Without the authority nobody could verify those servers any more, and another would have to be brought to every application.
DO $do$
BEGIN
    IF current_setting('postgres_pools.discard', true) IS DISTINCT FROM 'on'
       AND EXISTS (SELECT FROM db_servers WHERE tls AND status <> 'deprovisioned') THEN
        RAISE EXCEPTION 'there are servers with TLS, whose authority would be lost; set inventory_db_discard=true to lose it all the same';
    END IF;
END $do$;
ALTER TABLE db_servers DROP COLUMN tls, DROP COLUMN certificate_expires_at;
DROP TABLE db_authorities;

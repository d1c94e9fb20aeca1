-- Without the authority nobody could verify those servers any more, and another would have to be brought to every application.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM db_servers WHERE tls AND status <> 'deprovisioned') THEN
        RAISE EXCEPTION 'there are servers with TLS, whose authority would be lost; set tls to false in their rows if that is meant';
    END IF;
END $do$;
ALTER TABLE db_servers DROP COLUMN tls, DROP COLUMN certificate_expires_at;
DROP TABLE db_authorities;

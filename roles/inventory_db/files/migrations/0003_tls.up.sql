-- The authorities whose certificates the servers serve, and whether a server serves one.

-- Every authority here is trusted by the tenants of servers with TLS, and the current one signs. So the servers can go over to
-- another one by one; the last step is to delete the row of the old one, which only the owner of this database can.
CREATE TABLE db_authorities (
    id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                  text NOT NULL CHECK (name <> ''),
    certificate           text NOT NULL UNIQUE CHECK (certificate LIKE '-----BEGIN CERTIFICATE-----%'),
    private_key_encrypted text,
    current               boolean NOT NULL DEFAULT true,
    expires_at            timestamptz NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT now(),
    created_by            text NOT NULL DEFAULT coalesce(nullif(current_setting('application_name'), ''), session_user),
    -- A Fernet token begins so, and no private key in clear does.
    CONSTRAINT db_authorities_key_is_encrypted CHECK (private_key_encrypted LIKE 'gAAAA%')
);
COMMENT ON COLUMN db_authorities.certificate IS 'PEM: the certificate that signs, then those above it up to its root.';
COMMENT ON COLUMN db_authorities.private_key_encrypted IS 'A Fernet token; NULL for an authority that was given, whose key stays in its own file.';

-- Two makers at once make one authority: this has the last word.
CREATE UNIQUE INDEX db_authorities_one_current ON db_authorities (current) WHERE current;

ALTER TABLE db_servers
    ADD COLUMN tls boolean NOT NULL DEFAULT false,
    ADD COLUMN certificate_expires_at timestamptz;
COMMENT ON COLUMN db_servers.certificate_expires_at IS 'Of the certificate that the server was last seen to serve.';

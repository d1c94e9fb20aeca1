-- Every kind of object that a tenant's database may hold. Run by zoo_fixture.py, which puts quoted role names for :owner, :reader and :writer.
-- Parts begin with a line "--- part: who"; each is one transaction.

--- part: superuser
-- A tenant of Odoo has two of them.
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
CREATE EXTENSION IF NOT EXISTS unaccent SCHEMA public;
CREATE EXTENSION citext SCHEMA public;
ALTER FUNCTION public.unaccent(text) IMMUTABLE;
CREATE FUNCTION public.zoo_watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER zoo_watch_end ON ddl_command_end WHEN TAG IN ('DROP FUNCTION', 'CREATE SEQUENCE') EXECUTE FUNCTION public.zoo_watch();
CREATE EVENT TRIGGER zoo_watch_drop ON sql_drop EXECUTE FUNCTION public.zoo_watch();
ALTER EVENT TRIGGER zoo_watch_drop DISABLE;
COMMENT ON EVENT TRIGGER zoo_watch_end IS 'sees what is made';
COMMENT ON EXTENSION citext IS 'a comment of its own';

--- part: owner
CREATE SCHEMA zoo;
CREATE SCHEMA "Zoo ""quoted"".döts; %s %";
COMMENT ON SCHEMA zoo IS 'the zoo''s own; with ü and
a second line';
GRANT USAGE ON SCHEMA zoo TO :reader;
GRANT USAGE, CREATE ON SCHEMA "Zoo ""quoted"".döts; %s %" TO :writer WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT SELECT ON TABLES TO :reader;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO :writer WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT USAGE ON TYPES TO :reader;

-- types
CREATE TYPE zoo.mood AS ENUM ('sad', 'ok', 'happy');
ALTER TYPE zoo.mood ADD VALUE 'it''s "fine"' BEFORE 'happy';
COMMENT ON TYPE zoo.mood IS 'moods';
CREATE DOMAIN zoo.percent AS numeric(5, 2) DEFAULT 0 NOT NULL CONSTRAINT percent_range CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN zoo.code AS text COLLATE "C" CONSTRAINT code_form CHECK (VALUE ~ '^[A-Z]{2}[0-9]+$');
COMMENT ON DOMAIN zoo.percent IS 'from 0 to 100';
COMMENT ON CONSTRAINT percent_range ON DOMAIN zoo.percent IS 'a part of the whole';
CREATE TYPE zoo.address AS (street text, "House No." integer, tags text[]);
COMMENT ON COLUMN zoo.address."House No." IS 'may be nothing';
CREATE TYPE zoo.person AS (name varchar(40), home zoo.address);
CREATE FUNCTION zoo.distance(a numeric, b numeric) RETURNS double precision LANGUAGE sql IMMUTABLE AS 'SELECT (a - b)::float8';
CREATE TYPE zoo.price_range AS RANGE (SUBTYPE = numeric, SUBTYPE_DIFF = zoo.distance, MULTIRANGE_TYPE_NAME = zoo.price_ranges);
GRANT USAGE ON TYPE zoo.address TO :writer;
CREATE COLLATION zoo.posix FROM "C";
COMMENT ON COLLATION zoo.posix IS 'by bytes';

--- part: owner
-- functions, procedures, aggregates, operators, casts
CREATE FUNCTION zoo.add_tax(net numeric, rate numeric DEFAULT 0.19) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT net * (1 + rate)';
CREATE FUNCTION zoo.standard_body(a integer, b integer) RETURNS integer LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT a + b; END;
CREATE FUNCTION zoo.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.note := coalesce(NEW.note, '') || ' stamped \ ''%'' ';
  RETURN NEW;
END $$;
CREATE FUNCTION zoo.who() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '5MB' AS 'SELECT current_user::text';
GRANT EXECUTE ON FUNCTION zoo.who() TO :reader;
REVOKE ALL ON FUNCTION zoo.add_tax(numeric, numeric) FROM PUBLIC;
CREATE FUNCTION zoo.both(INOUT a integer, OUT b text, VARIADIC more text[]) RETURNS record LANGUAGE plpgsql COST 7 AS $$ BEGIN b := more[1]; END $$;
CREATE FUNCTION zoo.many(n integer) RETURNS TABLE (i integer, squared bigint) LANGUAGE sql ROWS 17 AS 'SELECT g, g::bigint * g FROM generate_series(1, n) g';
CREATE PROCEDURE zoo.clean(IN days integer DEFAULT 7) LANGUAGE plpgsql AS $$ BEGIN PERFORM days; END $$;
COMMENT ON PROCEDURE zoo.clean(integer) IS 'cleans';
CREATE AGGREGATE zoo.multiply (double precision) (SFUNC = float8mul, STYPE = double precision, INITCOND = '1');
COMMENT ON AGGREGATE zoo.multiply(double precision) IS 'a product';
CREATE FUNCTION zoo.longer(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length(a) > length(b)';
CREATE FUNCTION zoo.shorter(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length(a) < length(b)';
CREATE OPERATOR zoo.>># (LEFTARG = text, RIGHTARG = text, FUNCTION = zoo.longer, COMMUTATOR = OPERATOR(zoo.<<#));
CREATE OPERATOR zoo.<<# (LEFTARG = text, RIGHTARG = text, FUNCTION = zoo.shorter, COMMUTATOR = OPERATOR(zoo.>>#));
COMMENT ON OPERATOR zoo.>># (text, text) IS 'is longer';
CREATE FUNCTION zoo.mood_number(zoo.mood) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT CASE $1 WHEN 'sad' THEN 0 WHEN 'ok' THEN 1 ELSE 2 END $$;
CREATE CAST (zoo.mood AS integer) WITH FUNCTION zoo.mood_number(zoo.mood) AS ASSIGNMENT;
-- A cast to text that says less than the value does: a comparison must not go by it.
CREATE FUNCTION zoo.address_text(zoo.address) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'somewhere'::text $$;
CREATE CAST (zoo.address AS text) WITH FUNCTION zoo.address_text(zoo.address);

-- tables: types and values
CREATE TABLE zoo.scalars (
  id integer GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5) PRIMARY KEY,
  f4 real, f8 double precision, n numeric, n2 numeric(20, 6), m money, b boolean, c character(5), v varchar(12), t text, k "char", nm name,
  bin bytea, j json, jb jsonb, d date, ti time, tz timetz, ts timestamp(3), tstz timestamptz, iv interval, ivs interval day to second(2), u uuid,
  ip inet, net cidr, mac macaddr, bits bit(5), vbits bit varying, pt point, poly polygon, circ circle, x xml, tv tsvector, tq tsquery,
  r int4range, mr int8multirange, o oid, rc regclass, lsn pg_lsn, ia integer[], ta text[][], ci public.citext
);
COMMENT ON TABLE zoo.scalars IS 'one column of each type';
COMMENT ON COLUMN zoo.scalars.f8 IS 'to the last bit';
INSERT INTO zoo.scalars (f4, f8, n, n2, m, b, c, v, t, k, nm, bin, j, jb, d, ti, tz, ts, tstz, iv, ivs, u, ip, net, mac, bits, vbits, pt, poly, circ, x, tv, tq, r, mr, o, rc, lsn, ia, ta, ci)
VALUES
  (0.1, 0.1 + 0.2::float8, 'NaN', 1.5, 12.34, true, 'ab', 'v', 'plain', 'k', 'a name', '\x00ff5c27', '{"b": 1,  "a": [1, null]}', '{"b": 1, "a": [1, null]}',
   'infinity', '23:59:59.999999', '12:00+05:30', '-infinity', 'infinity', '1 mon -2 days 03:04:05.6', '1 day 00:00:01.25', '00000000-0000-0000-0000-000000000001',
   '10.0.0.1/24', '10.1.0.0/16', '08:00:2b:01:02:03', B'10101', B'101', '(1.5,-0)', '((0,0),(1,1),(1,0))', '<(0,0),1e-300>', '<a b="c">ü</a>',
   'fat:1A cat:2', 'fat & !rat', '[1,10)', '{[1,3),[5,7)}', 4711, 'zoo.scalars', '16/B374D848', '{1,NULL,3}', '{{a,"b,c"},{NULL,"\"q\\"}}', 'Mixed Case'),
  ('NaN', 'NaN', 'Infinity', -0.000001, -0.01, false, '', '', '', '', '', '', 'null', '{}', '-infinity', '00:00', '00:00-12', '0044-03-15 00:00:00 BC', '2024-03-31 01:30:00+01',
   '-178000000 years', '-1 day', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '::1', '::/0', 'ff:ff:ff:ff:ff:ff', B'00000', B'', '(NaN,Infinity)', '((0,0))', '<(1,2),3>', '',
   '', '', 'empty', '{}', 0, NULL, '0/0', '{}', '{}', ''),
  ('-Infinity', '-0', '-Infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ('1e-45', '4.9406564584124654e-324', '123456789012345678901234567890.1234567890', 99999999999999.999999, 1, true, 'é', 'ünïcödé', E'tab\t nl\n cr\r bs\\ q'' dq" %s \u20ac 😀', 'z', 'n',
   decode(repeat('00ff', 1000), 'hex'), '[1.0, 1.00]', '[1.0, 1.00]', '2024-02-29', '12:34', '12:34+00', '2024-02-29 12:34:56.789', '1999-12-31 23:59:59.999999+00', 'P1Y2M3DT4H5M6S',
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '(,)', '{(,)}', 4294967295, 'pg_catalog.pg_class', 'FFFFFFFF/FFFFFFFF', '[2:3]={7,8}', NULL, NULL);
CREATE TABLE zoo.own_types (
  id bigserial PRIMARY KEY, feels zoo.mood DEFAULT 'ok', share zoo.percent, code zoo.code, home zoo.address, who zoo.person, homes zoo.address[], moods zoo.mood[],
  prices zoo.price_range, many zoo.price_ranges, bytes text COLLATE "C", shouted text COLLATE zoo.posix
);
INSERT INTO zoo.own_types (feels, share, code, home, who, homes, moods, prices, many, bytes)
VALUES ('it''s "fine"', 12.5, 'AB1', ROW('Main "St", \', 5, '{a,"b c"}'), ROW('Ann', ROW('x', NULL, NULL)), ARRAY[ROW('y', 1, '{}')::zoo.address, NULL], '{sad,happy}', '[1.5,2)', '{[1,2),(3,4]}', 'é'),
       ('sad', 0, NULL, ROW(NULL, NULL, NULL), NULL, '{}', NULL, 'empty', '{}', ''),
       (NULL, 100, 'ZZ99', NULL, NULL, NULL, '{}', '(,)', NULL, NULL);
CREATE TABLE zoo.generated (
  id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, net numeric NOT NULL, rate numeric DEFAULT 0.19, gross numeric GENERATED ALWAYS AS (zoo.add_tax(net, rate)) STORED,
  label text, folded text GENERATED ALWAYS AS (lower(public.unaccent(label))) STORED
);
INSERT INTO zoo.generated (net, rate, label) SELECT i, 0.07, 'Émile ' || i FROM generate_series(1, 50) i;
CREATE INDEX generated_unaccented ON zoo.generated USING gin (public.unaccent(label) public.gin_trgm_ops);
CREATE INDEX generated_partial ON zoo.generated (net DESC NULLS LAST) INCLUDE (label) WHERE net > 10;
CREATE INDEX generated_expression ON zoo.generated ((net * 2), lower(label) COLLATE "C" text_pattern_ops) WITH (fillfactor = 70);
ALTER INDEX zoo.generated_expression ALTER COLUMN 1 SET STATISTICS 300;
CREATE UNIQUE INDEX generated_nulls ON zoo.generated (label) NULLS NOT DISTINCT;
CREATE INDEX generated_brin ON zoo.generated USING brin (net) WITH (pages_per_range = 4);
CREATE INDEX generated_hash ON zoo.generated USING hash (label);
COMMENT ON INDEX zoo.generated_partial IS 'only the big ones';
CREATE STATISTICS zoo.generated_stats (ndistinct, dependencies, mcv) ON net, rate FROM zoo.generated;
CREATE STATISTICS zoo.generated_expr ON (net % 3), (lower(label)) FROM zoo.generated;
ALTER STATISTICS zoo.generated_stats SET STATISTICS 222;
COMMENT ON STATISTICS zoo.generated_stats IS 'they go together';

-- tables: storage
CREATE TABLE zoo.storage (
  a text, b text COMPRESSION pglz, c bytea, gone integer, d integer, "E" text, also_gone text
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false);
INSERT INTO zoo.storage SELECT repeat(chr(65 + i), 1048576), repeat('compressible ', 90000), decode(repeat(md5(i::text), 32768), 'hex'), i, i, 'kept ' || i, 'x' FROM generate_series(1, 3) i;
ALTER TABLE zoo.storage ALTER COLUMN a SET STORAGE EXTERNAL;
ALTER TABLE zoo.storage DROP COLUMN gone;
ALTER TABLE zoo.storage DROP COLUMN also_gone;
ALTER TABLE zoo.storage ADD COLUMN added integer NOT NULL DEFAULT 42;
ALTER TABLE zoo.storage ALTER COLUMN d SET STATISTICS 500, ALTER COLUMN d SET (n_distinct = -0.5), ALTER COLUMN "E" SET STORAGE MAIN;
CREATE UNLOGGED TABLE zoo.unlogged (id serial, note text);
INSERT INTO zoo.unlogged (note) VALUES ('lost in a crash'), ('lost in a crash'), (NULL);
CREATE TABLE zoo.no_columns ();
INSERT INTO zoo.no_columns DEFAULT VALUES;
INSERT INTO zoo.no_columns DEFAULT VALUES;
CREATE TABLE zoo.empty (id integer PRIMARY KEY, "when" timestamptz DEFAULT now(), price numeric(10, 2) CHECK (price >= 0));
CREATE TABLE zoo.doubles (a integer, b text);
INSERT INTO zoo.doubles VALUES (1, 'one'), (1, 'one'), (2, 'two'), (2, NULL), (NULL, 'two'), (NULL, NULL), (3, '');
CREATE TABLE zoo.only_dropped (a integer);
ALTER TABLE zoo.only_dropped DROP COLUMN a;
CREATE TABLE zoo.wide AS SELECT i AS id, md5(i::text) AS hash, i % 7 AS small, repeat('w', i % 50) AS fill FROM generate_series(1, 20000) i;
CREATE INDEX wide_id ON zoo.wide (id);
ALTER TABLE zoo.wide CLUSTER ON wide_id;

-- names
CREATE TABLE "Zoo ""quoted"".döts; %s %"."Table ""with"" 'quotes', dots. and: \ $1 %(x)s" (
  "select" integer PRIMARY KEY, "Column ""q"".ü %s %%" text DEFAULT 'it''s % "d" \', "a b" text, row text, t text
);
INSERT INTO "Zoo ""quoted"".döts; %s %"."Table ""with"" 'quotes', dots. and: \ $1 %(x)s" VALUES (1, DEFAULT, 'x', 'y', 'z'), (2, NULL, '', NULL, '');
COMMENT ON COLUMN "Zoo ""quoted"".döts; %s %"."Table ""with"" 'quotes', dots. and: \ $1 %(x)s"."Column ""q"".ü %s %%" IS 'what a name';
CREATE TABLE "Zoo ""quoted"".döts; %s %"."Exactly sixty-three bytes long, as long as a name can be ööööö" (id serial PRIMARY KEY, "Exactly sixty-three bytes long, as long as a name can be ööööö" text);
INSERT INTO "Zoo ""quoted"".döts; %s %"."Exactly sixty-three bytes long, as long as a name can be ööööö" VALUES (DEFAULT, 'long');
CREATE TABLE "Zoo ""quoted"".döts; %s %"."two
lines" ("two
lines" text);
INSERT INTO "Zoo ""quoted"".döts; %s %"."two
lines" VALUES (E'a\nb');
CREATE VIEW "Zoo ""quoted"".döts; %s %"."View" AS SELECT "select" AS "Select", "a b" FROM "Zoo ""quoted"".döts; %s %"."Table ""with"" 'quotes', dots. and: \ $1 %(x)s";
CREATE SEQUENCE "Zoo ""quoted"".döts; %s %"."Seq. ""1""" START 7;
CREATE TYPE "Zoo ""quoted"".döts; %s %"."Type;" AS ENUM ('A b', 'ü');
CREATE FUNCTION "Zoo ""quoted"".döts; %s %"."Func ""f"" %"("Arg 1" "Zoo ""quoted"".döts; %s %"."Type;") RETURNS text LANGUAGE sql AS 'SELECT 1::text';

-- sequences
CREATE SEQUENCE zoo.unowned START 10 INCREMENT 10 MINVALUE 5 MAXVALUE 1000 CACHE 20 CYCLE;
SELECT nextval('zoo.unowned'), nextval('zoo.unowned');
CREATE SEQUENCE zoo.untouched AS smallint START 3;
CREATE SEQUENCE zoo.backwards INCREMENT -3 MINVALUE -1000 MAXVALUE -1 START -1;
SELECT nextval('zoo.backwards'), nextval('zoo.backwards');
CREATE SEQUENCE zoo.rewound;
SELECT setval('zoo.rewound', 500, false);
CREATE SEQUENCE zoo.owned OWNED BY zoo.empty.id;
SELECT setval('zoo.owned', 9000000000);
COMMENT ON SEQUENCE zoo.owned IS 'goes with the table';
GRANT SELECT, UPDATE ON SEQUENCE zoo.unowned TO :reader;

-- partitions and inheritance
CREATE TABLE zoo.events (id bigint GENERATED BY DEFAULT AS IDENTITY, happened date NOT NULL, region text NOT NULL, detail jsonb, PRIMARY KEY (id, happened, region)) PARTITION BY RANGE (happened);
CREATE TABLE zoo.events_2023 PARTITION OF zoo.events FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE zoo.events_2024 PARTITION OF zoo.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (region);
CREATE TABLE zoo.events_2024_eu PARTITION OF zoo.events_2024 FOR VALUES IN ('eu', 'uk') PARTITION BY HASH (id);
CREATE TABLE zoo.events_2024_eu_0 PARTITION OF zoo.events_2024_eu FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE zoo.events_2024_eu_1 PARTITION OF zoo.events_2024_eu FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE zoo.events_2024_rest PARTITION OF zoo.events_2024 DEFAULT;
-- Its columns stand in another order than its parent's, and one was dropped.
CREATE TABLE zoo.events_later (detail jsonb, x integer, region text NOT NULL, happened date NOT NULL, id bigint NOT NULL);
ALTER TABLE zoo.events_later DROP COLUMN x;
ALTER TABLE zoo.events ATTACH PARTITION zoo.events_later FOR VALUES FROM ('2025-01-01') TO (MAXVALUE);
CREATE INDEX events_detail ON zoo.events USING gin (detail);
CREATE INDEX events_region ON zoo.events (region);
INSERT INTO zoo.events (happened, region, detail)
SELECT date '2023-06-01' + i * 3, (ARRAY['eu', 'uk', 'us', 'asia'])[1 + i % 4], jsonb_build_object('i', i, 'odd', i % 2 = 1) FROM generate_series(1, 400) i;
CREATE TABLE zoo.event_notes (event bigint, happened date, region text, note text, FOREIGN KEY (event, happened, region) REFERENCES zoo.events);
INSERT INTO zoo.event_notes SELECT id, happened, region, 'note' FROM zoo.events LIMIT 20;
CREATE TABLE zoo.by_expression (a integer, b text) PARTITION BY RANGE ((a % 10), lower(b) COLLATE "C");
CREATE TABLE zoo.parent (id integer NOT NULL, note text DEFAULT 'p', CONSTRAINT positive CHECK (id > 0));
CREATE TABLE zoo.other_parent (extra text);
CREATE TABLE zoo.child (own integer DEFAULT 5, note text DEFAULT 'c') INHERITS (zoo.parent, zoo.other_parent);
ALTER TABLE zoo.parent ADD CONSTRAINT not_inherited CHECK (id < 1000000) NO INHERIT;
INSERT INTO zoo.parent VALUES (1, 'in the parent');
INSERT INTO zoo.child VALUES (2, 'in the child', 'e', 6);
CREATE TABLE zoo.of_type OF zoo.address (street WITH OPTIONS NOT NULL, PRIMARY KEY (street));
INSERT INTO zoo.of_type VALUES ('s', 1, '{}');

-- constraints
CREATE TABLE zoo.hens (id integer PRIMARY KEY, egg integer, code text UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE zoo.eggs (id integer PRIMARY KEY, hen integer NOT NULL REFERENCES zoo.hens ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE zoo.hens ADD CONSTRAINT hens_egg FOREIGN KEY (egg) REFERENCES zoo.eggs DEFERRABLE;
ALTER TABLE zoo.hens ADD parent integer REFERENCES zoo.hens ON DELETE SET NULL (parent);
COMMENT ON CONSTRAINT hens_egg ON zoo.hens IS 'which was first';
INSERT INTO zoo.hens VALUES (1, NULL, 'h1', NULL), (2, NULL, 'h2', 1);
INSERT INTO zoo.eggs VALUES (10, 1), (20, 2);
UPDATE zoo.hens SET egg = id * 10;
CREATE TABLE zoo.unproved (id integer, hen integer);
INSERT INTO zoo.unproved VALUES (-1, 777);
ALTER TABLE zoo.unproved ADD CONSTRAINT unproved_positive CHECK (id > 0) NOT VALID;
ALTER TABLE zoo.unproved ADD CONSTRAINT unproved_hen FOREIGN KEY (hen) REFERENCES zoo.hens NOT VALID;
CREATE TABLE zoo.bookings (room integer, during tstzrange, seats circle, EXCLUDE USING gist (during WITH &&) WHERE (room = 1), CONSTRAINT apart EXCLUDE USING gist (seats WITH &&) DEFERRABLE);
INSERT INTO zoo.bookings VALUES (1, '[2024-01-01, 2024-01-02)', '<(0,0),1>'), (2, '[2024-01-01, 2024-01-02)', '<(9,9),1>');
CREATE TABLE zoo.replicated (a integer NOT NULL, b text NOT NULL);
CREATE UNIQUE INDEX replicated_key ON zoo.replicated (a, b);
ALTER TABLE zoo.replicated REPLICA IDENTITY USING INDEX replicated_key;
ALTER TABLE zoo.doubles REPLICA IDENTITY FULL;
ALTER TABLE zoo.no_columns REPLICA IDENTITY NOTHING;

-- triggers and rules
CREATE TABLE zoo.notes (id serial PRIMARY KEY, note text, author text DEFAULT CURRENT_USER);
INSERT INTO zoo.notes (note) VALUES ('first'), ('second');
CREATE TRIGGER stamp_first BEFORE INSERT OR UPDATE OF note ON zoo.notes FOR EACH ROW WHEN (NEW.note IS DISTINCT FROM 'no "stamp"') EXECUTE FUNCTION zoo.stamp();
CREATE TRIGGER "Stamp disabled" BEFORE INSERT ON zoo.notes FOR EACH ROW EXECUTE FUNCTION zoo.stamp('an', 'argument');
CREATE TRIGGER stamp_replica BEFORE INSERT ON zoo.notes FOR EACH ROW EXECUTE FUNCTION zoo.stamp();
CREATE TRIGGER stamp_always BEFORE INSERT ON zoo.notes FOR EACH ROW EXECUTE FUNCTION zoo.stamp();
ALTER TABLE zoo.notes DISABLE TRIGGER "Stamp disabled";
ALTER TABLE zoo.notes ENABLE REPLICA TRIGGER stamp_replica;
ALTER TABLE zoo.notes ENABLE ALWAYS TRIGGER stamp_always;
COMMENT ON TRIGGER stamp_first ON zoo.notes IS 'the first one';
CREATE FUNCTION zoo.after() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON zoo.notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION zoo.after();
CREATE TRIGGER transition AFTER UPDATE ON zoo.notes REFERENCING OLD TABLE AS was NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION zoo.after();
CREATE TRIGGER on_parts AFTER INSERT ON zoo.events FOR EACH ROW EXECUTE FUNCTION zoo.after();
ALTER TABLE zoo.events_2023 DISABLE TRIGGER on_parts;
CREATE RULE no_delete AS ON DELETE TO zoo.notes WHERE OLD.id = 1 DO INSTEAD NOTHING;
CREATE RULE copy_insert AS ON INSERT TO zoo.notes DO ALSO INSERT INTO zoo.doubles (a, b) VALUES (NEW.id, NEW.note);
ALTER TABLE zoo.notes DISABLE RULE copy_insert;
COMMENT ON RULE no_delete ON zoo.notes IS 'the first stays';

-- views
CREATE VIEW zoo.plain AS SELECT id, net, gross FROM zoo.generated WHERE net > 10 ORDER BY id;
CREATE VIEW zoo.joined WITH (security_barrier, security_invoker) AS
  SELECT p.id, p.net, h.code, count(*) OVER (PARTITION BY h.id) AS n FROM zoo.plain p LEFT JOIN zoo.hens h USING (id) WHERE p.net IN (SELECT n.net FROM zoo.generated n WHERE n.id = p.id);
CREATE VIEW zoo.checked AS SELECT * FROM zoo.empty WHERE price > 1 WITH CASCADED CHECK OPTION;
CREATE VIEW zoo.grouped AS SELECT region, extract(year FROM happened) AS year, count(*) AS n, array_agg(DISTINCT id ORDER BY id) AS ids FROM zoo.events GROUP BY region, extract(year FROM happened) HAVING count(*) > 1;
CREATE VIEW zoo.united AS SELECT id, 'hen' AS what FROM zoo.hens UNION ALL SELECT id, 'egg' FROM zoo.eggs UNION ALL (WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n, 'n' FROM r);
CREATE VIEW zoo.lateral_one AS SELECT s.id, x.k, x.v, trim(both 'x' from s.t) AS trimmed, s.tstz AT TIME ZONE 'UTC' AS utc, COALESCE(s.t, s.v) || 'x' AS both FROM zoo.scalars s, LATERAL jsonb_each_text(s.jb) AS x(k, v);
CREATE VIEW zoo.whole_row AS SELECT n, n.id IS NOT NULL AS there, (SELECT max(id) FROM zoo.notes) AS top FROM zoo.notes n;
COMMENT ON VIEW zoo.plain IS 'a view';
COMMENT ON COLUMN zoo.plain.net IS 'a column of a view';
ALTER VIEW zoo.plain ALTER COLUMN net SET DEFAULT 1;
CREATE RULE plain_insert AS ON INSERT TO zoo.joined DO INSTEAD INSERT INTO zoo.hens (id, code) VALUES (NEW.id, NEW.code) RETURNING hens.id, 1.0::numeric, hens.code, 1::bigint;
CREATE VIEW zoo.renamed AS SELECT a AS "first Col", b FROM zoo.doubles;
ALTER TABLE zoo.doubles RENAME COLUMN a TO "A new name";
CREATE MATERIALIZED VIEW zoo.totals AS SELECT region, count(*) AS n FROM zoo.events GROUP BY region;
CREATE UNIQUE INDEX totals_region ON zoo.totals (region);
CREATE MATERIALIZED VIEW zoo.totals_of_totals WITH (fillfactor = 90) AS SELECT sum(n) AS n FROM zoo.totals;
CREATE MATERIALIZED VIEW zoo.unpopulated AS SELECT id FROM zoo.hens WITH NO DATA;
CREATE INDEX unpopulated_id ON zoo.unpopulated (id);
COMMENT ON MATERIALIZED VIEW zoo.totals IS 'made now and then';

-- row level security
CREATE TABLE zoo.secrets (id integer, whose name DEFAULT CURRENT_USER, secret text);
INSERT INTO zoo.secrets SELECT i, 'nobody', 'secret ' || i FROM generate_series(1, 30) i;
ALTER TABLE zoo.secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON zoo.secrets USING (whose = CURRENT_USER) WITH CHECK (whose = CURRENT_USER AND EXISTS (SELECT 1 FROM zoo.hens h WHERE h.id = secrets.id));
CREATE POLICY "Reader %" ON zoo.secrets AS RESTRICTIVE FOR SELECT TO :reader, :writer USING (id < 10);
COMMENT ON POLICY own_rows ON zoo.secrets IS 'each his own';
CREATE TABLE zoo.rls_off (id integer);
CREATE POLICY unused ON zoo.rls_off USING (false);

-- text search
CREATE TEXT SEARCH DICTIONARY zoo.short_words (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION zoo.english_plain (COPY = english);
ALTER TEXT SEARCH CONFIGURATION zoo.english_plain ALTER MAPPING FOR asciiword, word WITH zoo.short_words, english_stem;
ALTER TEXT SEARCH CONFIGURATION zoo.english_plain DROP MAPPING FOR email;
COMMENT ON TEXT SEARCH CONFIGURATION zoo.english_plain IS 'plain';
CREATE INDEX own_types_search ON zoo.own_types USING gin (to_tsvector('zoo.english_plain', bytes));

-- grants
GRANT SELECT ON zoo.scalars, zoo.plain, zoo.totals TO :reader WITH GRANT OPTION;
GRANT INSERT, UPDATE, DELETE, TRUNCATE ON zoo.scalars TO :writer;
GRANT ALL ON zoo.empty TO :writer;
GRANT SELECT (id, net), UPDATE (label) ON zoo.generated TO :reader;
GRANT SELECT ON zoo.doubles TO PUBLIC;
REVOKE DELETE ON zoo.replicated FROM :owner;
REVOKE ALL ON zoo.hens FROM :reader;

-- large objects
SELECT lo_from_bytea(100001, decode(repeat('000102ff', 200000), 'hex')), lo_from_bytea(100002, ''), lo_from_bytea(100003, 'with "text" in it');
SELECT lo_create(100004);
SELECT lo_put(100004, 100000, '\xdeadbeef');
COMMENT ON LARGE OBJECT 100001 IS 'a big one';
GRANT SELECT, UPDATE ON LARGE OBJECT 100001 TO :reader;
CREATE TABLE zoo.documents (name text PRIMARY KEY, content oid);
INSERT INTO zoo.documents VALUES ('big', 100001), ('empty', 100002), ('text', 100003), ('with a hole', 100004);

--- part: reader
-- A grant that is not the owner's own.
GRANT SELECT ON zoo.scalars TO :writer;

--- part: superuser
CREATE TABLE zoo.of_the_server (id integer);
ALTER LARGE OBJECT 100003 OWNER TO :reader;
ALTER DEFAULT PRIVILEGES FOR ROLE :writer GRANT SELECT ON TABLES TO :reader;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO :reader;
GRANT SELECT ON pg_catalog.pg_authid TO :reader;
REVOKE EXECUTE ON FUNCTION public.similarity(text, text) FROM PUBLIC;
CREATE FUNCTION zoo.of_writer() RETURNS integer LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION zoo.of_writer() OWNER TO :writer;

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with every kind of object that a tenant may have made, for what copies databases and what compares them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from postgres_fixture import RunningServer
from psycopg2 import sql

ZOO = Path(__file__).resolve().parent / "zoo.sql"
READER = "zoo_reader"
WRITER = 'Zoo "Writer" ü'
PASSWORD = "ZooKeepersPassword1"
# Of that password: the same on each server, as a move leaves it.
VERIFIER = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$TsQEtd2xLnMG36Q3SYLn8K+hT+mzvD4UYrNKXpyZwvg=:j2+YTIy0qj0SYmIc624pvKRUw6WueCqiLIO0dnf1GpA="
# Below an ICU collation equal is not identical; a server built without ICU has none.
_ICU = """
CREATE COLLATION zoo.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
COMMENT ON COLLATION zoo.caseless IS 'a = A';
CREATE TABLE zoo.caseless_names (name text COLLATE zoo.caseless PRIMARY KEY, other text COLLATE "C");
INSERT INTO zoo.caseless_names VALUES ('Ärger', 'a'), ('b', 'B');
"""


def roles(server: RunningServer, owner: str) -> None:
    """The owner and the two roles that are granted something, with limits and settings, where they are missing."""
    attributes = "LOGIN PASSWORD {0} CONNECTION LIMIT 7 VALID UNTIL 'infinity'"
    wanted = {owner: attributes, READER: "NOLOGIN", WRITER: "NOLOGIN NOINHERIT CONNECTION LIMIT 3"}
    with contextlib.closing(server.connect()) as connection:
        there = {name for (name,) in _query(connection, "SELECT rolname FROM pg_roles")}
        for name, words in wanted.items():
            if name not in there:
                made = sql.SQL("CREATE ROLE {0} " + words.replace("{0}", "{1}"))
                _run(connection, made.format(sql.Identifier(name), sql.Literal(VERIFIER)))
        _run(connection, sql.SQL("GRANT {} TO {}").format(sql.Identifier(READER), sql.Identifier(owner)))
        _run(connection, sql.SQL("ALTER ROLE {} SET temp_file_limit = '1GB'").format(sql.Identifier(owner)))
        _run(connection, sql.SQL("ALTER ROLE {} SET statement_timeout = '1h'").format(sql.Identifier(owner)))


def make(server: RunningServer, database: str, owner: str) -> None:
    """The roles and an empty database of the owner's."""
    roles(server, owner)
    with contextlib.closing(server.connect()) as connection:
        made = "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
        _run(connection, sql.SQL(made).format(sql.Identifier(database), sql.Identifier(owner)))


def quoted(name: str) -> str:
    return '"{0}"'.format(name.replace('"', '""'))


def settling(database: str, owner: str) -> List[str]:
    """SQL for what belongs to the database as a whole, all of which a dump forgets: ACL, comment, limit, settings for it and for roles in it."""
    statements = (
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {database} TO {reader}",
        "GRANT TEMPORARY ON DATABASE {database} TO {writer} WITH GRANT OPTION",
        "COMMENT ON DATABASE {database} IS 'the zoo; it''s big'",
        "ALTER DATABASE {database} CONNECTION LIMIT 11",
        "ALTER DATABASE {database} SET work_mem = '7MB'",
        'ALTER DATABASE {database} SET search_path = zoo, "$user", public',
        # Whoever reads rows as they are shown must not be led astray by these.
        "ALTER DATABASE {database} SET DateStyle = 'German, DMY'",
        "ALTER DATABASE {database} SET TimeZone = 'Asia/Kathmandu'",
        "ALTER DATABASE {database} SET extra_float_digits = -3",
        "ALTER DATABASE {database} SET bytea_output = 'escape'",
        "ALTER DATABASE {database} SET IntervalStyle = 'iso_8601'",
        "ALTER ROLE {owner} IN DATABASE {database} SET lock_timeout = '3s'",
        "ALTER ROLE {reader} IN DATABASE {database} SET search_path = zoo",
    )
    names = {"database": database, "owner": owner, "reader": READER, "writer": WRITER}
    return [statement.format(**{key: quoted(name) for key, name in names.items()}) for statement in statements]


def settle(server: RunningServer, database: str, owner: str) -> None:
    with contextlib.closing(server.connect()) as connection:
        for statement in settling(database, owner):
            _run(connection, statement)


def parts(owner: str, icu: bool) -> List[Tuple[Optional[str], str]]:
    """Everything inside the database: pieces of SQL, each with the role that runs it in one transaction, None for the superuser."""
    names = {":owner": owner, ":reader": READER, ":writer": WRITER}
    pieces = re.split(r"^--- part: (\w+)$", ZOO.read_text(encoding="utf-8"), flags=re.M)[1:]
    return [
        (names.get(":" + who), re.sub(r":(owner|reader|writer)\b", lambda found: quoted(names[found.group()]), statements))
        for who, statements in zip(pieces[::2], pieces[1::2])
    ] + ([(owner, _ICU)] if icu else [])


def contents(server: RunningServer, database: str, owner: str, tables: int = 0) -> None:
    """Everything inside the database, and *tables* small tables more, each with an identity, a key, an index and three rows."""
    with contextlib.closing(server.connect(database)) as connection:
        icu = bool(_query(connection, "SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1"))
        for role, statements in parts(owner, icu):
            _as(connection, role, statements)
    small_tables(server, database, owner, tables)


def small_tables(server: RunningServer, database: str, owner: str, tables: int) -> None:
    with contextlib.closing(server.connect(database)) as connection:
        for statements in small(tables):
            _as(connection, owner, statements)


def small(tables: int) -> List[str]:
    """SQL for so many, not all in one transaction, which would hold too many locks."""
    return ["".join(_small(number) for number in range(first, min(first + 200, tables))) for first in range(0, tables, 200)]


def fill(server: RunningServer, database: str, owner: str, tables: int = 0) -> None:
    """The whole zoo: roles, database, its settings and all that is in it."""
    make(server, database, owner)
    settle(server, database, owner)
    contents(server, database, owner, tables)


def temporary(server: RunningServer, database: str) -> Any:
    """A session with a temporary table, view, sequence and type of its own; they last as long as the connection."""
    connection = server.connect(database)
    _run(connection, "CREATE TEMPORARY TABLE passing (id serial PRIMARY KEY, note text)")
    _run(connection, "INSERT INTO passing (note) SELECT 'not to be kept' FROM generate_series(1, 100)")
    _run(connection, "CREATE TEMPORARY VIEW passing_view AS SELECT * FROM passing")
    _run(connection, "CREATE TYPE pg_temp.passing_type AS ENUM ('a')")
    return connection


def forget(server: RunningServer, databases: Sequence[str], owners: Sequence[str] = ()) -> None:
    """Without these databases, and without the zoo's roles and *owners* where nothing else holds them."""
    with contextlib.closing(server.connect()) as connection:
        for name in databases:
            _run(connection, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        for name in (*owners, READER, WRITER) if owners else ():
            _run(connection, sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def _small(number: int) -> str:
    name = "zoo.small_{0:05d}".format(number)
    return (
        "CREATE TABLE {0} (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, parent integer, note text NOT NULL DEFAULT 'n');"
        "CREATE INDEX ON {0} (note); INSERT INTO {0} (note) VALUES ('a{1}'), ('b{1}'), ('c{1}');\n"
    ).format(name, number)


def _as(connection: Any, role: Optional[str], statements: str) -> None:
    """In one transaction, so that a zoo is there as a whole; the role's own rights only, and its name on what it makes."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION AUTHORIZATION DEFAULT")
        if role:
            cursor.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute(statements)
        cursor.execute("SET SESSION AUTHORIZATION DEFAULT")


def _run(connection: Any, statement: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _query(connection: Any, statement: str) -> List[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        found: List[Any] = cursor.fetchall()
        return found


def counts(server: RunningServer, database: str) -> Dict[str, int]:
    """How many rows each ordinary table and materialized view has: a second way to look, that knows nothing of how copies are compared."""
    with contextlib.closing(server.connect(database)) as connection:
        _run(connection, "SET search_path = pg_catalog")
        names = _query(
            connection,
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm') AND relispopulated AND relpersistence <> 't'"
            " AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace) ORDER BY 1",
        )
        return {name: _query(connection, "SELECT count(*) FROM ONLY {0}".format(name))[0][0] for (name,) in names}


def dump_and_restore(source: RunningServer, target: RunningServer, database: str, owner: str, folder: Path, to: Optional[str] = None) -> str:
    """A copy by hand, by the target's own pg_dump and pg_restore, with all that they forget; the copy's name."""
    to = to or database
    make(target, to, owner)
    with contextlib.closing(target.connect(to)) as connection:
        # As a superuser and before the tables are there, which have an index on it.
        _run(connection, "CREATE EXTENSION unaccent; ALTER FUNCTION public.unaccent(text) IMMUTABLE")
    archive = str(folder / "zoo.dump")
    _client(source, folder, os.path.join(target.bin_dir, "pg_dump"), "-Fc", "-f", archive, "-d", database)
    _client(target, folder, os.path.join(target.bin_dir, "pg_restore"), "--exit-on-error", "-d", to, archive)
    settle(target, to, owner)
    return to


def _client(server: RunningServer, folder: Path, *command: str) -> None:
    passfile = folder / "passfile"
    passfile.touch(mode=0o600)
    passfile.write_text("*:*:*:*:{0}\n".format(server.password), encoding="ascii")
    login = {"PGHOST": server.host, "PGPORT": str(server.port), "PGUSER": server.user, "PGPASSFILE": str(passfile)}
    done = subprocess.run(command, env=dict(os.environ, **login), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All of a database by ways that share nothing with the copy or the comparison but PostgreSQL itself: what pg_dump writes, digests of all rows, and
what a dump forgets. A server is whatever has connect(), host, port, user and password."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_clients import Clients

# What a dump forgets, or does not tell of.
AROUND = {
    "database": "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider, datconnlimit, datacl::text,"
    " shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %(name)s",
    "settings": "SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END, setconfig FROM pg_db_role_setting"
    " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = %(name)s) ORDER BY 1",
    "owner": "SELECT rolname, rolcanlogin, rolinherit, rolconnlimit, rolpassword, rolvaliduntil, (SELECT setconfig FROM pg_db_role_setting"
    " WHERE setrole = a.oid AND setdatabase = 0) FROM pg_authid a WHERE oid = (SELECT datdba FROM pg_database WHERE datname = %(name)s)",
    "roles": "SELECT rolname, rolinherit, rolconnlimit, shobj_description(oid, 'pg_authid') FROM pg_authid"
    " WHERE oid >= 16384 AND rolname ILIKE 'zoo%%' ORDER BY 1",
    "members": "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members WHERE roleid >= 16384 ORDER BY 1, 2",
    "altered": "SELECT p.oid::regprocedure::text, provolatile FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'"
    " WHERE d.classid = 'pg_proc'::regclass AND proname = 'unaccent' ORDER BY 1",
    "extensions": "SELECT extname, extnamespace::regnamespace::text, pg_get_userbyid(extowner) FROM pg_extension ORDER BY 1",
}


class Picture(NamedTuple):
    schema: List[str]
    rows: Dict[str, Any]
    around: Dict[str, Any]


def picture(server: Any, database: str, clients: Clients, same: bool) -> Picture:
    """All of a database. *clients* are of the newer major; with *same* it is compared with one of a server of its own major."""
    return Picture(schema(server, database, clients, same), rows(server, database), around(server, database))


def schema(server: Any, database: str, clients: Clients, same: bool) -> List[str]:
    """What pg_dump writes; between majors, which write views differently, its table of contents."""
    with tempfile.TemporaryDirectory() as home:
        passfile, archive = Path(home, "pass"), str(Path(home, "archive"))
        passfile.touch(mode=0o600)
        passfile.write_text("*:*:*:*:" + server.password)
        login = ["-h", server.host, "-p", str(server.port), "-U", server.user, "-d", "dbname='{0}'".format(database.replace("'", "\\'"))]
        env = dict(os.environ, PGPASSFILE=str(passfile))
        subprocess.run([clients.program("pg_dump"), *login, "-s", "-Fc", "-f", archive], env=env, check=True)
        what = ["-f", "-"] if same else ["-l"]
        text = subprocess.run([clients.program("pg_restore"), *what, archive], check=True, capture_output=True, text=True).stdout
    return lines(text, same)


def lines(text: str, same: bool) -> List[str]:
    """Of what pg_restore writes, SQL or else the table of contents, what is no server's own."""
    if same:
        # The roles of a policy stand in the order in which they were made.
        found = [line for line in text.splitlines() if line and not line.startswith(("--", "\\", "SET "))]
        return [" ".join(sorted(re.split(",? ", line))) if line.startswith("CREATE POLICY") else line for line in found]
    return sorted(re.sub(r"^\d+; \d+ \d+ ", "", line) for line in text.splitlines() if line and not line.startswith(";"))


def rows(server: Any, database: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog; SET extra_float_digits = 3; SET bytea_output = hex; SET timezone = 'UTC'; SET datestyle = 'ISO'")
        cursor.execute(
            "SELECT oid::regclass::text, relkind FROM pg_class WHERE relkind IN ('r', 'm', 'S') AND relpersistence <> 't' AND relispopulated"
            " AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        )
        for name, kind in cursor.fetchall():
            columns = "last_value, is_called" if kind == "S" else "t"
            cursor.execute(
                "SELECT count(*), md5(string_agg(x, ' ' ORDER BY x COLLATE \"C\")) FROM (SELECT textin(record_out(ROW({0}))) AS x FROM ONLY {1} t) y".format(
                    columns, name.replace("%", "%%")
                ).replace("%%", "%")
            )
            found[name] = cursor.fetchone()
        cursor.execute(
            "SELECT oid, lomowner::regrole::text, lomacl::text, md5(lo_get(oid)), obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata"
        )
        found["large objects"] = sorted(cursor.fetchall())
    return found


def around(server: Any, database: str) -> Dict[str, Any]:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        found = {}
        for what, query in AROUND.items():
            cursor.execute(query, {"name": database})
            found[what] = cursor.fetchall()
        return found


def refresh(server: Any, database: str) -> None:
    """Fill the materialized views anew, those before that others rest upon."""
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'm' AND relispopulated ORDER BY oid")
        for (name,) in cursor.fetchall():
            cursor.execute("REFRESH MATERIALIZED VIEW {0}".format(name))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One way into a PostgreSQL server, with the option names of community.postgresql."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import tempfile
import traceback
from typing import Any, Dict, Iterator, Mapping, Optional

from ._errors import PoolsError

try:
    import psycopg2
    import psycopg2.extensions

    PSYCOPG2_IMPORT_ERROR: Optional[str] = None
except ImportError:
    PSYCOPG2_IMPORT_ERROR = traceback.format_exc()

# Ansible options on the left, libpq's keywords on the right.
_LIBPQ_KEYWORDS = {
    "login_host": "host",
    "login_port": "port",
    "login_user": "user",
    "login_password": "password",
    "login_db": "dbname",
    "ssl_mode": "sslmode",
    "ca_cert": "sslrootcert",
    "ssl_cert": "sslcert",
    "ssl_key": "sslkey",
}
DEFAULT_CONNECT_TIMEOUT = 10


def actor() -> str:
    """Who is at work, for the event log: ``user@host``, or the AWX job where there is one."""
    job = os.environ.get("AWX_JOB_ID") or os.environ.get("TOWER_JOB_ID")
    if job:
        return "awx-job-{0}".format(job)
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return "{0}@{1}".format(name, socket.gethostname())


def libpq_arguments(params: Mapping[str, Any]) -> Dict[str, Any]:
    """Translate ``login_*`` options to libpq keywords; an option that is not given leaves the PG* variables in force."""
    arguments = {
        keyword: params[option] for option, keyword in _LIBPQ_KEYWORDS.items() if params.get(option) not in (None, "")
    }
    if not params.get("login_host") and params.get("login_unix_socket"):
        arguments["host"] = params["login_unix_socket"]
    arguments.update(params.get("connect_params") or {})
    return arguments


@contextlib.contextmanager
def ca_file(certificates: str) -> Iterator[Optional[str]]:
    """A file with these certificates for as long as a connection attempt lasts: libpq takes them in no other way."""
    if not certificates:
        yield None
        return
    descriptor, path = tempfile.mkstemp(prefix="postgres-pools-ca-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(certificates)
        yield path
    finally:
        os.unlink(path)


def connect(params: Mapping[str, Any], dbname: Optional[str] = None) -> psycopg2.extensions.connection:
    """Open a connection from ``login_*`` options, and ``ca_certificate``, the certificates of ``ca_cert`` as text.

    :raises PoolsError: the server cannot be reached or refuses the login; the message names host, port, database and user.
    """
    arguments = libpq_arguments(params)
    if dbname is not None:
        arguments["dbname"] = dbname
    arguments.setdefault("connect_timeout", DEFAULT_CONNECT_TIMEOUT)
    arguments.setdefault("application_name", actor()[:63])
    try:
        with ca_file(params.get("ca_certificate") or "") as path:
            if path:
                arguments["sslrootcert"] = path
            return psycopg2.connect(**arguments)
    except psycopg2.Error as error:
        raise PoolsError(
            "Cannot connect to database {0!r} on {1} port {2} as {3!r}: {4}.".format(
                arguments.get("dbname", os.environ.get("PGDATABASE", "")),
                arguments.get("host", os.environ.get("PGHOST", "the local socket")),
                arguments.get("port", os.environ.get("PGPORT", "5432")),
                arguments.get("user", os.environ.get("PGUSER", "")),
                " ".join(str(error).split()).rstrip("."),
            ),
            "Check that the server runs, that this host reaches it, and the login_* options.",
        ) from error

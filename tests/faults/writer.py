# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a container of its own, as a tenant: commits numbered rows, and says which of them the server acknowledged.

Its first line of input is its login, in JSON; when the input ends, so does it. A number is used once, whatever became of it, so that
each acknowledged one must be there exactly once. Where there are several hosts, with commas between them, the tenant may be on any.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time

import psycopg2
import psycopg2.extensions

LOGIN = json.loads(sys.stdin.readline())
HOSTS = LOGIN["host"].split(",")
# An application that waits for an answer no longer than this. What it gave up on is not acknowledged.
PATIENCE = 5
PAUSE = 0.1
AUTHORITY = "/tmp/authority.crt"
# The row and the counter change together or not at all.
COMMIT = (
    "WITH w AS (INSERT INTO faults_rows (writer, n, filler) VALUES (%s, %s, repeat(md5(random()::text), 8)) RETURNING 1)"
    " UPDATE faults_totals SET total = total + (SELECT count(*) FROM w)"
)


def patient(connection: psycopg2.extensions.connection) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        ready = ([connection.fileno()], []) if state == psycopg2.extensions.POLL_READ else ([], [connection.fileno()])
        if not any(select.select(ready[0], ready[1], [], max(0.0, end - time.monotonic()))):
            raise TimeoutError("no answer within {0} s".format(PATIENCE))


def connect() -> psycopg2.extensions.connection:
    # libpq tries every address that the name has, each with this limit; it does so only where nobody else waits for the socket.
    psycopg2.extensions.set_wait_callback(None)
    connection = psycopg2.connect(
        # Not a list for libpq, which goes on to the next host only where none answers, and not where it is refused.
        host=HOSTS[0],
        port=LOGIN["port"],
        dbname=LOGIN["database"],
        user=LOGIN["user"],
        password=LOGIN["password"],
        sslmode=LOGIN["sslmode"],
        sslrootcert=AUTHORITY,
        connect_timeout=2,
        keepalives_idle=1,
        keepalives_interval=1,
        keepalives_count=3,
        tcp_user_timeout=3000,
    )
    connection.autocommit = True
    psycopg2.extensions.set_wait_callback(patient)
    return connection


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    with open(AUTHORITY, "w", encoding="ascii") as file:
        file.write(LOGIN.get("ca_certificate") or "")
    threading.Thread(target=end_with_input, daemon=True).start()
    connection = None
    number = LOGIN["first"]
    while True:
        start = time.time()
        try:
            connection = connection or connect()
            with connection.cursor() as cursor:
                cursor.execute(COMMIT, (LOGIN["writer"], number))
            say(n=number, start=start, end=time.time())
        except (psycopg2.Error, TimeoutError) as problem:
            say(error=str(problem).strip()[:300], start=start, end=time.time())
            if connection is not None:
                # Not closed politely: it may wait for nobody.
                connection = None
            else:
                HOSTS.append(HOSTS.pop(0))
        number += 1
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application with a database: each look at its page is a row, and the page says how many there are.

Its argument is a JSON file with the arguments of psycopg2.connect(). It says its URL on standard output when it can be used.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
from pathlib import Path
from typing import Any, Dict

import psycopg2


class Application(http.server.ThreadingHTTPServer):
    def __init__(self, connection: Dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.connection = connection
        self.ask("CREATE TABLE IF NOT EXISTS visits (at timestamptz NOT NULL DEFAULT clock_timestamp())")

    def ask(self, *statements: str) -> Any:
        with (
            contextlib.closing(psycopg2.connect(connect_timeout=10, **self.connection)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None


class Page(http.server.BaseHTTPRequestHandler):
    server: Application

    def do_GET(self) -> None:
        database, user, visits = self.server.ask(
            "INSERT INTO visits DEFAULT VALUES", "SELECT current_database(), current_user, count(*) FROM visits"
        )
        content = json.dumps({"database": database, "user": user, "visits": visits}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        """Nobody reads it."""


if __name__ == "__main__":
    application = Application(json.loads(Path(sys.argv[1]).read_text()))
    print("http://127.0.0.1:{0}/".format(application.server_port), flush=True)
    application.serve_forever()

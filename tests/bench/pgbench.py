# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgbench with one custom script: how many transactions a second, and how long 95 of 100 took at most."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence


class Measured(NamedTuple):
    per_second: float
    p95_ms: float


def percentile95(milliseconds: Sequence[float]) -> float:
    """The nearest rank: the smallest that at least 95 of 100 do not exceed."""
    ordered = sorted(milliseconds)
    return ordered[-(-95 * len(ordered) // 100) - 1]


def program(bin_dir: str) -> str:
    found = shutil.which("pgbench", path=os.pathsep.join([bin_dir, os.environ.get("PATH", "")]))
    if not found:
        raise SystemExit("bench: no pgbench beside PostgreSQL nor in PATH; Debian has it in postgresql-contrib or postgresql-15.")
    return found


class Pgbench:
    """One login to one database. The simple protocol is used: psycopg2 sends its statements so, with the values in them."""

    def __init__(self, server: Any, dbname: str, user: str, password: str) -> None:
        self._program = program(server.bin_dir)
        self._where = ["-h", server.host, "-p", str(server.port), "-U", user]
        self._dbname = dbname
        self._password = "*:*:*:*:" + password

    def run(self, script: str, clients: int, transactions: int) -> Measured:
        """*transactions* in all, shared by *clients*."""
        each = max(1, transactions // clients)
        with tempfile.TemporaryDirectory(prefix="postgres-pools-bench-") as folder:
            path, passfile = Path(folder, "script.sql"), Path(folder, "pgpass")
            path.write_text(script)
            passfile.touch(mode=0o600)
            passfile.write_text(self._password + "\n")
            options = ["-n", "-M", "simple", "-c", str(clients), "-j", str(min(clients, os.cpu_count() or 1)), "-t", str(each), "-D", "number=0"]
            done = subprocess.run(
                [self._program, *options, *self._where, "-f", str(path), "-l", "--log-prefix", str(Path(folder, "log")), self._dbname],
                env=dict(os.environ, PGPASSFILE=str(passfile)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
            )
            if done.returncode:
                raise SystemExit("bench: pgbench failed:\n%s\n%s" % (script, done.stdout))
            return Measured(_per_second(done.stdout), percentile95(_latencies(Path(folder))))


def _per_second(output: str) -> float:
    found = re.search(r"tps = ([0-9.]+) \(without", output)
    assert found, output
    return float(found.group(1))


def _latencies(folder: Path) -> List[float]:
    """The third field of a line of the log is the transaction's time in microseconds."""
    return [int(line.split()[2]) / 1000 for log in folder.glob("log.*") for line in log.read_text().splitlines()]

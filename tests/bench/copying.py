# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds and memory of database_copy, beside pg_dump and pg_restore by hand and beside community.postgresql.postgresql_db.

    python tests/bench/copying.py            a database of 1 GB with its indexes (some ten minutes)
    python tests/bench/copying.py --large    5 GB
    python tests/bench/copying.py --smoke    30 MB, in under a minute; shows only that all of it works

It prints the lines of a table. Both servers and all programs share this machine: take the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import checkout
from copy_fixture import Majors, Pair, login, parameters, running_pair
from environment import children

DATABASE, OWNER = "bench", "bench_user"
JOBS = 2
AIM_BY_HAND, AIM_MODULE = 1.1, 1.5
_SETTINGS = {"fsync": "on", "max_wal_size": "2GB", "shared_buffers": "256MB", "maintenance_work_mem": "64MB", "autovacuum": "off"}
_COPY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _copy
print(json.dumps(_copy.carry_out(json.load(sys.stdin), False)))
"""
# About a megabyte a piece with its indexes: what an application writes most, then its mail, then its attachments.
_TABLES = """
CREATE TABLE lines (id bigint, partner int, product int, quantity numeric, price numeric, written timestamptz, name text, state text, note text);
CREATE TABLE mail (id bigint, model text, record int, sent timestamptz, body text);
CREATE TABLE files (id bigint, name text, content bytea);
INSERT INTO lines SELECT i, i % 5000, i % 997, i % 17, (i % 10007) / 100.0, timestamptz '2024-01-01' + i * interval '1 minute', 'Product ' || md5(i::text),
  (ARRAY['draft', 'sent', 'sale', 'done'])[1 + i % 4], repeat('note ', i % 9) FROM generate_series(1, 2300 * {0}) i;
INSERT INTO mail SELECT i, 'sale.order', i % 9973, timestamptz '2024-01-01' + i * interval '7 minutes',
  (SELECT string_agg(md5((i * 31 + g)::text), ' ') FROM generate_series(1, 30) g) FROM generate_series(1, 190 * {0}) i;
INSERT INTO files SELECT i, 'file ' || i, (SELECT decode(string_agg(md5((i * 17 + g)::text), ''), 'hex') FROM generate_series(1, 1800) g)
  FROM generate_series(1, 3 * {0}) i;
ALTER TABLE lines ADD PRIMARY KEY (id);
ALTER TABLE mail ADD PRIMARY KEY (id);
ALTER TABLE files ADD PRIMARY KEY (id);
CREATE INDEX ON lines (partner, written);
CREATE INDEX ON lines (product);
CREATE INDEX ON lines (name);
CREATE INDEX ON mail (model, record);
ALTER TABLE lines ADD FOREIGN KEY (id) REFERENCES lines;
"""


class Cost(NamedTuple):
    seconds: float
    mebibytes: float = 0.0
    phases: Optional[Dict[str, float]] = None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fill(pair: Pair, megabytes: int) -> int:
    """The size of what was made, in bytes."""
    pair.run(pair.source, "CREATE ROLE {owner} LOGIN", DATABASE, OWNER)
    pair.run(pair.source, "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0", DATABASE, OWNER)
    with contextlib.closing(pair.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        for statement in _TABLES.format(megabytes).split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        for number in range(100):
            cursor.execute("CREATE TABLE small_{0} AS SELECT i FROM generate_series(1, 100) i".format(number))
        cursor.execute("VACUUM (FREEZE, ANALYZE)")
        cursor.execute("CHECKPOINT; SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def by_copy(pair: Pair, _home: Path) -> Cost:
    """The module's code in a process of its own, and the most memory that it and what it starts have at one moment."""
    begun = time.monotonic()
    command = [sys.executable, "-c", _COPY, str(checkout.ROOT / ".build")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process, watched(process.pid) as peak:
        out, _none = process.communicate(json.dumps(parameters(pair, DATABASE, OWNER, jobs=JOBS)))
    if process.returncode:
        raise SystemExit("bench: the copy failed")
    return Cost(time.monotonic() - begun, peak[0], json.loads(out)["seconds"])


@contextlib.contextmanager
def watched(pid: int) -> Iterator[List[float]]:
    """Mebibytes that the process and its children have of their own, at most."""
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            family = [pid]
            for member in family:
                family.extend(children(member))
            peak[0] = max(peak[0], sum(map(_resident, family)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _resident(pid: int) -> float:
    """Its share of what it shares with others is counted once."""
    with contextlib.suppress(OSError, StopIteration):
        text = Path("/proc/{0}/smaps_rollup".format(pid)).read_text()
        return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) / 1024
    return 0.0


def by_hand(pair: Pair, home: Path) -> Cost:
    """What an administrator types: two workers on either side, a directory between, and statistics as database_copy makes them."""
    make_place(pair)
    begun = time.monotonic()
    folder = str(home / "dump")
    run(pair, pair.source, "pg_dump", "-Fd", "-j", str(JOBS), "-f", folder, DATABASE)
    run(pair, pair.target, "pg_restore", "-j", str(JOBS), "-d", DATABASE, folder)
    restored = time.monotonic() - begun
    with contextlib.closing(pair.target.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return Cost(restored, phases={"statistics": time.monotonic() - begun - restored})


def by_module(pair: Pair, home: Path) -> Cost:
    """postgresql_db dumps to a file in the custom format and restores it. A playbook that does nothing is taken off."""
    make_place(pair)
    archive = str(home / "dump.pgc")
    tasks = [
        {"community.postgresql.postgresql_db": dict(login(server), name=DATABASE, state=state, target=archive)}
        for server, state in ((pair.source, "dump"), (pair.target, "restore"))
    ]
    return Cost(play(pair, home, tasks) - play(pair, home, [{"ansible.builtin.meta": "noop"}]))


def make_place(pair: Pair) -> None:
    pair.run(pair.target, "CREATE ROLE {owner} LOGIN", DATABASE, OWNER)
    pair.run(pair.target, "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0", DATABASE, OWNER)


def run(pair: Pair, server: Any, program: str, *arguments: str) -> None:
    passfile = Path(tempfile.mkstemp(prefix="postgres-pools-bench-")[1])
    try:
        passfile.write_text("*:*:*:*:" + server.password)
        command = [str(Path(pair.bin_dir, program)), "-h", server.host, "-p", str(server.port), "-U", server.user, *arguments]
        subprocess.run(command, env=dict(os.environ, PGPASSFILE=str(passfile)), check=True)
    finally:
        passfile.unlink()


def play(pair: Pair, home: Path, tasks: List[Dict[str, Any]]) -> float:
    book = home / "play.yml"
    book.touch(mode=0o600)
    book.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(checkout.ROOT / ".build"), ANSIBLE_PYTHON_INTERPRETER=sys.executable)
    env.update(PATH=os.pathsep.join([pair.bin_dir, os.environ["PATH"]]))
    begun = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(book)], env=env, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit("bench: postgresql_db failed:\n{0}{1}".format(done.stdout, done.stderr))
    return time.monotonic() - begun


def measure(megabytes: int, rounds: int) -> List[str]:
    found = subprocess.run([str(checkout.ROOT / "scripts" / "find-postgres"), "18"], check=True, capture_output=True, text=True).stdout.strip()
    ways: Dict[str, Callable[[Pair, Path], Cost]] = {"database_copy": by_copy, "by hand": by_hand, "postgresql_db": by_module}
    costs: Dict[str, List[Cost]] = {way: [] for way in ways}
    with running_pair(Majors(found, found), _SETTINGS) as pair, tempfile.TemporaryDirectory(prefix="postgres-pools-bench-") as home:
        size = fill(pair, megabytes)
        say("copying: {0:.0f} MB are there".format(size / 1e6))
        for number in range(rounds):
            # In turn, so that a busy minute of the machine falls on all of them.
            for way, work in ways.items():
                with tempfile.TemporaryDirectory(dir=home) as folder:
                    costs[way].append(work(pair, Path(folder)))
                for statement in ("DROP DATABASE {database} WITH (FORCE)", "DROP ROLE {owner}", "CHECKPOINT"):
                    pair.run(pair.target, statement, DATABASE, OWNER)
                say("copying: round {0}: {1} {2}".format(number + 1, way, costs[way][-1]))
    seconds = {way: statistics.median(cost.seconds for cost in found) for way, found in costs.items()}
    copied = seconds["database_copy"]
    return [
        "| size | database_copy | by hand | postgresql_db | of by hand (aim {0}) | times postgresql_db (aim {1}) | memory |".format(AIM_BY_HAND, AIM_MODULE),
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| {0:.0f} MB | {1:.1f} s | {2:.1f} s | {3:.1f} s | {4:.2f} | {5:.2f} | {6:.0f} MiB |".format(
            size / 1e6,
            copied,
            seconds["by hand"],
            seconds["postgresql_db"],
            copied / seconds["by hand"],
            seconds["postgresql_db"] / copied,
            max(cost.mebibytes for cost in costs["database_copy"]),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="30 MB")
    parser.add_argument("--large", action="store_true", help="5 GB")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    if os.getloadavg()[0] > 1 and not given.smoke:
        say("bench: this machine is busy (load {0:.1f}); figures taken now say little.".format(os.getloadavg()[0]))
    print("\n".join(measure(30 if given.smoke else 5000 if given.large else 1000, given.rounds)))


if __name__ == "__main__":
    main()

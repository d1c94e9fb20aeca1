# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds and memory of database_copy, beside pg_dump and pg_restore by hand and beside community.postgresql.postgresql_db; and of a whole move.

python tests/bench/copying.py            databases of 1 and 5 GB with their indexes; writes docs/benchmarks-copying.md (about 30 minutes)
python tests/bench/copying.py --smoke    30 MB, in about a minute; writes nothing, shows only that all of it works
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
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence

import checkout
import moving
from copy_fixture import Majors, Pair, login, parameters, running_pair
from environment import children
from moving import Moved

DATABASE, OWNER = "bench", "bench_user"
JOBS = 2
AIM_BY_HAND, AIM_MODULE = 1.1, 1.5
_SETTINGS = {
    "fsync": "on",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "64MB",
    "autovacuum": "off",
}
PAGE = checkout.ROOT / "docs" / "benchmarks-copying.md"
_WORK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _compare, _copy
given = json.load(sys.stdin)
if sys.argv[2] == "copy":
    print(json.dumps(_copy.carry_out(given, False)))
else:
    print(json.dumps(_compare.compare(_compare.login(given, "source"), _compare.login(given, "target"), given)))
"""
_COMPARED: Dict[str, Any] = {
    "schema": None,
    "data": "checksum",
    "ignore": [],
    "role_map": {},
    "max_differences": 20,
    "fail_on_difference": False,
}
# About a megabyte a piece with its indexes: what an application writes most, then its mail, then its attachments.
TABLES = """
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


class Line(NamedTuple):
    """Medians over the rounds, by way."""

    size: int
    seconds: Dict[str, float]
    copying: float
    comparing: float
    move: Moved


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fill(pair: Pair, megabytes: int) -> int:
    """The size of what was made, in bytes."""
    pair.run(pair.source, "CREATE ROLE {owner} LOGIN", DATABASE, OWNER)
    pair.run(pair.source, "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0", DATABASE, OWNER)
    with contextlib.closing(pair.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        for statement in TABLES.format(megabytes).split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        for number in range(100):
            cursor.execute("CREATE TABLE small_{0} AS SELECT i FROM generate_series(1, 100) i".format(number))
        cursor.execute("VACUUM (FREEZE, ANALYZE)")
        cursor.execute("CHECKPOINT; SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def by_copy(pair: Pair, _home: Path) -> Cost:
    """The module's code in a process of its own, and the most memory that it and what it starts have at one moment."""
    return in_process("copy", parameters(pair, DATABASE, OWNER, jobs=JOBS))


def compared(pair: Pair) -> Cost:
    sides = {
        name: dict(login(server), database=DATABASE, owner=OWNER)
        for name, server in (("source", pair.source), ("target", pair.target))
    }
    return in_process("compare", dict(_COMPARED, jobs=JOBS, **sides))


def in_process(work: str, given: Dict[str, Any]) -> Cost:
    begun = time.monotonic()
    command = [sys.executable, "-c", _WORK, str(checkout.ROOT / ".build"), work]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process, watched(
        process.pid
    ) as peak:
        out, _none = process.communicate(json.dumps(given))
    if process.returncode or (work == "compare" and not json.loads(out)["equal"]):
        raise SystemExit(
            "bench: the two databases are not equal" if not process.returncode else "bench: it failed, see above"
        )
    return Cost(time.monotonic() - begun, peak[0])


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


def by_hand(pair: Pair, home: Path, *options: str) -> Cost:
    """What an administrator types: two workers on either side and a directory between. Statistics are not made, as database_copy makes them."""
    make_place(pair)
    begun = time.monotonic()
    folder = str(home / "dump")
    run(pair, pair.source, "pg_dump", "-Fd", "-j", str(JOBS), *options, "-f", folder, DATABASE)
    run(pair, pair.target, "pg_restore", "-j", str(JOBS), "-d", DATABASE, folder)
    return Cost(time.monotonic() - begun)


def by_hand_plain(pair: Pair, home: Path) -> Cost:
    """The same by one who knows that compressing is most of the work, and has the room."""
    return by_hand(pair, home, "-Z", "0")


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
        command = [
            str(Path(pair.bin_dir, program)),
            "-h",
            server.host,
            "-p",
            str(server.port),
            "-U",
            server.user,
            *arguments,
        ]
        subprocess.run(command, env=dict(os.environ, PGPASSFILE=str(passfile)), check=True)
    finally:
        passfile.unlink()


def play(pair: Pair, home: Path, tasks: List[Dict[str, Any]]) -> float:
    book = home / "play.yml"
    book.touch(mode=0o600)
    book.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    env = dict(
        os.environ, ANSIBLE_COLLECTIONS_PATH=str(checkout.ROOT / ".build"), ANSIBLE_PYTHON_INTERPRETER=sys.executable
    )
    env.update(PATH=os.pathsep.join([pair.bin_dir, os.environ["PATH"]]))
    begun = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(book)],
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit("bench: postgresql_db failed:\n{0}{1}".format(done.stdout, done.stderr))
    return time.monotonic() - begun


WAYS: Dict[str, Callable[[Pair, Path], Cost]] = {
    "database_copy": by_copy,
    "by hand": by_hand,
    "by hand, -Z0": by_hand_plain,
    "postgresql_db": by_module,
}


def measure(megabytes: int, rounds: int) -> Line:
    found = subprocess.run(
        [str(checkout.ROOT / "scripts" / "find-postgres"), "18"], check=True, capture_output=True, text=True
    ).stdout.strip()
    costs: Dict[str, List[Cost]] = {way: [] for way in (*WAYS, "comparison")}
    with running_pair(Majors(found, found), _SETTINGS) as pair, tempfile.TemporaryDirectory(
        prefix="postgres-pools-bench-"
    ) as home:
        size = fill(pair, megabytes)
        say("copying: {0:.0f} MB are there".format(size / 1e6))
        for number in range(rounds):
            # In turn, so that a busy minute of the machine falls on all of them.
            for way, work in WAYS.items():
                with tempfile.TemporaryDirectory(dir=home) as folder:
                    costs[way].append(work(pair, Path(folder)))
                if work is by_copy:
                    costs["comparison"].append(compared(pair))
                for statement in ("DROP DATABASE {database} WITH (FORCE)", "DROP ROLE {owner}", "CHECKPOINT"):
                    pair.run(pair.target, statement, DATABASE, OWNER)
                say("copying: round {0}: {1} {2}".format(number + 1, way, costs[way][-1]))
        say("copying: comparison {0}".format(costs["comparison"]))
    move = moving.measure(TABLES.format(megabytes).split(";\n"))
    say("copying: {0}".format(move))
    return Line(
        size,
        {way: statistics.median(cost.seconds for cost in found) for way, found in costs.items()},
        max(cost.mebibytes for cost in costs["database_copy"]),
        max(cost.mebibytes for cost in costs["comparison"]),
        move,
    )


_PAGE = """# How long a copy takes, and a move

A database as an application has it (many short rows with four indexes, mail, attachments in `bytea`, a hundred small tables) from one server to another,
PostgreSQL 18 both, on one machine with {cores} cores that runs the servers and the programs. Medians, the ways taken in turn: {rounds}. "By hand" is
`pg_dump -Fd -j2` and `pg_restore -j2` through a directory, `-Z0` the same without compression; `postgresql_db` is the module of community.postgresql,
a dump in the custom format and its restore, less an empty playbook. `database_copy` makes the statistics too and keeps nothing on disk. Ratios carry over to
other machines, seconds do not. Made by `tests/bench/copying.py`.

{copies}

Aim: at most {by_hand} times the time by hand. {hand_verdict}
Aim: at least {module} times as fast as `postgresql_db`. {module_verdict}

## The proof, and the whole move

The comparison reads both databases whole, at the same time. A move is `migrate.yml` between two pools of the embedded environment, with a tenant that writes
one row after another: the seconds without writes are those between the last commit that it had acknowledged and the first in the new place.

{moves}
"""


def render(lines: Sequence[Line], rounds: str) -> str:
    def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        return "\n".join("| {0} |".format(" | ".join(row)) for row in (head, ["---:"] * len(head), *rows))

    shares = [line.seconds["database_copy"] / line.seconds["by hand"] for line in lines]
    times = [line.seconds["postgresql_db"] / line.seconds["database_copy"] for line in lines]

    def verdict(met: bool, figures: Sequence[float]) -> str:
        return "{0}: {1}.".format("Met" if met else "Missed", ", ".join("{0:.2f}".format(one) for one in figures))

    return _PAGE.format(
        cores=os.cpu_count(),
        rounds=rounds,
        copies=table(
            [
                "size, MB",
                *("{0}, s".format(way) for way in WAYS),
                "of by hand",
                "of -Z0",
                "`postgresql_db` takes, times",
                "memory, MiB",
            ],
            [
                [
                    "{0:,.0f}".format(line.size / 1e6),
                    *("{0:.1f}".format(line.seconds[way]) for way in WAYS),
                    "{0:.2f}".format(share),
                    "{0:.2f}".format(line.seconds["database_copy"] / line.seconds["by hand, -Z0"]),
                    "{0:.2f}".format(time_),
                    "{0:.0f}".format(line.copying),
                ]
                for line, share, time_ in zip(lines, shares, times)
            ],
        ),
        by_hand=AIM_BY_HAND,
        module=AIM_MODULE,
        hand_verdict=verdict(max(shares) <= AIM_BY_HAND, shares),
        module_verdict=verdict(min(times) >= AIM_MODULE, times),
        moves=table(
            ["size, MB", "comparison, s", "memory, MiB", "move, s", "of it without writes, s"],
            [
                [
                    "{0:,.0f}".format(line.size / 1e6),
                    "{0:.1f}".format(line.seconds["comparison"]),
                    "{0:.0f}".format(line.comparing),
                    "{0:.1f}".format(line.move.seconds),
                    "{0:.1f}".format(line.move.without_writes),
                ]
                for line in lines
            ],
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="30 MB; the page stays as it is")
    smoke = parser.parse_args().smoke
    if os.getloadavg()[0] > 1 and not smoke:
        say("bench: this machine is busy (load {0:.1f}); figures taken now say little.".format(os.getloadavg()[0]))
    plan = [(30, 1)] if smoke else [(1000, 2), (5000, 1)]
    lines = [measure(megabytes, rounds) for megabytes, rounds in plan]
    told = ["{0:,} MB {1}".format(round(line.size / 1e6), "once" if rounds == 1 else "{0} rounds".format(rounds)) for line, (_size, rounds) in zip(lines, plan)]
    page = render(lines, ", ".join(told))
    if smoke:
        print(page)
    else:
        PAGE.write_text(page)
        say("bench: wrote docs/benchmarks-copying.md")


if __name__ == "__main__":
    main()

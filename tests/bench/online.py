# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds without writes of a tenant that is moved by migrate.yml -e mode=online and back by rollback.yml, against its size; beside mode=dump and pgcopydb.

python tests/bench/online.py --megabytes 1000 --rounds 5   measures, and adds to what was measured before (results/online.json)
python tests/bench/online.py --page                        writes docs/benchmarks-online.md from it
python tests/bench/online.py --smoke                       30 MB, one round; keeps nothing, shows only that all of it works
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import checkout
import psycopg2
from copying import TABLES
from environment import Environment, connect, environment, instances

WRITERS = 4
WAYS = ("online", "back", "dump", "pgcopydb")
AIM_SECONDS = 3.0
FOUND = checkout.ROOT / "results" / "online.json"
PAGE = checkout.ROOT / "docs" / "benchmarks-online.md"
_PLACE = """
SELECT s.host, s.port, s.name, a.database_name, a.role_name FROM db_allocations a JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = %s
"""
# What a commit writes: a numbered row that takes a value of a sequence, and one of the many rows that are there.
_WRITTEN = """
CREATE SEQUENCE ticket;
CREATE TABLE written (writer int, number int, ticket bigint NOT NULL DEFAULT nextval('ticket'), note text, PRIMARY KEY (writer, number))
"""
_COMMIT = (
    "BEGIN; INSERT INTO written (writer, number, note) VALUES (%(writer)s, %(number)s, repeat('n', 200));"
    " UPDATE lines SET note = 'changed ' || %(number)s WHERE id = %(line)s; COMMIT"
)
_WHOLE = "SELECT writer, count(*), min(number), max(number) FROM written GROUP BY writer ORDER BY 1"
_TICKETS = "SELECT count(*) = count(DISTINCT ticket) AND max(ticket) < nextval('ticket') FROM written"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Writer(threading.Thread):
    """Commits numbered rows, wherever the inventory database says the tenant is; of a commit whose answer was lost it looks whether it is there."""

    def __init__(self, here: Environment, instance: str, number: int, lines: int, commits: List[float]) -> None:
        super().__init__(daemon=True)
        self._here, self._instance, self._number, self._lines, self._commits = here, instance, number, lines, commits
        self._password = str(here.password(instance))
        self.over = threading.Event()
        self.acknowledged = 0

    def run(self) -> None:
        connection: Optional[Any] = None
        while not self.over.is_set():
            try:
                connection = connection or self._enter()
                line = (self.acknowledged * 7919 + self._number * 104729) % self._lines + 1
                values = {"writer": self._number, "number": self.acknowledged + 1, "line": line}
                with connection.cursor() as cursor:
                    cursor.execute(_COMMIT, values)
                self.acknowledged += 1
                self._commits.append(time.monotonic())
                time.sleep(0.005)
            except psycopg2.Error:
                with contextlib.suppress(psycopg2.Error, AttributeError):
                    connection.close()
                connection = None
                time.sleep(0.03)

    def _enter(self) -> Any:
        place = self._here.rows(_PLACE, (self._instance,))[0]
        connection = connect(place["host"], place["port"], place["database_name"], place["role_name"], self._password)
        with connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(max(number), 0) FROM written WHERE writer = %s", (self._number,))
            found = cursor.fetchone()[0]
            if found < self.acknowledged:
                raise SystemExit("bench: commit {0} of writer {1} is lost".format(self.acknowledged, self._number))
            self.acknowledged = found
        return connection


class Tenant:
    def __init__(self, here: Environment, megabytes: int) -> None:
        self._here = here
        request = instances(1)[0]
        here.play("allocate", request).succeeded()
        here.play("provision_pool").succeeded()
        self.id = str(request["instance_id"])
        with contextlib.closing(self.enter()) as connection, connection.cursor() as cursor:
            for statement in (*TABLES.format(megabytes).split(";\n"), *_WRITTEN.split(";\n")):
                if statement.strip():
                    cursor.execute(statement)
            for number in range(100):
                cursor.execute("CREATE TABLE small_{0} (i int PRIMARY KEY); INSERT INTO small_{0} SELECT generate_series(1, 100)".format(number))
            cursor.execute("SELECT count(*), pg_database_size(current_database()) FROM lines")
            self.lines, self.size = cursor.fetchone()

    def enter(self) -> Any:
        place = self._here.rows(_PLACE, (self.id,))[0]
        return connect(place["host"], place["port"], place["database_name"], place["role_name"], str(self._here.password(self.id)))

    def move(self, playbook: str, variables: Dict[str, Any]) -> Dict[str, Any]:
        """One passage with writers, and what it did to them."""
        commits: List[float] = []
        with contextlib.closing(self.enter()) as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE written")
        writers = [Writer(self._here, self.id, number, self.lines, commits) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            time.sleep(1)
            begun = time.monotonic()
            run = self._here.start(playbook, dict(variables, instance_id=self.id)).wait(3000).succeeded()
            seconds = time.monotonic() - begun
            time.sleep(1)
        finally:
            for writer in writers:
                writer.over.set()
            for writer in writers:
                writer.join(30)
        if any(writer.is_alive() for writer in writers):
            raise SystemExit("bench: a writer does not end")
        self._whole(writers)
        moments = sorted(commits)
        gap, at = max((later - earlier, earlier) for earlier, later in zip(moments, moments[1:]))
        told = {"seconds": round(seconds, 1), "without_writes": round(gap, 3), "commits": len(commits), "status": run.stats["status"]}
        return dict(told, tries=run.stats.get("tries"), at=round(at - begun, 1), load=os.getloadavg()[0])

    def _whole(self, writers: Sequence[Writer]) -> None:
        with contextlib.closing(self.enter()) as connection, connection.cursor() as cursor:
            cursor.execute(_WHOLE)
            found = cursor.fetchall()
            if found != [(number, writer.acknowledged, 1, writer.acknowledged) for number, writer in enumerate(writers)]:
                raise SystemExit("bench: commits are lost or doubled: {0}, {1}".format(found, [writer.acknowledged for writer in writers]))
            cursor.execute(_TICKETS)
            if cursor.fetchone() != (True,):
                raise SystemExit("bench: a value of the sequence was given twice")


def measure(megabytes: int, rounds: int, dump: bool, keep: Callable[[int, str, Dict[str, Any]], None]) -> None:
    with environment() as here:
        here.ready()
        tenant = Tenant(here, megabytes)
        say("online: {0:.0f} MB are there".format(tenant.size / 1e6))

        def told(way: str, found: Dict[str, Any]) -> None:
            say("online: {0} {1}".format(way, found))
            keep(tenant.size, way, found)

        for _round in range(rounds):
            told("online", tenant.move("migrate", {"mode": "online"}))
            told("back", tenant.move("rollback", {}))
        if dump:
            told("dump", tenant.move("migrate", {"mode": "dump"}))
            found = cloned(here, tenant)
            if found:
                told("pgcopydb", found)


def cloned(here: Environment, tenant: Tenant) -> Optional[Dict[str, Any]]:
    """The same database by ``pgcopydb clone`` into another of the same server, as the administrator: nobody may write meanwhile."""
    program = shutil.which("pgcopydb")
    if not program:
        return None
    place = here.rows(_PLACE, (tenant.id,))[0]
    server = next(one for one in here.servers() if one["name"] == place["name"])
    password = here.cipher().decrypt(server["admin_password_encrypted"], server["name"])
    with contextlib.closing(here.connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE cloned TEMPLATE template0 LC_COLLATE 'C'")
    where = "host={host} port={port} user=postgres dbname=".format(**place)
    folder = here.home / "pgcopydb"
    begun = time.monotonic()
    names = ["--source", where + place["database_name"], "--target", where + "cloned"]
    done = subprocess.run(
        [program, "clone", *names, "--table-jobs", "2", "--index-jobs", "2", "--dir", str(folder)],
        env=dict(os.environ, PGPASSWORD=password),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begun
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        say("bench: pgcopydb failed: {0}".format(done.stderr[-500:]))
        return None
    return {"seconds": round(seconds, 1), "without_writes": round(seconds, 1), "load": os.getloadavg()[0]}


_TEXT = """# How long a tenant cannot write while it is moved

A tenant of the embedded environment, with a database as an application has it (many short rows with four indexes, mail, attachments in `bytea`, a hundred
small tables), is moved from one pool to another by `migrate.yml -e mode=online`, and back by `rollback.yml` with what it wrote in the new place.
{writers} clients commit numbered rows all the time, each with a value of a sequence and a change of one of the many rows, over new connections
wherever the inventory database says the tenant is. *Seconds without writes* is the longest time between two commits that any of them had acknowledged, over
the whole run: the pauses of the copy and of the comparison count too. After each passage every acknowledged commit was there once, and no
value of the sequence was given twice. One machine with {cores} cores runs the servers, the programs and the clients. Made by `tests/bench/online.py`.

{there}

Aim: less than {aim:g} seconds at any size. {verdict}

{load}

## Back, with the new data

{back}

## Beside a dump, and pgcopydb

With `mode=dump` the tenant cannot write from before the copy until after the proof. `pgcopydb clone` (0.10, two workers for tables and two
for indexes) copies into another database of the same server; it compares nothing and repoints nobody, and what is written meanwhile is not in the copy:
its whole time is one without writes.

{beside}
"""


def render(found: Sequence[Dict[str, Any]]) -> str:
    def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        return "\n".join("| {0} |".format(" | ".join(row)) for row in (head, ["---:"] * len(head), *rows))

    def passages(way: str) -> str:
        head = ["size, MB", "rounds", "without writes, median, s", "worst, s", "whole run, median, s", "commits, median"]
        rows = []
        for one in found:
            gaps = [each["without_writes"] for each in one[way]]
            if gaps:
                runs = [statistics.median(each[key] for each in one[way]) for key in ("seconds", "commits")]
                middle = statistics.median(gaps)
                rows.append(["{0:,.0f}".format(one["size"] / 1e6), str(len(gaps)), "{0:.2f}".format(middle), "{0:.2f}".format(max(gaps))])
                rows[-1] += ["{0:.1f}".format(runs[0]), "{0:,.0f}".format(runs[1])]
        return table(head, rows)

    def median(one: Dict[str, Any], way: str, key: str) -> str:
        values = [each[key] for each in one[way]]
        return "{0:.1f}".format(statistics.median(values)) if values else "not run"

    worst = [max(each["without_writes"] for each in one["online"]) for one in found if one["online"]]
    loads = [each["load"] for one in found for way in ("online", "back") for each in one[way]]
    busy = "The machine's load at the end of a run was {0:.1f} in the median, {1:.1f} at most: {2}.".format(
        statistics.median(loads),
        max(loads),
        "others worked on it too, so the figures are higher than they would be alone" if statistics.median(loads) > 4 else "nothing else ran on it",
    )
    return _TEXT.format(
        writers=WRITERS,
        cores=os.cpu_count(),
        there=passages("online"),
        aim=AIM_SECONDS,
        verdict="{0}: {1} s at most.".format("Met" if max(worst) < AIM_SECONDS else "Missed", ", ".join("{0:.2f}".format(one) for one in worst)),
        load=busy,
        back=passages("back"),
        beside=table(
            ["size, MB", "online: without writes, s", "dump: without writes, s", "`pgcopydb clone`, s"],
            [
                [
                    "{0:,.0f}".format(one["size"] / 1e6),
                    median(one, "online", "without_writes"),
                    median(one, "dump", "without_writes"),
                    median(one, "pgcopydb", "seconds"),
                ]
                for one in found
            ],
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dump", action="store_true", help="also once by a dump, and by pgcopydb where that is installed")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    kept: Dict[str, Dict[str, Any]] = json.loads(FOUND.read_text()) if FOUND.exists() and not given.smoke else {}

    def keep(size: int, way: str, found: Dict[str, Any]) -> None:
        of_size = kept.setdefault(str(given.megabytes), {"size": size, **{one: [] for one in WAYS}})
        of_size[way].append(found)
        if not given.smoke:
            FOUND.parent.mkdir(exist_ok=True)
            FOUND.write_text(json.dumps(kept, indent=1))

    if not given.page:
        # Each passage is kept as soon as it is made, so that many short runs add up.
        measure(30 if given.smoke else given.megabytes, given.rounds, given.dump or given.smoke, keep)
    page = render([kept[size] for size in sorted(kept, key=int)])
    if given.page:
        PAGE.write_text(page)
        say("bench: wrote docs/benchmarks-online.md")
    elif given.smoke:
        print(page)


if __name__ == "__main__":
    main()

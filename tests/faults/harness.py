# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What looks on while something is broken: tenants that write, and a witness in each node; and the verdicts on what they saw."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from swarm_fixture import FOLDER, Bed

HERE = Path(__file__).resolve().parent
WITNESS = (HERE / "witness.py").read_text()
WRITER = (HERE / "writer.py").read_text()
# Everything that was seen, for whoever asks why.
LOGS = FOLDER / "log"
# A node that nobody breaks unless a case says so: the servers run on the others.
SAFE = "sw1"


def wait_until(what: str, limit: float, question: Callable[[], Any], pause: float = 0.3) -> Any:
    end = time.monotonic() + limit
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < end, "not within {0} s: {1}".format(limit, what)
        time.sleep(pause)


class Stream:
    """A program in a node that prints a line of JSON for each thing that it saw, until its input ends."""

    def __init__(self, name: str, command: List[str], first: str = "") -> None:
        self.events: List[Dict[str, Any]] = []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdin
        if first:
            self._process.stdin.write(first + "\n")
            self._process.stdin.flush()
        self._log = LOGS / "faults-{0}.log".format(name)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._log.open("a") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if line.startswith("{"):
                    self.events.append(json.loads(line))

    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            # In a node that stands still; what it runs there ends when it goes on.
            self._process.kill()
        self._reader.join(5)


class Writer:
    """A tenant that commits numbered rows, from a container on *node*. What was acknowledged is remembered here."""

    def __init__(self, bed: Bed, name: str, login: Dict[str, Any], node: str = SAFE) -> None:
        self.bed, self.name, self.login, self.node = bed, name, login, node
        self._past: List[Dict[str, Any]] = []
        self._stream: Optional[Stream] = None

    def start(self) -> None:
        first = 1 + max((event["n"] for event in self._past if "n" in event), default=0) + 1000 * bool(self._past)
        login = {key: self.login.get(key) for key in ("host", "port", "database", "user", "password", "sslmode", "ca_certificate")}
        login.update(writer=self.name, first=first)
        run = ["docker", "run", "--rm", "--interactive", "--network", "saasodoo-network", "--entrypoint", "python3"]
        run += [self.bed.facts["swarm_bed_images"]["postgres_pools_client_18"], "-u", "-c", WRITER]
        self._stream = Stream("writer-" + self.name, [*self.bed.outer, "exec", "-i", self.node, *run], json.dumps(login))

    def stop(self) -> None:
        if self._stream:
            self._stream.end()
            self._past, self._stream = self.events, None

    @property
    def events(self) -> List[Dict[str, Any]]:
        return [*self._past, *(self._stream.events if self._stream else [])]

    @property
    def acknowledged(self) -> List[Dict[str, Any]]:
        return [event for event in self.events if "n" in event]

    def served_since(self, when: float) -> int:
        return sum(1 for event in self.acknowledged if event["start"] > when)

    def served_between(self, start: float, end: float) -> int:
        return sum(1 for event in self.acknowledged if event["start"] > start and event["end"] < end)

    def first_served(self, since: float) -> float:
        return float(min(event["end"] for event in self.acknowledged if event["start"] > since))

    def away(self, since: float) -> Tuple[float, float]:
        """The longest time between two acknowledged commits that ends after *since*: until when, and how long."""
        ends = [event["end"] for event in self.acknowledged]
        gaps = [(after, after - before) for before, after in zip(ends, ends[1:]) if after > since]
        return max(gaps, key=lambda gap: gap[1]) if gaps else (0.0, 0.0)


class Witnesses:
    """Looks in every node, as long as the node runs, whether its servers accept writes."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._streams: List[Stream] = []
        self._stopping = False
        self._threads = [threading.Thread(target=self._follow, args=(node,), daemon=True) for node in bed.nodes]
        for thread in self._threads:
            thread.start()

    def _follow(self, node: str) -> None:
        while not self._stopping:
            stream = Stream("witness-" + node, [*self.bed.outer, "exec", "-i", node, "python3", "-u", "-c", WITNESS])
            self._streams.append(stream)
            while not self._stopping and not stream.ended():
                time.sleep(0.3)
            stream.end()
            # A node that is down now, or whose dockerd is not up yet.
            time.sleep(0.5)

    def stop(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join(20)

    @property
    def events(self) -> List[Dict[str, Any]]:
        return [event for stream in list(self._streams) for event in stream.events if "server" in event]

    @property
    def accepted(self) -> List[Dict[str, Any]]:
        return [event for event in self.events if "error" not in event]


class Overlap(NamedTuple):
    server: str
    containers: Tuple[str, str]
    seconds: float


def two_writers(accepted: Iterable[Dict[str, Any]]) -> List[Overlap]:
    """Pairs of containers of one server that took turns in accepting writes. One after the other is what a takeover is."""
    begun: Dict[str, Dict[str, List[float]]] = {}
    for event in accepted:
        begun.setdefault(event["server"], {}).setdefault(event["container"], []).append(event["start"])
    found = []
    for server, containers in begun.items():
        spans = sorted((min(starts), max(starts), container) for container, starts in containers.items())
        for number, (_first, last, container) in enumerate(spans):
            for other_first, other_last, other in spans[number + 1 :]:
                if other_first < last:
                    found.append(Overlap(server, (container, other), min(last, other_last) - other_first))
    return found


def missing(acknowledged: Iterable[int], there: Dict[int, int]) -> List[str]:
    """Numbers that are not there exactly once. What was not acknowledged may be there or not."""
    lost = ["{0} is there {1} times".format(n, there.get(n, 0)) for n in acknowledged if there.get(n, 0) != 1]
    return lost + ["{0} is there {1} times".format(n, times) for n, times in there.items() if times != 1 and n not in set(acknowledged)]


class Fleet:
    """The tenants that a scenario's converge.yml made, and their servers."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        shared = bed.result("shared")
        logins = [*shared.get("allocations", [shared]), bed.result("dedicated")]
        self.logins = {"tenant-{0}".format(number): login for number, login in enumerate(logins, 1)}
        for login in self.logins.values():
            self.as_superuser(login["server"], login["database"], self.tables(login))
        for server in self.servers:
            # Where no tenant can reach, and everybody's superuser can.
            self.as_superuser(server, "postgres", "CREATE TABLE IF NOT EXISTS faults_witnessed (container text, n bigint)")

    @staticmethod
    def tables(login: Dict[str, Any]) -> str:
        return (
            "SET client_min_messages = error; SET ROLE \"{0}\";"
            " CREATE TABLE IF NOT EXISTS faults_rows (writer text, n bigint, filler text, at timestamptz DEFAULT clock_timestamp());"
            " CREATE INDEX IF NOT EXISTS faults_rows_n ON faults_rows (n);"
            " CREATE TABLE IF NOT EXISTS faults_totals (total bigint);"
            " INSERT INTO faults_totals SELECT 0 WHERE NOT EXISTS (SELECT FROM faults_totals)"
        ).format(login["user"])

    def tidy(self) -> None:
        """What a run that was broken off left: tenants that came in a case, and pools that stand empty."""
        mine = "', '".join(login["instance_id"] for login in self.logins.values())
        for row in self.bed.sql("SELECT instance_id FROM db_allocations WHERE status IN ('reserved', 'active') AND instance_id NOT IN ('{0}')".format(mine)):
            self.play("release", instance_id=row["instance_id"], keep_days=0)
        for row in self.bed.sql(
            "SELECT name, status FROM db_servers WHERE server_type = 'shared' AND status <> 'deprovisioned' AND current_instances = 0"
        ):
            making = row["status"] in ("provisioning", "initializing")
            if making:
                # Its maker could not even say any more that it failed: whoever asks for it goes on once its lease is over, as the audit's lease_stale has it.
                wait_until(row["name"] + " is made", 240, lambda name=row["name"]: self._made(name), pause=5)
            if making or row["status"] == "active":
                self.play("maintenance", server=row["name"], state="on")
            self.play("deprovision", server=row["name"])

    def _made(self, name: str) -> bool:
        self.bed.play("provision_pool", server=name)
        return self.bed.sql("SELECT status FROM db_servers WHERE name = '{0}'".format(name)) == [{"status": "active"}]

    def play(self, playbook: str, **variables: Any) -> None:
        done = self.bed.play(playbook, **variables)
        assert done.returncode == 0, done.stdout[-3000:]

    @property
    def servers(self) -> List[str]:
        return sorted({login["server"] for login in self.logins.values()} | {"inventory-db"})

    def as_superuser(self, server: str, database: str, statement: str) -> str:
        return self.bed.as_superuser(server, database, statement)

    def where(self) -> Dict[str, str]:
        """The node of each server."""
        return {server: self.bed.container(server)[0] for server in self.servers}

    def rows(self, login: Dict[str, Any], writer: str) -> Dict[int, int]:
        # By the table itself, not by its index.
        query = (
            "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;"
            " SELECT n, count(*) FROM faults_rows WHERE writer = '{0}' GROUP BY n"
        )
        lines = self.as_superuser(login["server"], login["database"], query.format(writer)).split()
        return {int(number): int(times) for number, times in (line.split("|") for line in lines)}

    def lost(self, writers: Iterable[Writer]) -> List[str]:
        wrong = []
        for writer in writers:
            acknowledged = [event["n"] for event in writer.acknowledged]
            assert acknowledged, "{0} never wrote".format(writer.name)
            wrong += ["{0}: {1}".format(writer.name, text) for text in missing(acknowledged, self.rows(writer.login, writer.name))]
        for name, login in self.logins.items():
            query = "SELECT (SELECT total FROM faults_totals) - (SELECT count(*) FROM faults_rows)"
            differs = self.as_superuser(login["server"], login["database"], query).strip()
            wrong += ["{0}: rows and their counter differ by {1}".format(name, differs)] if differs != "0" else []
        return wrong

    def lost_by_witnesses(self, accepted: Iterable[Dict[str, Any]]) -> List[str]:
        seen: Dict[Tuple[str, str], List[int]] = {}
        for event in accepted:
            seen.setdefault((event["server"], event["container"]), []).append(event["n"])
        wrong = []
        for (server, container), numbers in seen.items():
            if server not in self.servers:
                continue
            query = "SELECT n, count(*) FROM faults_witnessed WHERE container = '{0}' GROUP BY n".format(container)
            lines = self.as_superuser(server, "postgres", query).split()
            there = {int(number): int(times) for number, times in (line.split("|") for line in lines)}
            wrong += ["{0} in {1}: {2} is not there".format(server, container, n) for n in numbers if n not in there]
        return wrong

    def damaged(self, servers: Optional[Iterable[str]] = None) -> List[str]:
        """What amcheck finds in any table or index of the servers: every index against every row."""
        wrong = []
        databases = "SELECT datname FROM pg_database WHERE datallowconn"
        for server in servers or self.servers:
            node, container = self.bed.container(server)
            command = [*self.bed.outer, "exec", node, "docker", "exec", container, "pg_amcheck"]
            command += ["-U", "postgres", "--all", "--heapallindexed", "--install-missing", "--jobs=2"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
            if done.returncode:
                wrong.append("{0}: {1}".format(server, (done.stdout + done.stderr)[-2000:]))
            for database in self.as_superuser(server, "postgres", databases).split():
                self.as_superuser(server, database, "DROP EXTENSION IF EXISTS amcheck")
        return wrong

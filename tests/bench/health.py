# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds and memory of health.yml over 10, 100 and 1,000 servers, beside a loop of community.postgresql.postgresql_ping.

    python tests/bench/health.py            writes docs/benchmarks-health.md (about five minutes)
    python tests/bench/health.py --smoke    small numbers, in about two minutes; writes nothing, shows only that all of it works
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import checkout
from environment import Environment, Run, children, environment
from health_fixture import address, refusing, server_everywhere, swallowing

PAGE = checkout.ROOT / "docs" / "benchmarks-health.md"
HERE = Path(__file__).resolve().parent
# Seconds for each server. Here one PostgreSQL on this machine plays them all, which makes it slower than any of them would be.
TIMEOUT = 10
# Rows as they are once a pool is active; the steps that lead there are not what is measured.
_ROW = """
INSERT INTO db_servers (name, server_type, backend, host, port, status, health_status, max_instances, connection_budget,
    storage_budget_bytes, cpu_limit, memory_limit_bytes, admin_password_encrypted, activated_at)
SELECT 'pool-' || n, 'shared', 'process', host, port, 'active', 'healthy', 50, 300, 250::bigint << 30, 2, 4::bigint << 30, %(token)s, now()
FROM unnest(%(hosts)s, %(ports)s) WITH ORDINALITY AS places (host, port, n)
"""


class Plan(NamedTuple):
    sizes: Sequence[int] = (10, 100, 1000)
    # One after another, a thousand would take the loop half an hour.
    pings: Sequence[int] = (10, 100)
    rounds: int = 3


class Cost(NamedTuple):
    """Medians over the rounds: of the whole run, and the most memory that its processes had at one moment."""

    seconds: float
    mebibytes: float


class Line(NamedTuple):
    servers: int
    well: Cost
    sick: Cost
    ping: Optional[Cost]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(plan: Plan) -> Dict[str, Any]:
    with environment() as here, server_everywhere() as server, swallowing() as hole:
        here.ready()
        token = here.cipher().encrypt(server.password)
        closed = refusing()

        def ping(number: int) -> Cost:
            login = {"ping_port": server.port, "ping_user": server.user, "ping_password": server.password}
            return _run(here, HERE / "ping.yml", dict(login, ping_hosts=[address(one) for one in range(1, number + 1)]))

        def health(number: int, sick: bool) -> Cost:
            tenth = number // 10 if sick else 0
            ports = [server.port] * (number - 2 * tenth) + [closed] * tenth + [hole] * tenth
            _fill(here, token, [address(one) for one in range(1, number + 1)], ports)
            result = here.home / "health.json"
            cost = _run(
                here, checkout.ROOT / "playbooks" / "health.yml", {"result_file": str(result), "health_fail_on": "never", "server_health_timeout": TIMEOUT}
            )
            summary = json.loads(result.read_text())["summary"]
            if (summary["healthy"], summary["degraded"]) != (number - 2 * tenth, 2 * tenth):
                raise SystemExit("bench: of {0} servers, {1} were to fail: {2}".format(number, 2 * tenth, summary))
            return cost

        rounds: List[Dict[str, Cost]] = []
        for number in range(plan.rounds):
            # In turn, so that a busy minute of the machine falls on all of them.
            rounds.append({"empty": _run(here, HERE / "empty.yml", {})})
            for size in plan.sizes:
                rounds[-1]["well {0}".format(size)] = health(size, sick=False)
                rounds[-1]["sick {0}".format(size)] = health(size, sick=True)
            for size in plan.pings:
                rounds[-1]["ping {0}".format(size)] = ping(size)
            say("health: round {0}: {1}".format(number + 1, ", ".join("{0} {1:.1f} s".format(way, cost.seconds) for way, cost in rounds[-1].items())))
        medians = {way: Cost(*(statistics.median(values) for values in zip(*(one[way] for one in rounds)))) for way in rounds[0]}
        lines = [
            Line(size, medians["well {0}".format(size)], medians["sick {0}".format(size)], medians.get("ping {0}".format(size))) for size in plan.sizes
        ]
        return {"empty": medians["empty"], "lines": lines, "version": server.version}


def _fill(here: Environment, token: str, hosts: Sequence[str], ports: Sequence[int]) -> None:
    with contextlib.closing(here.inventory()) as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; TRUNCATE db_servers, db_allocations, db_health_checks, db_events, db_tenant_migrations")
        cursor.execute(_ROW, {"token": token, "hosts": list(hosts), "ports": list(ports)})
        cursor.execute("ANALYZE db_servers")


def _run(here: Environment, playbook: Path, variables: Mapping[str, Any]) -> Cost:
    """Variables go by a file that only its owner reads: a password is among them."""
    given = here.temp / "bench-variables.json"
    given.touch(mode=0o600)
    given.write_text(json.dumps(variables))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(playbook), "-e", "@{0}".format(given)]
    run = Run(command, here.base, here.temp)
    ended, seen = threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(0.1):
            seen.append(_mebibytes(run.process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        outcome = run.wait(600).succeeded()
    finally:
        ended.set()
        watcher.join()
    return Cost(outcome.seconds, max(seen))


def _mebibytes(pid: int) -> float:
    """Of a process and all that it started. Proportional: what they share counts once."""
    tree, kibibytes = [pid], 0
    for member in tree:
        with contextlib.suppress(OSError):
            tree.extend(children(member))
            text = Path("/proc/{0}/smaps_rollup".format(member)).read_text()
            kibibytes += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
    return kibibytes / 1024


def render(measured: Mapping[str, Any], plan: Plan) -> str:
    def cells(cost: Optional[Cost]) -> str:
        return "{0:.1f} | {1:.0f}".format(*cost) if cost else "| "

    def found(size: int) -> Line:
        return next(line for line in measured["lines"] if line.servers == size)

    most = found(max(plan.sizes))
    worst = max(most.well.seconds, most.sick.seconds)
    table = "\n".join("| {0:,} | {1} | {2} | {3} |".format(line.servers, cells(line.well), cells(line.sick), cells(line.ping)) for line in measured["lines"])
    hundred = found(100) if 100 in plan.sizes else most
    return (
        "# How long a check of all servers takes\n\n"
        "`health.yml` beside a loop of `community.postgresql.postgresql_ping`, which only connects and asks for the version. "
        "One PostgreSQL {version} answers at as many addresses as there are servers; it, the inventory database and the run share one machine with "
        "{cores} cores. In the columns \"a fifth out of order\" "
        "a tenth of the servers refuses connections and a tenth swallows packets, each of which has its {timeout} s. Whole runs of "
        "ansible-playbook, medians of {rounds} rounds taken in turn; memory is the most that all processes of a run had at one moment (proportional set size). "
        "An empty play takes {empty.seconds:.1f} s and {empty.mebibytes:.0f} MiB. Made by `tests/bench/health.py`.\n\n"
        "| servers | `health.yml`, s | MiB | a fifth out of order, s | MiB | loop of `postgresql_ping`, s | MiB |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "{table}\n\n"
        "Aim: {hundred:,} servers, a fifth of them out of order, within one time limit and 5 s and the empty play. {first}\n"
        "Aim: {most:,} servers within 60 s. {second}\n"
    ).format(
        version="{0}.{1}".format(measured["version"] // 10000, measured["version"] % 10000),
        cores=os.cpu_count(),
        timeout=TIMEOUT,
        rounds=plan.rounds,
        empty=measured["empty"],
        table=table,
        hundred=hundred.servers,
        first=_verdict(hundred.sick.seconds <= TIMEOUT + 5 + measured["empty"].seconds, hundred.sick.seconds),
        most=most.servers,
        second=_verdict(worst <= 60, worst),
    )


def _verdict(met: bool, seconds: float) -> str:
    return "{0}: {1:.1f} s.".format("Met" if met else "**Missed**", seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small numbers; docs/benchmarks-health.md stays as it is")
    smoke = parser.parse_args().smoke
    plan = Plan((10, 50), (10,), 1) if smoke else Plan()
    text = render(measure(plan), plan)
    if smoke:
        say(text)
        say("bench: all of it works.")
    else:
        PAGE.write_text(text)
        say("bench: wrote docs/benchmarks-health.md")


if __name__ == "__main__":
    main()

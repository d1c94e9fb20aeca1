# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module database_copy when it is killed or cut off, what can be seen of it from outside, and a source that is written to meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _compare, _copy, _copy_pulse
from copy_fixture import Pair, pairs, parameters, running_pair
from environment import children
from proxy_fixture import Proxy, proxy

ROOT = Path(__file__).resolve().parents[2]
DATABASE, OWNER = "broken", "broken_user"
_CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _copy
try:
    print(json.dumps(_copy.carry_out(json.load(sys.stdin), False)))
except _copy.PoolsError as error:
    sys.exit(str(error))
"""
# A table whose rows the target takes slowly, and more of them than pipes and sockets hold.
_SLOW = """
CREATE TABLE public.slow AS SELECT i AS a, repeat('x', 1000) AS fill FROM generate_series(1, 20000) i;
CREATE FUNCTION public.slowly(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN true; END';
ALTER TABLE public.slow ADD CONSTRAINT slowly CHECK (a %% 200 <> 0 OR public.slowly(a)) NOT VALID;
UPDATE pg_constraint SET convalidated = true WHERE conname = 'slowly'
""".replace("%%", "%")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair(pairs()[0]) as running:
        yield running


@pytest.fixture
def scratch(pair: Pair) -> Iterator[Pair]:
    pair.forget(DATABASE, OWNER)
    for statement in ("CREATE ROLE {owner} LOGIN PASSWORD 'Broken1Password2'", "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0"):
        pair.run(pair.source, statement, DATABASE, OWNER)
    yield pair
    pair.forget(DATABASE, OWNER)


def fill(pair: Pair, *statements: str) -> None:
    with contextlib.closing(pair.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def ask(server: Any, statement: str, *values: Any, database: str = DATABASE) -> Any:
    with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchone()[0]


def sessions(server: Any, like: str = "%") -> List[int]:
    """Of copies, by what they do."""
    query = "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE application_name LIKE 'postgres_pools%%' AND query LIKE %s"
    return list(ask(server, query, like, database="postgres"))


def until(found: Any, seconds: float = 20) -> Any:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain for {0} s".format(seconds))


@contextlib.contextmanager
def running(pair: Pair, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A copy in a process of its own."""
    command = [sys.executable, "-c", _CHILD, str(ROOT / ".build")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin
            process.stdin.write(json.dumps(parameters(pair, DATABASE, OWNER, **more)))
            process.stdin.close()
            process.stdin = None
            yield process
        finally:
            process.kill()


def absent(pair: Pair) -> Dict[str, Any]:
    return _copy.carry_out(parameters(pair, DATABASE, OWNER, state="absent", drop_roles=True), False)


# Where in a copy it is killed, by what its sessions on the target or its programs do at that moment.
_MOMENTS = {
    "before the tables": lambda pair, process: "pg_dump" in programs(process.pid),
    "among the rows": lambda pair, process: sessions(pair.target, "COPY%"),
    "among the indexes": lambda pair, process: ask(pair.target, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%%'", database="postgres"),
}


def programs(pid: int) -> List[str]:
    names = []
    for child in children(pid):
        with contextlib.suppress(OSError):
            names.append(Path("/proc/{0}/comm".format(child)).read_text().strip())
    return names


@pytest.mark.parametrize("moment", list(_MOMENTS))
def test_killed_cleaned_and_copied(scratch: Pair, moment: str) -> None:
    """The module alone is killed; what it had started ends by itself or with the database. Then the next copy is whole."""
    fill(scratch, "CREATE TABLE public.t AS SELECT i, repeat(md5(i::text), 8) AS fill FROM generate_series(1, 150000) i", "CREATE INDEX ON public.t (fill)")
    if moment == "among the rows":
        fill(scratch, *_SLOW.split(";\n"))
    with running(scratch) as process:
        until(lambda: _MOMENTS[moment](scratch, process))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    cleaned = absent(scratch)
    assert not scratch.has_database(DATABASE)
    assert cleaned["changed"] == bool(cleaned["actions"])
    until(lambda: not sessions(scratch.target) and not sessions(scratch.source))
    assert absent(scratch)["changed"] is False
    fill(scratch, "DROP TABLE IF EXISTS public.slow")
    assert _copy.carry_out(parameters(scratch, DATABASE, OWNER), False)["changed"]
    digest = "SELECT count(*) || ' ' || md5(string_agg(fill, '' ORDER BY i)) FROM public.t"
    assert ask(scratch.target, digest) == ask(scratch.source, digest)
    assert ask(scratch.target, "SELECT count(*) FROM pg_indexes WHERE tablename = 't'") == 1


def test_killed_and_copied_without_cleaning(scratch: Pair) -> None:
    """The rest of a broken-off copy bears its mark, and is replaced unasked."""
    fill(scratch, *_SLOW.split(";\n"))
    with running(scratch) as process:
        until(lambda: sessions(scratch.target, "COPY%"))
        process.kill()
    fill(scratch, "DELETE FROM public.slow WHERE a > 10")
    assert _copy.carry_out(parameters(scratch, DATABASE, OWNER), False)["changed"]
    assert ask(scratch.target, "SELECT count(*) FROM public.slow") == 10


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_connection_that_is_cut_is_told_with_its_side_and_table(scratch: Pair, side: str) -> None:
    fill(scratch, *_SLOW.split(";\n"))
    server = getattr(scratch, side)
    with running(scratch) as process:
        until(lambda: sessions(scratch.target, "COPY%"))
        for pid in sessions(server, "COPY%"):
            ask(server, "SELECT pg_terminate_backend(%s)", pid, database="postgres")
        _out, said = process.communicate(timeout=20)
    assert process.returncode == 1
    doing = {"source": "reading", "target": "writing"}[side]
    assert "The {0} (127.0.0.1 port {1}) failed at {2} table public.slow".format(side, server.port, doing) in said, said
    assert "The connection was lost" in said or "copy again" in said, said
    assert "Traceback" not in said
    assert absent(scratch)["changed"]


def test_a_target_that_goes_away(scratch: Pair) -> None:
    """Every session there, the coordinator's too."""
    fill(scratch, *_SLOW.split(";\n"))
    with running(scratch) as process:
        until(lambda: sessions(scratch.target, "COPY%"))
        for pid in sessions(scratch.target):
            ask(scratch.target, "SELECT pg_terminate_backend(%s)", pid, database="postgres")
        _out, said = process.communicate(timeout=20)
    assert process.returncode == 1 and "The target (127.0.0.1" in said and "Traceback" not in said, said


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_network_that_swallows_packets_is_told_soon(scratch: Pair, side: str) -> None:
    """No session is ended by it: what is sent is taken, and nobody answers."""
    fill(scratch, *_SLOW.split(";\n"))
    with swallowing(scratch, side) as (between, process):
        until(lambda: sessions(scratch.target, "COPY%"))
        given_up_soon(between, process, side)
    # The servers' own ends of it hold no lock that the next copy would wait for.
    until(lambda: not sessions(scratch.target) and not sessions(scratch.source))
    assert absent(scratch)["changed"]


def test_a_network_that_swallows_packets_while_a_program_waits(scratch: Pair) -> None:
    """Nothing is to be sent either, for as long as an index is being built."""
    body = "BEGIN IF current_setting('port') = '{0}' THEN PERFORM pg_sleep(60); END IF; RETURN a; END".format(scratch.target.port)
    fill(scratch, "CREATE FUNCTION public.slowly(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $${0}$$".format(body))
    fill(scratch, "CREATE TABLE public.t AS SELECT 1 AS a", "CREATE INDEX ON public.t (public.slowly(a))")
    with swallowing(scratch, "target") as (between, process):
        until(lambda: ask(scratch.target, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%%'", database="postgres"))
        given_up_soon(between, process, "target")
    until(lambda: not sessions(scratch.target))
    assert absent(scratch)["changed"]


def test_a_network_that_swallows_packets_of_a_comparison(scratch: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("EVERY_SECONDS", 1), ("ANSWER_SECONDS", 2), ("SILENT_SECONDS", 4)):
        monkeypatch.setattr(_copy_pulse, name, seconds)
    fill(scratch, "CREATE TABLE public.t AS SELECT 1 AS a")
    assert _copy.carry_out(parameters(scratch, DATABASE, OWNER), False)["changed"]
    given = parameters(scratch, DATABASE, OWNER)
    with proxy(scratch.target.host, scratch.target.port) as between:
        given["target"] = dict(given["target"], database=DATABASE, owner=OWNER, login_port=between.port)
        # So that it is still at work then.
        between.seconds_a_chunk = 0.2
        threading.Timer(2, between.swallow).start()
        begun = time.monotonic()
        with pytest.raises(_copy.PoolsError, match="target database 'broken' on 127.0.0.1 port {0} has not answered for 4 seconds".format(between.port)):
            options = {"jobs": 2, "data": "checksum", "ignore": [], "max_differences": 20, "role_map": {}}
            _compare.compare(_compare.login(given, "source"), _compare.login(given, "target"), options)
        assert 4 < time.monotonic() - begun < 12


@contextlib.contextmanager
def swallowing(pair: Pair, side: str) -> Iterator[Tuple[Proxy, subprocess.Popen[str]]]:
    """A copy that reaches one of its servers by a network that can swallow packets; afterwards that network is well again."""
    server = getattr(pair, side)
    with proxy(server.host, server.port) as between:
        given = parameters(pair, DATABASE, OWNER)[side]
        with running(pair, **{side: dict(given, login_port=between.port)}) as process:
            yield between, process
        between.heal()


def given_up_soon(between: Proxy, process: subprocess.Popen[str], side: str) -> None:
    between.swallow()
    begun = time.monotonic()
    _out, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in said, said
    assert "The {0} (127.0.0.1 port {1}) has not answered for {2} seconds".format(side, between.port, _copy_pulse.SILENT_SECONDS) in said, said
    # Then a move has ten seconds left to open the old place in.
    assert time.monotonic() - begun < _copy_pulse.SILENT_SECONDS + _copy_pulse.EVERY_SECONDS


def test_two_copies_to_one_place_wait_for_each_other(scratch: Pair) -> None:
    """The second finds a whole copy, and refuses."""
    fill(scratch, *_SLOW.split(";\n"))
    with running(scratch) as first:
        until(lambda: sessions(scratch.target, "COPY%"))
        with running(scratch) as second:
            out, said = first.communicate(timeout=40)
            assert first.returncode == 0, said
            out, said = second.communicate(timeout=40)
            assert second.returncode == 0 and "holds something" in json.loads(out)["msg"], said
    assert ask(scratch.target, "SELECT count(*) FROM public.slow") == 20000


def test_no_password_can_be_seen(scratch: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no argument list or environment of the module and of what it starts, while it works; and it makes no file at all."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fill(scratch, "SELECT lo_from_bytea(0, convert_to(repeat('lo', 100000), 'UTF8')) FROM generate_series(1, 200)", "CREATE TABLE public.t (a int PRIMARY KEY)")
    secrets = [scratch.source.password.encode(), scratch.target.password.encode(), b"SCRAM-SHA-256$"]
    seen: Dict[str, int] = {}
    with running(scratch) as process:
        while process.poll() is None:
            for pid in [process.pid, *children(process.pid)]:
                with contextlib.suppress(OSError):
                    where = Path("/proc/{0}".format(pid))
                    text = (where / "cmdline").read_bytes() + (where / "environ").read_bytes()
                    assert not any(secret in text for secret in secrets), text
                    name = (where / "comm").read_text().strip()
                    seen[name] = seen.get(name, 0) + 1
            assert not list(tmp_path.iterdir())
        _out, said = process.communicate()
    assert process.returncode == 0, said
    assert {"pg_dump", "pg_restore"} <= set(seen), seen
    assert ask(scratch.target, "SELECT count(*) FROM pg_largeobject_metadata") == 200


def test_one_snapshot_while_somebody_writes(scratch: Pair) -> None:
    """Money goes to and fro between two tables that two workers copy; none is lost or made in the copy."""
    for name in ("here", "there"):
        fill(scratch, "CREATE TABLE public.{0} AS SELECT i, 100 AS money, repeat('x', 500) AS fill FROM generate_series(1, 30000) i".format(name))
        fill(scratch, "CREATE INDEX ON public.{0} (i)".format(name))
    over = threading.Event()
    moves: List[int] = []

    def write() -> None:
        with contextlib.closing(scratch.source.connect(DATABASE)) as connection, connection.cursor() as cursor:
            while not over.is_set():
                row = len(moves) % 30000 + 1
                cursor.execute(
                    "BEGIN; UPDATE public.here SET money = money - 1 WHERE i = %s; UPDATE public.there SET money = money + 1 WHERE i = %s; COMMIT",
                    (row, 30001 - row),
                )
                moves.append(row)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        before = len(moves)
        _copy.carry_out(parameters(scratch, DATABASE, OWNER), False)
        during = len(moves) - before
    finally:
        over.set()
        writer.join()
    assert during > 100
    total = "SELECT (SELECT sum(money) FROM public.here) + (SELECT sum(money) FROM public.there)"
    assert ask(scratch.target, total) == 6000000
    assert ask(scratch.target, "SELECT sum(money) FROM public.here") != ask(scratch.source, "SELECT sum(money) FROM public.here")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers asked side by side: whatever one of them does, each keeps to its limit, and what it did is told."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _authority, _probe
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import ensure
from ansible_collections.saasodoo.postgres_pools.plugins.modules import server_probe
from health_fixture import address, answering, dribble, garbage, refusing, server_everywhere, silent, swallowing, until
from postgres_fixture import RunningServer, server_home
from registry_fixture import bin_dirs, registry_server
from test_tls import Bed

TIMEOUT = 3


@pytest.fixture(scope="module", params=bin_dirs(), ids=lambda path: path or "found")
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with server_everywhere(request.param) as started:
        yield started


def target(server: RunningServer, host: str = "127.0.0.1", port: int = 0, password: str = "") -> _probe.Target:
    login = {"user": server.user, "password": password or server.password, "dbname": "postgres", "sslmode": "prefer"}
    return _probe.Target(host, port or server.port, login)


def sweep(*targets: _probe.Target, limit: float = 60, timeout: float = TIMEOUT, **more: Any) -> List[_probe.Answer]:
    return _probe.sweep(targets, timeout, limit, **more)


def test_a_server_that_serves_tells_what_it_holds(server: RunningServer) -> None:
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE odoo_seen")
        cursor.execute("SELECT pg_create_physical_replication_slot('left_behind', true)")
        with contextlib.closing(server.connect()) as busy, busy.cursor() as other:
            other.execute("BEGIN; SELECT 1")
            time.sleep(1.1)
            (answer,) = sweep(target(server))
        cursor.execute("SELECT pg_drop_replication_slot('left_behind')")
        cursor.execute("DROP DATABASE odoo_seen")
    assert answer.serves and not answer.problem and not answer.unmeasured
    assert 0 < (answer.latency_ms or 0) < TIMEOUT * 1000
    facts = answer.facts
    assert facts["server_version_num"] == server.version and facts["databases"] == ["odoo_seen"]
    assert facts["connections_used"] == 2 and 290 <= facts["connections_allowed"] < 300
    assert 1 <= facts["oldest_transaction_seconds"] < 30
    assert 0 < facts["wraparound_age"] < facts["freeze_max_age"] == 200_000_000
    assert facts["database_bytes"] > 4 * (6 << 20)
    assert [slot["name"] for slot in facts["slots_inactive"]] == ["left_behind"]


def test_each_way_to_be_out_of_order_is_told_and_holds_up_nobody(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        port = {
            "refusing": refusing(),
            "swallowing": stack.enter_context(swallowing()),
            "silent": stack.enter_context(silent()),
            "garbage": stack.enter_context(answering(garbage)),
            "dribble": stack.enter_context(answering(dribble)),
            "in the login": stack.enter_context(answering(until(b"SCRAM-SHA-256", server))),
            "in the query": stack.enter_context(answering(until(b"pg_read_binary_file", server))),
        }
        began = time.monotonic()
        answers = sweep(target(server), *(target(server, port=one) for one in port.values()), target(server, password="wrong"))
        took = time.monotonic() - began
    told = dict(zip(["well", *port, "password"], answers))
    assert told.pop("well").serves
    assert all(answer.asked and not answer.serves and answer.latency_ms is None for answer in told.values())
    for way, says in {
        "refusing": "127.0.0.1 port {0}: .*[Cc]onnection refused",
        "swallowing": "No connection to 127.0.0.1 port {0} within 3 s.",
        "silent": "127.0.0.1 port {0} took the connection and did not let in within 3 s.",
        "garbage": "127.0.0.1 port {0}: .*H",
        "dribble": "127.0.0.1 port {0} took the connection and did not let in within 3 s.",
        "in the login": "127.0.0.1 port {0} took the connection and did not let in within 3 s.",
        "in the query": "127.0.0.1 port {0} let in and did not answer a query within 3 s.",
    }.items():
        assert re.search(says.format(port[way]), told[way].problem), (way, told[way].problem)
    assert "password authentication failed" in told["password"].problem
    assert all(answer.problem.isprintable() for answer in told.values())
    assert TIMEOUT <= took < TIMEOUT + 2


def test_what_is_not_seen_in_time_makes_no_server_fail(server: RunningServer) -> None:
    seen: List[bytes] = []
    with answering(until(b"xact_start", server, seen)) as first, answering(until(b"pg_database_size", server, seen)) as second:
        answers = sweep(target(server, port=first), target(server, port=second))
    assert len(seen) == 2 and all(answer.serves for answer in answers)
    assert [sorted({"connections_used", "database_bytes"} & set(answer.facts)) for answer in answers] == [[], ["connections_used"]]
    assert answers[0].unmeasured == "not all of it was answered within 3 s."
    assert answers[1].unmeasured == "the size of its databases was not found within 3 s."


def test_a_server_whose_storage_is_gone_does_not_serve(server: RunningServer) -> None:
    """The postmaster goes on and pg_isready is content; only a read of the files tells."""
    base = Path(server.data_directory, "base")
    base.rename(base.with_name("gone"))
    try:
        ready = subprocess.run(
            [os.path.join(server.bin_dir, "pg_isready"), "-h", server.host, "-p", str(server.port)], check=False, capture_output=True
        )
        (answer,) = sweep(target(server))
    finally:
        base.with_name("gone").rename(base)
    assert ready.returncode == 0
    assert not answer.serves and answer.problem
    assert sweep(target(server))[0].serves


def test_a_table_whose_file_cannot_be_read_is_seen(server: RunningServer) -> None:
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_relation_filepath('pg_class')")
        table = Path(server.data_directory, cursor.fetchone()[0])
    table.rename(table.with_name("gone"))
    try:
        (answer,) = sweep(target(server))
    finally:
        table.with_name("gone").rename(table)
    assert not answer.serves and "could not open file" in answer.problem


def test_with_a_fake_lookup_that_hangs_names_keep_to_the_limit(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lookups of this machine, but for two names of which one is never answered: no resolver here can be made to hang."""
    real, over = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "hangs.example" and not more.get("flags"):
            over.wait(60)
        if host == "pool.example" and not more.get("flags"):
            return [*real("::1", *rest, **more), *real("127.0.0.1", *rest, **more)]
        return real(host, *rest, **more)

    monkeypatch.setattr(_probe.socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    answers = sweep(*(target(server, host=host) for host in ("hangs.example", "no-such-name.invalid", "localhost", "pool.example", "x" * 300)))
    took = time.monotonic() - began
    over.set()
    assert answers[0].problem == "The name 'hangs.example' was not resolved within 3 s."
    assert "'no-such-name.invalid' is not known here" in answers[1].problem
    # Where the first of its addresses refuses, the second is tried.
    assert answers[2].serves and answers[3].serves
    assert not answers[4].serves and answers[4].asked
    assert took < TIMEOUT + 2


def test_the_limit_of_all_leaves_the_rest_unasked(server: RunningServer) -> None:
    with silent() as port:
        began = time.monotonic()
        answers = sweep(*(target(server, address(number), port) for number in range(4)), target(server), limit=4, parallel=2)
        took = time.monotonic() - began
    # Two at a time for 3 s each: the second pair had one of its three seconds, the last server none.
    assert [answer.asked for answer in answers] == [True, True, False, False, False]
    assert 4 <= took < 6


def test_more_servers_than_files_that_may_be_open(server: RunningServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        answers = sweep(*(target(server, address(number)) for number in range(150)), timeout=20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [answer.problem for answer in answers if not answer.serves] == []


def test_nothing_stays_open(server: RunningServer) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = files()
    with silent() as port:
        sweep(target(server), target(server, port=port), target(server, host="localhost"), limit=1)
    assert files() == before
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        for _each in range(100):
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            if cursor.fetchone() == (1,):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the server still has connections of the probes")


def test_a_certificate_is_checked() -> None:
    with registry_server() as make, server_home() as home:
        bed = Bed(make(), home, "")
        trusted = bed.write()["ca_certificate"]
        other = _authority.made().pem
        ensure(bed.wanted, "started")
        try:
            login = {"user": "postgres", "password": bed.admin_password, "dbname": "postgres", "sslmode": "verify-full"}
            good, bad, name = sweep(
                _probe.Target("127.0.0.1", bed.port, login, trusted),
                _probe.Target("127.0.0.1", bed.port, login, other),
                _probe.Target("localhost", bed.port, login, trusted),
            )
            asked = {"login_host": "127.0.0.1", "login_port": bed.port, "login_user": "postgres", "login_password": bed.admin_password}
            told = server_probe.ask(dict(asked, ssl_mode="verify-full", ca_certificate=trusted), 5)
            with pytest.raises(PoolsError, match="certificate verify failed"):
                server_probe.ask(dict(asked, ssl_mode="verify-full", ca_certificate=other), 5)
        finally:
            ensure(bed.wanted, "stopped")
    assert told["version"] // 10000 >= 15 and told["databases"] == []
    assert good.serves, good
    assert "certificate verify failed" in bad.problem
    assert "does not match host name" in name.problem

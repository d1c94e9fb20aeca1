# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers and networks that break while one database follows another: it ends equal, or back at the source, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Dict, Iterator

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _copy_pulse, _follow_copy, _follow_switch
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import ensure
from copy_fixture import Pair, pairs, running_pair
from follow_fixture import (
    DATABASE,
    Writer,
    as_owner,
    differences,
    follow,
    forget,
    given,
    has_nothing_left,
    left,
    make,
    query,
    run,
    wait_for,
)
from proxy_fixture import proxy

# Servers that find a silent peer as soon as this test has time for it.
SETTINGS = {"wal_retrieve_retry_interval": "500ms", "wal_receiver_timeout": "3s", "wal_sender_timeout": "3s"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair(pairs()[0], SETTINGS) as running:
        yield running


@pytest.fixture
def scratch(pair: Pair) -> Iterator[Pair]:
    forget(pair)
    make(pair)
    yield pair
    forget(pair)


def by(pair: Pair, side: str, port: int) -> Dict[str, Any]:
    """One side as it is reached by another port: by this host, not by the other server."""
    server = getattr(pair, side)
    return {side: dict(given(pair)[side], login_port=port, peer_host=server.host, peer_port=server.port)}


def ends_equal(pair: Pair) -> None:
    assert follow(pair, state="watched", lag_bytes=0)["caught_up"]
    compared = follow(pair, state="compared")
    assert compared["changed"], compared["msg"]
    drained = follow(pair, state="drained", compare=True)
    assert drained["changed"] and drained["problems"] == []
    assert differences(pair) == []
    has_nothing_left(pair, copy=True)


def insert(pair: Pair, number: int) -> None:
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.commits SELECT 7, i FROM generate_series(%s, %s) i", [number, number + 99])


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_network_that_swallows_packets_of_the_copy(scratch: Pair, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = scratch
    for name, seconds in (("EVERY_SECONDS", 1), ("ANSWER_SECONDS", 2), ("SILENT_SECONDS", 4)):
        monkeypatch.setattr(_copy_pulse, name, seconds)
    real = _follow_copy.FollowSteps._copy_rows
    with proxy(getattr(pair, side).host, getattr(pair, side).port) as between:

        def swallowed(self: Any, snapshot: str) -> None:
            between.swallow()
            real(self, snapshot)

        monkeypatch.setattr(_follow_copy.FollowSteps, "_copy_rows", swallowed)
        with pytest.raises(PoolsError, match="The {0} .* has not answered for 4 seconds".format(side)):
            follow(pair, **by(pair, side, between.port))
        between.heal()
        monkeypatch.undo()
        # On the server that was there all is tidy; of the other it is told.
        assert left(pair)["target" if side == "source" else "source"] == []
        follow(pair, state="absent")
    has_nothing_left(pair)
    assert follow(pair)["changed"]
    ends_equal(pair)


def test_a_network_between_the_servers_that_is_cut_and_swallows_packets(scratch: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = scratch
    monkeypatch.setattr(_follow_switch, "_RECONNECT_SECONDS", 5)
    with proxy(pair.source.host, pair.source.port) as between:
        source = dict(given(pair)["source"], peer_host=between.host, peer_port=between.port)
        with Writer(pair.source, 1) as writer:
            follow(pair, source=source)
            between.cut()
            wait_for(lambda: query(pair.source, "postgres", "SELECT count(*) FROM pg_stat_replication") == [(1,)])
            between.swallow()
            before = writer.commits
            wait_for(lambda: writer.commits > before + 50)
            # Nobody reads: the slot keeps what is written, and the switch is not made.
            waiting = follow(pair, state="watched", timeout=1, lag_bytes=0)
            assert not waiting["caught_up"] and not waiting["given_up"]
            between.heal()
            # One that began to connect meanwhile waits for an answer that will not come, for longer than a copy is followed that nobody reads.
            assert follow(pair, state="watched")["caught_up"]
        ends_equal(pair)
        assert writer.arrived(pair.target)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_crashes_while_one_follows(scratch: Pair, side: str) -> None:
    pair = scratch
    server = getattr(pair, side)
    follow(pair)
    insert(pair, 1)
    assert follow(pair, state="compared")["changed"]
    insert(pair, 101)
    pid = int(query(server, "postgres", "SELECT pg_read_file('postmaster.pid')")[0][0].split()[0])
    os.kill(pid, signal.SIGQUIT)
    wait_for(lambda: not os.path.exists(os.path.join(server.data_directory, "postmaster.pid")) or _is_gone(pid))
    with pytest.raises(PoolsError):
        follow(pair, state="watched")
    ensure(server.wanted, "started")
    insert(pair, 201)
    # The proof is as good as before: its slot has kept all.
    assert follow(pair, state="watched", lag_bytes=0)["caught_up"]
    drained = follow(pair, state="drained", compare=True)
    assert drained["changed"] and drained["proof"]["at_switch"]["rows"] >= 100
    assert differences(pair) == [] and query(pair.target, DATABASE, "SELECT count(*) FROM public.commits WHERE writer = 7") == [(300,)]
    has_nothing_left(pair, copy=True)


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


def test_the_source_is_freed_while_the_target_is_away(scratch: Pair) -> None:
    pair = scratch
    follow(pair)
    ensure(pair.target.wanted, "stopped")
    try:
        insert(pair, 1)
        tidied = follow(pair, state="absent")
        assert tidied["failed"] and tidied["changed"] and {one["what"] for one in tidied["problems"]} == {"left over"}
        found = query(pair.source, "postgres", "SELECT slot_name FROM pg_replication_slots UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ '^pools_'")
        assert found == [] and query(pair.source, DATABASE, "SELECT count(*) FROM pg_publication") == [(0,)]
    finally:
        ensure(pair.target.wanted, "started")
    assert follow(pair, state="absent")["changed"]
    has_nothing_left(pair)


def test_a_worker_that_cannot_apply_is_given_up(scratch: Pair) -> None:
    pair = scratch
    follow(pair)
    # A row that is there already, as nobody but a superuser could have made it.
    run(pair.target, DATABASE, "INSERT INTO public.commits VALUES (7, 50, 1, 'in the way')")
    insert(pair, 1)
    begun = time.monotonic()
    given_up = follow(pair, state="watched", timeout=0, lag_bytes=0)
    assert given_up["given_up"] and given_up["problems"][0]["what"] == "apply" and time.monotonic() - begun < 60
    has_nothing_left(pair)

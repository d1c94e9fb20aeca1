# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings fit the memory, whatever the memory."""

from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _sizing
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from hypothesis import given
from hypothesis import strategies as st

GIB = 1024**3


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("4G", 4 * GIB),
        ("4GiB", 4 * GIB),
        ("4gb", 4 * GIB),
        (" 512M ", 512 * 1024**2),
        ("1.5G", 1536 * 1024**2),
        ("64k", 65536),
        (1073741824, GIB),
        ("1073741824", GIB),
        ("2 T", 2048 * GIB),
    ],
)
def test_sizes(size, count):
    assert _sizing.parse_size(size) == count


@pytest.mark.parametrize("size", ["", "G", "four", "-4G", "0", "4X", "4G4", None, True, "NaN", "1e9", "0.1", [4]])
def test_nonsense_is_refused_with_the_value(size):
    with pytest.raises(PoolsError) as caught:
        _sizing.parse_size(size)
    assert "'{0}'".format(size) in str(caught.value)


def test_the_pool_of_the_design_fits():
    found = _sizing.settings(4 * GIB, 2, 300)
    assert found["max_connections"] == "310"
    assert found["shared_buffers"] == "1024MB"
    assert found["effective_cache_size"] == "3072MB"
    assert found["work_mem"] == "4MB"
    assert found["max_parallel_workers"] == "2"
    # For moves online: five databases may follow others at a time, beside the launcher and the parallel workers.
    assert (found["wal_level"], found["max_logical_replication_workers"], found["max_worker_processes"]) == ("logical", "5", "8")
    assert int(found["max_replication_slots"]) >= 2 * int(found["max_wal_senders"])


def test_few_connections_get_the_most_work_mem_and_no_more():
    assert _sizing.settings(16 * GIB, 4, 20)["work_mem"] == "16MB"


def need(settings):
    """The memory, in MiB, of everything busy at once: a sum of its own, from the settings as PostgreSQL gets them."""

    def mib(name):
        assert settings[name].endswith("MB")
        return int(settings[name][:-2])

    backend = 4
    connections = int(settings["max_connections"]) * (backend + mib("work_mem"))
    workers = int(settings["max_worker_processes"]) * (backend + mib("work_mem"))
    autovacuum = int(settings["autovacuum_max_workers"]) * (backend + mib("autovacuum_work_mem"))
    senders = int(settings["max_wal_senders"]) * (backend + mib("logical_decoding_work_mem"))
    shared = mib("shared_buffers") * 33 / 32 + 28
    return shared + 32 + mib("maintenance_work_mem") + autovacuum + senders + workers + connections


@given(
    memory=st.integers(GIB // 2, 512 * GIB), cpus=st.floats(0.1, 256), share=st.floats(0, 1), spare=st.integers(3, 40)
)
def test_all_at_once_stays_within_the_memory(memory, cpus, share, spare):
    most = _sizing.tenant_connections(memory, spare)
    connections = max(1, int(most * share))
    if connections > most:
        with pytest.raises(PoolsError):
            _sizing.settings(memory, cpus, connections, spare)
        return
    found = _sizing.settings(memory, cpus, connections, spare)
    assert need(found) <= memory / 1024**2
    assert 4 <= int(found["work_mem"][:-2]) <= 16
    assert int(found["max_parallel_workers"]) <= int(found["max_worker_processes"])
    # work_mem is as large as fits: a MiB more would pass the limit, where the most is not reached.
    if found["work_mem"] != "16MB":
        more = dict(found, work_mem="{0}MB".format(int(found["work_mem"][:-2]) + 1))
        assert need(more) > memory // 1024**2


@given(memory=st.integers(GIB // 2, 512 * GIB), spare=st.integers(3, 40))
def test_one_more_than_fits_is_refused_and_what_it_asks_for_is_enough(memory, spare):
    most = _sizing.tenant_connections(memory, spare)
    with pytest.raises(PoolsError) as caught:
        _sizing.settings(memory, 2, most + 1, spare)
    enough = _sizing.memory_needed(most + 1, spare)
    assert "{0} MiB of memory would do".format(enough // 1024**2) in str(caught.value)
    assert "{0} would".format(most) in str(caught.value)
    assert need(_sizing.settings(enough, 2, most + 1, spare)) <= enough / 1024**2


@pytest.mark.parametrize(
    ("cpus", "connections", "spare"),
    [(0, 1, 10), (-1, 1, 10), (float("nan"), 1, 10), (float("inf"), 1, 10), (2, 0, 10), (2, -5, 10), (2, 10, 2)],
)
def test_bad_numbers_are_refused(cpus, connections, spare):
    with pytest.raises(PoolsError):
        _sizing.settings(4 * GIB, cpus, connections, spare)


def test_no_statement_reaches_the_log_and_keepalives_beat_the_swarm():
    found = _sizing.settings(4 * GIB, 2, 300)
    assert (found["log_statement"], found["log_min_duration_statement"], found["log_min_error_statement"]) == (
        "none",
        "-1",
        "panic",
    )
    assert int(found["tcp_keepalives_idle"][:-1]) < 900
    assert found["password_encryption"] == "scram-sha-256"

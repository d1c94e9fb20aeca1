# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a server that fit its memory limit, or a refusal. Pure.

The promise: with every connection the server admits busy at once in one sort or hash of full size, beside one maintenance
command, every autovacuum worker, every parallel and logical worker and every WAL sender, the memory limit is not passed.

Where the figures come from. "Measured" is PostgreSQL 15.18 on x86-64 with 4 kB pages, RssAnon and VmPTE of /proc/PID/status:

- a fresh backend holds 3.1 MiB, of which 2.3 MiB are pages it shares with the postmaster, and 0.2 MiB of page tables; after
  a sort 3.9 and 0.3. One that has read each of 600 tables with four indexes holds 18 MiB, and reading all of 1 GiB of
  shared_buffers takes 2 MiB of page tables. BACKEND is the mean of a pool, where most connections are idle; it is not what
  a backend of a large schema grows to when it is never closed.
- shared memory beside shared_buffers: shared_memory_size was 152, 1084 and 8410 MiB for shared_buffers of 128, 1024 and
  8192 MiB with 310 connections, and 31 MiB more with 1000. SHARED_FIXED and a 32nd of shared_buffers cover it.
- shared_buffers 25 % and effective_cache_size 75 % of memory, random_page_cost 1.1, work_mem of at most 16 MiB,
  maintenance_work_mem of at most 256 MiB, 10 spare connections: the platform that this collection replaces.
- work_mem of at least 4 MiB, autovacuum_max_workers 3, superuser_reserved_connections 3: PostgreSQL's own defaults.
- tcp_keepalives_idle below 900 s, at which Docker Swarm's virtual IP drops idle connections (moby issue 31208).
- a slot takes no memory to speak of: 24 of them, where there were 8, changed shared_memory_size by nothing.
- the shares of memory for maintenance, autovacuum and decoding are our choice; they leave 305 tenant connections to 4 GiB.
"""

from __future__ import annotations

import math
import re
from typing import Dict, NamedTuple, Union

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

MIB = 1024 * 1024
UNITS = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB, "T": 1024 * 1024 * MIB}

# All in MiB.
BACKEND = 4
SHARED_FIXED = 28
# The postmaster, checkpointer, writers and launchers, and PostgreSQL 18's three I/O workers: measured at 2.4 to 3.9 each.
AUXILIARY = 32
WORK_MEM_FLOOR = 4
WORK_MEM_MOST = 16

RESERVED = 3
AUTOVACUUM_WORKERS = 3
WAL_SENDERS = 8
# Beside the parallel workers: the logical replication launcher, and one for each database that follows another, in a move online or for its way back.
LOGICAL_WORKERS = 6
# A follower has one slot that is read, one for its proof and, as it begins, a third; what the server itself follows counts too up to PostgreSQL 17.
SLOTS = 3 * WAL_SENDERS
# pg_dump locks each table of a database in one transaction, a restore in one transaction each index too.
LOCKS = 20000


def parse_size(size: Union[str, int]) -> int:
    """Bytes of a size such as 4G, 4GiB, 512M or 1073741824. Units are powers of 1024, as Docker and PostgreSQL take them."""
    match = (
        None
        if isinstance(size, bool)
        else re.match(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*$", str(size), re.IGNORECASE)
    )
    if not match:
        raise PoolsError("'{0}' is no size.".format(size), "Give bytes, or a number and a unit, such as 512M or 4GiB.")
    result = int(float(match.group(1)) * UNITS[match.group(2).upper()])
    if result < 1:
        raise PoolsError("A size must be more than nothing, not '{0}'.".format(size))
    return result


class _Plan(NamedTuple):
    """What a memory limit alone decides, in MiB."""

    memory: int
    shared_buffers: int
    maintenance: int
    autovacuum: int
    decoding: int
    parallel: int

    @property
    def left(self) -> int:
        """What remains for backends and parallel and logical workers."""
        shared = self.shared_buffers + SHARED_FIXED + math.ceil(self.shared_buffers / 32)
        upkeep = self.maintenance + AUTOVACUUM_WORKERS * (BACKEND + self.autovacuum)
        return self.memory - shared - AUXILIARY - upkeep - WAL_SENDERS * (BACKEND + self.decoding)

    @property
    def workers(self) -> int:
        return self.parallel + LOGICAL_WORKERS


def _plan(memory_bytes: int) -> _Plan:
    memory = memory_bytes // MIB
    return _Plan(
        memory=memory,
        shared_buffers=memory // 4,
        maintenance=_between(16, memory // 32, 256),
        autovacuum=_between(8, memory // 128, 64),
        decoding=_between(4, memory // 256, 64),
        parallel=_between(1, memory // 2048, 16),
    )


def tenant_connections(memory_bytes: int, spare: int = 10) -> int:
    """The most connections that tenants can be promised with this memory; 0 when it holds none."""
    plan = _plan(memory_bytes)
    return max(0, plan.left // (BACKEND + WORK_MEM_FLOOR) - plan.workers - spare)


def memory_needed(connections: int, spare: int = 10) -> int:
    """A memory, in bytes and hardly more than the least, that so many connections of tenants can be promised with."""
    low, high = 0, 1
    while tenant_connections(high * MIB, spare) < connections:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tenant_connections(middle * MIB, spare) >= connections else (middle, high)
    return high * MIB


def settings(memory_bytes: int, cpus: float, connections: int, spare: int = 10) -> Dict[str, str]:
    """Settings for a server of this memory and CPU that promises tenants so many connections.

    :param spare: connections beside those: the administrator's, probes, moves. Three of them are the superuser's alone.
    """
    if connections < 1:
        raise PoolsError("A server needs at least one connection for tenants, not {0}.".format(connections))
    if spare < RESERVED:
        raise PoolsError("A server needs at least {0} spare connections, not {1}.".format(RESERVED, spare))
    if not 0 < cpus < math.inf:
        raise PoolsError("The number of CPUs must be above zero, not {0}.".format(cpus))
    fit = tenant_connections(memory_bytes, spare)
    if connections > fit:
        raise PoolsError(
            "{0} connections of tenants do not fit in {1} MiB of memory.".format(connections, memory_bytes // MIB),
            "{0} would, or {1} MiB of memory would do.".format(fit, memory_needed(connections, spare) // MIB),
        )
    plan = _plan(memory_bytes)
    admitted = connections + spare
    work_mem = min(WORK_MEM_MOST, plan.left // (admitted + plan.workers) - BACKEND)
    parallel = min(math.ceil(cpus), plan.parallel)
    wal = _between(256, plan.memory // 4, 4096)
    return {
        # Connections
        "max_connections": str(admitted),
        "superuser_reserved_connections": str(RESERVED),
        "password_encryption": "scram-sha-256",
        "tcp_keepalives_idle": "600s",
        "tcp_keepalives_interval": "30s",
        "tcp_keepalives_count": "4",
        # Memory. A hash would take twice work_mem by default, and compiled queries take tens of MiB outside of it.
        "shared_buffers": _mib(plan.shared_buffers),
        "effective_cache_size": _mib(max(1, plan.memory * 3 // 4)),
        "work_mem": _mib(work_mem),
        "hash_mem_multiplier": "1.0",
        "jit": "off",
        "maintenance_work_mem": _mib(plan.maintenance),
        "autovacuum_max_workers": str(AUTOVACUUM_WORKERS),
        "autovacuum_work_mem": _mib(plan.autovacuum),
        "logical_decoding_work_mem": _mib(plan.decoding),
        "max_locks_per_transaction": str(max(64, math.ceil(LOCKS / admitted))),
        # Planner and workers
        "random_page_cost": "1.1",
        "max_worker_processes": str(plan.workers),
        "max_logical_replication_workers": str(LOGICAL_WORKERS - 1),
        "max_parallel_workers": str(parallel),
        "max_parallel_workers_per_gather": str(max(1, parallel // 2)),
        "max_parallel_maintenance_workers": str(max(1, parallel // 2)),
        # WAL. Logical from the start, since changing it takes a restart and an online move cannot wait for one. A slot
        # that nobody reads is given up before it fills the storage, where PostgreSQL would panic.
        "wal_level": "logical",
        "wal_compression": "on",
        "max_wal_senders": str(WAL_SENDERS),
        "max_replication_slots": str(SLOTS),
        "max_wal_size": _mib(wal),
        "max_slot_wal_keep_size": _mib(8 * wal),
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        # Log: never the text of a statement, which may hold a password or a tenant's data, not even of a failed one.
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))


def _mib(value: int) -> str:
    return "{0}MB".format(value)

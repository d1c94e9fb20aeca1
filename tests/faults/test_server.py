# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL itself ends or hangs, with its node and its storage as they were."""

from __future__ import annotations

import time
from pathlib import Path
from typing import List, Tuple

from case import Case
from harness import Fleet, Writer


def processes(fleet: Fleet, server: str) -> Tuple[str, List[str]]:
    """Its node, and the numbers that its processes have there; the first is the one that leads them."""
    node, container = fleet.bed.container(server)
    listed = fleet.bed.on(node, "docker", "top", container, "-o", "pid,args").split("\n")[1:]
    return node, [line.split()[0] for line in listed if "postgres" in line]


def of(case: Case, server: str) -> List[Writer]:
    return [writer for writer in case.writers if writer.login["server"] == server]


def test_postgresql_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    """The first process alone: those that it leaves behind have the lock, and must be gone before the next one starts."""
    server = fleet.logins["tenant-1"]["server"]
    with Case(fleet, "PostgreSQL is killed", tmp_path) as case:
        node, pids = processes(fleet, server)
        case.broken_at = time.time()
        fleet.bed.on(node, "kill", "-KILL", pids[0])
        case.served_again("served again", of(case, server))
        case.mended()
        case.verify()
    case.record()


def test_postgresql_hangs(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.logins["tenant-1"]["server"]
    with Case(fleet, "PostgreSQL hangs", tmp_path) as case:
        node, pids = processes(fleet, server)
        case.broken_at = time.time()
        fleet.bed.on(node, "kill", "-STOP", *pids)
        case.served_again("served again", of(case, server))
        case.mended()
        case.verify()
    case.record()

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That the other tests can fail: the same cut, of a server whose start takes no lock."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import record
from harness import SAFE, Fleet, Witnesses, Writer, missing, two_writers, wait_until
from swarm_fixture import FOLDER, ROOT, SECRETS, Bed, run

HERE = Path(__file__).resolve().parent
NAME = "unguarded"
PASSWORD = "nobody-keeps-anything-here"


def play(state: str) -> None:
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(FOLDER / "inventory"), str(HERE / "unguarded.yml")]
    done = subprocess.run(
        [*command, "-e", json.dumps({"unguarded_state": state, "unguarded_password": PASSWORD})],
        cwd=str(ROOT),
        env=dict(os.environ, POSTGRES_POOLS_SECRETS=str(SECRETS), ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def login(fleet: Fleet) -> Iterator[Dict[str, Any]]:
    play("started")
    login = {"host": NAME, "port": 5432, "database": "postgres", "user": "postgres", "password": PASSWORD, "sslmode": "prefer", "server": NAME}
    fleet.as_superuser(NAME, "postgres", fleet.tables(login))
    fleet.as_superuser(NAME, "postgres", "CREATE TABLE faults_witnessed (container text, n bigint)")
    yield login
    play("absent")


def containers(bed: Bed) -> List[str]:
    listed = ["docker", "ps", "--filter", "label=postgres_pools.server=" + NAME, "--format", "{{.Names}} {{.Status}}"]
    return [line for node in bed.nodes for line in bed.on(node, *listed).split("\n") if line]


def test_without_the_guard_the_same_cut_makes_two_writers_and_loses_commits(fleet: Fleet, login: Dict[str, Any]) -> None:
    bed = fleet.bed
    victim = bed.container(NAME)[0]
    outside, inside = Writer(bed, "outside", login), Writer(bed, "inside", login, victim)
    witnesses = Witnesses(bed)
    try:
        for writer in (outside, inside):
            writer.start()
        wait_until("both write", 60, lambda: len(outside.acknowledged) > 5 and len(inside.acknowledged) > 5)
        bed.fault("cut", victim, "cluster")
        cut = time.time()
        wait_until("a second server serves", 120, lambda: outside.away(cut)[1] > 3)
        # Both go on, each with its own.
        time.sleep(15)
        bed.fault("heal", victim, "cluster")
        healed = time.time()
        wait_until("one is left, or none", 180, lambda: len(containers(bed)) < 2, pause=1)
        # The one that is left ends once it misses the file that the other took away; what starts then starts from what is on the disk.
        time.sleep(max(0.0, healed + 75 - time.time()))
        state = wait_until("it serves, or cannot", 240, lambda: state_of(bed, login), pause=3)
    finally:
        for writer in (outside, inside):
            writer.stop()
        witnesses.stop()
        if "cluster" not in networks(bed, victim):
            bed.fault("heal", victim, "cluster")

    # What the guarded cases show to be empty is not.
    overlaps = [overlap for overlap in two_writers(witnesses.accepted) if overlap.server == NAME]
    assert overlaps
    acknowledged = sum(len(writer.acknowledged) for writer in (outside, inside))
    if state == "serves":
        lost = sum(len(missing([event["n"] for event in writer.acknowledged], fleet.rows(login, writer.name))) for writer in (outside, inside))
        record.keep_unguarded(overlaps[0].seconds, "{0} of {1} acknowledged commits are gone".format(lost, acknowledged))
        assert lost > 0
    else:
        record.keep_unguarded(overlaps[0].seconds, "PostgreSQL does not start any more, and {0} acknowledged commits with it: {1}".format(acknowledged, state))


# What PostgreSQL says when it ends by itself, over files that do not belong together; and what it says to those who come while it starts or stops.
BROKEN = re.compile(r"PANIC: |FATAL: |was terminated by signal|exited with exit code|could not access status|contains unexpected data")
PASSING = re.compile(r"the database system is|terminating connection|canceling")


def state_of(bed: Bed, login: Dict[str, Any]) -> str:
    """Empty as long as it is not known."""
    found = containers(bed)
    if len(found) > 1:
        return ""
    try:
        if bed.query_from(SAFE, login, "SELECT 1") == "1":
            return "serves"
    except AssertionError:
        pass
    ended = []
    for node in bed.nodes:
        for container in bed.on(node, "docker", "ps", "--all", "--quiet", "--filter", "label=postgres_pools.server=" + NAME).split():
            # Swarm removes the oldest of them at any time.
            said = bed.on(node, "sh", "-c", 'docker logs --since 60s "$1" 2>&1 || true', "sh", container)
            ended += [line for line in said.split("\n") if BROKEN.search(line) and not PASSING.search(line)]
    # Again and again, that is: once may be the end of one of the two.
    return ended[-1].rpartition("] ")[2] if len(ended) > 3 else ""


def networks(bed: Bed, node: str) -> str:
    return run([*bed.outer, "inspect", node, "--format", "{{json .NetworkSettings.Networks}}"])

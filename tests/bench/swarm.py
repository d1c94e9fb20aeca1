# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a Swarm server takes from the call to healthy, beside `docker service create` by hand, on tests/swarm_bed.

    python tests/swarm_bed up
    .venv/bin/python tests/bench/swarm.py          writes docs/benchmarks-swarm.md
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "swarm"))
from swarm_fixture import Bed

ROUNDS = 3
PAGE = ROOT / "docs" / "benchmarks-swarm.md"
EMPTY = ROOT / "tests" / "bench" / "empty.yml"
# What a careful person would type: the same image, network, limits, storage and health check, and an initdb in the container.
BY_HAND = r"""
set -e
mkdir -p {path}; chown 999:999 {path}; chmod 700 {path}
printf %s {password} | docker secret create {name}-password - >/dev/null
docker service create --detach --quiet --name {name} --replicas 1 --endpoint-mode dnsrr --network saasodoo-network \
  --constraint node.labels.role==database --user 999 --limit-memory 768M --limit-cpu 0.5 --secret {name}-password \
  --env POSTGRES_PASSWORD_FILE=/run/secrets/{name}-password --mount type=bind,src={path},dst=/var/lib/postgresql \
  --health-cmd "psql -U postgres -Atc \"SELECT count(*) / (current_setting('listen_addresses') <> '')::int FROM pg_class\"" \
  --health-interval 5s --health-start-period 60s \
  --no-resolve-image postgres:18 >/dev/null
until docker service ps {name} --format '{{{{.CurrentState}}}}' | grep -q ^Running; do sleep 0.2; done
"""


def seconds(work: Callable[[], None]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def by_hand(bed: Bed, number: int) -> float:
    name = "by-hand-{0}".format(number)
    path = "/mnt/cephfs/{0}".format(name)
    script = BY_HAND.format(name=name, path=path, password=secrets.token_hex(16))
    try:
        return seconds(lambda: bed.on("sw1", "sh", "-c", script, limit=300))
    finally:
        bed.on("sw1", "sh", "-c", "docker service rm {0}; sleep 15; docker secret rm {0}-password; rm -rf {1}".format(name, path))


def by_playbook(bed: Bed) -> Tuple[float, float]:
    """Until Swarm said healthy, as the task itself bears it, and until the playbook ended."""
    start = time.time()
    done = bed.play("provision_pool")
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])
    whole = time.time() - start
    task = bed.manager("docker", "service", "ps", "--quiet", "--filter", "desired-state=running", bed.servers()[-1]["name"]).strip()
    stamp = bed.manager("docker", "inspect", "--format", "{{.Status.Timestamp.Unix}}.{{.Status.Timestamp.Nanosecond}}", task).strip()
    whole_seconds, _point, nanoseconds = stamp.partition(".")
    return int(whole_seconds) + int(nanoseconds) / 1e9 - start, whole


def empty_play() -> float:
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", "localhost,", str(EMPTY)]
    return seconds(lambda: subprocess.run(command, cwd=str(ROOT), stdout=subprocess.DEVNULL, check=True))


def main() -> None:
    bed = Bed()
    for playbook in ("prepare", "inventory_db"):
        done = bed.play(playbook)
        if done.returncode:
            raise SystemExit(done.stdout[-3000:])
    times: Dict[str, List[float]] = {"empty": [], "hand": [], "healthy": [], "playbook": []}
    for number in range(ROUNDS):
        # In turn, so that what slows the machine slows all three.
        times["empty"].append(empty_play())
        times["hand"].append(by_hand(bed, number))
        healthy, whole = by_playbook(bed)
        times["healthy"].append(healthy)
        times["playbook"].append(whole)
        print(json.dumps({way: round(found[-1], 1) for way, found in times.items()}), file=sys.stderr, flush=True)
    medians = {way: statistics.median(found) for way, found in times.items()}
    ratios = {"to_" + way: (medians[way] - medians["empty"]) / medians["hand"] for way in ("healthy", "playbook")}
    PAGE.write_text(
        "# How long a Swarm server takes\n\n"
        "On a test bed of three nodes with CephFS in one machine with {cores} cores (`tests/swarm_bed`), where initdb is the largest part and "
        "Swarm looks at a server's health every 5 s. Medians of {rounds} rounds, taken in turn; made by `tests/bench/swarm.py`.\n\n"
        "| from the call | seconds | without an empty play, beside by hand |\n| --- | ---: | ---: |\n"
        "| an empty play | {empty:.1f} | |\n"
        "| by hand: directory, secret and `docker service create`, until Swarm says healthy | {hand:.1f} | |\n"
        "| `provision_pool.yml`, until Swarm says healthy | {healthy:.1f} | {to_healthy:.2f} |\n"
        "| `provision_pool.yml`, until its end | {playbook:.1f} | {to_playbook:.2f} |\n\n"
        "After healthy, the playbook has a certificate signed and served, logs in as a client, and opens the server to tenants; by hand that is not done.\n\n"
        "Aim: healthy within 1.3 times by hand plus the empty play. {aim}\n".format(
            cores=os.cpu_count(), rounds=ROUNDS, aim="Met." if ratios["to_healthy"] <= 1.3 else "**Missed.**", **medians, **ratios
        )
    )
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

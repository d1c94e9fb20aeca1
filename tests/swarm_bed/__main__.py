# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Docker Swarm of three nodes with a real CephFS, on one machine, for tests.

    python tests/swarm_bed check                    whether there can be one; installs the packages that are missing
    python tests/swarm_bed up [--managers 3]        make it, or complete what is there; with as many managers of the Swarm (1)
    python tests/swarm_bed down                     remove it; heals an interrupted `up`
    python tests/swarm_bed purge                    and what down keeps to make the next one quick: a gigabyte of unpacked images, the logs
    python tests/swarm_bed status
    python tests/swarm_bed cut|heal NODE NETWORK    take a node off the cluster or storage network, and put it back
    python tests/swarm_bed kill|start NODE          its power, so to say
    python tests/swarm_bed restart                  the power of all of them at once
    python tests/swarm_bed pause|unpause NODE       it stands still, and goes on as if nothing had been
    python tests/swarm_bed umount|mount NODE        its CephFS
    python tests/swarm_bed freeze|thaw NODE         the same, when it neither answers nor fails
    python tests/swarm_bed crash NODE               the same, when its program dies: what used it fails at once
    python tests/swarm_bed evict NODE               close its CephFS session from the cluster's side
    python tests/swarm_bed kill-mds|start-mds       the metadata server of CephFS

$SWARM_BED_DIR says where (/var/lib/postgres_pools/swarm-bed), $SWARM_BED_NUMBER which of several side by side (0). The images are cached in the
checkout's .cache/swarm-bed. Ends with 77 where there can be no bed. Python's standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, List

sys.dont_write_bytecode = True
import ceph
import faults
import image_cache
import inventory
import loaded
import machine
import nodes
import outer
from processes import BedError, mounts_below, run
from settings import BED, CACHE, LOGS, NODES, STORE

SKIPPED = 77
STARTED = time.monotonic()
TIMES: List[str] = []


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def step(name: str, *work: Callable[[], object]) -> None:
    start = time.monotonic()
    for one in work:
        one()
    TIMES.append("{0} {1:.1f}".format(name, time.monotonic() - start))


def summary(verb: str) -> str:
    return "swarm bed {0} in {1:.1f} s: {2}".format(verb, time.monotonic() - STARTED, ", ".join(TIMES))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One `up` or `down` of a bed at a time, and one at a time at the cache, which several beds may share."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        end = time.monotonic() + 600
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BedError("another run has held {0} for ten minutes".format(lock.name)) from None
                time.sleep(0.5)
        yield


def up(managers: int = 1) -> None:
    step("packages", machine.ensure)
    with alone(BED):
        LOGS.mkdir(exist_ok=True)
        STORE.mkdir(exist_ok=True)
        # A bed that runs keeps the images that it runs.
        if not nodes.all_run():
            with alone(CACHE):
                step("images", image_cache.ensure_cached)
            step("docker", outer.start, outer.load_node_image, outer.make_networks)
            step("loaded", loaded.ensure)
        step("nodes", lambda: nodes.side_by_side(nodes.start))
        step("ceph", lambda: ceph.start(managers))
        step("dockerds", lambda: nodes.side_by_side(nodes.wait_until_up))
        step("mounts", lambda: nodes.side_by_side(nodes.mount))
        step("swarm", lambda: nodes.join_swarm(managers))
        inventory.write()
    say(summary("up"))


def down() -> None:
    if not BED.exists():
        return
    with alone(BED):
        step("nodes", outer.abandon, nodes.remove)
        step("ceph", ceph.remove)
        step("docker", outer.stop)
        image_cache.clear_unfinished()
        for point in mounts_below(BED):
            run("umount", "--lazy", point, check=False, limit=10)
        for left in BED.iterdir():
            if left not in (STORE, LOGS, BED / "lock"):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    say(summary("down"))


def purge() -> None:
    down()
    shutil.rmtree(BED, ignore_errors=True)


def status() -> None:
    if not outer.answers():
        say("the bed is down")
        raise SystemExit(1)
    print(ceph.ceph("status", check=False))
    print(outer.docker("ps", "--all", "--format", "{{.Names}}\t{{.Status}}\t{{.Networks}}"))
    print(nodes.in_node(nodes.MANAGER.name, "docker", "node", "ls", check=False, limit=20))
    for node in NODES:
        print("{0}: CephFS is {1}".format(node.name, "mounted" if nodes.mounted(node) else "NOT mounted"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/swarm_bed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, function in (("check", machine.ensure), ("down", down), ("purge", purge), ("status", status)):
        verbs.add_parser(name).set_defaults(call=lambda _asked, function=function: function())
    made = verbs.add_parser("up")
    made.add_argument("--managers", type=int, choices=(1, len(NODES)), default=1)
    made.set_defaults(call=lambda asked: up(asked.managers))
    faults.add_to(verbs)
    asked = parser.parse_args()
    try:
        machine.ensure_root()
        asked.call(asked)
    except machine.UnavailableError as reason:
        say("SKIPPED: no swarm bed on this machine: {0}.".format(reason))
        raise SystemExit(SKIPPED) from None
    except KeyboardInterrupt:
        say("swarm bed: interrupted; `down` removes what is there, `up` goes on with it")
        raise SystemExit(130) from None
    except BedError as problem:
        say("swarm bed: {0}".format(problem))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

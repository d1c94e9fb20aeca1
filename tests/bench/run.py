# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the benchmarks and write docs/benchmarks.md.

    python tests/bench/run.py            everything, with the numbers that the page shows (about 15 minutes)
    python tests/bench/run.py --smoke    small numbers, in under a minute; writes nothing, shows only that all of it works
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

import allocate
import checkout
import page
import placement

PAGE = checkout.ROOT / "docs" / "benchmarks.md"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small numbers; docs/benchmarks.md stays as it is")
    smoke = parser.parse_args().smoke
    if os.getloadavg()[0] > 1 and not smoke:
        say("bench: this machine is busy (load {0:.1f}); figures taken now say little.".format(os.getloadavg()[0]))
    # Ended from outside, it still stops the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit("bench: ended by a signal."))
    placing = placement.Plan((20,), (1, 4), decisions=200, rounds=1) if smoke else placement.Plan()
    timing = allocate.Plan(rounds=1, many=2) if smoke else allocate.Plan()
    version, cells, contest = placement.measure(placing, say)
    timed = allocate.measure(timing, say)
    text = page.render(page.machine(version), cells, contest, timed, placing, timing)
    for collection_way in contest:
        if collection_way.way != "read_then_increment" and collection_way.over:
            raise SystemExit("bench: {0} placed {1} tenants where there was no room.".format(collection_way.way, collection_way.over))
    if smoke:
        say("bench: all of it works.")
    else:
        PAGE.write_text(text)
        say("bench: wrote docs/benchmarks.md")


if __name__ == "__main__":
    main()

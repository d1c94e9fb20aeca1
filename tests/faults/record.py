# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cases took, kept from run to run, and the page in docs/ that shows it."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from swarm_fixture import FOLDER

FILE = FOLDER / "faults.json"


def kept() -> Dict[str, Any]:
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def keep(case: str, seconds: Dict[str, float], limits: Dict[str, float], acknowledged: int, notes: List[str]) -> None:
    cases = kept()
    cases[case] = {"seconds": seconds, "limits": limits, "acknowledged": acknowledged, "notes": notes}
    FILE.write_text(json.dumps(cases, indent=2) + "\n")
    told = ", ".join("{0} {1:.1f} s".format(label, value) for label, value in seconds.items())
    print("\n{0}: {1}; {2} commits acknowledged, all there. {3}".format(case, told, acknowledged, "; ".join(notes)))


def keep_unguarded(together: float, outcome: str) -> None:
    cases = kept()
    cases["without the guard"] = {"together": together, "outcome": outcome}
    FILE.write_text(json.dumps(cases, indent=2) + "\n")
    print("\nwithout the guard: two wrote side by side for {0:.1f} s; {1}".format(together, outcome))

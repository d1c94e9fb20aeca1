# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that a server runs with against those that are wanted, whatever unit each is told in. Pure."""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

# PostgreSQL's own units, in bytes and in microseconds.
_BYTES = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_NUMBER = re.compile(r"^\s*([-+]?[0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*$")
_BASE = re.compile(r"^([0-9]*)([A-Za-z]+)$")
# Names that PostgreSQL takes for a value and tells as another.
_ALIASES = {"wal_compression": {"on": "pglz"}}
_TRUE, _FALSE = ("on", "true", "yes", "1"), ("off", "false", "no", "0")


class Running(NamedTuple):
    """A row of pg_settings."""

    value: str
    unit: Optional[str]
    kind: str


def differences(wanted: Mapping[str, str], running: Mapping[str, Running]) -> List[Tuple[str, str, str]]:
    """Name, wanted value and value found of each setting that differs; a setting the server does not know is found as ``""``."""
    told = []
    for name, value in sorted(wanted.items()):
        found = running.get(name)
        if found is None:
            told.append((name, value, ""))
        elif _canonical(_ALIASES.get(name, {}).get(value, value), found) != _canonical(found.value, found):
            told.append((name, value, found.value + (" x " + found.unit if found.unit else "")))
    return told


def _canonical(value: str, like: Running) -> str:
    if like.kind == "bool":
        lower = value.strip().lower()
        return "on" if lower in _TRUE else "off" if lower in _FALSE else lower
    if like.kind == "enum":
        return value.strip().lower()
    match = _NUMBER.match(value) if like.kind in ("integer", "real") else None
    if not match:
        return value
    number = float(match.group(1))
    # A number with no unit counts in the setting's own; below zero it is a word such as "no limit".
    if match.group(2) and like.unit and number >= 0:
        number *= _factor(match.group(2)) / _base(like.unit)
    return "{0:.6g}".format(number) if like.kind == "real" else str(round(number))


def _base(unit: str) -> float:
    match = _BASE.match(unit)
    return int(match.group(1) or 1) * _factor(match.group(2)) if match else 1


def _factor(unit: str) -> float:
    units: Dict[str, int] = dict(_BYTES, **_MICROSECONDS)
    return units.get(unit, 1)

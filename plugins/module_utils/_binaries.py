# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where PostgreSQL's programs are on this machine, and which version they are."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from typing import List, NamedTuple, Optional

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

VARIABLE = "POSTGRES_POOLS_BIN_DIR"
PROGRAMS = ("postgres", "initdb", "pg_ctl")
OLDEST = 15


class Binaries(NamedTuple):
    directory: str
    # As server_version_num has it: 150014 is 15.14.
    version: int

    def program(self, name: str) -> str:
        return os.path.join(self.directory, name)


def find(bin_dir: str = "", major: Optional[int] = None) -> Binaries:
    """The directory named, or by variable, or the newest installed, or on PATH; of that major version when one is given."""
    named = bin_dir or os.environ.get(VARIABLE, "")
    places = [named] if named else [place for place in _installed() if not _missing(place)]
    found = [_binaries(place) for place in places]
    if not found:
        raise PoolsError(
            "PostgreSQL's programs ({0}) were not found on this machine.".format(", ".join(PROGRAMS)),
            "Install PostgreSQL {0} or newer, or name the directory that holds them by bin_dir or by the environment "
            "variable {1}.".format(OLDEST, VARIABLE),
        )
    fitting = [one for one in found if major in (None, one.version // 10000)]
    if not fitting:
        raise PoolsError(
            "The data directory is of PostgreSQL {0}, but the programs in {1} are of {2}.".format(
                major, found[0].directory, found[0].version // 10000
            ),
            "Set bin_dir to the programs of PostgreSQL {0}; a data directory is not upgraded by starting it.".format(
                major
            ),
        )
    best = max(fitting, key=lambda one: one.version)
    if best.version // 10000 < OLDEST:
        raise PoolsError(
            "{0} holds PostgreSQL {1}; {2} is the oldest supported.".format(
                best.directory, best.version // 10000, OLDEST
            )
        )
    return best


def _installed() -> List[str]:
    places = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
    on_path = shutil.which("pg_ctl")
    # Debian's pg_ctl on PATH, where there is one, is a link into the real directory.
    return places or ([os.path.dirname(os.path.realpath(on_path))] if on_path else [])


def _missing(directory: str) -> List[str]:
    return [name for name in PROGRAMS if not os.access(os.path.join(directory, name), os.X_OK)]


def _binaries(directory: str) -> Binaries:
    missing = _missing(directory)
    if missing:
        raise PoolsError(
            "The directory {0} lacks PostgreSQL's {1}.".format(directory, ", ".join(missing)),
            "Name the directory that holds {0} by bin_dir or {1}.".format(", ".join(PROGRAMS), VARIABLE),
        )
    said = subprocess.run(
        [os.path.join(directory, "postgres"), "-V"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        check=False,
    ).stdout.decode("utf-8", "replace")
    match = re.search(r"PostgreSQL\) (\d+)(?:\.(\d+))?", said)
    if not match:
        raise PoolsError("{0}/postgres -V said '{1}', which names no version.".format(directory, said.strip()))
    return Binaries(directory, int(match.group(1)) * 10000 + int(match.group(2) or 0))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server keeps among the options of a column for itself, and a dump carries although no server takes it. Pure.

Seen with Debian's PostgreSQL 15.20: every column has ``pg_attver=NUMBER``, and pg_dump 18.6 writes it as ALTER COLUMN ... SET, which a
server then refuses as an unrecognized parameter.
"""

from __future__ import annotations

import re

# As pg_dump writes it with all identifiers quoted.
_SET = re.compile(rb'(ALTER COLUMN "(?:[^"]|"")+" )SET \(([^()]*\bpg_attver=\d+[^()]*)\);')
_OWN = b"pg_attver="


def without_own_options(archive: bytes) -> bytes:
    """*archive* with each such option taken out, at the same length: an archive says where everything in it begins."""
    return _SET.sub(_other, archive)


def _other(found: re.Match[bytes]) -> bytes:
    kept = [option for option in found.group(2).split(b", ") if not option.startswith(_OWN)]
    # A statement has to be left, and this one changes nothing on a column that was just made.
    instead = b"SET (" + b", ".join(kept) + b")" if kept else b"RESET (n_distinct)"
    said = found.group(1) + instead
    return said + b" " * (len(found.group(0)) - len(said) - 1) + b";"

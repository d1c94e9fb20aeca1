# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which failures of making a server may pass by themselves. Pure."""

from __future__ import annotations

import re

# What passes: the Docker API between two leaders or behind a busy socket, the network to it, a mount that is not there yet.
# Everything else is taken for permanent: to try it again would only hide its message for longer.
_TRANSIENT = re.compile(
    r"cannot be reached|connection (aborted|refused|reset|timed out)|temporary failure|read timed out|deadline exceeded"
    r"|code = (unavailable|deadlineexceeded|canceled)|swarm does not have a leader|update out of sequence"
    r"|server misbehaving|too many requests|context canceled|error while fetching server api version"
    r"|nothing is mounted at|hangs at|transport endpoint is not connected"
    r"|bind source path does not exist",
    re.IGNORECASE,
)


def is_transient(message: str) -> bool:
    """Whether *message*, the error of a step in the making of a server, is one that may be gone at the next try."""
    return bool(_TRANSIENT.search(message))

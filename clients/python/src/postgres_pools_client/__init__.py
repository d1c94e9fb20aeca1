# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a platform's services ask of `saasodoo.postgres_pools`, by AWX or by running the playbooks here: one interface, `PostgresPools`."""

from ._awx import AwxPools
from ._errors import JobFailed, PoolsError, ProvisioningFailed, Refused, TimedOut, Unavailable
from ._local import LocalPools
from ._pools import PostgresPools
from ._results import Connection, PlanChange, PoolStatus, Provisioning, Released, Server, Totals

__all__ = [
    "AwxPools",
    "Connection",
    "JobFailed",
    "LocalPools",
    "PlanChange",
    "PoolStatus",
    "PoolsError",
    "PostgresPools",
    "Provisioning",
    "ProvisioningFailed",
    "Refused",
    "Released",
    "Server",
    "TimedOut",
    "Totals",
    "Unavailable",
]

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that the collection's own code raises for what a user can mend."""

from __future__ import annotations


class PoolsError(Exception):
    """Something is wrong and the user can do something about it.

    :param problem: what was wrong, and where (a value, a server, an instance).
    :param remedy: what to do about it; a full sentence, or empty when the problem says it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem if not remedy else "{0} {1}".format(problem, remedy))

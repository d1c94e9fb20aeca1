# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, by what a caller can do about it."""

from __future__ import annotations

from typing import Optional


class PoolsError(Exception):
    """The base of all that this package raises."""


class Refused(PoolsError):
    """The question itself is wrong, or AWX does not let this token ask it: asking again gives the same answer.

    *status* is AWX's HTTP status, or None where nothing was sent.
    """

    def __init__(self, message: str, status: Optional[int] = None) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(PoolsError):
    """AWX could not be reached, or was not able to answer, in all of *attempts* tries. Ask again later."""

    def __init__(self, message: str, attempts: int, retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.retry_after = retry_after


class TimedOut(PoolsError):
    """There was no result within the time given. A job on AWX goes on (*job* is its number); asked again, the answer is what became of it."""

    def __init__(self, message: str, job: Optional[int] = None) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(PoolsError):
    """A playbook ran and failed: the message is its own, with what to do about it."""

    def __init__(self, message: str, playbook: str, job: Optional[int] = None) -> None:
        super().__init__(message)
        self.playbook = playbook
        self.job = job


class ProvisioningFailed(JobFailed):
    """A database or a server could not be given. What was begun is recorded, and the next call for the same instance goes on with it."""

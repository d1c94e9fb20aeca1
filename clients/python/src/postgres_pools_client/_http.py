# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON over HTTP, with what may be repeated repeated."""

from __future__ import annotations

import email.utils
import random
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import httpx

from ._errors import Refused, Unavailable

# Nothing was sent yet when these are raised, so that the request cannot have had an effect.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SHOWN = 500
_HINTS = {
    401: "the token is not valid, or no longer",
    403: "the token's user may not do this: it needs the role Execute on the job template",
    404: "there is no such thing at this URL, or the token's user may not see it",
}


class Api:
    def __init__(
        self,
        client: httpx.Client,
        pauses: Sequence[float] = (1, 2, 4),
        longest_pause: float = 60,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._pauses = tuple(pauses)
        self._longest_pause = longest_pause
        self._sleep = sleep
        self._jitter = jitter

    def get(self, path: str, **parameters: Any) -> Dict[str, Any]:
        return self.request("GET", path, params=parameters)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Optional[Mapping[str, Any]] = None,
        json: Optional[Mapping[str, Any]] = None,
        lost: Callable[[], Optional[Dict[str, Any]]] = lambda: None,
    ) -> Dict[str, Any]:
        """The answer to a request that AWX took.

        *lost* is asked before a request is repeated that may have had its effect although no answer came. If it finds the effect, that is the answer.
        """
        attempts = 0
        while True:
            attempts += 1
            asked_to_wait: Optional[float] = None
            try:
                response = self._client.request(method, path, params=params, json=json)
            except httpx.TransportError as error:
                may_have_worked = not isinstance(error, _NOT_SENT)
                problem = "{0}: {1}".format(type(error).__name__, error)
            else:
                if not _worth_repeating(response):
                    return _taken(response)
                may_have_worked = response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
                problem = "HTTP {0} {1}".format(response.status_code, _said(response))
                asked_to_wait = _retry_after(response)
            self._pause(method, path, attempts, problem, asked_to_wait)
            found = lost() if may_have_worked else None
            if found is not None:
                return found

    def _pause(self, method: str, path: str, attempts: int, problem: str, asked: Optional[float]) -> None:
        told = "AWX at {0} does not answer {1} {2}: {3}".format(self._client.base_url, method, path, problem)
        if attempts > len(self._pauses) or (asked or 0) > self._longest_pause:
            raise Unavailable("{0} ({1} attempts).".format(told, attempts), attempts, asked)
        # Many callers that were refused at the same moment must not come back at the same moment.
        pause = self._pauses[attempts - 1] * (1 + self._jitter() / 4)
        self._sleep(max(pause, asked or 0))


def _worth_repeating(response: httpx.Response) -> bool:
    return (
        response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
        or response.status_code == httpx.codes.TOO_MANY_REQUESTS
    )


def _taken(response: httpx.Response) -> Dict[str, Any]:
    status = response.status_code
    if response.is_success:
        return _object(response)
    if response.is_redirect:
        raise Refused("AWX redirects to {0}: give that URL.".format(response.headers.get("location", "?")), status)
    hint = _HINTS.get(status)
    raise Refused(
        "AWX refuses {0} {1} with HTTP {2}{3}: {4}".format(
            response.request.method,
            response.request.url.path,
            status,
            " ({0})".format(hint) if hint else "",
            _said(response),
        ),
        status,
    )


def _object(response: httpx.Response) -> Dict[str, Any]:
    if not response.content:
        return {}
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(
            "What answers at {0} is no AWX: its answer is no JSON object.".format(response.request.url),
            response.status_code,
        )
    return found


def _said(response: httpx.Response) -> str:
    """AWX's own words: {"detail": …} or, for a form, {"field": ["…"]}."""
    try:
        told = response.json()
    except ValueError:
        return response.text[:_SHOWN]
    if not isinstance(told, dict):
        return str(told)[:_SHOWN]
    lines: List[str] = []
    for name, value in told.items():
        words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        lines.append(words if name in ("detail", "error") else "{0}: {1}".format(name, words))
    return "; ".join(lines)[:_SHOWN]


def _retry_after(response: httpx.Response) -> Optional[float]:
    """In seconds; the header has either these or a date."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None

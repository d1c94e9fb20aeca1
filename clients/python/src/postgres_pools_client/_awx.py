# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks run by AWX: its job templates launched over its REST API."""

from __future__ import annotations

import contextlib
import json
import random
import re
import ssl
import time
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Union

import httpx

from . import _failure
from ._errors import JobFailed, PoolsError, Refused, TimedOut
from ._http import Api
from ._pools import PostgresPools

_AT_WORK = ("new", "pending", "waiting", "running")
_MANY = 200
# Events reach AWX's database a moment after the job's end.
_TRIES_FOR_EVENTS = 5
_LINES_OF_OUTPUT = 20
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class AwxPools(PostgresPools):
    """*token* is an OAuth2 token of a user with the role Execute on the job templates `<prefix><playbook>`, as the playbook `awx.yml` makes them.

    Requests that get no answer, HTTP 5xx or 429 are repeated after *pauses*, or after Retry-After where AWX says so and it is not over
    *longest_pause*. Other 4xx are not repeated. *request_timeout* is for one request, in seconds.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        prefix: str = "postgres-pools-",
        organization: Optional[str] = None,
        verify: Union[bool, str, ssl.SSLContext] = True,
        request_timeout: float = 30,
        poll_seconds: float = 2,
        pauses: Sequence[float] = (1, 2, 4),
        longest_pause: float = 60,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(sleep, clock)
        if not url.startswith(("https://", "http://")):
            raise Refused("AWX's URL begins with https://, or http:// within one machine: {0!r}.".format(url))
        self._url = url.rstrip("/")
        self._prefix = prefix
        self._organization = organization
        self._poll_seconds = poll_seconds
        self._client = httpx.Client(
            base_url=self._url + "/api/v2/",
            headers={"Authorization": "Bearer " + token, "Accept": "application/json"},
            verify=ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify,
            timeout=request_timeout,
        )
        self._api = Api(self._client, pauses, longest_pause, sleep, jitter)

    def __repr__(self) -> str:
        return "AwxPools({0!r}, prefix={1!r})".format(self._url, self._prefix)

    def close(self) -> None:
        self._client.close()

    def _run(self, playbook: str, variables: Mapping[str, Any], deadline: float) -> Dict[str, Any]:
        job = self._launch(self._template(playbook), _as_answers(variables))
        number = int(job["id"])
        while job["status"] in _AT_WORK:
            if self._clock() >= deadline:
                raise TimedOut(
                    "Job {0} of AWX ({1}) is {2} and goes on. Ask again later.".format(number, playbook, job["status"]),
                    number,
                )
            self._sleep(self._poll_seconds)
            job = self._api.get("jobs/{0}/".format(number))
        if job["status"] != "successful":
            raise JobFailed(self._why(job), playbook, number)
        artifacts = job.get("artifacts")
        if not isinstance(artifacts, dict) or not artifacts:
            raise JobFailed(
                "Job {0} of AWX told no result. Does its template run the playbook {1}?".format(number, playbook),
                playbook,
                number,
            )
        return artifacts

    def _template(self, playbook: str) -> int:
        name = self._prefix + playbook.replace("_", "-")
        asked = {"name": name}
        if self._organization:
            asked["organization__name"] = self._organization
        found = self._api.get("job_templates/", **asked)["results"]
        if not found:
            raise Refused(
                "AWX has no job template {0} that this token's user may see. The playbook awx.yml makes them.".format(
                    name
                )
            )
        if len(found) > 1:
            raise Refused("AWX has {0} job templates {1}: name the organization.".format(len(found), name))
        return int(found[0]["id"])

    def _launch(self, template: int, variables: Mapping[str, Any]) -> Dict[str, Any]:
        job = self._api.request(
            "POST",
            "job_templates/{0}/launch/".format(template),
            json={"extra_vars": variables},
            # A question about no instance changes nothing, and may be asked twice.
            lost=lambda: self._launched(template, variables) if "instance_id" in variables else None,
        )
        ignored = (job.get("ignored_fields") or {}).get("extra_vars")
        if ignored:
            # It would do something else than what was asked for.
            with contextlib.suppress(PoolsError):
                self._api.request("POST", "jobs/{0}/cancel/".format(job["id"]))
            names = ", ".join(sorted(ignored)) if isinstance(ignored, dict) else str(ignored)
            raise Refused(
                "The job template does not take {0}: add it to the survey, or prompt for variables on launch.".format(
                    names
                )
            )
        return job

    def _launched(self, template: int, variables: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
        """A job at work on the same question: that of the launch whose answer was lost, or as good as it.

        It may have more variables, since AWX adds the survey's defaults and the template's own.
        """
        path = "job_templates/{0}/jobs/".format(template)
        rows = self._api.get(path, status__in=",".join(_AT_WORK), order_by="-id", page_size=_MANY)["results"]
        for row in rows:
            # Not every AWX shows the variables in a list.
            job = row if "extra_vars" in row else self._api.get("jobs/{0}/".format(row["id"]))
            if variables.items() <= _variables_of(job).items():
                return job
        return None

    def _why(self, job: Mapping[str, Any]) -> str:
        number = job["id"]
        told = "Job {0} of AWX ended as {1}".format(number, job["status"])
        if job["status"] == "canceled":
            return "{0}. {1}".format(told, job.get("job_explanation") or "").strip()
        for _try in range(_TRIES_FOR_EVENTS):
            if job.get("event_processing_finished", True):
                break
            self._sleep(1)
            job = self._api.get("jobs/{0}/".format(number))
        events = self._api.get(
            "jobs/{0}/job_events/".format(number),
            event__in=",".join(_failure.FAILURES),
            order_by="counter",
            page_size=_MANY,
        )["results"]
        return (
            _failure.message(events)
            or job.get("job_explanation")
            or job.get("result_traceback")
            or self._end_of_output(number)
            or told
        )

    def _end_of_output(self, number: int) -> str:
        told = self._api.get("jobs/{0}/stdout/".format(number), format="json", content_format="ansi")
        lines = _COLOUR.sub("", str(told.get("content") or "")).splitlines()
        return "\n".join(lines[-_LINES_OF_OUTPUT:])


def _as_answers(variables: Mapping[str, Any]) -> Dict[str, Any]:
    """As a survey takes them: it has no question whose answer is a boolean, and the playbooks read these words."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in variables.items()}


def _variables_of(job: Mapping[str, Any]) -> Dict[str, Any]:
    try:
        found = json.loads(job.get("extra_vars") or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP server that behaves as AWX's job API does, and misbehaves when told to. It listens on loopback, and every request is counted."""

from __future__ import annotations

import collections
import contextlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from typing import Any, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

TOKEN = "a-token-that-nothing-may-show"
LIFE = ("pending", "waiting", "running")


class Request(NamedTuple):
    method: str
    path: str
    query: Dict[str, str]
    body: Any


class Fault(NamedTuple):
    """What happens to the next request whose "METHOD path" matches *to*, instead of its answer.

    *kind*: `status` answers with that status, `drop` closes the connection, `late` answers after *seconds*. With *after* the request had its effect before.
    """

    to: str
    kind: str
    status: int = 0
    headers: Mapping[str, str] = {}
    seconds: float = 0
    after: bool = False
    body: Any = None


class Ending(NamedTuple):
    """How a job ends."""

    status: str = "successful"
    artifacts: Mapping[str, Any] = {}
    events: Sequence[Mapping[str, Any]] = ()
    explanation: str = ""
    traceback: str = ""
    output: str = ""


class Awx:
    def __init__(self) -> None:
        self.requests: List[Request] = []
        self.faults: Deque[Fault] = collections.deque()
        self.templates: Dict[int, Dict[str, Any]] = {}
        self.endings: Dict[str, Deque[Ending]] = collections.defaultdict(collections.deque)
        self.jobs: Dict[int, Dict[str, Any]] = {}
        self.token = TOKEN
        self.forbidden = False
        self.stuck = False
        # Newer releases show no variables in a list of jobs.
        self.lists_variables = True
        self.lock = threading.RLock()
        self.url = ""

    # --- what a test says

    def template(
        self, playbook: str, *endings: Ending, takes: Optional[Sequence[str]] = None, needs: Sequence[str] = ()
    ) -> None:
        """A job template whose jobs end so, one after the other. *takes* are the questions of its survey, where it does not prompt for variables."""
        number = 10 + len(self.templates)
        name = "postgres-pools-" + playbook.replace("_", "-")
        self.templates[number] = {"id": number, "type": "job_template", "name": name, "takes": takes, "needs": needs}
        self.endings[name].extend(endings)

    def fault(self, to: str, kind: str, times: int = 1, **more: Any) -> None:
        self.faults.extend([Fault(to, kind, **more)] * times)

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for each in self.requests if each.method == method and re.search(pattern, each.path))

    @property
    def launches(self) -> List[Request]:
        return [each for each in self.requests if each.method == "POST" and each.path.endswith("/launch/")]

    # --- what AWX does

    def answer(self, request: Request, token: str) -> Tuple[int, Any]:
        with self.lock:
            if token != "Bearer " + self.token:
                return 401, {
                    "detail": "Authentication credentials were not provided. To establish a login session, visit /api/login/."
                }
            path = request.path
            if request.method == "GET" and path == "/api/v2/job_templates/":
                return 200, self.page([each for each in self.templates.values() if self.wanted(each, request.query)])
            found = re.fullmatch(r"/api/v2/job_templates/(\d+)/(launch|jobs)/", path)
            if found and int(found.group(1)) in self.templates:
                template = self.templates[int(found.group(1))]
                if request.method == "POST" and found.group(2) == "launch":
                    return self.launch(template, request.body)
                return 200, self.jobs_of(template, request.query)
            found = re.fullmatch(r"/api/v2/jobs/(\d+)/(?:(job_events|stdout|cancel)/)?", path)
            if found and int(found.group(1)) in self.jobs:
                return self.job(self.jobs[int(found.group(1))], found.group(2), request)
            return 404, {"detail": "The requested resource could not be found."}

    @staticmethod
    def wanted(template: Mapping[str, Any], query: Mapping[str, str]) -> bool:
        return template["name"] == query.get("name") and query.get(
            "organization__name", template.get("organization")
        ) == template.get("organization")

    @staticmethod
    def page(rows: Sequence[Any]) -> Dict[str, Any]:
        return {"count": len(rows), "next": None, "previous": None, "results": list(rows)}

    def launch(self, template: Mapping[str, Any], body: Any) -> Tuple[int, Any]:
        if self.forbidden:
            return 403, {"detail": "You do not have permission to perform this action."}
        assert set(body) == {"extra_vars"}, body
        given = dict(body["extra_vars"])
        # A survey's answers are texts and numbers.
        assert not [value for value in given.values() if isinstance(value, bool)], given
        missing = ["'{0}' value missing".format(name) for name in template["needs"] if not given.get(name)]
        tier = given.get("plan_tier", "standard")
        if tier not in ("free", "standard", "premium"):
            missing.append(
                "Value {0} for 'plan_tier' expected to be one of ['free', 'standard', 'premium'].".format(tier)
            )
        if missing:
            return 400, {"variables_needed_to_start": missing}
        takes = template["takes"]
        ignored = {name: value for name, value in given.items() if takes is not None and name not in takes}
        number = 100 + len(self.jobs)
        # As AWX does, with the template's own variables beside those that were given.
        variables = dict(
            {"postgres_pools_client": "localhost"},
            **{name: value for name, value in given.items() if name not in ignored},
        )
        endings = self.endings[template["name"]]
        ending = endings.popleft() if len(endings) > 1 else endings[0]
        job = {
            "id": number,
            "type": "job",
            "name": template["name"],
            "status": "pending",
            "failed": False,
            "extra_vars": json.dumps(variables),
            "artifacts": {},
            "job_explanation": "",
            "result_traceback": "",
            "event_processing_finished": False,
        }
        self.jobs[number] = dict(job, template=template["id"], left=list(LIFE[1:]), ending=ending)
        return 201, dict(job, job=number, ignored_fields={"extra_vars": ignored} if ignored else {})

    def jobs_of(self, template: Mapping[str, Any], query: Mapping[str, str]) -> Dict[str, Any]:
        assert query["order_by"] == "-id"
        rows = [
            self.shown(job)
            for number, job in sorted(self.jobs.items(), reverse=True)
            if job["template"] == template["id"] and job["status"] in query["status__in"].split(",")
        ]
        if not self.lists_variables:
            for row in rows:
                del row["extra_vars"]
        return self.page(rows)

    @staticmethod
    def shown(job: Mapping[str, Any]) -> Dict[str, Any]:
        return {name: value for name, value in job.items() if name not in ("template", "left", "ending")}

    def job(self, job: Dict[str, Any], part: Optional[str], request: Request) -> Tuple[int, Any]:
        ending: Ending = job["ending"]
        if part == "cancel":
            job.update(status="canceled", left=[])
            return 202, None
        if part == "job_events":
            kinds = request.query["event__in"].split(",")
            return 200, self.page([each for each in ending.events if each["event"] in kinds])
        if part == "stdout":
            assert request.query == {"format": "json", "content_format": "ansi"}
            return 200, {"range": {"start": 0, "end": 1, "absolute_end": 1}, "content": ending.output}
        self.step(job, ending)
        return 200, self.shown(job)

    def step(self, job: Dict[str, Any], ending: Ending) -> None:
        """Each look finds the job one state further; the events arrive one look after the end."""
        if job["status"] not in LIFE:
            job["event_processing_finished"] = True
        elif job["left"]:
            job["status"] = job["left"].pop(0)
        elif not self.stuck:
            job.update(
                status=ending.status,
                failed=ending.status != "successful",
                artifacts=dict(ending.artifacts),
                job_explanation=ending.explanation,
                result_traceback=ending.traceback,
            )


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Forty clients may come at the same moment.
    request_queue_size = 128
    awx: Awx

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise each answer waits 40 ms for its second half.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def serve(self) -> None:
        awx = self.server.awx
        url = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, url.path, dict(urllib.parse.parse_qsl(url.query)), body)
        with awx.lock:
            awx.requests.append(request)
            fault = (
                awx.faults[0]
                if awx.faults and re.fullmatch(awx.faults[0].to, "{0} {1}".format(self.command, url.path))
                else None
            )
            if fault:
                awx.faults.popleft()
        if fault is None:
            self.send(*awx.answer(request, self.headers.get("authorization", "")))
            return
        if fault.after:
            assert awx.answer(request, self.headers.get("authorization", ""))[0] < 300
        if fault.kind == "status":
            self.send(fault.status, fault.body if fault.body is not None else {"detail": "said so"}, fault.headers)
        elif fault.kind == "drop":
            self.close_connection = True
            self.connection.close()
        else:
            time.sleep(fault.seconds)
            self.close_connection = True

    def send(self, status: int, body: Any, headers: Mapping[str, str] = {}) -> None:
        content = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def serving() -> Iterator[Awx]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.awx = awx = Awx()
    awx.url = "http://127.0.0.1:{0}".format(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield awx
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

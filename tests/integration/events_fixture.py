# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real ansible-rulebook that listens on loopback, one who sends it events, and a fake of the part of AWX's API that it launches jobs by."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, NoReturn, Optional

import pytest
from environment import ROOT, Environment, kill_tree

RULEBOOKS = ROOT / "extensions" / "eda" / "rulebooks"
# 32 characters at least, and without a blank: that would end it in the header.
SECRET = "a-secret-of-more-than-32-characters-made-for-the-tests"


class Tools(NamedTuple):
    rulebook: str
    java_home: str


def tools() -> Tools:
    """ansible-rulebook and a Java, fetched where they are missing."""
    java = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "find-java")], capture_output=True, text=True, check=False
    )
    if java.returncode:
        # Among many dots a skipped test is not seen; a warning is in the summary.
        warnings.warn("NOT TESTED: {0}".format(java.stderr.strip()), stacklevel=2)
        pytest.skip(java.stderr.strip())
    found = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "find-rulebook")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return Tools(found.stdout.strip(), java.stdout.strip())


class Listener:
    """One ansible-rulebook; `rulebook` is a name in the collection or a file."""

    def __init__(
        self, rulebook: str, variables: Mapping[str, Any], env: Mapping[str, str], folder: Path, inventory: str
    ) -> None:
        found = tools()
        self.port = free_port()
        self.log = folder / "{0}.log".format(uuid.uuid4().hex)
        told = folder / "{0}.json".format(uuid.uuid4().hex)
        told.touch(mode=0o600)
        told.write_text(json.dumps(dict(variables, postgres_pools_events_port=self.port)))
        path = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        with open(str(self.log), "wb") as log:
            self.process = subprocess.Popen(
                [found.rulebook, "--rulebook", rulebook, "--inventory", inventory, "--vars", str(told)],
                cwd=str(ROOT),
                # What an interrupted run leaves goes with the test.
                env=dict(env, PATH=path, JAVA_HOME=found.java_home, TMPDIR=str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def fail(self, why: str) -> NoReturn:
        raise AssertionError("{0}; the log of ansible-rulebook:\n{1}".format(why, self.output()))

    def ready(self) -> Listener:
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.1)
        self.fail("it does not listen")

    def until(self, what: str, reached: Callable[[], Any], seconds: float = 240) -> Any:
        """What `reached` says as soon as it says something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = reached()
            if found:
                return found
            time.sleep(0.2)
        self.fail("within {0} s there was no {1}".format(seconds, what))

    def recaps(self) -> List[Dict[str, int]]:
        """What the playbooks that have ended did, in the order of their ends."""
        lines = re.findall(r"^\S+\s+: (ok=\d+\s.*)$", self.output(), re.M)
        return [{name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)} for line in lines]

    def refusals(self) -> List[str]:
        return re.findall(r"^Refused .*$", self.output(), re.M)

    def stop(self) -> int:
        """As systemd does it; what does not end by that is killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(10)
            kill_tree(self.process.pid)
        return self.process.wait()

    def send(
        self, event: Any, headers: Optional[Mapping[str, str]] = None, tls: Optional[ssl.SSLContext] = None
    ) -> int:
        """POST it and say how that was answered; bytes go as they are, everything else as JSON."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        url = "{0}://127.0.0.1:{1}/events".format("https" if tls else "http", self.port)
        chosen = {"Authorization": "Bearer " + SECRET} if headers is None else headers
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", **chosen})
        try:
            with urllib.request.urlopen(request, timeout=30, context=tls) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)


@contextlib.contextmanager
def listening(
    ground: Environment,
    rulebook: str,
    variables: Optional[Mapping[str, Any]] = None,
    more_env: Optional[Mapping[str, str]] = None,
) -> Iterator[Listener]:
    said = {"postgres_pools_events_token": SECRET} if variables is None else variables
    made = Listener(rulebook, said, dict(ground.base, **(more_env or {})), ground.temp, "inventories/embedded")
    try:
        yield made
    finally:
        made.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FakeAwx:
    """Knows job templates by name, takes launches down, and says of every job what is in `status`."""

    def __init__(self, *templates: str) -> None:
        self.templates = list(templates)
        self.launched: List[Dict[str, Any]] = []
        self.status = "running"
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, fake.told(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = int(self.path.split("/")[4])
                fake.launched.append(
                    dict(body, template=fake.templates[number - 1], authorization=self.headers["Authorization"])
                )
                self.answer(201, {"url": "/api/v2/jobs/{0}/".format(len(fake.launched))})

            def answer(self, status: int, told: Any) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(told).encode())

            def log_message(self, *_unused: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:{0}".format(self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, path: str) -> Dict[str, Any]:
        if "/config/" in path:
            return {"version": "24.6.1"}
        if "/jobs/" in path:
            results = [
                {"id": number + 1, "status": self.status, "created": "2027-01-01T00:00:00Z", "artifacts": {}}
                for number in range(len(self.launched))
            ]
        else:
            results = [self.template(number + 1, name) for number, name in enumerate(self.templates)]
        return {"count": len(results), "next": None, "results": results}

    @staticmethod
    def template(number: int, name: str) -> Dict[str, Any]:
        asked = {
            "ask_{0}_on_launch".format(what): what == "variables"
            for what in ("limit", "labels", "inventory", "variables")
        }
        return {
            "id": number,
            "type": "job_template",
            "name": name,
            "related": {"launch": "/api/v2/job_templates/{0}/launch/".format(number)},
            "summary_fields": {"organization": {"name": "PostgreSQL pools"}},
            **asked,
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

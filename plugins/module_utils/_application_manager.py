# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The docker command of a Swarm's manager, as far as an application's service needs it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ._errors import PoolsError
from ._swarm_task import inspected

# The arguments and what to write to standard input; the exit code, standard output and standard error.
Run = Callable[[List[str], Optional[str]], Tuple[int, str, str]]


class Manager:
    def __init__(self, run: Run) -> None:
        self._run = run

    def _docker(self, *words: str, data: Optional[str] = None) -> str:
        code, out, err = self._run(list(words), data)
        if code:
            raise PoolsError("docker {0}: {1}".format(" ".join(words[:2]), " ".join(err.split())[-500:]))
        return out

    def service(self, name: str) -> Optional[Dict[str, Any]]:
        code, out, err = self._run(["service", "inspect", name], None)
        found = inspected(code, out, err)
        if found is None:
            raise PoolsError("docker service inspect: {0}".format(" ".join(err.split())[-500:]))
        # Docker takes the beginning of an id for a name too.
        return next((one for one in found if one["Spec"]["Name"] == name), None)

    def update(self, name: str, words: Sequence[str]) -> None:
        for left in (2, 1, 0):
            code, _out, err = self._run(["service", "update", "--detach", "--quiet", *words, name], None)
            if not code:
                return
            # Swarm itself writes to a service whose update goes on.
            if "out of sequence" not in err or not left:
                raise PoolsError("docker service update: {0}".format(" ".join(err.split())[-500:]))
            time.sleep(0.5)

    def tasks(self, service: str) -> List[Dict[str, Any]]:
        ids = self._docker("service", "ps", "--quiet", "--no-trunc", service).split()
        if not ids:
            return []
        code, out, err = self._run(["inspect", "--type", "task", *ids], None)
        found = inspected(code, out, err)
        if found is None:
            raise PoolsError("docker inspect: {0}".format(" ".join(err.split())[-500:]))
        return found

    def nodes(self) -> Dict[str, Dict[str, str]]:
        lines = [line.split(" ") for line in self._docker("node", "ls", "--format", "{{ .ID }} {{ .Hostname }} {{ .Status }}").splitlines()]
        return {words[0]: {"name": words[1], "status": words[2].lower()} for words in lines}

    def log(self, name: str, since: str, lines: int) -> List[str]:
        """What its tasks said last; nothing where it cannot be read, since it only adds to an error."""
        if not lines:
            return []
        code, out, err = self._run(["service", "logs", "--raw", "--since", since, "--tail", str(lines), name], None)
        told = (out + err).encode("utf-8", "replace").decode()
        return [line for line in told.splitlines() if line.strip()][-lines:] if not code else []

    def content(self, config: str) -> str:
        data = json.loads(self._docker("config", "inspect", config))[0]["Spec"].get("Data") or ""
        return base64.b64decode(data).decode("utf-8", "surrogateescape")

    def labels(self, kind: str, name: str) -> Dict[str, str]:
        return dict(json.loads(self._docker(kind, "inspect", name))[0]["Spec"].get("Labels") or {})

    def create(self, kind: str, name: str, content: str, labels: Mapping[str, str]) -> None:
        """By standard input: an argument is read by everybody on the machine."""
        if name in self.named(kind, "name=" + name):
            return
        words = [word for key, value in labels.items() for word in ("--label", "{0}={1}".format(key, value))]
        self._docker(kind, "create", *words, name, "-", data=content)

    def named(self, kind: str, matching: str) -> List[str]:
        return self._docker(kind, "ls", "--filter", matching, "--format", "{{ .Name }}").split()

    def remove(self, kind: str, name: str) -> bool:
        """Whether it is gone; Docker keeps what another service uses."""
        code, _out, err = self._run([kind, "rm", name], None)
        if code and "in use" not in err and "no such" not in err.lower() and "not found" not in err.lower():
            raise PoolsError("docker {0} rm: {1}".format(kind, " ".join(err.split())[-500:]))
        return not code

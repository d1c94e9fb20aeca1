# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a Swarm, by the Docker API of a manager; with nothing but Python's standard library, since a manager need not have more."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Dict, List, Mapping, NamedTuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

SECONDS = 10


class Node(NamedTuple):
    id: str
    hostname: str
    # ready, down, unknown or disconnected: https://docs.docker.com/reference/api/engine/version/v1.40/#tag/Node
    state: str
    labels: Dict[str, str]
    version: int
    spec: Dict[str, Any]


class Manager:
    """A manager, asked by its socket. One without the majority of the managers answers with an error."""

    def __init__(self, path: str = "/var/run/docker.sock") -> None:
        self._path = path

    def nodes(self) -> List[Node]:
        return parse_nodes(self._ask("GET", "/nodes"))

    def label(self, node: Node, labels: Mapping[str, str]) -> None:
        """Give the node these labels and no others.

        :raises PoolsError: among others, if somebody has changed the node since it was read.
        """
        self._ask("POST", "/nodes/{0}/update?version={1}".format(node.id, node.version), dict(node.spec, Labels=dict(labels)))

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = _Connection(self._path)
        try:
            headers = {"Host": "docker", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise PoolsError("Docker does not answer at {0}: {1}.".format(self._path, error), "Is dockerd running?") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise PoolsError("Docker refuses {0} {1}: {2}.".format(method, path.partition("?")[0], _message(text)))
        return json.loads(text) if text.strip() else None


def parse_nodes(entries: List[Mapping[str, Any]]) -> List[Node]:
    return [
        Node(
            id=entry["ID"],
            hostname=entry["Description"]["Hostname"],
            state=entry["Status"]["State"],
            labels=dict(entry["Spec"].get("Labels") or {}),
            version=entry["Version"]["Index"],
            spec=dict(entry["Spec"]),
        )
        for entry in entries
        # One that was never there has no description yet.
        if entry.get("Description", {}).get("Hostname")
    ]


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)

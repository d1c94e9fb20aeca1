#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_service_wait
short_description: Wait for the one task of a Swarm service
version_added: 0.9.0
description:
  - Looks at a service with one replica until its task is running and healthy, until what can be said of it changes, or until O(timeout).
  - A caller that shows RV(words) between its calls shows the progress.
  - Fails when tasks end with the same error time and again, with the task's own error, its node, the cause where it is known,
    and the last lines of the service's log.
  - Runs on a manager of the Swarm, with its C(docker) command.
attributes:
  check_mode:
    description: It only looks.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
options:
  name:
    description: The service's name.
    type: str
    required: true
  seen:
    description: The RV(words) of the call before; it returns as soon as there are others.
    type: str
    default: ""
  final:
    description: Fail, instead of returning, when the service is not ready at the end of O(timeout).
    type: bool
    default: false
  timeout:
    description: Seconds to look.
    type: int
    default: 10
  log_lines:
    description: Lines of the service's log that an error shows.
    type: int
    default: 10
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Look whether the service is there
  saasodoo.postgres_pools.swarm_service_wait:
    name: postgres-pool-1
    timeout: 30
  delegate_to: "{{ groups['swarm_managers'][0] }}"
"""

RETURN = r"""
ready:
  description: Whether the task runs and its health check is content, or with no replicas, whether none is left.
  returned: success
  type: bool
  sample: true
words:
  description: What it does now.
  returned: success
  type: str
  sample: "preparing on node sw2"
node:
  description: Name of the node that the task is on.
  returned: success
  type: str
  sample: sw2
service_id:
  description: The service's id.
  returned: success
  type: str
  sample: 2m7vvn0e0qj3bpzqjzcc1qg8z
"""

import json
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _swarm_task
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


class Manager:
    """The docker command of a manager."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._docker = module.get_bin_path("docker", required=True)

    def run(self, *arguments: str) -> str:
        code, out, err = self._module.run_command([self._docker, *arguments])
        if code:
            raise PoolsError("docker {0}: {1}".format(" ".join(arguments[:2]), " ".join(err.split())[-500:]))
        return out

    def look(self, name: str) -> tuple:
        service = json.loads(self.run("service", "inspect", name))[0]
        ids = self.run("service", "ps", "--quiet", "--no-trunc", name).split()
        return service["ID"], _swarm_task.judge(service, self.tasks(ids), time.time())

    def tasks(self, ids: list) -> list:
        if not ids:
            return []
        code, out, err = self._module.run_command([self._docker, "inspect", "--type", "task", *ids])
        found = _swarm_task.inspected(code, out, err)
        if found is None:
            raise PoolsError("docker inspect: {0}".format(" ".join(err.split())[-500:]))
        return found

    def node(self, node_id: str) -> str:
        return self.run("node", "inspect", "--format", "{{ .Description.Hostname }}", node_id).strip() if node_id else ""

    def log(self, name: str, lines: int) -> list:
        code, out, err = self._module.run_command([self._docker, "service", "logs", "--raw", "--tail", str(lines), name])
        return [line for line in (out + err).splitlines() if line.strip()][-lines:] if not code else []


def wait(module: AnsibleModule) -> dict:
    params, manager = module.params, Manager(module)
    deadline = time.monotonic() + params["timeout"]
    while True:
        service_id, verdict = manager.look(params["name"])
        node = manager.node(verdict.node)
        words = verdict.words + (" on node {0}".format(node) if node else "")
        late = time.monotonic() >= deadline
        ended = verdict.error and "non-zero exit" in verdict.error
        if ended and _swarm_task.is_full(manager.log(params["name"], params["log_lines"])):
            raise _failure(manager, params, verdict, node)
        if verdict.state == "failed" or (late and params["final"] and verdict.state != "ready"):
            raise _failure(manager, params, verdict, node)
        if verdict.state == "ready" or words != params["seen"] or late:
            return {"ready": verdict.state == "ready", "words": words, "node": node, "service_id": service_id}
        time.sleep(0.5)


def _failure(manager: Manager, params: dict, verdict: _swarm_task.Verdict, node: str) -> PoolsError:
    log = manager.log(params["name"], params["log_lines"])
    known = _swarm_task.explain(verdict.error, log)
    told = "The service {0} does not come up{1}: {2}.".format(
        params["name"], " on node {0}".format(node) if node else "", verdict.words.rstrip(".")
    )
    if known:
        told += " " + known[0]
    if log:
        told += " The last lines of its log: {0}".format(" | ".join(log))
    return PoolsError(told, known[1] if known else "")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "seen": {"type": "str", "default": ""},
            "final": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 10},
            "log_lines": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **wait(module))
    except PoolsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

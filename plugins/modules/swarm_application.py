#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_application
short_description: Stop a tenant's application, give it another connection, start it
version_added: 0.9.0
description:
  - For an application that is a replicated Swarm service. Runs on a manager of the Swarm, with its C(docker) command.
  - The connection is put in as variables, as options of an INI file that the service has as a Swarm config, or as a whole secret. Configs and secrets
    cannot change, so others are made, named after what they hold, and the service gets them at the same place.
  - What a later call must know, the replicas and the former connection, is in labels of the service, written by the one update that makes the change.
    So a run that was killed is completed by the next one.
  - A service without replicas that was not stopped by this module stays so, with a warning.
  - What deploys the service, such as a stack's file, must be told of the new connection too, or its next deployment puts the old one in.
attributes:
  check_mode:
    description: Says what would change. Nothing is made, and nothing waited for.
    support: full
  diff_mode:
    description: Shows replicas, variables, options and the names of configs and secrets, never what a secret holds.
    support: full
options:
  service:
    description: The service's name.
    type: str
    required: true
  state:
    description:
      - V(stopped) takes its replicas away, remembers how many, and waits until no task can run any more. A task on a node that is down counts as running.
      - V(started) puts O(connection) in, gives the replicas back and waits until all run, with a health check until it is content. When they do not, the former
        connection is put back, the service is stopped as by V(stopped), and the module fails.
      - V(restored) puts the former connection back where V(started) put another one in than O(connection), gives the replicas back and waits.
      - V(settled) forgets the former connection.
      - V(restored) and V(settled) remove the configs and secrets that this module made and that the service neither has nor remembers.
    type: str
    choices: [stopped, started, restored, settled]
    required: true
  connection:
    description:
      - The connection that the application is to have. Required when O(state=started).
      - With O(state=restored) the one of where the tenant is to stay, so that after a move that was settled long ago nothing is put back.
    type: dict
    suboptions:
      host:
        description: Name or address of the server.
        type: str
      port:
        description: Its TCP port.
        type: int
      database:
        description: Name of the database.
        type: str
      user:
        description: Name of the role.
        type: str
      sslmode:
        description: As libpq's C(sslmode).
        type: str
  env:
    description: For each variable the part of the connection that it holds, one of C(host), C(port), C(database), C(user), C(sslmode).
    type: dict
    default: {}
  config:
    description: INI files that the service has as Swarm configs, and options in them.
    type: list
    elements: dict
    default: []
    suboptions:
      target:
        description: Where the file is in the container.
        type: str
        required: true
      section:
        description: The section, which must be there.
        type: str
        default: options
      keys:
        description: For each option of the section the part of the connection that it holds.
        type: dict
        required: true
  secrets:
    description: Secrets of the service, and all that each is to hold.
    type: list
    elements: dict
    default: []
    suboptions:
      target:
        description: Where it is in the container, below C(/run/secrets) where it is no absolute path.
        type: str
        required: true
      content:
        description: Its content, as M(saasodoo.postgres_pools.application_secret) gives it. Needed only when O(state=started).
        type: str
        default: ""
  healthy_timeout:
    description: Seconds to wait until it is up.
    type: int
    default: 120
  stable_seconds:
    description: Seconds for which the same tasks must run.
    type: int
    default: 5
  stop_timeout:
    description: Seconds to wait until no task is left.
    type: int
    default: 120
  log_lines:
    description: Lines of the service's log that an error shows.
    type: int
    default: 20
seealso:
  - module: saasodoo.postgres_pools.application_file
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Stop it before its database is copied
  saasodoo.postgres_pools.swarm_application:
    service: odoo-acme
    state: stopped
  delegate_to: "{{ groups['swarm_managers'][0] }}"

- name: Start it where its database is now
  saasodoo.postgres_pools.swarm_application:
    service: odoo-acme
    state: started
    connection:
      host: postgres-dedicated-0b6c5c1e
      port: 5432
    env:
      HOST: host
    config:
      - target: /etc/odoo/odoo.conf
        keys:
          db_host: host
          db_port: port
  delegate_to: "{{ groups['swarm_managers'][0] }}"
"""

RETURN = r"""
replicas:
  description: How many replicas the service is to have now.
  returned: success
  type: int
  sample: 2
words:
  description: What was seen last while it was waited for.
  returned: success
  type: str
  sample: running
removed:
  description: Configs and secrets that were removed.
  returned: success
  type: list
  elements: str
  sample: [config odoo-conf-1f0c2ab79d3e]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_connection import (
    config_spec,
    connection_spec,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_manager import Manager
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._application_swarm import Application
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def runner(module: AnsibleModule):
    docker, limit = module.get_bin_path("docker", required=True), module.get_bin_path("timeout")

    def run(words, data):
        # The log of a node that is gone may never end.
        limited = [limit, "15"] if limit and words[:2] == ["service", "logs"] else []
        return module.run_command([*limited, docker, *words], data=data, binary_data=True, encoding="utf-8")

    return run


def main() -> None:
    target = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "service": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["stopped", "started", "restored", "settled"]},
            "connection": {"type": "dict", "options": connection_spec()},
            "env": {"type": "dict", "default": {}},
            "config": {"type": "list", "elements": "dict", "default": [], "options": {"target": target, **config_spec()}},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {"target": target, "content": {"type": "str", "default": "", "no_log": True}},
            },
            "healthy_timeout": {"type": "int", "default": 120},
            "stable_seconds": {"type": "int", "default": 5},
            "stop_timeout": {"type": "int", "default": 120},
            "log_lines": {"type": "int", "default": 20},
        },
        required_if=[("state", "started", ["connection"])],
        supports_check_mode=True,
    )
    try:
        result = Application(Manager(runner(module)), module.params, module.check_mode).bring()
    except PoolsError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

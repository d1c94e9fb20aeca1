# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: servers
short_description: The PostgreSQL servers of the inventory database as hosts
version_added: 0.9.0
description:
  - Each server is a host in the groups C(postgres_pools), C(postgres_pools_TYPE) and C(postgres_pools_STATUS), so a play works on many
    servers side by side with Ansible's forks.
  - The file is called C(*.postgres_pools.yml) or C(*.postgres_pools.yaml).
  - Its options may be templates, with C(inventory_dir), the file's directory, and extra variables. Those of O(client) are resolved for each host.
  - A host carries its row as C(postgres_pools_server); passwords are not in it. SQL runs on a client host, so the connection is O(client).
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [saasodoo.postgres_pools.servers]
  client:
    description: Variables that each host gets, such as how Ansible reaches the client host.
    type: dict
    default:
      ansible_connection: local
      ansible_python_interpreter: "{{ ansible_playbook_python }}"
  unreachable:
    description: What to do when the inventory database cannot be read, as before its first use.
    type: str
    choices: [fail, skip]
    default: fail
  login_password_file:
    description: A file that holds the password, relative to this one.
    type: str
    default: ""
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.environment
  - saasodoo.postgres_pools.inventory_db.keys
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
# servers.postgres_pools.yml
plugin: saasodoo.postgres_pools.servers
login_host: inventory.example.org
login_password_file: /etc/postgres_pools/password
"""

import os

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import plain
from ansible_collections.saasodoo.postgres_pools.plugins.plugin_utils._reading import reading


class InventoryModule(BaseInventoryPlugin):
    NAME = "saasodoo.postgres_pools.servers"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith((".postgres_pools.yml", ".postgres_pools.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self.templar.available_variables = dict(self._vars, inventory_dir=os.path.dirname(os.path.abspath(path)))
        self._read_config_data(path)
        options = self.get_options()
        try:
            self._read_password(options, path)
            with reading(options, "inventory plugin servers") as database:
                servers = database.servers()
        except AnsibleError as error:
            if options["unreachable"] == "skip":
                self.display.vv("{0}; no servers are in the inventory".format(error))
                return
            raise AnsibleParserError(str(error)) from None
        for server in servers:
            self._add(plain(server))

    def set_options(self, task_keys=None, var_options=None, direct=None):
        # Before Ansible checks the types: "{{ ... }}" is no number, what comes of it may be one.
        given = {
            name: value if name == "client" else self.templar.template(value) for name, value in (direct or {}).items()
        }
        super().set_options(task_keys=task_keys, var_options=var_options, direct=given)

    def _read_password(self, options, path):
        if not options["login_password_file"]:
            return
        name = os.path.join(os.path.dirname(os.path.abspath(path)), options["login_password_file"])
        try:
            with open(name, encoding="utf-8") as stream:
                options["login_password"] = stream.read().strip()
        except OSError as error:
            raise AnsibleError(
                "inventory plugin servers: the password file cannot be read: {0}".format(error)
            ) from error

    def _add(self, server):
        for group in (
            "postgres_pools",
            "postgres_pools_" + server["server_type"],
            "postgres_pools_" + server["status"],
        ):
            self.inventory.add_group(group)
            self.inventory.add_host(server["name"], group=group)
        for name, value in self.get_option("client").items():
            self.inventory.set_variable(server["name"], name, value)
        self.inventory.set_variable(server["name"], "postgres_pools_server", server)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An embedded environment of the benchmark's own: state, ports and servers that go when it is done."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import checkout
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _names
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher, keys_from, new_password
from postgres_fixture import server_home

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


class Environment:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.last_output = ""
        self.variables = state / "bench-variables.json"
        # Nothing of the caller's must lead to another inventory database or another configuration.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "ANSIBLE_", "POSTGRES_POOLS_"))}
        self._environ = dict(kept, POSTGRES_POOLS_STATE=str(state))
        if "POSTGRES_POOLS_PORT_BASE" in os.environ:
            self._environ["POSTGRES_POOLS_PORT_BASE"] = os.environ["POSTGRES_POOLS_PORT_BASE"]

    def script(self, *command: str) -> None:
        self._run([str(checkout.ROOT / "scripts" / command[0]), *command[1:]])

    def play_changes_nothing(self, playbook: Path, variables: Dict[str, Any]) -> bool:
        self.play(playbook, variables)
        return " changed=0 " in self.last_output

    def play(self, playbook: Path, variables: Dict[str, Any]) -> float:
        """Run a playbook; the seconds it took. Variables go by a file that only its owner reads: a password may be among them."""
        self.variables.touch(mode=0o600)
        self.variables.write_text(json.dumps(variables))
        start = time.monotonic()
        self._run([str(PLAYBOOK), str(playbook), "-e", "@{0}".format(self.variables)])
        return time.monotonic() - start

    def _run(self, command: Any) -> None:
        done = subprocess.run(
            command,
            cwd=str(checkout.ROOT),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.last_output = done.stdout.decode(errors="replace")
        if done.returncode:
            raise SystemExit("bench: {0} failed:\n{1}".format(" ".join(command), self.last_output))

    def _inventory(self) -> Tuple[Inventory, Cipher]:
        facts = json.loads((self.state / "embedded.json").read_text())
        secrets = self.state / "secrets"
        login = {
            "login_host": "127.0.0.1",
            "login_port": facts["port_base"],
            "login_user": "database_service",
            "login_db": "postgres_pools",
            "login_password": (secrets / "database_service").read_text().strip(),
        }
        return Inventory(login), Cipher(keys_from({"secret_key_file": str(secrets / "keys")}))

    def stock_variables(self, instance_id: str, customer_id: str) -> Dict[str, Any]:
        """What the collection works out by itself and stock tasks must be told."""
        inventory, cipher = self._inventory()
        with inventory:
            server = inventory.rows(
                "SELECT name, host, port, admin_user, admin_password_encrypted FROM db_servers WHERE status = 'active' ORDER BY load, name LIMIT 1"
            )[0]
        database, owner = _names.database_names(customer_id, instance_id)
        password = new_password()
        return {
            "stock_login": {
                "login_host": server["host"],
                "login_port": server["port"],
                "login_user": server["admin_user"],
                "login_password": cipher.decrypt(server["admin_password_encrypted"], server["name"]),
            },
            "stock_server": server["name"],
            "stock_database": database,
            "stock_owner": owner,
            "stock_password": password,
            "stock_password_encrypted": cipher.encrypt(password),
        }

    def active(self) -> int:
        """How many tenants have their database."""
        inventory, _cipher = self._inventory()
        with inventory:
            return int(inventory.rows("SELECT count(*) AS active FROM db_allocations WHERE status = 'active'")[0]["active"])


@contextlib.contextmanager
def environment() -> Iterator[Environment]:
    with server_home() as home:
        made = Environment(Path(home, "state"))
        try:
            made.script("embedded-state")
            made.play(checkout.ROOT / "playbooks" / "inventory_db.yml", {})
            yield made
        finally:
            if made.state.exists():
                made.script("embedded-stop", "--remove")

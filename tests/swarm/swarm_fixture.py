# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed as the tests see it: commands on its nodes and in its containers, playbooks against it, and what the inventory database says."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("SWARM_BED_DIR") or "/var/lib/postgres_pools/swarm-bed")
# Where molecule/swarm/converge.yml puts its result files, and the controller's secrets.
EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY") or FOLDER / "molecule")
SECRETS = Path(os.environ.get("POSTGRES_POOLS_SECRETS") or FOLDER / "secrets")
CLIENT = "postgres-pools-client"


def run(command: List[str], limit: int = 120, **more: Any) -> str:
    """Standard output; a failure shows what was said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, **more)
    assert done.returncode == 0, "{0}\n{1}\n{2}".format(command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


class Bed:
    def __init__(self) -> None:
        inventory = json.loads((FOLDER / "inventory" / "hosts.yml").read_text().partition("\n")[2])["all"]
        self.facts: Dict[str, Any] = inventory["vars"]
        self.nodes = sorted(inventory["children"]["swarm_bed_nodes"]["hosts"])
        # What a new server is like here; a test changes what it is about.
        self.new_server: Dict[str, Any] = json.loads((FOLDER / "inventory" / "group_vars" / "all" / "2_bed.yml").read_text())["postgres_pools_new_server"]
        self.outer = ["docker", "-H", self.facts["swarm_bed_outer_docker"]]

    def on(self, node: str, *command: str, limit: int = 120) -> str:
        return run([*self.outer, "exec", node, *command], limit)

    def manager(self, *command: str) -> str:
        return self.on("sw1", *command)

    def inside(self, node: str, container: str, *command: str) -> str:
        return self.on(node, "docker", "exec", container, *command)

    def container(self, service: str) -> Tuple[str, str]:
        """The node and the id of the one running container of *service*."""
        found = [
            (node, container)
            for node in self.nodes
            for container in self.on(node, "docker", "ps", "--quiet", "--filter", "label=postgres_pools.server=" + service).split()
        ]
        assert len(found) == 1, (service, found)
        return found[0]

    def as_superuser(self, server: str, database: str, statement: str) -> str:
        """What psql says in the server's own container."""
        node, container = self.container(server)
        return self.inside(node, container, "psql", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", statement)

    def sql(self, statement: str) -> List[Dict[str, Any]]:
        """Rows of the inventory database, asked on its own server."""
        query = "SELECT coalesce(json_agg(r), '[]') FROM ({0}) r".format(statement)
        rows: List[Dict[str, Any]] = json.loads(self.as_superuser("inventory-db", "postgres_pools", query))
        return rows

    def sql_do(self, statement: str) -> None:
        """Change the inventory database by hand."""
        self.as_superuser("inventory-db", "postgres_pools", statement)

    def servers(self) -> List[Dict[str, Any]]:
        return self.sql("SELECT * FROM db_servers ORDER BY created_at")

    def result(self, name: str) -> Dict[str, Any]:
        return dict(json.loads((EPHEMERAL / (name + ".json")).read_text()))

    def secrets(self) -> List[str]:
        """Real passwords: those on the controller, and the tenants' own."""
        clear = [path.read_text().split()[0] for path in sorted(SECRETS.iterdir()) if path.is_file()]
        return clear + [self.result(name)["password"] for name in ("shared", "dedicated")] + self._admin_passwords()

    def _admin_passwords(self) -> List[str]:
        from cryptography.fernet import Fernet

        key = Fernet((SECRETS / "key").read_text().split()[0] + "=")
        return [key.decrypt(row["admin_password_encrypted"].encode()).decode() for row in self.servers()]

    @staticmethod
    def decoded(config: Dict[str, Any]) -> str:
        return base64.b64decode(config["Spec"]["Data"]).decode()

    def as_tenant(self, login: Dict[str, Any], script: str, *arguments: str, sslmode: str = "") -> List[str]:
        """The command that runs *script* as a tenant, in a container of its own, reached by nothing but the servers' network, with what was handed out."""
        variables = {
            "PGPASSWORD": login["password"],
            "PGHOST": login["host"],
            "PGUSER": login["user"],
            "PGDATABASE": login["database"],
            "PGSSLMODE": sslmode or login["sslmode"],
            "PGSSLROOTCERT": "/tmp/authority.crt",
            "AUTHORITY": login.get("ca_certificate") or "",
        }
        environment = [part for name, value in variables.items() for part in ("-e", "{0}={1}".format(name, value))]
        image = self.facts["swarm_bed_images"]["postgres_18"]
        begun = ["docker", "run", "--rm", "--network", "saasodoo-network", *environment, "--entrypoint", "sh", image]
        return [*begun, "-c", 'printf %s "$AUTHORITY" >"$PGSSLROOTCERT"; ' + script, "sh", *arguments]

    def query_from(self, node: str, login: Dict[str, Any], statement: str, sslmode: str = "") -> str:
        """Ask as a tenant, on *node*."""
        return self.on(node, *self.as_tenant(login, 'exec psql -qAtc "$1"', statement, sslmode=sslmode)).strip()

    def fault(self, verb: str, *more: str, limit: int = 120) -> None:
        """Break something, or mend it: the verbs are those of tests/swarm_bed."""
        run([sys.executable, str(ROOT / "tests" / "swarm_bed"), verb, *more], limit)

    def play(self, name: str, *arguments: str, limit: int = 300, env: Optional[Dict[str, str]] = None, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the collection against the bed."""
        command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(FOLDER / "inventory"), "playbooks/{0}.yml".format(name), *arguments]
        return subprocess.run(
            [*command, "-e", json.dumps(variables)],
            cwd=str(ROOT),
            env=dict(os.environ, POSTGRES_POOLS_SECRETS=str(SECRETS), ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), **(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
            # A run that is killed takes its process group with it.
            start_new_session=True,
        )

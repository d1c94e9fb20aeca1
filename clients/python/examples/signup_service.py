#!/usr/bin/env python3
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signup, from the platform's side: enter the instance, get its database, deploy its application, say where it is.

    signup_service.py --customer UUID --plan standard             by the playbooks on this machine, in the directory it is called from
    signup_service.py --customer UUID --plan standard --awx URL   by AWX; its token is in the environment variable AWX_TOKEN
    signup_service.py --resume                                    what an earlier run did not finish

The instance is entered before anything is asked for. So a service that dies finds it again, asks again, and is given the same database.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Protocol, Union

from postgres_pools_client import AwxPools, Connection, LocalPools, PoolsError, PostgresPools

APPLICATION = Path(__file__).resolve().with_name("application.py")
TABLE = """CREATE TABLE IF NOT EXISTS instances (
    instance_id text PRIMARY KEY, customer_id text NOT NULL, plan_tier text NOT NULL, status text NOT NULL DEFAULT 'requested',
    server text, database text, url text, problem text)"""


class Instance(NamedTuple):
    instance_id: str
    customer_id: str
    plan_tier: str


class Deployment(Protocol):
    # The Swarm secret to ask for, where the application is to find its connection; None where it is handed over here.
    def secret(self, instance: Instance) -> Union[str, None]: ...

    def deploy(self, instance: Instance, connection: Connection) -> str:
        """Start the application and say where it answers."""


class Instances:
    """The platform's table. Nothing in it is secret."""

    def __init__(self, path: str) -> None:
        self.path = path
        with self._connected() as database:
            database.execute(TABLE)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # One for each use: SQLite's are bound to their threads.
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            yield database

    def enter(self, instance: Instance) -> None:
        with self._connected() as database:
            database.execute("INSERT INTO instances (instance_id, customer_id, plan_tier) VALUES (?, ?, ?)", instance)

    def note(self, instance: Instance, **facts: str) -> None:
        with self._connected() as database:
            for name, value in facts.items():
                database.execute(
                    "UPDATE instances SET {0} = ? WHERE instance_id = ?".format(name), (value, instance.instance_id)
                )

    def unfinished(self) -> List[Instance]:
        with self._connected() as database:
            found = database.execute(
                "SELECT instance_id, customer_id, plan_tier FROM instances WHERE status <> 'running'"
            )
            return [Instance(*row) for row in found]


class SignupService:
    def __init__(
        self, pools: PostgresPools, instances: Instances, deployment: Deployment, timeout: float = 300
    ) -> None:
        self.pools = pools
        self.instances = instances
        self.deployment = deployment
        self.timeout = timeout

    def sign_up(self, customer_id: str, plan_tier: str) -> str:
        instance = Instance(str(uuid.uuid4()), customer_id, plan_tier)
        self.instances.enter(instance)
        return self.complete(instance)

    def complete(self, instance: Instance) -> str:
        """From wherever an earlier call got to."""
        try:
            connection = self.pools.wait_for_database(
                *instance, connection_secret=self.deployment.secret(instance), timeout=self.timeout
            )
        except PoolsError as error:
            self.instances.note(instance, status="failed", problem=str(error))
            raise
        self.instances.note(instance, status="allocated", server=connection.server, database=connection.database)
        url = self.deployment.deploy(instance, connection)
        self.instances.note(instance, status="running", url=url, problem="")
        return url

    def resume(self) -> List[str]:
        return [self.complete(instance) for instance in self.instances.unfinished()]


class Processes:
    """The application as a process on this machine, which is told its connection by a file that only its user can read."""

    def __init__(self) -> None:
        self.started: Dict[str, subprocess.Popen[str]] = {}

    def secret(self, instance: Instance) -> None:
        return None

    def deploy(self, instance: Instance, connection: Connection) -> str:
        with tempfile.NamedTemporaryFile("w", prefix="connection-", suffix=".json") as told:
            json.dump(connection.arguments(), told)
            told.flush()
            process = subprocess.Popen(
                [sys.executable, str(APPLICATION), told.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            # It says so when it has read the file and reached its database; after that the file is of no more use.
            url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the application of {0} ended with {1}".format(instance.instance_id, process.wait()))
        self.started[instance.instance_id] = process
        return url

    def stop(self) -> None:
        for process in self.started.values():
            process.terminate()
            with process:
                process.wait(10)


class SwarmServices:
    """The application as a Swarm service. Its connection is in a Swarm secret, which it finds in /run/secrets/database."""

    def __init__(self, image: str, network: str, run: bool = False) -> None:
        self.image = image
        self.network = network
        self.run = run

    def secret(self, instance: Instance) -> str:
        return "odoo-{0}-database".format(instance.instance_id)

    def deploy(self, instance: Instance, connection: Connection) -> str:
        name = "odoo-{0}".format(instance.instance_id)
        command = ["docker", "service", "create", "--name", name, "--network", self.network]
        command += [
            "--secret",
            "source={0},target=database,mode=0400".format(connection.secret or self.secret(instance)),
        ]
        command += ["--env", "DB_HOST={0}".format(connection.host), "--env", "DB_PORT={0}".format(connection.port)]
        command.append(self.image)
        if self.run:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        else:
            print(" ".join(command))
        return "http://{0}:8069/".format(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customer", help="UUID of the customer")
    parser.add_argument("--plan", default="standard")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--awx", metavar="URL")
    parser.add_argument("--swarm", metavar="IMAGE", help="print the command that makes a Swarm service of this image")
    parser.add_argument("--instances", default="instances.sqlite", metavar="FILE")
    chosen = parser.parse_args()
    if bool(chosen.customer) == chosen.resume:
        parser.error("give --customer for a signup, or --resume")
    pools: PostgresPools = AwxPools(chosen.awx, os.environ["AWX_TOKEN"]) if chosen.awx else LocalPools()
    deployment: Deployment = SwarmServices(chosen.swarm, "saasodoo-network") if chosen.swarm else Processes()
    service = SignupService(pools, Instances(chosen.instances), deployment)
    try:
        for url in service.resume() if chosen.resume else [service.sign_up(chosen.customer, chosen.plan)]:
            print(url, flush=True)
    except PoolsError as error:
        raise SystemExit("signup: {0}".format(error)) from None
    if isinstance(deployment, Processes):
        with contextlib.suppress(KeyboardInterrupt):
            for process in deployment.started.values():
                process.wait()
        deployment.stop()


if __name__ == "__main__":
    main()

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scratch embedded environment: its own state and ports, the playbooks run as a user runs them, and all that they leave to be looked at."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import psycopg2
import psycopg2.extras
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from postgres_fixture import server_home

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "playbooks"
CALLBACKS = Path(__file__).resolve().parent / "callback_plugins"
PORTS = 100
LIVE = ("reserved", "active", "migrating", "releasing")
# What belongs to a running PostgreSQL and moves by itself; its own configuration below data is looked at.
MOVING = re.compile(r"/(data/(?!pg_hba\.conf$|postgresql\.pools\.conf$|postmaster\.opts$).*|log/.*)$")


class Outcome(NamedTuple):
    rc: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        return sum(int(number) for number in re.findall(r"^\S+\s+: ok=\d+\s+changed=(\d+)", self.output, re.M))

    @property
    def stats(self) -> Dict[str, Any]:
        """What the play gave by set_stats."""
        found = re.search(r"^\s*RUN: (\{.*)", self.output, re.M | re.S)
        return dict(json.JSONDecoder().raw_decode(found.group(1))[0]) if found else {}

    def succeeded(self) -> Outcome:
        assert self.rc == 0, self.output
        return self


class Environment:
    def __init__(self, home: str, port_base: int) -> None:
        self.home = Path(home)
        self.state = self.home / "state"
        self.temp = self.home / "temp"
        self.port_base = port_base
        self.temp.mkdir(mode=0o700)
        # What the caller's shell says about PostgreSQL and Ansible must not reach the runs.
        self.base = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PG", "ANSIBLE_", "POSTGRES_", "DB_POOL_", "AWX_"))
        }
        self.base.update(
            POSTGRES_POOLS_STATE=str(self.state),
            POSTGRES_POOLS_PORT_BASE=str(port_base),
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
            ANSIBLE_HOME=str(self.temp / "home"),
            ANSIBLE_LOCAL_TEMP=str(self.temp / "local"),
            ANSIBLE_REMOTE_TEMP=str(self.temp / "remote"),
            ANSIBLE_CALLBACK_PLUGINS=str(CALLBACKS),
            ANSIBLE_SHOW_CUSTOM_STATS="1",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_CALLBACK_RESULT_FORMAT="json",
        )
        subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "embedded-state")],
            env=self.base,
            cwd=str(ROOT),
            check=True,
            capture_output=True,
        )
        self.facts = json.loads((self.state / "embedded.json").read_text())

    # --- runs

    def command(self, playbook: str, variables: Optional[Mapping[str, Any]] = None, *flags: str) -> List[str]:
        more = ["-e", json.dumps(variables)] if variables else []
        return [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "playbooks/{0}.yml".format(playbook),
            *more,
            *flags,
        ]

    def start(
        self,
        playbook: str,
        variables: Optional[Mapping[str, Any]] = None,
        *flags: str,
        more_env: Optional[Mapping[str, str]] = None,
    ) -> Run:
        return Run(self.command(playbook, variables, *flags), dict(self.base, **(more_env or {})), self.temp)

    def play(
        self,
        playbook: str,
        variables: Optional[Mapping[str, Any]] = None,
        *flags: str,
        more_env: Optional[Mapping[str, str]] = None,
    ) -> Outcome:
        return self.start(playbook, variables, *flags, more_env=more_env).wait()

    def ready(self) -> Environment:
        """With the inventory database there."""
        self.play("inventory_db").succeeded()
        return self

    # --- what is there

    def secret(self, name: str) -> str:
        return (self.state / "secrets" / name).read_text().strip()

    def cipher(self) -> Cipher:
        return Cipher(self.secret("keys").split())

    def inventory(self) -> Any:
        return connect("127.0.0.1", self.port_base, "postgres_pools", "postgres", self.secret("inventory_admin"))

    def rows(self, statement: str, arguments: Any = None) -> List[Dict[str, Any]]:
        return rows(self.inventory(), statement, arguments)

    def execute(self, statement: str, arguments: Any = None) -> None:
        with contextlib.closing(self.inventory()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments)

    def servers(self) -> List[Dict[str, Any]]:
        return self.rows("SELECT * FROM db_servers ORDER BY created_at, name")

    def connect(self, server: Mapping[str, Any], dbname: str = "postgres") -> Any:
        """As the administrator of a server of the inventory database."""
        password = self.cipher().decrypt(server["admin_password_encrypted"], server["name"])
        return connect(server["host"], server["port"], dbname, server["admin_user"], password)

    def contents(self, server: Mapping[str, Any]) -> Dict[str, Any]:
        """The databases and the roles of a server, but those that every PostgreSQL has."""
        with contextlib.closing(self.connect(server)) as connection:
            return contents(connection)

    def password(self, instance_id: str) -> Optional[str]:
        """The password that the instance's live allocation has, in clear."""
        found = self.rows(
            "SELECT password_encrypted FROM db_allocations WHERE instance_id = %s AND status = ANY (%s)",
            (instance_id, list(LIVE)),
        )
        return self.cipher().decrypt(found[0]["password_encrypted"], instance_id) if found else None

    def dump(self) -> Dict[str, Any]:
        """Everything that a run could have changed: the inventory database, every server that answers, and the files."""
        found: Dict[str, Any] = {"files": self.files()}
        if not (self.state / "secrets" / "inventory_admin").exists():
            return found
        try:
            connection = self.inventory()
        except psycopg2.OperationalError:
            return found
        with contextlib.closing(connection):
            found.update(inventory_dump(connection))
            found["inventory server"] = contents(connection)
            servers: List[Dict[str, Any]] = []
            if "db_servers" in found["tables"]:
                servers = rows(connection, "SELECT * FROM db_servers WHERE status IN ('active', 'full', 'maintenance')")
        for server in servers:
            found["server " + server["name"]] = self.contents(server)
        return found

    def files(self) -> Dict[str, str]:
        """Every file's mode and, for those that PostgreSQL does not write by itself, a digest of its content."""
        found = {}
        for path in sorted(self.state.rglob("*")):
            name = "/" + str(path.relative_to(self.state))
            if MOVING.search(name):
                continue
            with contextlib.suppress(FileNotFoundError):
                told = path.lstat()
                found[name] = stat.filemode(told.st_mode)
                if stat.S_ISREG(told.st_mode):
                    found[name] += " " + hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return found

    # --- making it empty

    def forget_servers(self) -> None:
        """Back to an inventory database without servers, as quickly as can be: the pools' data are thrown away."""
        paths = [row["storage_path"] for row in self.servers()]
        self.execute(
            "TRUNCATE db_servers, db_allocations, db_tenant_migrations, db_health_checks, db_events; ALTER SEQUENCE db_pool_number RESTART"
        )
        for path in paths:
            discard(Path(path))

    def stop(self) -> None:
        subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "embedded-stop"), "--remove"],
            env=self.base,
            cwd=str(ROOT),
            check=True,
            capture_output=True,
        )


class Run:
    """One ansible-playbook in a process group of its own."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.started = time.monotonic()
        self.log = folder / "{0}.log".format(uuid.uuid4().hex)
        # A file and no pipe: a PostgreSQL that kept the pipe open would hold up the test for ever.
        with open(str(self.log), "wb") as log:
            os.fchmod(log.fileno(), 0o600)
            self.process = subprocess.Popen(
                list(command),
                cwd=str(ROOT),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = 120) -> Outcome:
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("still running after {0} s:\n{1}".format(timeout, self.output())) from None
        return Outcome(rc, self.output(), time.monotonic() - self.started)

    def kill(self) -> None:
        """SIGKILL for it and all that it started and that has not gone its own way since, as a PostgreSQL has."""
        kill_tree(self.process.pid)
        self.process.wait()


def kill_tree(pid: int) -> None:
    """Stop each process before looking for its children, so that none escapes; then kill all."""
    tree = [pid]
    for member in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGSTOP)
            tree.extend(children(member))
    for member in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def children(pid: int) -> List[int]:
    found: List[int] = []
    for tasks in Path("/proc/{0}/task".format(pid)).glob("*/children"):
        with contextlib.suppress(OSError):
            found.extend(int(child) for child in tasks.read_text().split())
    return found


def connect(host: str, port: int, dbname: str, user: str, password: str) -> Any:
    connection = psycopg2.connect(host=host, port=port, dbname=dbname, user=user, password=password, connect_timeout=10)
    connection.autocommit = True
    return connection


def rows(connection: Any, statement: str, arguments: Any = None) -> List[Dict[str, Any]]:
    with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(statement, arguments)
        return [dict(row) for row in cursor.fetchall()]


def contents(connection: Any) -> Dict[str, Any]:
    databases = rows(
        connection,
        "SELECT d.datname AS name, pg_get_userbyid(d.datdba) AS owner, d.datallowconn, d.datconnlimit, d.datacl::text AS acl"
        " FROM pg_database d WHERE d.datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1",
    )
    roles = rows(
        connection,
        "SELECT r.rolname AS name, r.rolcanlogin, r.rolconnlimit, r.rolpassword, s.setconfig::text AS settings FROM pg_authid r"
        " LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid WHERE r.rolname <> 'postgres' AND r.rolname !~ '^pg_' ORDER BY 1, 5",
    )
    members = rows(
        connection,
        "SELECT pg_get_userbyid(roleid) AS role, pg_get_userbyid(member) AS member FROM pg_auth_members WHERE roleid >= 16384 ORDER BY 1, 2",
    )
    return {"databases": databases, "roles": roles, "members": members}


def inventory_dump(connection: Any) -> Dict[str, Any]:
    """Every row of every table, and where every sequence stands."""
    tables = [
        row["name"]
        for row in rows(connection, "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    ]
    sequences = [
        row["name"]
        for row in rows(
            connection, "SELECT sequencename AS name FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1"
        )
    ]
    return {
        "tables": {
            name: rows(connection, 'SELECT to_jsonb(t)::text AS row FROM "{0}" t ORDER BY 1'.format(name))
            for name in tables
        },
        "sequences": {
            name: rows(connection, 'SELECT last_value, is_called FROM "{0}"'.format(name)) for name in sequences
        },
    }


def difference(before: Dict[str, Any], after: Dict[str, Any]) -> List[str]:
    """What differs between two dumps, line by line."""
    shown = [json.dumps(one, indent=1, default=str, sort_keys=True).splitlines() for one in (before, after)]
    return [
        line for line in difflib.unified_diff(*shown, n=0, lineterm="") if not line.startswith(("---", "+++", "@@"))
    ]


def discard(path: Path) -> None:
    """Stop what runs in a server's directory at once, and remove it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        pid = int((path / "data" / "postmaster.pid").read_text().split()[0])
        if os.path.samefile("/proc/{0}/cwd".format(pid), str(path / "data")):
            os.kill(pid, signal.SIGKILL)
            kill_tree(pid)
            while os.path.exists("/proc/{0}".format(pid)):
                time.sleep(0.01)
    subprocess.run(["rm", "-rf", str(path)], check=True)


def instances(count: int) -> List[Dict[str, str]]:
    """Requests for *count* new tenants of the plan standard."""
    return [
        {"instance_id": str(uuid.uuid4()), "customer_id": str(uuid.uuid4()), "plan_tier": "standard"}
        for _each in range(count)
    ]


def _free_ports() -> int:
    # Below the kernel's usual range for outgoing connections; at random, since other tests look at the same moment.
    bases = list(range(22032, 32000, PORTS))
    random.shuffle(bases)
    for base in bases:
        if all(_is_free(port) for port in range(base, base + 20)):
            return base
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def environment() -> Iterator[Environment]:
    """A scratch environment with nothing in it but its ports and its binaries; afterwards nothing of it runs or lies about."""
    with server_home() as home:
        made = Environment(home, _free_ports())
        try:
            yield made
        finally:
            made.stop()

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real passwords and keys of a whole life of a tenant, looked for wherever they must not be. Each place is tried with a planted value, too.

That life goes from allocate.yml over rotate_password.yml and rotate_keys.yml to release.yml.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest
from environment import Environment, environment, instances

PLANTED = "Planted0Value1That2Must3Be4Found"
TENANT, DROPPED = instances(2)
OWN = dict(instances(1)[0], plan_tier="premium")
PLACES = ("output", "arguments", "environment", "files", "inventory", "logs")


class Watch:
    """What every process is called with and has in its environment, and every file that others may read, as long as the block lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: Dict[str, Set[bytes]] = {"arguments": set(), "environment": set(), "files": set()}
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        self._thread.join()
        self._look_at_files()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.looks += 1
            for process in Path("/proc").iterdir():
                # This very process has read the secrets; a reader of /proc would find them in nobody's arguments but its own.
                if process.name.isdigit() and int(process.name) != os.getpid():
                    for name, place in (("cmdline", "arguments"), ("environ", "environment")):
                        with contextlib.suppress(OSError):
                            self.seen[place].add((process / name).read_bytes())
            self._look_at_files()

    def _look_at_files(self) -> None:
        for place, _folders, names in os.walk(str(self.folder)):
            for name in names:
                with contextlib.suppress(OSError):
                    path = os.path.join(place, name)
                    told = os.lstat(path)
                    if stat.S_ISREG(told.st_mode) and stat.S_IMODE(told.st_mode) & ~0o600:
                        with open(path, "rb") as stream:
                            self.seen["files"].add(path.encode() + b"\n" + stream.read())


def logs(scratch: Environment) -> Set[bytes]:
    found = {path.read_bytes() for path in scratch.state.rglob("log/postgres.log*")}
    assert found
    return found


def inventory(scratch: Environment) -> Set[bytes]:
    """Every table as COPY gives it, which is what a dump holds."""
    found = set()
    with contextlib.closing(scratch.inventory()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            path = scratch.home / "copy"
            with open(str(path), "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
                cursor.copy_expert('COPY "{0}" TO STDOUT'.format(table), stream)
            found.add(path.read_bytes())
            path.unlink()
    return found


def secrets(scratch: Environment) -> Dict[str, str]:
    """All that must not be found, by what it is."""
    cipher = scratch.cipher()
    found = {"password of " + name: scratch.secret(name) for name in ("inventory_admin", "database_service")}
    found.update({"key {0}".format(number): key for number, key in enumerate(scratch.secret("keys").split())})
    for server in scratch.servers():
        found["password of " + server["name"]] = cipher.decrypt(server["admin_password_encrypted"], server["name"])
    for row in scratch.rows("SELECT role_name, password_encrypted, next_password_encrypted FROM db_allocations"):
        for column in ("password_encrypted", "next_password_encrypted"):
            if row[column]:
                found["{0} of {1}".format(column, row["role_name"])] = cipher.decrypt(row[column], row["role_name"])
    return found


def found_in(places: Dict[str, Set[bytes]], values: Dict[str, str]) -> List[str]:
    """Which value is in which place, and in which file; never the value itself."""
    return [
        "{0} in {1}".format(what, text.partition(b"\n")[0].decode() if place == "files" else place)
        for place, texts in sorted(places.items())
        for what, value in sorted(values.items())
        for text in [text for text in texts if value.encode() in text][:1]
    ]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made


@pytest.fixture(scope="module")
def life(scratch: Environment) -> Dict[str, Set[bytes]]:
    """The playbooks from nothing to the drop, as talkative as they can be asked to be, and every place they may have left something in."""
    answer = scratch.home / "answer.json"
    # All that Ansible says a second time into a file, and each task's arguments.
    told = {
        "ANSIBLE_DEBUG": "0",
        "ANSIBLE_LOG_PATH": str(scratch.temp / "ansible.log"),
        "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1",
    }
    output: Set[bytes] = set()
    watch = Watch(scratch.home)
    old: Dict[str, str] = {}

    def play(playbook: str, *flags: str, **variables: object) -> None:
        outcome = scratch.play(playbook, variables, "-vvv", "--diff", *flags, more_env=told).succeeded()
        output.add(outcome.output.encode())

    with watch:
        play("inventory_db")
        play("allocate", result_file=str(answer), **TENANT)
        play("allocate", allocations=[DROPPED])
        play("provision_dedicated", **OWN)
        old.update(secrets(scratch))
        play("rotate_password", instance_id=TENANT["instance_id"])
        play("rotate_keys", new_key=True)
        play("pools", result_file=str(scratch.home / "pools.json"))
        old.update({"newer " + what: value for what, value in secrets(scratch).items()})
        play("release", "--check", instance_id=DROPPED["instance_id"], keep_days=0)
        play("release", instance_id=DROPPED["instance_id"], keep_days=0)
        # Failures say more than successes.
        for playbook, variables in (("allocate", dict(TENANT, plan_tier="golden")), ("release", {"instance_id": "?"})):
            failed = scratch.play(playbook, variables, "-vvv", more_env=told)
            assert failed.rc != 0
            output.add(failed.output.encode())
    assert watch.looks > 50
    output.add((scratch.temp / "ansible.log").read_bytes())
    scratch.old_secrets = old  # type: ignore[attr-defined]
    return dict(watch.seen, output=output, inventory=inventory(scratch), logs=logs(scratch))


def test_no_secret_is_anywhere(scratch: Environment, life: Dict[str, Set[bytes]]) -> None:
    values = dict(secrets(scratch), **scratch.old_secrets)  # type: ignore[attr-defined]
    # Two logins of the inventory, two keys, a pool and a dedicated server, two tenants of whom one had two passwords.
    assert len(set(values.values())) >= 9
    assert all(len(value) >= 32 for value in values.values())
    assert not found_in(life, values)


def test_what_may_be_found_is(scratch: Environment, life: Dict[str, Set[bytes]]) -> None:
    """The places hold what was looked at: harmless names that belong there are there."""
    instance = TENANT["instance_id"]
    assert set(life) == set(PLACES)
    assert found_in({place: life[place] for place in ("output", "arguments", "inventory")}, {"it": instance}) == [
        "it in arguments",
        "it in inventory",
        "it in output",
    ]
    assert found_in(life, {"it": str(scratch.state)})
    assert found_in({"logs": life["logs"]}, {"it": "database system is ready"})


def test_the_result_file_is_closed_and_holds_the_password(scratch: Environment, life: Dict[str, Set[bytes]]) -> None:
    path = scratch.home / "answer.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["password"] in scratch.old_secrets.values()  # type: ignore[attr-defined]
    for name in ("database_service", "inventory_admin", "keys"):
        assert stat.S_IMODE((scratch.state / "secrets" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_value_is_found(scratch: Environment, life: Dict[str, Set[bytes]], place: str) -> None:
    """In each place, and in no other than it."""
    places: Dict[str, Set[bytes]] = {}
    if place in ("arguments", "environment", "files"):
        sleeper = [sys.executable, "-c", "import time; time.sleep(0.5)"]
        watch = Watch(scratch.home)
        with watch:
            if place == "files":
                (scratch.temp / "planted").write_text(PLANTED)
                (scratch.temp / "planted").chmod(0o640)
            more = [PLANTED] if place == "arguments" else []
            subprocess.run(
                [*sleeper, *more],
                env=dict(os.environ, **({"X": PLANTED} if place == "environment" else {})),
                check=True,
            )
        if place == "files":
            (scratch.temp / "planted").unlink()
        places = dict(watch.seen)
    elif place == "output":
        shown = scratch.play("pools", {"server": PLANTED}, "-vvv")
        places = {"output": {shown.output.encode()}}
    elif place == "inventory":
        scratch.execute("INSERT INTO db_events (kind, detail) VALUES ('test', jsonb_build_object('x', %s))", (PLANTED,))
        places = {"inventory": inventory(scratch)}
    else:
        with contextlib.closing(scratch.inventory()) as connection, connection.cursor() as cursor:
            cursor.execute("SET log_statement = 'all'")
            cursor.execute("SELECT %s", (PLANTED,))
        places = {"logs": logs(scratch)}
    where = str(scratch.temp / "planted") if place == "files" else place
    assert found_in(places, {"it": PLANTED}) == ["it in " + where]

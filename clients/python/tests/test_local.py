# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks for real, run by ansible-runner on PostgreSQL servers of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import psycopg2
import pytest
from environment import ROOT, Environment, environment
from signup_service import Instances

from postgres_pools_client import Connection, JobFailed, LocalPools, Provisioning, ProvisioningFailed, Refused, TimedOut

SIGNUPS = 20
CLIENT = ROOT / "clients" / "python"
README = CLIENT / "README.md"


@pytest.fixture(name="scratch", scope="module")
def fixture_scratch() -> Iterator[Environment]:
    with environment() as made:
        yield made.ready()


@pytest.fixture(name="local", scope="module")
def fixture_local(scratch: Environment) -> Iterator[LocalPools]:
    with pytest.MonkeyPatch.context() as patch:
        # A run has this process's environment beneath that of the scratch environment, which has taken these out of its own.
        for name in [name for name in os.environ if name not in scratch.base]:
            patch.delenv(name)
        yield LocalPools(ROOT, env=scratch.base)


@pytest.fixture(name="nothing_left", autouse=True)
def fixture_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folders of the runs, in which the passwords were, are gone when the calls are back."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.rglob("*")) == []


def use(connection: Connection, word: str) -> List[Any]:
    """Write as the tenant, and read who and where one is and all that is there."""
    with (
        contextlib.closing(psycopg2.connect(connect_timeout=10, **connection.arguments())) as opened,
        opened,
        opened.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        cursor.execute("INSERT INTO words VALUES (%s)", (word,))
        cursor.execute("SELECT current_database(), current_user, array_agg(word) FROM words")
        return list(cursor.fetchone())


def test_twenty_signups_at_once_each_get_their_own_database(scratch: Environment, local: LocalPools) -> None:
    who = [(str(uuid.uuid4()), str(uuid.uuid4()), "standard") for _each in range(SIGNUPS)]
    start = threading.Barrier(SIGNUPS)

    def sign_up(one: Tuple[str, str, str]) -> Connection:
        start.wait()
        return local.wait_for_database(*one, timeout=300)

    began = time.monotonic()
    with ThreadPoolExecutor(SIGNUPS) as threads:
        given = list(threads.map(sign_up, who))
    print("{0} signups at once: {1:.1f} s".format(SIGNUPS, time.monotonic() - began))
    assert [each.instance_id for each in given] == [instance for instance, _customer, _plan in who]
    assert len({each.database for each in given}) == len({each.password for each in given}) == SIGNUPS
    for each in given:
        assert use(each, each.instance_id) == [each.database, each.user, [each.instance_id]]
    # One pool was enough for all, and so only one was made.
    assert {each.server for each in given} == {"postgres-pool-1"}
    rows = scratch.rows("SELECT instance_id::text, status, database_name FROM db_allocations")
    assert sorted((row["instance_id"], row["status"], row["database_name"]) for row in rows) == sorted(
        (each.instance_id, "active", each.database) for each in given
    )
    assert not [each for each in given if str(each.password) in repr(each)]


def test_the_life_of_a_tenant_that_begins_as_the_readme_says(
    scratch: Environment, local: LocalPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
    (example,) = [each for each in examples if "LocalPools" in each]
    monkeypatch.chdir(ROOT)
    for name, value in scratch.base.items():
        monkeypatch.setenv(name, value)
    names: Dict[str, Any] = {}
    exec(compile(example, str(README), "exec"), names)
    given = names["connection"]
    with contextlib.closing(names["database"]) as database, database.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == (given.database,)
    use(given, "before")
    change = local.change_plan(given.instance_id, "professional")
    assert (change.status, change.instance_id) == ("changed", given.instance_id)
    assert use(given, "after")[2] == ["before", "after"]
    status = local.get_pool_status(server_type="shared")
    assert [each.name for each in status.servers] == ["postgres-pool-1"]
    assert status.totals.used == status.servers[0].current_instances
    assert (status.servers[0].status, status.servers[0].port) == ("active", given.port)
    released = local.release(given.instance_id, keep_days=7)
    assert (released.instance_ids, released.dropped) == ((given.instance_id,), 0)
    with pytest.raises(psycopg2.OperationalError):
        use(given, "too late")


def test_who_does_not_wait_makes_no_server(scratch: Environment, local: LocalPools) -> None:
    before = len(scratch.servers())
    who = str(uuid.uuid4()), str(uuid.uuid4()), "premium"
    assert local.allocate_database(*who, wait=False) == Provisioning(who[0], 10)
    server = local.provision_dedicated_server(*who)
    # Full, since the first call has kept its place.
    assert (server.server_type, server.status) == ("dedicated", "full")
    assert server.name == "postgres-dedicated-" + who[0][:8]
    assert len(scratch.servers()) == before + 1


def test_a_failure_is_told_in_the_playbooks_own_words(scratch: Environment, local: LocalPools) -> None:
    with pytest.raises(ProvisioningFailed, match=r"plan_tier 'gold' is unknown; db_plans has .*standard") as raised:
        local.allocate_database(str(uuid.uuid4()), str(uuid.uuid4()), "gold")
    assert (raised.value.playbook, raised.value.job) == ("allocate", None)


def test_a_run_that_takes_too_long_is_ended(scratch: Environment, local: LocalPools) -> None:
    who = str(uuid.uuid4()), str(uuid.uuid4()), "standard"
    with pytest.raises(TimedOut, match="allocate was ended after 1 s"):
        local.allocate_database(*who, timeout=1)


def test_what_ansible_says_before_any_task(scratch: Environment, local: LocalPools, tmp_path: Path) -> None:
    elsewhere = LocalPools(ROOT, env=scratch.base, collection="nobody.nothing")
    with pytest.raises(JobFailed, match=r"(?s)ERROR.*nobody\.nothing\.pools"):
        elsewhere.get_pool_status()


def test_no_ansible_in_the_path(scratch: Environment, local: LocalPools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(Refused, match="ansible-playbook is not in PATH: /nowhere:/nowhere/bin"):
        LocalPools(ROOT, env=dict(scratch.base, PATH="/nowhere/bin")).get_pool_status()


def test_the_example_signs_up_and_its_application_answers(
    scratch: Environment, tmp_path: Path, tmp_path_factory: Any
) -> None:
    """As a user calls it, with nothing left of its secrets but what the application holds in its memory."""
    platform = tmp_path_factory.mktemp("platform") / "instances.sqlite"
    customer = str(uuid.uuid4())
    command = [
        sys.executable,
        str(CLIENT / "examples" / "signup_service.py"),
        "--customer",
        customer,
        "--plan",
        "standard",
    ]
    service = subprocess.Popen(
        [*command, "--instances", str(platform)],
        cwd=str(ROOT),
        env=dict(scratch.base, PYTHONPATH=str(CLIENT / "src"), TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert service.stdout is not None
    try:
        url = service.stdout.readline().strip()
        assert url.startswith("http://"), service.communicate()
        first, second = visit(url), visit(url)
        assert (first["visits"], second["visits"]) == (1, 2)
        (row,) = scratch.rows("SELECT * FROM db_allocations WHERE customer_id = %s", (customer,))
        assert (row["database_name"], row["role_name"], row["status"]) == (first["database"], first["user"], "active")
        instances = Instances(str(platform))
        assert instances.unfinished() == []
        assert str(scratch.password(str(row["instance_id"]))).encode() not in platform.read_bytes()
    finally:
        service.send_signal(signal.SIGINT)
        _output, errors = service.communicate(timeout=20)
    assert (service.returncode, errors) == (0, "")
    with pytest.raises(urllib.error.URLError):
        visit(url)


def visit(url: str) -> Dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return dict(json.loads(answer.read()))

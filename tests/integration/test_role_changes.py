# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles server_update and server_deprovisioning (update_server.yml, deprovision.yml) where they refuse, and what they stand on.

That they do their work, change nothing under --check and nothing the second time, is in test_playbooks_twice.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _scram
from environment import Environment, environment, instances
from role_fixture import module, run

PASSWORD = "Administrators0Password1Of2Tests"
TENANT = instances(1)[0]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Environment]:
    with environment() as made:
        made.ready().play("allocate", TENANT).succeeded()
        yield made


def refused(scratch: Environment, playbook: str, words: str, **variables: Any) -> None:
    before = scratch.servers()
    outcome = scratch.play(playbook, variables)
    assert outcome.rc != 0, outcome.output
    assert words in " ".join(outcome.output.split()), outcome.output
    assert scratch.servers() == before


def test_a_server_in_use_is_not_removed(scratch: Environment) -> None:
    pool = scratch.servers()[0]
    refused(scratch, "deprovision", "Put it into maintenance first", server=pool["name"])
    refused(scratch, "deprovision", "There is no server 'postgres-pool-nowhere'", server="postgres-pool-nowhere")
    refused(scratch, "deprovision", "No server was named")
    scratch.execute("UPDATE db_servers SET status = 'maintenance'")
    try:
        refused(scratch, "deprovision", "still holds odoo_", server=pool["name"])
    finally:
        scratch.execute("UPDATE db_servers SET status = 'active'")
    assert Path(pool["storage_path"], "data", "PG_VERSION").exists()


def test_a_server_keeps_the_memory_that_its_tenants_were_promised(scratch: Environment) -> None:
    name = scratch.servers()[0]["name"]
    refused(scratch, "update_server", "384 MiB of memory fit 0 connections of tenants", server=name, memory_limit="384M")
    refused(scratch, "update_server", "'much' is no size", server=name, memory_limit="much")
    refused(scratch, "update_server", "There is no server 'postgres-pool-nowhere'", server="postgres-pool-nowhere")
    refused(scratch, "update_server", "No server was named")


def test_server_probe_tells_what_a_server_holds(scratch: Environment) -> None:
    pool = scratch.servers()[0]
    login = {"login_host": pool["host"], "login_port": pool["port"]}
    password = scratch.cipher().decrypt(pool["admin_password_encrypted"], pool["name"])
    good = module("server_probe", "good", login_password=password, **login)
    told = run(scratch, [good], tells={"databases": "{{ good.databases }}", "version": "{{ good.version }}"}).succeeded().stats
    assert [name[:5] for name in told["databases"]] == ["odoo_"]
    assert int(told["version"]) // 10000 >= 15
    bad = run(scratch, [module("server_probe", "bad", login_password="wrong", **login)])
    assert bad.rc != 0
    assert "authentication failed" in bad.output


def test_scram_verifier_is_the_same_each_time_and_fits(scratch: Environment) -> None:
    calls: Dict[str, str] = {"one": "postgres-pool-1", "again": "postgres-pool-1", "other": "postgres-pool-2"}
    tasks = [module("scram_verifier", fact, name=name, password=PASSWORD) for fact, name in calls.items()]
    told = run(scratch, tasks, tells={fact: "{{ %s.verifier }}" % fact for fact in calls}).succeeded().stats
    assert told["one"] == told["again"] != told["other"]
    assert _scram.matches(told["one"], PASSWORD) and not _scram.matches(told["one"], PASSWORD + "x")


def test_an_empty_server_is_updated_and_then_removed(scratch: Environment) -> None:
    name = "postgres-pool-changed"
    scratch.play("provision_pool", {"server": name}).succeeded()
    scratch.play("update_server", {"server": name, "memory_limit": "2G"}).succeeded()
    row = next(one for one in scratch.servers() if one["name"] == name)
    assert row["memory_limit_bytes"] == 2 << 30
    scratch.execute("UPDATE db_servers SET status = 'maintenance' WHERE name = 'postgres-pool-changed'")
    scratch.play("deprovision", {"server": name}).succeeded()
    assert scratch.rows("SELECT status FROM db_servers WHERE name = %s", (name,)) == [{"status": "deprovisioned"}]
    assert not Path(row["storage_path"]).exists()
    assert list(Path(row["storage_path"]).parent.glob("archived/*"))

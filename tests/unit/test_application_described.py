# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's application as it may be recorded: everything that is wrong is named, and no password is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import yaml
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _application_described
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

ROLE = Path(__file__).resolve().parents[2] / "roles" / "tenant_application" / "meta" / "argument_specs.yml"
WHOLE: Dict[str, Any] = {
    "service": "odoo_acme",
    "env": {"DB_HOST": "host", "DB_PORT": "port"},
    "config": [{"target": "/etc/odoo/odoo.conf", "keys": {"db_host": "host"}}],
    "secrets": [{"target": "dsn", "content": "postgresql://{user}:{password}@{host}:{port}/{database}"}, {"target": "password", "content": "password"}],
    "file": [{"path": "~odoo/odoo.conf", "section": "options", "keys": {"db_host": "host"}, "host": "web1"}],
    "hooks": {"stop": [{"name": "drain", "command": ["/usr/local/bin/drain", "acme"]}], "start": [{"name": "told", "tasks_file": "/etc/told.yml"}]},
    "healthy_timeout": 60,
}


def without_words(options: Dict[str, Any]) -> Dict[str, Any]:
    """An argument spec as modules have it."""
    return {
        name: {key: without_words(value) if key == "options" else value for key, value in option.items() if key != "description"}
        for name, option in options.items()
    }


def test_it_is_what_the_role_takes() -> None:
    role = yaml.safe_load(ROLE.read_text())["argument_specs"]["main"]["options"]["tenant_application_application"]["options"]
    assert without_words(role) == _application_described.SPEC


@pytest.mark.parametrize("given", [WHOLE, {}, {"service": "odoo_acme"}])
def test_what_is_right_is_kept_as_it_was_given(given: Dict[str, Any]) -> None:
    assert _application_described.described(given) == given


def test_types_are_made_right_and_defaults_are_left_to_the_release_that_moves() -> None:
    told = _application_described.described({"service": "s", "healthy_timeout": "60", "env": "DB_HOST=host", "file": None})
    assert told == {"service": "s", "healthy_timeout": 60, "env": {"DB_HOST": "host"}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"services": "x"}, "services"),
        ({"service": "a b"}, "service 'a b' is no name of a Swarm service"),
        ({"service": "-x"}, "is no name of a Swarm service"),
        ({"service": "s", "env": {"DB_PASSWORD": "password"}}, "env DB_PASSWORD asks for password"),
        ({"service": "s", "env": {"DB_URL": "dsn"}}, "env DB_URL asks for dsn"),
        ({"service": "s", "env": {"DB HOST": "host"}}, "env 'DB HOST' is no name of a variable"),
        ({"service": "s", "env": {"DB_HOST": "hots"}}, "env DB_HOST asks for 'hots', which no connection has"),
        ({"env": {"DB_HOST": "host"}}, "service is not named"),
        ({"service": "s", "config": [{"keys": {"db_host": "host"}}]}, "missing required arguments: target found in config"),
        ({"service": "s", "config": [{"target": "/x", "keys": {}}]}, "config /x names no keys"),
        ({"file": [{"path": "/x", "keys": {"db_password": "password"}}]}, "file /x, key db_password asks for password"),
        ({"file": [{"path": "/x", "key": {"db_host": "host"}}]}, "key"),
        ({"file": {"path": "/x"}}, "file"),
        ({"service": "s", "secrets": [{"target": "t", "content": "no part"}]}, "secret t: its content names no part"),
        ({"service": "s", "secrets": [{"target": "t", "content": "postgresql://u:hunter2@{host}/d"}]}, "secret t has a password written out"),
        ({"service": "s", "secrets": [{"target": "t", "content": "host={host} password=hunter2"}]}, "secret t has a password written out"),
        ({"hooks": {"stop": [{"name": "both", "command": ["x"], "tasks_file": "y"}]}}, "hooks stop: both must have either command or tasks_file"),
        ({"hooks": {"stop": [{"name": "none"}]}}, "hooks stop: none must have either"),
        ({"hooks": {"begin": []}}, "begin"),
        ({"service": "s", "healthy_timeout": -1}, "healthy_timeout is -1"),
        ({"service": "s", "healthy_timeout": "soon"}, "healthy_timeout"),
    ],
)
def test_what_is_wrong_is_named(given: Dict[str, Any], words: str) -> None:
    with pytest.raises(PoolsError) as refused:
        _application_described.described(given)
    assert words in str(refused.value) and "Nothing was changed." in str(refused.value)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(PoolsError) as refused:
        _application_described.described({"service": "s", "env": {"A": "password"}, "stop_timeout": -1})
    assert "env A asks" in str(refused.value) and "stop_timeout is -1" in str(refused.value)


def test_the_tenants_own_password_is_found_wherever_it_stands() -> None:
    hooks = {"hooks": {"stop": [{"name": "x", "command": ["psql", "--", "aB3dEf"]}]}}
    _application_described.refuse_password(hooks, "another", "i")
    with pytest.raises(PoolsError, match="instance i has the tenant's password in it") as refused:
        _application_described.refuse_password(hooks, "aB3dEf", "i")
    assert "aB3dEf" not in str(refused.value)

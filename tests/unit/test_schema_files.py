# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _inventory, _schema
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

FILES = Path(__file__).resolve().parents[2] / "roles" / "inventory_db" / "files"


def scripts():
    return {path.name: path.read_text() for path in (FILES / "migrations").glob("*.sql")}


def test_the_code_was_written_against_the_newest_script():
    assert _schema.migrations_from(scripts())[-1].version == _inventory.SCHEMA_VERSION


@pytest.mark.parametrize(
    "files, told",
    [
        ({"one.sql": ""}, "not a migration's name"),
        ({"0001_a.up.sql": ""}, "0001 is missing"),
        ({"0002_a.up.sql": "", "0002_a.down.sql": ""}, "0001 is missing"),
        ({"0001_a.up.sql": "", "0001_a.down.sql": "", "0001_b.up.sql": ""}, "Two migrations"),
    ],
)
def test_scripts_that_do_not_make_a_row_are_refused(files, told):
    with pytest.raises(PoolsError, match=told):
        _schema.migrations_from(files)


def test_every_table_and_function_that_goes_up_comes_down():
    for migration in _schema.migrations_from(scripts()):
        for name in re.findall(r"CREATE (?:TABLE|FUNCTION|VIEW|SEQUENCE) (?:public\.)?(\w+)", migration.up):
            assert re.search(r"DROP (?:TABLE|FUNCTION|VIEW|SEQUENCE)[^;]*\b{0}\b".format(name), migration.down), name

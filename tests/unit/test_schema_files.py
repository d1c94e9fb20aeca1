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


# Main holds these, so there are databases that were made with them: a change is a new migration, whose checksum is added here.
HELD = {
    "0001_registry": "ba2365e35ef1179d1c603221a5526a5c6ade035c688b74ed86758a80b08a1141",
    "0002_platform_instances": "a32052d3105e5798a82614153f29c4c64b214e595f8f7812a54d9a701a658f8f",
    "0003_tls": "040b6f04e195b7dc5f03e309679569cef1c5d69709acf8258f72bc0c783422ec",
    "0004_registry_revised": "462eab2c05103ae16bb1fb7425489c90b0c64950547bf69605eace968d9faf15",
    "0005_watching": "0923eefeae950b02be9c5d9a15bcef4a447dbfe05ca18f38a4eecbfa5a8b1052",
    "0006_moves": "ead0d829718f4e8b2997af78e498d09dec30ab29497092626fc585a6efab0025",
    "0007_decisions": "f290c19c3c9b504fec9df36e971ed49371ee81984e4ec44b041f67cdbde1a829",
    "0008_applications": "4561415998b999c784e125323520ff36058fab4e80180ca21905ab1a31481204",
    "0009_online": "ac00d02783d19d70508164adb00712757eada4bf2aa897164d1c7814214529d0",
}


def test_no_migration_that_databases_were_made_with_is_edited():
    assert {one.label: one.checksum for one in _schema.migrations_from(scripts())} == HELD


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
    down = ""
    for migration in _schema.migrations_from(scripts()):
        # What a later script makes again, an earlier one's way down may take away.
        down += migration.down
        for name in re.findall(r"CREATE (?:TABLE|FUNCTION|VIEW|SEQUENCE) (?:public\.)?(\w+)", migration.up):
            assert re.search(r"DROP (?:TABLE|FUNCTION|VIEW|SEQUENCE)[^;]*\b{0}\b".format(name), down), name

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_options import without_own_options


@pytest.mark.parametrize(
    ("dumped", "restored"),
    [
        ("SET (pg_attver=23945056)", "RESET (n_distinct)"),
        ("SET (pg_attver=23945056, n_distinct=-0.5)", "SET (n_distinct=-0.5)"),
        ("SET (n_distinct=-0.5, pg_attver=23945056)", "SET (n_distinct=-0.5)"),
        ("SET (n_distinct=-0.5)", "SET (n_distinct=-0.5)"),
    ],
)
@pytest.mark.parametrize("name", ['"number"', '"a ""b"" (c)"', '"größe"'])
def test_what_a_server_keeps_for_itself_is_taken_out_at_the_same_length(name: str, dumped: str, restored: str) -> None:
    statement = 'ALTER TABLE ONLY "public"."kept" ALTER COLUMN {0} {1};'
    archive = b"\0\5" + statement.format(name, dumped).encode() + b"\n\0\xff" + statement.format(name, dumped).encode()
    changed = without_own_options(archive)
    assert len(changed) == len(archive)
    assert b" ".join(changed.split()).replace(b" ;", b";").count(statement.format(name, restored).encode()) == 2
    assert b"pg_attver" not in changed

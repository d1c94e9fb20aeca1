# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two sides of a comparison make of their rows: pure."""

from __future__ import annotations

import itertools
from typing import Any, Dict, List, Optional, Sequence

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _compare_differences as differing
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._compare_majors import level, version
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._compare_rows import (
    PIECE_BYTES,
    RECORD,
    Sum,
    Table,
)

GRANTS = [["ann", "owner", "SELECT", False], [None, "owner", "SELECT", True], ["owner", "owner", "MAINTAIN", False]]


def objects(*rows: Sequence[Any], **role_map: str) -> differing.Objects:
    return differing.collect([(kind, None, name, facts) for kind, name, facts in rows], role_map)


def told(*sides: differing.Objects, ignore: Sequence[str] = ()) -> List[str]:
    return ["{0} {1}: {2}".format(one.kind, one.name, one.what) for one in differing.differences(*sides, ignore=ignore)]


def no_reparse(_definitions: Sequence[str]) -> List[Optional[str]]:
    raise AssertionError("nobody was to be asked")


def test_order_of_grants_does_not_matter_and_roles_are_mapped() -> None:
    source = objects(("table", "t", {"owner": "owner", "acl": GRANTS}), owner="else")
    target = objects(("table", "t", {"owner": "else", "acl": [[("else" if one == "owner" else one) for one in entry] for entry in reversed(GRANTS)]}))
    assert told(source, target) == []
    assert told(objects(("table", "t", {"owner": "owner", "acl": GRANTS})), target) == ["table t: owner", "table t: acl"]


def test_a_swap_of_roles_maps_each_once() -> None:
    source = objects(("table", "t", {"owner": "a"}), ("table", "u", {"owner": "b"}), a="b", b="a")
    assert told(source, objects(("table", "t", {"owner": "b"}), ("table", "u", {"owner": "a"}))) == []


def test_what_hangs_on_a_missing_table_is_not_told_again() -> None:
    column = ("column", "t.a", {"_of": "t"})
    assert told(objects(("table", "t", {}), column), objects()) == ["table t: existence"]
    assert told(objects(("table", "t", {}), column), objects(("table", "t", {}))) == ["column t.a: existence"]


def test_only_the_grants_that_one_side_lacks_are_shown() -> None:
    (one,) = differing.differences(objects(("table", "t", {"acl": GRANTS[:2]})), objects(("table", "t", {"acl": GRANTS[:1]})))
    assert (one.source, one.target) == ("SELECT with grant option to PUBLIC by owner", "nothing more")


def test_long_texts_are_shown_where_they_begin_to_differ() -> None:
    same = "x" * 5000
    (one,) = differing.differences(objects(("function", "f", {"body": same + "here" + same})), objects(("function", "f", {"body": same + "there" + same})))
    assert "xxhere" in one.source and "xxthere" in one.target
    assert max(len(one.source), len(one.target)) <= differing.SHOWN_CHARACTERS


def test_a_secret_is_compared_and_never_shown_nor_digested() -> None:
    source, target = (objects(("role", "r", {"secret verifier": one, "login": True})) for one in ("abc", "abd"))
    (one,) = differing.differences(source, target)
    assert one == ("role", "r", "verifier", "one", "another")
    assert differing.schema_digest(source, ()) == differing.schema_digest(target, ())
    assert told(source, target, ignore=["role.verifier"]) == []


def test_majors_excuse_only_what_they_are_the_reason_of() -> None:
    def sides() -> Any:
        acl = [["owner", "owner", "SELECT", False]]
        old = objects(("table", "t", {"acl": acl, "partition bound": None}))
        new = objects(("table", "t", {"acl": [*acl, GRANTS[2]], "partition bound": None}), ("constraint", "n on t", {"_type": "n"}))
        return old, new

    for majors, wanted in (((15, 18), []), ((17, 18), ["table t: acl"]), ((18, 18), ["table t: acl", "constraint n on t: existence"])):
        pair = sides()
        level(*pair, majors=majors, reparse=no_reparse)
        assert told(*pair) == wanted


def test_a_view_is_written_anew_by_the_newer_server_only() -> None:
    asked: List[Sequence[str]] = []

    def reparse(definitions: Sequence[str]) -> List[Optional[str]]:
        asked.append(definitions)
        return ["new" if one == "old" else None for one in definitions]

    def views(first: str, second: str) -> differing.Objects:
        return objects(("view", "v", {"definition": first}), ("view", "w", {"definition": second}), ("view", "same", {"definition": "same"}))

    for reverse in (False, True):
        pair, majors = [views("old", "broken"), views("new", "else")], [15, 18]
        if reverse:
            pair.reverse()
            majors.reverse()
        level(pair[0], pair[1], (majors[0], majors[1]), reparse)
        assert asked.pop() == ["old", "broken"]
        assert told(*pair) == ["view w: definition"]


@pytest.mark.parametrize(("target", "wanted"), [("1.10", []), ("1.9", []), ("1.8", ["extension x: version"])])
def test_an_extension_may_be_newer_and_not_older(target: str, wanted: List[str]) -> None:
    pair = [objects(("extension", "x", {"_version": one}), ("extension function", "f", facts(one))) for one in ("1.9", target)]
    level(pair[0], pair[1], (18, 18), no_reparse)
    assert told(*pair) == wanted
    assert version("1.10") > version("1.9") > version("1")


def facts(extension_version: str) -> Dict[str, Any]:
    return {"volatility": "i" if extension_version == "1.10" else "s", "_extension": "x"}


def test_a_newer_extension_excuses_no_function_that_became_less_stable() -> None:
    pair = [
        objects(("extension", "x", {"_version": one}), ("extension function", "f", {"volatility": two, "_extension": "x"}))
        for one, two in (("1", "i"), ("2", "s"))
    ]
    level(pair[0], pair[1], (15, 18), no_reparse)
    assert told(*pair) == ["extension function f: volatility"]


def test_sums_do_not_depend_on_order_and_count_what_is_there_twice() -> None:
    parts = [(1, -5, 7), (2, 2**63 - 1, -(2**63)), (1, 2**63 - 1, 3)]
    found = set()
    for order in itertools.permutations(parts):
        added = Sum()
        for part in order:
            added.add(*part)
        found.add((added.count, added.checksum))
    assert len(found) == 1
    twice = Sum()
    for part in [*parts, parts[0]]:
        twice.add(*part)
    assert (twice.count, twice.checksum) not in found and len(twice.checksum) == 32


@pytest.mark.parametrize("blocks", [10, 8192, 100003])
def test_pieces_leave_no_block_out_and_read_none_twice(blocks: int) -> None:
    table = Table("t", [('"a"', "text")], blocks, 8192 * blocks * 3, "")
    ranges = [table.query(0, RECORD, piece) for piece in range(table.pieces())]
    assert table.pieces() == max(1, -(-8192 * blocks * 3 // PIECE_BYTES))
    seen = [number for text in ranges for number in (int(part.split(",0)'")[0]) for part in text.split("'(")[1:])]
    if table.pieces() == 1:
        assert seen == []
    else:
        # From the first block to an open end, each bound once as an end and once as a beginning.
        assert seen[0] == 0 and seen[1:-1:2] == seen[2::2] and sorted(seen) == seen and seen[-1] < blocks


def test_a_short_table_of_long_rows_is_cut_by_what_it_holds() -> None:
    assert Table("t", [], 4, 100 * PIECE_BYTES, "").pieces() == 4
    assert Table("t", [], 0, 0, "").pieces() == 1

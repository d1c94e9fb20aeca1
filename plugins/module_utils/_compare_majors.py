# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL's majors say differently of the same thing. Each exception stands here, with its reason; nothing else is passed over."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence, Tuple

from ._compare_differences import Objects

Reparse = Callable[[Sequence[str]], List[Optional[str]]]


def level(source: Objects, target: Objects, majors: Tuple[int, int], reparse: Reparse) -> None:
    """Take out of both sides what only their majors make different; *reparse* asks the newer side how it would write views of the older one."""
    oldest, newest = min(majors), max(majors)
    for objects in (source, target):
        if oldest < 17 <= newest:
            _without_maintain(objects)
            _without_identity_of_partitions(objects)
        if oldest < 18:
            _without_not_null(objects)
        if oldest >= 16:
            _with_membership_options(objects)
    _extensions(source, target)
    if oldest != newest:
        older, newer = (source, target) if majors[0] == oldest else (target, source)
        _views(older, newer, reparse)


def _without_maintain(objects: Objects) -> None:
    # PostgreSQL 17 made MAINTAIN a privilege of its own, which every owner has and which ALL includes.
    for facts in objects.values():
        if facts.get("acl"):
            facts["acl"] = [entry for entry in facts["acl"] if entry[2] != "MAINTAIN"]


def _without_identity_of_partitions(objects: Objects) -> None:
    # Since 17 a partition's column is an identity where its parent's is; before, only the parent's was.
    partitions = {name for (kind, name), facts in objects.items() if kind == "table" and facts["partition bound"]}
    for (kind, _name), facts in objects.items():
        if kind == "column" and facts["_of"] in partitions:
            facts["identity"] = ""


def _without_not_null(objects: Objects) -> None:
    # PostgreSQL 18 keeps a named constraint for each NOT NULL (17 for a domain's); before, there is only the column's own mark, which is compared.
    for key in [key for key, facts in objects.items() if key[0] == "constraint" and facts.get("_type") == "n"]:
        del objects[key]


def _with_membership_options(objects: Objects) -> None:
    # PostgreSQL 16 keeps for each membership whether its rights are inherited and can be set; before, the member's INHERIT said so.
    for (kind, _name), facts in objects.items():
        if kind == "role":
            facts["roles"] = facts.get("_memberships")


def _extensions(source: Objects, target: Objects) -> None:
    # A server brings the versions of its own; a newer one on the target is what an upgrade is for.
    for key, facts in source.items():
        other = target.get(key)
        if key[0] == "extension" and other and version(other["_version"]) < version(facts["_version"]):
            facts["version"], other["version"] = facts["_version"], other["_version"]
    versions = [{name: facts["_version"] for (kind, name), facts in side.items() if kind == "extension"} for side in (source, target)]
    for objects, others in ((source, target), (target, source)):
        for key in [key for key in objects if key[0] in ("extension function", "extension table")]:
            # Another version has other functions, and may itself have declared one otherwise: only what is less stable than it was breaks an index.
            if key not in others:
                del objects[key]
    for key, facts in source.items():
        if key[0] == "extension function" and versions[0].get(facts["_extension"]) != versions[1].get(facts["_extension"]):
            stable = "vsi"
            other = target[key]
            if stable.index(other["volatility"]) > stable.index(facts["volatility"]):
                other["volatility"] = facts["volatility"]


def version(text: str) -> List[Any]:
    """1.10 is newer than 1.9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in text.replace("-", ".").split(".")]


def _views(older: Objects, newer: Objects, reparse: Reparse) -> None:
    # 16 no longer writes a column's table where there is only one, and each major has such changes: the newer server has to be asked.
    keys = [key for key, facts in older.items() if key[0] in ("view", "materialized view") and key in newer and facts["definition"] != newer[key]["definition"]]
    if not keys:
        return
    for key, shown in zip(keys, reparse([str(older[key]["definition"]) for key in keys])):
        if shown is not None:
            older[key]["definition"] = shown

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two databases hold, side by side: what of it differs, and in which words. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

Key = Tuple[str, str]
# By kind and name what is to be known of an object.
Objects = Dict[Key, Dict[str, Any]]

SHOWN_CHARACTERS = 120
PRESENT, ABSENT = "present", "absent"
# These hold names of roles. ACLs are lists of (grantee or None for PUBLIC, grantor, privilege, grantable).
_ROLE, _ROLES, _ACL, _MEMBERSHIPS = "owner", "roles", "acl", "_memberships"
# What goes by this prefix is compared and never shown.
SECRET = "secret "  # noqa: S105


class Difference(NamedTuple):
    kind: str
    name: str
    what: str
    source: str
    target: str


def collect(rows: Iterable[Sequence[Any]], role_map: Mapping[str, str]) -> Objects:
    """Rows of the catalog's queries as objects, with roles by the names that they have on the target."""
    objects: Objects = {}
    for kind, role, name, facts in rows:
        said = dict(facts)
        if _ROLE in said:
            said[_ROLE] = role_map.get(said[_ROLE], said[_ROLE])
        if said.get(_ROLES):
            said[_ROLES] = sorted((role_map.get(one, one) for one in said[_ROLES]), key=str)
        if said.get(_MEMBERSHIPS):
            said[_MEMBERSHIPS] = sorted([role_map.get(one, one), *more] for one, *more in said[_MEMBERSHIPS])
        if _ACL in said:
            said[_ACL] = sorted(
                ([role_map.get(grantee, grantee), role_map.get(grantor, grantor), *more] for grantee, grantor, *more in said[_ACL] or ()), key=str
            )
        whose = "" if role is None else role_map.get(role, role)
        prefix = "role {0}: ".format(whose) if kind == "setting" and role is not None else whose
        objects[(kind, prefix + name)] = said
    return objects


def differences(source: Objects, target: Objects, ignore: Sequence[str] = ()) -> List[Difference]:
    """All that differs, in the order of kinds and names. What hangs on a table that one side lacks is not told again."""
    relations = tuple({name for kind, name in side if kind in RELATIONS} for side in (source, target))
    found: List[Difference] = []
    for key in sorted(set(source) | set(target), key=_order):
        kind, name = key
        if kind in ignore or name in ignore or "{0} {1}".format(kind, name) in ignore:
            continue
        here, there = source.get(key), target.get(key)
        if here is None or there is None:
            said: Mapping[str, Any] = here or there or {}
            table = said.get("_of")
            if table is None or (table in relations[0]) == (table in relations[1]):
                found.append(Difference(kind, name, "existence", ABSENT if here is None else PRESENT, ABSENT if there is None else PRESENT))
            continue
        for what in [*here, *(what for what in there if what not in here)]:
            plain = what[len(SECRET) :] if what.startswith(SECRET) else what
            if what.startswith("_") or here.get(what) == there.get(what) or "{0}.{1}".format(kind, plain) in ignore:
                continue
            found.append(Difference(kind, name, plain, *_shown(what, here.get(what), there.get(what))))
    return found


RELATIONS = ("table", "view", "materialized view", "foreign table", "sequence")
# What matters most comes first, for those who see the first few only.
_KINDS = ("database", "role", "setting", "schema", "extension", "table", "materialized view", "sequence", "large object", "column", "constraint", "index")


def _order(key: Key) -> Tuple[int, str, str]:
    kind, name = key
    return (_KINDS.index(kind) if kind in _KINDS else len(_KINDS), kind, name)


def _shown(what: str, here: Any, there: Any) -> Tuple[str, str]:
    if what.startswith(SECRET):
        return ("none" if here is None else "one", "none" if there is None else "one" if here is None else "another")
    if what == _ACL:
        missing, more = [one for one in here or () if one not in (there or ())], [one for one in there or () if one not in (here or ())]
        return (_cut(_acl(missing)), _cut(_acl(more)))
    texts = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, sort_keys=True) for one in (here, there)]
    if max(map(len, texts)) > SHOWN_CHARACTERS:
        # Of long texts the part where they begin to differ.
        same = next((i for i, (one, other) in enumerate(zip(*texts)) if one != other), min(map(len, texts)))
        start = max(0, same - SHOWN_CHARACTERS // 4)
        texts = [("…" if start else "") + text[start:] for text in texts]
    return (_cut(texts[0]), _cut(texts[1]))


def _acl(entries: Sequence[Sequence[Any]]) -> str:
    words = [
        "{0}{1} to {2} by {3}".format(privilege, " with grant option" if grantable else "", grantee or "PUBLIC", grantor)
        for grantee, grantor, privilege, grantable in entries
    ]
    return ", ".join(words) or "nothing more"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def schema_digest(objects: Objects, without: Sequence[str]) -> str:
    """One digest over what the catalogs say, but for secrets and what stands in *without*, which has a digest of its own."""
    return digest(
        [
            [kind, name, {what: said for what, said in objects[kind, name].items() if not what.startswith(("_", SECRET)) and what not in without}]
            for kind, name in sorted(objects)
        ]
    )


def mapping(source: Mapping[str, Optional[str]], target: Mapping[str, Optional[str]], given: Mapping[str, str]) -> Dict[str, str]:
    """Which role of the source is which of the target: as given; else the database's gate, the first superuser and the owner by what they are."""
    made = {str(source[which]): str(target[which]) for which in ("database", "superuser", "owner") if source.get(which) and target.get(which)}
    made.update(given)
    return made

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller wants of directories on CephFS, checked before anything is touched. Pure."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._sizing import parse_size

ARCHIVE = ".archived"
RESERVED_NAMES = {".", "..", ".snap", ARCHIVE}
NEW_MODE = 0o755


class Wanted(NamedTuple):
    """None leaves what is there."""

    # Relative to the mount.
    path: str
    uid: Optional[int] = None
    gid: Optional[int] = None
    mode: Optional[int] = None
    quota: Optional[int] = None


class Found(NamedTuple):
    uid: int
    gid: int
    mode: int
    quota: int
    # Bytes of everything below, as CephFS accounts them.
    used: int

    def facts(self) -> Dict[str, Any]:
        return {
            "state": "present",
            "owner": self.uid,
            "group": self.gid,
            "mode": "{0:04o}".format(self.mode),
            "quota": self.quota,
            "used": self.used,
        }


def wanted_from(entries: Sequence[Mapping[str, Any]], mount_path: str) -> List[Wanted]:
    """The entries, in order.

    :raises PoolsError: every wrong entry, each with what is wrong.
    """
    wrong: List[str] = []
    wanted: Dict[str, Wanted] = {}
    for number, entry in enumerate(entries, 1):
        try:
            one = _one(entry, mount_path)
            if one.path in wanted:
                raise PoolsError("{0} stands there twice.".format(one.path))
            wanted[one.path] = one
        except PoolsError as error:
            wrong.append("entry {0}: {1}".format(number, error))
    if wrong:
        raise PoolsError("Wrong in directories: " + " ".join(wrong), "Nothing was changed.")
    return list(wanted.values())


def with_parents(entries: Sequence[Wanted]) -> List[Wanted]:
    """Each directory after all that it lies in, whether the caller names those or not."""
    named = {one.path: one for one in entries}
    ordered: Dict[str, Wanted] = {}
    for one in entries:
        parts = one.path.split("/")
        for above in ("/".join(parts[:length]) for length in range(1, len(parts) + 1)):
            ordered.setdefault(above, named.get(above, Wanted(above)))
    return list(ordered.values())


def after(wanted: Wanted, found: Optional[Found]) -> Found:
    """What a directory is to be like; what nobody asked for stays, or is as a new directory is."""
    base = found or Found(0, 0, NEW_MODE, 0, 0)
    return Found(
        base.uid if wanted.uid is None else wanted.uid,
        base.gid if wanted.gid is None else wanted.gid,
        base.mode if wanted.mode is None else wanted.mode,
        base.quota if wanted.quota is None else wanted.quota,
        base.used,
    )


def check_quota(path: str, wanted: Wanted, found: Optional[Found]) -> None:
    """:raises PoolsError: the directory holds more already: PostgreSQL would stop at its next write."""
    if wanted.quota and found and wanted.quota != found.quota and wanted.quota < found.used:
        raise PoolsError(
            "{0} holds {1} bytes, more than the quota of {2} asked for.".format(path, found.used, wanted.quota),
            "Ask for more than is in use, with headroom for WAL.",
        )


def _one(entry: Mapping[str, Any], mount_path: str) -> Wanted:
    quota = str(entry.get("quota") or "")
    return Wanted(
        _relative(str(entry["path"]), mount_path),
        _number(entry.get("owner"), "owner"),
        _number(entry.get("group"), "group"),
        _mode(entry.get("mode")),
        None if not quota else 0 if quota == "0" else parse_size(quota),
    )


def _relative(path: str, mount_path: str) -> str:
    root = os.path.normpath(mount_path)
    relative = path
    if path.startswith("/"):
        # Not by normpath: it would take an `a/../b` for `b`, which it is not where a is a link.
        if not path.startswith(root.rstrip("/") + "/"):
            raise PoolsError("'{0}' is not below {1}.".format(path, root))
        relative = path[len(root.rstrip("/")) + 1 :]
    parts = [part for part in relative.split("/") if part]
    if not parts:
        raise PoolsError("'{0}' is the mount itself.".format(path))
    for part in parts:
        if part in RESERVED_NAMES:
            raise PoolsError("'{0}' must not hold the name '{1}'.".format(path, part))
    return "/".join(parts)


def _number(value: Any, what: str) -> Optional[int]:
    text = "" if value is None else str(value)
    if not text:
        return None
    if re.fullmatch(r"[0-9]+", text):
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid if what == "owner" else grp.getgrnam(text).gr_gid
    except KeyError:
        raise PoolsError("there is no {0} '{1}' on this host; give the number that the image has.".format(what, text)) from None


def _mode(value: Any) -> Optional[int]:
    text = "" if value is None else str(value)
    if not text:
        return None
    # The leading zero tells a quoted octal number from one that YAML has turned into a decimal.
    if not re.fullmatch(r"0[0-7]{3,4}", text):
        raise PoolsError("mode '{0}' is no quoted octal number such as '0700'.".format(text))
    return int(text, 8)

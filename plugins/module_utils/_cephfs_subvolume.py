# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CephFS subvolumes, by the `ceph` command: directories that the cluster's manager makes and accounts for."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._ceph import Cluster
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_wanted import Found, Wanted, check_quota
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._sizing import parse_size

ENOENT = 2
# What is left of one that was archived: its snapshots, and its name.
RETAINED = "snapshot-retained"


class Subvolume(NamedTuple):
    path: str
    # 0 is none.
    quota: int
    used: int

    def facts(self) -> Dict[str, Any]:
        return {"state": "present", "path": self.path, "quota": self.quota, "used": self.used}


def wanted_from(entries: Sequence[Mapping[str, Any]]) -> Dict[str, Optional[int]]:
    """Quota by name; None leaves it.

    :raises PoolsError: a name or a quota is wrong.
    """
    wanted: Dict[str, Optional[int]] = {}
    for entry in entries:
        name, quota = entry["name"], str(entry.get("quota") or "")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name in wanted:
            raise PoolsError("'{0}' is no name for a subvolume, or stands there twice.".format(name), "Nothing was changed.")
        wanted[name] = None if not quota else 0 if quota == "0" else parse_size(quota)
    return wanted


def parse_info(text: str) -> Optional[Subvolume]:
    """What `ceph fs subvolume info` says; None when only snapshots are left."""
    info = json.loads(text)
    if info.get("state") == RETAINED:
        return None
    quota = info["bytes_quota"]
    return Subvolume(info["path"], 0 if quota == "infinite" else int(quota), int(info.get("bytes_used") or 0))


def ensure(options: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The whole call of the module, as its result."""
    wanted = wanted_from(options["subvolumes"])
    cluster = Cluster(options)
    fsid = cluster.fsid(options["cluster_fsid"])
    return _Work(cluster, options, check_mode).done(wanted, fsid)


class _Work:
    def __init__(self, cluster: Cluster, options: Mapping[str, Any], check_mode: bool) -> None:
        self._cluster = cluster
        self._volume, self._group = options["volume"], options["group"]
        self._state = options["state"]
        self._check_mode = check_mode
        self._actions: List[str] = []

    def done(self, wanted: Mapping[str, Optional[int]], fsid: str) -> Dict[str, Any]:
        before = {name: self._find(name) for name in wanted}
        for name, quota in wanted.items():
            found = before[name]
            if found and self._state == "present":
                check_quota("Subvolume {0}".format(name), Wanted(name, quota=quota), Found(0, 0, 0, found.quota, found.used))
        step = self._make if self._state == "present" else self._archive
        now = {name: step(name, quota, before[name]) for name, quota in wanted.items()}
        was = {name: found.facts() if found else {"state": "absent"} for name, found in before.items()}
        changed = [name for name in wanted if was[name] != now[name]]
        return {
            "changed": bool(self._actions),
            "actions": self._actions,
            "cluster_fsid": fsid,
            "subvolumes": [dict(facts, name=name) for name, facts in now.items()],
            "diff": {"before": {name: was[name] for name in changed}, "after": {name: now[name] for name in changed}},
        }

    def _find(self, name: str) -> Optional[Subvolume]:
        code, said, wrong = self._cluster.ask(*self._call("info", name), "--format", "json")
        if code == ENOENT:
            return None
        if code:
            raise PoolsError("Subvolume {0} cannot be looked at: {1}.".format(name, " ".join(wrong.split()).rstrip(".")))
        return parse_info(said)

    def _make(self, name: str, quota: Optional[int], found: Optional[Subvolume]) -> Dict[str, Any]:
        if found is None:
            self._actions.append("make subvolume {0} of {1} bytes".format(name, quota or "any number of"))
            if self._check_mode:
                return {"state": "present", "path": "", "quota": quota or 0, "used": 0}
            self._cluster.tell("fs", "subvolumegroup", "create", self._volume, self._group)
            # The size only here: on a subvolume that is there already, `create --size` would replace its quota.
            self._cluster.tell(*self._call("create", name), *(["--size", str(quota)] if quota else []))
        elif quota is not None and quota != found.quota:
            self._actions.append("quota of subvolume {0} from {1} to {2} bytes".format(name, found.quota, quota))
            if self._check_mode:
                return found._replace(quota=quota).facts()
            size = str(quota) if quota else "infinite"
            self._cluster.tell("fs", "subvolume", "resize", self._volume, name, size, "--group_name", self._group, "--no_shrink")
        else:
            return found.facts()
        made = self._find(name)
        if made is None:
            raise PoolsError("Subvolume {0} is gone right after it was made.".format(name), "Does somebody else work on it?")
        return made.facts()

    def _archive(self, name: str, _quota: Optional[int], found: Optional[Subvolume]) -> Dict[str, Any]:
        if found is None:
            return {"state": "absent"}
        snapshot = "archived-{0}".format(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        self._actions.append("keep subvolume {0} as its snapshot {1} alone".format(name, snapshot))
        if not self._check_mode:
            self._cluster.tell("fs", "subvolume", "snapshot", "create", self._volume, name, snapshot, "--group_name", self._group)
            self._cluster.tell(*self._call("rm", name), "--retain-snapshots")
        return {"state": "archived", "archive": snapshot}

    def _call(self, verb: str, name: str) -> List[str]:
        return ["fs", "subvolume", verb, self._volume, name, "--group_name", self._group]

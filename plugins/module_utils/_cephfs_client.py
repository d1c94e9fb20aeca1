# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients of a CephFS, as its metadata servers know them, and the eviction of a host's.

An evicted client is blocked from the whole cluster: what it still holds in its memory can no longer reach the disks, and its locks are free.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Mapping, NamedTuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._ceph import Cluster
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


class Session(NamedTuple):
    """One mount of a client, at one metadata server."""

    id: int
    rank: int
    hostname: str
    mount_point: str
    state: str
    address: str

    def facts(self) -> Dict[str, Any]:
        return self._asdict()


class FileSystem(NamedTuple):
    name: str
    # Of the active metadata servers.
    ranks: List[int]


def file_system(cluster: Cluster, wanted: str = "") -> FileSystem:
    """The file system of that name, or the only one.

    :raises PoolsError: there is none of that name, or several to choose from, or nobody serves it.
    """
    there = parse_file_systems(cluster.tell("fs", "dump", "--format", "json"))
    names = sorted(one.name for one in there)
    found = [one for one in there if wanted in ("", one.name)]
    if len(found) != 1:
        raise PoolsError(
            "The cluster has the file systems {0}, {1}. Nothing was changed.".format(
                ", ".join(names) or "(none)", "not {0}".format(wanted) if wanted else "and none was chosen"
            ),
            "Set volume to one of them.",
        )
    if not found[0].ranks:
        words = "The file system {0} has no active metadata server, and without one nobody can be evicted."
        raise PoolsError(words.format(found[0].name), "Look at `ceph fs status`.")
    return found[0]


def parse_file_systems(text: str) -> List[FileSystem]:
    """What `ceph fs dump` says."""
    maps = [one["mdsmap"] for one in json.loads(text)["filesystems"]]
    return [FileSystem(one["fs_name"], sorted(int(key.rpartition("_")[2]) for key in one["up"])) for one in maps]


def sessions(cluster: Cluster, there: FileSystem) -> List[Session]:
    """Every client's session at every active metadata server.

    :raises PoolsError: one does not answer.
    """
    return [session for rank in there.ranks for session in parse_sessions(rank, cluster.tell(*_mds(there, rank), "client", "ls", "--format", "json"))]


def parse_sessions(rank: int, text: str) -> List[Session]:
    """What `ceph tell mds.… client ls` says."""
    return [
        Session(
            id=int(one["id"]),
            rank=rank,
            hostname=str(one.get("client_metadata", {}).get("hostname", "")),
            mount_point=str(one.get("client_metadata", {}).get("mount_point", "")),
            state=str(one.get("state", "")),
            address=str(one.get("inst", "")).partition(" ")[2],
        )
        for one in json.loads(text)
    ]


def of_host(found: List[Session], hostname: str) -> List[Session]:
    """Those of a host, by the name that it has itself, with a domain or without.

    :raises PoolsError: without the domain it is the name of several hosts.
    """
    exact = [one for one in found if one.hostname == hostname]
    short = [one for one in found if "." not in hostname and one.hostname.partition(".")[0] == hostname]
    names = sorted({one.hostname for one in short})
    if not exact and len(names) > 1:
        raise PoolsError(
            "'{0}' is the name of several hosts with clients: {1}. Nothing was changed.".format(hostname, ", ".join(names)), "Give the whole name."
        )
    return exact or short


def evict(cluster: Cluster, there: FileSystem, found: List[Session]) -> None:
    """End these sessions; it returns when none of these clients can write any more."""
    for one in found:
        code, _said, wrong = cluster.ask(*_mds(there, one.rank), "client", "evict", "id={0}".format(one.id))
        # Between the question and this it may have ended by itself; another rank may have ended it as the same client's.
        if code and one in sessions(cluster, there):
            raise PoolsError("The client {0} of {1} was not evicted: {2}.".format(one.id, one.hostname, " ".join(wrong.split()).rstrip(".")))


def ensure(options: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The whole call of the module, as its result."""
    hostname = options["hostname"]
    if not hostname.strip():
        raise PoolsError("hostname is empty. Nothing was changed.", "Name the host whose clients are meant.")
    cluster = Cluster(options)
    # Side by side: each question takes the better part of a second, while servers wait for what this frees.
    with ThreadPoolExecutor(1) as beside:
        looked_for = beside.submit(file_system, cluster, options["volume"])
        fsid = cluster.fsid(options["cluster_fsid"])
        there = looked_for.result()
    everybody = sessions(cluster, there)
    found = of_host(everybody, hostname)
    if found and not check_mode:
        evict(cluster, there, found)
    return {
        "changed": bool(found),
        "cluster_fsid": fsid,
        "volume": there.name,
        "evicted": [one.facts() for one in found],
        "hostnames": sorted({one.hostname for one in everybody}),
        "diff": {"before": {"clients": [one.id for one in found]}, "after": {"clients": []}},
    }


def _mds(there: FileSystem, rank: int) -> List[str]:
    return ["tell", "mds.{0}:{1}".format(there.name, rank)]

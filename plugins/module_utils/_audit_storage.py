# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers' directories, and for local servers their processes and configuration files, against the inventory's rows."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Set

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _server_conf
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit import Finding, finding
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_child import bounded
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_dir import CONF, HBA, ServerDirectory

# In these states a server is deployed; in the others its directory may be there or not.
DEPLOYED = ("active", "full", "maintenance")
# Where a directory goes when its server is removed, beside the others.
_ARCHIVES = ("archived",)
_DATA = "data"


class Wanted(NamedTuple):
    """*rows* are servers with ``name``, ``status`` and ``storage_path``; *expected* are directories that may be there without one."""

    rows: Sequence[Mapping[str, Any]]
    bases: Sequence[str]
    expected: Sequence[str]

    def known(self) -> Set[str]:
        paths = [row["storage_path"] for row in self.rows if row["storage_path"]]
        return {os.path.realpath(path) for path in (*paths, *self.expected)}

    def deployed(self) -> List[Mapping[str, Any]]:
        return [row for row in self.rows if row["status"] in DEPLOYED and row["storage_path"]]


def directories(wanted: Wanted, seconds: float) -> List[Finding]:
    """Directories without a row, and rows without one. The file system may hang: each step has *seconds*.

    :raises PoolsError: it did.
    """

    def work(step: Any) -> Dict[str, Any]:
        known, unknown, missing = wanted.known(), [], []
        for base in wanted.bases:
            step("list {0}".format(base))
            with contextlib.suppress(FileNotFoundError):
                unknown += [path for path in _subdirectories(base) if os.path.realpath(path) not in known]
        for row in wanted.deployed():
            step("look for {0}".format(row["storage_path"]))
            if not os.path.isdir(row["storage_path"]):
                missing.append(row["name"])
        return {"unknown": unknown, "missing": missing}

    told = bounded(", ".join(wanted.bases) or "The storage", seconds, work)
    findings = [finding("", "directory_without_row", path, "no such directory", "there") for path in told["unknown"]]
    return findings + [
        finding(row["name"], "row_without_directory", row["storage_path"], "a directory", "none")
        for row in wanted.deployed()
        if row["name"] in told["missing"]
    ]


def _subdirectories(base: str) -> List[str]:
    with os.scandir(base) as entries:
        return sorted(
            entry.path for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[0] != "." and entry.name not in _ARCHIVES
        )


def processes(wanted: Wanted, descriptions: Mapping[str, Mapping[str, Any]]) -> List[Finding]:
    """Local servers without a row, rows whose server does not run, and configuration files that are not as they would be written."""
    known, findings = wanted.known(), []
    for data, pid in sorted(_running([os.path.realpath(base) for base in wanted.bases]).items()):
        if os.path.dirname(data) not in known:
            findings.append(finding("", "process_without_row", data, "no PostgreSQL", "process {0}".format(pid)))
    for row in wanted.deployed():
        described = descriptions.get(row["name"])
        if described is None or not os.path.isdir(row["storage_path"]):
            continue
        directory = ServerDirectory(row["storage_path"], account(described["run_as"]))
        runs = directory.postmaster() is not None
        if not runs:
            findings.append(finding(row["name"], "row_without_process", row["storage_path"], "a running PostgreSQL", "none"))
        findings += _configuration(row["name"], directory, described, runs)
    return findings


def _configuration(name: str, directory: ServerDirectory, described: Mapping[str, Any], runs: bool) -> List[Finding]:
    hba = _server_conf.render_hba(described["hba"])
    settings = _server_conf.normal(described["settings"])
    conf = _server_conf.render(settings, described["listen_addresses"], described["port"], hba)
    wanted, found = _server_conf.parse(conf), _server_conf.parse(directory.read(CONF) or "")
    differing = [one for one in sorted(set(wanted) | set(found)) if wanted.get(one) != found.get(one)]
    # It stands for both files, and differs where one of them does.
    told = [one for one in differing if one != _server_conf.MARKER]
    findings = []
    if told:
        sides = [{one: side.get(one) for one in told} for side in (wanted, found)]
        findings.append(finding(name, "configuration", CONF, sides[0], sides[1]))
    lines = (directory.read(HBA) or "").splitlines()
    if lines != hba.splitlines():
        # Written anew and read again, it takes no restart; one that settings would take is nobody's to decide here.
        remedy = {"safe_to_repair": True, "remedy": "Run playbooks/audit.yml -e repair=true."} if runs and not told else {}
        findings.append(finding(name, "pg_hba", HBA, described["hba"], lines, **remedy))
    return findings


def _running(bases: Sequence[str]) -> Dict[str, int]:
    """Data directories below *bases* in which a PostgreSQL works, and its lowest process id."""
    found: Dict[str, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open("/proc/{0}/comm".format(name), encoding="utf-8", errors="replace") as stream:
                if stream.read().strip() != "postgres":
                    continue
            place = _works_in(name)
            if os.path.basename(place) == _DATA and any(place.startswith(base + os.sep) for base in bases):
                found[place] = min(int(name), found.get(place, int(name)))
    return found


def _works_in(pid: str) -> str:
    try:
        return os.readlink("/proc/{0}/cwd".format(pid))
    except PermissionError:
        # A container without CAP_SYS_PTRACE hides that; of the postmaster it does not hide how it was called.
        with open("/proc/{0}/cmdline".format(pid), "rb") as stream:
            words = stream.read().decode("utf-8", "replace").split("\0")
        return os.path.realpath(words[words.index("-D") + 1]) if "-D" in words[:-1] else ""

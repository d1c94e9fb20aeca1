# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Docker Swarm has of the servers' services, secrets and configs, against what is deployed for each row. Pure.

The shapes are those of ``docker service inspect``, ``docker secret inspect`` and ``docker config inspect``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit import Finding, finding
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._audit_storage import DEPLOYED

MANAGED = "postgres_pools.managed=true"
_SERVER = "postgres_pools.server"


class Swarm(NamedTuple):
    """What is there, of the objects that bear the label."""

    services: Sequence[Mapping[str, Any]]
    secrets: Sequence[Mapping[str, Any]]
    configs: Sequence[Mapping[str, Any]]


def compare(
    swarm: Swarm, rows: Sequence[Mapping[str, Any]], descriptions: Mapping[str, Mapping[str, Any]], expected: Sequence[str]
) -> List[Finding]:
    """:param rows: the servers of this Swarm, with ``name`` and ``status``.
    :param descriptions: how each is deployed, by name, of the role C(postgres_server).
    :param expected: names of servers that are deployed without a row.
    """
    known = {row["name"] for row in rows} | set(expected)
    services = {_name(service): service for service in swarm.services}
    secrets, configs = {_name(secret) for secret in swarm.secrets}, {_name(config) for config in swarm.configs}
    findings = []
    for kind, objects in (("service", swarm.services), ("secret", swarm.secrets), ("config", swarm.configs)):
        for one in objects:
            # Without the label it belongs to all servers, as the guarded start does.
            owner = _labels(one).get(_SERVER)
            if owner is not None and owner not in known:
                findings.append(finding("", kind + "_without_row", _name(one), "no such " + kind, "there, of server " + owner))
    for row in rows:
        described = descriptions.get(row["name"])
        if row["status"] not in DEPLOYED or described is None:
            continue
        service = services.get(row["name"])
        if service is None:
            findings.append(finding(row["name"], "row_without_service", row["name"], "a service", "none"))
        else:
            findings += _differences(row["name"], service, described)
        for kind, there in (("secret", secrets), ("config", configs)):
            findings += [
                finding(row["name"], "row_without_" + kind, name, "a " + kind, "none") for name in described[kind + "s"] if name not in there
            ]
    return findings


def _name(one: Mapping[str, Any]) -> str:
    return str(one["Spec"]["Name"])


def _labels(one: Mapping[str, Any]) -> Mapping[str, str]:
    return one["Spec"].get("Labels") or {}


def _differences(name: str, service: Mapping[str, Any], described: Mapping[str, Any]) -> List[Finding]:
    spec = service["Spec"]
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    limits = (task.get("Resources") or {}).get("Limits") or {}
    mounts = {mount.get("Target"): mount.get("Source") for mount in container.get("Mounts") or []}
    pairs: List[Tuple[str, Any, Any]] = [
        ("replicas", 1, ((spec.get("Mode") or {}).get("Replicated") or {}).get("Replicas")),
        # Resolved, it has the digest after it.
        ("image", described["image"].partition("@")[0], container["Image"].partition("@")[0]),
        ("cpu_limit", round(float(described["cpu_limit"]), 3), round(limits.get("NanoCPUs", 0) / 1e9, 3)),
        ("memory_limit", int(described["memory_bytes"]), limits.get("MemoryBytes", 0)),
        ("directory", described["path"], mounts.get(described["mount"])),
        ("user", str(described["uid"]), container.get("User", "")),
        ("constraints", sorted(described["constraints"]), sorted((task.get("Placement") or {}).get("Constraints") or [])),
        ("secrets", sorted(described["secrets"]), sorted(one["SecretName"] for one in container.get("Secrets") or [])),
        ("configs", sorted(described["configs"]), sorted(one["ConfigName"] for one in container.get("Configs") or [])),
        ("update order", "stop-first", (spec.get("UpdateConfig") or {}).get("Order")),
    ]
    wanted, found = _arguments(described["arguments"]), _arguments(container.get("Args") or [])
    pairs += [("setting " + one, wanted.get(one), found.get(one)) for one in sorted(set(wanted) | set(found))]
    return [finding(name, "service_drift", what, asked, there) for what, asked, there in pairs if asked != there]


def _arguments(words: Sequence[str]) -> Dict[str, str]:
    """``-c name=value`` as PostgreSQL takes them: the last one wins."""
    told: Dict[str, str] = {}
    for word in words:
        name, found, value = word.partition("=")
        if word != "-c":
            told[name] = value if found else ""
    return told

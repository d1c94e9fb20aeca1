# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Swarm service's connection and replicas as found and as wanted, and the one update between. Pure.

What a run must remember for the next one is in labels of the service, written by the same update as what they tell of: killed anywhere, a run
leaves either all of it or nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ._errors import PoolsError

REPLICAS = "postgres_pools.replicas"
FORMER = "postgres_pools.former"
# Of the configs and secrets that were made here: for which service, and from which one the first of them was made.
OWNER = "postgres_pools.application"
BASE = "postgres_pools.base"
_KEYS = {"config": "ConfigName", "secret": "SecretName"}


class Found(NamedTuple):
    """Variables by name, None for one that is not set; names of configs and secrets by their target."""

    env: Dict[str, Optional[str]]
    configs: Dict[str, str]
    secrets: Dict[str, str]

    def objects(self, kind: str) -> Dict[str, str]:
        return self.configs if kind == "config" else self.secrets


def replicas(service: Mapping[str, Any]) -> int:
    """:raises PoolsError: it is none that can be stopped by having no replicas."""
    replicated = (service["Spec"].get("Mode") or {}).get("Replicated")
    if replicated is None:
        raise PoolsError(
            "The service {0} has no replicas (it is global, or a job), so it cannot be stopped and started.".format(service["Spec"]["Name"]),
            "Make it a replicated service, or stop and start it by hooks.",
        )
    return int(replicated.get("Replicas", 1))


def remembered(service: Mapping[str, Any]) -> Optional[int]:
    """How many replicas it had when it was stopped here; None if it was not."""
    told = (service["Spec"].get("Labels") or {}).get(REPLICAS)
    if told is not None and not told.isdigit():
        raise PoolsError("The service {0} has the label {1}={2}, which is no number.".format(service["Spec"]["Name"], REPLICAS, told))
    return None if told is None else int(told)


def memory(service: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """What the connection was before: ``env``, ``configs``, ``secrets``, ``to`` (the place of the one after), ``before`` (an older memory)."""
    told = (service["Spec"].get("Labels") or {}).get(FORMER)
    try:
        read = None if told is None else json.loads(told)
        return None if read is None else {"to": read["to"], "before": read["before"], **{kind: dict(read[kind]) for kind in Found._fields}}
    except (ValueError, TypeError, KeyError) as error:
        raise PoolsError(
            "The service {0} has a label {1} that this collection did not write.".format(service["Spec"]["Name"], FORMER),
            "Remove it: docker service update --label-rm {0} {1}".format(FORMER, service["Spec"]["Name"]),
        ) from error


def remember(found: Found, to: str, older: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """The memory before an update to *to*. One of the same move is kept: what is found now may be what that move put in."""
    if older is not None and older["to"] == to:
        return dict(older, **{kind: {**getattr(found, kind), **older[kind]} for kind in Found._fields})
    before = None if older is None else dict(older, before=None)
    return dict({kind: dict(getattr(found, kind)) for kind in Found._fields}, to=to, before=before)


def written(memory_of: Optional[Mapping[str, Any]]) -> Optional[str]:
    return None if memory_of is None else json.dumps(memory_of, sort_keys=True, separators=(",", ":"))


def find(service: Mapping[str, Any], env: Sequence[str], configs: Sequence[str], secrets: Sequence[str]) -> Found:
    """:raises PoolsError: it has no config or secret at a target."""
    container = service["Spec"]["TaskTemplate"]["ContainerSpec"]
    there = dict(one.partition("=")[::2] for one in container.get("Env") or [])
    return Found(
        {name: there.get(name) for name in env},
        {target: _named(service, "config", target)["ConfigName"] for target in configs},
        {target: _named(service, "secret", target)["SecretName"] for target in secrets},
    )


def update(service: Mapping[str, Any], wanted: Found, labels: Mapping[str, Optional[str]], to_have: int) -> List[str]:
    """The words of ``docker service update`` that bring the service there; none if it is there."""
    found = find(service, list(wanted.env), list(wanted.configs), list(wanted.secrets))
    words: List[str] = []
    for name, value in wanted.env.items():
        if value != found.env[name]:
            words += ["--env-rm", name] if value is None else ["--env-add", "{0}={1}".format(name, value)]
    for kind in ("config", "secret"):
        words += _exchange(service, kind, found.objects(kind), wanted.objects(kind))
    there = service["Spec"].get("Labels") or {}
    for name, value in labels.items():
        if value != there.get(name):
            words += ["--label-rm", name] if value is None else ["--label-add", "{0}={1}".format(name, value)]
    return words + (["--replicas", str(to_have)] if to_have != replicas(service) else [])


def object_name(base: str, content: str) -> str:
    """Configs and secrets cannot change: one with another content has another name, of at most 64 characters."""
    return "{0}-{1}".format(base[:51].rstrip("-_."), hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:12])


def in_use(service: Optional[Mapping[str, Any]], kind: str) -> List[str]:
    """Names of the service's configs or secrets, and of those that it remembers."""
    if service is None:
        return []
    used = [reference[_KEYS[kind]] for reference in _references(service, kind)]
    past = memory(service)
    while past is not None:
        used += list(past[kind + "s"].values())
        past = past["before"]
    return used


def shown(found: Found, texts: Mapping[str, str], to_have: int) -> str:
    """For a diff: what is told of the connection. *texts* are those of configs' options, by a line's beginning."""
    lines = ["replicas: {0}".format(to_have)]
    lines += ["env {0}: {1}".format(name, "(not set)" if value is None else value) for name, value in sorted(found.env.items())]
    lines += ["{0}: {1}".format(name, value) for name, value in sorted(texts.items())]
    lines += ["config {0}: {1}".format(target, name) for target, name in sorted(found.configs.items())]
    lines += ["secret {0}: {1}".format(target, name) for target, name in sorted(found.secrets.items())]
    return "\n".join(lines) + "\n"


def _references(service: Mapping[str, Any], kind: str) -> List[Mapping[str, Any]]:
    references = service["Spec"]["TaskTemplate"]["ContainerSpec"].get(kind.capitalize() + "s") or []
    # Without File it is a config that Swarm keeps for itself, such as a credential specification.
    return [reference for reference in references if reference.get("File")]


def _named(service: Mapping[str, Any], kind: str, target: str) -> Mapping[str, Any]:
    root = "/" if kind == "config" else "/run/secrets/"
    targets = {_absolute(root, reference["File"]["Name"]): reference for reference in _references(service, kind)}
    if _absolute(root, target) not in targets:
        raise PoolsError(
            "The service {0} has no {1} at {2}.".format(service["Spec"]["Name"], kind, target),
            "It has {0}.".format(", ".join(sorted(targets)) or "none"),
        )
    return targets[_absolute(root, target)]


def _absolute(root: str, target: str) -> str:
    return target if target.startswith("/") else root + target


def _exchange(service: Mapping[str, Any], kind: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> List[str]:
    changed = {target: name for target, name in wanted.items() if name != found[target]}
    if not changed:
        return []
    gone = sorted({found[target] for target in changed})
    words = [word for name in gone for word in ("--{0}-rm".format(kind), name)]
    exchanged = [(_named(service, kind, target), name) for target, name in sorted(changed.items())]
    # One object may be at several targets, and Docker takes it away from all of them.
    touched = [reference["File"]["Name"] for reference, _name in exchanged]
    others = [one for one in _references(service, kind) if one[_KEYS[kind]] in gone and one["File"]["Name"] not in touched]
    for reference, name in exchanged + [(one, one[_KEYS[kind]]) for one in others]:
        file = reference["File"]
        parts = {"source": name, "target": file["Name"], "uid": file["UID"], "gid": file["GID"], "mode": "0{0:o}".format(file["Mode"])}
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow("{0}={1}".format(key, part) for key, part in parts.items())
        words += ["--{0}-add".format(kind), line.getvalue()]
    return words

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tenants' connection secrets in a Swarm: which is there, which is missing, and making it."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ._connection_secret import DIGEST, INSTANCE, NAME, version_of
from ._errors import PoolsError
from ._swarm_task import inspected

# The arguments of docker and what to write to its standard input; the exit code, standard output and standard error.
Run = Callable[[List[str], Optional[str]], Tuple[int, str, str]]


class Secrets:
    """In *dry* mode everything is looked at and nothing done."""

    def __init__(self, run: Run, dry: bool) -> None:
        self._run, self._dry = run, dry

    def probe(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        """:raises PoolsError: a name is taken by a secret that is not this instance's."""
        there = self._read()
        for one in wanted:
            self._versions(one, there)

    def present(self, wanted: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
        """For each the name of the secret that holds its content, and whether it was made now."""
        there = self._read()
        # All are looked at before the first is made.
        known = [self._match(one, self._versions(one, there)) for one in wanted]
        told = []
        for one, name in zip(wanted, known):
            secret = name or self._make(one, one["name"] in there)
            told.append({"instance_id": one["instance_id"], "name": one["name"], "secret": secret, "changed": name is None})
        return told

    def absent(self, wanted: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
        """:raises PoolsError: a service still uses one. The others are gone by then."""
        there = self._read()
        versions = [self._versions(one, there) for one in wanted]
        told, held = [], []
        for one, found in zip(wanted, versions):
            gone = [name for name in sorted(found) if self._dry or self._remove(name)]
            held += sorted(set(found) - set(gone))
            told.append({"instance_id": one["instance_id"], "name": one["name"], "removed": gone, "changed": bool(gone)})
        if held:
            raise PoolsError("These secrets are used by a service: {0}.".format(", ".join(held)), "Remove the services, or take the secrets from them, first.")
        return told

    # --- what is there

    def _read(self) -> Dict[str, Dict[str, str]]:
        """The labels of every secret, by its name."""
        code, out, err = self._run(["secret", "ls", "--quiet"], None)
        ids = out.split()
        if code or not ids:
            return self._refuse("secret ls", err) if code else {}
        code, out, err = self._run(["secret", "inspect", *ids], None)
        found = inspected(code, out, err)
        if found is None:
            return self._refuse("secret inspect", err)
        return {one["Spec"]["Name"]: dict(one["Spec"].get("Labels") or {}) for one in found}

    @staticmethod
    def _refuse(verb: str, err: str) -> Any:
        raise PoolsError("docker {0}: {1}".format(verb, " ".join(err.split())[-500:]))

    @staticmethod
    def _versions(one: Mapping[str, Any], there: Mapping[str, Mapping[str, str]]) -> Dict[str, Mapping[str, str]]:
        name, instance = one["name"], one["instance_id"]
        if name in there and there[name].get(NAME) != name:
            raise PoolsError(
                "There is a secret {0} already, and it is no connection secret.".format(name),
                "Choose another name, or remove it: docker secret rm {0}".format(name),
            )
        found = {other: labels for other, labels in there.items() if labels.get(NAME) == name}
        others = sorted({labels.get(INSTANCE, "?") for labels in found.values()} - {instance})
        if others:
            raise PoolsError(
                "The connection secret {0} is that of instance {1}.".format(name, others[0]),
                "Choose another name for instance {0}.".format(instance),
            )
        return found

    @staticmethod
    def _match(one: Mapping[str, Any], versions: Mapping[str, Mapping[str, str]]) -> Optional[str]:
        same = sorted(name for name, labels in versions.items() if labels.get(DIGEST) in one["digests"])
        # The name that was asked for is the first choice, whatever else holds the same.
        return one["name"] if one["name"] in same else same[0] if same else None

    # --- what is done

    def _make(self, one: Mapping[str, Any], taken: bool) -> str:
        name = version_of(one["name"], one["digests"][0]) if taken else str(one["name"])
        if self._dry:
            return name
        labels = {NAME: one["name"], INSTANCE: one["instance_id"], DIGEST: one["digests"][0]}
        words = [word for key, value in sorted(labels.items()) for word in ("--label", "{0}={1}".format(key, value))]
        # By standard input: an argument is read by everybody on the machine.
        code, _out, err = self._run(["secret", "create", *words, name, "-"], one["content"])
        if not code:
            return name
        # Another run may have made the same one in between.
        made = self._match(one, self._versions(one, self._read()))
        return made or str(self._refuse("secret create " + name, err))

    def _remove(self, name: str) -> bool:
        code, _out, err = self._run(["secret", "rm", name], None)
        if code and "in use" not in err and "no such" not in err.lower() and "not found" not in err.lower():
            self._refuse("secret rm " + name, err)
        return not code or "in use" not in err


def shown(told: Sequence[Mapping[str, Any]]) -> str:
    """For a diff: which secrets, never what is in them."""
    return json.dumps([{key: one[key] for key in ("instance_id", "secret", "removed") if key in one} for one in told], indent=1) + "\n"

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of an application that is a Swarm service: stopped, started, restored, settled."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from . import _application_connection, _application_ini, _application_service
from ._application_manager import Manager
from ._application_service import BASE, FORMER, OWNER, REPLICAS, Found
from ._application_wait import OvertakenError, Waiting
from ._errors import PoolsError


class Application:
    """One service. In *dry* mode everything is looked at and nothing done.

    :param params: the options of the module ``swarm_application``.
    """

    def __init__(self, manager: Manager, params: Mapping[str, Any], dry: bool) -> None:
        self._manager, self._params, self._dry = manager, params, dry
        self._name: str = params["service"]
        self._changed = False
        self._warnings: List[str] = []
        self._diff: Dict[str, str] = {}
        self._removed: List[str] = []
        self._waiting = Waiting(manager, params, dry)

    def bring(self) -> Dict[str, Any]:
        """:raises PoolsError: it does not get there."""
        states: Dict[str, Callable[[], int]] = {
            "stopped": self._stopped,
            "started": self._started,
            "restored": self._restored,
            "settled": self._settled,
        }
        count = states[self._params["state"]]()
        return {
            "changed": self._changed,
            "replicas": count,
            "words": self._waiting.words,
            "removed": self._removed,
            "warnings": self._warnings,
            "diff": self._diff,
        }

    def _service(self) -> Dict[str, Any]:
        return self._waiting.service()

    # --- states

    def _stopped(self) -> int:
        service = self._service()
        count = _application_service.replicas(service)
        if not count and _application_service.remembered(service) is None:
            self._warnings.append("The service {0} had no replicas already: somebody else stopped it.".format(self._name))
        labels: Dict[str, Optional[str]] = {REPLICAS: str(count)} if count else {}
        self._check(service)
        self._update(service, self._here(service), labels, 0)
        self._waiting.gone()
        return 0

    def _started(self) -> int:
        service = self._service()
        _application_service.replicas(service)
        older, here = _application_service.memory(service), self._here(service)
        wanted, texts = self._wanted(here)
        to = _application_connection.place(self._params["connection"] or {})
        # The update is not yet made when its configs and secrets are, so a run killed between leaves nothing but those.
        past = _application_service.remember(here, to, older) if wanted != here else older
        count = self._count(service)
        self._update(service, wanted, {FORMER: _application_service.written(past), REPLICAS: None}, count, texts)
        try:
            self._waiting.up(count, past["to"] if past else None)
        except OvertakenError:
            # What somebody else put in is not to be taken out again.
            raise
        except PoolsError as error:
            self._put_back(error, count)
        return count

    def _put_back(self, error: PoolsError, count: int) -> None:
        service = self._service()
        past = _application_service.memory(service)
        former, keep = self._here(service), past
        if past is not None and past["to"] == self._to():
            former, keep = self._former(past), past["before"]
        self._update(service, former, {FORMER: _application_service.written(keep), REPLICAS: str(count)}, 0)
        told = "Its former connection was put back, and it is stopped."
        try:
            self._waiting.gone()
        except PoolsError as late:
            told = "Its former connection was put back. {0}".format(late.problem)
        raise PoolsError("{0} {1}".format(error.problem, told), error.remedy)

    def _restored(self) -> int:
        service = self._service()
        past = _application_service.memory(service)
        # A memory of the move that brought the tenant to where it is to stay is for another way back.
        back = past is not None and past["to"] != self._to()
        former = self._former(past) if past is not None and back else self._here(service)
        keep = past["before"] if past is not None and back else past
        count = self._count(service)
        self._update(service, former, {FORMER: _application_service.written(keep), REPLICAS: None}, count)
        self._waiting.up(count, None)
        self._sweep()
        return count

    def _settled(self) -> int:
        service = self._manager.service(self._name)
        if service is None:
            self._sweep()
            return 0
        count = _application_service.replicas(service)
        self._update(service, self._here(service), {FORMER: None}, count)
        self._sweep()
        return count

    # --- what is wanted

    def _to(self) -> str:
        return _application_connection.place(self._params["connection"] or {})

    @staticmethod
    def _former(past: Mapping[str, Any]) -> Found:
        return Found(past["env"], past["configs"], past["secrets"])

    def _check(self, service: Mapping[str, Any]) -> None:
        """What could not be put in later is better known while the application still runs.

        :raises PoolsError: a part is secret or unknown, or the service has no such config, section or secret.
        """
        params = self._params
        _application_connection.check(params["env"], "The variable")
        here = self._found(service)
        for entry in params["config"]:
            where = "The config {0}".format(entry["target"])
            _application_connection.check(entry["keys"], "{0}, key".format(where))
            _application_ini.edit(self._manager.content(here.configs[entry["target"]]), entry["section"], {}, where)

    def _here(self, service: Mapping[str, Any]) -> Found:
        """Where its connection is not the matter, none of it."""
        return Found({}, {}, {}) if self._params["state"] in ("stopped", "settled") else self._found(service)

    def _found(self, service: Mapping[str, Any]) -> Found:
        params = self._params
        targets = [[one["target"] for one in params[kind]] for kind in ("config", "secrets")]
        return _application_service.find(service, list(params["env"]), *targets)

    def _count(self, service: Mapping[str, Any]) -> int:
        count, before = _application_service.replicas(service), _application_service.remembered(service)
        if not count and before is None:
            self._warnings.append("The service {0} stays without replicas: it was not stopped here.".format(self._name))
        return count or before or 0

    def _wanted(self, here: Found) -> Tuple[Found, Tuple[Dict[str, str], Dict[str, str]]]:
        """With the texts of the configs' options before and after, for the diff."""
        params = self._params
        connection = params["connection"] or {}
        env: Dict[str, Optional[str]] = dict(_application_connection.values(connection, params["env"], "The variable"))
        contents: Dict[str, str] = {}
        before: Dict[str, str] = {}
        after: Dict[str, str] = {}
        for entry in params["config"]:
            target, where = entry["target"], "The config {0}".format(entry["target"])
            asked = _application_connection.values(connection, entry["keys"], "{0}, key".format(where))
            if target not in contents:
                contents[target] = self._manager.content(here.configs[target])
            edited = _application_ini.edit(contents[target], entry["section"], asked, where)
            contents[target] = edited.text
            for key, value in asked.items():
                line = "config {0} [{1}] {2}".format(target, entry["section"], key)
                before[line], after[line] = ", ".join(edited.former[key]) or "(not set)", value
        configs = {target: self._object("config", here.configs[target], text) for target, text in contents.items()}
        secrets = {one["target"]: self._object("secret", here.secrets[one["target"]], one["content"]) for one in params["secrets"]}
        return Found(env, configs, secrets), (before, after)

    def _object(self, kind: str, present: str, content: str) -> str:
        """The name of the config or secret with this content, made if it is not there. *present* is the one that the service has."""
        if kind == "config" and self._manager.content(present) == content:
            return present
        labels = self._manager.labels(kind, present)
        base = labels.get(BASE, present) if labels.get(OWNER) == self._name else present
        name = _application_service.object_name(base, content)
        if name != present and not self._dry:
            # With a stack's label it goes when the stack does.
            self._manager.create(kind, name, content, dict(labels, **{OWNER: self._name, BASE: base}))
        return name

    # --- what is done

    def _update(
        self,
        service: Mapping[str, Any],
        wanted: Found,
        labels: Mapping[str, Optional[str]],
        count: int,
        texts: Tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
    ) -> None:
        words = _application_service.update(service, wanted, labels, count)
        if not words:
            return
        found = _application_service.find(service, list(wanted.env), list(wanted.configs), list(wanted.secrets))
        self._changed = True
        self._diff = {
            "before": _application_service.shown(found, texts[0], _application_service.replicas(service)),
            "after": _application_service.shown(wanted, texts[1], count),
            "before_header": "service " + self._name,
            "after_header": "service " + self._name,
        }
        if not self._dry:
            self._manager.update(self._name, words)

    def _sweep(self) -> None:
        """Remove the configs and secrets that were made here and are of no use any more. Those that others made are theirs to remove."""
        service = self._manager.service(self._name)
        for kind in ("config", "secret"):
            used = _application_service.in_use(service, kind)
            for name in self._manager.named(kind, "label={0}={1}".format(OWNER, self._name)):
                if name not in used and not self._dry and self._manager.remove(kind, name):
                    self._changed = True
                    self._removed.append("{0} {1}".format(kind, name))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's application as an allocation or a move names it, looked at before it is kept or anything is touched. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import _application_connection
from ._errors import PoolsError
from ._pooler import SPEC as POOLER

_STRING = {"type": "str", "required": True}
_PARTS = {"type": "dict", "required": True}
_HOOKS = {
    "type": "list",
    "elements": "dict",
    "options": {"name": _STRING, "command": {"type": "list", "elements": "str"}, "tasks_file": {"type": "path"}},
}
# As in roles/tenant_application/meta/argument_specs.yml; a test holds them side by side.
SPEC: Dict[str, Any] = {
    "service": {"type": "str"},
    "env": {"type": "dict"},
    "config": {
        "type": "list",
        "elements": "dict",
        "options": {"target": _STRING, "section": {"type": "str", "default": "options"}, "keys": _PARTS},
    },
    "secrets": {"type": "list", "elements": "dict", "options": {"target": _STRING, "content": _STRING}},
    "file": {
        "type": "list",
        "elements": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "section": {"type": "str", "default": "options"},
            "keys": _PARTS,
            "host": {"type": "str"},
        },
    },
    "pooler": {"type": "dict", "options": POOLER},
    "hooks": {"type": "dict", "options": {"stop": _HOOKS, "start": _HOOKS, "restore": _HOOKS}},
    "healthy_timeout": {"type": "int", "default": 120},
    "stable_seconds": {"type": "int", "default": 5},
    "stop_timeout": {"type": "int", "default": 120},
}
_REMEDY = "The role tenant_application says what an application can have. Nothing was changed."
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
_SERVICE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
# A password written out in a URL or in a connection string, where only a part in braces belongs.
_LITERAL = re.compile(r"://[^/@\s]*:(?!\{password\}@)[^/@\s]*@|\bpassword\s*=\s*(?!['\"]?\{password\})\S", re.IGNORECASE)


def described(given: Mapping[str, Any]) -> Dict[str, Any]:
    """What is kept of *given*: all that it says and no defaults, each of its type.

    :raises PoolsError: names everything that is wrong with it.
    """
    checked = ArgumentSpecValidator(SPEC).validate(dict(given))
    problems: List[str] = [" ".join(message.split()).rstrip(".") for message in checked.error_messages]
    if not problems:
        found = _as_given(given, checked.validated_parameters)
        problems = _problems(found)
        if not problems:
            return dict(found)
    raise PoolsError("The application is not right: {0}.".format("; ".join(problems)), _REMEDY)


def refuse_password(application: Mapping[str, Any], password: str, instance_id: str) -> None:
    """What is kept of an application can be read by everybody who may read the inventory.

    :raises PoolsError: the tenant's password stands in it.
    """
    if password and password in json.dumps(application, ensure_ascii=False):
        raise PoolsError(
            "The application of instance {0} has the tenant's password in it.".format(instance_id),
            "Name the part instead: secrets with the content password or dsn. Nothing of it was kept.",
        )


def _as_given(given: Any, checked: Any) -> Any:
    """Without the defaults and the empty options that the check fills in: what a later release has for them is to be in force then."""
    if isinstance(checked, dict) and isinstance(given, Mapping):
        return {key: _as_given(value, checked[key]) for key, value in given.items() if value is not None}
    if isinstance(checked, list) and isinstance(given, (list, tuple)):
        return [_as_given(*pair) for pair in zip(given, checked)]
    # A path is one of another host, whose home directories are not those of this one.
    return given if isinstance(checked, str) and isinstance(given, str) else checked


def _problems(found: Mapping[str, Any]) -> List[str]:
    told: List[Optional[str]] = []
    service = found.get("service")
    if service is not None and not _SERVICE.match(service):
        told.append("service {0!r} is no name of a Swarm service".format(service[:80]))
    told += ["env {0!r} is no name of a variable".format(str(name)[:80]) for name in found.get("env", {}) if not _VARIABLE.match(str(name))]
    told.append(_refused(lambda: _application_connection.check(found.get("env", {}), "env")))
    for kind, name in (("config", "target"), ("file", "path")):
        for entry in found.get(kind, []):
            where = "{0} {1}".format(kind, entry[name])
            told.append("{0} names no keys".format(where) if not entry["keys"] else None)
            told.append(_refused(lambda entry=entry, where=where: _application_connection.check(entry["keys"], "{0}, key".format(where))))
    for entry in found.get("secrets", []):
        where = "secret {0}".format(entry["target"])
        told.append(_refused(lambda entry=entry, where=where: _application_connection.check_content(entry["content"], where)))
        told.append("{0} has a password written out; name it as a part".format(where) if _LITERAL.search(entry["content"]) else None)
    told += [one for kind, hooks in found.get("hooks", {}).items() for one in _wrong_hooks(kind, hooks)]
    for seconds in ("healthy_timeout", "stable_seconds", "stop_timeout"):
        if found.get(seconds, 0) < 0:
            told.append("{0} is {1}; it is 0 or more".format(seconds, found[seconds]))
    if not service and any(found.get(kind) for kind in ("env", "config", "secrets")):
        told.append("env, config and secrets are a Swarm service's, and service is not named")
    return [one for one in told if one]


def _wrong_hooks(kind: str, hooks: Sequence[Mapping[str, Any]]) -> List[str]:
    return [
        "hooks {0}: {1} must have either command or tasks_file".format(kind, hook["name"])
        for hook in hooks
        if bool(hook.get("command")) == bool(hook.get("tasks_file"))
    ]


def _refused(check: Any) -> Optional[str]:
    try:
        check()
    except PoolsError as error:
        return error.problem.rstrip(".")
    return None

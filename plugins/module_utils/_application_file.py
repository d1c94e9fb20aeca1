# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application's INI file on a host, and beside it what its options held before."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from typing import Any, Callable, Dict, List, Mapping, Optional

from . import _application_connection, _application_ini
from ._errors import PoolsError

# From a finished file to its place, with the mode and the owner of the one that is there.
Move = Callable[[str, str], None]


def memory_path(path: str) -> str:
    return os.path.join(os.path.dirname(path), ".{0}.postgres_pools.json".format(os.path.basename(path)))


def bring(params: Mapping[str, Any], dry: bool, move: Move) -> Dict[str, Any]:
    """:param params: the options of the module ``application_file``.
    :raises PoolsError: the file is not there, has no such section, or may not be written.
    """
    path, section = os.path.realpath(params["path"]), params["section"]
    if params["state"] == "settled":
        return _settled(path, section, dry)
    connection = params["connection"] or {}
    to = _application_connection.place(connection)
    try:
        text, memory = _read(path), _memory(path)
        past = memory.get(section)
        wanted: Mapping[str, Any] = {}
        kept = past
        _application_connection.check(params["keys"], "The file {0}, key".format(path))
        if params["state"] == "started" and params.get("pooled"):
            wanted = _pooled(text, section, params["keys"], connection, "The file {0}".format(path))
        elif params["state"] == "started":
            wanted = _application_connection.values(connection, params["keys"], "The file {0}, key".format(path))
        elif past is not None and params["state"] in ("restored", "withdrawn") and (past["to"] == to) == (params["state"] == "withdrawn"):
            wanted, kept = past["options"], past["before"]
        edited = _application_ini.edit(text, section, wanted, "The file {0}".format(path))
        changed = edited.text != text
        if params["state"] == "started" and changed:
            kept = _remember(edited.former, to, past)
        if not dry:
            # What was there is on the disk before it is taken out, and stays until it is back.
            first = [lambda: _write_memory(path, memory, section, kept)] if kept != past else []
            second = [lambda: _replace(path, edited.text, move)] if changed else []
            for step in first + second if params["state"] == "started" else second + first:
                step()
    except OSError as error:
        raise PoolsError("The file {0} cannot be used: {1}.".format(path, error.strerror or error)) from error
    # A line of a pooler's may hold a password.
    shown = changed and not params.get("pooled")
    return {"changed": changed or kept != past, "path": path, "diff": _difference(path, section, edited.former, wanted) if shown else {}}


def _pooled(text: str, section: str, keys: Mapping[str, Any], connection: Mapping[str, Any], where: str) -> Dict[str, List[str]]:
    """Each of a pooler's databases as it is there, with another host and port."""
    former = _application_ini.edit(text, section, {key: [] for key in keys}, where).former
    missing = [key for key in keys if not former[key]]
    if missing:
        raise PoolsError(
            "{0} has no {1} in [{2}].".format(where, ", ".join(missing), section), "Give the tenant a line of its own there, with its host and port."
        )
    return {key: [_application_connection.pooled(connection, line, "{0}, {1}".format(where, key)) for line in former[key]] for key in keys}


def _settled(path: str, section: str, dry: bool) -> Dict[str, Any]:
    """Also of a file that is gone with its application: then there is nothing to put back either."""
    try:
        memory = _memory(path)
        if section in memory and not dry:
            _write_memory(path, memory, section, None)
    except OSError as error:
        raise PoolsError("{0} cannot be removed: {1}.".format(memory_path(path), error.strerror or error)) from error
    return {"changed": section in memory, "path": path, "diff": {}}


def _remember(former: Mapping[str, Any], to: str, past: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """Of the same move the first memory is kept: what is found now may be what that move put in."""
    if past is not None and past["to"] == to:
        return dict(past, options={**former, **past["options"]})
    return {"to": to, "options": dict(former), "before": None if past is None else dict(past, before=None)}


def _read(path: str) -> str:
    with open(path, "rb") as stream:
        return stream.read().decode("utf-8", "surrogateescape")


def _memory(path: str) -> Dict[str, Any]:
    try:
        with open(memory_path(path), encoding="utf-8") as stream:
            read = json.load(stream)
        return {section: {"to": one["to"], "options": dict(one["options"]), "before": one["before"]} for section, one in read.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PoolsError("{0} was not written by this collection.".format(memory_path(path)), "Move it away.") from error


def _write_memory(path: str, memory: Mapping[str, Any], section: str, kept: Optional[Mapping[str, Any]]) -> None:
    left = {name: one for name, one in memory.items() if name != section}
    if kept is not None:
        left[section] = kept
    if not left:
        os.unlink(memory_path(path))
        return
    os.replace(_written(path, json.dumps(left, indent=1, sort_keys=True) + "\n"), memory_path(path))


def _replace(path: str, text: str, move: Move) -> None:
    finished = _written(path, text)
    try:
        move(finished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(finished)


def _written(path: str, text: str) -> str:
    """A new file in the same directory that only its owner may read."""
    descriptor, name = tempfile.mkstemp(prefix=".postgres_pools.", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return name


def _difference(path: str, section: str, former: Mapping[str, Any], wanted: Mapping[str, Any]) -> Dict[str, str]:
    def lines(options: Mapping[str, Any]) -> str:
        told = {key: [one] if isinstance(one, str) else list(one) for key, one in options.items()}
        return "".join("[{0}] {1} = {2}\n".format(section, key, ", ".join(one) or "(not set)") for key, one in sorted(told.items()))

    return {"before": lines(former), "after": lines(wanted), "before_header": path, "after_header": path}

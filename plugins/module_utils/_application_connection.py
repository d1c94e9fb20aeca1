# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parts of a tenant's connection an application is told, and where. Pure, but for opening the password."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Sequence
from urllib.parse import quote

from ._errors import PoolsError
from ._secrets import Cipher, keys_from

# What everybody may read who may look at a service, a config or a file.
PARTS = ("host", "port", "database", "user", "sslmode")
SECRET_PARTS = (*PARTS, "password", "dsn", "ca_certificate")
_WORD = re.compile(r"(?P<key>[a-z_]+)\s*=\s*(?P<value>'(?:[^']|'')*'|[^\s']*)")
_WORDS = re.compile(r"^\s*(?:[a-z_]+\s*=\s*(?:'(?:[^']|'')*'|[^\s']*)\s*)*\Z")
_PLACE = re.compile(r"\{([a-z_]+)\}")


def connection_spec() -> Dict[str, Any]:
    """The suboptions of a connection without what is secret."""
    return {
        "host": {"type": "str"},
        "port": {"type": "int"},
        "database": {"type": "str"},
        "user": {"type": "str"},
        "sslmode": {"type": "str"},
    }


def config_spec() -> Dict[str, Any]:
    """The suboptions with which options of an INI file are named."""
    return {"section": {"type": "str", "default": "options"}, "keys": {"type": "dict", "required": True, "no_log": False}}


def check(asked: Mapping[str, Any], where: str) -> None:
    """:raises PoolsError: a name is to hold a part that there is not, or that is secret."""
    for name, part in asked.items():
        _check(part, "{0} {1}".format(where, name))


def value(connection: Mapping[str, Any], part: Any, where: str) -> str:
    """:raises PoolsError: there is no such part, it is secret, or this connection lacks it."""
    _check(part, where)
    return _text(connection, part, where)


def _check(part: Any, where: str) -> None:
    if part in SECRET_PARTS and part not in PARTS:
        raise PoolsError(
            "{0} asks for {1}, which could then be read where it does not belong.".format(where, part),
            "A move keeps the password; an application that takes it with its address gets it by a Swarm secret.",
        )
    if part not in PARTS:
        raise PoolsError("{0} asks for {1!r}, which no connection has.".format(where, part), "It has {0}.".format(", ".join(PARTS)))


def values(connection: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> Dict[str, str]:
    """What each name is to hold: *asked* has a part for each."""
    return {name: value(connection, part, "{0} {1}".format(where, name)) for name, part in asked.items()}


def pooled(connection: Mapping[str, Any], line: str, where: str) -> str:
    """A connection string of PgBouncer's, ``host=… port=… pool_size=…``, with this host and port and all else as it is.

    :raises PoolsError: it is no such string, or leads to more than one host.
    """
    if not _WORDS.match(line):
        raise PoolsError("{0} is no connection string.".format(where), "Write it as host=… port=… and what else it needs.")
    words = [(match.group("key"), match.group("value")) for match in _WORD.finditer(line)]
    if any(key == "host" and "," in told for key, told in words):
        raise PoolsError("{0} leads to more than one host.".format(where), "A tenant is on one server.")
    for part in ("host", "port"):
        told = _text(connection, part, where)
        if any(key == part for key, _told in words):
            words = [(key, told if key == part else kept) for key, kept in words]
        else:
            words.insert(0 if part == "host" else 1, (part, told))
    return " ".join("{0}={1}".format(*word) for word in words)


def content(connection: Mapping[str, Any], template: str, where: str) -> str:
    """The whole content of a secret: one part, or a text with parts in braces.

    :raises PoolsError: it names no part, or one that there is not.
    """
    check_content(template, where)
    if template in SECRET_PARTS:
        return _secret(connection, template, where)
    return _PLACE.sub(lambda match: _secret(connection, match.group(1), where), template)


def check_content(template: str, where: str) -> None:
    """:raises PoolsError: it names no part, or one that there is not."""
    if template in SECRET_PARTS:
        return
    named = _PLACE.findall(template)
    unknown = [part for part in named if part not in SECRET_PARTS]
    if unknown or not named:
        raise PoolsError(
            "{0}: {1}.".format(where, "no connection has " + ", ".join(unknown) if unknown else "its content names no part of a connection"),
            "Give one of {0}, or a text with some of them in braces, such as {{host}}.".format(", ".join(SECRET_PARTS)),
        )


def contents(connection: Mapping[str, Any], entries: Sequence[Mapping[str, str]], keys: Mapping[str, Any]) -> List[Dict[str, str]]:
    """What each secret is to hold, in clear.

    :param keys: the options ``secret_keys`` and ``secret_key_file``.
    :raises PoolsError: no key opens the password, or an entry cannot be filled.
    """
    opened = dict(connection)
    token = opened.pop("password_encrypted", None)
    if token:
        opened["password"] = Cipher(keys_from(keys)).decrypt(token, "user {0}".format(connection.get("user")))
    return [{"target": one["target"], "content": content(opened, one["content"], "The secret {0}".format(one["target"]))} for one in entries]


def place(connection: Mapping[str, Any]) -> str:
    """Where the database is: by it a second call of a move is known from another move, also when anything else of the connection changed since."""
    return "{0}:{1}".format(connection["host"], connection.get("port") or "") if connection.get("host") else ""


def _text(connection: Mapping[str, Any], part: str, where: str) -> str:
    told = connection.get(part)
    if told is None or told == "":
        raise PoolsError("{0} asks for {1}, which the connection given does not have.".format(where, part))
    text = str(told)
    if part != "ca_certificate" and re.search(r"[\x00-\x1f\x7f]", text):
        raise PoolsError("{0}: the connection's {1} has a control character in it.".format(where, part))
    return text


def _secret(connection: Mapping[str, Any], part: str, where: str) -> str:
    if part != "dsn":
        return _text(connection, part, where)
    told = {one: _text(connection, one, where) for one in ("host", "port", "database", "user", "password")}
    quoted = {one: text if one in ("host", "port") else quote(text, safe="") for one, text in told.items()}
    mode = connection.get("sslmode")
    return "postgresql://{user}:{password}@{host}:{port}/{database}".format(**quoted) + ("?sslmode={0}".format(mode) if mode else "")

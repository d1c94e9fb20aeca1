# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of a server's own configuration file, and reading it back. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Dict, List, Mapping

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

# A placeholder setting that only the file sets: what a session reads there tells which file the server has loaded.
MARKER = "postgres_pools.config"
# Settings that other options of postgres_process decide.
RESERVED = frozenset(
    (
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "port",
        "unix_socket_directories",
        MARKER,
    )
)
HEAD = "# Written by saasodoo.postgres_pools; what is changed here is lost at the next run.\n"
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$")
LINE = re.compile(r"^([A-Za-z0-9_.]+) = '(.*)'$")


def normal(settings: Mapping[str, Any]) -> Dict[str, str]:
    """Names in lower case and values as text, or a refusal that names the setting."""
    result: Dict[str, str] = {}
    for name, value in settings.items():
        key = str(name).lower()
        if not NAME.match(key):
            raise PoolsError("'{0}' is no name of a PostgreSQL setting.".format(name))
        if key in RESERVED:
            raise PoolsError(
                "The setting '{0}' cannot be given in settings: it follows from other options.".format(name)
            )
        if value is None or isinstance(value, (dict, list)):
            raise PoolsError("The setting '{0}' needs a single value.".format(name))
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        if re.search(r"[\x00-\x1f]", text):
            raise PoolsError("The value of the setting '{0}' holds a control character.".format(name))
        result[key] = text
    return result


def render_hba(lines: List[str]) -> str:
    for line in lines:
        if re.search(r"[\x00\r\n]", line):
            raise PoolsError("A line of hba holds a line break.", "Give each record as a line of its own.")
    return HEAD + "".join(line + "\n" for line in lines)


def render(settings: Mapping[str, str], listen_addresses: str, port: int, hba: str) -> str:
    wanted = dict(settings)
    wanted["listen_addresses"] = listen_addresses
    wanted["port"] = str(port)
    # TCP only: a socket's path is limited to 107 bytes, which a server's directory may well exceed.
    wanted["unix_socket_directories"] = ""
    lines = "".join("{0} = '{1}'\n".format(name, _quoted(wanted[name])) for name in sorted(wanted))
    mark = hashlib.sha256((lines + hba).encode("utf-8")).hexdigest()
    return "{0}{1}{2} = '{3}'\n".format(HEAD, lines, MARKER, mark)


def parse(text: str) -> Dict[str, str]:
    """The settings in a text that render() made; of any other text whatever looks like them."""
    found = (LINE.match(line) for line in text.splitlines())
    return {one.group(1): one.group(2).replace("''", "'").replace("\\\\", "\\") for one in found if one}


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at before anything is sent.

A string that reaches Ansible as an extra variable is a template there: what a customer typed must not get that far.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from ._errors import Refused

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def identifier(name: str, value: Any) -> str:
    """*value* as a UUID is written, since the playbooks know an instance by that."""
    try:
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(str(value)))
    except ValueError:
        raise Refused("{0} is no UUID: {1!r}.".format(name, str(value)[:60])) from None


def word(name: str, value: Any) -> str:
    """The name of a plan, a server, a secret."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise Refused(
            "{0} may have letters, digits, '_', '.' and '-', at most 64: {1!r}.".format(name, str(value)[:60])
        )
    return value


def untemplated(name: str, value: Any) -> Any:
    """*value* itself, if no string in it would be a template to Ansible."""
    if isinstance(value, dict):
        for key, inner in value.items():
            untemplated(name, key)
            untemplated("{0}.{1}".format(name, key), inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            untemplated(name, inner)
    elif isinstance(value, str) and _TEMPLATE.search(value):
        raise Refused("{0} holds a template, which Ansible would evaluate: {1!r}.".format(name, value[:60]))
    return value

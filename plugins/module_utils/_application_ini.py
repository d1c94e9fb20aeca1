# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of an INI file changed in its text, so that comments, order, spacing and all other options stay. Pure.

What a file means is as Python's ``configparser`` reads it, which Odoo does: names of options in any case, ``=`` or ``:`` after them, a ``#`` or ``;``
only at the beginning of a line, deeper indented lines going on with the value above. A name that is there more than once is changed everywhere,
since readers differ in which of them counts.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

from ._errors import PoolsError

# A text for each occurrence, or one list with a text for each; an empty list is an option that is not there.
Wanted = Union[str, Sequence[str]]

_SECTION = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<head>\s*(?P<name>[^=:\s][^=:]*?)\s*[=:][^\S\r\n]*)(?P<value>[^\r\n]*?)[^\S\r\n]*(?P<end>\r?\n)?$")


class Edited(NamedTuple):
    text: str
    # What each option held, for a later edit that puts it back.
    former: Dict[str, List[str]]


class _Option(NamedTuple):
    """Lines *first* up to *end* of the file."""

    name: str
    first: int
    end: int


def edit(text: str, section: str, wanted: Mapping[str, Wanted], where: str) -> Edited:
    """:raises PoolsError: *where* has no such section, or a value would be more than one line."""
    for key, value in wanted.items():
        if isinstance(value, str) and re.search(r"[\r\n\0]", value):
            raise PoolsError("{0}: the value for {1} is more than one line.".format(where, key))
    # Not splitlines, for which there are many more ends of lines than for a reader of the file.
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    options, section_end = _read(lines, section, where)
    former: Dict[str, List[str]] = {}
    added: List[str] = []
    for key, value in wanted.items():
        found = [option for option in options if option.name == key.lower()]
        former[key] = [_value(lines, option) for option in found]
        texts = [value] if isinstance(value, str) else list(value)
        if not found:
            added += ["{0} = {1}".format(key, one) for one in texts]
        for number, option in enumerate(found):
            _set(lines, option, texts[min(number, len(texts) - 1)] if texts else None, newline)
    return Edited(_with(lines, section_end, added, newline), former)


def _read(lines: Sequence[str], section: str, where: str) -> Tuple[List[_Option], int]:
    """The section's options, and the line behind its last one that says something."""
    options: List[_Option] = []
    end, names, inside, indent, open_option = -1, [], False, 0, False
    for number, line in enumerate(lines):
        bare = line.strip().lstrip("\ufeff")
        if not bare or bare[0] in "#;":
            continue
        depth = len(line) - len(line.lstrip())
        if open_option and depth > indent:
            if inside:
                options[-1] = options[-1]._replace(end=number + 1)
                end = number + 1
            continue
        indent, open_option = depth, False
        header = _SECTION.match(bare)
        if header:
            names.append(header.group("name"))
            inside = header.group("name") == section
        option = None if header else _OPTION.match(line)
        open_option = option is not None
        if option and inside:
            options.append(_Option(option.group("name").lower(), number, number + 1))
        if inside:
            end = number + 1
    if end < 0:
        there = ", ".join("[{0}]".format(name) for name in names) or "none at all"
        raise PoolsError(
            "{0} has no section [{1}].".format(where, section), "Name one that it has ({0}), or add the section.".format(there)
        )
    return options, end


def _matched(lines: Sequence[str], option: _Option) -> re.Match[str]:
    match = _OPTION.match(lines[option.first])
    if match is None:
        raise ValueError("line {0} is no option's".format(option.first + 1))
    return match


def _value(lines: Sequence[str], option: _Option) -> str:
    match = _matched(lines, option)
    rest = "".join(lines[option.first + 1 : option.end]).rstrip("\r\n")
    return match.group("value") + ((match.group("end") or "") + rest if rest else "")


def _set(lines: List[str], option: _Option, value: Union[str, None], newline: str) -> None:
    if value is not None and value == _value(lines, option):
        return
    match = _matched(lines, option)
    ended = lines[option.end - 1].endswith("\n")
    # Emptied and not taken out: the numbers of the other options' lines still hold.
    for number in range(option.first, option.end):
        lines[number] = ""
    if value is not None:
        lines[option.first] = match.group("head") + value + ((match.group("end") or newline) if ended else "")
    elif not ended:
        before = [number for number in range(option.first) if lines[number]]
        if before:
            lines[before[-1]] = lines[before[-1]].rstrip("\r\n")


def _with(lines: List[str], place: int, added: Sequence[str], newline: str) -> str:
    head, tail = "".join(lines[:place]), "".join(lines[place:])
    if not added:
        return head + tail
    # A file that ends without an end of line goes on doing so.
    ended = head.endswith("\n")
    return head + ("" if ended else newline) + newline.join(added) + (newline if ended or tail else "") + tail

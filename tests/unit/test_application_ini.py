# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options changed in an INI file's text: what a reader of the file then gets, and that nothing else moves."""

from __future__ import annotations

import configparser
from typing import Dict, List, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _application_ini
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

ODOO = """\
; of the tenant Größe
[options]
# where the data are
db_host = postgres-pool-1
db_port=5432
db_password = a=b;c#d
addons_path = /mnt/a,
    /mnt/b
    ; not a value
    /mnt/c

[queue]
db_host = other
"""
NEW = {"db_host": "postgres-dedicated-1", "db_port": "6432"}


def edit(text: str, wanted: Dict[str, str], section: str = "options") -> _application_ini.Edited:
    """Changed, changed again without effect, and put back byte for byte."""
    edited = _application_ini.edit(text, section, wanted, "The file")
    assert _application_ini.edit(edited.text, section, wanted, "The file").text == edited.text
    assert _application_ini.edit(edited.text, section, edited.former, "The file").text == text
    return edited


def read(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    return parser


def test_only_the_named_options_of_the_section_change() -> None:
    edited = edit(ODOO, NEW)
    assert edited.text == ODOO.replace("postgres-pool-1", "postgres-dedicated-1").replace("=5432", "=6432")
    assert edited.former == {"db_host": ["postgres-pool-1"], "db_port": ["5432"]}
    after, before = read(edited.text), read(ODOO)
    assert after["options"]["addons_path"] == before["options"]["addons_path"]
    assert after["queue"]["db_host"] == "other"


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("db_host = x", "db_host = new"),
        ("db_host=x", "db_host=new"),
        ("db_host: x", "db_host: new"),
        ("DB_Host   =\tx", "DB_Host   =\tnew"),
        ("  db_host = x", "  db_host = new"),
        ("db_host = x ; y", "db_host = new"),
        ("db_host = x\n  y", "db_host = new"),
        ("db_host = x\n\n  # in between\n  y", "db_host = new"),
        ("db_host = a\nother = 1\ndb_host = b", "db_host = new\nother = 1\ndb_host = new"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\nz = 1", "\n\n[more]\ndb_host = kept\n"])
def test_forms_of_a_line(line: str, after: str, newline: str, tail: str) -> None:
    def text(of: str) -> str:
        return ("[options]\n" + of + tail).replace("\n", newline)

    edited = edit(text(line), {"db_host": "new"})
    assert edited.text == text(after)
    assert read(edited.text)["options"]["db_host"] == "new"


@pytest.mark.parametrize("value", ["False", ""])
def test_an_option_without_a_value_or_with_one_of_its_own_is_one_that_is_there(value: str) -> None:
    assert edit("[options]\ndb_host = {0}\n".format(value), {"db_host": "new"}).text == "[options]\ndb_host = new\n"
    assert read(edit("[options]\ndb_host =\n", {"db_host": "new"}).text)["options"]["db_host"] == "new"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
@pytest.mark.parametrize("more", ["", "[more]\na = 1\n"])
def test_a_missing_option_is_added_at_the_end_of_its_section(newline: str, end: str, more: str) -> None:
    text = ("[options]\na = 1\n  2" + end + ("\n" if more and not end else "") + more).replace("\n", newline)
    edited = edit(text, NEW)
    assert edited.former == {"db_host": [], "db_port": []}
    after = read(edited.text)
    assert dict(after["options"]) == {"a": "1\n2", **NEW}
    assert after.sections() == (["options", "more"] if more else ["options"])
    assert ("\r" in edited.text) == (newline == "\r\n")


def test_an_empty_section_and_one_that_is_there_twice() -> None:
    assert dict(read(edit("[options]", NEW).text)["options"]) == NEW
    twice = "[options]\ndb_host = a\n[x]\ndb_host = kept\n[options]\ndb_port = 1\n"
    assert dict(read(edit(twice, NEW).text)["options"]) == NEW


def test_bytes_that_are_no_text_and_odd_ends_of_lines_stay() -> None:
    text = b"\xef\xbb\xbf[options]\nname = \xff\x0b\x1c \xe2\x80\xa8 x\ndb_host = a\n".decode("utf-8", "surrogateescape")
    assert edit(text, {"db_host": "b"}).text == text.replace("= a", "= b")


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [("option", "x", r"has no section \[option\].*\[options\], \[queue\]"), ("options", "x\ny = 1", "more than one line")],
)
def test_what_is_refused(section: str, value: str, words: str) -> None:
    with pytest.raises(PoolsError, match=words):
        _application_ini.edit(ODOO, section, {"db_host": value}, "The file")


def test_each_occurrence_gets_its_own_value_back() -> None:
    pairs: List[Tuple[str, str]] = [("one", "two"), ("two", "one")]
    for first, second in pairs:
        text = "[options]\ndb_host = {0}\nDB_HOST = {1}\n".format(first, second)
        assert edit(text, {"db_host": "new"}).former == {"db_host": [first, second]}

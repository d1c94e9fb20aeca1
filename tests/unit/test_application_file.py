# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An INI file on a host: what a run that is killed leaves, and that mode, owner and everything else stay."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _application_file
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

TEXT = "[options]\n; theirs\ndb_host = pool\nadmin_passwd = hidden\n[more]\nhost = pool\n"
AFTER = TEXT.replace("db_host = pool", "db_host = dedicated").replace("hidden\n", "hidden\ndb_port = 5433\n")
KEYS = {"db_host": "host", "db_port": "port"}
OLD, NEW, OTHER = ({"host": host, "port": port} for host, port in (("pool", "5432"), ("dedicated", "5433"), ("third", "5434")))


class Killed(BaseException):
    pass


@pytest.fixture()
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "odoo.conf"
    path.write_text(TEXT)
    return path


def bring(path: Path, state: str, connection: Optional[Dict[str, str]] = None, dry: bool = False, **more: Any) -> Dict[str, Any]:
    params = {"path": str(path), "section": "options", "keys": KEYS, "state": state, "connection": connection}
    return _application_file.bring({**params, **more}, dry, os.replace)


def lies(path: Path) -> List[str]:
    return sorted(one.name for one in path.parent.iterdir())


def test_there_and_back(conf: Path) -> None:
    told = bring(conf, "started", NEW)
    assert conf.read_text() == AFTER and told["changed"]
    assert told["diff"]["before"] == "[options] db_host = pool\n[options] db_port = (not set)\n" and "hidden" not in str(told)
    assert stat.S_IMODE(Path(_application_file.memory_path(str(conf))).stat().st_mode) == 0o600
    assert not bring(conf, "started", NEW)["changed"]
    assert bring(conf, "restored", OLD)["changed"]
    assert conf.read_text() == TEXT and lies(conf) == ["odoo.conf"]
    assert not bring(conf, "restored", OLD)["changed"]


def test_two_sections_and_two_moves(conf: Path) -> None:
    for connection in (NEW, OTHER):
        bring(conf, "started", connection)
        bring(conf, "started", connection, section="more", keys={"host": "host"})
    # Not begun, so the connection that was put in last stays; then back by one.
    bring(conf, "restored", OTHER)
    assert "db_host = third" in conf.read_text() and "\nhost = third" in conf.read_text()
    bring(conf, "restored", NEW)
    assert "db_host = dedicated" in conf.read_text() and "\nhost = third" in conf.read_text()
    bring(conf, "settled")
    assert len(lies(conf)) == 2
    bring(conf, "restored", NEW, section="more", keys={"host": "host"})
    bring(conf, "settled", section="more")
    assert "\nhost = dedicated" in conf.read_text() and lies(conf) == ["odoo.conf"]
    assert not bring(conf, "settled")["changed"]


def test_only_what_was_put_in_is_withdrawn(conf: Path) -> None:
    bring(conf, "started", NEW)
    assert not bring(conf, "withdrawn", OTHER)["changed"]
    assert bring(conf, "withdrawn", NEW)["changed"]
    assert conf.read_text() == TEXT


@pytest.mark.parametrize("state", ["started", "restored", "withdrawn", "settled"])
def test_killed_at_each_step_and_called_again(conf: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"started": NEW, "restored": OLD, "withdrawn": NEW, "settled": None}[state]
    after = AFTER if state in ("started", "settled") else TEXT
    real = {name: getattr(_application_file, name) for name in ("_write_memory", "_replace")}
    for dies_at in ("_write_memory", "_replace"):
        for late in (False, True):
            if state != "started":
                bring(conf, "started", NEW)

            def dying(*arguments: Any, name: str = dies_at, late: bool = late) -> None:
                if late:
                    real[name](*arguments)
                raise Killed

            with monkeypatch.context() as patched:
                patched.setattr(_application_file, dies_at, dying)
                if state != "settled" or dies_at == "_write_memory":
                    with pytest.raises(Killed):
                        bring(conf, state, connection)
            bring(conf, state, connection)
            assert conf.read_text() == after
            assert not bring(conf, state, connection)["changed"]
            bring(conf, "restored", OLD)
            assert conf.read_text() == (AFTER if state == "settled" else TEXT)
            conf.write_text(TEXT)
            assert lies(conf) == ["odoo.conf"]


def test_check_mode_and_a_link(conf: Path) -> None:
    link = conf.parent / "link.conf"
    link.symlink_to(conf)
    assert bring(link, "started", NEW, dry=True)["changed"]
    assert conf.read_text() == TEXT and lies(conf) == ["link.conf", "odoo.conf"]
    assert bring(link, "started", NEW)["path"] == str(conf)
    assert link.is_symlink() and conf.read_text() == AFTER


def test_what_is_refused(conf: Path) -> None:
    cases: List[Any] = [
        ({"section": "x"}, r"has no section \[x\]"),
        ({"keys": {"db_password": "password"}}, "key db_password asks for password"),
        ({"connection": {"host": "h"}}, "db_port asks for port, which the connection given does not have"),
        ({"connection": {"host": "h\nadmin_passwd = x", "port": "1"}}, "control character"),
    ]
    for more, words in cases:
        with pytest.raises(PoolsError, match=words):
            bring(conf, "started", **{"connection": NEW, **more})
    with pytest.raises(PoolsError, match="cannot be used: No such file"):
        bring(conf.parent / "other.conf", "started", NEW)
    Path(_application_file.memory_path(str(conf))).write_text('{"options": []}')
    with pytest.raises(PoolsError, match="not written by this collection"):
        bring(conf, "started", NEW)
    assert conf.read_text() == TEXT

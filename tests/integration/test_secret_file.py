# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module secret_file: its steps, and one run through Ansible."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.modules import secret_file

ROOT = Path(__file__).resolve().parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        secret_file.write(str(path), b"one")
    finally:
        os.umask(before)
    assert (path.read_bytes(), mode(path), list(tmp_path.iterdir())) == (b"one", 0o600, [path])


@pytest.mark.parametrize("spoil", ["content", "mode", "link"])
def test_another_content_mode_or_a_link_is_not_what_was_wanted(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "secret"
    secret_file.write(str(path), b"one")
    assert secret_file.holds(str(path), b"one")
    if spoil == "content":
        path.write_bytes(b"two")
    elif spoil == "mode":
        path.chmod(0o640)
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    assert not secret_file.holds(str(path), b"one")
    secret_file.write(str(path), b"one")
    assert secret_file.holds(str(path), b"one") and not path.is_symlink()


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    secret_file.write(str(path), b"one")

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(secret_file.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        secret_file.write(str(path), b"two")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"one", [path])


def run(path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = json.dumps({"path": str(path), "content": "planted-secret"})
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", "saasodoo.postgres_pools.secret_file", "-a", arguments]
    return subprocess.run([*command, "-vvv", "--diff", *more], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_through_ansible_it_is_written_once_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    predicted = run(path, "--check")
    assert "CHANGED" in predicted.stdout and not path.exists()
    first, second = run(path), run(path)
    assert "CHANGED" in first.stdout and "SUCCESS" in second.stdout
    assert path.read_text() == "planted-secret"
    lost = run(tmp_path / "nowhere" / "secret")
    assert lost.returncode and "cannot be written: No such file or directory" in lost.stdout and "Traceback" not in lost.stdout
    for told in (predicted, first, second, lost):
        assert "planted-secret" not in told.stdout + told.stderr

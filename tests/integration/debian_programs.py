# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of Debian that tests need: Prometheus, its collector, Chromium, BusyBox, PgBouncer. Fetched where they are missing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Dict, List, NoReturn, Sequence, Tuple

import pytest
from environment import ROOT

CACHE = ROOT / ".cache"
MONITORING = {"prometheus": "prometheus", "promtool": "prometheus", "prometheus-node-exporter": "prometheus-node-exporter"}


def monitoring() -> Dict[str, str]:
    """The paths of prometheus, promtool and prometheus-node-exporter."""
    found = {name: shutil.which(name) or "" for name in MONITORING}
    if all(found.values()):
        return found
    home = _unpacked("monitoring", *sorted(set(MONITORING.values())))
    return {name: found[name] or str(home / "usr" / "bin" / name) for name in MONITORING}


def busybox() -> str:
    """The path of BusyBox."""
    return shutil.which("busybox") or str(_unpacked("busybox", "busybox-static") / "bin" / "busybox")


def _unpacked(name: str, *packages: str) -> Path:
    """The folder that packages are unpacked in. They are not installed: nothing is started by that."""
    home = CACHE / ("debian-" + name)
    with _alone():
        if not home.exists():
            _need_debian(" and ".join(packages))
            CACHE.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=str(CACHE)) as scratch:
                download = ["apt-get", "-qq", "download", *packages]
                # Where apt's lists are too old for that, they are fetched first.
                if _quiet(download, scratch) and (_quiet(["apt-get", "-qq", "update"], scratch) or _quiet(download, scratch)):
                    _skip("apt-get could not download {0}".format(" and ".join(packages)))
                for package in Path(scratch).glob("*.deb"):
                    subprocess.run(["dpkg", "-x", str(package), str(Path(scratch) / "root")], check=True, timeout=120)
                (Path(scratch) / "root").rename(home)
    return home


def pgbouncer() -> Tuple[str, str]:
    """The path of PgBouncer, and where the libraries lie that it comes with: installed, it would be started."""
    found = shutil.which("pgbouncer")
    if found:
        return found, ""
    told = subprocess.run(["apt-cache", "depends", "--important", "pgbouncer"], capture_output=True, text=True, timeout=60, check=False).stdout
    libraries = [name for name in re.findall(r"^  Depends: (lib\S+)$", told, re.M) if not name.startswith("libc6")]
    home = _unpacked("pgbouncer", "pgbouncer", *libraries)
    return str(next(home.rglob("sbin/pgbouncer"))), next((str(path.parent) for path in home.rglob("libevent*.so*")), "")


def chromium() -> str:
    """The path of Chromium, which root gets installed: it stands on too many libraries to be unpacked."""
    with _alone():
        if not shutil.which("chromium"):
            _need_debian("Chromium")
            if os.geteuid() != 0:
                _skip("chromium is not installed, and only root can install it")
            _quiet(["apt-get", "-qq", "update"], "/")
            if _quiet(["apt-get", "-qq", "-y", "--no-install-recommends", "install", "chromium", "fonts-liberation"], "/"):
                _skip("apt-get could not install chromium")
    return shutil.which("chromium") or _skip("chromium is not on the PATH")


class _alone:  # noqa: N801
    """One test at a time looks for programs and fetches them."""

    def __enter__(self) -> None:
        CACHE.mkdir(exist_ok=True)
        self._lock = open(str(CACHE / "debian-programs.lock"), "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *unused: object) -> None:
        self._lock.close()


def _need_debian(what: str) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        _skip("{0} comes from Debian's packages, and there is no apt-get here".format(what))


def _skip(reason: str) -> NoReturn:
    # Among many dots a skipped test is not seen; a warning is in the summary.
    warnings.warn("NOT TESTED: {0}".format(reason), stacklevel=3)
    pytest.skip(reason)


def _quiet(command: Sequence[str], folder: str) -> int:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(list(command), cwd=folder, env=quiet, capture_output=True, timeout=900, check=False).returncode


def browser(*arguments: str) -> str:
    """Run Chromium without a window on pages of this machine, in a profile of its own; what it prints."""
    with tempfile.TemporaryDirectory() as profile:
        flags: List[str] = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--user-data-dir=" + profile,
        ]  # fmt: skip
        done = subprocess.run([chromium(), *flags, *arguments], capture_output=True, timeout=90, check=True)
    return done.stdout.decode(errors="replace")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the bed needs of the machine: root, Debian, and packages, installed where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List

from processes import BedError, works

# A program that each package brings.
PACKAGES: Dict[str, str] = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "ceph": "ceph-common",
    "ceph-mon": "ceph-mon",
    "ceph-mgr": "ceph-mgr",
    "ceph-osd": "ceph-osd",
    "ceph-mds": "ceph-mds",
    "ceph-fuse": "ceph-fuse",
    "getfattr": "attr",
    "zstd": "zstd",
}


class UnavailableError(Exception):
    """Why there can be no bed on this machine."""


def missing() -> List[str]:
    return sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})


def ensure_root() -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        raise UnavailableError("it needs root, to run Docker nodes and Ceph")


def ensure() -> None:
    if not works("unshare", "--mount", "true"):
        raise UnavailableError("it needs to mount filesystems, which root of this machine or container may not")
    if not Path("/dev/fuse").exists():
        raise UnavailableError("it needs /dev/fuse, to mount CephFS")
    packages = missing()
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise UnavailableError("it needs the Debian packages {0}, and there is no apt-get to install them".format(", ".join(packages)))
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *packages]
    try:
        # A list that cannot be fetched matters only when it is one that the packages come from; the installation tells.
        subprocess.run(["apt-get", "-qq", "update"], env=quiet, capture_output=True, timeout=300, check=False)
        done = subprocess.run(install, env=quiet, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired as problem:
        raise UnavailableError("apt-get did not install {0} in time".format(", ".join(packages))) from problem
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UnavailableError("apt-get could not install {0}: {1}".format(", ".join(packages), "".join(reason)))
    if missing():
        raise BedError("{0} are installed and still not found in {1}".format(", ".join(missing()), os.environ["PATH"]))

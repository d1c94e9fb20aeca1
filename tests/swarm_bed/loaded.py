# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images as a node's dockerd keeps them, loaded once. A node gets hard links to the layers instead of loading gigabytes anew."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import image_recipe
from outer import docker, load, node_runs
from processes import run, wait_for
from settings import STORE

# All that a dockerd and ceph-fuse need. Not --privileged: that asks for CAP_SYS_RESOURCE too, which a machine may not have to give.
RIGHTS = (
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--device=/dev/fuse",
    "--cgroupns=private",
)
DAEMON = ("/usr/local/sbin/node-init", "--host", "unix:///var/run/docker.sock")
LOADER = "swarm-bed-loader"


def store() -> Path:
    names = "\0".join(recipe.archive.name for recipe in image_recipe.ALL)
    return STORE / "loaded-{0}".format(hashlib.sha256(names.encode()).hexdigest()[:16])


def ensure() -> None:
    if store().exists():
        return
    docker("rm", "--force", LOADER, check=False)
    for other in STORE.glob("loaded-*"):
        shutil.rmtree(other)
    unfinished = STORE / "loading"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    place = "{0}:/var/lib/docker".format(unfinished)
    docker("run", "--detach", "--name", LOADER, *RIGHTS, "--network=none", "--volume", place, "--tmpfs=/run", image_recipe.NODE.tag, *DAEMON)
    wait_for("the loader's dockerd answers", 30, lambda: node_runs(LOADER, "docker", "version"))
    for recipe in image_recipe.LOADED:
        load(recipe.archive, "exec", "--interactive", LOADER, "docker", "load", "--quiet")
    docker("stop", "--time", "30", LOADER)
    docker("rm", LOADER)
    unfinished.rename(store())


def place(folder: Path) -> None:
    """Layers are never written to, so links will do; the records about them are, so they are copied. All else dockerd makes for itself."""
    if folder.exists():
        return
    unfinished = folder.with_name("docker.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o711, parents=True)
    run("cp", "--archive", "--link", str(store() / "overlay2"), str(unfinished / "overlay2"), limit=120)
    run("cp", "--archive", str(store() / "image"), str(unfinished / "image"))
    unfinished.rename(folder)

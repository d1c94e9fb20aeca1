# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images, each made once and kept as a compressed `docker load` archive, whose name holds a hash of all that goes into it."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

from image_build import build
from image_recipe import ALL
from processes import kill_users, run
from settings import BED, CACHE


def ensure_cached() -> List[str]:
    """Build what the cache lacks, two at a time; the names of what was built."""
    clear_unfinished()
    lacking = [recipe for recipe in ALL if not recipe.archive.exists()]
    if lacking:
        CACHE.mkdir(parents=True, exist_ok=True)
        with memory_folder() as folder, ThreadPoolExecutor(max_workers=2) as workers:
            list(workers.map(lambda recipe: build(recipe, folder), lacking))
    for recipe in ALL:
        for other in CACHE.glob(recipe.slug + "-*.tar.zst"):
            if other != recipe.archive:
                other.unlink()
    return [recipe.tag for recipe in lacking]


def clear_unfinished() -> None:
    """What a killed build left: its processes, its memory."""
    for folder in BED.glob("build-*"):
        kill_users(folder)
        run("umount", "--lazy", str(folder), check=False, limit=10)
        folder.rmdir()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory: dpkg's syncing to a disk is most of the time of a build."""
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=BED))
    run("mount", "-t", "tmpfs", "-o", "size=4g,mode=0755", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", str(folder), check=False)
        folder.rmdir()

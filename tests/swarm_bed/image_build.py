# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One image: a root folder out of packages, and the archive that `docker load` reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from image_recipe import Recipe, architecture
from processes import BedError, run
from settings import LOGS, RECIPES

# An archive of a suite that is no longer released has metadata out of date, and is as good for a test.
APT_OPTIONS = ('Acquire::Check-Valid-Until "false"', 'APT::Install-Recommends "false"', 'Acquire::Languages "none"')


def build(recipe: Recipe, folder: Path) -> None:
    place = folder / recipe.slug
    (place / "tmp").mkdir(parents=True)
    root = place / "root"
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=" + recipe.variant, "--format=directory", "--include=" + recipe.packages]
    command += ["--aptopt=" + option for option in APT_OPTIONS]
    command += ["--dpkgopt=path-exclude=/usr/share/{0}/*".format(name) for name in ("doc", "man", "info", "locale", "lintian")]
    command += ["--dpkgopt=force-unsafe-io", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", recipe.suite, str(root)]
    with (LOGS / "build-{0}.log".format(recipe.slug)).open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, timeout=900, check=False, env={**os.environ, "TMPDIR": str(place / "tmp")})
    if done.returncode:
        raise BedError("the image {0} could not be built, see {1}".format(recipe.tag, log.name))
    # Not as mmdebstrap's own hooks: those it runs after unpacking do not see a finished root.
    for script, *words in recipe.finish:
        run("sh", str(RECIPES / script), str(root), *words)
    for source, target in recipe.files:
        run("install", "-D", "--mode=0755", str(RECIPES / source), str(root / target))
    run("tar", "--directory", str(root), "--numeric-owner", "--exclude=./var/lib/apt/lists/*", "--exclude=./var/cache/apt/*", "--create",
        "--file", str(place / "layer.tar"), ".", limit=120)  # fmt: skip
    write_archive(recipe, place)
    shutil.rmtree(place)


def write_archive(recipe: Recipe, place: Path) -> None:
    """What `docker save` would write, for `docker load`: a layer, its configuration and a manifest."""
    with (place / "layer.tar").open("rb") as layer:
        digest = hashlib.sha256()
        for block in iter(lambda: layer.read(1 << 20), b""):
            digest.update(block)
    config = json.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": recipe.config,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]},
            "history": [{"created": "2026-01-01T00:00:00Z", "comment": "mmdebstrap"}],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    (place / name).write_bytes(config)
    (place / "manifest.json").write_text(json.dumps([{"Config": name, "RepoTags": [recipe.tag], "Layers": ["layer.tar"]}]))
    with tarfile.open(place / "image.tar", "w") as archive:
        for member in ("manifest.json", name, "layer.tar"):
            archive.add(place / member, arcname=member)
    # Under another name until it is whole: an interrupted build leaves nothing that looks like an image.
    unfinished = recipe.archive.with_suffix(".part")
    run("zstd", "--quiet", "--force", "-3", "-T0", str(place / "image.tar"), "-o", str(unfinished), limit=300)
    unfinished.rename(recipe.archive)

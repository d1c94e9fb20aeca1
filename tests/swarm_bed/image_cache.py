# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images, out of Debian's packages: no image is pulled from anywhere.

Each is made once and kept as a zstd-compressed `docker load` archive, whose name holds a hash of all that goes into it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from processes import BedError, kill_users, run
from settings import BED, CACHE, LOGS, RECIPES

UNPACKED = (
    "base-files,base-passwd,bash,dash,coreutils,findutils,grep,sed,gzip,hostname,mawk,util-linux,libc-bin,tzdata,procps,ca-certificates,"
)
# An archive of a suite that is no longer released has metadata out of date, and is as good for a test.
APT_OPTIONS = ('Acquire::Check-Valid-Until "false"', 'APT::Install-Recommends "false"', 'Acquire::Languages "none"')
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:{0}/usr/sbin:/usr/bin:/sbin:/bin"


@functools.lru_cache(maxsize=None)
def architecture() -> str:
    return run("dpkg", "--print-architecture")


class Recipe(NamedTuple):
    tag: str
    suite: str
    # "minbase" installs the packages; "extract" only unpacks them, which takes half the time and space.
    variant: str
    packages: str
    config: Dict[str, Any]
    # Each is run with the root's folder and these words.
    finish: Tuple[Tuple[str, ...], ...] = ()
    files: Tuple[Tuple[str, str], ...] = ()

    @property
    def slug(self) -> str:
        return self.tag.replace(":", "-").replace("/", "-")

    @property
    def archive(self) -> Path:
        scripts = [name for name, *_ in self.finish] + [name for name, _ in self.files]
        parts = [repr(tuple(self)), Path(__file__).read_text(), architecture()]
        parts += [(RECIPES / name).read_text() for name in scripts]
        return CACHE / "{0}-{1}.tar.zst".format(self.slug, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16])


def postgres(major: int, suite: str) -> Recipe:
    volume, data = "/var/lib/postgresql", "/var/lib/postgresql/{0}/docker".format(major)
    if major < 18:
        volume = data = "/var/lib/postgresql/data"
    path = SYSTEM_PATH.format("/usr/lib/postgresql/{0}/bin:".format(major))
    return Recipe(
        tag="postgres:{0}".format(major),
        suite=suite,
        variant="extract",
        packages=UNPACKED + "gosu,postgresql-{0},postgresql-client-{0}".format(major),
        config={
            "Env": ["PATH=" + path, "PGDATA=" + data, "PG_MAJOR={0}".format(major), "LANG=C.UTF-8"],
            "Volumes": {volume: {}},
            "StopSignal": "SIGINT",
            "ExposedPorts": {"5432/tcp": {}},
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
        },
        finish=(("finish-extracted.sh",), ("finish-postgres.sh", str(major))),
        files=(("docker-entrypoint.sh", "usr/local/bin/docker-entrypoint.sh"),),
    )


NODE = Recipe(
    tag="swarm-bed-node:bookworm",
    suite="bookworm",
    variant="minbase",
    packages="docker.io,iptables,iproute2,python3,python3-docker,python3-psycopg2,procps,tini,ca-certificates,ceph-fuse,attr,zstd",
    config={"Env": ["PATH=" + SYSTEM_PATH.format(""), "LANG=C.UTF-8"], "Cmd": ["/usr/local/sbin/node-init"]},
    files=(("node-init.sh", "usr/local/sbin/node-init"),),
)
CLIENT = Recipe(
    tag="postgres-pools-client:18",
    suite="forky",
    variant="extract",
    packages=UNPACKED + "python3,python3-psycopg2,python3-cryptography,postgresql-client-18,tini,tar",
    config={
        "Env": ["PATH=" + SYSTEM_PATH.format("/usr/lib/postgresql/18/bin:"), "LANG=C.UTF-8"],
        "Entrypoint": ["tini", "--"],
        "Cmd": ["sleep", "infinity"],
    },
    finish=(("finish-extracted.sh",),),
)
POSTGRES = (postgres(18, "forky"), postgres(15, "bookworm"))
# What the Swarm's nodes hold.
LOADED: Tuple[Recipe, ...] = (*POSTGRES, CLIENT)
ALL: Tuple[Recipe, ...] = (NODE, *LOADED)


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

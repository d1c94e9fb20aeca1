# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images are made of: Debian's packages, and a few files of the folder recipes. No image is pulled from anywhere."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple

from processes import run
from settings import CACHE, RECIPES

UNPACKED = (
    "base-files,base-passwd,bash,dash,coreutils,findutils,grep,sed,gzip,hostname,mawk,util-linux,libc-bin,tzdata,procps,ca-certificates,"
)
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
        scripts = [one[0] for one in (*self.finish, *self.files)]
        parts = [repr(tuple(self)), (RECIPES.parent / "image_build.py").read_text(), architecture()]
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
    packages="docker.io,iptables,iproute2,python3,python3-docker,python3-psycopg2,procps,tini,ca-certificates,ceph-fuse,ceph-common,attr",
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

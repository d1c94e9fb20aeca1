# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack from the `ansible` wheel in a folder the few collections this one needs: 10 MB of its 500.

install_collections.py FOLDER_WITH_WHEEL ANSIBLE_COLLECTIONS
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

COLLECTIONS = (
    "ansible/posix",
    "community/crypto",
    "community/docker",
    "community/library_inventory_filtering_v1",
    "community/postgresql",
)


def main(wheels: Path, target: Path) -> None:
    (wheel,) = wheels.glob("ansible-*.whl")
    for collection in COLLECTIONS:
        shutil.rmtree(target / collection, ignore_errors=True)
    prefixes = tuple("ansible_collections/%s/" % collection for collection in COLLECTIONS)
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(prefixes)]
        archive.extractall(target.parent, members)
    missing = [collection for collection in COLLECTIONS if not (target / collection / "MANIFEST.json").exists()]
    if missing:
        raise SystemExit("%s does not hold %s" % (wheel, ", ".join(missing)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack from the `ansible` wheel in a folder the few collections this one needs: 11 MB of its 500.

install_collections.py FOLDER_WITH_WHEEL ANSIBLE_COLLECTIONS

The newest bundles no longer carry awx.awx. Where the wheel does not, it is fetched from the last one that requirements/collections.txt pins and that does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

COLLECTIONS = (
    "ansible/posix",
    "awx/awx",
    "community/crypto",
    "community/docker",
    "community/library_inventory_filtering_v1",
    "community/postgresql",
)
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "collections.txt"
OLDER = "ansible==12."


def unpack(wheel: Path, target: Path, wanted: tuple[str, ...]) -> list[str]:
    """What of the wanted collections the wheel does not hold."""
    prefixes = tuple("ansible_collections/%s/" % collection for collection in wanted)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target.parent, [name for name in archive.namelist() if name.startswith(prefixes)])
    return [collection for collection in wanted if not (target / collection / "MANIFEST.json").exists()]


def fetch_older(folder: Path) -> Path:
    """The pinned bundle of before, with the same hash but for whatever Python."""
    lines = REQUIREMENTS.read_text().replace("\\\n", " ").splitlines()
    (pin,) = (line for line in lines if line.startswith(OLDER))
    requirement, _semicolon, marker_and_hash = pin.partition(";")
    folder.mkdir(exist_ok=True)
    wanted = folder / "requirements.txt"
    wanted.write_text("%s --hash=%s\n" % (requirement.strip(), marker_and_hash.partition("--hash=")[2].strip()))
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", str(wanted)], check=True)
    (wheel,) = folder.glob("ansible-*.whl")
    return wheel


def main(wheels: Path, target: Path) -> None:
    (wheel,) = wheels.glob("ansible-*.whl")
    for collection in COLLECTIONS:
        shutil.rmtree(target / collection, ignore_errors=True)
    missing = unpack(wheel, target, COLLECTIONS)
    if missing == ["awx/awx"]:
        wheel = fetch_older(wheels / "older")
        missing = unpack(wheel, target, ("awx/awx",))
    if missing:
        raise SystemExit("%s does not hold %s" % (wheel, ", ".join(missing)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

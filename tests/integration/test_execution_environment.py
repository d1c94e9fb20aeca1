# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The build context of the execution environment, made as for a build: everything pinned, nothing secret, this collection in it.

The engine is a fake that writes down how it is called: an image is built where there is a real one, by scripts/execution-environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
BASE = "registry.example.com/rocky@sha256:" + "0" * 64
FILES = {"Containerfile", "_build/bindep.txt", "_build/exclude-collections.txt", "_build/requirements.txt", "_build/requirements.yml"}
FILES |= {"_build/collections/saasodoo-postgres_pools.tar.gz", "_build/constraints/execution-environment.txt", "_build/repositories/pgdg.repo"}
SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY|gAAAAA[\w-]{20}|(?i:(password|token|secret_key)\w*=\S)")


class Made(NamedTuple):
    context: Path
    calls: List[str]
    said: str


def make(folder: Path, engine: str, **more: str) -> Made:
    """*engine* is what the fake does when it is asked for itself."""
    fake = folder / "docker"
    fake.write_text('#!/bin/sh\necho "$@" >>"{0}/calls"\n[ "$1" != info ] || {1}\n'.format(folder, engine))
    fake.chmod(0o755)
    (folder / "podman").write_text("#!/bin/sh\nexit 1\n")
    (folder / "podman").chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "scripts" / "execution-environment"), str(folder / "context")],
        env=dict(os.environ, PATH="{0}:{1}".format(folder, os.environ["PATH"]), **more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Made(folder / "context", (folder / "calls").read_text().splitlines(), done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("engine"), "exit 0", EE_BASE_IMAGE=BASE)


@pytest.fixture(scope="module")
def definition() -> Dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "execution-environment.yml").read_text()))


def pins(text: str) -> Dict[str, str]:
    """Versions by name. A line that pins nothing is an error."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line.strip()).groups()  # type: ignore[union-attr]
            found[name.lower()] = version
    return found


@pytest.fixture(scope="module")
def constraints(made: Made) -> Dict[str, str]:
    return pins((made.context / "_build" / "constraints" / "execution-environment.txt").read_text())


# --- versions


def test_every_python_package_is_pinned_to_one_version(made: Made, definition: Dict[str, Any], constraints: Dict[str, str]) -> None:
    asked = pins((made.context / "_build" / "requirements.txt").read_text())
    for part in ("ansible_core", "ansible_runner"):
        asked.update(pins(definition["dependencies"][part]["package_pip"]))
    asked.update(pins(definition["options"]["container_init"]["package_pip"]))
    assert {"cryptography", "psycopg2-binary", "docker", "ansible-core", "ansible-runner"} <= set(asked)
    assert asked == {name: constraints.get(name) for name in asked}
    # And to that of a checkout, where both have it.
    current = [line.partition(";")[0] for line in (ROOT / "requirements" / "runtime.txt").read_text().splitlines() if 'python_version < "3.12"' not in line]
    checkout = pins("\n".join(current))
    assert checkout and checkout == {name: asked[name] for name in checkout}


def test_what_packages_stand_on_is_pinned_too(constraints: Dict[str, str]) -> None:
    """As far as the packages are here too: each of their requirements has a constraint, which it allows."""
    from importlib import metadata

    looked = 0
    by_name = {canonicalize_name(name): version for name, version in constraints.items()}
    for name in constraints:
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for one in map(Requirement, required):
            if "extra" not in str(one.marker) and (one.marker is None or one.marker.evaluate({"python_version": "3.12", "python_full_version": "3.12.1"})):
                looked += 1
                assert by_name.get(canonicalize_name(one.name), "0") in one.specifier and canonicalize_name(one.name) in by_name, (name, one)
    assert looked > 10


def test_collections_are_those_of_a_checkout(definition: Dict[str, Any]) -> None:
    listed = {one["name"]: one for one in definition["dependencies"]["galaxy"]["collections"]}
    wanted = {one["name"]: one["version"] for one in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}
    assert set(wanted) <= set(listed) and set(yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"]) <= set(listed)
    for name, one in listed.items():
        if one.get("type") != "file":
            assert re.fullmatch(r"\d+\.\d+\.\d+", str(one["version"])), name
            assert one["version"] in SpecifierSet(wanted.get(name, ">=0")), name
    if sys.version_info >= (3, 12):
        # An older Python gets an older bundle, see requirements/collections.txt.
        for manifest in (ROOT / ".build" / "ansible_collections").glob("[!s]*/*/MANIFEST.json"):
            told = json.loads(manifest.read_text())["collection_info"]
            name = "{namespace}.{name}".format(**told)
            assert told["version"] == listed[name]["version"], name


# --- the build


def test_the_base_is_of_one_version_and_can_be_given_by_digest(made: Made) -> None:
    lines = (made.context / "Containerfile").read_text().splitlines()
    assert re.fullmatch(r'ARG EE_BASE_IMAGE="[\w./-]+:\d[\w.-]*"', lines[0])
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM $EE_BASE_IMAGE AS base", "FROM base AS galaxy", "FROM base AS builder", "FROM base AS final",
    ]  # fmt: skip
    assert "latest" not in "\n".join(lines)
    (build,) = [call for call in made.calls if call.startswith("build ")]
    assert "--build-arg EE_BASE_IMAGE=" + BASE in build and build.endswith(str(made.context)) and "/Containerfile" in build


def test_pip_never_takes_the_newest(made: Made) -> None:
    lines = (made.context / "Containerfile").read_text().splitlines()
    bound = next(number for number, line in enumerate(lines) if line.startswith("ENV PIP_CONSTRAINT="))
    at = [number for number, line in enumerate(lines) if "pip install" in line or "/assemble" in line or "/install-from-bindep" in line]
    assert len(at) >= 5 and min(at) > bound
    assert not [line for line in lines if "PIP_CONSTRAINT" in line][1:]
    assert any(line.startswith("RUN") and "collection install $ANSIBLE_GALAXY_CLI_COLLECTION_OPTS" in line for line in lines)
    assert 'ARG ANSIBLE_GALAXY_CLI_COLLECTION_OPTS="--no-deps"' in lines


def test_it_runs_as_nobody_in_particular(made: Made) -> None:
    users = re.findall(r"^USER (\S+)", (made.context / "Containerfile").read_text(), re.M)
    assert users[-1] == "1000"


def test_nothing_in_it_is_secret(made: Made) -> None:
    files = {str(path.relative_to(made.context)) for path in made.context.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("_build/scripts/")} == FILES
    for name in files - {"_build/collections/saasodoo-postgres_pools.tar.gz"}:
        assert not SECRET.search((made.context / name).read_bytes()), name
    with tarfile.open(str(made.context / "_build" / "collections" / "saasodoo-postgres_pools.tar.gz")) as archive:
        for member in archive.getmembers():
            assert not re.search(r"(^|/)(\.|secrets?/|.*\.(key|pem)$|\.state)", member.name), member.name


def test_the_collection_says_what_it_needs(made: Made, tmp_path: Path, constraints: Dict[str, str]) -> None:
    place = tmp_path / "ansible_collections" / "saasodoo" / "postgres_pools"
    place.mkdir(parents=True)
    with tarfile.open(str(made.context / "_build" / "collections" / "saasodoo-postgres_pools.tar.gz")) as archive:
        archive.extractall(str(place))
    assert (place / "playbooks" / "allocate.yml").exists()
    done = subprocess.run([str(BIN / "ansible-builder"), "introspect", str(tmp_path)], capture_output=True, text=True, check=True)
    told = yaml.safe_load(done.stdout)
    system = {line.partition("#")[0].strip() for line in told["system"]} if isinstance(told["system"], list) else set(told["system"])
    assert any(line.startswith("postgresql18") for line in system) and any(line.startswith("openssl") for line in system)
    python = [Requirement(line.partition("#")[0].strip()) for line in told["python"]]
    assert {one.name for one in python} == {"cryptography", "psycopg2-binary"}
    for one in python:
        assert constraints[one.name] in one.specifier, one


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    told = make(tmp_path, "exit 1")
    assert "NO IMAGE BUILT" in told.said and not [call for call in told.calls if call.startswith("build")]
    assert (told.context / "Containerfile").exists()

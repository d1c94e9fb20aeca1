# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages say what is there: links lead somewhere, commands name playbooks with variables that these read, tables have a row for each thing."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "site" / "index.md"]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
SITE = ROOT / "docs" / "site" / "index.md"
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
CALL = re.compile(
    r"(?:playbooks/([a-z_]+)\.yml|ansible-playbook\S* (?:-i \S+ )?saasodoo\.postgres_pools\.([a-z_]+)|`([a-z_]+)\.yml (?=-))([^\n`#]*)"
)
# What a reader puts in place of something; Ansible itself reads the last.
FREE = re.compile(r"^(postgres_pools_[a-z_]+|old_[a-z]+|ansible_[a-z_]+)$")
names = pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> Set[str]:
    """The anchors that a code host gives to a page's headings."""
    found = re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text_of(page)), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in found]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@names
def test_its_links_lead_somewhere(page: Path) -> None:
    wrong = []
    # The site's own page lies beside the others when it is built.
    folder = ROOT / "docs" if page == SITE else page.parent
    for path, anchor in LINK.findall(FENCE.sub("", text_of(page))):
        target = folder / path if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor[1:] not in anchors(target)):
            wrong.append(path + anchor)
    assert not wrong


def test_every_page_is_in_the_site_once() -> None:
    trees = "\n".join(re.findall(r"^```{toctree}\n(.*?)^```", text_of(SITE), re.MULTILINE | re.DOTALL))
    entries = re.findall(r"^(?:.*<)?([a-z/-]+\*?)>?$", trees, re.MULTILINE)
    pages = [page.stem for page in PAGES]
    found = [page for entry in entries for page in (fnmatch.filter(pages, entry) if "*" in entry else [entry])]
    assert sorted(found) == sorted([*pages, "reference/index"])


def test_every_playbook_has_its_row() -> None:
    assert set(re.findall(r"^\| `([a-z_]+)\.yml` \|", text_of(ROOT / "docs" / "playbooks.md"), re.MULTILINE)) == set(
        PLAYBOOKS
    )


def test_every_script_of_the_schema_has_its_row() -> None:
    scripts = {int(path.name[:4]) for path in ROOT.glob("roles/inventory_db/files/migrations/*.up.sql")}
    rows = re.findall(r"^\| (\d+) \|", text_of(ROOT / "docs" / "upgrading.md"), re.MULTILINE)
    assert {int(row) for row in rows} == scripts


# --- commands


@pytest.fixture(scope="module", name="read")
def fixture_read() -> Dict[str, Set[str]]:
    """By playbook, the variables that it reads: those in its own text, and those of the roles that it names."""
    specs: Dict[str, Set[str]] = {}
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        told: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        specs[path.parts[-3]] = {
            option for entry in told["argument_specs"].values() for option in entry.get("options") or {}
        }
    found = {}
    for name in PLAYBOOKS:
        text = (ROOT / "playbooks" / (name + ".yml")).read_text(encoding="utf-8")
        roles = set(re.findall(r"saasodoo\.postgres_pools\.([a-z_]+)", text))
        found[name] = set(re.findall(r"[a-z_]+", text)).union(*(specs.get(role, set()) for role in roles))
    return found


def commands(page: Path) -> Iterator[Tuple[str, List[str]]]:
    """Each playbook that is called on a page, with the names of its variables."""
    for call in CALL.finditer(text_of(page).replace("\\\n", " ")):
        arguments = call.group(4)
        variables = re.findall(r"-e ([a-z_]+)=", arguments)
        for given in re.findall(r"-e '(\{.*?\})'", arguments):
            variables += re.findall(r'"([a-z_]+)":', re.sub(r"\{(?!\").*?\}", "", given[1:-1]))
        yield call.group(1) or call.group(2) or call.group(3), variables


@names
def test_its_commands_name_what_is_there(page: Path, read: Dict[str, Set[str]]) -> None:
    wrong = []
    for playbook, variables in commands(page):
        if playbook not in read:
            wrong.append("there is no playbook {0}".format(playbook))
            continue
        wrong += [
            "{0} does not read {1}".format(playbook, one)
            for one in variables
            if one not in read[playbook] and not FREE.match(one)
        ]
    assert not wrong


@names
def test_no_value_is_cut_at_a_space(page: Path) -> None:
    """Ansible takes a=b c=d for two variables, also where the shell handed it over as one word."""
    assert not re.findall(r"-e [a-z_]+=(?:'[^'\n]* [^'\n]*'|\"[^\"\n]* [^\"\n]*\")", text_of(page))


def test_commands_are_found() -> None:
    """The two tests above would be content with a page of which they recognize nothing."""
    found = dict(commands(ROOT / "docs" / "runbooks.md"))
    assert {"health", "update_server", "migrate", "evacuate"} <= set(found)
    assert "instance_ids" in found["rotate_password"]
    assert dict(commands(ROOT / "docs" / "upgrading.md"))["inventory_db"] is not None


# --- figures


def test_the_plans_are_those_of_the_schema() -> None:
    script = text_of(ROOT / "roles" / "inventory_db" / "files" / "migrations" / "0001_registry.up.sql")
    seeded = re.findall(
        r"\('([a-z]+)', +'([a-z]+)', +(\d+), +(\d+)::bigint << 30, +\d+::bigint << \d+, (\d+), +(\d+)::bigint << 30\)",
        script,
    )
    assert len(seeded) == 6
    rows = re.findall(
        r"^\| ([a-z]+) \| ([a-z]+) \| (\d+) \| (\d+) GiB \| (\d+) CPUs?, (\d+) GiB \|$",
        text_of(ROOT / "docs" / "plans.md"),
        re.MULTILINE,
    )
    assert rows == seeded


def test_gathered_figures_are_those_of_their_pages() -> None:
    row = r"^\| .* \| (.*\d.*) \| .* \| \[.*\]\((benchmarks[a-z-]*\.md).*\) \| `(tests/bench/\w+\.py)` \|$"
    rows = re.findall(row, text_of(ROOT / "docs" / "figures.md"), re.MULTILINE)
    assert len(rows) >= 8
    for seen, page, script in rows:
        assert (ROOT / script).exists()
        told = text_of(ROOT / "docs" / page)
        for figure in re.findall(r"\d+(?:\.\d+)?", seen):
            assert re.search(r"(?<![\d.]){0}(?![\d.]*\d)".format(re.escape(figure)), told), "{0} is not in {1}".format(
                figure, page
            )

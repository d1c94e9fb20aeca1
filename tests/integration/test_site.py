# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation as it is built: without a warning, every plugin, role and playbook reached from its first page, and no link that leads nowhere."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple
from urllib.parse import unquote, urldefrag

import pytest
from environment import ROOT

# Made by Sphinx, for people who search; their links are made by a script.
NOT_READ = {"search.html"}
FOLDERS = {"modules": "module", "lookup": "lookup", "inventory": "inventory", "filter": "filter", "test": "test"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: List[str] = []
        self.anchors: Set[str] = set()
        self.text: List[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        told = dict(attrs)
        self.anchors.update(value for value in (told.get("id"), told.get("name")) if value)
        link = told.get("href") if tag in ("a", "link") else told.get("src") if tag in ("img", "script") else None
        if link and not re.match(r"[a-z]+:|//", link):
            self.links.append(link)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module", name="site")
def fixture_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [str(ROOT / "scripts" / "site"), str(folder)], cwd=str(ROOT), capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.fixture(scope="module", name="pages")
def fixture_pages(site: Path) -> Dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def target_of(page: Path, link: str) -> Tuple[Path, str]:
    path, anchor = urldefrag(link)
    return ((page.parent / unquote(path)).resolve() if path else page), unquote(anchor)


def test_no_link_leads_nowhere(pages: Dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = target_of(path, link.partition("?")[0])
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append("{0}: {1}".format(path.name, link))
    assert not dead


def reached(site: Path, pages: Dict[Path, Page]) -> Set[Path]:
    found, ahead = set(), [site / "index.html"]
    while ahead:
        path = ahead.pop()
        if path in pages and path not in found:
            found.add(path)
            ahead += [target_of(path, link)[0] for link in pages[path].links]
    return found


def test_everything_is_reached_from_the_first_page(site: Path, pages: Dict[Path, Page]) -> None:
    names = {str(path.relative_to(site)) for path in reached(site, pages)}
    wanted = {path.stem + ".html" for path in ROOT.glob("docs/*.md")}
    wanted |= {
        "reference/{0}_role.html".format(path.parent.parent.name)
        for path in ROOT.glob("roles/*/meta/argument_specs.yml")
    }
    for folder, kind in FOLDERS.items():
        wanted |= {
            "reference/{0}_{1}.html".format(path.stem, kind)
            for path in ROOT.glob("plugins/{0}/*.py".format(folder))
            if path.stem != "__init__"
        }
    assert not wanted - names
    assert {path.name for path in pages} - {Path(name).name for name in names} <= NOT_READ
    told = "".join(pages[site / "playbooks.html"].text)
    assert not [path.name for path in ROOT.glob("playbooks/*.yml") if path.name not in told]


def test_the_theme_has_nothing_to_complain_of(pages: Dict[Path, Page]) -> None:
    assert not [path.name for path, page in pages.items() if "Adding a table of contents in Furo" in "".join(page.text)]

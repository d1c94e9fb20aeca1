# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the site. The pages are docs/*.md as they stand, so that they read the same on a code host; scripts/site lays them out."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
GALAXY = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))

project = "{0}.{1}".format(GALAXY["namespace"], GALAXY["name"])
author = GALAXY["authors"][0]
copyright = "2026, {0}".format(author)  # noqa: A001  Sphinx wants it under this name
version = release = GALAXY["version"]

extensions = ["myst_parser", "sphinx_antsibull_ext"]
# Anchors as a code host makes them, so that a link to a heading holds in both places.
myst_heading_anchors = 4
nitpicky = True
highlight_language = "text"
pygments_style = "tango"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = GALAXY["name"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Most pages have no file of their own to be edited: they are made from plugins and roles.
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
# Its own colours know nothing of the theme's switch between light and dark; site.css has some that do.
antsibull_ext_color_scheme = "none"

# The theme has a table of contents beside each page and wants no other in it.
_CONTENTS = re.compile(r"^\.\. contents::\n(?: +:.*\n)+", re.MULTILINE)
# In a list of all of them, what begins the same is noise.
_TITLE = re.compile(r"^{0}\.(?=[a-z_]+ [a-z]+ -- )".format(re.escape(project)), re.MULTILINE)
_OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_ELSEWHERE = re.compile(r"^ansible_collections\.([a-z0-9_]+)\.([a-z0-9_]+)\.([a-z0-9_]+)$")
_ANSIBLE = "https://docs.ansible.com/projects/ansible/latest/"
_APPENDICES = {"common_return_values": "common_return_values", "ansible_configuration_settings": "config"}


def reference(_app, page, source):
    """The pages of plugins and roles as the theme shows them best."""
    if page.startswith("reference/"):
        source[0] = _TITLE.sub("", _CONTENTS.sub("", source[0]))


def files_of_the_repository(_app, page, source):
    """A link that leads out of docs/ leads to the file in the repository; one to a file that is not there is a mistake."""

    def address(found):
        path, anchor = found.group(1).rstrip("/"), found.group(2) or ""
        if not (ROOT / path).exists():
            logging.getLogger(__name__).warning("%s links to %s, which is not there", page, path, location=page)
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return "]({0}/{1}/main/{2}{3})".format(GALAXY["repository"], kind, path, anchor)

    if not page.startswith("reference/"):
        source[0] = _OUTSIDE.sub(address, source[0])


def pages_of_ansible(_app, _env, node, content):
    """A link into Ansible's own documentation, without fetching an inventory of it for that."""
    target = node.get("reftarget", "")
    found = _ELSEWHERE.match(target)
    if target in _APPENDICES:
        page = "reference_appendices/{0}.html".format(_APPENDICES[target])
    elif found and found.groups()[:2] != (GALAXY["namespace"], GALAXY["name"]):
        page = "collections/{0}/{1}/{2}.html".format(*found.groups())
    else:
        return None
    return nodes.reference("", "", content, internal=False, refuri=_ANSIBLE + page)


def setup(app):
    app.connect("source-read", reference)
    app.connect("source-read", files_of_the_repository)
    app.connect("missing-reference", pages_of_ansible)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

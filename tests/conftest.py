# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `import ansible_collections.saasodoo.postgres_pools` work for every test, wherever the checkout lies."""

from __future__ import annotations

import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / ".build"

if not (BUILD / "ansible_collections" / "saasodoo" / "postgres_pools").exists():
    raise RuntimeError("run `make setup-test` first: %s lacks the collection" % BUILD)
sys.path.insert(0, str(BUILD))

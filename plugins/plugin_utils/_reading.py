# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the inventory database from plugins that run on the controller."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Mapping

from ansible.errors import AnsibleError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection import PSYCOPG2_IMPORT_ERROR
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._inventory import Inventory
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import CRYPTOGRAPHY_IMPORT_ERROR


@contextlib.contextmanager
def reading(options: Mapping[str, Any], what: str) -> Iterator[Inventory]:
    """The inventory database for the plugin *what*; a PoolsError leaves as an AnsibleError that names the plugin."""
    for library, missing in (("psycopg2", PSYCOPG2_IMPORT_ERROR), ("cryptography", CRYPTOGRAPHY_IMPORT_ERROR)):
        if missing:
            raise AnsibleError("{0} needs the Python library {1} on the controller.".format(what, library))
    try:
        with Inventory(options) as inventory:
            yield inventory
    except PoolsError as error:
        # Ansible would print the cause after the message, which says it all.
        raise AnsibleError("{0}: {1}".format(what, error)) from None

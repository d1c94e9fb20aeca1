# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module that works on the inventory database shares: its options, its one way in and its one way out."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ._connection import PSYCOPG2_IMPORT_ERROR
from ._errors import PoolsError
from ._inventory import Inventory
from ._secrets import CRYPTOGRAPHY_IMPORT_ERROR, Cipher, keys_from

try:
    import psycopg2
except ImportError:
    pass  # reported from _connection, with the reason

# The cipher is None for a module that does not need the keys.
Work = Callable[[Mapping[str, Any], Inventory, Any], Dict[str, Any]]


def connection_spec() -> Dict[str, Any]:
    """The options of a connection, named as in community.postgresql, with the same PG* fallbacks."""
    return dict(
        login_host=dict(type="str", default=os.environ.get("PGHOST", "")),
        login_port=dict(type="int", default=int(os.environ.get("PGPORT") or 5432)),
        login_user=dict(type="str", default=os.environ.get("PGUSER") or "database_service"),
        login_password=dict(type="str", default="", no_log=True),
        login_db=dict(type="str", default=os.environ.get("PGDATABASE") or "postgres_pools"),
        login_unix_socket=dict(type="str", default=""),
        ssl_mode=dict(
            type="str", default="prefer", choices=["allow", "disable", "prefer", "require", "verify-ca", "verify-full"]
        ),
        ca_cert=dict(type="path", aliases=["ssl_rootcert"]),
        ssl_cert=dict(type="path"),
        ssl_key=dict(type="path", no_log=False),
        connect_params=dict(type="dict", default={}),
    )


def keys_spec() -> Dict[str, Any]:
    """The options with the keys to encrypted passwords."""
    return dict(
        secret_keys=dict(type="list", elements="str", no_log=True), secret_key_file=dict(type="path", no_log=False)
    )


def open_secrets(module: AnsibleModule, entries: Sequence[Dict[str, Any]], option: str) -> None:
    """Put the clear password where only ``<option>_encrypted`` is given, and keep it out of all that the module prints.

    Passwords travel between the modules as the inventory database keeps them, so that no playbook ever holds one in clear.

    :raises PoolsError: there is no key, or none that fits.
    """
    encrypted = option + "_encrypted"
    cipher: Optional[Cipher] = None
    for entry in entries:
        if not entry.get(encrypted) or entry.get(option):
            continue
        if CRYPTOGRAPHY_IMPORT_ERROR:
            module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_IMPORT_ERROR)
        cipher = cipher or Cipher(keys_from(module.params))
        entry[option] = cipher.decrypt(entry[encrypted], "{0} {1}".format(encrypted, entry.get("name") or ""))
        module.no_log_values.add(entry[option])


def run(
    options: Mapping[str, Any], work: Work, needs_keys: bool = False, read_only: bool = False, **module_arguments: Any
) -> None:
    """Make the module, do its work, and leave by exit_json or by fail_json with one sentence.

    In check mode the work is done in a transaction that is rolled back.
    """
    module = AnsibleModule(argument_spec=dict(connection_spec(), **keys_spec(), **options), **module_arguments)
    if PSYCOPG2_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_IMPORT_ERROR)
    if needs_keys and CRYPTOGRAPHY_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_IMPORT_ERROR)
    try:
        cipher = Cipher(keys_from(module.params)) if needs_keys else None
        with Inventory(module.params, dry_run=module.check_mode and not read_only) as inventory:
            result = work(module.params, inventory, cipher)
    except PoolsError as error:
        module.fail_json(msg=str(error))
    except psycopg2.Error as error:
        # The primary message only: the detail may show a whole row.
        told = " ".join((error.diag.message_primary or str(error)).split())
        module.fail_json(
            msg="The inventory database refused: {0}. Nothing of this step was kept.".format(told.rstrip("."))
        )
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)

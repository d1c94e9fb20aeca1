#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_certificate
short_description: Sign the TLS certificates of servers, and see that they are served
version_added: 0.9.0
description:
  - Keeps an authority in the inventory database, made by the first call, its key encrypted with the secret key. Or signs with one given by files.
  - Signs for the keys that M(saasodoo.postgres_pools.server_key) keeps, which also puts the certificates in their place.
  - A certificate is made out to the server's name and address in the inventory database, whatever names the request holds.
options:
  servers:
    description: Names of the servers, which must be made with TLS.
    type: list
    elements: str
    required: true
  requests:
    description:
      - The request for a certificate of each server, by name, as M(saasodoo.postgres_pools.server_key) returns it.
      - Needed with O(state=issued), but for check mode.
    type: dict
    default: {}
  certificates:
    description: The certificates that the servers have, or with O(state=served) are to serve, by name, as PEM.
    type: dict
    default: {}
  state:
    description:
      - V(issued) signs a certificate for each server that has none, or one that fits no more, or less than a third of whose life is left.
      - V(served) looks by a TLS handshake whether the running server serves its certificate in O(certificates), or without that any that its
        clients accept. One that does not is told to read its files again, without a restart. When the certificate expires is recorded.
    type: str
    choices: [issued, served]
    default: issued
  authority:
    description:
      - The authority to sign with. Without it, the one in the inventory database signs, which is made if there is none.
      - Its key is read and not kept, so it has to be given each time.
      - Tenants trust all authorities that there ever were, until their rows are deleted from C(db_authorities).
    type: dict
    suboptions:
      certificate:
        description: File on this host with its certificate as PEM, and those above it up to the root behind it.
        type: path
        required: true
      key:
        description: File on this host with its RSA or ECDSA key as PEM, without a passphrase.
        type: path
        required: true
  alternative_names:
    description: More names or addresses that the certificates are made out to.
    type: list
    elements: str
    default: []
  days:
    description: How long a certificate is valid; never longer than its authority.
    type: float
    default: 90
  force:
    description: Sign also where it is not due.
    type: bool
    default: false
  timeout:
    description: Seconds that a server may take to answer, with O(state=served).
    type: float
    default: 10
extends_documentation_fragment:
  - saasodoo.postgres_pools.inventory_db
  - saasodoo.postgres_pools.inventory_db.keys
attributes:
  check_mode:
    description: Signs in a transaction that is rolled back, looks at what is served, and reloads nothing.
    support: full
  diff_mode:
    description: Shows why a certificate is signed, and when certificates expire; never a key.
    support: full
seealso:
  - module: saasodoo.postgres_pools.server_key
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Make the authority, if there is none yet, and read its certificate
  saasodoo.postgres_pools.server_certificate:
    login_host: 127.0.0.1
    login_port: "{{ inventory_port }}"
    login_password: "{{ inventory_password }}"
    secret_key_file: "{{ secret_key_file }}"
    servers: []
  register: authority
"""

RETURN = r"""
certificates:
  description: For each server its certificate, new or as it was, whether it is new (C(changed)) and why (C(reason)), and when it expires.
  returned: when O(state=issued)
  type: list
  elements: dict
  sample:
    - name: postgres-pool-1
      certificate: "-----BEGIN CERTIFICATE-----..."
      changed: true
      reason: there is none
      expires_at: "2027-02-20T10:00:00+00:00"
authority:
  description: Name of the authority that signs.
  returned: when O(state=issued)
  type: str
  sample: postgres_pools 2026-11-22T10:00:00Z
ca_certificate:
  description: What tenants trust, the certificates of all authorities as PEM, that of the one that signs first.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE-----..."
served:
  description: For each server whether it was told to read its files again (C(reloaded)), when its certificate expires, and what is wrong (C(msg)).
  returned: when O(state=served)
  type: list
  elements: dict
  sample:
    - name: postgres-pool-1
      reloaded: true
      expires_at: "2027-02-20T10:00:00+00:00"
      msg: ""
"""

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _certificates, _registry_module


def main():
    # Not by the modules of community.crypto: there the authority's key would pass in clear through Ansible's variables.
    # Here it is opened inside the one module that signs with it.
    _registry_module.run(_certificates.OPTIONS, _certificates.work, needs_keys=True, supports_check_mode=True)


if __name__ == "__main__":
    main()

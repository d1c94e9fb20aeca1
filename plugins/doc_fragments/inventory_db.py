# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options with which plugins reach the inventory database."""

    DOCUMENTATION = r"""
options:
  login_host:
    description: Host of the inventory database. Empty means E(PGHOST), then the local socket.
    type: str
    default: ""
  login_port:
    description: Its port. E(PGPORT) is the default where it is set.
    type: int
    default: 5432
  login_user:
    description: The service role of the inventory database. E(PGUSER) is the default where it is set.
    type: str
    default: database_service
  login_password:
    description: Its password. Empty leaves it to libpq, which reads a password file.
    type: str
    default: ""
  login_db:
    description: Name of the inventory database. E(PGDATABASE) is the default where it is set.
    type: str
    default: postgres_pools
  login_unix_socket:
    description: Directory of a local socket, used where O(login_host) is empty.
    type: str
    default: ""
  ssl_mode:
    description: How far TLS is asked for, as libpq's C(sslmode).
    type: str
    default: prefer
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: File with the certificates of the authorities that the server's certificate is checked against.
    type: path
    aliases: [ssl_rootcert]
  ssl_cert:
    description: File with the client's certificate.
    type: path
  ssl_key:
    description: File with the client certificate's key.
    type: path
  connect_params:
    description: More libpq keywords; they win over the options above. The limit of a connection attempt is 10 seconds unless C(connect_timeout) is here.
    type: dict
    default: {}
requirements:
  - psycopg2 >= 2.8
"""

    # For plugins of the controller, beside the above. Modules read these variables themselves, where they run.
    ENVIRONMENT = r"""
options:
  login_host:
    env:
      - name: PGHOST
  login_port:
    env:
      - name: PGPORT
  login_user:
    env:
      - name: PGUSER
  login_db:
    env:
      - name: PGDATABASE
"""

    # For a long step of a move, beside the above: login_* are needed for this alone.
    MOVE = r"""
options:
  migration:
    description:
      - The move that this is a step of. Its lease is kept while the step works, over the inventory database that O(login_host) and the others reach,
        which are used for nothing else.
    type: dict
    suboptions:
      id:
        description: The move's id, as M(saasodoo.postgres_pools.tenant_migration) returns it.
        type: str
        required: true
      lease:
        description: The lease that this run has on it.
        type: str
        required: true
      lease_seconds:
        description: For how many seconds the lease is renewed each time, which is every quarter of that.
        type: int
        default: 20
"""

    KEYS = r"""
options:
  secret_keys:
    description:
      - Fernet keys that the passwords in the inventory database are encrypted with, the newest first.
      - Without it, O(secret_key_file) is read, then E(POSTGRES_POOLS_SECRET_KEY_FILE), then E(POSTGRES_POOLS_SECRET_KEYS) (separated by blanks or commas).
    type: list
    elements: str
  secret_key_file:
    description: A file with the keys, one a line, the newest first. Keep it at mode 0600.
    type: path
requirements:
  - cryptography >= 3.0
"""

    NEW_SERVER = r"""
options:
  new_server:
    description: What a server made on demand is like. Without it none is made, and no room is an error that says why.
    type: dict
    suboptions:
      backend:
        description: How the server is deployed.
        type: str
        choices: [process, swarm]
        required: true
      host:
        description: Address of servers of backend V(process); a V(swarm) server is reached by its service's name.
        type: str
        default: 127.0.0.1
      first_port:
        description: First port that V(process) servers may have on that host.
        type: int
        default: 15433
      last_port:
        description: Last port that they may have.
        type: int
        default: 15531
      storage_root:
        description: Directory under which C(postgres_pools/) and C(postgres_dedicated/) lie.
        type: str
        required: true
      storage:
        description:
          - What the data of a V(swarm) server lie on. V(cephfs) is reached from every node, and any can take the server over.
          - V(local) is the disk of the one node that O(new_server.node_placement) names. It is faster, and when the node is gone so is the server.
          - The default is V(cephfs) for V(swarm); a V(process) server is always V(local).
        type: str
        choices: [cephfs, local]
      cpu_limit:
        description: CPUs of a pool. A dedicated server has what its plan says.
        type: float
        default: 2
      memory_limit:
        description: Memory of a pool, in bytes or with a unit such as V(4G).
        type: str
        default: 4G
      storage_limit:
        description: Storage that may be promised to the tenants of a pool.
        type: str
        default: 250G
      max_instances:
        description: Tenants of a pool.
        type: int
        default: 50
      connections_per_instance:
        description: Connections of a pool for each of its tenants, as far as its memory fits them.
        type: int
        default: 6
      priority:
        description: Lower is chosen first.
        type: int
        default: 100
      allocation_strategy:
        description: V(manual) keeps a server out of placement.
        type: str
        choices: [auto, manual]
        default: auto
      postgres_image:
        description: Image of a V(swarm) server.
        type: str
      node_placement:
        description: Placement constraint of a V(swarm) server.
        type: str
      admin_user:
        description: Name of the server's superuser.
        type: str
        default: postgres
      tls:
        description:
          - Whether the server takes connections by TLS only, with a certificate for its name by the authority in the inventory database.
          - Tenants then connect with C(sslmode=verify-full), and get the authority's certificate with their connection.
        type: bool
        default: false
"""

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The row of a server in the making: its name, address, budgets and admin password, and the lease of its maker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from . import _names
from ._errors import PoolsError
from ._inventory import SERVER_COLUMNS, Inventory
from ._listeners import refuse_taken
from ._secrets import Cipher, new_password
from ._sizing import memory_needed, parse_size, tenant_connections

# 300 connections in a pool of 4 GiB by 50 tenants; _sizing shows the sum.
CONNECTIONS_PER_INSTANCE = 6


@dataclass(frozen=True)
class NewServer:
    """What a new server is like. Sizes are bytes, ports are for ``process`` servers, which share one host's address."""

    backend: str
    host: str
    first_port: int
    last_port: int
    storage_root: str
    cpu_limit: float
    memory_limit_bytes: int
    storage_limit_bytes: int
    max_instances: int
    connections_per_instance: int = CONNECTIONS_PER_INSTANCE
    priority: int = 100
    allocation_strategy: str = "auto"
    postgres_image: Optional[str] = None
    node_placement: Optional[str] = None
    admin_user: str = "postgres"
    tls: bool = False
    storage: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> NewServer:
        """:raises PoolsError: a size that cannot be read, or a pool for nobody."""
        given = {key: value for key, value in options.items() if value is not None}
        for option in ("memory_limit", "storage_limit"):
            given[option + "_bytes"] = parse_size(given.pop(option))
        given.setdefault("storage", "cephfs" if given["backend"] == "swarm" else "local")
        new = cls(**given)
        if new.max_instances < 1:
            raise PoolsError("max_instances is {0}.".format(new.max_instances), "A pool takes at least one tenant.")
        if new.last_port < new.first_port:
            raise PoolsError("The ports {0} to {1} are an empty range.".format(new.first_port, new.last_port))
        new.check_storage()
        return new

    def check_storage(self) -> None:
        """:raises PoolsError: a storage that the backend does not have, or a node's own disk and no node."""
        if self.backend == "process" and self.storage != "local":
            raise PoolsError("storage is {0}, and the backend process keeps data on the machine's disk.".format(self.storage), "Leave storage out.")
        if self.backend == "swarm" and self.storage == "local" and not _names.HOST_NAME.match(self.node_placement or ""):
            raise PoolsError(
                "storage is local, and node_placement {0!r} is not the name of a node.".format(self.node_placement or ""),
                "Name the one node whose disk is meant.",
            )


def make_server(
    inventory: Inventory,
    cipher: Cipher,
    new: NewServer,
    kind: str,
    plan: Optional[Mapping[str, Any]] = None,
    customer_id: Optional[str] = None,
    instance_id: Optional[str] = None,
    name: Optional[str] = None,
) -> Dict[str, Any]:
    """Write the row of a server in the making. Its lease is free: whoever claims it makes the server.

    To be called inside a transaction that holds the placement lock: it is what keeps two callers from one port.

    :raises PoolsError: no free port; memory too small for the plan's connections; a name that is taken.
    """
    values = _budgets(new, kind, plan)
    values.update(
        name=name or _free_name(inventory, kind, instance_id),
        server_type=kind,
        backend=new.backend,
        priority=new.priority,
        allocation_strategy=new.allocation_strategy,
        postgres_image=new.postgres_image,
        node_placement=new.node_placement,
        storage=new.storage,
        admin_user=new.admin_user,
        tls=new.tls,
        admin_password_encrypted=cipher.encrypt(new_password()),
        dedicated_customer_id=customer_id if kind == "dedicated" else None,
        dedicated_instance_id=instance_id if kind == "dedicated" else None,
    )
    values["host"], values["port"] = _address(inventory, new, values["name"])
    values["storage_path"] = _storage_path(new.storage_root, kind, values["name"])
    columns = ", ".join(values)
    bound = ", ".join("%({0})s".format(column) for column in values)
    made = inventory.row(
        "INSERT INTO db_servers AS s ({0}) VALUES ({1}) ON CONFLICT (name) DO NOTHING RETURNING {2}".format(
            columns, bound, SERVER_COLUMNS
        ),
        values,
    )
    if made is None:
        raise PoolsError(
            "There is a server {0!r} already.".format(values["name"]), "Give another name, or ask for that one."
        )
    return made


def claim_making(inventory: Inventory, server_names: Sequence[str], lease_seconds: int) -> Optional[Tuple[str, str]]:
    """Take on the making of one server that nobody makes, or whose maker's lease has run out; its name and the lease token.

    One at a time: the lease of a second would run down while the first is made.
    """
    claimed = inventory.row(
        "UPDATE db_servers SET lease_holder = gen_random_uuid(), lease_expires_at = now() + %(lease)s * interval '1 second'"
        " WHERE id = (SELECT id FROM db_servers WHERE name = ANY (%(names)s) AND status IN ('provisioning', 'initializing')"
        " AND (lease_expires_at IS NULL OR lease_expires_at < now()) ORDER BY created_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)"
        " RETURNING name, lease_holder::text AS lease",
        {"lease": lease_seconds, "names": list(server_names)},
    )
    return (claimed["name"], claimed["lease"]) if claimed else None


def refuse_other_key(inventory: Inventory, cipher: Cipher) -> None:
    """What is written with a key that the servers' passwords were not written with could not be read together with them.

    :raises PoolsError: *cipher* lacks the key of a server that is there; one stands for all.
    """
    found = inventory.row(
        "SELECT name, admin_password_encrypted AS token FROM db_servers WHERE admin_password_encrypted IS NOT NULL LIMIT 1"
    )
    if found:
        cipher.decrypt(found["token"], "server {0}".format(found["name"]))


def _budgets(new: NewServer, kind: str, plan: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    if kind == "shared" or plan is None:
        fit = tenant_connections(new.memory_limit_bytes)
        # A pool in which not even one tenant fits would only be made to be refused.
        needed = plan["connections"] if plan else 1
        if fit < needed:
            raise PoolsError(
                "The memory_limit of {0} MiB for a new pool fits {1} connections of tenants, {2} are needed.".format(
                    new.memory_limit_bytes >> 20, fit, needed
                ),
                "Raise memory_limit to {0} MiB or more.".format(memory_needed(needed) >> 20),
            )
        if plan and plan["storage_bytes"] > new.storage_limit_bytes:
            raise PoolsError(
                "The storage_limit of {0} MiB for a new pool is less than the {1} MiB that one tenant of plan {2} takes.".format(
                    new.storage_limit_bytes >> 20, plan["storage_bytes"] >> 20, plan["plan_tier"]
                ),
                "Raise storage_limit.",
            )
        return {
            "max_instances": new.max_instances if kind == "shared" else 1,
            "connection_budget": min(fit, new.max_instances * new.connections_per_instance),
            "storage_budget_bytes": new.storage_limit_bytes,
            "cpu_limit": new.cpu_limit,
            "memory_limit_bytes": new.memory_limit_bytes,
        }
    fit = tenant_connections(plan["memory_limit_bytes"])
    if plan["connections"] > fit:
        raise PoolsError(
            "The plan {0} promises {1} connections, its memory of {2} MiB fits {3}.".format(
                plan["plan_tier"], plan["connections"], plan["memory_limit_bytes"] >> 20, fit
            ),
            "Raise memory_limit_bytes or lower connections in db_plans.",
        )
    return {
        "max_instances": 1,
        "connection_budget": plan["connections"],
        "storage_budget_bytes": plan["storage_bytes"],
        "cpu_limit": plan["cpu_limit"],
        "memory_limit_bytes": plan["memory_limit_bytes"],
    }


def _free_name(inventory: Inventory, kind: str, instance_id: Optional[str]) -> str:
    def taken(name: str) -> bool:
        return bool(inventory.rows("SELECT 1 FROM db_servers WHERE name = %(name)s", {"name": name}))

    if kind == "shared" and inventory.dry_run:
        # Sequences do not roll back: a dry run looks at the next numbers without taking them.
        number = inventory.rows("SELECT last_value + is_called::int AS number FROM db_pool_number")[0]["number"]
        while taken(_names.pool_name(number)):
            number += 1
        return _names.pool_name(number)
    if kind == "shared":
        while True:
            name = _names.pool_name(inventory.rows("SELECT nextval('db_pool_number') AS number")[0]["number"])
            if not taken(name):
                return name
    attempt = 0
    while taken(_names.dedicated_name(str(instance_id), attempt)):
        attempt += 1
    return _names.dedicated_name(str(instance_id), attempt)


def _storage_path(root: str, kind: str, name: str) -> str:
    if kind == "shared":
        return "{0}/postgres_pools/{1}".format(root.rstrip("/"), name.replace("postgres-pool-", "pool-", 1))
    return "{0}/postgres_dedicated/{1}".format(root.rstrip("/"), name)


def _address(inventory: Inventory, new: NewServer, name: str) -> Tuple[str, int]:
    if new.backend == "swarm":
        return name, 5432
    used = {
        row["port"]
        for row in inventory.rows(
            "SELECT port FROM db_servers WHERE host = %(host)s AND status <> 'deprovisioned'", {"host": new.host}
        )
    }
    for port in range(new.first_port, new.last_port + 1):
        if port not in used and _is_free(new.host, port):
            return new.host, port
    raise PoolsError(
        "No port from {0} to {1} is free on {2}.".format(new.first_port, new.last_port, new.host),
        "Widen the range of ports for new servers, or deprovision servers that are no longer needed.",
    )


def _is_free(host: str, port: int) -> bool:
    """Whether no other program has the port: the inventory database knows only our own."""
    try:
        refuse_taken(host, port)
    except PoolsError:
        return False
    return True

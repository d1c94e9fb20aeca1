# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an audit finds: the kinds of drift, which of them may be mended without a person, and what to do about the others. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

Finding = Dict[str, Any]

_ALLOCATE = "Run playbooks/allocate.yml for its instance again: what is there stays, what is missing is made."
_UPDATE = "Run playbooks/update_server.yml for the server: it deploys what the row says."
_LOOK = "Look whose it is. Nothing that has no row is ever changed or dropped by an audit."
_REPAIR = "Run playbooks/audit.yml -e repair=true."


class Kind(NamedTuple):
    """*safe*: mending it takes nothing away that a tenant may have, makes no data, restarts nothing, and drops nothing but what the collection itself made
    for a move that is over."""

    safe: bool
    remedy: str


KINDS: Dict[str, Kind] = {
    # Databases and roles of a server against its allocations
    "database_without_row": Kind(False, _LOOK),
    "row_without_database": Kind(False, "Restore it from a backup. playbooks/allocate.yml for its instance would make an empty one."),
    "role_without_row": Kind(False, _LOOK),
    "row_without_role": Kind(False, _ALLOCATE),
    "wrong_owner": Kind(False, "Give the database back to its owner by ALTER DATABASE ... OWNER TO, as the administrator, when it is this tenant's."),
    "foreign_role": Kind(False, "Look who made the role. When it is the tenant's, give it the comment that is expected."),
    "database_locale": Kind(False, "It cannot be changed in place: move the tenant to a new database."),
    "database_closed": Kind(False, "When nobody closed it on purpose: " + _ALLOCATE),
    "database_open": Kind(True, _REPAIR),
    "database_template": Kind(True, _REPAIR),
    "owner_privileges": Kind(False, _ALLOCATE),
    "connection_limit": Kind(True, _REPAIR),
    "role_setting": Kind(True, _REPAIR),
    "role_attributes": Kind(True, _REPAIR),
    "wall_role_missing": Kind(True, _REPAIR),
    "wall_membership": Kind(True, _REPAIR),
    "bus_membership": Kind(True, _REPAIR),
    "foreign_membership": Kind(True, _REPAIR),
    "password": Kind(False, "Find out who changed it, and which one the application has. " + _ALLOCATE),
    "password_rotation": Kind(False, "Run playbooks/rotate_password.yml for the instance: it finishes what was begun."),
    "password_unreadable": Kind(False, "Add the key that it was encrypted with to the key file, behind the newest one."),
    "extension_missing": Kind(False, _ALLOCATE),
    "extension_function": Kind(False, _ALLOCATE),
    "quarantine_missing": Kind(False, "Look who dropped it before its time; its row still counts its storage."),
    "quarantine_open": Kind(True, _REPAIR),
    "quarantine_undone": Kind(False, "Look who renamed it; playbooks/release.yml for the instance says what is in the way."),
    # What follows a database, against the moves
    "follow_left_over": Kind(True, _REPAIR),
    "way_back_broken": Kind(
        False,
        "Until its slot is read again, playbooks/rollback.yml would not bring back what was written since; playbooks/migrate.yml would. The old server's log"
        " says what keeps it, as a definition that was changed in the new place does. playbooks/cleanup.yml -e end_ways_back=true gives all ways back up.",
    ),
    # A server as a whole
    "unreachable": Kind(False, "See that it runs and that the client host reaches it; playbooks/health.yml follows it."),
    "own_database_open": Kind(True, _REPAIR),
    "bus_role": Kind(True, _REPAIR),
    "version": Kind(False, _UPDATE),
    "settings": Kind(False, "Take back ALTER SYSTEM by ALTER SYSTEM RESET; for the rest, " + _UPDATE[0].lower() + _UPDATE[1:]),
    "pg_hba": Kind(False, _UPDATE),
    "certificate_expiring": Kind(False, "Run playbooks/renew_certificates.yml; an authority that ends needs another, as docs/playbooks.md says."),
    # The inventory database against itself
    "counter": Kind(False, "As the owner of the inventory database, set the column to what is expected; the triggers go on from there."),
    "lease_stale": Kind(False, "Run playbooks/provision_pool.yml or playbooks/allocate.yml: a run that wants the server takes it over."),
    "reservation_overdue": Kind(False, "Run playbooks/cleanup.yml, or playbooks/allocate.yml for the instance."),
    "release_unfinished": Kind(False, "Run playbooks/release.yml for the instance again."),
    # What is deployed against the rows
    "directory_without_row": Kind(False, _LOOK),
    "row_without_directory": Kind(False, "Look whether its file system is mounted. Do not start the server: it would begin with no data."),
    "process_without_row": Kind(False, _LOOK),
    "row_without_process": Kind(False, _UPDATE),
    "configuration": Kind(False, _UPDATE),
    "service_without_row": Kind(False, _LOOK),
    "row_without_service": Kind(False, _UPDATE),
    "service_drift": Kind(False, _UPDATE),
    "secret_without_row": Kind(False, _LOOK),
    "row_without_secret": Kind(False, _UPDATE),
    "config_without_row": Kind(False, _LOOK),
    "row_without_config": Kind(False, _UPDATE),
    # The isolation probe
    "isolation": Kind(False, "Close it now; until then tenants of this server can reach each other or the server itself."),
    "probe_inconclusive": Kind(False, "The attempt was neither let through nor refused for lack of leave. See the reason, and run the audit again."),
}
# Of these a single one is reason to wake somebody.
ALARMS = frozenset(["isolation"])


def finding(server: str, kind: str, thing: str, expected: Any, found: Any, **more: Any) -> Finding:
    """One difference. *more* may say ``safe_to_repair`` and ``remedy`` where they differ from the kind's own."""
    of_kind = KINDS[kind]
    made: Finding = {
        "server": server,
        "kind": kind,
        "object": thing,
        "expected": expected,
        "found": found,
        "safe_to_repair": of_kind.safe,
        "remedy": of_kind.remedy,
        "repaired": False,
    }
    made.update(more)
    return made


def in_order(findings: Sequence[Finding]) -> List[Finding]:
    """Alarms first, then by server, kind and object, so that two runs can be compared."""
    return sorted(findings, key=lambda one: (one["kind"] not in ALARMS, one["server"], one["kind"], one["object"]))


def summary(findings: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Status and counts of what is left when what was repaired is taken off."""
    counts: Dict[str, int] = {}
    for one in findings:
        if not one["repaired"]:
            counts[one["kind"]] = counts.get(one["kind"], 0) + 1
    status = "alarm" if ALARMS & set(counts) else "findings" if counts else "clean"
    return {"status": status, "counts": counts}


def check_limits(**limits: float) -> None:
    """:raises PoolsError: a limit that is no positive number of at most a day or a year's worth."""
    for name, value in limits.items():
        if not 0 < value <= 366 * 86400:
            raise PoolsError("{0} is {1}.".format(name, value), "Give a number above 0.")

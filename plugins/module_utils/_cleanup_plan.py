# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup would take away and what it keeps, each with the reason: decided here, done elsewhere. Pure."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

Row = Mapping[str, Any]
Item = Dict[str, Any]

# Where the backends put the directories of pools and of dedicated servers, and how those are called that the collection named.
_PATTERNS = {
    "postgres_pools": (re.compile(r"^pool-[a-z0-9-]+\Z"), "postgres-"),
    "postgres_dedicated": (re.compile(r"^postgres-dedicated-[a-z0-9-]+\Z"), ""),
}
_SERVICE = re.compile(r"^postgres-(pool|dedicated)-[a-z0-9-]+\Z")
USABLE = ("active", "full", "maintenance")


@dataclass(frozen=True)
class Rules:
    error_hours: float = 24
    orphan_hours: float = 24
    archive_days: float = 30
    limit: int = 10
    # 0 keeps them.
    emptied_hours: float = 0


@dataclass(frozen=True)
class Facts:
    """What the inventory database and the hosts tell, read at one moment."""

    now: datetime.datetime
    # Every row of db_servers, with what is on it, of those in error and those emptied how the server itself answered, and since when it is empty.
    servers: Sequence[Row] = ()
    released: Sequence[Row] = ()
    moves: Sequence[Row] = ()
    # Old places that follow the new ones, each with why it should no more, or nothing.
    following: Sequence[Row] = ()
    # Databases of allocations that are live or not dropped yet, and all that were ever allocated.
    wanted_databases: FrozenSet[str] = frozenset()
    known_databases: FrozenSet[str] = frozenset()
    # As the module server_storage returns them, each with its backend and its place: that backend, or the node whose disk it lies on.
    directories: Sequence[Row] = ()
    roots: FrozenSet[str] = frozenset()
    # Of a Swarm: name, kind (service, secret, config), server, since, path.
    objects: Sequence[Row] = ()


@dataclass
class Plan:
    """``items`` in the order of doing them, oldest first; ``left`` is over the limit; ``refused`` says why nothing may be done."""

    items: List[Item] = field(default_factory=list)
    left: List[Item] = field(default_factory=list)
    kept: List[Dict[str, str]] = field(default_factory=list)
    refused: str = ""

    def keep(self, what: str, name: str, why: str) -> None:
        self.kept.append({"what": what, "name": name, "why": why})

    def take(
        self, action: str, what: str, name: str, since: Optional[datetime.datetime], why: str, **more: Any
    ) -> None:
        self.items.append(dict(more, action=action, what=what, name=name, since=since, why=why))


def decide(facts: Facts, rules: Rules) -> Plan:
    plan = Plan()
    _released(plan, facts)
    _following(plan, facts)
    _moves(plan, facts)
    _servers(plan, facts, rules)
    strays = _strays(facts)
    plan.refused = _refusal(facts, strays)
    if plan.refused:
        return Plan(refused=plan.refused)
    _objects(plan, facts, rules, strays)
    _directories(plan, facts, rules, strays)
    _archives(plan, facts, rules)
    beginning = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
    plan.items.sort(key=lambda item: (item["since"] or beginning, item["what"], item["name"]))
    _keep_to_limit(plan, rules.limit)
    return plan


def _keep_to_limit(plan: Plan, limit: int) -> None:
    """One call drops a name once on a server: an instance that was released twice has its second database dropped by the next run."""
    found, plan.items = plan.items, []
    seen = set()
    for item in found:
        row = item.get("row")
        dropped = (row["server"], row["database"]) if row else None
        if len(plan.items) >= limit or (dropped and dropped in seen):
            plan.left.append(item)
        else:
            plan.items.append(item)
            seen.add(dropped)


def _released(plan: Plan, facts: Facts) -> None:
    for row in facts.released:
        name = "{0} on {1}".format(row["quarantine_name"], row["server"])
        if row["drop_after"] is None or row["drop_after"] > facts.now:
            plan.keep("released database", name, "it is kept until {0}".format(_told(row["drop_after"])))
        elif row["server_status"] not in USABLE:
            plan.keep("released database", name, "its server is {0}".format(row["server_status"]))
        else:
            plan.take(
                "drop",
                "released database",
                name,
                row["drop_after"],
                "its time ended {0}".format(_told(row["drop_after"])),
                row=row,
            )


def _following(plan: Plan, facts: Facts) -> None:
    for row in facts.following:
        name = "{0} on {1}".format(row["source"]["database"], row["old_server"])
        if row["why"]:
            # Without an age, so that it comes before the dropping of what follows.
            plan.take("unlink", "way back", name, None, row["why"], migration_id=row["migration_id"], instance_id=row["instance_id"], ends=row)
        else:
            plan.keep("way back", name, "it follows {0} until {1}".format(row["new_server"], _told(row["retained_until"])))


def _moves(plan: Plan, facts: Facts) -> None:
    for row in facts.moves:
        source = (row["proof"] or {}).get("source_database")
        name = "{0} on {1}".format(source or row["database"], row["server"])
        why = _why_source_stays(row, source, facts.now)
        if why:
            plan.keep("moved source", name, why)
        else:
            told = "moved to {0}, and kept until {1}".format(row["target"], _told(row["retained_until"]))
            plan.take("drop", "moved source", name, row["retained_until"], told, row=dict(row, quarantine_name=source))


def _why_source_stays(row: Row, source: Optional[str], now: datetime.datetime) -> str:
    reasons = (
        (row["retained_until"] > now, "it is kept until {0}".format(_told(row["retained_until"]))),
        (row["allocation_status"] != "active", "its allocation is {0}, not active".format(row["allocation_status"])),
        (row["place"] != (row.get("led_to") or row["target"]), "its tenant is on {0} now, not where its moves led".format(row["place"])),
        ((row["proof"] or {}).get("equal") is not True, "there is no proof that the target is equal"),
        (not source or source == row["database"], "its move does not say under which name it was put aside"),
        (row["server_status"] not in USABLE, "its server is {0}".format(row["server_status"])),
    )
    return next((why for holds, why in reasons if holds), "")


def _servers(plan: Plan, facts: Facts, rules: Rules) -> None:
    directories = {one["path"]: one for one in facts.directories}
    for row in facts.servers:
        if row["status"] == "deprovisioning" and row["server_type"] != "platform":
            plan.take("deprovision", "server", row["name"], row["since"], "its removal was begun and not finished")
        if row.get("emptied") and rules.emptied_hours:
            _emptied(plan, row, facts.now, rules)
        if row["status"] != "error":
            continue
        why = _why_server_stays(row, facts.now, rules)
        if why:
            plan.keep("server", row["name"], why)
            continue
        proof, why = emptiness(row, directories.get(row["storage_path"]), facts.roots)
        if proof:
            plan.take(
                "deprovision",
                "server",
                row["name"],
                row["since"],
                "in error since {0}; {1}".format(_told(row["since"]), proof),
            )
        else:
            plan.keep("server", row["name"], why)


def _emptied(plan: Plan, row: Row, now: datetime.datetime, rules: Rules) -> None:
    """One that answers is asked; by its files nobody knows what a running server holds."""
    since, answer = row["emptied"], row["answer"] or {"problem": "it was not asked"}
    due = since + datetime.timedelta(hours=rules.emptied_hours)
    if due > now:
        plan.keep("server", row["name"], "it was emptied, and is kept until {0}".format(_told(due)))
    elif "databases" not in answer:
        plan.keep("server", row["name"], "it was emptied, and does not answer ({0})".format(str(answer["problem"]).rstrip(".")[:300]))
    elif answer["databases"]:
        plan.keep("server", row["name"], "its tenant is gone, and it holds {0}".format(_list(answer["databases"])))
    else:
        why = "its tenant is gone since {0}; it answers and holds no database".format(_told(since))
        plan.take("deprovision", "server", row["name"], since, why, emptied=True)


def _why_server_stays(row: Row, now: datetime.datetime, rules: Rules) -> str:
    if row["server_type"] == "platform":
        return "it is the platform's own"
    if row["live"]:
        return "it has {0} live allocation{1}".format(row["live"], "s" if row["live"] > 1 else "")
    if row["undropped"]:
        return "it holds {0} released or moved database{1} that must be dropped first".format(
            row["undropped"], "s" if row["undropped"] > 1 else ""
        )
    if row["leased"]:
        return "a run is making it"
    due = row["since"] + datetime.timedelta(hours=rules.error_hours)
    return "it stays in error until {0} before it is looked at".format(_told(due)) if due > now else ""


def emptiness(row: Row, directory: Optional[Row], roots: FrozenSet[str]) -> Tuple[str, str]:
    """The proof that a server holds no tenant's database, or why there is none."""
    answer = row["answer"] or {"problem": "it was not asked"}
    if "databases" in answer:
        if answer["databases"]:
            return "", "it answers, and holds {0}".format(_list(answer["databases"]))
        return "it answers and holds no database", ""
    silent = "it does not answer ({0})".format(str(answer["problem"]).rstrip(".")[:300])
    if directory is None:
        if not row["used"] and row["storage_path"] and row["storage_path"].rpartition("/")[0] in roots:
            return "it was never made: there is no {0}".format(row["storage_path"]), ""
        return "", "{0}, and its directory {1} was not found".format(silent, row["storage_path"])
    why = _why_files_prove_nothing(row, directory)
    if why:
        return "", "{0}, and {1}".format(silent, why)
    return "{0} and its directory holds no database".format(
        "it was shut down in order" if row["used"] else "it never came up"
    ), ""


def _why_files_prove_nothing(row: Row, directory: Row) -> str:
    if directory["unreadable"] or directory["held"]:
        return "its directory proves nothing: {0}".format(directory["unreadable"] or directory["held"])
    if directory["databases"]:
        return "its directory holds {0}".format(_list(directory["databases"]))
    if row["used"] and not directory["clean"]:
        return "it was not shut down in order: its write-ahead log may hold more than its files show"
    return ""


@dataclass(frozen=True)
class _Strays:
    """What has the collection's names and no row."""

    directories: Sequence[Row]
    objects: Sequence[Row]


def _strays(facts: Facts) -> _Strays:
    paths = {row["storage_path"] for row in facts.servers if row["status"] != "deprovisioned"}
    names = {row["name"] for row in facts.servers if row["status"] != "deprovisioned"}
    return _Strays(
        [one for one in facts.directories if not one["archived"] and one["path"] not in paths and server_of(one)],
        [one for one in facts.objects if one["server"] not in names and _SERVICE.match(one["server"])],
    )


def server_of(directory: Row) -> str:
    """The name of the server that a directory of this name was made for; empty when the collection calls none so."""
    pattern, prefix = _PATTERNS.get(directory["root"].rpartition("/")[2], (None, ""))
    return prefix + directory["name"] if pattern is not None and pattern.match(directory["name"]) else ""


def _refusal(facts: Facts, strays: _Strays) -> str:
    lost = len({server_of(one) for one in strays.directories} | {one["server"] for one in strays.objects})
    known = sum(1 for row in facts.servers if row["status"] != "deprovisioned" and row["server_type"] != "platform")
    archives = sum(1 for one in facts.directories if one["archived"])
    if not facts.servers and lost + archives:
        return "The inventory database knows no server, but there are {0} without a row and {1} archives.".format(
            lost, archives
        )
    if lost > known:
        return "There are {0} servers without a row, more than the {1} that the inventory database knows.".format(
            lost, known
        )
    return ""


def _objects(plan: Plan, facts: Facts, rules: Rules, strays: _Strays) -> None:
    directories = {one["path"]: one for one in facts.directories}
    served = {one["server"] for one in facts.objects if one["kind"] == "service"}
    for one in facts.objects:
        if one not in strays.objects:
            continue
        why = _why_young(one["since"], facts.now, rules)
        if not why and one["kind"] != "service" and one["server"] in served:
            why = "the service {0} is there".format(one["server"])
        if not why and one["kind"] == "service":
            why = _why_service_stays(one, directories)
        if why:
            plan.keep(one["kind"], one["name"], why)
        else:
            plan.take(
                "remove" if one["kind"] != "service" else "archive",
                one["kind"],
                one["name"],
                one["since"],
                "no server {0} is known".format(one["server"]),
                server=one["server"],
                backend="swarm",
                place=directories[one["path"]]["place"] if one["kind"] == "service" else "swarm",
                path=one["path"],
            )


def _why_service_stays(one: Row, directories: Mapping[str, Row]) -> str:
    directory = directories.get(one["path"] or "")
    if directory is None:
        return "no server {0} is known, but its directory {1} was not found, so nobody can say what it holds".format(
            one["server"], one["path"]
        )
    if directory["unreadable"] or directory["databases"]:
        held = directory["unreadable"] or "it holds " + _list(directory["databases"])
        return "no server {0} is known, but in its directory {1}".format(one["server"], held)
    return ""


def _directories(plan: Plan, facts: Facts, rules: Rules, strays: _Strays) -> None:
    names = {row["name"] for row in facts.servers if row["status"] != "deprovisioned"}
    served = {one["path"] for one in facts.objects if one["kind"] == "service"}
    paths = {row["storage_path"] for row in facts.servers if row["status"] != "deprovisioned"}
    for one in facts.directories:
        if one["archived"] or one["path"] in paths or one["path"] in served:
            continue
        why = (
            _why_directory_stays(one, names, facts)
            if one in strays.directories
            else "it has no row, but no name that the collection gives either"
        )
        why = why or _why_young(one["since"], facts.now, rules)
        if why:
            plan.keep("directory", one["path"], why)
        else:
            since = moment(one["since"])
            plan.take(
                "archive",
                "directory",
                one["path"],
                since,
                "no server is known that it is of",
                backend=one["backend"],
                place=one["place"],
                path=one["path"],
                server=server_of(one),
            )


def _why_directory_stays(one: Row, names: Any, facts: Facts) -> str:
    if server_of(one) in names:
        return "the server {0} has its data elsewhere; which of the two is the right one?".format(server_of(one))
    if one["unreadable"]:
        return one["unreadable"]
    if not one["made"]:
        return "it is no server's: it has no lock"
    wanted = sorted(set(one["databases"]) & facts.wanted_databases)
    if wanted:
        return "it holds {0}, which is allocated or was released and not dropped".format(_list(wanted))
    if one["held"] and (one["databases"] or not one["running"]):
        # A tenant may be connected to it.
        return "{0}{1}".format(one["held"], ", and it holds " + _list(one["databases"]) if one["databases"] else "")
    return ""


def _archives(plan: Plan, facts: Facts, rules: Rules) -> None:
    for one in facts.directories:
        if not one["archived"]:
            continue
        why = "" if one["half_removed"] else _why_archive_stays(one, facts, rules)
        if one["held"]:
            why = one["held"]
        if why:
            plan.keep("archive", one["path"], why)
        else:
            told = (
                "its removal was begun" if one["half_removed"] else "archived {0}".format(_told(moment(one["since"])))
            )
            plan.take(
                "remove",
                "archive",
                one["path"],
                moment(one["since"]),
                told,
                backend=one["backend"],
                place=one["place"],
                path=one["path"],
            )


def _why_archive_stays(one: Row, facts: Facts, rules: Rules) -> str:
    if one["unreadable"]:
        return one["unreadable"]
    made = moment(one["since"])
    if made is None:
        return "its name does not say when it was archived"
    until = made + datetime.timedelta(days=rules.archive_days)
    if until > facts.now:
        return "it is kept until {0}".format(_told(until))
    wanted = sorted(set(one["databases"]) & facts.wanted_databases)
    if wanted:
        return "it holds {0}, which is allocated or was released and not dropped".format(_list(wanted))
    unknown = sorted(set(one["databases"]) - facts.known_databases)
    if unknown:
        return "it holds {0}, which the inventory database never knew".format(_list(unknown))
    return ""


def _why_young(since: Any, now: datetime.datetime, rules: Rules) -> str:
    made = moment(since)
    if made is None:
        return "it does not say how old it is"
    # A maker may be at work whose row this run has not seen.
    until = made + datetime.timedelta(hours=max(1.0, rules.orphan_hours))
    return "it has no row, and is left alone until {0}".format(_told(until)) if until > now else ""


def moment(value: Any) -> Optional[datetime.datetime]:
    """A time as it is, or out of ISO 8601; None for none and for what is no time."""
    if value is None or isinstance(value, datetime.datetime):
        return value
    # Docker gives nanoseconds and Z, which Python 3.8 does not read.
    text = re.sub(r"\.[0-9]+", "", str(value)).replace("Z", "+00:00")
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)


def swarm_objects(kind: str, inspected: Sequence[Row]) -> List[Dict[str, Any]]:
    """What ``docker service|secret|config inspect`` tells, as far as it bears the label of a server."""
    found = []
    for one in inspected:
        spec = one.get("Spec") or {}
        server = (spec.get("Labels") or {}).get("postgres_pools.server")
        if not server:
            continue
        container = (spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}
        paths = [mount.get("Source") for mount in container.get("Mounts") or [] if mount.get("Type", "bind") == "bind"]
        found.append(
            {
                "kind": kind,
                "name": spec.get("Name"),
                "server": server,
                "since": moment(one.get("UpdatedAt") or one.get("CreatedAt")),
                "path": paths[0] if len(paths) == 1 else None,
            }
        )
    return found


def _told(when: Optional[datetime.datetime]) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC") if when else "somebody says when"


def _list(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else "{0} and {1} more".format(shown, len(names) - most)

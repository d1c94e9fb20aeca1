# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One case: the tenants write, something breaks, it is mended, and then everything is looked at."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Optional

import record
from harness import SAFE, Fleet, Witnesses, Writer, two_writers, wait_until

# Seconds until a wait is given up. What a case is allowed to take is said by the case.
HARD_LIMIT = 240
# Nobody waits this long between two commits when all is well; a machine that is busy with other work may let one wait a little.
AWAY = 2.5


class Case:
    def __init__(self, fleet: Fleet, name: str, folder: Path, writers_on: str = SAFE, beside: str = "") -> None:
        self.fleet, self.bed, self.name, self.folder = fleet, fleet.bed, name, folder
        self.writers = self._writers(writers_on)
        # Those on the node that is about to be cut off, which may be served on by what else is cut off.
        self.inside = self._writers(beside) if beside else []
        self.witnesses = Witnesses(self.bed)
        self.broken_at = 0.0
        self.where: Dict[str, str] = {}
        self.seconds: Dict[str, float] = {}
        self.notes: List[str] = []
        self._runs: Dict[str, Future[Any]] = {}
        self._pool = ThreadPoolExecutor(4)

    def _writers(self, node: str) -> List[Writer]:
        return [Writer(self.bed, "{0}-{1}-{2:.0f}".format(tenant, node, time.time()), login, node) for tenant, login in self.fleet.logins.items()]

    @property
    def everybody(self) -> List[Writer]:
        return [*self.writers, *self.inside]

    def __enter__(self) -> Case:
        try:
            self._begin()
        except BaseException:
            self.__exit__(AssertionError)
            raise
        return self

    def _begin(self) -> None:
        for writer in self.everybody:
            writer.start()
        wait_until("every tenant writes", 60, lambda: all(len(writer.acknowledged) > 5 for writer in self.everybody))
        servers = set(self.fleet.servers)
        wait_until("the witnesses see every server", 60, lambda: {event["server"] for event in self.witnesses.accepted} >= servers)
        self.where = self.fleet.where()

    def __exit__(self, kind: Optional[type], *_unused: Any) -> None:
        for writer in self.everybody:
            writer.stop()
        self.witnesses.stop()
        self._pool.shutdown(wait=kind is None)

    # While it is broken

    def fault(self, verb: str, *more: str) -> float:
        """Break it. Seconds are counted from here."""
        self.broken_at = time.time()
        self.bed.fault(verb, *more)
        return self.broken_at

    def untouched(self, label: str, limit: float, writers: Optional[List[Writer]] = None) -> None:
        """The longest that any of them waited since it was broken."""
        self.seconds[label] = max(writer.away(self.broken_at)[1] for writer in writers or self.writers)
        assert self.seconds[label] <= limit, (label, self.seconds[label])

    def affected(self, node: str) -> List[Writer]:
        return [writer for writer in self.writers if self.where[writer.login["server"]] == node]

    def served_again(self, label: str, writers: List[Writer], since: Optional[float] = None, counted_from: Optional[float] = None) -> float:
        """Wait until each of them committed again after having been away; the seconds of the last one."""
        since = since or self.broken_at
        assert writers, "none of the tenants' servers was there"

        def back() -> bool:
            return all(writer.away(since)[1] > AWAY for writer in writers)

        wait_until("the tenants are served again", HARD_LIMIT, back)
        until = max(writer.away(since)[0] for writer in writers)
        self.seconds[label] = until - (counted_from or since)
        return self.seconds[label]

    def waits_elsewhere(self, node: str) -> bool:
        """Whether a container of each server that was on *node* has been started on another one too."""
        servers = {server for server, place in self.where.items() if place == node}
        found = {
            server
            for server in servers
            for other in self.bed.nodes
            if other != node and self.bed.on(other, "docker", "ps", "--quiet", "--filter", "label=postgres_pools.server=" + server).strip()
        }
        return found == servers

    def prepare_runs(self) -> None:
        """A tenant whose release will be asked for while something is broken."""
        self._leaves = self._instance()
        self._play("allocate", **self._leaves)

    @staticmethod
    def _instance() -> Dict[str, Any]:
        return {"instance_id": str(uuid.uuid4()), "customer_id": str(uuid.uuid4()), "plan_tier": "standard"}

    def start_runs(self, **variables: Any) -> None:
        """Allocation, release and provisioning, begun a little before. Whether they end well now is one thing; run again afterwards they must."""
        self._comes = self._instance()
        asked = {
            "allocate": self._comes,
            "release": {"instance_id": self._leaves["instance_id"], "keep_days": 0},
            "provision_pool": {},
        }
        self._runs = {playbook: self._pool.submit(self.bed.play, playbook, limit=400, **more, **variables) for playbook, more in asked.items()}
        # So that they are in the midst of it.
        time.sleep(3)

    def wait_for_runs(self) -> None:
        for future in self._runs.values():
            future.result()

    def finish_runs(self) -> None:
        """Those that failed are run again; then all three must have come to what they were asked for, and nothing more."""
        for playbook, future in self._runs.items():
            done = future.result()
            again = {"allocate": self._comes, "release": {"instance_id": self._leaves["instance_id"], "keep_days": 0}}.get(playbook)
            failed = "failed and was run again" if again else "failed"
            self.notes.append("{0}.yml {1}".format(playbook, "went through" if done.returncode == 0 else failed))
            (self.folder / (playbook + ".log")).write_text(done.stdout)
            if playbook == "provision_pool" and done.returncode:
                # Asking again would make another one: the failed one is seen in its row.
                continue
            given = self._play(playbook, **again) if again else {}
            if playbook == "allocate":
                assert given["status"] == "allocated", given
                assert self.bed.query_from(SAFE, given, "SELECT current_user") == given["user"]
        states = self.bed.sql("SELECT instance_id, status FROM db_allocations WHERE instance_id IN ('{0}', '{1}')".format(
            self._comes["instance_id"], self._leaves["instance_id"]))
        assert {row["instance_id"]: row["status"] for row in states} == {
            self._comes["instance_id"]: "active",
            self._leaves["instance_id"]: "released",
        }
        self.fleet.tidy()

    # Afterwards

    def nodes_are_ready(self) -> None:
        wait_until("all nodes are ready", 120, self._nodes_ready)

    def mended(self) -> None:
        """Nodes, mounts and servers are as before the case, without anything done to a server by hand."""
        self.nodes_are_ready()
        wait_until("all nodes take servers", 60, self._nodes_labelled)
        for node in self.bed.nodes:
            assert self.bed.on(node, "getfattr", "--absolute-names", "--only-values", "-n", "ceph.cluster_fsid", "/mnt/cephfs")
        wait_until("each server runs once, healthy", HARD_LIMIT, self._servers_healthy, pause=1)
        now = time.time()
        wait_until("every tenant writes", 60, lambda: all(writer.served_since(now) > 3 for writer in self.everybody))

    def _nodes_ready(self) -> bool:
        try:
            states = self.bed.manager("docker", "node", "ls", "--format", "{{.Status}} {{.Availability}} {{.ManagerStatus}}").split("\n")
        except AssertionError:
            # Managers that have just come back choose a leader first.
            return False
        # A scenario may have one manager.
        return sum(1 for state in states if state.startswith("Ready Active")) == len(self.bed.nodes) and not any("Unreachable" in state for state in states)

    def _nodes_labelled(self) -> bool:
        listed = self.bed.manager("docker", "node", "ls", "--filter", "node.label=role=database", "--format", "{{.Hostname}}")
        return sorted(listed.split()) == [node for node in self.bed.nodes if node != SAFE]

    def _servers_healthy(self) -> bool:
        for server in self.fleet.servers:
            found = [
                line
                for node in self.bed.nodes
                for line in self.bed.on(node, "docker", "ps", "--filter", "label=postgres_pools.server=" + server, "--format", "{{.Status}}").split("\n")
                if line
            ]
            if len(found) != 1 or "(healthy)" not in found[0]:
                return False
        return True

    def verify(self) -> None:
        """Everything that must be so after every case."""
        for writer in self.everybody:
            writer.stop()
        self.witnesses.stop()
        seen = self.witnesses.accepted
        wrong = ["two PostgreSQL accepted writes: {0}".format(overlap) for overlap in two_writers(seen)]
        wrong += self.fleet.lost(self.everybody) + self.fleet.lost_by_witnesses(seen) + self.fleet.damaged()
        assert not wrong, "\n".join(wrong[:30])
        self.inventory_true()

    def inventory_true(self) -> None:
        """health.yml, which is run every few minutes, finds all well, and audit.yml nothing that differs."""

        def all_well() -> bool:
            result = self._play("health", health_fail_on="never")
            return bool(result["summary"]["healthy"] == result["summary"]["servers"])

        wait_until("health.yml finds all servers healthy", 120, all_well)
        states = self.bed.sql(
            "SELECT name, status, health_status FROM db_servers"
            " WHERE status <> 'deprovisioned' AND (status NOT IN ('active', 'full') OR health_status <> 'healthy')"
        )
        assert not states, states
        findings = self._play("audit", audit_fail_on="never")["findings"]
        assert not findings, findings

    def _play(self, playbook: str, **variables: Any) -> Dict[str, Any]:
        result = self.folder / (playbook + ".json")
        done = self.bed.play(playbook, result_file=str(result), **variables)
        assert done.returncode == 0, done.stdout[-3000:]
        return dict(json.loads(result.read_text()))

    def record(self, limits: Optional[Dict[str, float]] = None) -> None:
        """Print the seconds, keep them for the page, and hold them against their limits."""
        limits = limits or {}
        acknowledged = sum(len(writer.acknowledged) for writer in self.everybody)
        record.keep(self.name, self.seconds, limits, acknowledged, self.notes)
        over = ["{0}: {1:.1f} s, not {2}".format(label, self.seconds[label], limit) for label, limit in limits.items() if self.seconds[label] > limit]
        assert not over, "\n".join(over)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant with everything that PostgreSQL has, moved by the playbooks from major to major and back to a pool, a writer at work until it is thrown out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import zoo_fixture
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._copy_clients import Clients
from copy_fixture import BIN_DIRS
from environment import Environment, Outcome, connect, environment
from picture_fixture import Picture, picture
from test_migrate import LEASED, Tenant, Writer, left_behind, written

# The tables of the writer, which is still at work when the picture is taken.
WRITTEN = ("public.numbered", "public.counted")


class Place:
    """A server of the inventory database, as the zoo's fixture knows servers."""

    def __init__(self, scratch: Environment, name: str) -> None:
        row = next(row for row in scratch.servers() if row["name"] == name)
        self.host, self.port, self.user = row["host"], row["port"], row["admin_user"]
        self.password = scratch.cipher().decrypt(row["admin_password_encrypted"], name)
        self.major = int(row["postgres_version"]) // 10000

    def connect(self, dbname: str = "postgres") -> Any:
        return connect(self.host, self.port, dbname, self.user, self.password)


class Majors:
    """One environment whose servers are of two majors, where there are two: what a run makes is of the one it is told."""

    def __init__(self, scratch: Environment) -> None:
        self.scratch = scratch
        self.older, self.newer = (path or scratch.facts["bin_dir"] for path in (BIN_DIRS[0], BIN_DIRS[-1]))

    def play(self, playbook: str, bin_dir: str, **variables: Any) -> Outcome:
        process = {"bin_dir": bin_dir, "run_as": self.scratch.facts["run_as"]}
        # The clients have to be the newer ones too.
        more_env = {"POSTGRES_POOLS_BIN_DIR": self.newer}
        return self.scratch.start(playbook, dict(variables, postgres_pools_process=process, **LEASED), more_env=more_env).wait(300)

    def see(self, tenant: Tenant, same: bool) -> Picture:
        """Without what a move changes on purpose: the limits that are the plan's, and the database's own, which the role's take the place of."""
        row = tenant.row
        place = Place(self.scratch, row["server"])
        found = picture(place, row["database_name"], Clients(self.newer, 0), same)
        for name in WRITTEN:
            found.rows.pop(name)
        found.around["database"] = [one[:5] + one[6:] for one in found.around["database"]]
        found.around["owner"] = [one[:3] + one[4:6] for one in found.around["owner"]]
        return found


@pytest.fixture(scope="module")
def majors() -> Iterator[Majors]:
    with environment() as here:
        made = Majors(here.ready())
        made.play("provision_pool", made.older, server="postgres-pool-old").succeeded()
        yield made
        # A shutdown in peace would write out thousands of files first.
        here.forget_servers()


def moved(majors: Majors, tenant: Tenant, playbook: str, **variables: Any) -> Dict[str, Any]:
    """Its row after a move with a writer, of which nothing was lost; the proof of it was kept."""
    same = Place(majors.scratch, tenant.row["server"]).major == int(Path(majors.newer).parent.name)
    before = majors.see(tenant, same)
    already = tenant.do("SELECT count(*) FROM numbered")[0][0]
    writer = Writer(tenant)
    writer.acknowledged = already
    with writer:
        majors.play(playbook, majors.newer, instance_id=tenant.id, **variables).succeeded()
    written(tenant, writer)
    assert writer.acknowledged > already
    after = majors.see(tenant, same)
    assert after.rows == before.rows
    assert after.around == before.around
    assert after.schema == before.schema
    move = tenant.last_move()
    assert move["status"] == "completed" and move["proof"]["equal"] and move["proof"]["difference_count"] == 0
    assert move["proof"]["table_count"] >= len([name for name in before.rows if "small_" in name]) / 2 + 30
    assert left_behind(majors.scratch) == []
    row = tenant.row
    assert row["status"] == "active"
    return row


def test_from_a_pool_to_a_newer_server_of_its_own_and_to_a_pool(majors: Majors, capsys: pytest.CaptureFixture[str]) -> None:
    scratch = majors.scratch
    tenant = Tenant(scratch)
    begun = tenant.row
    database, owner = begun["database_name"], begun["role_name"]
    place = Place(scratch, begun["server"])
    zoo_fixture.roles(place, owner)
    zoo_fixture.settle(place, database, owner)
    zoo_fixture.contents(place, database, owner)
    seconds: List[float] = [time.monotonic()]
    row = moved(majors, tenant, "change_plan", plan_tier="premium")
    assert row["server"].startswith("postgres-dedicated") and row["plan_tier"] == "premium"
    seconds.append(time.monotonic())
    # Then with 3,000 tables more, within one major, where pg_dump's text must be the same to the letter.
    zoo_fixture.small_tables(Place(scratch, row["server"]), database, owner, 3000)
    majors.play("provision_pool", majors.newer, server="postgres-pool-new").succeeded()
    # Nothing goes back to an older major.
    scratch.execute("UPDATE db_servers SET allocation_strategy = 'manual' WHERE name = 'postgres-pool-old'")
    # Its own functions would run as superuser there, beside other tenants.
    refused = majors.play("change_plan", majors.newer, instance_id=tenant.id, plan_tier="standard")
    assert refused.rc != 0 and "generated column gross of zoo." in " ".join(refused.output.split()) and tenant.row["server"] == row["server"]
    row = moved(majors, tenant, "change_plan", plan_tier="standard", trust_code=True)
    assert row["server"] == "postgres-pool-new" and row["plan_tier"] == "standard"
    assert tenant.do("SELECT nextval('zoo.small_02999_id_seq')") == [(4,)]
    seconds.append(time.monotonic())
    with capsys.disabled():
        print("\nthe zoo moved up in {0:.1f} s, down with 3,000 tables in {1:.1f} s".format(seconds[1] - seconds[0], seconds[2] - seconds[1]))

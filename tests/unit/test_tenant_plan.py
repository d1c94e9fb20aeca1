# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _scram
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _tenant_plan as plan
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant import Database, Found, Role, Wanted

PLAIN = ["INHERIT", "NOSUPERUSER", "NOCREATEDB", "NOCREATEROLE", "NOREPLICATION", "NOBYPASSRLS"]
WANTED = Wanted("first", "first_user", "pw", connection_limit=6, temp_file_limit=1024, quarantine_name="gone")
GATE = Role("first", plan.gate_mark("first"), frozenset(["NOLOGIN", *PLAIN]), -1, None, {}, {}, {"first_user": False})
OWNER = Role(
    "first_user",
    plan.owner_mark("first"),
    frozenset(["LOGIN", *PLAIN]),
    6,
    _scram.verifier("pw", iterations=16),
    {"temp_file_limit": "1024kB"},
    {"first": False},
    {},
)
DATABASE = Database(
    "first", "first_user", "UTF8", "C", "C.UTF-8", "libc", True, -1, False, False,
    frozenset(["CONNECT", "CREATE", "TEMPORARY"]), frozenset(["plpgsql", "pg_trgm", "unaccent"]), (),
)  # fmt: skip
NOTHING = Found({}, {})


def found(*things: Any) -> Found:
    roles = {thing.name: thing for thing in things if isinstance(thing, Role)}
    return Found(roles, {thing.name: thing for thing in things if isinstance(thing, Database)})


def present(there: Found, wanted: Wanted = WANTED) -> list[plan.Step]:
    database = there.databases.get(wanted.name)
    steps = plan.plan_roles(wanted, there) + plan.plan_database(wanted, there)
    return steps + plan.plan_inside(wanted, database) + plan.plan_opening(wanted, database)


def words(steps: list[plan.Step]) -> list[str]:
    return [step.words for step in steps]


def test_what_is_as_wanted_needs_no_step() -> None:
    assert present(found(GATE, OWNER, DATABASE)) == []


def test_a_new_database_is_opened_last() -> None:
    steps = present(NOTHING)
    assert [step.where for step in steps] == ["server"] * 4 + ["alone"] + ["inside"] * 3 + ["server"] * 2
    assert "CONNECTION LIMIT 0" in steps[4].sql
    assert steps[-1].words == "database first: opened to its owner"


def test_no_step_shows_a_password_or_verifier() -> None:
    wanted = replace(WANTED, password="hunter2hunter2")
    for there in (NOTHING, found(GATE, OWNER, DATABASE)):
        shown = repr(present(there, wanted))
        assert "password set" in shown or "role first_user made" in shown
        assert "SCRAM-SHA-256" not in shown
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (replace(GATE, attributes=OWNER.attributes), "role first closed"),
        (replace(GATE, members={}), "role first_user: let through first"),
        (replace(GATE, members={"first_user": True}), "role first_user: admin option on first taken away"),
        (replace(GATE, members={"first_user": False, "spy": False}), "role spy: no more let through first"),
        (replace(OWNER, connection_limit=-1), "role first_user: connection limit 6"),
        (replace(OWNER, settings={}), "role first_user: temp_file_limit 1024kB"),
        (replace(OWNER, verifier=None), "role first_user: password set"),
        (
            replace(OWNER, member_of={"first": False, "tenant_bus": False}),
            "role first_user: no more member of tenant_bus",
        ),
        (
            replace(OWNER, attributes=frozenset(["LOGIN", "CREATEDB", *PLAIN]) - {"NOCREATEDB"}),
            "role first_user: NOCREATEDB",
        ),
        (replace(DATABASE, open_to_public=True), "database first: closed to PUBLIC"),
        (replace(DATABASE, is_template=True), "database first: no template"),
        (replace(DATABASE, connection_limit=0), "database first: opened to its owner"),
        (replace(DATABASE, owner_privileges=frozenset()), "database first: owner's privileges given back"),
        (replace(DATABASE, extensions=frozenset(["unaccent"])), "extension pg_trgm made"),
        (replace(DATABASE, mutable_unaccent=("public",)), "unaccent made immutable"),
    ],
)
def test_each_difference_is_mended_by_its_own_step(thing: Any, says: str) -> None:
    things = {(type(one), one.name): one for one in (GATE, OWNER, DATABASE, thing)}
    assert words(present(found(*things.values()))) == [says]


def test_the_bus_is_joined_when_asked_for() -> None:
    assert words(present(found(GATE, OWNER, DATABASE), replace(WANTED, bus=True))) == [
        "role first_user: member of tenant_bus"
    ]


@pytest.mark.parametrize(
    ("things", "says"),
    [
        ([replace(GATE, mark=None)], "Role 'first' is there already"),
        ([replace(OWNER, mark=plan.owner_mark("other"))], "Role 'first_user' is there already"),
        ([GATE, OWNER, replace(DATABASE, owner="alice")], "belongs to 'alice'"),
        ([GATE, DATABASE], "belongs to 'first_user'"),
    ],
)
def test_what_is_somebody_elses_is_refused_in_every_state(things: list[Any], says: str) -> None:
    for steps in (plan.plan_roles, plan.plan_quarantine):
        with pytest.raises(PoolsError, match=says):
            steps(WANTED, found(*things))
    with pytest.raises(PoolsError, match=says):
        plan.plan_absence(replace(WANTED, quarantine_name=None), found(*things))


@pytest.mark.parametrize(
    "change", [{"encoding": "LATIN1"}, {"lc_collate": "de_DE"}, {"lc_ctype": "de_DE"}, {"provider": "icu"}]
)
def test_another_locale_cannot_be_mended(change: Any) -> None:
    with pytest.raises(PoolsError, match="cannot be changed"):
        plan.plan_roles(WANTED, found(GATE, OWNER, replace(DATABASE, **change)))


def test_the_rest_of_an_interrupted_drop_is_only_dropped() -> None:
    rest = found(GATE, OWNER, replace(DATABASE, connection_limit=-2))
    for steps in (plan.plan_roles, plan.plan_quarantine):
        with pytest.raises(PoolsError, match="state=absent"):
            steps(WANTED, rest)
    assert "database first dropped" in words(plan.plan_absence(replace(WANTED, quarantine_name=None), rest))


def test_absent_with_a_quarantine_name_leaves_the_live_one_alone() -> None:
    live = found(GATE, OWNER, DATABASE)
    assert plan.plan_absence(WANTED, live) == []
    assert plan.plan_absence(replace(WANTED, quarantine_name=None), live)


def test_quarantine_refuses_a_taken_name_and_another_tenants_quarantine() -> None:
    gate = replace(GATE, name="gone", mark=plan.gate_mark("gone", "first"))
    with pytest.raises(PoolsError, match="is there already"):
        plan.plan_quarantine(WANTED, found(GATE, OWNER, DATABASE, gate))
    other = replace(gate, mark=plan.gate_mark("gone", "second"))
    for steps in (plan.plan_quarantine, plan.plan_absence):
        with pytest.raises(PoolsError, match="was not made for"):
            steps(WANTED, found(other))


def test_quarantine_closes_before_it_renames_all_at_once() -> None:
    steps = plan.plan_quarantine(WANTED, found(GATE, OWNER, DATABASE))
    assert [step.where for step in steps] == ["server", "server", "alone", "server"]
    assert steps[-1].sql.count("RENAME TO") == 3

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves by many runs at once, each a process of its own, on a real inventory database."""

from __future__ import annotations

import multiprocessing
from collections import Counter

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from moves_fixture import ALL, MAKING, call, in_order, tenant, through, used, where
from registry_fixture import registry_server

RUNS = 32


@pytest.fixture(scope="module")
def registries():
    with registry_server() as make:
        yield make


@pytest.fixture
def registry(registries):
    return registries()


class Planner:
    """One run: its outcome is the target's name, or the message of what refused it."""

    def __init__(self, registry, **given):
        self.registry, self.given = registry, given

    def __call__(self, instance):
        try:
            return call(self.registry, instance, **self.given)["migration"]["target"]
        except PoolsError as error:
            return str(error)


class Mover(Planner):
    def __call__(self, instance):
        try:
            through(self.registry, instance, *ALL, **self.given)
            lease = call(self.registry, instance, "returning")["migration"]["lease"]
            call(self.registry, instance, "rolled_back", lease=lease, reason="there and back")
            return ""
        except Exception as error:  # whatever it was, the test is to show it
            return repr(error)


def side_by_side(work, given):
    with multiprocessing.get_context("fork").Pool(len(given)) as pool:
        return pool.map(work, given, chunksize=1)


def test_as_many_moves_as_places(registry):
    registry.pool("full", places=RUNS)
    instances = [tenant(registry) for _each in range(RUNS)]
    registry.pool("few", places=5)
    registry.pool("fewer", places=2)
    answers = side_by_side(Planner(registry), instances)
    assert Counter(answers)["few"] == 5 and Counter(answers)["fewer"] == 2
    refused = [answer for answer in answers if answer not in ("few", "fewer")]
    assert len(refused) == RUNS - 7 and all("No other shared server has room" in answer for answer in refused), refused
    assert used(registry, "full")[0] == RUNS and in_order(registry)


def test_no_more_servers_are_begun_than_are_needed(registry):
    registry.pool("full", places=20)
    instances = [tenant(registry) for _each in range(20)]
    answers = side_by_side(Planner(registry, new_server=dict(MAKING, max_instances=10)), instances)
    assert sorted(Counter(answers).values()) == [10, 10], answers
    assert registry.query("SELECT count(*) FROM db_servers") == [(3,)] and in_order(registry)


def test_of_many_that_ask_at_once_one_moves_the_tenant(registry):
    registry.pool("old", places=1)
    instance = tenant(registry)
    registry.pool("new")
    # Nobody renews the lease here, and it outlasts the patience of the others.
    answers = side_by_side(Planner(registry, lease_seconds=2), [instance] * RUNS)
    taken_over = registry.query("SELECT count(*) FROM db_events WHERE kind = 'migration.taken_over'")[0][0]
    assert registry.query("SELECT count(*) FROM db_tenant_migrations") == [(1,)] and used(registry, "new")[0] == 1
    # The first, and after it one of those who waited for a lease that was not renewed; who waited beside that one is told.
    assert taken_over >= 1 and Counter(answers)["new"] == 1 + taken_over, answers
    told = ("is being moved from old to new by another run", "belongs to another run")
    assert all(any(words in answer for words in told) for answer in answers if answer != "new"), answers
    assert len(answers) - Counter(answers)["new"] > RUNS / 2, answers


def test_moves_to_and_fro_between_nearly_full_pools(registry):
    """In both directions at once: no deadlock, and no limit is passed at any moment, which the constraints would have told."""
    registry.pool("left", places=9)
    lefts = [tenant(registry) for _each in range(8)]
    registry.query("UPDATE db_servers SET allocation_strategy = 'manual'")
    registry.pool("right", places=9)
    rights = [tenant(registry) for _each in range(8)]
    registry.query("UPDATE db_servers SET allocation_strategy = 'auto'")
    answers = side_by_side(Mover(registry), lefts + rights)
    assert "" in answers
    assert all(not answer or "No other shared server has room" in answer or "cannot go back" in answer for answer in answers), answers
    assert registry.query("SELECT count(*) FROM db_tenant_migrations WHERE status NOT IN ('completed', 'rolled_back')") == [(0,)]
    assert in_order(registry)
    assert {where(registry, instance)[1] for instance in lefts + rights} == {"active"}


def test_placements_and_moves_for_the_same_places(registry):
    registry.pool("full", places=16)
    instances = [tenant(registry) for _each in range(16)]
    registry.pool("wanted", places=9)
    answers = side_by_side(Either(registry), [*instances, *[None] * 16])
    assert Counter(answers)["wanted"] == 9, answers
    assert used(registry, "wanted")[0] == 9 and in_order(registry)


class Either(Planner):
    """A move of an instance, or where there is none the placement of a new one."""

    def __call__(self, instance):
        if instance:
            return super().__call__(instance)
        try:
            return self.registry.place(making=False)["server"]
        except PoolsError as error:
            return str(error)

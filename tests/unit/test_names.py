# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import uuid

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _names
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from hypothesis import given
from hypothesis import strategies as st

CUSTOMER = "7d1f0f4e-2f0b-4a38-8e53-7a5b1c9d2e10"
INSTANCE = "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90"
prefixes = st.from_regex(r"[a-z_][a-z0-9_]{0,200}", fullmatch=True)


def test_the_names_are_those_of_the_platform_before():
    assert _names.database_names(CUSTOMER, INSTANCE) == (
        "odoo_7d1f0f4e2f0b4a38_0b6c5c1e",
        "odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user",
    )


def test_an_instance_with_the_same_leading_digits_gets_another_name():
    twin = INSTANCE[:-1] + "1"
    assert _names.database_names(CUSTOMER, INSTANCE) == _names.database_names(CUSTOMER, twin)
    assert _names.database_names(CUSTOMER, INSTANCE, attempt=1) != _names.database_names(CUSTOMER, twin, attempt=1)


@given(prefixes, st.uuids(), st.uuids(), st.integers(0, 1))
def test_no_name_is_cut_by_postgresql(prefix, customer, instance, attempt):
    database, role = _names.database_names(str(customer), str(instance), prefix, attempt)
    quarantined = _names.quarantine_name(database, str(instance))
    for name in (database, role, quarantined, quarantined + "_user"):
        assert 1 <= len(name.encode()) <= _names.MAX_IDENTIFIER_BYTES


@given(prefixes, st.uuids(), st.lists(st.uuids(), min_size=2, max_size=8, unique=True))
def test_whole_ids_never_collide_however_long_the_prefix(prefix, customer, instances):
    names = {_names.database_names(str(customer), str(instance), prefix, 1) for instance in instances}
    assert len(names) == len(instances)


def test_a_quarantined_name_is_not_a_live_one():
    database, _role = _names.database_names(CUSTOMER, INSTANCE)
    assert "_released_" in _names.quarantine_name(database, str(uuid.uuid4()))


@pytest.mark.parametrize("prefix", ["", "Odoo", "o'doo", "ödoo", "1odoo", "odoo-", "odoo\n"])
def test_a_prefix_that_needs_quoting_is_refused(prefix):
    with pytest.raises(PoolsError, match="prefix"):
        _names.database_names(CUSTOMER, INSTANCE, prefix)


@pytest.mark.parametrize("given_id, canonical", [(INSTANCE, INSTANCE), (INSTANCE.upper(), INSTANCE)])
def test_a_uuid_is_made_canonical(given_id, canonical):
    assert _names.parse_uuid(given_id, "instance_id") == canonical


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "1",
        None,
        7,
        INSTANCE + "\n",
        INSTANCE.replace("-", ""),
        "{" + INSTANCE + "}",
        "x" * 200,
        "'; DROP TABLE",
        "ünï" * 12,
    ],
)
def test_what_is_no_uuid_is_refused_by_name_and_not_echoed_at_length(bad):
    with pytest.raises(PoolsError) as refused:
        _names.parse_uuid(bad, "instance_id")
    assert "instance_id must be a UUID" in str(refused.value)
    assert len(str(refused.value)) < 220


@pytest.mark.parametrize("name", ["postgres-pool-1", "a", "a" * 63])
def test_server_names_that_are_dns_labels_pass(name):
    assert _names.check_server_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a" * 64, "pool 1", "pool'1", "pöol", "a\n", None])
def test_other_server_names_are_refused(name):
    with pytest.raises(PoolsError, match="cannot be a server's name"):
        _names.check_server_name(name)


def test_a_second_dedicated_server_of_an_instance_has_a_name_of_its_own():
    assert _names.dedicated_name(INSTANCE) == "postgres-dedicated-0b6c5c1e"
    assert _names.dedicated_name(INSTANCE, 1) == "postgres-dedicated-0b6c5c1e-2"

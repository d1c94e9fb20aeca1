# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wall's lines, in the order that makes it one. That PostgreSQL keeps it is shown by the integration tests."""

from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _hba
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def test_the_wall():
    assert _hba.lines("admin") == [
        'host all "admin" all scram-sha-256',
        "host postgres +tenant_bus all scram-sha-256",
        "host samerole all all scram-sha-256",
        "host all all all reject",
    ]


def test_the_reject_is_last_and_everything_before_it_asks_for_scram():
    found = _hba.lines(
        "admin", addresses=("10.0.0.0/8", "::1/128"), tls=True, admin_socket=True, admin_replication=True
    )
    assert found[-1] == "host all all all reject"
    assert all(line.endswith(" scram-sha-256") for line in found[:-1])
    assert sum("samerole" in line for line in found) == 2


def test_with_tls_nobody_comes_in_without_it():
    assert all(line.startswith("hostssl ") for line in _hba.lines("admin", tls=True)[:-1])


def test_replication_is_the_administrators_alone_and_only_when_asked_for():
    assert not any("replication" in line for line in _hba.lines("admin"))
    assert [line for line in _hba.lines("admin", admin_replication=True) if "replication" in line] == [
        'host replication "admin" all scram-sha-256'
    ]


@pytest.mark.parametrize("user", ["", 'a"b', "a\nhost all all all trust", "/regex"])
def test_a_name_that_would_change_the_meaning_is_refused(user):
    with pytest.raises(PoolsError):
        _hba.lines(user)


@pytest.mark.parametrize("addresses", [(), ("all trust\nhost",), ("10.0.0.0/8 trust",)])
def test_an_address_that_would_change_the_meaning_is_refused(addresses):
    with pytest.raises(PoolsError):
        _hba.lines("admin", addresses=addresses)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _tenant
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._tenant_servers import group

LOGIN = {"login_host": "db1", "login_port": 5432, "login_user": "postgres", "login_password": "x"}


def wanted(state: str = "present", **raw: Any) -> _tenant.Wanted:
    return _tenant.wanted(dict({"name": "first", "password": "pw"}, **raw), state)


@pytest.mark.parametrize(
    "name",
    [
        "first",
        'quo"te',
        "apo'stro",
        "ünïcødé",
        "a b;--",
        "%s %(x)s {x}",
        "back\\slash",
        "x=y",
        "e" * 58,
        "é" * 29,
        "日" * 19,
    ],
)
def test_odd_names_are_taken(name: str) -> None:
    assert wanted(name=name).name == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "empty"),
        ("", "empty"),
        ("x" * 64, "64 bytes"),
        ("é" * 32, "64 bytes"),
        ("x" * 200, "200 bytes"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\ud800", "not valid Unicode"),
        ("postgres", "reserved"),
        ("Postgres", "reserved"),
        ("template0", "reserved"),
        ("template1", "reserved"),
        ("pg_tenant", "reserved"),
        ("samerole", "reserved"),
        ("all", "reserved"),
        ("tenant_bus", "reserved"),
    ],
)
def test_names_that_cannot_be_are_refused(name: Any, says: str) -> None:
    for key in ("name", "owner", "quarantine_name"):
        if name or key == "name":
            with pytest.raises(PoolsError, match=says):
                wanted(**{key: name})


def test_the_owner_is_named_after_the_database_and_must_still_fit() -> None:
    assert wanted().owner == "first_user"
    with pytest.raises(PoolsError, match=r"owner of database .* 64 bytes"):
        wanted(name="x" * 59)
    assert wanted(name="x" * 63, owner="y").owner == "y"
    with pytest.raises(PoolsError, match="same name"):
        wanted(owner="first")


@pytest.mark.parametrize("limit", [0, -1, 262144, True, "5"])
def test_connection_limits_that_cannot_be_are_refused(limit: Any) -> None:
    with pytest.raises(PoolsError, match="connection_limit"):
        wanted(connection_limit=limit)


def test_passwords_are_needed_for_present_only_and_never_shown() -> None:
    for password in (None, ""):
        with pytest.raises(PoolsError, match="no password"):
            wanted(password=password)
    with pytest.raises(PoolsError) as caught:
        wanted(password="geheimnis-ß")
    assert "geheimnis" not in str(caught.value)
    assert wanted("absent", password=None).password == ""
    assert "hunter2" not in repr(wanted(password="hunter2"))


@pytest.mark.parametrize(
    ("size", "kb"),
    [
        (None, None),
        ("", None),
        ("-1", -1),
        (0, 0),
        (1, 1),
        ("1024", 1),
        ("1025", 2),
        ("512MB", 524288),
        ("1 GB", 1048576),
        ("7kB", 7),
    ],
)
def test_sizes(size: Any, kb: Any) -> None:
    assert wanted(temp_file_limit=size).temp_file_limit == kb


@pytest.mark.parametrize("size", ["-2", "1.5GB", "1GiB", "lots", "4TB", "1GB; DROP", "٣MB"])
def test_sizes_that_are_none_are_refused(size: str) -> None:
    with pytest.raises(PoolsError, match="temp_file_limit"):
        wanted(temp_file_limit=size)


def test_quarantine_needs_a_name_with_room_for_its_owner() -> None:
    with pytest.raises(PoolsError, match="no quarantine_name"):
        wanted("quarantined")
    with pytest.raises(PoolsError, match="58 is the most"):
        wanted("quarantined", quarantine_name="q" * 59)
    with pytest.raises(PoolsError, match="its own or its owner's"):
        wanted("quarantined", quarantine_name="first")
    assert wanted("quarantined", quarantine_name="q" * 58).quarantine_owner == "q" * 58 + "_user"


@pytest.mark.parametrize("locale", ["C'; DROP", "", "x" * 64])
def test_locales_are_plain_words(locale: str) -> None:
    if locale:
        with pytest.raises(PoolsError, match="lc_ctype"):
            wanted(lc_ctype=locale)
    else:
        assert wanted(lc_ctype=locale).lc_ctype == "C.UTF-8"


def test_unknown_profiles_are_refused() -> None:
    with pytest.raises(PoolsError, match="odoo, plain"):
        wanted(profile="oracle")


@pytest.mark.parametrize(
    "second", [{"name": "first"}, {"name": "other", "owner": "first_user"}, {"name": "first_user", "owner": "z"}]
)
def test_a_name_comes_once_on_each_server(second: Any) -> None:
    items = [(LOGIN, wanted()), (LOGIN, wanted(**second))]
    with pytest.raises(PoolsError, match="twice on db1 port 5432"):
        group(items)
    apart = [(LOGIN, wanted()), (dict(LOGIN, login_port=5433), wanted(**second))]
    assert len(group(apart)) == 2


def test_one_server_has_one_login_and_its_user_is_no_tenant() -> None:
    with pytest.raises(PoolsError, match="two logins"):
        group([(LOGIN, wanted()), (dict(LOGIN, login_user="root"), wanted(name="second"))])
    with pytest.raises(PoolsError, match="administrator"):
        group([(dict(LOGIN, login_user="first_user"), wanted())])

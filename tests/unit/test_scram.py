# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import string

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _scram
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from hypothesis import given, settings
from hypothesis import strategies as st

# What PostgreSQL 15.18 itself kept for CREATE ROLE … PASSWORD 'correct horse 42'.
KEPT = (
    "SCRAM-SHA-256$4096:Zwttkwa2rhO96bM8MlabTA=="
    "$K8aEZuPXc8ouaBed7VrkqXhqfrL5j4bFUmiWKJWXnSE=:QHb3aux7Jo0lkXCuwxH5iyxG7f0kttKnd67IBFHpfBo="
)
PASSWORDS = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " ", min_size=1, max_size=40)


def test_postgresqls_own_verifier_matches() -> None:
    assert _scram.matches(KEPT, "correct horse 42")
    assert not _scram.matches(KEPT, "correct horse 43")


@settings(max_examples=25, deadline=None)
@given(PASSWORDS, PASSWORDS)
def test_a_verifier_matches_its_password_only(password: str, other: str) -> None:
    made = _scram.verifier(password, iterations=16)
    assert made.startswith("SCRAM-SHA-256$16:")
    assert password not in made or len(password) < 4
    assert _scram.matches(made, password)
    assert _scram.matches(made, other) == (password == other)


def test_each_verifier_has_a_salt_of_its_own_and_postgresqls_iterations() -> None:
    first, second = _scram.verifier("secret"), _scram.verifier("secret")
    assert first != second
    assert first.startswith("SCRAM-SHA-256$4096:")
    assert _scram.verifier("secret", salt=b"0" * 16) == _scram.verifier("secret", salt=b"0" * 16)


@pytest.mark.parametrize(
    "kept",
    [
        None,
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$4096:A$A:A",
        "secret",
        "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA\n",
    ],
)
def test_what_is_no_verifier_matches_nothing(kept: str | None) -> None:
    assert not _scram.matches(kept, "secret")


@pytest.mark.parametrize("password", ["", None, "pässword", "tab\there", "nul\0", "snowman ☃", "\x7f"])
def test_passwords_that_need_saslprep_are_refused_without_being_shown(password: str | None) -> None:
    with pytest.raises(PoolsError) as caught:
        _scram.verifier(password)  # type: ignore[arg-type]
    assert not password or password not in str(caught.value)
    assert not _scram.matches(KEPT, password or "")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _secrets
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from cryptography.fernet import Fernet


def key():
    return Fernet.generate_key().decode()


def test_passwords_are_32_letters_and_digits_and_differ():
    made = {_secrets.new_password() for _one in range(100)}
    assert len(made) == 100
    assert all(len(one) == 32 and one.isascii() and one.isalnum() for one in made)


def test_what_is_encrypted_does_not_show_and_comes_back():
    cipher = _secrets.Cipher([key()])
    token = cipher.encrypt("hunter2hunter2")
    assert "hunter2" not in token
    assert cipher.decrypt(token, "instance x") == "hunter2hunter2"


def test_the_same_password_never_encrypts_to_the_same_token():
    cipher = _secrets.Cipher([key()])
    assert cipher.encrypt("same") != cipher.encrypt("same")


def test_an_older_key_opens_and_the_newest_seals():
    old, new = key(), key()
    token = _secrets.Cipher([old]).encrypt("secret")
    both = _secrets.Cipher([new, old])
    assert both.decrypt(token, "x") == "secret"
    rotated = both.rotate(token, "x")
    assert rotated and _secrets.Cipher([new]).decrypt(rotated, "x") == "secret"
    assert both.rotate(rotated, "x") is None


def test_a_wrong_key_names_whose_password_it_is_and_shows_nothing():
    token = _secrets.Cipher([key()]).encrypt("topsecret")
    with pytest.raises(PoolsError) as refused:
        _secrets.Cipher([key()]).decrypt(token, "instance 42")
    assert "instance 42" in str(refused.value) and "older key" in str(refused.value)
    assert "topsecret" not in str(refused.value) and token not in str(refused.value)


@pytest.mark.parametrize("bad", ["", "short", "ä" * 44, "=" * 44])
def test_a_malformed_key_is_named_by_its_place_not_shown(bad):
    with pytest.raises(PoolsError) as refused:
        _secrets.Cipher([key(), bad])
    assert "number 2 of 2" in str(refused.value)
    assert not bad or bad not in str(refused.value)


def test_a_key_is_looked_for_in_option_file_and_environment_in_that_order(tmp_path):
    path = tmp_path / "keys"
    path.write_text("second\nthird\n")
    environ = {"POSTGRES_POOLS_SECRET_KEY_FILE": str(path), "POSTGRES_POOLS_SECRET_KEYS": "fourth, fifth"}
    assert _secrets.keys_from({"secret_keys": ["first"], "secret_key_file": str(path)}, environ) == ["first"]
    assert _secrets.keys_from({"secret_key_file": str(path)}, {}) == ["second", "third"]
    assert _secrets.keys_from({}, environ) == ["second", "third"]
    assert _secrets.keys_from({}, {"POSTGRES_POOLS_SECRET_KEYS": "fourth, fifth"}) == ["fourth", "fifth"]


def test_no_key_a_missing_file_and_an_empty_one_are_three_errors(tmp_path):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(PoolsError, match="no secret key"):
        _secrets.keys_from({}, {})
    with pytest.raises(PoolsError, match="cannot be read"):
        _secrets.keys_from({"secret_key_file": str(tmp_path / "missing")}, {})
    with pytest.raises(PoolsError, match="is empty"):
        _secrets.keys_from({"secret_key_file": str(tmp_path / "empty")}, {})

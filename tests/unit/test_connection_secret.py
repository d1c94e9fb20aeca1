# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection secrets against a fake of the docker command, which keeps to what Docker does; tests/swarm/test_connection_secret.py has the real one."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _connection_secret
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._connection_secret_swarm import Secrets
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._secrets import Cipher
from cryptography.fernet import Fernet

INSTANCE, OTHER = "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90", "11111111-1111-4111-8111-111111111111"
KEY = Fernet.generate_key().decode()
PASSWORD = "Tenants0Password1"


def entry(name: str = "acme", instance: str = INSTANCE, content: str = "dsn") -> Dict[str, Any]:
    return {"instance_id": instance, "name": name, "content": content}


def row(**changed: Any) -> Dict[str, Any]:
    password = Cipher([KEY]).encrypt(PASSWORD)
    found = dict(instance_id=INSTANCE, status="active", server="pool", host="pool-1", port=5432, database="d", user="u", tls=False)
    return dict(found, password_encrypted=password, ca_certificate=None, **changed)


# --- what is asked


@pytest.mark.parametrize("name", ["a", "0", "a" * 64, "odoo-acme.database_1"])
def test_a_name_that_swarm_takes_is_taken(name: str) -> None:
    _connection_secret.check([entry(name)])


@pytest.mark.parametrize("name", ["", "-a", "a-", "a" * 65, "a b", "a/b", "ü", "a\n", "--label", "{{ x }}", None])
def test_a_name_that_swarm_refuses_is_refused(name: Any) -> None:
    with pytest.raises(PoolsError, match="cannot be a Swarm secret's name"):
        _connection_secret.check([entry(name)])


def test_what_else_cannot_be_is_refused() -> None:
    for entries, says in (
        ([entry(instance="x")], "must be a UUID"),
        ([entry(), entry(instance=OTHER)], "acme is asked for twice"),
        ([entry(content="the dsn")], "names no part"),
        ([entry(content="{host}:{pasword}")], "no connection has pasword"),
    ):
        with pytest.raises(PoolsError, match=says):
            _connection_secret.check(entries)


# --- what they hold


def test_contents_and_digests() -> None:
    (told,) = _connection_secret.filled([entry()], [row()], [KEY])
    assert told["content"] == "postgresql://u:{0}@pool-1:5432/d?sslmode=prefer".format(PASSWORD)
    assert _connection_secret.filled([entry(content="{user}@{host}")], [row()], [KEY])[0]["content"] == "u@pool-1"
    assert _connection_secret.filled([entry(content="password")], [row()], [KEY])[0]["content"] == PASSWORD
    assert _connection_secret.filled([entry()], [row(status="reserved")], [KEY]) == []
    with pytest.raises(PoolsError, match="asks for ca_certificate"):
        _connection_secret.filled([entry(content="ca_certificate")], [row()], [KEY])


def test_a_digest_is_of_the_content_the_name_and_the_key() -> None:
    newer = Fernet.generate_key().decode()
    digest = _connection_secret.digests([KEY], "acme", "x")[0]
    assert digest == _connection_secret.digests([KEY], "acme", "x")[0]
    others = [_connection_secret.digests([KEY], "acme", "y"), _connection_secret.digests([KEY], "b", "x"), _connection_secret.digests([newer], "acme", "x")]
    assert digest not in [one for (one,) in others] and len({one for (one,) in others}) == 3
    # Whoever may read labels but has no key cannot try passwords.
    assert _connection_secret.digests([newer, KEY], "acme", "x")[1] == digest


def test_a_version_has_a_name_that_swarm_takes() -> None:
    for name in ("acme", "a" * 64, "a" * 50 + "-" + "b" * 13):
        _connection_secret.check([entry(_connection_secret.version_of(name, "0123456789abcdef"))])


# --- in the Swarm


class Docker:
    """Fake: secrets by name with what they hold and their labels."""

    def __init__(self) -> None:
        self.secrets: Dict[str, Tuple[str, Dict[str, str]]] = {}
        self.used: List[str] = []
        self.commands: List[List[str]] = []
        # Another run's, made between this one's look and its own making.
        self.meanwhile: Dict[str, Tuple[str, Dict[str, str]]] = {}

    def __call__(self, words: List[str], data: Optional[str]) -> Tuple[int, str, str]:
        self.commands.append(words)
        verb = words[1]
        if verb == "ls":
            return 0, "\n".join("id-" + name for name in self.secrets), ""
        if verb == "inspect":
            found = [{"Spec": {"Name": name, "Labels": self.secrets[name][1]}} for name in (word[3:] for word in words[2:])]
            return 0, json.dumps(found), ""
        name = words[-2] if verb == "create" else words[-1]
        if verb == "create":
            self.secrets.update(self.meanwhile)
            if name in self.secrets:
                return 1, "", "Error response from daemon: rpc error: code = AlreadyExists desc = secret {0} already exists".format(name)
            labels = dict(word.split("=", 1) for word in words if "=" in word)
            self.secrets[name] = (data or "", labels)
            return 0, "id-" + name, ""
        if name in self.used:
            return 1, "", "Error response from daemon: rpc error: code = InvalidArgument desc = secret '{0}' is in use by the following service: x".format(name)
        del self.secrets[name]
        return 0, name, ""


def wanted(content: str = "x", keys: Tuple[str, ...] = (KEY,), **changed: str) -> Dict[str, Any]:
    asked = dict({"instance_id": INSTANCE, "name": "acme", "content": content}, **changed)
    return dict(asked, digests=_connection_secret.digests(list(keys), asked["name"], content))


def test_made_once_and_known_again() -> None:
    docker = Docker()
    swarm = Secrets(docker, dry=False)
    assert swarm.present([wanted()]) == [{"instance_id": INSTANCE, "name": "acme", "secret": "acme", "changed": True}]
    assert docker.secrets["acme"][0] == "x"
    assert "x" not in [word for words in docker.commands for word in words]
    assert swarm.present([wanted()])[0]["changed"] is False
    # Also after the keys were rotated, as long as the older one is given.
    assert swarm.present([wanted(keys=(Fernet.generate_key().decode(), KEY))])[0]["changed"] is False
    assert list(docker.secrets) == ["acme"]


def test_another_content_gets_a_version_and_the_first_stays() -> None:
    docker = Docker()
    swarm = Secrets(docker, dry=False)
    swarm.present([wanted()])
    (told,) = swarm.present([wanted("y")])
    assert told["changed"] and told["secret"].startswith("acme-") and docker.secrets[told["secret"]][0] == "y"
    assert docker.secrets["acme"][0] == "x"
    assert swarm.present([wanted("y")])[0] == dict(told, changed=False)
    # Back to what it was: the first one holds that already.
    assert swarm.present([wanted()])[0]["secret"] == "acme" and len(docker.secrets) == 2


def test_check_mode_makes_none() -> None:
    docker = Docker()
    assert Secrets(docker, dry=True).present([wanted()])[0]["secret"] == "acme"
    Secrets(docker, dry=False).present([wanted()])
    assert Secrets(docker, dry=True).present([wanted("y")])[0]["secret"].startswith("acme-")
    assert Secrets(docker, dry=True).absent([wanted()])[0]["removed"] == ["acme"]
    assert list(docker.secrets) == ["acme"]


@pytest.mark.parametrize("verb", ["probe", "present", "absent"])
def test_what_is_somebody_elses_is_not_touched(verb: str) -> None:
    docker = Docker()
    docker.secrets["acme"] = ("theirs", {})
    with pytest.raises(PoolsError, match="already, and it is no connection secret"):
        getattr(Secrets(docker, dry=False), verb)([wanted(name="b"), wanted()])
    assert list(docker.secrets) == ["acme"]
    del docker.secrets["acme"]
    Secrets(docker, dry=False).present([wanted()])
    with pytest.raises(PoolsError, match="is that of instance " + INSTANCE):
        getattr(Secrets(docker, dry=False), verb)([wanted(name="b"), wanted(instance_id=OTHER)])
    assert list(docker.secrets) == ["acme"]


def test_two_runs_at_once_make_one() -> None:
    docker, first = Docker(), Docker()
    Secrets(first, dry=False).present([wanted()])
    docker.meanwhile = first.secrets
    assert Secrets(docker, dry=False).present([wanted()])[0]["secret"] == "acme"
    docker.secrets, docker.meanwhile = {}, {"acme": ("theirs", {})}
    with pytest.raises(PoolsError, match="no connection secret"):
        Secrets(docker, dry=False).present([wanted()])


def test_removed_with_its_versions_but_for_what_is_used() -> None:
    docker = Docker()
    swarm = Secrets(docker, dry=False)
    names = [swarm.present([wanted(content)])[0]["secret"] for content in "xyz"]
    docker.secrets["acme-2"] = ("theirs", {})
    docker.used = [names[1]]
    with pytest.raises(PoolsError, match="used by a service: {0}".format(names[1])):
        swarm.absent([wanted()])
    assert sorted(docker.secrets) == sorted([names[1], "acme-2"])
    docker.used = []
    assert swarm.absent([wanted()])[0]["removed"] == [names[1]]
    assert swarm.absent([wanted()])[0] == {"instance_id": INSTANCE, "name": "acme", "removed": [], "changed": False}

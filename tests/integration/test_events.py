# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rulebooks, run by ansible-rulebook with real events over HTTP: what becomes a tenant's database, and what is refused."""

from __future__ import annotations

import ast
import contextlib
import datetime
import hashlib
import hmac
import ipaddress
import json
import re
import ssl
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from environment import ROOT, Environment, connect, environment, instances
from events_fixture import RULEBOOKS, SECRET, FakeAwx, Listener, listening

COLLECTION = "saasodoo.postgres_pools"
SIGNUP = {"type": "signup", **instances(1)[0]}
INSTANCE = SIGNUP["instance_id"]


@pytest.fixture(scope="module")
def ground() -> Iterator[Environment]:
    with environment() as made:
        yield made.ready()


@pytest.fixture(scope="module")
def listener(ground: Environment) -> Iterator[Listener]:
    with listening(ground, COLLECTION + ".tenant_events") as made:
        yield made.ready()


def rows_of(ground: Environment, instance_id: str) -> List[Dict[str, Any]]:
    return ground.rows(
        "SELECT a.plan_tier, a.status, a.database_name, a.role_name, s.host, s.port FROM db_allocations a"
        " JOIN db_servers s ON s.id = a.server_id WHERE a.instance_id = %s",
        (instance_id,),
    )


def touching(path: Path) -> str:
    return "{{ lookup('ansible.builtin.pipe', 'touch " + str(path) + "') }}"


def test_a_signup_gives_a_database_and_the_same_event_again_gives_nothing_else(
    ground: Environment, listener: Listener
) -> None:
    touched = ground.temp / "touched by a signup"
    # What no rule looks at does not reach the playbook, where a template would be one.
    more = {"note": touching(touched), "meta": {"hosts": touching(touched)}}
    assert [listener.send({**SIGNUP, **more}) for _each in range(2)] == [200, 200]
    first, second = listener.until("second run", lambda: len(listener.recaps()) == 2 and listener.recaps())
    assert first["changed"] > 0 and first["failed"] == 0
    assert (second["changed"], second["failed"]) == (0, 0)
    (row,) = rows_of(ground, INSTANCE)
    assert row["status"] == "active"
    password = ground.password(INSTANCE)
    assert password
    with contextlib.closing(
        connect(row["host"], row["port"], row["database_name"], row["role_name"], password)
    ) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id int); SELECT current_user")
        assert cursor.fetchone() == (row["role_name"],)
    assert not touched.exists()
    assert password not in listener.output()


def test_a_plan_change_is_in_force(ground: Environment, listener: Listener) -> None:
    runs = len(listener.recaps())
    assert listener.send({"type": "plan_change", "instance_id": INSTANCE.upper(), "plan_tier": "free"}) == 200
    ended = listener.until("run", lambda: listener.recaps()[runs:])
    assert ended[0]["failed"] == 0, listener.output()
    (row,) = rows_of(ground, INSTANCE)
    assert row["plan_tier"] == "free"
    limits = ground.rows("SELECT connections FROM db_plans WHERE plan_tier = 'free'")
    server = next(one for one in ground.servers() if one["port"] == row["port"])
    with contextlib.closing(ground.connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", (row["role_name"],))
        assert cursor.fetchone() == (limits[0]["connections"],)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer " + SECRET[:-1]},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic " + SECRET},
        {"Authorization": SECRET},
    ],
    ids=["none", "nearly", "empty", "another scheme", "no scheme"],
)
def test_without_the_secret_nothing_is_even_read(listener: Listener, headers: Dict[str, str]) -> None:
    before = listener.output()
    assert listener.send({**SIGNUP, **instances(1)[0]}, headers) == 401
    assert listener.send(b"{", headers) == 401
    # Once a later event has been through, an earlier one would have shown.
    assert listener.send({}) == 200
    listener.until("refusal", lambda: listener.refusals()[before.count("Refused ") :])
    assert "PLAY [" not in listener.output()[len(before) :]


TYPE = "Refused an event, nothing was run: its type is neither signup nor plan_change."
ID = "Refused a {type}, nothing was run: its instance_id is not a UUID."
PLAN = "Refused the {type} of {instance_id}, nothing was run: its plan_tier is not the name of a plan, "
CUSTOMER = "Refused the {type} of {instance_id}, nothing was run: its customer_id is not a UUID."
OBJECT = "Refused an event, nothing was run: it is not one JSON object with type, instance_id, plan_tier"
CHANGE = {"type": "plan_change", "instance_id": INSTANCE, "plan_tier": "starter"}


def without(event: Dict[str, Any], name: str) -> Dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}


def test_what_is_not_well_formed_is_refused_with_its_reason(ground: Environment, listener: Listener) -> None:
    touched = ground.temp / "touched by a malformed event"
    template = touching(touched)
    fresh = {"type": "signup", **instances(1)[0]}
    wrong: List[Any] = [
        *((TYPE, one) for one in (5, "signup", None, True, [], [fresh], {})),
        *(
            (TYPE, {**fresh, "type": one})
            for one in ("release", "signup\n", "Signup", ["signup"], {"type": "signup"}, None, template)
        ),
        (TYPE, without(fresh, "type")),
        *(
            (ID, {**event, "instance_id": one})
            for event in (fresh, CHANGE)
            for one in (
                INSTANCE + "\n",
                INSTANCE[:-1],
                "x" + INSTANCE,
                INSTANCE.replace("-", ""),
                5,
                [INSTANCE],
                {"type": INSTANCE},
                None,
                template,
            )
        ),
        (ID, without(CHANGE, "instance_id")),
        *(
            (PLAN, {**event, "plan_tier": one})
            for event in (fresh, CHANGE)
            for one in (
                "",
                "standard'; DROP TABLE db_plans; --",
                "Standard",
                "standard\n",
                "a" * 33,
                1,
                ["free"],
                {"plan_tier": "free"},
                None,
                template,
            )
        ),
        (PLAN, without(CHANGE, "plan_tier")),
        *(
            (CUSTOMER, {**event, "customer_id": one})
            for event in (fresh, CHANGE)
            for one in ("", INSTANCE + " ", 5, None, template)
        ),
        (CUSTOMER, without(fresh, "customer_id")),
        *(
            (OBJECT, {**event, "payload": one})
            for event in (fresh, CHANGE)
            for one in ({"type": template}, template, None)
        ),
    ]
    before, refused = listener.output(), len(listener.refusals())
    allocations = ground.rows("SELECT * FROM db_allocations")
    for _expected, event in wrong:
        assert listener.send(event) == 200, event
    # These are answered at once: they cannot be read at all.
    assert [listener.send(one) for one in (b"{", b"", b"{'type': 'signup'}")] == [400, 400, 400]
    said = listener.until(
        "refusal of every event",
        lambda: len(listener.refusals()) >= refused + len(wrong) and listener.refusals()[refused:],
    )
    assert len(said) == len(wrong)
    for (expected, event), told in zip(wrong, said):
        known = event if isinstance(event, dict) else {}
        assert told.startswith(expected.format(**{"type": "", "instance_id": "", **known})), event
    after = listener.output()[len(before) :]
    assert "PLAY [" not in after
    # A log that repeats what anybody sends is read by programs that believe it.
    assert "lookup(" not in after and "DROP TABLE" not in after
    assert not touched.exists()
    assert ground.rows("SELECT * FROM db_allocations") == allocations


@pytest.mark.parametrize(
    "variables",
    [{}, {"postgres_pools_events_token": "short"}],
    ids=["none", "short"],
)
def test_without_a_secret_worth_the_name_it_does_not_start(ground: Environment, variables: Dict[str, str]) -> None:
    with listening(ground, COLLECTION + ".tenant_events", variables) as made:
        made.until("end", lambda: made.process.poll() is not None)
        assert made.process.returncode != 0
        assert "postgres_pools_events_token" in made.output()


def certificate(folder: Path) -> Dict[str, str]:
    """Files with a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "events")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = {"certfile": folder / "events.crt", "keyfile": folder / "events.key"}
    files["certfile"].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files["keyfile"].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {option: str(path) for option, path in files.items()}


def source_of(rulebook: List[Dict[str, Any]]) -> Dict[str, Any]:
    return dict(rulebook[0]["sources"][0]["eda.builtin.webhook"])


def test_a_signed_event_over_tls(ground: Environment) -> None:
    """With the two lines for TLS that docs/events.md adds to a copy, and an action that says what a playbook would be given of the event."""
    files = certificate(ground.temp)
    rulebook = yaml.safe_load((RULEBOOKS / "tenant_events_signed.yml").read_text())
    rulebook[0]["sources"][0]["eda.builtin.webhook"].update(files)
    rulebook[0]["rules"][0]["action"] = {"debug": {"msg": "Given: {{ event }}"}}
    copy = ground.temp / "signed.yml"
    copy.write_text(yaml.safe_dump(rulebook, sort_keys=False))
    body = json.dumps({**SIGNUP, "note": "{{ 1 }}", "meta": {"hosts": "{{ 1 }}"}}).encode()
    signed = {"X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    tls = ssl.create_default_context(cafile=files["certfile"])
    with listening(ground, str(copy), {"postgres_pools_events_secret": SECRET}) as made:
        made.ready()
        assert made.send(body, {}, tls) == 400
        assert made.send(body, {"X-Hub-Signature-256": "sha256=" + "0" * 64}, tls) == 401
        assert made.send(body.replace(b"signup", b"plan_change"), signed, tls) == 401
        # The secret itself is no signature.
        assert made.send(body, {"X-Hub-Signature-256": SECRET, "Authorization": "Bearer " + SECRET}, tls) == 401
        assert made.send(body, {**signed, "X-Note": "{{ 1 }}"}, tls) == 200
        (given,) = made.until("event", lambda: re.findall("^Given: (.*)$", made.output(), re.M))
        event = ast.literal_eval(given)
        assert event.pop("payload") == SIGNUP
        assert set(event.pop("meta")) == {"source", "received_at", "uuid"}
        assert event == {}


def test_awx_gets_the_variables_and_nothing_else_of_an_event(ground: Environment) -> None:
    awx = FakeAwx("postgres-pools-allocate", "postgres-pools-change-plan")
    controller = {
        "EDA_CONTROLLER_URL": awx.url,
        "EDA_CONTROLLER_TOKEN": "a token",
        "EDA_JOB_TEMPLATE_REFRESH_DELAY": "0.1",
    }
    with contextlib.closing(awx), listening(ground, COLLECTION + ".tenant_events_awx", more_env=controller) as made:
        made.ready()
        assert made.send({**SIGNUP, "note": "more"}) == 200
        assert made.send(CHANGE) == 200
        assert made.send({**CHANGE, "plan_tier": "{{ 1 }}"}) == 200
        made.until("refusal", made.refusals)
        made.until("launch", lambda: awx.launched)
        # Of one instance one after the other: the second waits for the first.
        time.sleep(1)
        assert len(awx.launched) == 1
        awx.status = "successful"
        made.until("launch of both", lambda: len(awx.launched) == 2)
        assert [(one["template"], one["extra_vars"]) for one in awx.launched] == [
            ("postgres-pools-allocate", without(SIGNUP, "type")),
            ("postgres-pools-change-plan", without(CHANGE, "type")),
        ]
        assert {one["authorization"] for one in awx.launched} == {"Bearer a token"}


def test_the_rulebooks_accept_and_refuse_the_same() -> None:
    books = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(RULEBOOKS.glob("*.yml"))}
    assert set(books) == {"tenant_events", "tenant_events_awx", "tenant_events_signed"}
    first = books["tenant_events"][0]
    for name, (ruleset,) in books.items():
        assert [(rule["name"], rule["condition"]) for rule in ruleset["rules"]] == [
            (rule["name"], rule["condition"]) for rule in first["rules"]
        ]
        assert ruleset["sources"][0]["filters"] == first["sources"][0]["filters"]
        for rule, other in zip(ruleset["rules"], first["rules"]):
            given, wanted = ({**one["action"], **one["action"].get("run_playbook", {})} for one in (rule, other))
            job = given.get("run_job_template", given)
            assert job.get("job_args", job).get("extra_vars") == wanted.get("extra_vars")
            assert job.get("lock") == wanted.get("lock")
        # Whoever gets in without a secret is everybody.
        assert ("hmac_secret" if name.endswith("_signed") else "token") in source_of([ruleset])


def test_the_guide_installs_what_is_tested() -> None:
    wanted = (ROOT / "requirements" / "events.txt").read_text().split()
    named = re.findall(r"pip install (ansible-rulebook==\S+)", (ROOT / "docs" / "events.md").read_text())
    assert named and set(named) <= set(wanted)


def test_a_plan_that_does_not_exist_is_the_playbooks_to_refuse(ground: Environment, listener: Listener) -> None:
    fresh = {"type": "signup", **instances(1)[0], "plan_tier": "gold"}
    assert listener.send(fresh) == 200
    listener.until("refusal by the playbook", lambda: [one for one in listener.recaps() if one["failed"]])
    assert "gold" in listener.output()
    assert rows_of(ground, fresh["instance_id"]) == []
    # It is tried again for a while; an event of another instance does not wait for that.
    good = [one for one in listener.recaps() if not one["failed"]]
    assert listener.send({**SIGNUP, **instances(1)[0]}) == 200
    listener.until("good run", lambda: len([one for one in listener.recaps() if not one["failed"]]) > len(good))
    # 143 is Java's answer to SIGTERM.
    assert listener.stop() in (0, 143)

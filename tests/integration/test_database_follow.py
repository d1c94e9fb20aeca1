# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module database_follow between two real PostgreSQL servers, with somebody who goes on writing."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import (
    _follow,
    _follow_catalog,
    _follow_copy,
    _follow_preflight,
    _follow_switch,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from copy_fixture import Majors, Pair, pairs, running_pair
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from follow_fixture import (
    DATABASE,
    Writer,
    as_owner,
    backwards,
    differences,
    follow,
    forget,
    given,
    has_nothing_left,
    killed,
    left,
    make,
    query,
    run,
    wait_for,
)

PAIRS = pairs()


@pytest.fixture(scope="module", params=PAIRS, ids=lambda one: one.name)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    # So that a worker that lost its server comes back while a test still waits.
    with running_pair(request.param, {"wal_retrieve_retry_interval": "500ms"}) as running:
        yield running


@pytest.fixture
def scratch(pair: Pair) -> Iterator[Pair]:
    forget(pair)
    make(pair)
    yield pair
    forget(pair)


@pytest.fixture
def once(pair: Pair, request: pytest.FixtureRequest) -> Pair:
    """What majors have no part in is tried between the first pair alone."""
    if pair.name != PAIRS[0].name:
        pytest.skip("seen from major to major")
    found: Pair = request.getfixturevalue("scratch")
    return found


def test_nothing_committed_is_lost_there_and_back(scratch: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """Two writers all the time; the switch; a thousand commits in the new place; and back with them."""
    pair = scratch
    assert follow(pair, state="checked")["problems"] == []
    with Writer(pair.source, 1) as first, Writer(pair.source, 2) as second:
        wait_for(lambda: first.commits > 20)
        begun = follow(pair)
        assert (begun["changed"], begun["problems"]) == (True, []) and begun["facts"]["without_identity"] == 2
        during = first.commits
        watched = follow(pair, state="watched")
        assert (watched["caught_up"], watched["given_up"], watched["changed"]) == (True, False, False)
        assert follow(pair)["changed"] is False
        wait_for(lambda: first.commits > during + 50)
        # As long as somebody can write there is no switch, and nothing is lost by having tried.
        refused = follow(pair, state="drained")
        assert refused["failed"] and {one["what"] for one in refused["problems"]} == {"writers"}
    assert during > 20
    # The last word before writes are refused is long enough that nobody has it yet.
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.commits (writer, number, filler) SELECT 4, i, repeat('z', 300) FROM generate_series(1, 20000) i")
    stopped = time.monotonic()
    drained = follow(pair, state="drained")
    seconds = time.monotonic() - stopped
    assert (drained["problems"], drained["changed"]) == ([], True)
    assert seconds < 5
    with capsys.disabled():
        print("\n{0}: {1} commits, drained in {2:.2f} s {3}".format(pair.name, first.commits + second.commits, seconds, drained["seconds"]))
    has_nothing_left(pair, copy=True)
    assert first.arrived(pair.target) and second.arrived(pair.target)
    assert differences(pair) == []
    taken = query(pair.target, DATABASE, "SELECT max(ticket), count(DISTINCT ticket) = count(*) FROM public.commits")[0]
    assert query(pair.target, DATABASE, "SELECT nextval('public.ticket')")[0][0] > taken[0] and taken[1]

    # What was read for the proof must not count as a writer.
    turned = follow(pair, state="reversed")
    assert (turned["problems"], turned["changed"]) == ([], True)
    assert follow(pair, state="reversed")["changed"] is False
    third = Writer(pair.target, 3)
    third.write(1000)
    third.stop()
    back = _follow.carry_out(backwards(pair, state="drained"), False)
    assert (back["problems"], back["changed"]) == ([], True)
    has_nothing_left(pair, copy=True)
    assert third.arrived(pair.source) and first.arrived(pair.source)
    assert differences(pair) == []
    tickets = "SELECT count(*) = count(DISTINCT ticket), max(ticket) < nextval('public.ticket') FROM public.commits"
    assert query(pair.source, DATABASE, tickets) == [(True, True)]


def test_what_stands_against_it_is_named(once: Pair) -> None:
    pair = once
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT lo_from_bytea(0, 'x'); CREATE UNLOGGED TABLE public.fast AS SELECT 1 AS a; CREATE UNLOGGED TABLE public.empty ();"
            " CREATE TABLE public.odd (a json[]); CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            " CREATE TRIGGER always BEFORE INSERT ON public.accounts FOR EACH ROW EXECUTE FUNCTION public.f();"
            " ALTER TABLE public.accounts ENABLE ALWAYS TRIGGER always; ALTER TABLE public.accounts DROP CONSTRAINT accounts_pkey;"
            " ALTER TABLE public.accounts ADD PRIMARY KEY (id) DEFERRABLE"
        )
    run(pair.source, "postgres", "ALTER DATABASE \"{0}\" CONNECTION LIMIT 1".format(DATABASE.replace('"', '""')))
    found: Dict[str, str] = {}
    refused = follow(pair, state="checked", full_identity=False, fail=False, source=dict(given(pair)["source"], peer_host=""))
    for one in refused["problems"]:
        found[one["what"]] = found.get(one["what"], "") + one["problem"] + one["remedy"]
    assert set(found) == {"large objects", "unlogged table", "replica identity", "trigger", "connection limit"}
    assert "public.fast" in found["unlogged table"] and "public.empty" not in found["unlogged table"]
    assert all(word in found["replica identity"] for word in ("public.accounts", "public.Key less", "full_identity=true", "json", "public.odd"))
    assert "by_index" not in found["replica identity"] and "always" in found["trigger"]
    before = left(pair)
    assert follow(pair)["failed"] and left(pair) == before == {"source": [], "target": []}


def test_definitions_that_change_meanwhile_are_never_missed(once: Pair) -> None:
    pair = once
    follow(pair)
    here = given(pair)
    # What is no change of a definition.
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE passing (a int PRIMARY KEY); ANALYZE; TRUNCATE public.parted; REFRESH MATERIALIZED VIEW public.totals;"
            " SELECT setval('public.ticket', 90000)"
        )
    run(pair.source, DATABASE, "VACUUM FULL public.accounts")
    assert _follow.carry_out(dict(here, state="drained"), True)["problems"] == []
    for statement, kind in (
        ("ALTER TABLE public.accounts ADD COLUMN more int DEFAULT 7", "columns"),
        ("ALTER TABLE public.accounts DROP COLUMN more", "columns"),
        ("GRANT SELECT ON public.accounts TO PUBLIC", "relations"),
        ("CREATE INDEX ON public.accounts (balance)", "indexes"),
        ("COMMENT ON TABLE public.accounts IS 'told'", "comments"),
        ("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "functions"),
        ("ALTER SEQUENCE public.ticket INCREMENT 5", "sequences"),
        ("CREATE TYPE public.mood AS ENUM ('a')", "values of enums"),
    ):
        with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
            with contextlib.closing(pair.source.connect(DATABASE)) as looking:
                before = _follow_catalog.fingerprint(looking)
                cursor.execute(statement)
                after = _follow_catalog.fingerprint(looking)
            assert kind in _follow_switch.changes(before, after), statement
    refused = _follow.carry_out(dict(here, state="drained"), False)
    assert [one["what"] for one in refused["problems"]] == ["definitions"] and "columns" in refused["msg"]
    assert pair.has_database(DATABASE) and not refused["changed"]
    watched = _follow.carry_out(dict(here, state="watched"), False)
    assert watched["failed"] and watched["given_up"] and watched["problems"][0]["what"] == "definitions"
    has_nothing_left(pair)


def test_who_wants_to_change_a_table_is_not_held_up_by_the_copy(once: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = once
    waited: List[float] = []
    alter: List[threading.Thread] = []

    def change() -> None:
        begun = time.monotonic()
        run(pair.source, DATABASE, "ALTER TABLE public.commits ADD COLUMN more int")
        waited.append(time.monotonic() - begun)

    real = _follow_copy.FollowSteps._copy_rows

    def slow(self: Any, snapshot: str) -> None:
        # A reader of a big table, as far as its lock goes.
        with contextlib.closing(self._source.on_snapshot(snapshot, "UTF8")) as reading, reading.cursor() as cursor:
            cursor.execute("SELECT 1 FROM public.commits LIMIT 1")
            alter.append(threading.Thread(target=change, daemon=True))
            alter[0].start()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                self._check()
                time.sleep(0.1)
        real(self, snapshot)

    monkeypatch.setattr(_follow_copy.FollowSteps, "_copy_rows", slow)
    with pytest.raises(PoolsError, match=r"wants to change the definition of (public\.)?commits"):
        follow(pair)
    alter[0].join(10)
    assert waited and waited[0] < 6
    has_nothing_left(pair)


def test_it_is_given_up_before_the_source_keeps_too_much(once: Pair) -> None:
    pair = once
    follow(pair)
    with contextlib.closing(pair.target.connect(DATABASE)) as holding, holding.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE public.commits IN ACCESS EXCLUSIVE MODE")
        run(pair.source, DATABASE, "INSERT INTO public.commits SELECT 9, i, 0, repeat(md5(i::text), 10) FROM generate_series(1, 20000) i")
        late = follow(pair, state="drained", switch_timeout=1)
        assert [one["what"] for one in late["problems"]] == ["switch_timeout"] and not late["changed"]
        waiting = follow(pair, state="watched", timeout=1)
        assert (waiting["caught_up"], waiting["given_up"], waiting["failed"]) == (False, False, False)
        assert waiting["progress"]["lag_bytes"] > 1 << 20
        # Force is for what absent is told to drop, and for nothing else.
        given_up = follow(pair, state="watched", wal_limit_bytes=1 << 20, force=True)
    assert given_up["given_up"] and given_up["problems"][0]["what"] == "retained WAL"
    has_nothing_left(pair)


STEPS = [
    ("_follow_link", "make_publication", True),
    ("_follow_link", "make_role", True),
    ("_follow_copy", "FollowSteps._copy_rows", True),
    ("_follow_link", "copy_slot", True),
    ("_follow_link", "write_record", True),
    ("_follow_link", "make_subscription", True),
    ("_follow_link", "enable", True),
]


def test_killed_at_any_step_nothing_is_left(once: Pair) -> None:
    pair = once
    for step in STEPS:
        killed(given(pair), *step)
        assert left(pair) != {"source": [], "target": []}, step
        would = _follow.carry_out(given(pair, state="absent"), True)
        done = follow(pair, state="absent")
        assert would["changed"] and done["changed"] and len(would["actions"]) <= len(done["actions"]), step
        has_nothing_left(pair)
        assert follow(pair, state="absent")["changed"] is False
    # Who was killed is not in the way of whoever begins anew; and the switch itself may be killed too.
    killed(given(pair), *STEPS[2])
    with Writer(pair.source, 1) as writer:
        assert follow(pair)["changed"]
        wait_for(lambda: writer.commits > 50)
    assert follow(pair, state="watched", lag_bytes=0)["caught_up"]
    for step in (("_follow_catalog", "reached", True), ("_follow_clean", "unlink", False)):
        killed(given(pair, state="drained"), *step)
        assert follow(pair, state="watched")["caught_up"]
    killed(given(pair, state="drained"), "_follow_link", "drop_subscription", True)
    follow(pair, state="absent")
    has_nothing_left(pair)
    assert writer.arrived(pair.source)


def test_a_source_that_was_cut_off_is_followed_on(once: Pair) -> None:
    """And row security, which not even the owner passes, hides no row from the copy nor from what follows."""
    pair = once
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE public.guarded (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;"
            " ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY; CREATE POLICY few ON public.guarded USING (a < 10) WITH CHECK (true);"
            " INSERT INTO public.guarded SELECT generate_series(1, 20)"
        )
    follow(pair)
    run(pair.source, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'")
    with contextlib.closing(as_owner(pair.source)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.commits (writer, number) VALUES (5, 1)")
        cursor.execute("INSERT INTO public.guarded VALUES (30); DELETE FROM public.guarded WHERE a < 3")
    assert follow(pair, state="drained")["changed"]
    assert query(pair.target, DATABASE, "SELECT count(*), sum(b) FROM public.guarded") == [(19, 474)]
    assert differences(pair) == []
    # On the way back what is given up is the following alone, whatever is said of copies.
    assert follow(pair, state="reversed")["changed"]
    run(pair.target, DATABASE, "CREATE TABLE public.more ()")
    assert _follow.carry_out(backwards(pair, state="watched", force=True), False)["given_up"]
    has_nothing_left(pair, copy=True)
    assert query(pair.source, DATABASE, "SELECT count(*) FROM public.guarded") == [(19,)]


@pytest.fixture
def with_tls() -> Iterator[Pair]:
    """Two of the oldest: what is fetched of the newest may have been built without TLS."""
    with running_pair(Majors(PAIRS[0].source, PAIRS[0].source)) as running:
        if query(running.source, "postgres", "SHOW ssl_library") != [("OpenSSL",)]:
            pytest.skip("this PostgreSQL was built without TLS")
        make(running)
        yield running


def test_with_tls_the_server_is_proved_by_its_channel(with_tls: Pair) -> None:
    pair = with_tls
    home = Path(pair.source.data_directory)
    owner = home.stat()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    signed = built.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (("server.key", secret), ("server.crt", signed.public_bytes(pem))):
        (home / file).touch(mode=0o600)
        (home / file).write_bytes(content)
        os.chown(str(home / file), owner.st_uid, owner.st_gid)
    run(pair.source, "postgres", "ALTER SYSTEM SET ssl = on")
    run(pair.source, "postgres", "SELECT pg_reload_conf()")
    wait_for(lambda: query(pair.source, "postgres", "SHOW ssl") == [("on",)])
    follow(pair, source=dict(given(pair)["source"], login_ssl_mode="require"))
    assert "channel_binding='require'" in query(pair.target, "postgres", "SELECT subconninfo FROM pg_subscription")[0][0]
    over = "SELECT ssl FROM pg_stat_ssl s JOIN pg_stat_replication r ON r.pid = s.pid"
    wait_for(lambda: query(pair.source, "postgres", over) == [(True,)])
    assert follow(pair, state="drained")["changed"]


def test_the_password_is_nowhere_but_in_the_subscription(once: Pair) -> None:
    pair = once
    for server in (pair.source, pair.target):
        run(server, "postgres", "ALTER SYSTEM SET log_statement = 'all'")
        run(server, "postgres", "SELECT pg_reload_conf()")
    time.sleep(0.3)
    try:
        follow(pair)
        conninfo = query(pair.target, "postgres", "SELECT subconninfo FROM pg_subscription")[0][0]
        password = conninfo.split("password='")[1].split("'")[0]
        assert len(password) == 32
        logs = [path.read_text(errors="replace") for server in (pair.source, pair.target) for path in Path(server.path, "log").glob("*")]
        assert any("CREATE PUBLICATION" in log for log in logs) and not any(password in log for log in logs)
        role = query(pair.source, "postgres", "SELECT rolsuper, rolreplication, rolbypassrls, rolconnlimit FROM pg_roles WHERE rolname ~ '^pools_'")
        assert role == [(False, True, False, 3)]
        name = query(pair.source, "postgres", "SELECT rolname FROM pg_roles WHERE rolname ~ '^pools_'")[0][0]
        with contextlib.closing(pair.source.connect(DATABASE, name, password)) as entered, entered.cursor() as cursor, pytest.raises(
            psycopg2.errors.InsufficientPrivilege
        ):
            cursor.execute("SELECT * FROM public.commits")
    finally:
        for server in (pair.source, pair.target):
            run(server, "postgres", "ALTER SYSTEM RESET log_statement")
            run(server, "postgres", "SELECT pg_reload_conf()")


def test_a_transaction_that_stays_open_elsewhere_is_not_waited_for_without_end(once: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_follow, "SLOT_SECONDS", 1.0)
    with contextlib.closing(once.source.connect()) as elsewhere, elsewhere.cursor() as cursor:
        cursor.execute("BEGIN; CREATE TABLE public.elsewhere ()")
        with pytest.raises(PoolsError, match=r"could not begin a replication slot within 1 s.*transactions"):
            follow(once)
        has_nothing_left(once)
        monkeypatch.setattr(_follow_preflight, "LONG_SECONDS", 0)
        problems = follow(once, state="checked", fail=False)["problems"]
    assert [one["what"] for one in problems] == ["long transaction"] and "postgres" in problems[0]["problem"]


def test_a_server_that_cannot_reach_the_other_is_told_before_the_copy(once: Pair) -> None:
    source = dict(given(once)["source"], peer_port=1)
    with pytest.raises(PoolsError, match=r"cannot reach the other one at .* port 1"):
        follow(once, source=source)
    has_nothing_left(once)


def test_the_module_as_a_task(once: Pair, tmp_path: Path) -> None:
    pair = once
    base = {key: value for key, value in given(pair).items() if value not in (None, "")}
    calls = [("checked", True), ("started", True), ("started", False), ("watched", False), ("drained", True), ("drained", False), ("drained", False)]
    calls += [("reversed", False), ("absent", True), ("absent", False), ("absent", False)]
    names = ["{0}_{1}".format(state, number) for number, (state, _check) in enumerate(calls)]
    tasks: List[Dict[str, Any]] = [
        {"name": name, "saasodoo.postgres_pools.database_follow": dict(base, state=state), "check_mode": check, "register": name, "ignore_errors": True}
        for name, (state, check) in zip(names, calls)
    ]
    told = tmp_path / "told"
    shown = "{{ {%s} | to_json }}" % ", ".join("'%s': %s" % (name, name) for name in names)
    tasks.append({"ansible.builtin.copy": {"content": shown, "dest": str(told), "mode": "0600"}})
    (tmp_path / "play.yml").touch(mode=0o600)
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    root = Path(__file__).resolve().parents[2]
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(root / ".build"), ANSIBLE_HOME=str(tmp_path), ANSIBLE_NOCOLOR="1")
    env.update(ANSIBLE_CONFIG=str(tmp_path / "none.cfg"), ANSIBLE_PYTHON_INTERPRETER=sys.executable)
    (tmp_path / "none.cfg").touch()
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-vvv", "-i", "localhost,", str(tmp_path / "play.yml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pair.source.password not in done.stdout + done.stderr
    found = json.loads(told.read_text())
    changed = [name for name in names if found[name]["changed"]]
    assert changed == ["started_1", "started_2", "drained_4", "drained_5", "reversed_7", "absent_8", "absent_9"]
    assert [name for name in names if found[name].get("failed")] == ["drained_6"] and "does not follow" in found["drained_6"]["msg"]
    assert found["watched_3"]["caught_up"] and found["started_2"]["tables"] == 7
    has_nothing_left(pair, copy=True)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process backend against real PostgreSQL: each state from each other, runs at once, and a kill at every step.

POSTGRES_BIN_DIRS (a list with colons) says which versions; without it the one that the backend finds.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _hba, _server_dir, _sizing
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure
from postgres_fixture import free_port, running_server, server_home

BIN_DIRS = [one for one in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if one] or [""]

# Does the work of the module in a process of its own, and kills it before the step of that number that changes the
# machine. Between two such steps nothing is written, so these are all the places where a kill can make a difference.
WORKER = """
import json, os, signal, sys
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._process import Wanted, ensure
state, last = sys.argv[1], int(sys.argv[2])
wanted = Wanted(**json.load(sys.stdin))
changing = ("os.rename", "os.mkdir", "os.chown", "os.chmod", "os.remove", "os.rmdir", "tempfile.mkdtemp", "tempfile.mkstemp", "subprocess.Popen")
steps = 0
def hook(event, arguments):
    global steps
    if event in changing:
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
if last:
    sys.addaudithook(hook)
print(json.dumps(ensure(wanted, state)))
"""


def worker(wanted, state="started", kill_before=0):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, state, str(kill_before)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    process.stdin.write(json.dumps(wanted._asdict()).encode())
    process.stdin.close()
    process.stdin = None
    return process


@pytest.fixture(params=BIN_DIRS, ids=lambda one: one or "found")
def wanted(request, tmp_path):
    with server_home(tmp_path) as home:
        one = Wanted(
            path=os.path.join(home, "server"),
            port=free_port(),
            admin_password=secrets.token_hex(16),
            bin_dir=request.param,
            settings={"fsync": "off"},
            hba=_hba.lines(),
            timeout=60,
        )
        yield one
        ensure(one, "stopped")


def ask(wanted, query, **other):
    connection = psycopg2.connect(
        **dict(
            {
                "host": wanted.host,
                "port": wanted.port,
                "user": wanted.admin_user,
                "password": wanted.admin_password,
                "dbname": "postgres",
            },
            **other,
        )
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]
    finally:
        connection.close()


def tree(path):
    return {
        name: (os.lstat(name).st_mtime_ns, os.lstat(name).st_size)
        for name in glob.glob(path + "/**", recursive=True) + glob.glob(path + "/.*")
        if "/pg_stat" not in name and "/pg_wal" not in name
    }


def test_started_twice_changes_once(wanted):
    first = ensure(wanted, "started")
    assert first["actions"] == ["initialise the data directory", "start"]
    assert (first["host"], first["port"]) == ("127.0.0.1", wanted.port)
    assert ask(wanted, "SHOW server_version_num") == str(first["version"])
    assert ask(wanted, "SHOW data_checksums") == "on"
    assert (
        ask(wanted, "SELECT pg_encoding_to_char(encoding) || datcollate FROM pg_database WHERE datname = 'template0'")
        == "UTF8C.UTF-8"
    )
    begun = time.monotonic()
    second = ensure(wanted, "started")
    assert time.monotonic() - begun < 0.5
    assert (second["changed"], second["actions"], second["pid"]) == (False, [], first["pid"])
    assert second["diff"]["before"] == second["diff"]["after"]
    assert set(first) == set(second)


def test_it_runs_as_an_unprivileged_user_in_files_of_its_own(wanted):
    result = ensure(wanted, "started")
    assert os.stat("/proc/{0}".format(result["pid"])).st_uid == account().uid != 0
    wide = [
        name
        for name in tree(wanted.path)
        if name != wanted.path
        and not os.path.samefile(name, wanted.path)
        and stat.S_IMODE(os.lstat(name).st_mode) & 0o077
    ]
    assert wide == []
    assert sorted(os.listdir(wanted.path)) == [".lock", "data", "log"]


def test_the_computed_settings_start(wanted):
    computed = _sizing.settings(1024**3, 2, 40)
    ensure(wanted._replace(settings=computed), "started")
    assert ask(wanted, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == 0
    assert ask(
        wanted,
        "SELECT count(*) FROM pg_settings WHERE source = 'configuration file' AND lower(name) = ANY('{{{0}}}')".format(
            ",".join(computed)
        ),
    ) == len(computed)


def test_a_reload_where_that_is_enough(wanted):
    first = ensure(wanted, "started")
    changed = wanted._replace(settings={"fsync": "off", "work_mem": "9MB", "log_line_prefix": "it's \\ %m "})
    expected = ensure(changed, "started", check=True)
    result = ensure(changed, "started")
    assert result["actions"] == expected["actions"] == ["write the configuration", "reload"]
    assert result["diff"] == expected["diff"]
    assert result["diff"]["after"]["settings"]["work_mem"] == "9MB"
    assert "work_mem" not in result["diff"]["before"]["settings"]
    assert result["pid"] == first["pid"]
    assert (ask(wanted, "SHOW work_mem"), ask(wanted, "SHOW log_line_prefix")) == ("9MB", "it's \\ %m ")
    assert ensure(changed, "started")["actions"] == []
    ensure(wanted, "started")
    assert ask(wanted, "SHOW work_mem") == "4MB"


def test_a_restart_where_postgresql_asks_for_it(wanted):
    first = ensure(wanted, "started")
    changed = wanted._replace(settings={"fsync": "off", "max_connections": 33}, port=free_port())
    assert ensure(changed, "started", check=True)["actions"] == ["write the configuration", "restart"]
    result = ensure(changed, "started")
    assert result["actions"] == ["write the configuration", "restart"]
    assert result["pid"] != first["pid"]
    assert ask(changed, "SHOW max_connections") == "33"
    assert ensure(changed, "started")["actions"] == []


def test_hba_is_replaced_and_loaded(wanted):
    ensure(wanted, "started")
    ask(wanted, "CREATE ROLE tenant LOGIN PASSWORD 'x'; COMMIT; SELECT 1")
    with pytest.raises(psycopg2.OperationalError, match="rejects"):
        ask(wanted, "SELECT 1", user="tenant", password="x")
    opened = wanted._replace(hba=["host all all all scram-sha-256"])
    assert ensure(opened, "started")["actions"] == ["write the configuration", "reload"]
    assert ask(wanted, "SELECT 1", user="tenant", password="x") == 1
    with pytest.raises(PoolsError, match=r"refuses hba: line 2"):
        ensure(wanted._replace(hba=["host all all nonsense"]), "started")
    assert ensure(opened, "started")["actions"] == []


@pytest.mark.parametrize("path", ["postgresql.pools.conf", "pg_hba.conf"])
def test_a_file_changed_by_hand_is_put_right(wanted, path):
    ensure(wanted, "started")
    with open(os.path.join(wanted.path, "data", path), "a", encoding="utf-8") as stream:
        stream.write("# by hand\n")
    assert ensure(wanted, "started")["actions"] == ["write the configuration", "reload"]
    assert ensure(wanted, "started")["actions"] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"work_mem": "plenty"}, "work_mem"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"port": 1}, "port"),
        ({"work_mem": None}, "work_mem"),
        ({"a b": 1}, "a b"),
        ({"work_mem": "4MB\nfsync = off"}, "work_mem"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_changed(wanted, settings, said):
    with pytest.raises(PoolsError, match=said):
        ensure(wanted._replace(settings=settings), "started")
    assert not os.path.exists(os.path.join(wanted.path, "data"))
    ensure(wanted, "started")
    before = tree(wanted.path)
    with pytest.raises(PoolsError, match=said):
        ensure(wanted._replace(settings=settings), "started")
    assert tree(wanted.path).keys() == before.keys()
    assert ensure(wanted, "started")["actions"] == []


def test_settings_it_cannot_start_with_give_way_to_those_before(wanted):
    ensure(wanted, "started")
    with pytest.raises(PoolsError, match=r"superuser_reserved_connections.*settings before are in force") as caught:
        ensure(wanted._replace(settings={"superuser_reserved_connections": 50, "max_connections": 20}), "started")
    assert "last lines of" in str(caught.value)
    assert ask(wanted, "SHOW superuser_reserved_connections") == "3"
    assert ensure(wanted, "started")["actions"] == []


def test_check_mode_predicts_and_touches_nothing(wanted):
    home = os.path.dirname(wanted.path)
    expected = ensure(wanted, "started", check=True)
    assert os.listdir(home) == []
    result = ensure(wanted, "started")
    assert {**expected, "pid": result["pid"]} == result
    for state in ("stopped", "absent"):
        before = tree(wanted.path)
        expected = ensure(wanted, state, check=True)
        assert tree(wanted.path) == before
        assert ensure(wanted, state)["actions"] == expected["actions"] != []


def test_stopped_and_absent(wanted):
    assert ensure(wanted, "stopped")["actions"] == ensure(wanted, "absent")["actions"] == []
    ensure(wanted, "started")
    ask(wanted, "CREATE TABLE kept AS SELECT 1 AS one; COMMIT; SELECT 1")
    assert ensure(wanted, "stopped")["actions"] == ["stop"]
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        ask(wanted, "SELECT 1")
    assert ensure(wanted, "stopped")["actions"] == []
    assert ensure(wanted, "started")["actions"] == ["start"]
    result = ensure(wanted, "absent")
    assert result["actions"] == ["stop", "archive the directory"]
    assert not os.path.exists(wanted.path)
    assert os.path.dirname(result["archive"]) == os.path.join(os.path.dirname(wanted.path), "archived")
    assert ensure(wanted, "absent")["actions"] == []
    archived = wanted._replace(path=result["archive"])
    ensure(archived, "started")
    assert ask(archived, "SELECT one FROM kept") == 1
    ensure(archived, "stopped")


@pytest.mark.parametrize("state", ["started", "stopped", "absent"])
def test_a_directory_of_something_else_is_left_alone(wanted, state):
    os.mkdir(wanted.path)
    with open(os.path.join(wanted.path, "precious"), "w", encoding="utf-8"):
        pass
    with pytest.raises(PoolsError, match="something else than a server"):
        ensure(wanted, state)
    assert os.listdir(wanted.path) == ["precious"]
    os.unlink(os.path.join(wanted.path, "precious"))


def test_another_password_is_an_error_and_never_a_reset(wanted):
    ensure(wanted, "started")
    with pytest.raises(PoolsError, match="refuses the password of its administrator 'postgres'"):
        ensure(wanted._replace(admin_password="another"), "started")
    assert ensure(wanted, "started")["actions"] == []


def test_a_port_in_use_is_refused_by_name_before_anything_is_made(wanted):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PoolsError, match=r"Port {0} of 127.0.0.1 is in use by .*\(PID {1}\)".format(port, os.getpid())
        ):
            ensure(wanted._replace(port=port), "started")
        assert not os.path.exists(os.path.join(wanted.path, "data"))
        running = ensure(wanted, "started")
        with pytest.raises(PoolsError, match="in use"):
            ensure(wanted._replace(port=port), "started")
        assert ensure(wanted, "started")["pid"] == running["pid"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bin_dir": "/nonexistent"}, "lacks PostgreSQL's postgres, initdb, pg_ctl"),
        ({"path": "relative"}, "absolute"),
        ({"run_as": "root"}, "root"),
        ({"run_as": "nosuchuser"}, "no user 'nosuchuser'"),
        ({"listen_addresses": "203.0.113.1"}, "not an address"),
        ({"admin_password": ""}, "admin_password"),
        ({"locale": "xx_XX"}, "initdb.*invalid locale"),
    ],
)
def test_bad_input_says_what(wanted, change, said):
    with pytest.raises(PoolsError, match="(?s)" + said):
        ensure(wanted._replace(**change), "started")
    assert not os.path.exists(os.path.join(wanted.path, "data"))


def test_two_runs_at_once_make_one_server(wanted):
    runs = [worker(wanted) for _number in range(4)]
    results = [json.loads(run.communicate(timeout=60)[0]) for run in runs]
    assert sorted(result["changed"] for result in results) == [False, False, False, True]
    assert len({result["pid"] for result in results}) == 1


def test_a_run_that_waits_while_the_directory_is_archived_makes_a_new_one(wanted):
    ensure(wanted, "started")
    ensure(wanted, "stopped")
    directory = _server_dir.ServerDirectory(wanted.path, account())
    with directory.locked(10, create=True):
        waiting = worker(wanted)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        archived = directory.archive("")
    out, error = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, error
    assert json.loads(out)["actions"] == ["initialise the data directory", "start"]
    assert os.path.exists(os.path.join(archived, "data", "PG_VERSION"))


def test_two_runs_at_once_archive_it_once(wanted):
    ensure(wanted, "started")
    runs = [worker(wanted, "absent") for _number in range(3)]
    results = [json.loads(run.communicate(timeout=60)[0]) for run in runs]
    assert sorted(len(result["actions"]) for result in results) == [0, 0, 2]
    assert len(os.listdir(os.path.join(os.path.dirname(wanted.path), "archived"))) == 1


def killed_everywhere(wanted, state, prepare, check):
    """Kill a run before each of its steps in turn, and see that the next one completes it; how many steps there were."""
    for step in range(1, 100):
        prepare()
        run = worker(wanted, state, kill_before=step)
        _out, error = run.communicate(timeout=60)
        result = ensure(wanted, state)
        assert ensure(wanted, state)["actions"] == [], step
        check(result)
        if run.returncode != -signal.SIGKILL:
            assert run.returncode == 0, error
            return step - 1
    raise AssertionError("a run never came to its end")


def test_killed_before_each_step_of_a_first_start_it_is_completed(wanted):
    def check(_result):
        assert ask(wanted, "SELECT 1") == 1
        assert ask(wanted, "SELECT count(*) FROM pg_hba_file_rules") == len(wanted.hba)

    steps = killed_everywhere(wanted, "started", lambda: ensure(wanted, "absent"), check)
    assert steps >= 10
    assert sorted(os.listdir(wanted.path)) == [".lock", "data", "log"]


@pytest.mark.parametrize("settings", [{"work_mem": "9MB"}, {"max_connections": 33}], ids=["reload", "restart"])
def test_killed_before_each_step_of_a_change_it_is_completed(wanted, settings):
    changed = wanted._replace(settings=dict(wanted.settings, **settings))
    name, value = next(iter(settings.items()))
    steps = killed_everywhere(
        changed,
        "started",
        lambda: ensure(wanted, "started"),
        lambda _result: ask(wanted, "SHOW " + name) == str(value) or pytest.fail("not in force"),
    )
    assert steps >= 5


def test_killed_before_each_step_of_archiving_it_is_completed(wanted):
    def check(_result):
        assert not os.path.exists(wanted.path)

    assert killed_everywhere(wanted, "absent", lambda: ensure(wanted, "started"), check) >= 3
    archived = glob.glob(os.path.join(os.path.dirname(wanted.path), "archived", "*"))
    assert archived and all(os.path.exists(os.path.join(one, "data", "PG_VERSION")) for one in archived)


def test_killed_in_the_midst_of_initdb_it_is_completed(wanted):
    run = worker(wanted)
    deadline = time.monotonic() + 30
    while not glob.glob(os.path.join(wanted.path, _server_dir.UNFINISHED + "*", "base")):
        assert time.monotonic() < deadline and run.poll() is None
    run.kill()
    run.communicate()
    assert not os.path.exists(os.path.join(wanted.path, "data"))
    assert ensure(wanted, "started")["actions"] == ["initialise the data directory", "start"]
    # The orphaned initdb may outlive the first run; the next finds nothing of it any more.
    time.sleep(1)
    assert ensure(wanted, "started")["changed"] is False
    assert glob.glob(os.path.join(wanted.path, _server_dir.UNFINISHED + "*")) == []


def test_a_server_killed_hard_recovers_and_a_stale_pid_of_a_neighbour_does_not_keep_it_down(wanted):
    pid = ensure(wanted, "started")["pid"]
    ask(wanted, "CREATE TABLE kept AS SELECT 1 AS one; COMMIT; SELECT 1")
    os.kill(pid, signal.SIGKILL)
    with running_server(bin_dir=wanted.bin_dir) as neighbour:
        directory = _server_dir.ServerDirectory(wanted.path, account())
        deadline = time.monotonic() + 10
        while directory.postmaster():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # As after a crash of the machine, where process numbers begin anew.
        lines = directory.read("postmaster.pid").splitlines()
        directory.write({"postmaster.pid": "\n".join([str(neighbour.pid)] + lines[1:]) + "\n"})
        time.sleep(1)
        assert ensure(wanted, "started")["actions"] == ["start"]
        assert ask(wanted, "SELECT one FROM kept") == 1


def test_the_password_is_never_seen(wanted):
    secret = wanted.admin_password.encode()
    seen, found, done = set(), [], threading.Event()

    def watch():
        while not done.is_set():
            for name in glob.iglob("/proc/[0-9]*"):
                for what in ("cmdline", "environ"):
                    try:
                        with open(os.path.join(name, what), "rb") as stream:
                            text = stream.read()
                    except OSError:
                        continue
                    seen.update(program for program in (b"initdb", b"pg_ctl", b"/postgres") if program in text)
                    if secret in text:
                        found.append((name, what))

    watcher = threading.Thread(target=watch)
    watcher.start()
    run = worker(wanted)
    try:
        assert run.wait(timeout=60) == 0
    finally:
        done.set()
        watcher.join()
        output = run.communicate()
    assert seen == {b"initdb", b"pg_ctl", b"/postgres"}
    assert found == []
    assert not any(secret in text for text in output)
    ensure(wanted, "stopped")
    files = [name for name in tree(wanted.path) if os.path.isfile(name)]
    assert len(files) > 500
    for name in files:
        with open(name, "rb") as stream:
            assert secret not in stream.read(), name


def test_it_survives_the_run_and_holds_neither_its_lock_nor_its_output(wanted):
    run = worker(wanted)
    # Ends only when the last holder of the pipe is gone.
    result = json.loads(run.communicate(timeout=60)[0])
    held = {os.readlink(link) for link in glob.glob("/proc/{0}/fd/*".format(result["pid"]))}
    assert held and os.path.join(wanted.path, ".lock") not in held
    assert os.getsid(result["pid"]) not in (os.getsid(0), os.getsid(os.getpid()))
    assert ask(wanted, "SELECT 1") == 1


def test_the_module_itself(wanted):
    def module(*options, **arguments):
        arguments = dict(
            {
                "name": "pool",
                "path": wanted.path,
                "port": wanted.port,
                "bin_dir": wanted.bin_dir,
                "admin_password": wanted.admin_password,
            },
            **arguments,
        )
        ran = subprocess.run(
            [
                os.path.join(os.path.dirname(sys.executable), "ansible"),
                "localhost",
                "-m",
                "saasodoo.postgres_pools.postgres_process",
                "-e",
                json.dumps({"ansible_python_interpreter": sys.executable}),
                "-a",
                json.dumps(arguments),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
            env=dict(
                os.environ,
                ANSIBLE_COLLECTIONS_PATH=os.path.abspath(".build"),
                # What is looked for below is JSON, whatever people are shown.
                ANSIBLE_CALLBACK_RESULT_FORMAT="json",
            ),
        )
        assert wanted.admin_password not in ran.stdout
        return ran

    assert "CHANGED" in module("--check", "--diff").stdout
    assert not os.path.exists(wanted.path)
    made = module("--diff", "-vvv")
    assert "CHANGED" in made.stdout and '+    "state": "started"' in made.stdout
    again = module()
    assert again.returncode == 0 and '"changed": false' in again.stdout
    # The server without settings here has PostgreSQL's defaults; a refusal is one message and no traceback.
    refused = module(settings={"work_mem": "plenty"})
    assert refused.returncode != 0 and "pool: PostgreSQL refuses the settings" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert "CHANGED" in module(state="absent").stdout

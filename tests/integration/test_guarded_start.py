# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of a Swarm service around a real PostgreSQL, with the shell and the tools of both kinds of images: dash and util-linux, BusyBox.

There is no container here, so the image's entrypoint is a stand-in of one line; with a whole one the guard is tried on the Swarm. Debian's BusyBox
is built without flock, which that of Alpine has: beside it stands one that knows no more words than BusyBox's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, List

import psycopg2
import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _binaries
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account, run
from debian_programs import busybox
from postgres_fixture import free_port, server_home
from registry_fixture import bin_dirs

GUARD = Path(__file__).resolve().parents[2] / "roles" / "postgres_server" / "files" / "guarded-start"
# What the guard and the entrypoint call; an image of Alpine has them of BusyBox.
TOOLS = ("sh", "cat", "date", "dd", "flock", "mv", "rm", "sed", "sleep", "stat", "timeout", "true")
ENTRYPOINT = '#!/bin/sh\nexec "$@"\n'
# By https://www.busybox.net/downloads/BusyBox.html: flock [-sxun] FD | { FILE [-c] PROG ARGS }
FLOCK_OF_BUSYBOX = '#!/bin/sh\ncase $1 in -[sxun]) exec {0} "$@" ;; -* | ?*[!0-9]*) echo "flock: invalid option" >&2; exit 1 ;; *) exec {0} "$@" ;; esac\n'
BINARIES = _binaries.find(bin_dirs()[0])
STORAGE_SECONDS = 4
QUICK = 15


class Site:
    """A server's directory, and a PATH that holds PostgreSQL and one kind of tools."""

    def __init__(self, home: str, kind: str, cluster: str) -> None:
        self.home = Path(home)
        self.data = self.home / "data"
        self.lock = self.data / ".guard"
        self.who = account()
        self.tools = self.home / "tools"
        for folder in (self.data, self.tools):
            folder.mkdir()
        for name in TOOLS:
            (self.tools / name).symlink_to(busybox() if kind == "busybox" else str(shutil.which(name)))
        if kind == "busybox":
            (self.tools / "flock").unlink()
            self.program("flock", FLOCK_OF_BUSYBOX.format(shutil.which("flock")))
        self.program("docker-entrypoint.sh", ENTRYPOINT)
        shutil.copytree(cluster, self.data / "pgdata")
        for path in (self.data, *self.data.rglob("*")):
            os.chown(path, self.who.uid, self.who.gid)
        self.started: List[Guarded] = []

    def program(self, name: str, text: str) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def environment(self, name: str) -> dict[str, str]:
        return {
            "PATH": "{0}:{1}".format(self.tools, BINARIES.directory),
            "LC_ALL": "C",
            "PGDATA": str(self.data / "pgdata"),
            "GUARD_BEATS": str(self.home / ("beats-" + name)),
            "GUARD_HOLDER": "service=pool node={0} task=t-{0}".format(name),
            "PGHOST": str(self.data),
        }

    def begin(self, name: str, patience: int = 60) -> Guarded:
        self.home.chmod(0o777)
        one = Guarded(self, name, patience)
        self.started.append(one)
        return one

    def end(self) -> None:
        for one in self.started:
            one.end()


class Guarded:
    """One start of the server, in a process group of its own."""

    def __init__(self, site: Site, name: str, patience: int) -> None:
        self.site, self.name, self.port = site, name, free_port()
        self.log = site.home / (name + ".log")
        who = site.who
        options = ["-c", "port={0}".format(self.port), "-c", "unix_socket_directories=" + str(site.data), "-c", "listen_addresses=127.0.0.1"]
        command = [str(site.tools / "sh"), str(GUARD), str(site.data), str(patience), str(STORAGE_SECONDS), *options, "-c", "max_connections=10"]
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env=dict(site.environment(name), PGPORT=str(self.port)),
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **({"user": who.uid, "group": who.gid, "extra_groups": []} if who.switch else {}),
        )

    def said(self) -> str:
        return self.log.read_text()

    def serves(self) -> bool:
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def connect(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=5)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def healthy(self) -> bool:
        who = self.site.who
        done = subprocess.run(
            [str(self.site.tools / "sh"), str(GUARD), "health", str(STORAGE_SECONDS)],
            env=dict(self.site.environment(self.name), PGPORT=str(self.port)),
            capture_output=True,
            check=False,
            timeout=QUICK,
            **({"user": who.uid, "group": who.gid, "extra_groups": []} if who.switch else {}),
        )
        return done.returncode == 0

    def end(self) -> None:
        # Also of one that ended: a look at a storage that hangs outlives it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def eventually(what: str, check: Callable[[], bool], seconds: float = QUICK) -> float:
    begun = time.monotonic()
    while not check():
        assert time.monotonic() - begun < seconds, "not within {0} s: {1}".format(seconds, what)
        time.sleep(0.1)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """What initdb makes, for each test to have a copy of."""
    with server_home() as home:
        os.chmod(home, 0o777)
        code, said = run(account(), [BINARIES.program("initdb"), "--username=postgres", "--auth=trust", "--no-sync", home + "/cluster"], 60)
        assert code == 0, said
        yield home + "/cluster"


@pytest.fixture(params=["util-linux", "busybox"])
def site(request: pytest.FixtureRequest, cluster: str) -> Iterator[Site]:
    with server_home() as home:
        there = Site(home, request.param, cluster)
        yield there
        there.end()


def test_a_second_start_waits_and_says_for_whom(site: Site) -> None:
    first = site.begin("one")
    eventually("the first serves", first.serves)
    assert site.lock.stat().st_size == 512
    second = site.begin("two", patience=3)
    eventually("the second gives up", second.ended)
    assert second.process.returncode == 75
    assert "waiting up to 3 s" in second.said() and "giving up" in second.said()
    # Who, and since when.
    assert second.said().count("service=pool node=one task=t-one since=20") == 2
    assert first.serves() and first.healthy()


def test_the_lock_goes_over_when_the_server_has_stopped(site: Site) -> None:
    first = site.begin("one")
    eventually("the first serves", first.serves)
    second = site.begin("two")
    eventually("the second waits", lambda: "another server holds" in second.said())
    first.process.send_signal(signal.SIGINT)
    eventually("the second serves", second.serves)
    assert first.ended() and "has the lock after" in second.said()
    assert site.lock.read_text().startswith("service=pool node=two ")
    with second.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW recovery_init_sync_method")
        # It is on another node than the first; files that were not safe there are not here.
        assert cursor.fetchone() == ("syncfs",) and "taken over from one" in second.said()
    assert "taken over" not in first.said()


def test_a_backend_alone_still_holds_the_lock(site: Site) -> None:
    first = site.begin("one")
    eventually("the first serves", first.serves)
    connection = first.connect()
    backend = connection.info.backend_pid
    # Stopped, it does not see that the others are gone.
    os.kill(backend, signal.SIGSTOP)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    second = site.begin("two")
    eventually("the second waits", lambda: "another server holds" in second.said())
    time.sleep(2)
    assert not second.serves()
    os.kill(backend, signal.SIGCONT)
    eventually("the second serves", second.serves)


def test_a_server_whose_lock_was_lost_ends(site: Site) -> None:
    first = site.begin("one")
    eventually("it serves", first.serves)
    # The path is another file now, whose lock nobody has: so it looks to a client that came back without its locks.
    site.lock.rename(site.data / ".guard-before")
    eventually("it ended", first.ended)
    assert "is lost; PostgreSQL is ended at once" in first.said()


def test_a_server_whose_lock_names_another_ends(site: Site) -> None:
    first = site.begin("one")
    eventually("it serves", first.serves)
    record = "service=pool node=two task=t-two since=2026-01-01T00:00:00Z seen=2026-01-01T00:00:00Z"

    def write() -> bool:
        # The guard writes too, every two seconds; whoever comes first, this one comes again.
        with site.lock.open("r+") as stream:
            stream.write(record.ljust(511) + "\n")
        return first.ended()

    eventually("it ended", write)
    assert "is another's: service=pool node=two" in first.said()


def test_a_server_whose_storage_gives_errors_ends(site: Site) -> None:
    first = site.begin("one")
    eventually("it serves", first.serves)
    assert first.healthy()
    site.lock.chmod(0)
    eventually("it ended", first.ended)
    assert "the storage is lost" in first.said() and "ermission denied" in first.said()
    assert not first.healthy()
    # And a start there says so at once, with a code of its own.
    second = site.begin("two")
    eventually("the second ended", second.ended)
    assert second.process.returncode == 74 and "cannot be used" in second.said()


def test_a_server_whose_storage_hangs_ends_after_its_time(site: Site) -> None:
    first = site.begin("one")
    eventually("it serves", first.serves)
    # To open it waits for somebody who writes, and nobody does.
    site.lock.rename(site.data / ".guard-before")
    os.mkfifo(site.lock)
    os.chown(site.lock, site.who.uid, site.who.gid)
    took = eventually("it ended", first.ended, STORAGE_SECONDS + QUICK)
    # One round of the guard may have begun before.
    assert took > STORAGE_SECONDS - 1
    assert "the storage has not answered for {0} s; PostgreSQL is ended at once".format(STORAGE_SECONDS) in first.said()


def test_a_server_that_waited_and_is_not_announced_ends_once(site: Site) -> None:
    first = site.begin("one")
    eventually("the first serves", first.serves)
    # Of a service's name, that nobody here knows, a stand-in of Swarm's resolver.
    site.program("getent", '#!/bin/sh\n[ -e "{0}/announced" ]\n'.format(site.home))
    second = site.begin("two")
    eventually("the second waits", lambda: "another server holds" in second.said())
    first.process.send_signal(signal.SIGINT)
    eventually("the second serves", second.serves)
    third = site.begin("three")
    eventually("the second ended", second.ended, 60)
    assert "it serves, and Swarm has not announced its name" in second.said()
    eventually("the third serves", third.serves)
    (site.home / "announced").touch()
    time.sleep(5)
    assert third.serves()


def test_an_image_without_the_tools_is_refused(site: Site) -> None:
    (site.tools / "flock").unlink()
    one = site.begin("one")
    eventually("it ended", one.ended)
    assert one.process.returncode == 78 and "this image has no flock" in one.said()


def test_an_image_of_another_major_version_is_refused(site: Site) -> None:
    other = site.data / "99" / "docker"
    other.mkdir(parents=True)
    (other / "PG_VERSION").write_text("99\n")
    one = site.begin("one")
    eventually("it ended", one.ended)
    assert one.process.returncode == 78 and "those of PostgreSQL 99" in one.said()


def test_health_is_bad_when_the_guard_is_no_more(site: Site) -> None:
    first = site.begin("one")
    eventually("it is healthy", first.healthy)
    beats = Path(site.environment("one")["GUARD_BEATS"])
    # A guard that ended leaves its last sign behind; that of a living one is renewed within two seconds.
    old = time.time() - STORAGE_SECONDS - 30
    os.utime(beats, (old, old))
    assert not first.healthy()
    eventually("its next sign makes it healthy", first.healthy)

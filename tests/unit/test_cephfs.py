# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_page_cache as page_cache
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_subvolume as subvolumes
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _cephfs_wanted as wanting
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_child import bounded
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_directory import Directories, ensure
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_mount import (
    Mount,
    MountPoint,
    judged,
    mount_id,
    mount_points,
    prove,
)
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._cephfs_wanted import Found, Wanted
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

MOUNTINFO = r"""21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
88 21 0:55 / /mnt/cephfs rw,nosuid shared:40 master:2 - fuse.ceph-fuse ceph-fuse rw,user_id=0
91 21 0:56 / /mnt/with\040blank rw - ceph 10.0.0.1:6789:/ rw,name=node
92 21 0:57 / /mnt/nfs rw - nfs4 10.0.0.2:/ rw
"""


def test_mounts_are_read_with_their_escapes_and_optional_fields():
    assert mount_points(MOUNTINFO)[1:3] == [
        MountPoint(88, "/mnt/cephfs", "fuse.ceph-fuse"),
        MountPoint(91, "/mnt/with blank", "ceph"),
    ]


@pytest.mark.parametrize(
    ("place", "here", "told"),
    [
        ("/mnt/other", 21, "Nothing is mounted at /mnt/other; it lies on the ext4 of /"),
        ("/mnt/cephfs/below", 88, "Nothing is mounted at /mnt/cephfs/below; it lies on the fuse.ceph-fuse of /mnt/cephfs"),
        ("/mnt/nfs", 92, "What is mounted at /mnt/nfs is nfs4, not CephFS"),
        ("/gone", 7, "Nothing is mounted at /gone"),
    ],
)
def test_a_directory_where_no_cephfs_is_mounted_is_refused(place, here, told):
    with pytest.raises(PoolsError, match=told):
        judged(place, place, here, mount_points(MOUNTINFO))


def test_a_mounted_cephfs_is_taken():
    assert judged("/mnt/cephfs", "/mnt/cephfs", 88, mount_points(MOUNTINFO)).kind == "fuse.ceph-fuse"


def test_a_directory_of_the_local_disk_is_refused_and_nothing_is_written_there(tmp_path):
    options = {
        "mount_path": str(tmp_path), "cluster_fsid": "", "state": "present", "directories": [{"path": "a"}],
        "immutable_mountpoint": False, "timeout": 20,
    }  # fmt: skip
    with pytest.raises(PoolsError, match="Nothing is mounted at"):
        ensure(options, check_mode=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PoolsError, match="There is no"):
        ensure(dict(options, mount_path=str(tmp_path / "missing")), check_mode=False)


def test_another_file_system_that_is_mounted_is_refused():
    with pytest.raises(PoolsError, match="What is mounted at /proc is proc, not CephFS"):
        prove("/proc", "", lambda _step: None)


def entry(**changed):
    return dict({"path": "postgres_pools/one"}, **changed)


def test_every_wrong_entry_is_named():
    with pytest.raises(PoolsError) as refused:
        wanting.wanted_from(
            [
                entry(),
                entry(),
                entry(path="/etc/one"),
                entry(path="/mnt/cephfsX/one"),
                entry(path="a/../../etc"),
                entry(path="/mnt/cephfs/"),
                entry(path="a/.snap/b"),
                entry(path="b", mode="448"),
                entry(path="c", quota="much"),
                entry(path="d", owner="nobody-of-that-name"),
                entry(path="e"),
            ],
            "/mnt/cephfs",
        )
    message = str(refused.value)
    for number, told in {
        2: "twice", 3: "not below", 4: "not below", 5: "'..'", 6: "the mount itself", 7: "'.snap'", 8: "octal", 9: "no size", 10: "give the number",
    }.items():  # fmt: skip
        assert any(part.startswith("{0}: ".format(number)) and told in part for part in message.split("entry ")), (number, message)
    assert "entry 1:" not in message
    assert "entry 11:" not in message


def test_paths_may_be_absolute_and_sizes_have_units():
    assert wanting.wanted_from(
        [entry(path="/mnt/cephfs//a/b/", owner="70", group="70", mode="0700", quota="1G"), entry(path="c", quota="0")], "/mnt/cephfs/"
    ) == [Wanted("a/b", 70, 70, 0o700, 1 << 30), Wanted("c", quota=0)]


def test_parents_come_first_and_once():
    entries = [Wanted("a/b/c", 70), Wanted("a", mode=0o711), Wanted("a/b/d")]
    assert wanting.with_parents(entries) == [
        Wanted("a", mode=0o711),
        Wanted("a/b"),
        Wanted("a/b/c", 70),
        Wanted("a/b/d"),
    ]


def test_what_nobody_asked_for_stays():
    found = Found(70, 71, 0o700, 5, 3)
    assert wanting.after(Wanted("a"), found) == found
    assert wanting.after(Wanted("a", quota=0, mode=0o750), found) == Found(70, 71, 0o750, 0, 3)
    assert wanting.after(Wanted("a"), None) == Found(0, 0, 0o755, 0, 0)


def test_a_quota_below_what_is_in_use_is_refused_unless_it_stands_already():
    full = Found(70, 70, 0o700, 100, 150)
    with pytest.raises(PoolsError, match="holds 150 bytes, more than the quota of 120"):
        wanting.check_quota("/mnt/cephfs/a", Wanted("a", quota=120), full)
    for quota in (None, 0, 100, 150):
        wanting.check_quota("/mnt/cephfs/a", Wanted("a", quota=quota), full)
    wanting.check_quota("/mnt/cephfs/a", Wanted("a", quota=1), None)


CONF = """
[global]
fuse_disable_pagecache = false   ; the default
[client]
; fuse disable pagecache = false
fuse disable pagecache = true # safe
[client.old]
fuse-disable-pagecache = "no"
"""


@pytest.mark.parametrize(
    ("arguments", "text", "off"),
    [
        (["/mnt/cephfs"], CONF, True),
        (["-n", "client.old", "/mnt/cephfs"], CONF, False),
        (["--id=old", "/mnt/cephfs"], CONF, False),
        (["-n", "client.old", "--fuse-disable-pagecache=true", "/mnt/cephfs"], CONF, True),
        (["/mnt/cephfs"], "[global]\nfuse_disable_pagecache = 0\n", False),
        (["/mnt/cephfs"], "[mds]\nfuse_disable_pagecache = 1\n", None),
        (["/mnt/cephfs"], "", None),
    ],
)
def test_the_strongest_source_of_a_ceph_configuration_counts(arguments, text, off):
    assert page_cache.configured(page_cache.Client(["ceph-fuse", *arguments], {}), text) is off


def test_the_configuration_file_is_that_of_the_client():
    def path(*arguments, **environment):
        return page_cache.Client(["ceph-fuse", *arguments], environment).configuration()

    assert path() == "/etc/ceph/ceph.conf"
    assert path("--cluster", "two") == "/etc/ceph/two.conf"
    assert path(CEPH_CONF="/a.conf") == "/a.conf"
    assert path("-c", "/b.conf", CEPH_CONF="/a.conf") == "/b.conf"
    assert path(CEPH_ARGS="--conf=/c.conf") == "/c.conf"


def test_a_configuration_newer_than_the_client_proves_nothing(tmp_path):
    conf = tmp_path / "ceph.conf"
    conf.write_text(CONF)
    client = page_cache.Client(["ceph-fuse", "-c", str(conf), "/mnt/cephfs"], {})
    me = "/proc/{0}".format(os.getpid())
    assert page_cache._from_configuration(me, client, lambda _process: time.time()) == (True, str(conf))
    off, why = page_cache._from_configuration(me, client, lambda _process: time.time() - 60)
    assert off is None
    assert "newer than the mount" in why


def test_the_start_of_a_process_is_read():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as process:
        try:
            assert abs(page_cache._started("/proc/{0}".format(process.pid)) - time.time()) < 5
        finally:
            process.kill()


def test_the_socket_of_a_process_is_found_and_asked_here_with_a_fake_client(tmp_path: Path):
    path = tmp_path / "client.asok"
    asked = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)

        def serve():
            connection, _address = listening.accept()
            with connection:
                asked.append(json.loads(connection.recv(4096).rstrip(b"\0")))
                answer = json.dumps({"fuse_disable_pagecache": "true"}).encode()
                connection.sendall(struct.pack(">I", len(answer)) + answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = page_cache._from_socket("/proc/{0}".format(os.getpid()))
        thread.join(5)
    assert found == (True, "the admin socket {0}".format(path))
    assert asked[0]["prefix"] == "config get"


def test_without_a_client_page_caching_is_not_known():
    with pytest.raises(PoolsError, match="could not be learnt"):
        page_cache.proof_that_it_is_off("/mnt/nobody-mounts-here")


def test_work_in_a_child_gives_its_result_or_its_refusal():
    assert bounded("/x", 5, lambda step: {"pid": os.getpid(), "said": step("a")})["pid"] != os.getpid()

    def refuse(_step):
        raise PoolsError("No.", "Do otherwise.")

    with pytest.raises(PoolsError) as refused:
        bounded("/x", 5, refuse)
    assert (refused.value.problem, refused.value.remedy) == ("No.", "Do otherwise.")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        bounded("/x", 5, lambda _step: {"a": 1 / 0})
    with pytest.raises(PoolsError, match=r"ended early.*at: begin"):
        bounded("/x", 5, lambda _step: {"a": os.kill(os.getpid(), signal.SIGKILL)})


def test_a_step_that_hangs_is_given_up_and_named(tmp_path):
    def hang(step):
        step("open it")
        time.sleep(1)
        (tmp_path / "late").touch()
        return {}

    start = time.monotonic()
    with pytest.raises(PoolsError, match=r"/x did not answer within 0.3 s \(at: open it\)"):
        bounded("/x", 0.3, hang)
    assert time.monotonic() - start < 1
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_steps_that_go_on_may_take_longer_together():
    def work(step):
        for number in range(4):
            step(str(number))
            time.sleep(0.2)
        return {"done": True}

    assert bounded("/x", 0.5, work) == {"done": True}


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Directories on the local disk, which has no quota: those of CephFS are tried on the Swarm test bed."""
    monkeypatch.setattr(os, "getxattr", lambda *_arguments: b"0")
    handle = os.open(tmp_path, os.O_RDONLY)
    mount = Mount(str(tmp_path), handle, mount_id(handle), "ceph", "fsid", "")
    yield lambda check_mode=False: Directories(mount, lambda _step: None, check_mode)
    os.close(handle)


def test_directories_of_a_fake_mount_are_made_once(directories, tmp_path):
    me = Wanted("a/b", os.getuid(), os.getgid(), 0o700)
    wanted = wanting.with_parents([me])
    predicted, first, second = directories(True), directories(), directories()
    predicted.make(wanted)
    assert not (tmp_path / "a").exists()
    first.make(wanted)
    second.make(wanted)
    assert predicted.result()["actions"] == first.result()["actions"] != []
    assert predicted.result()["diff"] == first.result()["diff"]
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o700
    assert second.result()["changed"] is False
    assert second.result()["diff"] == {"before": {}, "after": {}}


def test_a_link_on_the_way_out_of_a_fake_mount_is_refused(directories, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "out").symlink_to(elsewhere)
    with pytest.raises(PoolsError, match="symbolic link"):
        directories().make([Wanted("out/a")])
    assert list(elsewhere.iterdir()) == []


def test_a_directory_of_a_fake_mount_is_archived_with_what_it_holds(directories, tmp_path):
    (tmp_path / "pools" / "one").mkdir(parents=True)
    (tmp_path / "pools" / "one" / "PG_VERSION").write_text("18")
    predicted, first, second = directories(True), directories(), directories()
    predicted.archive([Wanted("pools/one")])
    assert (tmp_path / "pools" / "one").exists()
    first.archive([Wanted("pools/one")])
    archive = Path(first.result()["directories"][0]["archive"])
    assert archive.parent == tmp_path / "pools" / ".archived"
    assert (archive / "PG_VERSION").read_text() == "18"
    assert not (tmp_path / "pools" / "one").exists()
    second.archive([Wanted("pools/one")])
    assert second.result()["changed"] is False
    assert second.result()["directories"][0]["state"] == "absent"


def test_what_ceph_says_of_a_subvolume_is_read():
    def info(**changed):
        return json.dumps({"path": "/volumes/g/one/uuid", "bytes_quota": "infinite", "bytes_used": 7, "state": "complete", **changed})

    assert subvolumes.parse_info(info()) == subvolumes.Subvolume("/volumes/g/one/uuid", 0, 7)
    assert subvolumes.parse_info(info(bytes_quota=1024)) == subvolumes.Subvolume("/volumes/g/one/uuid", 1024, 7)
    # Of one that was archived only this is left.
    assert subvolumes.parse_info(json.dumps({"state": "snapshot-retained", "type": "subvolume", "features": []})) is None


@pytest.mark.parametrize("names", [["--force"], ["a/b"], [""], ["a", "a"]])
def test_names_that_ceph_would_take_otherwise_are_refused(names):
    with pytest.raises(PoolsError, match="no name for a subvolume"):
        subvolumes.wanted_from([{"name": name} for name in names])


def test_without_the_command_ceph_there_are_no_subvolumes(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = subvolumes.Cluster({"timeout": 1, "ceph_conf": "", "ceph_keyring": "", "ceph_id": "x"})
    with pytest.raises(PoolsError, match="There is no `ceph` command"):
        cluster.tell("fsid")


def test_a_ceph_command_that_hangs_or_fails_is_told_here_with_a_fake_one(monkeypatch, tmp_path):
    fake = tmp_path / "ceph"
    monkeypatch.setenv("PATH", "{0}:{1}".format(tmp_path, os.environ["PATH"]))
    fake.write_text("#!/bin/sh\necho 'Error EPERM: not allowed.' >&2\nexit 1\n")
    fake.chmod(0o755)
    cluster = subvolumes.Cluster({"timeout": -4.7, "ceph_conf": "/c", "ceph_keyring": "", "ceph_id": "x"})
    with pytest.raises(PoolsError, match=r"`ceph fsid` failed: Error EPERM: not allowed\."):
        cluster.tell("fsid")
    fake.write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(PoolsError, match=r"did not answer .* \(at: fsid\)"):
        cluster.tell("fsid")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""prepare.yml and the role cephfs on the Swarm test bed: three nodes, a real CephFS.

All that these tests make bears names of their own and is removed, so that they neither need an empty bed nor leave one that is not.
The failures happen on a second mount of sw2, at a path of the tests' own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BED = Path(os.environ.get("SWARM_BED_DIR") or "/var/lib/postgres_pools/swarm-bed")
INVENTORY = BED / "inventory" / "hosts.yml"
if not INVENTORY.exists():
    pytest.skip("There is no Swarm test bed: run `python tests/swarm_bed up` as root.", allow_module_level=True)

BED_VARS = json.loads(INVENTORY.read_text().partition("\n")[2])["all"]["vars"]
FSID = BED_VARS["swarm_bed_cluster_fsid"]
MOUNT = BED_VARS["swarm_bed_cephfs_mount"]
SECOND_MOUNT = "/mnt/prepare-test"
BASE = "prepare-test"
LABEL, FSYNC_LABEL, LOCKS_LABEL = "prepare-test", "prepare-test.fdatasync", "prepare-test.locks"
NETWORK, CLIENT = "prepare-test", "prepare-test-client"
VARS = {
    "postgres_pools_network": NETWORK,
    "postgres_pools_node_label": {"name": LABEL, "value": "database"},
    "postgres_pools_image": "postgres:18",
    "postgres_pools_cephfs": {"mount_path": MOUNT, "cluster_fsid": FSID},
    "cephfs_base_directories": [BASE, BASE + "/postgres_pools", BASE + "/postgres_dedicated"],
    "swarm_node_fsync_label": FSYNC_LABEL,
    "swarm_node_locks_label": LOCKS_LABEL,
    "client_host_name": CLIENT,
}


class Run(NamedTuple):
    code: int
    output: str
    changed: Dict[str, int]

    @property
    def sentences(self) -> str:
        """What it said, without the line breaks of YAML."""
        return " ".join(self.output.split())


def ansible(playbook: str, *arguments: str, **variables: Any) -> Run:
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(INVENTORY), playbook, "-e", json.dumps({**VARS, **variables}), *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
    return Run(done.returncode, done.stdout + done.stderr, {host: int(changed) for host, changed in recap})


def prepare(*arguments: str, **variables: Any) -> Run:
    return ansible("playbooks/prepare.yml", *arguments, **variables)


def succeeded(run: Run) -> Run:
    assert run.code == 0, run.output
    assert run.changed, run.output
    return run


def on(node: str, *command: str, check: bool = True) -> str:
    arguments = ["docker", "--host", BED_VARS["swarm_bed_outer_docker"], "exec", node, *command]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0 or not check, (command, done.stdout, done.stderr)
    return done.stdout.strip()


def labels(node: str) -> Dict[str, str]:
    return dict(json.loads(on("sw1", "docker", "node", "inspect", "--format", "{{json .Spec.Labels}}", node)) or {})


def inspected(*what: str) -> Optional[Dict[str, Any]]:
    found = json.loads(on("sw1", "docker", *what, check=False) or "[]")
    return dict(found[0]) if found else None


def attribute(path: str, name: str, node: str = "sw1") -> str:
    return on(node, "getfattr", "--absolute-names", "--only-values", "-n", name, path, check=False)


def clean() -> None:
    on("sw1", "docker", "rm", "--force", CLIENT, check=False)
    on("sw1", "docker", "network", "rm", NETWORK, check=False)
    on("sw1", "rm", "-rf", "{0}/{1}".format(MOUNT, BASE))
    for node in ("sw1", "sw2", "sw3"):
        for label in (LABEL, FSYNC_LABEL, LOCKS_LABEL):
            if label in labels(node):
                on("sw1", "docker", "node", "update", "--label-rm", label, node)


@pytest.fixture(scope="module")
def cleared() -> Iterator[None]:
    clean()
    yield
    clean()


@pytest.fixture(scope="module")
def checked(cleared: None) -> Run:
    return succeeded(prepare("--check", "--diff"))


@pytest.fixture(scope="module")
def before(checked: Run) -> Dict[str, Any]:
    """What the run in check mode left."""
    return {
        "network": inspected("network", "inspect", NETWORK),
        "client": inspected("container", "inspect", CLIENT),
        "labels": {name for node in ("sw1", "sw2", "sw3") for name in labels(node)},
        "directories": on("sw1", "ls", "-A", MOUNT).split(),
    }


@pytest.fixture(scope="module")
def prepared(before: Dict[str, Any]) -> Run:
    return succeeded(prepare())


def test_check_mode_tells_all_and_changes_nothing(checked: Run, before: Dict[str, Any]):
    assert before["network"] is None
    assert before["client"] is None
    assert not {LABEL, FSYNC_LABEL} & before["labels"]
    assert BASE not in before["directories"]
    assert all(checked.changed[node] for node in ("sw1", "sw2", "sw3")), checked.output
    assert "{0}/{1}/postgres_pools".format(MOUNT, BASE) in checked.output


def test_nodes_of_the_group_are_labelled_and_measured(prepared: Run):
    for node in ("sw2", "sw3"):
        assert labels(node)[LABEL] == "database"
        assert int(labels(node)[FSYNC_LABEL]) > 0
        assert labels(node)[LOCKS_LABEL] == "seen"
    assert LABEL not in labels("sw1")


def test_the_scratch_directory_of_the_measurement_is_gone(prepared: Run):
    assert [name for name in on("sw1", "ls", "-A", MOUNT).split() if name.startswith("pg_test_fsync")] == []
    assert on("sw2", "docker", "ps", "--all", "--quiet", "--filter", "name=pg_test_fsync") == ""


def test_what_an_interrupted_measurement_left_is_taken_over(prepared: Run):
    scratch = MOUNT + "/pg_test_fsync-sw2"
    on("sw1", "docker", "node", "update", "--label-rm", FSYNC_LABEL, "sw2")
    on("sw2", "sh", "-c", "mkdir {0} && touch {0}/pg_test_fsync.out".format(scratch))
    on("sw2", "docker", "create", "--name", "pg_test_fsync-sw2", "postgres:18", "true")
    succeeded(prepare("--limit", "sw2"))
    assert int(labels("sw2")[FSYNC_LABEL]) > 0
    assert on("sw2", "ls", "-d", scratch, check=False) == ""
    assert on("sw2", "docker", "ps", "--all", "--quiet", "--filter", "name=pg_test_fsync") == ""


def test_base_directories_are_there_for_all_to_pass(prepared: Run):
    for name in VARS["cephfs_base_directories"]:
        assert on("sw3", "stat", "--format", "%a %u %g", "{0}/{1}".format(MOUNT, name)) == "755 0 0"


def test_the_network_can_be_attached_to(prepared: Run):
    network = inspected("network", "inspect", NETWORK)
    assert network is not None
    assert (network["Driver"], network["Scope"], network["Attachable"]) == ("overlay", "swarm", True)


def test_the_client_host_is_on_the_network_and_publishes_nothing(prepared: Run):
    client = inspected("container", "inspect", CLIENT)
    assert client is not None
    assert client["State"]["Running"]
    assert list(client["NetworkSettings"]["Networks"]) == [NETWORK]
    assert client["HostConfig"]["PortBindings"] in (None, {})
    assert client["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert client["HostConfig"]["Binds"] in (None, [])
    assert not [word for word in client["Config"]["Env"] if re.search("PASS|SECRET|KEY|TOKEN", word)]


def test_ansible_reaches_the_client_host_through_the_manager(prepared: Run, tmp_path: Path):
    play = [{"name": "Ask", "hosts": "client", "gather_facts": False, "tasks": [{"name": "Ask", "ansible.builtin.ping": {}}]}]
    succeeded(ansible(playbook(tmp_path, play), ansible_host=CLIENT))


def test_a_second_run_changes_nothing(prepared: Run):
    for arguments in ([], ["--check"]):
        run = succeeded(prepare(*arguments))
        assert set(run.changed.values()) == {0}, run.output


def test_a_node_that_left_the_group_loses_the_label_and_no_other(prepared: Run):
    on("sw1", "docker", "node", "update", "--label-add", LABEL + "=database", "--label-add", "prepare-test-other=database", "sw1")
    try:
        succeeded(prepare("--limit", "database_nodes"))
        assert LABEL not in labels("sw1")
        assert "prepare-test-other" in labels("sw1")
        assert LABEL in labels("sw2")
        assert LABEL in labels("sw3")
    finally:
        on("sw1", "docker", "node", "update", "--label-rm", "prepare-test-other", "sw1")


def test_a_run_limited_to_one_node_leaves_the_labels_of_the_group(prepared: Run):
    succeeded(prepare("--limit", "sw2"))
    assert LABEL in labels("sw3")


def test_a_label_of_the_same_name_with_another_value_is_somebody_elses(prepared: Run):
    on("sw1", "docker", "node", "update", "--label-add", LABEL + "=web", "sw1")
    try:
        succeeded(prepare("--limit", "database_nodes"))
        assert labels("sw1")[LABEL] == "web"
    finally:
        on("sw1", "docker", "node", "update", "--label-rm", LABEL, "sw1")


def test_a_network_that_does_not_fit_is_left_alone(prepared: Run):
    on("sw1", "docker", "network", "create", "prepare-test-bridge")
    try:
        run = prepare(postgres_pools_network="prepare-test-bridge")
        assert run.code != 0
        assert "sw1: the network prepare-test-bridge is there, but it is of driver bridge" in run.sentences
        network = inspected("network", "inspect", "prepare-test-bridge")
        assert network is not None
        assert network["Driver"] == "bridge"
    finally:
        on("sw1", "docker", "network", "rm", "prepare-test-bridge")


def playbook(folder: Path, plays: List[Dict[str, Any]]) -> str:
    path = folder / "play.yml"
    path.write_text(json.dumps(plays))
    return str(path)


@pytest.fixture
def directories(cleared: None, tmp_path: Path) -> Any:
    """The role cephfs as other roles include it, on the storage host or another."""

    def run(*arguments: str, host: str = "sw1", **variables: Any) -> Run:
        play = {"name": "Directories", "hosts": host, "gather_facts": False, "roles": ["saasodoo.postgres_pools.cephfs"]}
        return ansible(playbook(tmp_path, [play]), *arguments, **variables)

    return run


def server(name: str, **changed: Any) -> Dict[str, Any]:
    entry = {"path": "{0}/postgres_pools/{1}".format(BASE, name), "owner": "70", "group": "70", "mode": "0700", "quota": "64M", **changed}
    return {key: value for key, value in entry.items() if value is not None}


def place(name: str) -> str:
    return "{0}/{1}/postgres_pools/{2}".format(MOUNT, BASE, name)


def test_a_servers_directory_has_owner_and_quota(directories: Any):
    wanted = [server("one")]
    told = succeeded(directories("--check", "--diff", cephfs_directories=wanted))
    assert "67108864" in told.output
    assert on("sw1", "ls", place("one"), check=False) == ""
    succeeded(directories(cephfs_directories=wanted))
    assert on("sw2", "stat", "--format", "%u %g %a", place("one")) == "70 70 700"
    assert attribute(place("one"), "ceph.quota.max_bytes") == "67108864"
    assert succeeded(directories(cephfs_directories=wanted)).changed == {"sw1": 0}

    succeeded(directories("--diff", cephfs_directories=[server("one", owner="999", quota="128M")]))
    assert on("sw2", "stat", "--format", "%u %g", place("one")) == "999 70"
    assert attribute(place("one"), "ceph.quota.max_bytes") == "134217728"
    succeeded(directories(cephfs_directories=[server("one", quota="0")]))
    assert attribute(place("one"), "ceph.quota.max_bytes") in ("", "0")


def test_a_quota_below_what_is_in_use_is_refused_and_nothing_else_done(directories: Any):
    succeeded(directories(cephfs_directories=[server("full")]))
    on("sw1", "dd", "if=/dev/zero", "of={0}/data".format(place("full")), "bs=1M", "count=8", "conv=fsync")
    on("sw1", "sh", "-c", "cd {0} && timeout 60 sh -c '{1}'".format(place("full"), GROWN))
    run = directories(cephfs_directories=[server("new"), server("full", quota="4M")])
    assert run.code != 0
    assert "sw1: {0} holds 8388608 bytes, more than the quota of 4194304".format(place("full")) in run.sentences
    assert on("sw1", "ls", "-d", place("new"), check=False) == ""
    assert attribute(place("full"), "ceph.quota.max_bytes") == "67108864"


GROWN = "until [ $(getfattr --only-values -n ceph.dir.rbytes .) -ge 8388608 ]; do sleep 1; done"


def test_a_mount_that_may_not_set_quotas_says_so_and_leaves_no_directory(directories: Any):
    run = directories(host="sw2", cephfs_directories=[server("forbidden")])
    assert run.code != 0
    assert "sw2: The CephFS client of {0} may not set the quota".format(MOUNT) in run.sentences
    assert "its MDS capability lacks 'p'" in run.sentences
    assert on("sw1", "ls", "-d", place("forbidden"), check=False) == ""
    succeeded(directories(cephfs_directories=[server("forbidden")]))


def test_a_directory_is_archived_with_its_data_and_its_snapshots(directories: Any):
    succeeded(directories(cephfs_directories=[server("old")]))
    on("sw1", "sh", "-c", "echo 18 > {0}/PG_VERSION && mkdir {0}/.snap/before".format(place("old")))
    told = succeeded(directories("--check", cephfs_state="archived", cephfs_directories=[{"path": server("old")["path"]}]))
    assert told.changed == {"sw1": 1}
    assert on("sw1", "cat", place("old") + "/PG_VERSION") == "18"
    succeeded(directories(cephfs_state="archived", cephfs_directories=[{"path": server("old")["path"]}]))
    archive = on("sw1", "sh", "-c", "ls -d {0}/old-*".format(place(".archived")))
    try:
        assert re.fullmatch(re.escape(place(".archived")) + r"/old-\d{8}T\d{6}Z", archive)
        assert on("sw1", "cat", archive + "/PG_VERSION", archive + "/.snap/before/PG_VERSION") == "18\n18"
        assert on("sw1", "ls", "-d", place("old"), check=False) == ""
        again = succeeded(directories(cephfs_state="archived", cephfs_directories=[{"path": server("old")["path"]}]))
        assert again.changed == {"sw1": 0}
    finally:
        on("sw1", "rmdir", archive + "/.snap/before")


def test_an_archive_under_another_quota_says_why_not(directories: Any):
    succeeded(directories(cephfs_directories=[server("kept")]))
    on("sw1", "mkdir", "-p", place(".archived"))
    on("sw1", "setfattr", "-n", "ceph.quota.max_bytes", "-v", "100000000", place(".archived"))
    try:
        run = directories(cephfs_state="archived", cephfs_directories=[{"path": server("kept")["path"]}])
        assert run.code != 0
        assert "lie under different quotas" in run.sentences
        assert on("sw1", "ls", "-d", place("kept")) == place("kept")
    finally:
        on("sw1", "setfattr", "-n", "ceph.quota.max_bytes", "-v", "0", place(".archived"))


def test_what_is_mounted_on_the_way_or_leads_out_is_refused(directories: Any):
    succeeded(directories(cephfs_directories=[server("way")]))
    on("sw1", "ln", "-s", "/tmp", place("link"))
    on("sw1", "mount", "-t", "tmpfs", "tmpfs", place("way"))
    try:
        run = directories(cephfs_directories=[{"path": server("way")["path"] + "/below"}])
        assert run.code != 0
        assert "Something else is mounted at 'way'" in run.sentences
        assert on("sw1", "ls", "-A", place("way")) == ""
        run = directories(cephfs_directories=[{"path": server("link")["path"] + "/below"}])
        assert run.code != 0
        assert "symbolic link" in run.sentences
        assert on("sw1", "ls", "-d", "/tmp/below", check=False) == ""
    finally:
        on("sw1", "umount", place("way"))
        on("sw1", "rm", place("link"))


class SecondMount:
    """A mount of sw2 that nobody else uses, so that it may be broken."""

    path = SECOND_MOUNT

    def mount(self, *options: str) -> None:
        on("sw2", "mkdir", "-p", self.path)
        on("sw2", "ceph-fuse", "--id", "sw2", "--client_fs", "cephfs", *options, self.path)

    def processes(self) -> List[str]:
        return on("sw2", "pgrep", "-f", "ceph-fuse.*{0}$".format(self.path), check=False).split()

    def signal(self, name: str) -> None:
        on("sw2", "kill", "-" + name, *self.processes())

    def unmount(self) -> None:
        # Politely, so that the cluster need not wait for a session that ended without a word; else it is dead.
        on("sw2", "timeout", "10", "umount", self.path, check=False)
        if self.processes():
            self.signal("KILL")
        for _attempt in range(10):
            if self.path not in on("sw2", "cat", "/proc/mounts"):
                return
            # May fail: the polite one may have come to its end meanwhile.
            on("sw2", "umount", "--lazy", self.path, check=False)
        raise AssertionError("{0} stays mounted".format(self.path))

    def node(self, *arguments: str, **variables: Any) -> Run:
        """Only the part of prepare.yml that is about sw2."""
        given = {"postgres_pools_cephfs": {"mount_path": self.path, "cluster_fsid": FSID}, "swarm_node_fsync": False, **variables}
        # The locks are tried between two hosts, and only this one has the mount.
        given.setdefault("swarm_node_storage_host", "sw2")
        return prepare("--limit", "sw2", *arguments, **given)


@pytest.fixture
def second(cleared: None) -> Iterator[SecondMount]:
    mount = SecondMount()
    mount.unmount()
    on("sw2", "mkdir", "-p", mount.path)
    if LABEL in labels("sw2"):
        on("sw1", "docker", "node", "update", "--label-rm", LABEL, "sw2")
    yield mount
    mount.unmount()
    on("sw2", "chattr", "-i", mount.path, check=False)
    on("sw2", "rm", "-rf", "--one-file-system", mount.path)


def refused(second: SecondMount, told: str, **variables: Any) -> None:
    run = second.node(**variables)
    assert run.code != 0, run.output
    assert told in run.sentences
    assert LABEL not in labels("sw2")


def mended(second: SecondMount, **variables: Any) -> None:
    succeeded(second.node(**variables))
    assert labels("sw2")[LABEL] == "database"


def test_a_node_without_its_mount_is_refused_and_its_disk_untouched(second: SecondMount):
    refused(second, "sw2: Nothing is mounted at {0}".format(second.path), swarm_node_fsync=True, swarm_node_fsync_label="prepare-test.new")
    assert on("sw2", "ls", "-A", second.path) == ""
    second.mount()
    mended(second)


def test_directories_are_not_made_on_the_disk_below_a_missing_mount(second: SecondMount, directories: Any):
    run = directories(host="sw2", cephfs_mount_path=second.path)
    assert run.code != 0
    assert "sw2: Nothing is mounted at {0}".format(second.path) in run.sentences
    assert on("sw2", "ls", "-A", second.path) == ""


def test_another_cluster_is_refused(second: SecondMount):
    second.mount()
    other = "00000000-0000-4000-8000-000000000000"
    told = "sw2: {0} is the CephFS of cluster {1}, not of {2}".format(second.path, FSID, other)
    refused(second, told, postgres_pools_cephfs={"mount_path": second.path, "cluster_fsid": other})
    mended(second)


def test_page_caching_is_refused(second: SecondMount):
    second.mount("--fuse_disable_pagecache=false")
    refused(second, "sw2: The ceph-fuse of {0} caches pages".format(second.path))
    second.unmount()
    second.mount()
    mended(second)


SET_OPTION = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(sys.argv[2].encode() + b"\\0")
print(client.recv(999))
"""


def test_page_caching_that_the_running_client_has_on_is_refused_whatever_the_file_says(second: SecondMount):
    on("sw2", "mkdir", "-p", "/run/ceph")
    second.mount()
    socket = on("sw2", "sh", "-c", "ls /run/ceph/*.{0}.asok".format(second.processes()[0]))
    asked = {"prefix": "config set", "var": "fuse_disable_pagecache"}
    on("sw2", "python3", "-c", SET_OPTION, socket, json.dumps({**asked, "val": ["false"]}))
    refused(second, "told by the admin socket")
    on("sw2", "python3", "-c", SET_OPTION, socket, json.dumps({**asked, "val": ["true"]}))
    mended(second)


def test_page_caching_that_cannot_be_learnt_is_refused(second: SecondMount):
    silent = "sed -e '/pagecache/d' -e '/admin socket/d' /etc/ceph/ceph.conf > /etc/ceph/silent.conf; echo 'admin socket =' >> /etc/ceph/silent.conf"
    on("sw2", "sh", "-c", silent)
    try:
        second.mount("-c", "/etc/ceph/silent.conf", "-k", "/etc/ceph/ceph.client.sw2.keyring")
        refused(second, "could not be learnt: its ceph-fuse has no admin socket that answers, and /etc/ceph/silent.conf does not say")
    finally:
        on("sw2", "rm", "/etc/ceph/silent.conf")
    second.unmount()
    second.mount()
    mended(second)


def test_a_dead_mount_is_refused(second: SecondMount):
    second.mount()
    second.signal("KILL")
    refused(second, "sw2: The mount at {0} is dead".format(second.path))
    second.unmount()
    second.mount()
    mended(second)


def test_a_mount_that_hangs_is_given_up(second: SecondMount):
    second.mount()
    second.signal("STOP")
    refused(second, "sw2: {0} did not answer within 3 s".format(second.path), swarm_node_timeout=3)
    second.signal("CONT")
    mended(second)


def test_a_node_with_too_little_memory_is_refused(second: SecondMount):
    second.mount()
    refused(second, "less than the 9T that a node of database_nodes must have", swarm_node_min_memory="9T")
    mended(second)


def test_the_bare_mountpoint_is_made_immutable_under_a_mount_in_use(second: SecondMount):
    second.mount()
    cephfs = {"mount_path": second.path, "cluster_fsid": FSID, "immutable_mountpoint": True}
    assert succeeded(second.node("--check", postgres_pools_cephfs=cephfs)).changed["sw2"] == 2
    succeeded(second.node(postgres_pools_cephfs=cephfs))
    assert succeeded(second.node(postgres_pools_cephfs=cephfs)).changed == {"sw2": 0}
    assert attribute(second.path, "ceph.cluster_fsid", node="sw2") == FSID
    second.unmount()
    assert on("sw2", "sh", "-c", "touch {0}/a 2>&1".format(second.path), check=False).endswith("Operation not permitted")
    second.mount()
    assert attribute(second.path, "ceph.cluster_fsid", node="sw2") == FSID


def test_a_bare_mountpoint_that_holds_something_is_not_made_immutable(second: SecondMount):
    on("sw2", "touch", second.path + "/stray")
    second.mount("-o", "nonempty")
    cephfs = {"mount_path": second.path, "cluster_fsid": FSID, "immutable_mountpoint": True}
    refused(second, "The bare mountpoint below {0} holds stray".format(second.path), postgres_pools_cephfs=cephfs)


def test_servers_on_the_nodes_own_disks_need_no_cephfs(second: SecondMount):
    succeeded(second.node(postgres_pools_storage="local"))
    assert labels("sw2")[LABEL] == "database"


def ceph(*command: str) -> str:
    arguments = ["ceph", "--conf", BED_VARS["swarm_bed_ceph_conf"], "--connect-timeout", "10", *command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def subvolume(verb: str, *more: str, check: bool = True) -> Any:
    """What `ceph fs subvolume` says, as data."""
    arguments = ["fs", "subvolume", *verb.split(), "cephfs", *more, "--group_name", "prepare-test", "--format", "json"]
    try:
        return json.loads(ceph(*arguments) or "null")
    except subprocess.CalledProcessError:
        assert not check
        return None


def clear_subvolumes() -> None:
    for snapshot in subvolume("snapshot ls", "volume", check=False) or []:
        subvolume("snapshot rm", "volume", snapshot["name"])
    subvolume("rm", "volume", check=False)
    if "prepare-test" in ceph("fs", "subvolumegroup", "ls", "cephfs"):
        ceph("fs", "subvolumegroup", "rm", "cephfs", "prepare-test")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Any]:
    """The machine that runs the cluster, as a storage host: it has the command `ceph` and a mount that may do all."""
    clear_subvolumes()
    conf, mount = BED_VARS["swarm_bed_ceph_conf"], tmp_path / "mount"
    mount.mkdir()
    options = ["--conf", conf, "--id", "admin", "--client_fs", "cephfs", "--fuse_disable_pagecache=true"]
    subprocess.run(["ceph-fuse", *options, str(mount)], capture_output=True, timeout=60, check=True)
    play = [{"name": "Subvolumes", "hosts": "localhost", "gather_facts": False, "roles": ["saasodoo.postgres_pools.cephfs"]}]
    wanted = {
        "ansible_connection": "local",
        "postgres_pools_cephfs": {"mount_path": str(mount), "kind": "subvolume", "subvolume": {"group": "prepare-test", "ceph_conf": conf}},
    }

    def run(*arguments: str, **variables: Any) -> Run:
        return ansible(playbook(tmp_path, play), *arguments, **{**wanted, **variables})

    run.mount = str(mount)  # type: ignore[attr-defined]
    try:
        yield run
    finally:
        subprocess.run(["umount", str(mount)], timeout=60, check=True)
        clear_subvolumes()


def test_a_subvolume_is_made_resized_and_kept_as_a_snapshot(machine: Any):
    succeeded(machine(cephfs_kind="directory"))
    one = {"path": BASE + "/postgres_pools/volume", "owner": "70", "group": "70", "mode": "0700", "quota": "64M"}
    told = succeeded(machine("--check", "--diff", cephfs_directories=[one]))
    assert told.changed == {"localhost": 1}
    assert "67108864" in told.output
    assert subvolume("info", "volume", check=False) is None
    succeeded(machine(cephfs_directories=[one]))
    info = subvolume("info", "volume")
    assert info["bytes_quota"] == 64 << 20
    assert (info["uid"], info["gid"], info["mode"] & 0o7777) == (70, 70, 0o700)
    link = Path(machine.mount, one["path"])
    assert link.is_symlink() and link.resolve() == Path(machine.mount + info["path"])
    assert succeeded(machine(cephfs_directories=[one])).changed == {"localhost": 0}

    path = Path(machine.mount + info["path"])
    (path / "PG_VERSION").write_text("18")
    succeeded(machine(cephfs_directories=[{**one, "quota": "128M"}]))
    assert subvolume("info", "volume")["bytes_quota"] == 128 << 20
    succeeded(machine(cephfs_state="archived", cephfs_directories=[one]))
    assert subvolume("info", "volume")["state"] == "snapshot-retained"
    assert not link.is_symlink()
    assert succeeded(machine(cephfs_state="archived", cephfs_directories=[one])).changed == {"localhost": 0}
    # A server of the same name begins anew, and what was kept stays.
    succeeded(machine(cephfs_directories=[one]))
    assert list(link.resolve().iterdir()) == []
    assert link.resolve() == Path(machine.mount + subvolume("info", "volume")["path"])
    assert len(subvolume("snapshot ls", "volume")) == 1


def test_the_time_that_a_client_may_be_silent_is_set(machine: Any):
    def times() -> Tuple[int, int]:
        told = json.loads(ceph("fs", "get", "cephfs", "--format", "json"))["mdsmap"]
        return told["session_timeout"], told["session_autoclose"]

    before = times()
    try:
        told = succeeded(machine("--check", cephfs_kind="directory", cephfs_session_timeout=45))
        assert "session_timeout and session_autoclose of cephfs would be 45 s" in told.output and times() == before
        assert succeeded(machine(cephfs_kind="directory", cephfs_session_timeout=45)).changed["localhost"] > 0
        assert times() == (45, 45)
        assert succeeded(machine(cephfs_kind="directory", cephfs_session_timeout=45)).changed == {"localhost": 0}
        # Without a word it stays as it is.
        succeeded(machine(cephfs_kind="directory"))
        assert times() == (45, 45)
    finally:
        for name, seconds in zip(("session_timeout", "session_autoclose"), before):
            ceph("fs", "set", "cephfs", name, str(seconds))


def test_a_path_that_holds_data_is_not_made_a_link(machine: Any):
    succeeded(machine(cephfs_kind="directory", cephfs_directories=[{"path": BASE + "/postgres_pools/plain"}]))
    held = Path(machine.mount, BASE, "postgres_pools", "plain", "PG_VERSION")
    held.write_text("18")
    for state in ("present", "archived"):
        run = machine(cephfs_state=state, cephfs_directories=[{"path": BASE + "/postgres_pools/plain"}])
        assert run.code != 0 and "is no link to a subvolume" in run.sentences
    assert held.read_text() == "18"

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Ceph cluster of one machine: a monitor, a manager, a store on a sparse file, a metadata server. Made afresh each time.

It listens on the storage network's bridge, so a node that is cut off that network has lost its storage, as in production.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from pathlib import Path
from string import Template
from typing import Tuple

from processes import alive, run, start_daemon, stop_daemon, wait_for, works
from settings import BED, CEPHFS_MOUNT, MANAGER, NETWORKS, NODES, RECIPES, SESSION_TIMEOUT, Node

HOME = BED / "ceph"
CONFIGURATION = HOME / "ceph.conf"
KEYS = HOME / "keys"
MADE = HOME / "made"
# In the order of their stopping.
DAEMONS: Tuple[Tuple[str, str], ...] = (("ceph-mds", "a"), ("ceph-mgr", "x"), ("ceph-osd", "0"), ("ceph-mon", "a"))
FENCE = "fence"
OSD_BYTES = 12 * 1024**3


def ceph(*arguments: str, limit: float = 30, check: bool = True) -> str:
    return run("ceph", "--conf", str(CONFIGURATION), "--connect-timeout", "5", *arguments, limit=limit, check=check)


def daemon(program: str, name: str) -> None:
    start_daemon(
        "{0}.{1}".format(program, name), [program, "--foreground", "--conf", str(CONFIGURATION), "--id", name], pid_file(program, name)
    )


def pid_file(program: str, name: str) -> Path:
    return HOME / "{0}.{1}.pid".format(program, name)


def fsid() -> str:
    return (HOME / "fsid").read_text().strip()


def start(managers: int) -> None:
    """What is missing of a whole cluster is started again, data and all; a half made one is made anew."""
    if MADE.exists():
        lost = [one for one in reversed(DAEMONS) if not alive(pid_file(*one), one[0])]
        for one in lost:
            daemon(*one)
        if lost:
            wait_for("the metadata server is active", 60, mds_active)
        return
    remove()
    make(managers)
    MADE.touch()


def mds_active() -> bool:
    return "up:active" in ceph("mds", "stat", check=False)


def make(managers: int) -> None:
    for folder in ("keys", "run", "log", "mon/ceph-a", "mgr/ceph-x", "osd/ceph-0", "mds/ceph-a"):
        (HOME / folder).mkdir(parents=True, exist_ok=True)
    (HOME / "fsid").write_text(str(uuid.uuid4()))
    address = NETWORKS["storage"].gateway
    CONFIGURATION.write_text(configuration("ceph.conf", home=str(HOME), fsid=fsid(), address=address, osd_bytes=str(OSD_BYTES)))
    seed = make_keys(managers)
    addresses = "[v2:{0}:3300,v1:{0}:6789]".format(address)
    run("monmaptool", "--create", "--clobber", "--fsid", fsid(), "--addv", "a", addresses, str(HOME / "monmap"))
    run("ceph-mon", "--conf", str(CONFIGURATION), "--mkfs", "--id", "a", "--monmap", str(HOME / "monmap"), "--keyring", str(seed))
    daemon("ceph-mon", "a")
    wait_for("the monitor answers", 30, lambda: works("ceph", "--conf", str(CONFIGURATION), "--connect-timeout", "2", "status"))
    daemon("ceph-mgr", "x")
    store = str(uuid.uuid4())
    ceph("osd", "new", store, "0")
    run("ceph-osd", "--conf", str(CONFIGURATION), "--id", "0", "--mkfs", "--osd-uuid", store)
    daemon("ceph-osd", "0")
    daemon("ceph-mds", "a")
    for pool in ("cephfs_metadata", "cephfs_data"):
        ceph("osd", "pool", "create", pool, "8", "8", "replicated")
    ceph("fs", "new", "cephfs", "cephfs_metadata", "cephfs_data")
    for setting in ("session_timeout", "session_autoclose"):
        ceph("fs", "set", "cephfs", setting, str(SESSION_TIMEOUT))
    wait_for("the metadata server is active", 60, mds_active)


def configuration(name: str, **values: str) -> str:
    return Template((RECIPES / name).read_text()).substitute(values)


def make_keys(managers: int) -> Path:
    """All keys come into being here, with their rights, and the monitor starts with them: no call for each afterwards."""
    seed = KEYS / "seed.keyring"
    run("ceph-authtool", "--create-keyring", str(seed), "--gen-key", "--name", "mon.", "--cap", "mon", "allow *")
    key("client.admin", mon="allow *", osd="allow *", mds="allow *", mgr="allow *")
    key("mgr.x", mon="allow profile mgr", osd="allow *", mds="allow *")
    key("osd.0", mon="allow profile osd", mgr="allow profile osd", osd="allow *")
    key("mds.a", mon="allow profile mds", mgr="allow profile mds", osd="allow *", mds="allow *")
    for node in NODES:
        # What `ceph fs authorize cephfs client.NODE / RIGHTS` gives.
        # With several managers, each of them can be the storage host.
        rights = "allow {0} fsname=cephfs".format(node.storage_rights if managers == 1 else MANAGER.storage_rights)
        key("client." + node.name, mon="allow r fsname=cephfs", osd="allow rw tag cephfs data=cephfs", mds=rights)
    # Whoever may evict clients, and do nothing else.
    key("client." + FENCE, mon="allow r", mds="allow *")
    shutil.copy(seed, KEYS / "mon.a.keyring")
    return seed


def key(name: str, **rights: str) -> None:
    keyring = str(KEYS / (name + ".keyring"))
    capabilities = [word for service, right in rights.items() for word in ("--cap", service, right)]
    run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "--name", name, *capabilities)
    run("ceph-authtool", str(KEYS / "seed.keyring"), "--import-keyring", keyring)


def write_client(node: Node) -> None:
    """/etc/ceph of a node: the configuration, the key that it mounts with, and that for evicting."""
    folder = node.folder / "ceph"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ceph.conf").write_text(configuration("ceph-client.conf", fsid=fsid(), address=NETWORKS["storage"].gateway))
    for name in (node.name, FENCE):
        shutil.copy(KEYS / "client.{0}.keyring".format(name), folder / "ceph.client.{0}.keyring".format(name))


def mount_command(node: Node) -> Tuple[str, ...]:
    return ("ceph-fuse", "--id", node.name, "--client_fs", "cephfs", CEPHFS_MOUNT)


def stop() -> None:
    """Killed, not asked: nothing of the cluster is kept, and its clients went with their nodes."""
    for program, name in DAEMONS:
        pid = alive(pid_file(program, name), program)
        if pid:
            os.kill(pid, signal.SIGKILL)
    for program, name in DAEMONS:
        stop_daemon(pid_file(program, name), program, polite=0)


def remove() -> None:
    stop()
    shutil.rmtree(HOME, ignore_errors=True)

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the ceph-fuse of a mount has page caching off.

With it on, ceph-fuse goes on serving pages that another node has changed since: a PostgreSQL that is taken over by a second
node reads them as its data.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import struct
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

OPTION = "fuse_disable_pagecache"
REMEDY = "Set `fuse disable pagecache = true` in section [client] of {0}, unmount, and mount again."
SECONDS = 5


class Client(NamedTuple):
    """What a ceph-fuse was started with."""

    arguments: List[str]
    environment: Dict[str, str]

    def option(self, *names: str) -> str:
        """The last value of a command line option."""
        value = ""
        words = shlex.split(self.environment.get("CEPH_ARGS", "")) + self.arguments[1:]
        for word, following in zip(words, words[1:] + [""]):
            key, equals, given = word.partition("=")
            if key.startswith("--"):
                key = "--" + key[2:].replace("-", "_")
            if key in names:
                value = given if equals else following
        return value

    def configuration(self) -> str:
        given = self.option("--conf", "-c") or self.environment.get("CEPH_CONF", "")
        return given or "/etc/ceph/{0}.conf".format(self.option("--cluster") or "ceph")

    def sections(self) -> List[str]:
        """Sections of the configuration that count for it, the strongest first."""
        identity = self.option("--id", "--user")
        name = self.option("--name", "-n") or "client." + (identity or "admin")
        return [name, "client", "global"]


def proof_that_it_is_off(mount_path: str) -> str:
    """How it was learnt that page caching is off.

    :raises PoolsError: it is on, or that could not be learnt.
    """
    found = [_told(mount_path, process) for process in _processes(mount_path)]
    if not found:
        raise PoolsError(
            "Whether {0} caches pages could not be learnt: no ceph-fuse of that mount is to be seen.".format(mount_path),
            "Run this as root on the host itself, with the mount made as `ceph-fuse … {0}`.".format(mount_path),
        )
    # One that is left behind by an earlier mount of the same path cannot be told from the one that serves: all have to be right.
    return ", ".join(found)


def configured(client: Client, text: str) -> Optional[bool]:
    """What the command line or else the configuration file says; None when neither does."""
    value: Optional[str] = client.option("--" + OPTION) or None
    settings = parse_configuration(text)
    for section in client.sections():
        if value is None:
            value = settings.get(section, {}).get(OPTION)
    return None if value is None else value.strip().lower() in ("true", "yes", "on", "1")


def parse_configuration(text: str) -> Dict[str, Dict[str, str]]:
    """A ceph.conf: names of settings may be written with spaces, hyphens or underscores."""
    sections: Dict[str, Dict[str, str]] = {}
    section = ""
    for line in text.splitlines():
        words = re.split(r"(?:^|\s)[#;]", line)[0].strip()
        if words.startswith("[") and words.endswith("]"):
            section = words[1:-1].strip()
        elif "=" in words:
            key, _equals, value = words.partition("=")
            name = re.sub(r"[\s_-]+", "_", key.strip())
            sections.setdefault(section, {})[name] = value.strip().strip("\"'")
    return sections


def _told(mount_path: str, process: str) -> str:
    arguments, environment = _words(process, "cmdline"), _words(process, "environ")
    client = Client(arguments, dict(word.partition("=")[::2] for word in environment if "=" in word))
    off, source = _from_socket(process)
    if off is None:
        off, source = _from_configuration(process, client)
    if off is None:
        raise PoolsError(
            "Whether {0} caches pages could not be learnt: {1}.".format(mount_path, source),
            REMEDY.format(client.configuration()),
        )
    if not off:
        raise PoolsError(
            "The ceph-fuse of {0} caches pages, which gives PostgreSQL stale data after a takeover (told by {1}). "
            "Nothing was written.".format(mount_path, source),
            REMEDY.format(client.configuration()),
        )
    return "off, told by {0}".format(source)


def _processes(mount_path: str) -> List[str]:
    """/proc/PID of each ceph-fuse started for a mount path."""
    found = []
    for name in os.listdir("/proc"):
        process = "/proc/" + name
        if not name.isdigit() or not _is_ceph_fuse(process):
            continue
        if any(os.path.normpath(word) == mount_path for word in _words(process, "cmdline")[1:] if word.startswith("/")):
            found.append(process)
    # On a machine whose containers have mounts of their own at the same path, theirs are not meant.
    return [one for one in found if _namespace(one) == _namespace("/proc/self")] or found


def _is_ceph_fuse(process: str) -> bool:
    words = _words(process, "cmdline")
    return bool(words) and os.path.basename(words[0]) == "ceph-fuse"


def _words(process: str, name: str) -> List[str]:
    try:
        with open(os.path.join(process, name), "rb") as stream:
            return [word.decode(errors="surrogateescape") for word in stream.read().split(b"\0")][:-1]
    except OSError:
        return []


def _namespace(process: str) -> str:
    try:
        return os.readlink(process + "/ns/mnt")
    except OSError:
        return ""


def _from_socket(process: str) -> Tuple[Optional[bool], str]:
    """The running client's own answer. Its socket is the one among its open files: no path has to be guessed."""
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(process + "/fd")]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        with open(process + "/net/unix", encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.split() for line in stream]
    except OSError:
        return None, ""
    for line in lines:
        if len(line) > 7 and line[6] in inodes and line[7].startswith("/"):
            try:
                answer = _ask(process + "/root" + line[7])
            except (OSError, ValueError, struct.error):
                continue
            if OPTION in answer:
                return answer[OPTION] == "true", "the admin socket {0}".format(line[7])
    return None, ""


def _ask(path: str) -> Dict[str, str]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect(path)
        connection.sendall(json.dumps({"prefix": "config get", "var": OPTION, "format": "json"}).encode() + b"\0")
        with connection.makefile("rb") as stream:
            length = struct.unpack(">I", stream.read(4))[0]
            return dict(json.loads(stream.read(length)))


def _from_configuration(process: str, client: Client, start: Optional[Callable[[str], float]] = None) -> Tuple[Optional[bool], str]:
    path = client.configuration()
    try:
        with open(process + "/root" + path, encoding="utf-8", errors="replace") as stream:
            changed, text = os.fstat(stream.fileno()).st_mtime, stream.read()
    except OSError as error:
        changed, text = 0, ""
        if configured(client, "") is None:
            return None, "its ceph-fuse has no admin socket that answers, and {0} cannot be read: {1}".format(path, error.strerror)
    if client.option("--" + OPTION):
        return configured(client, ""), "the command line of ceph-fuse"
    # What was written after the client had started is not what it runs with.
    if changed > (start or _started)(process) + 2:
        return None, "its ceph-fuse has no admin socket that answers, and {0} is newer than the mount".format(path)
    value = configured(client, text)
    if value is None:
        return None, "its ceph-fuse has no admin socket that answers, and {0} does not say".format(path)
    return value, path


def _started(process: str) -> float:
    with open(process + "/stat", encoding="utf-8", errors="replace") as stream:
        ticks = int(stream.read().rpartition(")")[2].split()[19])
    with open("/proc/stat", encoding="ascii") as stream:
        boot = next(int(line.split()[1]) for line in stream if line.startswith("btime"))
    return boot + ticks / os.sysconf("SC_CLK_TCK")

# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a node and looks whether the PostgreSQL servers in its own containers accept writes, by their sockets and past all networks.

One process for each container, since one that hangs must not hold up the others. Its connection is kept: a server whose first process
is gone may go on writing by those that are left. Ends with its input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Dict

LABEL = "postgres_pools.server"
PAUSE = 0.4


def say(**event: object) -> None:
    # One write for each line: the processes share the pipe.
    os.write(1, (json.dumps(event) + "\n").encode())


def watch(server: str, container: str, pid: str) -> None:
    import psycopg2

    # The socket in the container's own file system; /var/run is a link there, which would lead out of it.
    socket = "/proc/{0}/root/run/postgresql".format(pid)
    connection = None
    while os.path.exists("/proc/{0}".format(pid)):
        start = time.time()
        # One that no other witness of this container uses.
        number = int(start * 1000)
        told = {"server": server, "container": container, "n": number, "start": start}
        try:
            if connection is None:
                connection = psycopg2.connect(host=socket, dbname="postgres", user="postgres", connect_timeout=3)
                connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO faults_witnessed (container, n) VALUES (%s, %s)", (container, number))
            say(end=time.time(), **told)
        except psycopg2.Error as problem:
            say(end=time.time(), error=str(problem).strip()[:300], **told)
            connection = None
        time.sleep(PAUSE)


def end_with_input() -> None:
    sys.stdin.read()
    # What docker exec starts leads a group of its own.
    os.killpg(0, 9)


def main() -> None:
    import docker

    threading.Thread(target=end_with_input, daemon=True).start()
    client = docker.APIClient()
    watched: Dict[str, subprocess.Popen[bytes]] = {}
    with open("/proc/self/cmdline", "rb") as file:
        program = file.read().decode().split("\0")[2:4]
    while True:
        for found in client.containers(filters={"label": LABEL}):
            container = found["Id"][:12]
            if container not in watched:
                pid = str(client.inspect_container(container)["State"]["Pid"])
                if pid == "0" or not os.path.exists("/proc/" + pid):
                    continue
                # As the server's own user, which the socket lets in.
                owner = os.stat("/proc/" + pid)
                command = [sys.executable, *program, found["Labels"][LABEL], container, pid]
                watched[container] = subprocess.Popen(command, stdin=subprocess.DEVNULL, user=owner.st_uid, group=owner.st_gid, extra_groups=[])
        time.sleep(PAUSE)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        watch(*sys.argv[1:])
    else:
        main()

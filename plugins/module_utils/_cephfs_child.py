# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on a file system that may hang, in a child process that can be left behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from typing import Any, Callable, Dict, List

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

Step = Callable[[str], None]
Work = Callable[[Step], Dict[str, Any]]


def bounded(path: str, seconds: float, work: Work) -> Dict[str, Any]:
    """Do the work in a child process; its result. No single step may take longer than the time given.

    A call into a hung mount cannot be interrupted, sometimes not even by SIGKILL. So the child tells which step it begins,
    and one that stays silent is killed and not waited for: nothing but the call it hangs in can still happen.

    :raises PoolsError: what the work raised, or that it hung, and at which step.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(writing, work)
    os.close(writing)
    said = "begin"
    try:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            for line in _lines(stream, seconds):
                if line[0] == "step":
                    said = line[1]
                    continue
                os.waitpid(child, 0)
                return _answer(line)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        raise PoolsError(
            "{0} did not answer within {1:g} s (at: {2}).".format(path, seconds, said),
            "Its CephFS client hangs: look at `ceph health` and at the client, then unmount (umount -l) and mount it again.",
        ) from None
    status = os.waitpid(child, 0)[1]
    raise PoolsError("The work on {0} ended early with wait status {1} (at: {2}).".format(path, status, said), "Run it again.")


def _answer(line: List[Any]) -> Dict[str, Any]:
    if line[0] == "refused":
        raise PoolsError(line[1], line[2])
    if line[0] == "crashed":
        raise RuntimeError(line[1])
    return dict(line[1])


def _lines(stream: Any, seconds: float) -> Any:
    text = b""
    deadline = time.monotonic() + seconds
    while True:
        ready = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise TimeoutError
        more = stream.read(65536)
        if not more:
            return
        text += more
        while b"\n" in text:
            line, text = text.split(b"\n", 1)
            deadline = time.monotonic() + seconds
            yield json.loads(line)


def _child(writing: int, work: Work) -> None:
    """Never returns: the rest of the module must not run twice."""

    def say(*line: Any) -> None:
        # Fails when the parent is gone, so that nobody's work stops at its next step.
        text = json.dumps(line).encode() + b"\n"
        while text:
            text = text[os.write(writing, text) :]

    try:
        # A child that hangs must not hold open what Ansible waits for, nor stand in a directory of the mount.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.closerange(3, writing)
        os.closerange(writing + 1, 1024)
        os.chdir("/")
        os.umask(0o022)
        say("done", work(lambda text: say("step", text)))
    except PoolsError as error:
        say("refused", error.problem, error.remedy)
    except BaseException:
        with contextlib.suppress(OSError):
            say("crashed", traceback.format_exc())
    finally:
        os._exit(0)

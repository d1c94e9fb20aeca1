# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For tests: write down every task as it starts, and kill the run with SIGKILL at one of them.

KILLER_LOG    a file that gets a line for each task
KILLER_AT     the number of the task, from 0; the number of tasks stands for the end of the play
KILLER_DELAY  seconds into that task; without it the kill comes before the task does anything, which is after the one before it
KILLER_GROUP  "1" kills only the process group: Ansible's worker, in a session of its own, goes on to the end of its module
"""

from __future__ import annotations

DOCUMENTATION = """
name: killer
type: aggregate
short_description: Kill the run at one of its tasks
description: For tests.
"""

import os
import signal
import threading
import time

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "killer"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.count = 0
        self.at = int(os.environ.get("KILLER_AT", "-1"))
        self.delay = float(os.environ.get("KILLER_DELAY", "0"))

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._reached(task.get_name())

    def v2_playbook_on_stats(self, stats):
        self._reached("")

    def _reached(self, name):
        with open(os.environ["KILLER_LOG"], "a") as log:
            log.write(name + "\n")
        if self.count == self.at:
            if self.delay:
                threading.Thread(target=self._kill_later, daemon=True).start()
            else:
                self._kill()
        self.count += 1

    def _kill_later(self):
        time.sleep(self.delay)
        self._kill()

    def _kill(self):
        if os.environ.get("KILLER_GROUP") != "1":
            for child in self._descendants(os.getpid()):
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def _descendants(self, pid):
        found = []
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task)) as stream:
                for child in stream.read().split():
                    found.append(int(child))
        below = []
        for child in found:
            try:
                os.kill(child, signal.SIGSTOP)
                below.extend(self._descendants(child))
            except (OSError, ProcessLookupError):
                continue
        return found + below

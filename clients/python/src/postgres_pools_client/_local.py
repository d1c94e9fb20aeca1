# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks run here, by ansible-runner."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Union

from . import _failure
from ._errors import JobFailed, Refused, TimedOut
from ._pools import PostgresPools

_NOT_FOUND = 127
_LINES_OF_OUTPUT = 20
# The only playbook whose result has a secret, which it writes to a file and tells nobody.
_WITH_PASSWORD = "allocate"  # noqa: S105


class LocalPools(PostgresPools):
    """*project_dir* is where ansible-playbook runs, and so whose ansible.cfg counts; *inventory* what it is given by `-i`, beside that file's.

    *env* is added to the environment of the runs. The playbooks are called by their full names, so the collection must be installed where
    Ansible looks for collections.
    """

    def __init__(
        self,
        project_dir: Union[str, Path, None] = None,
        inventory: Union[str, Path, None] = None,
        *,
        env: Optional[Mapping[str, str]] = None,
        collection: str = "saasodoo.postgres_pools",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(sleep, clock)
        try:
            import ansible_runner.interface  # noqa: PLC0415  who has AWX needs no Ansible
        except ImportError:
            raise Refused(
                "LocalPools needs ansible-runner: pip install 'saasodoo-postgres-pools-client[local]'."
            ) from None
        self._runner = ansible_runner.interface
        self._project_dir = str(Path(project_dir or os.getcwd()).resolve())
        self._inventory = str(Path(inventory).resolve()) if inventory is not None else None
        self._collection = collection
        self._env = self._environment(env or {})

    def __repr__(self) -> str:
        return "LocalPools({0!r}, inventory={1!r})".format(self._project_dir, self._inventory)

    @staticmethod
    def _environment(env: Mapping[str, str]) -> Dict[str, str]:
        path = env.get("PATH", os.environ.get("PATH", os.defpath))
        made = dict(env)
        # That of the venv in which this runs, which nobody may have activated.
        made["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
        # ansible-runner turns it off where nobody has said anything.
        made.setdefault("ANSIBLE_HOST_KEY_CHECKING", os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True"))
        return made

    def _run(self, playbook: str, variables: Mapping[str, Any], deadline: float) -> Dict[str, Any]:
        told: Dict[str, Any] = {}
        failures: List[Dict[str, Any]] = []

        def take(event: Dict[str, Any]) -> bool:
            if event.get("event") == "playbook_on_stats":
                told.update((event.get("event_data") or {}).get("artifact_data") or {})
            elif event.get("event") in _failure.FAILURES:
                failures.append(event)
            return False

        # Of mode 0700: ansible-runner writes down the whole environment, and the playbook the password.
        with tempfile.TemporaryDirectory(prefix="postgres-pools-") as home:
            result_file = Path(home) / "result.json"
            if playbook == _WITH_PASSWORD:
                variables = dict(variables, result_file=str(result_file))
            seconds = max(1, int(deadline - self._clock()))
            run = self._runner.run(
                private_data_dir=home,
                project_dir=self._project_dir,
                playbook="{0}.{1}".format(self._collection, playbook),
                inventory=[self._inventory] if self._inventory else None,
                envvars=self._env,
                extravars=dict(variables),
                # No file of its own for these, and nothing on this process's standard output.
                suppress_env_files=True,
                quiet=True,
                settings={"pexpect_timeout": 1},
                timeout=seconds,
                event_handler=take,
                # Without one ansible-runner puts its own handlers in the place of this process's.
                cancel_callback=lambda: False,
            )
            if run.status != "successful":
                raise self._failed(run, playbook, seconds, failures)
            if result_file.exists():
                told.update(json.loads(result_file.read_text()))
        if not told:
            raise JobFailed("The playbook {0} told no result.".format(playbook), playbook)
        return told

    def _failed(self, run: Any, playbook: str, seconds: int, failures: List[Dict[str, Any]]) -> Exception:
        if run.status == "timeout":
            return TimedOut(
                "{0} was ended after {1} s. Run again, it goes on where it stopped.".format(playbook, seconds)
            )
        if run.rc == _NOT_FOUND:
            return Refused("ansible-playbook is not in PATH: {0}".format(self._env["PATH"]))
        with run.stdout as stdout:
            end = stdout.read().splitlines()[-_LINES_OF_OUTPUT:]
        return JobFailed(_failure.message(failures) or "\n".join(end), playbook)

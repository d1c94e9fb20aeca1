#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: schedule
short_description: Have a host run playbooks at their times, by systemd timers or by cron
version_added: 0.9.0
description:
  - Puts a timer and a service for each job on the host, or, where there is no systemd, a crontab for all. Both start the same small program.
  - The program runs a job's playbook at most once at a time, ends it with all that it started when its time is up, and says how it ended.
    Its output goes to the journal, with cron to the syslog, under C(postgres-pools-NAME).
  - Everything wrong with the options is told before anything is written.
  - The jobs given are all there are. What an earlier run made for others, or for the other kind, is removed.
    Only files that bear the module's own mark are ever changed or removed.
options:
  state:
    description: With V(absent) everything is removed that the module made on this host. A job that is running must end first.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description: What starts the jobs. V(auto) takes V(systemd) where it runs, else V(cron).
    type: str
    choices: [auto, systemd, cron]
    default: auto
  jobs:
    description: What is to run.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name. A lower case letter, then up to 39 of a-z, 0-9, underscore and hyphen.
        type: str
        required: true
      playbook:
        description: A file that ends in C(.yml) or C(.yaml), from O(directory) on, or the full name of a collection's playbook.
        type: str
        required: true
      calendar:
        description:
          - When to run, as C(OnCalendar) of C(man systemd.time) has it. Required for the kind V(systemd).
          - Cron's fields are made from it where O(jobs[].cron) is not given and cron can say the same.
        type: str
      cron:
        description: When to run, as cron has it. Minute, hour, day of the month, month and day of the week, or a name such as C(@hourly).
        type: str
      timeout:
        description: Seconds after which a run is ended.
        type: int
        default: 3600
      extra_vars:
        description: Variables for the playbook. They can be read by everybody on the host, so never put a secret here.
        type: dict
        default: {}
  directory:
    description: The directory in which C(ansible-playbook) runs, where its C(ansible.cfg) is. Required when O(state=present).
    type: path
  ansible_playbook:
    description: The program C(ansible-playbook), with its whole path. Required when O(state=present).
    type: path
  inventory:
    description: Inventories, from O(directory) on. Without one, C(ansible.cfg) says which.
    type: list
    elements: str
    default: []
  user:
    description: Who the jobs run as. Without a name, the owner of O(directory).
    type: str
    default: ""
  environment_file:
    description:
      - A file with lines C(NAME=VALUE) for the environment of the jobs, read at each run. It is not made here.
      - It is the place for the paths of files with secrets, such as C(ANSIBLE_VAULT_PASSWORD_FILE).
    type: path
    default: ""
  python:
    description: The Python that runs the small program. Without one, that of this module.
    type: path
    default: ""
  grace:
    description: Seconds that a run whose time is up has to end in good order, before it is killed.
    type: int
    default: 20
  randomized_delay:
    description: Seconds by which at most a timer of systemd is late, at random, so that machines do not all start at once.
    type: int
    default: 10
  start:
    description: Load and start the timers now. V(false) only writes the files, for the image of a host to come.
    type: bool
    default: true
  unit_directory:
    description: Where systemd looks for units.
    type: path
    default: /etc/systemd/system
  cron_directory:
    description: Where cron looks for crontabs.
    type: path
    default: /etc/cron.d
  config_directory:
    description: Where the jobs are described, a file for each.
    type: path
    default: /etc/postgres-pools-schedule
  program_directory:
    description: Where the small program is.
    type: path
    default: /usr/local/lib/postgres-pools-schedule
  state_directory:
    description: Where the locks are. It belongs to O(user).
    type: path
    default: /var/lib/postgres-pools-schedule
attributes:
  check_mode:
    description: Checks and says everything, and changes nothing.
    support: full
  diff_mode:
    description: Shows each file that is written or removed.
    support: full
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: List the pools every five minutes, in the image of a host that will have cron
  saasodoo.postgres_pools.schedule:
    kind: cron
    start: false
    jobs:
      - name: pools
        playbook: saasodoo.postgres_pools.pools
        calendar: "*:0/5"
        timeout: 120
    directory: /var/tmp/
    ansible_playbook: "{{ ansible_playbook_python | dirname }}/ansible-playbook"
    inventory: ["localhost,"]
    cron_directory: /var/tmp/
    config_directory: /var/tmp/schedule
    program_directory: /var/tmp/schedule-program
    state_directory: /var/tmp/schedule-state

- name: Take it away again
  saasodoo.postgres_pools.schedule:
    state: absent
    cron_directory: /var/tmp/
    config_directory: /var/tmp/schedule
    program_directory: /var/tmp/schedule-program
    state_directory: /var/tmp/schedule-state
"""

RETURN = r"""
kind:
  description: What starts the jobs.
  returned: when O(state=present)
  type: str
  sample: cron
jobs:
  description: The jobs there are.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The job's name.
      type: str
      sample: pools
    playbook:
      description: What it runs.
      type: str
      sample: saasodoo.postgres_pools.pools
    when:
      description: When it runs, as its kind says it.
      type: str
      sample: "*/5 * * * *"
    timeout:
      description: Seconds after which a run is ended.
      type: float
      sample: 120.0
written:
  description: Files made or changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/cron.d/postgres-pools]
removed:
  description: Files removed, and directories that were empty then.
  returned: success
  type: list
  elements: str
  sample: []
started:
  description: Timers started.
  returned: success
  type: list
  elements: str
  sample: []
stopped:
  description: Timers stopped.
  returned: success
  type: list
  elements: str
  sample: []
"""

import platform
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._schedule_host import schedule

JOB = dict(
    name=dict(type="str", required=True),
    playbook=dict(type="str", required=True),
    calendar=dict(type="str"),
    cron=dict(type="str"),
    timeout=dict(type="int", default=3600),
    extra_vars=dict(type="dict", default={}),
)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(type="str", choices=["present", "absent"], default="present"),
            kind=dict(type="str", choices=["auto", "systemd", "cron"], default="auto"),
            jobs=dict(type="list", elements="dict", default=[], options=JOB),
            directory=dict(type="path"),
            ansible_playbook=dict(type="path"),
            inventory=dict(type="list", elements="str", default=[]),
            user=dict(type="str", default=""),
            environment_file=dict(type="path", default=""),
            python=dict(type="path", default=""),
            grace=dict(type="int", default=20),
            randomized_delay=dict(type="int", default=10),
            start=dict(type="bool", default=True),
            unit_directory=dict(type="path", default="/etc/systemd/system"),
            cron_directory=dict(type="path", default="/etc/cron.d"),
            config_directory=dict(type="path", default="/etc/postgres-pools-schedule"),
            program_directory=dict(type="path", default="/usr/local/lib/postgres-pools-schedule"),
            state_directory=dict(type="path", default="/var/lib/postgres-pools-schedule"),
        ),
        required_if=[("state", "present", ("directory", "ansible_playbook"))],
        supports_check_mode=True,
    )
    try:
        result = schedule(module.params, sys.executable, module.check_mode)
    except PoolsError as error:
        module.fail_json(msg="{0}: {1}".format(platform.node(), error))
    module.exit_json(**{key: value for key, value in result.items() if value is not None})


if __name__ == "__main__":
    main()

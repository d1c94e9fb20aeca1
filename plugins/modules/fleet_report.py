#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Write a picture of the fleet as an HTML page and as metrics for Prometheus
version_added: 0.9.0
description:
  - The page needs nothing but itself. The metrics are for a textfile collector, or for any web server that Prometheus scrapes.
  - Each file is replaced whole, and has mode 0644. Both are written at every run, since they tell when they were made. A run counts as a change
    where anything else in them is new.
options:
  fleet:
    description: What M(saasodoo.postgres_pools.fleet_info) returned.
    type: dict
    required: true
  directory:
    description: Directory of C(index.html). It is made where it is missing.
    type: path
    required: true
  metrics_directory:
    description: Directory of C(postgres_pools.prom), for instance that of a textfile collector. Without it, the page's.
    type: path
attributes:
  check_mode:
    description: Says what would be new, and writes nothing.
    support: full
  diff_mode:
    description: Shows no difference; the files are large.
    support: none
seealso:
  - module: saasodoo.postgres_pools.fleet_info
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Show what fleet_info found
  saasodoo.postgres_pools.fleet_report:
    fleet: "{{ found.fleet }}"
    directory: /var/tmp/postgres_pools_report
"""

RETURN = r"""
status:
  description: V(ok), V(warning) or V(alarm), by the worst of RV(attention).
  returned: success
  type: str
  sample: warning
attention:
  description: What needs a hand, the worst first.
  returned: success
  type: list
  elements: dict
  sample:
    - severity: warning
      kind: degraded
      title: Degraded servers
      lines: [{name: postgres-pool-2, text: connection refused}]
      remedy: Three failed probes in a row take a server out of placement.
page:
  description: The page.
  returned: success
  type: str
  sample: /var/tmp/postgres_pools_report/index.html
metrics:
  description: The metrics.
  returned: success
  type: str
  sample: /var/tmp/postgres_pools_report/postgres_pools.prom
written:
  description: Those of the two in which anything but the time is new.
  returned: success
  type: list
  elements: str
  sample: [/var/tmp/postgres_pools_report/index.html]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _report_attention, _report_files
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            fleet=dict(type="dict", required=True),
            directory=dict(type="path", required=True),
            metrics_directory=dict(type="path"),
        ),
        supports_check_mode=True,
        # The picture of a thousand servers is a megabyte: neither the system's log nor what is returned is the place for it.
        no_log=True,
    )
    fleet, directory = module.params["fleet"], module.params["directory"]
    try:
        changed, paths = _report_files.made(fleet, directory, module.params["metrics_directory"] or directory, module.check_mode)
        found = _report_attention.attention(fleet)
    except PoolsError as error:
        module.fail_json(msg=str(error))
    except (KeyError, TypeError) as error:
        module.fail_json(msg="fleet is not what fleet_info of this release returns: {0} is missing or wrong.".format(error))
    given = {name: value for name, value in module.params.items() if name != "fleet"}
    module.exit_json(invocation={"module_args": given}, changed=changed, status=_report_attention.worst(found), attention=found, **paths)


if __name__ == "__main__":
    main()

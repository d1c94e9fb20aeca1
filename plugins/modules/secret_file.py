#!/usr/bin/python
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_file
short_description: Write a file that only its owner may read, at every moment
version_added: 0.9.0
description:
  - The content is written into a new file of mode 0600 beside its place, which is then moved there. No other user can read it in between,
    and a reader finds the old content or the new, never half of it.
  - M(ansible.builtin.copy) puts content into a temporary file with the mode of the umask first.
options:
  path:
    description: The file. Its directory must be there. A link is replaced by the file, not followed.
    type: path
    required: true
  content:
    description: What it is to hold, as text.
    type: str
    required: true
attributes:
  check_mode:
    description: Says whether the file would change.
    support: full
  diff_mode:
    description: Says that the content differs; never shows it.
    support: full
seealso:
  - module: ansible.builtin.copy
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
"""

EXAMPLES = r"""
- name: Keep a tenant's password where only its owner reads it
  saasodoo.postgres_pools.secret_file:
    path: /var/tmp/tenant.json
    content: "{{ {'password': 'an example'} | to_json }}"
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /var/tmp/tenant.json
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule


def holds(path, content):
    """Whether the file holds just this, and is its owner's alone."""
    try:
        with open(path, "rb") as stream:
            return stream.read() == content and not os.path.islink(path) and os.fstat(stream.fileno()).st_mode & 0o777 == 0o600
    except OSError:
        return False


def write(path, content):
    descriptor, unfinished = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def main():
    module = AnsibleModule(
        argument_spec=dict(path=dict(type="path", required=True), content=dict(type="str", required=True, no_log=True)),
        supports_check_mode=True,
    )
    path, content = module.params["path"], module.params["content"].encode()
    changed = not holds(path, content)
    try:
        if changed and not module.check_mode:
            write(path, content)
        elif changed and not os.access(os.path.dirname(path) or ".", os.W_OK):
            raise PermissionError("its directory is not there, or may not be written to")
    except OSError as error:
        module.fail_json(msg="{0} cannot be written: {1}.".format(path, error.strerror or error))
    side = dict(before="", after="") if not changed else dict(before="(other content)\n", after="(the content wanted)\n")
    module.exit_json(changed=changed, path=path, diff=dict(side, before_header=path, after_header=path))


if __name__ == "__main__":
    main()

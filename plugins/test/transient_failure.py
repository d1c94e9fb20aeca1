# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: transient_failure
short_description: Whether a failure of making a server may pass by itself
version_added: 0.9.0
author:
  - The saasodoo.postgres_pools authors (@saasodoo)
description:
  - True for a Docker API that does not answer for a moment, for a host that cannot be reached and for a mount that is not there yet.
  - False for everything else, such as wrong settings, a missing permission or an image that is not to be had.
options:
  _input:
    description: The message of the failure.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Tell the two apart
  ansible.builtin.debug:
    msg: "{{ 'rpc error: code = Unavailable' is saasodoo.postgres_pools.transient_failure }}"
"""

RETURN = r"""
_value:
  description: Whether to try again.
  type: bool
"""

from typing import Any, Callable, Dict

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _failures


def transient_failure(message: Any) -> bool:
    return _failures.is_transient(str(message))


class TestModule:
    def tests(self) -> Dict[str, Callable[..., bool]]:
        return {"transient_failure": transient_failure}

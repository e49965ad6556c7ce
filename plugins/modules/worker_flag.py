#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads, sets and unsets the kill switches of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_flag
short_description: Reads, sets and unsets the kill switches of a fleet
version_added: 0.1.0
description:
  - Flags are fields of the hash C(<fleet>:flags) in Redis, each V(true) or V(false). Workers read them as they work, so
    that a change needs no deploy.
  - Every change leaves an entry in the stream C(<fleet>:audit), in the same step, with who, why, when by Redis's clock,
    and what was there before. Nothing is noted when nothing changes.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.redis
options:
  name:
    description:
      - Name of the flag, 1 to 64 lower-case letters, digits, dashes and underscores, a letter first.
      - Not needed for O(state=read), which returns all flags.
    type: str
  state:
    description:
      - V(present) sets the flag to O(value).
      - V(absent) unsets it. The worker's own default holds then.
      - V(read) changes nothing. It fails when the flag that O(name) names has a value other than V(true) and V(false).
    type: str
    choices: [present, absent, read]
    default: present
  value:
    description:
      - Whether it is on. Required for O(state=present).
    type: bool
  reason:
    description:
      - Why, for whoever reads the audit entry. One line. Required for O(state=present) and O(state=absent).
    type: str
  by:
    description:
      - Who. The user and host that the module runs on by default.
    type: str
    default: ''
  run:
    description:
      - Id of the run that this belongs to.
    type: str
    default: ''
requirements:
  - redis (Python library)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Stop classifying until the model is mended
  driftguard.workers.worker_flag:
    fleet: demo
    name: classification
    value: false
    reason: the model puts invoices among the contracts
    by: alice
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"

- name: Go back to what the workers do by default
  driftguard.workers.worker_flag:
    fleet: demo
    name: classification
    state: absent
    reason: mended
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"

- name: Read all switches
  driftguard.workers.worker_flag:
    fleet: demo
    state: read
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: switches
"""

RETURN = r"""
flags:
  description: All flags after the run, name to whether it is on.
  returned: success
  type: dict
  sample: {classification: false}
malformed:
  description: Fields of the hash that are no flags, or have a value other than C(true) and C(false), with their values.
  returned: success
  type: dict
before:
  description: The flag's value before; null when it wasn't set, the text that was there when it was no such value.
  returned: success
  type: raw
  sample: true
after:
  description: The flag's value after; null when it isn't set.
  returned: success
  type: raw
  sample: false
at:
  description: When it was changed, by Redis's clock; null when nothing changed, and in check mode.
  returned: success
  type: str
  sample: '2026-01-02T03:04:05Z'
"""

from ansible_collections.driftguard.workers.plugins.module_utils.flag_state import run_flag
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FLEET_SPEC, REDIS_SPEC, run_module

ARGUMENTS = {
    **FLEET_SPEC,
    **REDIS_SPEC,
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent", "read"], "default": "present"},
    "value": {"type": "bool"},
    "reason": {"type": "str"},
    "by": {"type": "str", "default": ""},
    "run": {"type": "str", "default": ""},
}


def main() -> None:
    """Entry point of the module."""
    needed = [("state", "present", ("name", "value", "reason")), ("state", "absent", ("name", "reason"))]
    run_module(ARGUMENTS, run_flag, required_if=needed)


if __name__ == "__main__":
    main()

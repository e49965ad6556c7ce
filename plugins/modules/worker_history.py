#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the last runs of a fleet, or adds one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_history
short_description: Shows the last runs of a fleet, or adds one to its audit
version_added: 0.1.0
description:
  - Each run of the playbooks leaves a record of evidence on the controller, and in short in the Redis stream
    C(<fleet>:audit), which every controller can read. The stream keeps about the last 10,000 entries, those of flags
    and fences among them.
  - Times are Redis's own.
  - Whoever may write to Redis may write into the stream. What is read from it is shown, and nothing relies on it.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.redis
attributes:
  diff_mode:
    support: none
    details:
      - An entry is new each time.
  idempotent:
    support: partial
    details:
      - Reading changes nothing. Every run has its own entry.
options:
  state:
    description:
      - V(read) shows the last runs, V(appended) adds O(entry).
    type: str
    choices: [read, appended]
    default: read
  last:
    description:
      - How many runs to show at most, 1 to 1000.
    type: int
    default: 20
  entry:
    description:
      - What M(driftguard.workers.worker_evidence) returned as RV(driftguard.workers.worker_evidence#module:entry).
    type: dict
requirements:
  - redis (Python library)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Read the last runs
  driftguard.workers.worker_history:
    fleet: demo
    last: 50
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: history

- name: Show them
  ansible.builtin.debug:
    msg: "{{ history.table | join('\n') }}"
"""

RETURN = r"""
runs:
  description: The last runs, newest first. What is not in its form is empty.
  returned: when O(state=read)
  type: list
  elements: dict
  contains:
    run:
      description: Id of the run.
      type: str
    by:
      description: Who ran it.
      type: str
    action:
      description: V(deploy), V(rollback), V(verify), V(fence) or V(prune).
      type: str
    release_id:
      description: The release that it went to.
      type: str
    sha:
      description: The release's commit, or the one that a verify run was asked to prove.
      type: str
    result:
      description: What it came to, as M(driftguard.workers.worker_evidence) says it.
      type: str
    message:
      description: The same as a sentence.
      type: str
    started:
      description: When it started.
      type: str
    ended:
      description: When it ended.
      type: str
    seconds:
      description: How long it took.
      type: int
    hosts:
      description: How many hosts it was about.
      type: int
    bad:
      description: Hosts that ended otherwise than good or rolled back.
      type: list
      elements: str
    left_out:
      description: Hosts of the fleet that it was limited to leave out.
      type: list
      elements: str
table:
  description: The same as lines for people.
  returned: when O(state=read)
  type: list
  elements: str
at:
  description: When the run was added, by Redis's clock; null in check mode.
  returned: when O(state=appended)
  type: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import (
    FLEET_SPEC,
    REDIS_SPEC,
    Work,
    run_work,
)
from ansible_collections.driftguard.workers.plugins.module_utils.run_history import run_history

ARGUMENTS = {
    **FLEET_SPEC,
    **REDIS_SPEC,
    "state": {"type": "str", "choices": ["read", "appended"], "default": "read"},
    "last": {"type": "int", "default": 20},
    "entry": {"type": "dict"},
}
WORK = Work(ARGUMENTS, run_history, {"required_if": [("state", "appended", ("entry",))]})


def main() -> None:
    """Entry point of the module."""
    run_work(WORK)


if __name__ == "__main__":
    main()

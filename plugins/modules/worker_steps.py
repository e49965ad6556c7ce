#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several of a host's modules in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_steps
short_description: Runs several of this collection's modules on a host in one call
version_added: 0.1.0
description:
  - Does the work of one module after the other, each with its own options, up to the first that fails. The failure is
    that step's own, with its words.
  - Bringing a module to a host and starting it costs more than most of these modules do there. A rollout over many
    hosts, or over a slow connection, has one such call where it would have five.
  - All options are checked before the first step runs, but for those that take what an earlier step returned.
  - With a rollout among the steps, all of them run beside the connection, as M(driftguard.workers.worker_rollout) alone
    does, unless its option C(attended) is false. They stop at a safe point when the controller is gone.
extends_documentation_fragment:
  - driftguard.workers.attributes
options:
  steps:
    description:
      - The steps, in order.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the step, by which its result is returned.
        type: str
        required: true
      module:
        description:
          - Whose work it is.
        type: str
        required: true
        choices:
          - worker_compose
          - worker_guard
          - worker_image_pull
          - worker_release
          - worker_rollout
          - worker_version_assert
          - worker_version_info
      options:
        description:
          - The module's options. One that is null counts as not given.
        type: dict
        required: true
      take:
        description:
          - Options whose values an earlier step returns, each as C(step.value), or C(step.value.key) for a part of one.
            One that it doesn't return isn't given.
        type: dict
        default: {}
      looks:
        description:
          - Runs this step in check mode also when the playbook doesn't, and leaves out its diff.
        type: bool
        default: false
      unless_changed:
        description:
          - Leaves this step out once an earlier one has changed something, or would change it.
        type: bool
        default: false
      only_if:
        description:
          - What an earlier step returned, as C(step.value). Unless that is true this step is left out.
        type: str
        default: ''
      unless:
        description:
          - What an earlier step returned, as C(step.value). If that is true this step is left out.
        type: str
        default: ''
      may_fail:
        description:
          - A failure of this step is what it returns, with C(failed), and the steps after it go on.
        type: bool
        default: false
  heartbeat:
    description:
      - As of M(driftguard.workers.worker_rollout), for all steps. The controller sets it where a rollout is among them.
    type: float
    default: 20.0
  attendance:
    description:
      - As of M(driftguard.workers.worker_rollout), for all steps. The controller sets it. Without O(steps), they are in
        this directory, for this call alone, since secrets may be among them.
    type: path
author:
  - driftguard.workers contributors (@driftguard)
requirements:
  - docker (Python library)
  - redis (Python library)
seealso:
  - module: driftguard.workers.worker_compose
  - module: driftguard.workers.worker_rollout
  - module: driftguard.workers.worker_version_assert
"""

EXAMPLES = r"""
- name: Bring a host that has nothing to recreate to the new record, and prove it
  driftguard.workers.worker_steps:
    steps:
      - name: rolling
        module: worker_release
        options: {fleet: demo, scope: host, state: rolling, target: "{{ target }}", generation: 42}
      - name: rollout
        module: worker_rollout
        options: {fleet: demo, host: "{{ inventory_hostname }}", revision: "7", generation: 42}
      - name: proof
        module: worker_version_assert
        options: {fleet: demo, host: "{{ inventory_hostname }}", redis_url: "redis://10.0.0.1:6379/0"}
        take: {revision: rollout.revision}
      - name: settled
        module: worker_release
        options: {fleet: demo, scope: host, state: settled, target: "{{ target }}", generation: 42}
  become: true
"""

RETURN = r"""
by_step:
  description: What each step returned, by its name; a failed one is the last, and those after it are missing.
  returned: when a step has begun
  type: dict
  sample: {rolling: {changed: true}, rollout: {changed: false, revision: 7}}
failed_step:
  description: Name of the step that failed.
  returned: when one did
  type: str
  sample: proof
"""

from ansible_collections.driftguard.workers.plugins.module_utils.attendance import DEFAULT_HEARTBEAT
from ansible_collections.driftguard.workers.plugins.module_utils.host_steps import run_steps, steps_spec
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import Work, run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_compose import COMPOSE
from ansible_collections.driftguard.workers.plugins.module_utils.work_guard import GUARD
from ansible_collections.driftguard.workers.plugins.module_utils.work_image_pull import IMAGE_PULL
from ansible_collections.driftguard.workers.plugins.module_utils.work_release import RELEASE
from ansible_collections.driftguard.workers.plugins.module_utils.work_rollout import ROLLOUT
from ansible_collections.driftguard.workers.plugins.module_utils.work_version_assert import VERSION_ASSERT
from ansible_collections.driftguard.workers.plugins.module_utils.work_version_info import VERSION_INFO

WORKS = {
    "worker_compose": COMPOSE,
    "worker_guard": GUARD,
    "worker_image_pull": IMAGE_PULL,
    "worker_release": RELEASE,
    "worker_rollout": ROLLOUT,
    "worker_version_assert": VERSION_ASSERT,
    "worker_version_info": VERSION_INFO,
}
STEPS = Work(
    {
        **steps_spec(WORKS),
        "heartbeat": {"type": "float", "default": DEFAULT_HEARTBEAT},
        "attendance": {"type": "path"},
    },
    lambda module: run_steps(module, WORKS),
    {"required_one_of": [("steps", "attendance")]},
)


def main() -> None:
    """Entry point of the module."""
    run_work(STEPS)


if __name__ == "__main__":
    main()

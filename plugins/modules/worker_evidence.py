#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what a run comes to and keeps its evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_evidence
short_description: Decides what a run comes to and writes its evidence
version_added: 0.1.0
description:
  - With O(state=decided), says from the outcomes of all hosts whether the release is published or rolled back. Nothing
    is written.
  - With O(state=written), says the run's result and writes one JSON record of it, whole or not at all, also for a run
    that failed.
  - The record follows C(files/evidence.schema.json). It holds no secrets.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
attributes:
  diff_mode:
    support: none
    details:
      - A record is new each time.
  idempotent:
    support: none
    details:
      - Every run has its own record. Writing it does not count as a change, since it describes the run.
options:
  state:
    description:
      - What to do.
    type: str
    choices: [decided, written]
    default: decided
  outcomes:
    description:
      - Outcome of each host of the run by name, C(status), C(stage), C(moved) and C(message).
    type: dict
    required: true
  hosts:
    description:
      - Names of all hosts of the fleet.
    type: list
    elements: str
    required: true
  decision:
    description:
      - What was decided. Only for O(state=written).
    type: str
    choices: [publish, rollback, stop, keep, verify, fence, prune]
    default: keep
  on_failure:
    description:
      - What goes back when a host failed. With V(fleet) every host that moved, with V(host) those that failed, with
        V(stop) none. Only for O(state=decided).
    type: str
    choices: [fleet, host, stop]
    default: fleet
  unreachable:
    description:
      - Whether hosts that can't be reached count as failed. With V(continue) they don't as long as another host is
        good, and the release is published, which fences what they run. Only for O(state=decided).
    type: str
    choices: [fail, continue]
    default: fail
  published:
    description:
      - Whether the release was published. Only for O(state=written).
    type: bool
    default: false
  settled_on:
    description:
      - SHA or id of the release that the fleet's record alone allows in the end, empty when it allows several. Only for
        O(state=written).
    type: str
    default: ""
  parted:
    description:
      - Whether hosts that went back run another release than those that had nothing to change. Only for
        O(state=written).
    type: bool
    default: false
  run:
    description:
      - Facts of the run, C(id), C(action), C(by), C(started), C(generation) and C(requested). Only for
        O(state=written).
    type: dict
    default: {}
  release:
    description:
      - The release. Only for O(state=written).
    type: dict
    default: {}
  details:
    description:
      - What the modules returned, by host. Only for O(state=written).
    type: dict
    default: {}
  directory:
    description:
      - Where the record is written. Only for O(state=written).
    type: path
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Decide
  driftguard.workers.worker_evidence:
    fleet: demo
    outcomes:
      host1: {status: good, stage: roll, moved: true}
      host2: {status: bad, stage: roll, moved: true, message: "service extractor crashed"}
    hosts: [host1, host2]
  delegate_to: localhost
  run_once: true
  register: decision
"""

RETURN = r"""
decision:
  description: V(publish), V(rollback), V(stop) or V(keep).
  returned: when O(state=decided)
  type: str
moved:
  description: Hosts whose containers were touched.
  returned: when O(state=decided)
  type: list
  elements: str
bad:
  description: Hosts whose outcome is not good.
  returned: when O(state=decided)
  type: list
  elements: str
away:
  description: Those of them that could not be reached.
  returned: when O(state=decided)
  type: list
  elements: str
back:
  description: Hosts that have to go back to what they ran before.
  returned: when O(state=decided)
  type: list
  elements: str
left_out:
  description: Hosts of the fleet that the run was limited to leave out.
  returned: when O(state=decided)
  type: list
  elements: str
result:
  description: V(ok), V(predicted), V(failed), V(not proved), V(rolled back), V(mixed), V(unsettled), V(fenced),
    V(not confirmed) or V(pruned).
  returned: when O(state=written)
  type: str
run_failed:
  description: Whether the run has to end with an error.
  returned: when O(state=written)
  type: bool
summary:
  description: The result as lines for people.
  returned: when O(state=written)
  type: list
  elements: str
entry:
  description: The record in short, as M(driftguard.workers.worker_history) takes it.
  returned: when O(state=written)
  type: dict
path:
  description: The record, empty when check mode writes none.
  returned: when O(state=written)
  type: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.evidence import decide_or_write
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FLEET_SPEC, Work, run_work

ARGUMENTS = {
    **FLEET_SPEC,
    "state": {"type": "str", "choices": ["decided", "written"], "default": "decided"},
    "outcomes": {"type": "dict", "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "decision": {
        "type": "str",
        "choices": ["publish", "rollback", "stop", "keep", "verify", "fence", "prune"],
        "default": "keep",
    },
    "on_failure": {"type": "str", "choices": ["fleet", "host", "stop"], "default": "fleet"},
    "unreachable": {"type": "str", "choices": ["fail", "continue"], "default": "fail"},
    "settled_on": {"type": "str", "default": ""},
    "parted": {"type": "bool", "default": False},
    "published": {"type": "bool", "default": False},
    "run": {"type": "dict", "default": {}},
    "release": {"type": "dict", "default": {}},
    "details": {"type": "dict", "default": {}},
    "directory": {"type": "path"},
}
WORK = Work(
    ARGUMENTS,
    lambda module: decide_or_write(module.params, module.check_mode),
    {"required_if": [("state", "written", ("directory",))]},
)


def main() -> None:
    """Entry point of the module."""
    run_work(WORK)


if __name__ == "__main__":
    main()

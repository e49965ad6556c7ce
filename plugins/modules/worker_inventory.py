#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a fleet's inventory as a whole and puts its hosts into batches."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_inventory
short_description: Checks a fleet's inventory and puts its hosts into batches
version_added: 0.1.0
description:
  - Checks the fleet spec and its placement over all hosts before anything is touched. Every problem is named at once.
  - An empty group is an error, since Ansible itself would succeed without doing anything.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
attributes:
  diff_mode:
    support: none
    details:
      - It changes nothing, so there is nothing to compare.
options:
  group:
    description:
      - Name of the inventory group, for messages.
    type: str
    default: workers
  hosts:
    description:
      - The fleet's hosts by name, each with the list of services placed on it, or null or false for all.
    type: dict
    required: true
  services:
    description:
      - The fleet's services, as for M(driftguard.workers.worker_compose).
    type: dict
    required: true
  defaults:
    description:
      - Defaults of the services.
    type: dict
    default: {}
  batches:
    description:
      - Sizes of the batches, numbers of hosts or percentages. The last one repeats.
    type: list
    elements: str
    default: ["1", "25%", "100%"]
  selected:
    description:
      - Services named for this run. They must exist.
    type: list
    elements: str
    default: []
  left_out:
    description:
      - Hosts that this run does not roll, since it was limited to others or they can not be reached. They are in no
        batch.
    type: list
    elements: str
    default: []
  single_engine:
    description:
      - Images are not pushed to a registry, so there can be only one host.
    type: bool
    default: false
  canary:
    description:
      - How the first batch is judged, the options of the same names of M(driftguard.workers.worker_rollout).
    type: dict
    default: {}
    suboptions:
      bake:
        description:
          - Seconds to watch it once it is healthy and stable.
        type: float
        default: 0.0
      max_restarts:
        description:
          - Restarts of a host's instances together that are fine while it bakes.
        type: int
        default: 0
      max_failed_jobs:
        description:
          - Highest rate of failed jobs on a host while it bakes, from 0 to 1. Not judged when it is not given.
        type: float
      min_jobs:
        description:
          - Jobs that have to end on a host before their rate is judged.
        type: int
        default: 20
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Check the inventory and put the hosts into batches
  driftguard.workers.worker_inventory:
    fleet: demo
    hosts: "{{ dict(groups['workers'] | zip(groups['workers'] | map('extract', hostvars, 'worker_placement'))) }}"
    services: "{{ worker_fleet_services }}"
    defaults: "{{ worker_service_defaults }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
batches:
  description: Hosts in the order in which they are rolled.
  returned: success
  type: list
  elements: list
canary:
  description: How the first batch is judged, with its defaults.
  returned: success
  type: dict
placement:
  description: Host to the names of its services.
  returned: success
  type: dict
singletons:
  description: Service to its host, of those that there is one of in the whole fleet.
  returned: success
  type: dict
instances:
  description: Number of instances in the whole fleet.
  returned: success
  type: int
"""

from typing import Any

from ansible_collections.driftguard.workers.plugins.module_utils.bake_limits import LIMITS_SPEC, Limits
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_inventory import batched, plan_fleet
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FLEET_SPEC, Result, Work, run_work

ARGUMENTS = {
    **FLEET_SPEC,
    "group": {"type": "str", "default": "workers"},
    "hosts": {"type": "dict", "required": True},
    "services": {"type": "dict", "required": True},
    "defaults": {"type": "dict", "default": {}},
    "batches": {"type": "list", "elements": "str", "default": ["1", "25%", "100%"]},
    "selected": {"type": "list", "elements": "str", "default": []},
    "left_out": {"type": "list", "elements": "str", "default": []},
    "single_engine": {"type": "bool", "default": False},
    "canary": {"type": "dict", "default": {}, "options": LIMITS_SPEC},
}


def check(module: Any) -> Result:
    """The plan of the fleet as return values."""
    options = dict(module.params)
    left_out, canary = options.pop("left_out"), options.pop("canary")
    Limits.of(canary)
    plan = plan_fleet(**options)
    # The inventory is checked as a whole; what is left out must neither be the canary nor count for a percentage.
    rolled = batched([host for host in options["hosts"] if host not in left_out], options["batches"])
    return Result(
        False,
        {
            "batches": [list(batch) for batch in rolled],
            "canary": canary,
            "instances": plan.instances,
            "placement": {host: list(names) for host, names in plan.placement.items()},
            "singletons": dict(plan.singletons),
        },
    )


WORK = Work(ARGUMENTS, check)


def main() -> None:
    """Entry point of the module."""
    run_work(WORK)


if __name__ == "__main__":
    main()

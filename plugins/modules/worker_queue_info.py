#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what the BullMQ queues of a fleet hold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_queue_info
short_description: Counts what the BullMQ queues of a fleet hold
version_added: 0.1.0
description:
  - Depths, the oldest waiting job, stalled, failed and dead-lettered jobs, rate limit, pause and connected workers of
    each queue, in a few pipelined passes of commands that only read.
  - Dead letters of a queue are the jobs in the queue of the same name with C(-dead) behind it.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.queues
  - driftguard.workers.redis
attributes:
  diff_mode:
    support: none
    details:
      - It changes nothing, so there is nothing to compare.
options:
  queues:
    description:
      - Names of queues, or patterns with C(*), C(?) and C([…]). A name is shown even if there is no such queue.
      - All queues by default. They are found by their C(meta) keys with C(SCAN), which looks at every key of the
        database once; at most 5 million keys and 1000 queues. Names alone need no such search.
    type: list
    elements: str
  dead:
    description:
      - Also show the queues of dead letters as queues of their own, where their queue is there too.
    type: bool
    default: false
notes:
  - The Redis user needs the keys C(~<prefix>:*) and the commands C(scan time llen zcard lrange hmget hget get pttl
    exists), for the number of workers also C(client|list). A command that is refused is named, with its key.
requirements:
  - redis (Python library)
seealso:
  - module: driftguard.workers.worker_queue_clean
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Look at all queues
  driftguard.workers.worker_queue_info:
    fleet: demo
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: looked

- name: Show them
  ansible.builtin.debug:
    var: looked.table

- name: Nothing may wait for longer than ten minutes, and nothing be dead
  ansible.builtin.assert:
    that: (item.oldest_seconds or 0) < 600 and item.dead == 0
  loop: "{{ looked.queues }}"
"""

RETURN = r"""
queues:
  description: The queues by name. A number is null where the key that holds it is none of BullMQ's.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The queue's name.
      type: str
    exists:
      description: Whether Redis holds anything of it.
      type: bool
    waiting:
      description: Jobs that a worker could take now, or could if the queue weren't paused.
      type: int
    paused:
      description: Jobs that older BullMQ put aside when the queue was paused. Newer leaves them waiting.
      type: int
    active:
      description: Jobs that a worker has taken.
      type: int
    delayed:
      description: Jobs whose time hasn't come.
      type: int
    prioritized:
      description: Waiting jobs that have a priority.
      type: int
    waiting_children:
      description: Jobs that wait for their children.
      type: int
    completed:
      description: Completed jobs that are kept.
      type: int
    failed:
      description: Failed jobs that are kept.
      type: int
    dead:
      description: Dead letters, jobs that wait, are delayed or have a priority in the queue C(<name>-dead).
      type: int
    stalled:
      description: Active jobs without a lock, whose worker is gone or stuck, among the first 1000 active ones.
      type: int
    oldest_seconds:
      description:
        - Seconds since the oldest waiting job was added, by Redis's clock; null when none waits.
        - The ten entries at either end of the list are looked at, which is exact for first in, first out and for last
          in, first out.
      type: int
    is_paused:
      description: Whether the queue is paused.
      type: bool
    rate_limit_ttl:
      description: Seconds until a queue that has reached its rate limit goes on, else 0.
      type: float
    workers:
      description: Connected workers by the names of their connections; null when this user may not list clients.
      type: int
    problems:
      description: Keys that are none of BullMQ's, with what Redis says of each.
      type: list
      elements: str
table:
  description: The same as lines for people.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import (
    FLEET_SPEC,
    QUEUES_SPEC,
    REDIS_SPEC,
    run_module,
)
from ansible_collections.driftguard.workers.plugins.module_utils.queue_info import run_queue_info

ARGUMENTS = {
    **FLEET_SPEC,
    **QUEUES_SPEC,
    **REDIS_SPEC,
    "queues": {"type": "list", "elements": "str"},
    "dead": {"type": "bool", "default": False},
}


def main() -> None:
    """Entry point of the module."""
    run_module(ARGUMENTS, run_queue_info)


if __name__ == "__main__":
    main()

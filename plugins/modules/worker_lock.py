#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes, renews and releases the deployment lease of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_lock
short_description: Takes, renews and releases the deployment lease of a fleet
version_added: 0.1.0
description:
  - One deploy of a fleet at a time. The lease is in Redis, runs out by Redis's clock, and names its holder.
  - Whoever takes it gets a number, higher than that of every deploy before. Hosts and Redis refuse a deploy with a
    lower number than they have seen, so one that was suspended past the end of its lease changes nothing any more.
  - Before it is taken, a Redis is refused that would lose jobs or records - one that evicts keys, a cluster, a replica,
    and one with an append-only file whose user C(default) may not write everything.
  - A holder that was killed on the machine that this module runs on is replaced at once. Any other runs out.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.redis
attributes:
  idempotent:
    support: none
    details:
      - A lease that is held is renewed, which moves its end. Taking it a second time without its token fails.
options:
  state:
    description:
      - V(held) takes the lease, or renews it when O(token) is its holder's.
      - V(renewed) keeps it for longer, and fails when it is another's by now. One that ran out is regained when nobody
        had it in between.
      - V(released) gives it back, if it is still O(token)'s.
      - V(read) shows who has it.
    type: str
    choices: [held, renewed, released, read]
    default: held
  token:
    description:
      - Token of the lease, as O(state=held) returned it. Required for O(state=renewed) and O(state=released).
      - With O(state=held) a new lease gets it, if it is given. Choose one at random, and a task that is repeated, since
        its connection broke, finds the lease to be its own.
    type: str
  lease:
    description:
      - Seconds until it runs out unless it is renewed.
    type: float
    default: 900.0
  wait:
    description:
      - Seconds to wait for another holder, with O(state=held). 0 fails at once.
      - In a playbook it is the controller that waits, and tries again every two seconds. So nothing waits on for a
        playbook that was ended meanwhile, and takes the lease in its name.
    type: float
    default: 0.0
  floor:
    description:
      - The highest deployment number that the hosts have seen. Redis may have lost its own.
    type: int
    default: 0
  generation:
    description:
      - Number of this deploy, with O(state=renewed). Only needed to regain the lease where Redis has lost its data.
    type: int
  owner:
    description:
      - Name of the holder for whoever has to wait. The user and host that the module runs on by default.
    type: str
    default: ''
  run:
    description:
      - Id of the run, for whoever has to wait.
    type: str
    default: ''
  pid:
    description:
      - Process that stands for the deploy, on the machine that this module runs on. The next deploy from that machine
        takes over as soon as it has ended.
      - By default the C(ansible-playbook) that runs this module, which is only found on the controller itself.
      - V(0) for none. Then the lease outlives the playbook that took it.
    type: int
requirements:
  - redis (Python library)
seealso:
  - module: driftguard.workers.worker_release
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Be the only deploy, or fail with the name of the other
  driftguard.workers.worker_lock:
    fleet: demo
    floor: "{{ worker_highest_generation }}"
    run: "{{ worker_run_id }}"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  delegate_to: localhost
  register: lease

- name: Keep it
  driftguard.workers.worker_lock:
    fleet: demo
    state: renewed
    token: "{{ lease.token }}"
    generation: "{{ lease.generation }}"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  delegate_to: localhost

- name: Give it back
  driftguard.workers.worker_lock:
    fleet: demo
    state: released
    token: "{{ lease.token }}"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  delegate_to: localhost
"""

RETURN = r"""
held:
  description: Whether the lease is ours; with O(state=read) whether anybody has it. False in check mode.
  returned: success
  type: bool
token:
  description: What proves that the lease is ours, for the other states of this module. Empty in check mode.
  returned: success and O(state) is not V(read)
  type: str
  sample: 3f0e9a64d1b84f6f9d4a8f0a1c2b3d4e
generation:
  description: Number of this deploy, in check mode the one it would get; with O(state=read) the holder's, 0 for none.
  returned: success
  type: int
  sample: 7
lease:
  description: The lease and its holder, null when there is none.
  returned: success
  type: dict
  contains:
    number:
      description: Number of the deploy that has it.
      type: int
    owner:
      description: Its name.
      type: str
    host:
      description: Machine that it was taken on.
      type: str
    pid:
      description: Process that stands for it there, 0 when there is none.
      type: int
    run:
      description: Id of the run.
      type: str
    started_at:
      description: When it was taken, in UTC by Redis's clock.
      type: str
    expires_at:
      description: When it runs out, in UTC by Redis's clock.
      type: str
took_over_from:
  description: Whose lease it was that ran out, or whose holder was killed, in the form of RV(lease); null for nobody's.
  returned: success and O(state) is not V(read)
  type: dict
how:
  description: One of V(taken), V(renewed) and V(regained).
  returned: changed and O(state) is V(held) or V(renewed), not in check mode
  type: str
busy:
  description: Whether another has the lease, so that it may be free later.
  returned: failure, when it has
  type: bool
lost:
  description: Whether it is certain that the lease is ours no more. Without it Redis couldn't be asked.
  returned: failure, when it is
  type: bool
expires_in:
  description: Seconds until it runs out, null when it never does.
  returned: O(state=read)
  type: float
last:
  description: Who had it last, in the form of RV(lease).
  returned: O(state=read)
  type: dict
generation_next:
  description:
    - The number that the next deploy would get. Given back by whoever holds the last number, it is one above that.
  returned: O(state=read) and O(state=released)
  type: int
"""

from ansible_collections.driftguard.workers.plugins.module_utils.lock_state import run_lock
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import (
    FLEET_SPEC,
    REDIS_SPEC,
    Work,
    run_work,
)

ARGUMENTS = {
    **FLEET_SPEC,
    **REDIS_SPEC,
    "state": {"type": "str", "choices": ["held", "renewed", "released", "read"], "default": "held"},
    "token": {"type": "str", "no_log": False},
    "lease": {"type": "float", "default": 900.0},
    "wait": {"type": "float", "default": 0.0},
    "floor": {"type": "int", "default": 0},
    "generation": {"type": "int"},
    "owner": {"type": "str", "default": ""},
    "run": {"type": "str", "default": ""},
    "pid": {"type": "int"},
}
WORK = Work(ARGUMENTS, run_lock, {"required_if": [("state", "renewed", ("token",)), ("state", "released", ("token",))]})


def main() -> None:
    """Entry point of the module."""
    run_work(WORK)


if __name__ == "__main__":
    main()

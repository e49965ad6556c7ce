#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads, rolls and settles the release record of a fleet or of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_release
short_description: Reads, rolls and settles the release record of a fleet or of a host
version_added: 0.1.0
description:
  - The record says which releases may run. A worker of any other does not start, and stops working where it runs.
  - The fleet's is in Redis, a host's in C(guard.json) and C(guard.env) below C(<root>/<fleet>/guard/).
  - While a deploy is under way the record is V(rolling) and allows the old release and the new one. Afterwards it is
    V(settled) and allows the new one alone.
  - A record that says already what is asked for is left as it is, with its generation.
  - A deploy that a later one has overtaken is refused, by the numbers that M(driftguard.workers.worker_lock) hands out.
  - Settling the fleet's record appends to the fleet's history and tells the workers at once.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
  - driftguard.workers.redis
options:
  state:
    description:
      - V(read) returns the record and changes nothing.
      - V(rolling) also allows O(target). What was settled last stays allowed, and what O(running) names of a deploy
        that was cut off.
      - V(settled) allows O(target) alone. Every other release is fenced.
      - V(fenced) takes O(fenced) out of a host's record, with O(scope=host). Where nothing else is allowed O(target)
        is, so that a record stays. A host without a record is left as it is. M(driftguard.workers.worker_fence) does it
        for the fleet.
    type: str
    choices: [read, rolling, settled, fenced]
    default: read
  scope:
    description:
      - V(fleet) for the record in Redis, which needs O(redis_url).
      - V(host) for the record of the host that the module runs on.
    type: str
    choices: [fleet, host]
    default: fleet
  target:
    description:
      - The release to go to. Required unless O(state=read).
      - A release that was fenced may be deployed again. With O(state=rolling) that is warned of.
      - The fleet's record refuses one that was fenced since this deploy was given its number.
    type: dict
    suboptions:
      release_id:
        description:
          - Its id, as M(driftguard.workers.worker_image) returns it.
        type: str
        required: true
      sha:
        description:
          - Full SHA of its commit.
        type: str
        required: true
  generation:
    description:
      - Number of this deploy, as M(driftguard.workers.worker_lock) returns it. Required unless O(state=read).
    type: int
  run:
    description:
      - Id of this run. It tells a waiting one who it waits for. On a host it also tells two deploys with the same
        number apart, which can be when Redis has lost its data.
    type: str
    default: ''
  running:
    description:
      - Releases that containers or registrations still run. With O(state=rolling) a release of a deploy that was cut
        off stays allowed only while it is among these, so that its workers go on until they are recreated.
      - Where there is no record they are all allowed next to O(target).
      - When it is not given, what the last deploy was going to stays, and no older attempt.
    type: list
    elements: dict
    suboptions:
      release_id:
        description:
          - Id of the release.
        type: str
        required: true
      sha:
        description:
          - Full SHA of its commit.
        type: str
        required: true
  allowed:
    description:
      - All releases that may run, O(target) among them, with O(state=rolling). What the record allows now does not
        count, nor does O(running).
      - A run that failed writes back with it what it found, as RV(before) has it.
    type: list
    elements: dict
    suboptions:
      release_id:
        description:
          - Id of the release.
        type: str
        required: true
      sha:
        description:
          - Full SHA of its commit.
        type: str
        required: true
  fenced:
    description:
      - Releases to take out, with O(state=fenced).
    type: list
    elements: dict
    default: []
    suboptions:
      release_id:
        description:
          - Id of the release.
        type: str
        required: true
      sha:
        description:
          - Full SHA of its commit.
        type: str
        required: true
  revisions:
    description:
      - Host to the revision that it got, for the fleet's history.
      - Other revisions of a release that is settled already get an entry of their own.
    type: dict
    default: {}
  by:
    description:
      - Who deploys, for the fleet's history. The user and host that the module runs on by default.
    type: str
    default: ''
  token:
    description:
      - Token of the deployment lease. With it the fleet's record is not published while another deploy holds the lease,
        whatever its number.
    type: str
    default: ''
  lock_wait:
    description:
      - Seconds to wait for another run that works on this host, with O(scope=host).
    type: float
    default: 60.0
  redis_url:
    required: false
    description:
      - URL of the fleet's Redis, as the workers use it. Required with O(scope=fleet).
      - User, database and TLS of the URL are honoured. A password has its place in O(redis_password), not here.
requirements:
  - redis (Python library), with O(scope=fleet)
seealso:
  - module: driftguard.workers.worker_lock
  - module: driftguard.workers.worker_rollout
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: See what the fleet is on, and where a rollback would go
  driftguard.workers.worker_release:
    fleet: demo
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: fleet_record

- name: Let the new release start on this host, next to the old one
  driftguard.workers.worker_release:
    fleet: demo
    scope: host
    state: rolling
    target:
      release_id: "{{ image.release_id }}"
      sha: "{{ image.sha }}"
    generation: "{{ lease.generation }}"
    run: "{{ worker_run_id }}"

- name: Let nothing but the new release run in the fleet from now on
  driftguard.workers.worker_release:
    fleet: demo
    state: settled
    target:
      release_id: "{{ image.release_id }}"
      sha: "{{ image.sha }}"
    generation: "{{ lease.generation }}"
    token: "{{ lease.token }}"
    by: "{{ worker_deployer }}"
    revisions:
      host1: 7
      host2: 7
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
"""

RETURN = r"""
before:
  description: The record as it was, in the form of RV(record), null when there was none.
  returned: success
  type: dict
record:
  description: The record as it is now, in check mode as it would be, null when there is none.
  returned: success
  type: dict
  contains:
    fleet:
      description: Name of the fleet.
      type: str
    generation:
      description: Number of the deploy that wrote it.
      type: int
    phase:
      description: V(rolling) or V(settled).
      type: str
    target:
      description: The release that the deploy goes to, C(release_id) and C(sha).
      type: dict
    allowed:
      description: The releases that may run, the one that was settled last first.
      type: list
      elements: dict
  sample:
    fleet: demo
    generation: 7
    phase: settled
    target:
      release_id: 0123456789ab.89abcdef0123
      sha: 0123456789abcdef0123456789abcdef01234567
    allowed:
      - release_id: 0123456789ab.89abcdef0123
        sha: 0123456789abcdef0123456789abcdef01234567
generation_next:
  description: The lowest number that a next deploy may have here.
  returned: success
  type: int
  sample: 8
history:
  description: Releases that were settled or fenced, newest first.
  returned: success and O(scope=fleet)
  type: list
  elements: dict
  contains:
    generation:
      description: Number of the deploy.
      type: int
    release_id:
      description: Id of the release.
      type: str
    sha:
      description: Full SHA of its commit.
      type: str
    revisions:
      description: Host to the revision that it got.
      type: dict
    at:
      description: When, in UTC by Redis's clock.
      type: str
    by:
      description: Who deployed, or fenced.
      type: str
    fenced:
      description:
        - Empty for a release that was settled.
        - For one that was fenced, what it was then. V(target), V(allowed) next to the target, or V(past).
      type: str
    reason:
      description: Why it was fenced.
      type: str
history_unreadable:
  description: Number of entries in the history that are not entries of this collection.
  returned: success and O(scope=fleet)
  type: int
  sample: 0
previous:
  description:
    - The entry of the history that a rollback goes to, null when there is none.
    - Going back to B over C takes C out, so a second rollback goes to what was before B.
    - Never one that is fenced.
  returned: success and O(scope=fleet)
  type: dict
fenced:
  description: Releases that were fenced and not settled since, C(release_id) and C(sha).
  returned: success and O(scope=fleet)
  type: list
  elements: dict
problem:
  description: Why the host's record could not be taken as it was, empty when it could. Rolling and settling mend it.
  returned: success and O(scope=host)
  type: str
  sample: ''
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_release import RELEASE


def main() -> None:
    """Entry point of the module."""
    run_work(RELEASE)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops a release everywhere, and says who has not confirmed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_fence
short_description: Stops a release everywhere, and says who has not confirmed
version_added: 0.1.0
description:
  - Publishes the fleet's release record without the release. Its workers start no further job, on every host, and park.
  - Needs no deployment lease. A deploy that is under way is overtaken, and fails at its next step.
  - When the target itself is fenced, the record goes to the last other release that it allows, else to the newest one
    of the history that is not fenced, else to nothing. Then the whole fleet parks.
  - The history keeps that the release was fenced. A rollback does not go to it by itself. A deploy of that commit lifts
    the fence, since a person asks for it.
  - Leaves an entry in the stream C(<fleet>:audit), in the same step.
  - A fence that is there already changes nothing, and still reports.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.redis
options:
  release:
    description:
      - The release to stop, by its id, or by at least seven characters of the SHA of a commit. All releases of that
        commit are meant then.
      - By default the target of the fleet's record. What was fenced last, when nothing was published since.
    type: str
    default: ''
  timeout:
    description:
      - Seconds to wait until every live instance of the release is fenced or gone. They may still finish what they
        have, for their drain time.
      - The module does not fail when some have not confirmed. Look at RV(unconfirmed).
    type: float
    default: 60.0
  cut_off:
    description:
      - Delete the Redis users of the release when some instances have not confirmed by then. Their connections are cut
        at once. A release that the record allows again by then keeps its user.
      - Needs users per release, see M(driftguard.workers.worker_redis_user).
    type: bool
    default: false
  floor:
    description:
      - A deployment number that hosts have seen. The publication's is higher, also when Redis has lost its data.
    type: int
    default: 0
  by:
    description:
      - Who. The user and host that the module runs on by default.
    type: str
    default: ''
  reason:
    description:
      - Why, for whoever reads the audit entry or deploys that commit again. One line.
    type: str
    default: ''
  run:
    description:
      - Id of the run that this belongs to.
    type: str
    default: ''
requirements:
  - redis (Python library)
seealso:
  - module: driftguard.workers.worker_release
  - module: driftguard.workers.worker_redis_user
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Stop the release of a commit everywhere, now
  driftguard.workers.worker_fence:
    fleet: demo
    release: 0123abc
    reason: it loses every second page
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: fence

- name: Say who has not confirmed
  ansible.builtin.debug:
    msg: "{{ fence.table | join('\n') }}"
"""

RETURN = r"""
before:
  description: The fleet's record before, in the form of RV(record), null when there was none.
  returned: success
  type: dict
record:
  description: The fleet's record now, in check mode as it would be, as M(driftguard.workers.worker_release) returns it.
  returned: success
  type: dict
generation:
  description: Number of the publication, above every deploy that is under way.
  returned: success
  type: int
  sample: 8
releases:
  description: The releases that were meant, C(release_id) and C(sha).
  returned: success
  type: list
  elements: dict
fenced:
  description: All releases of the fleet that were fenced and not deployed since, in the form of RV(releases).
  returned: success
  type: list
  elements: dict
confirmed:
  description: Instances of the release that can start no job any more.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: Its service.
      type: str
    instance:
      description: Its own name, the start of its container's id.
      type: str
    host:
      description: Its host.
      type: str
    state:
      description: What it registered, empty when it is gone.
      type: str
    heartbeat_at:
      description: Its last heartbeat, by Redis's clock.
      type: str
    verdict:
      description: V(FENCED), V(GONE) or V(CUT OFF); V(DRAINING), V(RUNNING), V(STARTING) or V(UNKNOWN) when it has not
        confirmed.
      type: str
    found:
      description: What that means.
      type: str
    remedy:
      description: What to do, when it has not confirmed.
      type: str
unconfirmed:
  description: Instances of the release that have not confirmed, in the form of RV(confirmed).
  returned: success
  type: list
  elements: dict
silent:
  description: Those that have not confirmed, in one line, empty when all have.
  returned: success
  type: str
  sample: 'not confirmed: extractor:0123456789ab on host1 [RUNNING]'
gone:
  description: Members of the index without a live registration, of whatever release.
  returned: success
  type: list
  elements: str
users_removed:
  description: Redis users that were deleted, with O(cut_off).
  returned: success
  type: list
  elements: str
table:
  description: All of it as lines for people.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.fence_run import run_fence
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FLEET_SPEC, REDIS_SPEC, run_module

ARGUMENTS = {
    **FLEET_SPEC,
    **REDIS_SPEC,
    "release": {"type": "str", "default": ""},
    "timeout": {"type": "float", "default": 60.0},
    "cut_off": {"type": "bool", "default": False},
    "floor": {"type": "int", "default": 0},
    "by": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
    "run": {"type": "str", "default": ""},
}


def main() -> None:
    """Entry point of the module."""
    run_module(ARGUMENTS, run_fence)


if __name__ == "__main__":
    main()

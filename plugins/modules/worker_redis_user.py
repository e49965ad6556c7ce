#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives each release a Redis user of its own, and takes it away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_redis_user
short_description: Gives each release a Redis user of its own, and takes it away
version_added: 0.1.0
description:
  - A worker that logs in as C(<fleet>.<release id>) can be stopped without its help. When the user is deleted its
    connections are cut at once and can't be made again.
  - A user may do with the keys and channels of its fleet what a worker does. It may not manage the server, nor read
    other fleets' keys.
  - Every change is saved to the server's ACL file. A server without one is refused, since its users would vanish
    with a restart.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.redis
options:
  state:
    description:
      - V(present) makes the users of O(releases), or makes them what they should be.
      - V(absent) deletes the users of O(releases), now.
      - V(pruned) deletes the users of all releases of the fleet that its record does not allow, once no live instance
        of them is registered, or after the longest C(drain_time) of O(services). What the record allows again by then
        keeps its user.
    type: str
    choices: [present, absent, pruned]
    default: present
  releases:
    description:
      - Ids of releases. Not for O(state=pruned).
    type: list
    elements: str
  services:
    description:
      - The fleet's services by name. Where one has another C(BULLMQ_PREFIX) in its environment the users get its keys
        too.
    type: dict
    default: {}
  defaults:
    description:
      - Defaults for every service.
    type: dict
    default: {}
  generation:
    description:
      - Number of the deployment that prunes, as M(driftguard.workers.worker_lock) returns it. One that a later one has
        overtaken deletes nothing and fails. Without a number any run may prune.
      - Only for O(state=pruned).
    type: int
  user_password:
    description:
      - Password of the users, the one that the workers get. Required for O(state=present).
    type: str
requirements:
  - redis (Python library)
  - Redis 6 or later, with an C(aclfile)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Let a release log in
  driftguard.workers.worker_redis_user:
    fleet: demo
    releases: ["{{ worker_release.release_id }}"]
    user_password: "{{ vault_redis_password }}"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"

- name: Cut off whatever the fleet's record does not allow
  driftguard.workers.worker_redis_user:
    fleet: demo
    state: pruned
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
"""

RETURN = r"""
made:
  description: Users that were missing or different.
  returned: success
  type: list
  elements: str
  sample: [demo.0123456789ab.89abcdef0123]
removed:
  description: Users that were deleted.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import (
    FLEET_SPEC,
    REDIS_SPEC,
    Work,
    run_work,
)
from ansible_collections.driftguard.workers.plugins.module_utils.redis_user_run import run_redis_user

ARGUMENTS = {
    **FLEET_SPEC,
    **REDIS_SPEC,
    "state": {"type": "str", "choices": ["present", "absent", "pruned"], "default": "present"},
    "releases": {"type": "list", "elements": "str"},
    "services": {"type": "dict", "default": {}},
    "defaults": {"type": "dict", "default": {}},
    "generation": {"type": "int"},
    "user_password": {"type": "str", "no_log": True},
}
NEEDED = [("state", "present", ("releases", "user_password")), ("state", "absent", ("releases",))]
WORK = Work(ARGUMENTS, run_redis_user, {"required_if": NEEDED})


def main() -> None:
    """Entry point of the module."""
    run_work(WORK)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads which versions the workers of a fleet have registered."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_version_info
short_description: Reads which versions the workers of a fleet have registered
version_added: 0.1.0
description:
  - Reads all live registrations of a fleet from Redis in one pass, with the fleet's release record and history.
  - A registration is what a worker says of itself. M(driftguard.workers.worker_version_assert) compares it with the
    containers.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.redis
options:
  hosts:
    description:
      - Names of all hosts of the fleet, to be told of registrations from others.
    type: list
    elements: str
  wait:
    description:
      - Seconds to give those registrations to expire. They live 15 seconds longer than their worker.
    type: float
    default: 0.0
  strangers:
    description:
      - With V(refused), such registrations are an error.
    type: str
    choices: [told, refused]
    default: told
  singletons:
    description:
      - Service to the host that alone may run it. A registration of it from another one of O(hosts), unless it is
        fenced, is an error.
    type: dict
    default: {}
attributes:
  diff_mode:
    support: none
    details:
      - It changes nothing, so there is nothing to compare.
requirements:
  - redis (Python library)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Read what the workers say of themselves
  driftguard.workers.worker_version_info:
    fleet: demo
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: versions

- name: Show how many workers run which commit
  ansible.builtin.debug:
    var: versions.versions
"""

RETURN = r"""
registrations:
  description: The live registrations, by service and instance.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: Name of the service.
      type: str
    instance:
      description: The worker's own name, the first twelve digits of its container's id.
      type: str
    host:
      description: Host that it says it runs on.
      type: str
    sha:
      description: Full SHA of the commit it runs.
      type: str
    release_id:
      description: Id of its release.
      type: str
    state:
      description: One of V(starting), V(running), V(draining) and V(fenced).
      type: str
    container_id:
      description: Id of its container, empty outside one.
      type: str
    build_date:
      description: When its image was built.
      type: str
    started_at:
      description: When it started, by Redis's clock.
      type: str
    heartbeat_at:
      description: When it last said that it is alive, by Redis's clock.
      type: str
    pid:
      description: Its process id inside the container.
      type: int
    expires_in:
      description: Seconds until it counts as gone, null when it never does.
      type: float
    problems:
      description: What is wrong with its form.
      type: list
      elements: str
strangers:
  description:
    - Registrations from hosts that O(hosts) does not name, such as one that was taken out of the inventory while its
      workers go on.
  returned: success
  type: list
  elements: dict
strangers_told:
  description: The same in one line for people, empty for none.
  returned: success
  type: str
versions:
  description: SHA to number of registrations.
  returned: success
  type: dict
dead:
  description: Members of the index without a live registration.
  returned: success
  type: list
  elements: str
homeless:
  description: Members of the index that are registrations and name no host.
  returned: success
  type: list
  elements: str
malformed:
  description: Members of the index that are no registrations, each with the reason.
  returned: success
  type: list
  elements: str
record:
  description: The fleet's release record, null when there is none.
  returned: success
  type: dict
history:
  description: Releases that were settled, newest first.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_version_info import VERSION_INFO


def main() -> None:
    """Entry point of the module."""
    run_work(VERSION_INFO)


if __name__ == "__main__":
    main()

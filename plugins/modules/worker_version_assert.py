#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves which code the workers of one host run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_version_assert
short_description: Proves that the workers of a host run one release, and nothing else does
version_added: 0.1.0
description:
  - Succeeds only when the workers that the inventory demands of this host are exactly its running containers are
    exactly the live
    registrations, each on the release by its image on this engine, by the SHA baked in that image and by the SHA that
      the process registered, with no mount over the code and no file changed since.
  - Missing, extra, stale, stopped and unregistered workers are failures, each named with its remedy. So is a host
    without any.
  - Containers are looked at before and after the registrations are read, until both looks are the same.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
  - driftguard.workers.spec
  - driftguard.workers.redis
options:
  services:
    required: false
    description:
      - The fleet's services, as for M(driftguard.workers.worker_compose).
      - Those of the revision when they are not given, as after a rollback.
  host:
    description:
      - Name of this host in the inventory.
    type: str
    required: true
  hosts:
    description:
      - Names of all hosts of the fleet. Give it to one host of the fleet. That one also reports registrations from
        hosts that are none.
    type: list
    elements: str
  expected_sha:
    description:
      - The commit that is expected, in full, or as an unambiguous prefix of at least seven characters.
      - By default the fleet's record in Redis says it, and where there is none this host's record.
    type: str
  revision:
    description:
      - Revision whose images are expected. A rollout that is not proved yet names its own.
    type: str
    default: current
  check_record:
    description:
      - Also demand that the records of the fleet and of this host are settled on the expected commit, and that the
        release's tags name its images.
    type: bool
    default: true
  timeout:
    description:
      - Seconds to wait for what may pass by itself, a late registration or one of a stopped worker that has yet to
        expire.
    type: float
    default: 20.0
requirements:
  - docker (Python library)
  - redis (Python library)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Prove that this host runs what the fleet's record says
  driftguard.workers.worker_version_assert:
    fleet: demo
    host: "{{ inventory_hostname }}"
    hosts: "{{ groups['workers'] }}"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
    defaults: "{{ worker_service_defaults }}"
    services: "{{ worker_fleet_services }}"

- name: Prove a certain commit
  driftguard.workers.worker_version_assert:
    fleet: demo
    host: "{{ inventory_hostname }}"
    expected_sha: 0123456789abcdef0123456789abcdef01234567
    redis_url: redis://127.0.0.1:6379/0
    services: "{{ worker_fleet_services }}"
"""

RETURN = r"""
proved:
  description: Whether every row is fine.
  returned: always
  type: bool
rows:
  description: A row per instance that is there or should be, and per registration or record that is wrong.
  returned: always
  type: list
  elements: dict
  contains:
    service:
      description: Name of the service.
      type: str
    instance:
      description: Name of the container, or what else the row is about.
      type: str
    host:
      description: Name of the host in the inventory.
      type: str
    sha:
      description: Full SHA that the worker registered, or that its image carries.
      type: str
    image:
      description: Id of the image that the container runs.
      type: str
    container_id:
      description: Id of the container.
      type: str
    started:
      description: When the container started.
      type: str
    state:
      description: State that the worker registered, or of its container.
      type: str
    verdict:
      description: V(OK), or what is wrong. The runbook explains each.
      type: str
    found:
      description: What was found, empty when it is fine.
      type: str
    remedy:
      description: What to do, empty when it is fine.
      type: str
table:
  description: The rows as lines of a table for people.
  returned: always
  type: list
  elements: str
expected_sha:
  description: The commit that was expected.
  returned: always
  type: str
expected_from:
  description: Who said so.
  returned: always
  type: str
record:
  description: The fleet's record in Redis, null when there is none.
  returned: always
  type: dict
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_version_assert import VERSION_ASSERT


def main() -> None:
    """Entry point of the module."""
    run_work(VERSION_ASSERT)


if __name__ == "__main__":
    main()

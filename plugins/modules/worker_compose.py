#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the compose file of one host for one revision."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_compose
short_description: Renders the compose file of one host for one release
version_added: 0.1.0
description:
  - Writes C(compose.yml) and C(release.json) of a revision below C(<root>/<fleet>/revisions/), whole or not at all.
  - Images are named by digest or id, every service has limits, the guard as its entrypoint, a read-only root, no
    capabilities, restart policy V(always) and pull policy V(never).
  - Equal input gives equal bytes. A revision with the same content is found again instead of written twice.
  - Secrets become files that belong to the image's user, named by a keyed mark of their content. A changed secret is
    another file and another revision. Its containers are recreated, and a rollback finds the old file as it was.
  - Nothing is started. M(driftguard.workers.worker_rollout) brings the host to the revision.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
  - driftguard.workers.spec
options:
  host:
    description:
      - Name of this host in the inventory. Workers register with it.
    type: str
    required: true
  release:
    description:
      - The release, as M(driftguard.workers.worker_image) returns it.
      - In check mode it may be one that is not built yet, with C(release_id) and C(sha) and no C(variants).
      - The release of the host's proved revision when it is not given.
    type: dict
  generation:
    description:
      - Number of this deployment, as M(driftguard.workers.worker_lock) returns it. A new revision gets it as its name.
      - A deployment that a later one has overtaken on this host is refused. Without a number any run may write.
    type: int
  run:
    description:
      - Id of this run, shown to whoever has to wait for it, and told apart from another run with the same number.
    type: str
    default: ""
  lock_wait:
    description:
      - Seconds to wait for another run that is at work on this host.
    type: float
    default: 60.0
  redis_url:
    description:
      - URL of Redis as the workers use it, without a password.
    type: str
    required: true
  redis_password:
    description:
      - Password for Redis. The workers get it as a file, named by C(REDIS_PASSWORD_FILE).
    type: str
  redis_user_per_release:
    description:
      - The workers log in as the Redis user of their release, C(<fleet>.<release id>), which
        M(driftguard.workers.worker_redis_user) makes. O(redis_url) must not name another then.
    type: bool
    default: false
  secrets:
    description:
      - Secrets by name. A service gets those that it lists under C(secrets), as files in C(/run/secrets).
      - Each has at least eight characters.
    type: dict
    default: {}
  networks:
    description:
      - Existing Docker networks that every service joins, such as the one of Redis.
    type: list
    elements: str
    default: []
  production:
    description:
      - Sets C(WORKER_ENV) and C(NODE_ENV) to V(production), or to V(development) when it is false.
    type: bool
    default: true
requirements:
  - docker (Python library)
  - PyYAML
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Render this host's compose file
  driftguard.workers.worker_compose:
    fleet: demo
    host: "{{ inventory_hostname }}"
    release: "{{ worker_release }}"
    redis_url: redis://redis:6379/0
    redis_password: "{{ vault_redis_password }}"
    networks: [demo-redis]
    defaults:
      memory: 512M
    services:
      orchestrator:
      extractor:
        replicas: 2
        memory: 1G
      ocr:
        variant: ocr
        memory: 2G
  register: compose

- name: Show what a deploy would change
  driftguard.workers.worker_compose:
    fleet: demo
    host: "{{ inventory_hostname }}"
    release: "{{ worker_release }}"
    redis_url: redis://redis:6379/0
    services: "{{ worker_fleet_services }}"
  check_mode: true
  diff: true
"""

RETURN = r"""
revision:
  description: Number of the revision with this content; in check mode the one that would be written.
  returned: success
  type: int
  sample: 7
directory:
  description: Directory of the revision on the host.
  returned: success
  type: str
  sample: /opt/driftguard/demo/revisions/7
previous:
  description: Number of the revision that was last proved on this host, null before the first.
  returned: success
  type: int
  sample: 6
desired:
  description: Content of C(release.json), the release and what each service should be.
  returned: success
  type: dict
changed_secrets:
  description: Names of the secrets whose files had to be written, since they were missing or differed.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_compose import COMPOSE


def main() -> None:
    """Entry point of the module."""
    run_work(COMPOSE)


if __name__ == "__main__":
    main()

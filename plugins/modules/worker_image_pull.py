#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls the images of a revision that a host lacks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_image_pull
short_description: Pulls the images of a revision that this host's engine lacks
version_added: 0.1.0
description:
  - Pulls by C(repository@sha256:<digest>) what the revision's services need on this host and its engine does not have.
  - For an image that is there the registry is not asked, so one that is away keeps no host from a release that it has.
  - Afterwards each image is compared with what the release says of it. The engine checks the digest of what it gets.
  - A release without a registry has nothing to pull.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
  - driftguard.workers.registry
attributes:
  check_mode:
    details:
      - What a release that is not built yet needs is not known.
options:
  host:
    description:
      - Name of this host in the inventory, for messages.
    type: str
    required: true
  revision:
    description:
      - Number of a revision on this host, V(current), V(previous), or at least seven characters of a proved SHA or
        release id.
    type: str
    default: current
  desired:
    description:
      - What M(driftguard.workers.worker_compose) returned as RV(driftguard.workers.worker_compose#module:desired), for
        a revision that is not written yet.
    type: dict
  fenced:
    description:
      - Ids of releases that were fenced. V(previous) passes over them.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds after which a pull is given up.
    type: float
    default: 300.0
requirements:
  - docker (Python library)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Pull what the rendered revision needs
  driftguard.workers.worker_image_pull:
    fleet: demo
    host: "{{ inventory_hostname }}"
    revision: "{{ compose.revision }}"
    desired: "{{ compose.desired }}"
    registry_username: deployer
    registry_password: "{{ vault_registry_password }}"

- name: Pull again what a rollback needs
  driftguard.workers.worker_image_pull:
    fleet: demo
    host: "{{ inventory_hostname }}"
    revision: previous
"""

RETURN = r"""
revision:
  description: Number of the revision.
  returned: success
  type: int
release_id:
  description: Its release, null for one that is not built yet.
  returned: success
  type: str
missing:
  description: Images that were pulled, in check mode that would be.
  returned: success
  type: list
  elements: dict
  contains:
    variant:
      description: Name of the variant.
      type: str
    image:
      description: What was pulled, C(repository@digest).
      type: str
    size:
      description: Bytes that it takes unpacked.
      type: int
present:
  description: Images that were there.
  returned: success
  type: list
  elements: str
durations:
  description: Seconds for each variant that was pulled.
  returned: success
  type: dict
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_image_pull import IMAGE_PULL


def main() -> None:
    """Entry point of the module."""
    run_work(IMAGE_PULL)


if __name__ == "__main__":
    main()

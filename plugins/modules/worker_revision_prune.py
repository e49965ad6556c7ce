#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes the revisions, secrets and images of a fleet that nothing on a host needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_revision_prune
short_description: Removes the revisions, secrets and images of a fleet that nothing on this host needs
version_added: 0.1.0
description:
  - Keeps the last proved revisions, the current one, what a rollback goes to, what O(published) names, whatever a
    container that runs or does not was made from, releases that a rollout has begun to roll out, and what is newer
    than the current revision.
  - Every other revision is removed, those that were never proved first, then the secrets that only they named.
  - Then the fleet's images that no kept revision and no container of this engine needs. Names of other repositories
    stay, and with them their image; so do images without a name, and images that are newer than the current release.
  - On a host where nothing was proved nothing is removed.
  - A module with a lower deployment number than one that was here before refuses, also in the middle of its work.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
options:
  host:
    description:
      - Name of this host in the inventory, for messages.
    type: str
    required: true
  keep:
    description:
      - How many proved revisions stay, the current one among them.
    type: int
    default: 5
  repository:
    description:
      - Name of the fleet's images as the inventory has it, C(<fleet>-worker) when it is not given. Images of
        repositories that a revision names are the fleet's too.
    type: str
  published:
    description:
      - Revisions that the fleet's last publications name for this host.
    type: list
    elements: str
    default: []
  fenced:
    description:
      - Ids of releases that were fenced. A rollback passes over them.
    type: list
    elements: str
    default: []
  generation:
    description:
      - Number of this deployment, as M(driftguard.workers.worker_lock) returns it.
    type: int
    required: true
  run:
    description:
      - Id of this run, shown to whoever has to wait for it.
    type: str
    default: ""
  lock_wait:
    description:
      - Seconds to wait for another module of the collection that still works on this host.
    type: float
    default: 60.0
requirements:
  - docker (Python library)
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Keep three proved revisions
  driftguard.workers.worker_revision_prune:
    fleet: demo
    host: "{{ inventory_hostname }}"
    keep: 3
    generation: "{{ lease.generation }}"
"""

RETURN = r"""
revisions:
  description: Revisions that were removed, in check mode that would be, in their order.
  returned: success
  type: list
  elements: dict
  contains:
    revision:
      description: Its number.
      type: int
    release_id:
      description: Its release, empty where its file can't be read.
      type: str
    reason:
      description: Why.
      type: str
    size:
      description: Bytes of its files.
      type: int
kept:
  description: Revisions that stay, in the same form.
  returned: success
  type: list
  elements: dict
secrets:
  description: Files of secrets that were removed, C(<uid>/<file>).
  returned: success
  type: list
  elements: str
images:
  description: Images that were removed.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The engine's id.
      type: str
    names:
      description: Names that were taken away.
      type: list
      elements: str
    release_id:
      description: Its release.
      type: str
    size:
      description: Bytes, those that other images share among them.
      type: int
table:
  description: The same as lines for people.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.engine import Engine
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FLEET_SPEC, ROOT_SPEC, run_module
from ansible_collections.driftguard.workers.plugins.module_utils.prune import Pruning

ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    "host": {"type": "str", "required": True},
    "keep": {"type": "int", "default": 5},
    "repository": {"type": "str"},
    "published": {"type": "list", "elements": "str", "default": []},
    "fenced": {"type": "list", "elements": "str", "default": []},
    "generation": {"type": "int", "required": True},
    "run": {"type": "str", "default": ""},
    "lock_wait": {"type": "float", "default": 60.0},
}


def main() -> None:
    """Entry point of the module."""
    run_module(ARGUMENTS, lambda module: Pruning(Engine.connect(), module.params, module.check_mode).run())


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the start guards of a fleet on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_guard
short_description: Puts the start guards of a fleet on a host
version_added: 0.1.0
description:
  - Writes the guards, and the supervisor beside them, into C(<root>/<fleet>/guard), which every container of the fleet
    mounts read-only. All of it is root's and nobody else's to write.
  - What was edited, removed, linked or given away is put back. Each file is replaced by rename, so no container ever
    starts through half of one.
  - The role P(driftguard.workers.guard#role) hands over the files of this collection.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
options:
  files:
    description:
      - The files by name, each with its text.
    type: dict
    default: {}
  digests:
    description:
      - Files by name, each with the SHA-256 of its text in hexadecimal. They are looked at as O(files) are, at a tenth
        of the cost. What differs can't be put back. Check mode says so as a change, and otherwise it is an error.
    type: dict
    default: {}
  generation:
    description:
      - Number of the deployment that this belongs to, as M(driftguard.workers.worker_lock) returns it. One that a later
        one has overtaken on this host is refused and changes nothing, and no other run works on this host meanwhile.
      - Without a number any run may put guards there, at any time.
    type: int
  run:
    description:
      - Id of this run, shown to whoever has to wait for it, and told apart from another run with the same number.
    type: str
    default: ""
  lock_wait:
    description:
      - Seconds to wait for another run that is at work on this host. Only with O(generation).
    type: float
    default: 60.0
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Put the guards there
  driftguard.workers.worker_guard:
    fleet: demo
    files:
      version_guard.py: "{{ lookup('ansible.builtin.file', 'files/guard/version_guard.py', rstrip=false) }}"
      version_guard.sh: "{{ lookup('ansible.builtin.file', 'files/guard/version_guard.sh', rstrip=false) }}"
  become: true
"""

RETURN = r"""
installed:
  description: Paths of what was wrong and is put back, the directory among them when it was.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_guard import GUARD


def main() -> None:
    """Entry point of the module."""
    run_work(GUARD)


if __name__ == "__main__":
    main()

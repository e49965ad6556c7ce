# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of modules that look at a fleet's BullMQ queues."""

from __future__ import annotations


class ModuleDocFragment:
    """Use with ``extends_documentation_fragment: [driftguard.workers.queues]``; it is QUEUES_SPEC of module_base."""

    DOCUMENTATION = r"""
options:
  prefix:
    description:
      - Prefix of the queues' keys, C(<prefix>:<queue>:…), as the workers have it in E(BULLMQ_PREFIX).
      - The fleet's name by default.
    type: str
"""

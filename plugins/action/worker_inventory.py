# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs worker_inventory in the playbook's own process, where that is all it needs."""

from __future__ import annotations

from ansible_collections.driftguard.workers.plugins.modules.worker_inventory import WORK
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import InProcessAction


class ActionModule(InProcessAction):
    """Action of worker_inventory tasks."""

    work = WORK

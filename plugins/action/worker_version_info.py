# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs worker_version_info in the playbook's own process, where that is where it would run anyhow."""

from __future__ import annotations

from ansible_collections.driftguard.workers.plugins.module_utils.work_version_info import VERSION_INFO
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import HostAction


class ActionModule(HostAction):
    """Action of worker_version_info tasks."""

    work = VERSION_INFO

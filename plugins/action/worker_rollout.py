# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs worker_rollout beside its connection."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible_collections.driftguard.workers.plugins.module_utils.rollout_proof import PRIVATE_OPTIONS
from ansible_collections.driftguard.workers.plugins.plugin_utils.attended_action import (
    AttendedAction,
    Call,
    attended_options,
)
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import plain

Values = Dict[str, Any]

MODULE = "driftguard.workers.worker_rollout"


class ActionModule(AttendedAction):
    """Action of worker_rollout tasks."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Values] = None) -> Values:
        """Run the module: by itself where it touches no container, else attended."""
        super().run(tmp, task_vars)
        given = task_vars or {}
        arguments: Values = dict(self._task.args)
        options = attended_options(arguments)
        private = {name: plain(arguments[name]) for name in PRIVATE_OPTIONS if arguments.get(name) is not None}
        public = {name: value for name, value in arguments.items() if name not in private}
        call = Call(
            MODULE, arguments, options, lambda directory: {**public, "attendance": directory},
            (lambda _directory: private) if private else None)
        found = self.attend(call, given)
        if found is not None:
            return found
        asynchronous = self._task.async_val and not self._connection.has_native_async
        return dict(self._execute_module(MODULE, arguments, task_vars=given, wrap_async=asynchronous))

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs worker_lock in the playbook's own process, where that is where it would run anyhow, and waits for the lease."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Optional

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.untrusted import check_seconds
from ansible_collections.driftguard.workers.plugins.modules.worker_lock import WORK
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import HostAction

Values = Dict[str, Any]

POLL_SECONDS = 2.0


class ActionModule(HostAction):
    """Action of worker_lock tasks."""

    work = WORK

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Values] = None) -> Values:
        """The module's result, once the lease is free or the time to wait is over."""
        wait = self._waits()
        result = self._awaited(wait, task_vars) if wait else super().run(tmp, task_vars)
        before = result.get("took_over_from")
        if before and not result.get("failed"):
            self._display.warning(
                f"the deployment lease is taken over from {before['owner']} (host {before['host']}, pid "
                f"{before['pid'] or 'unknown'}, run {before['run'] or 'unnamed'}), who took it at "
                f"{before['started_at']} and never gave it back; this run begins with what that one left half done")
        return result

    def _awaited(self, wait: float, task_vars: Optional[Values]) -> Values:
        """Try until the lease is free.

        A module that waits on a host goes on when its playbook was killed, and takes the lease for nobody.
        """
        parent, deadline = os.getppid(), time.monotonic() + wait
        self._task.args["wait"] = 0
        told = False
        while True:
            result = super().run(None, task_vars)
            left = deadline - time.monotonic()
            if not result.get("busy") or left <= 0:
                return result
            if not told:
                told = True
                self._display.display(f"waiting up to {wait:g} s, {result['subject']}: {result['found']}", stderr=True)
            time.sleep(min(POLL_SECONDS, left))
            if os.getppid() != parent:
                # The playbook was killed, and this process of one of its tasks with nobody to tell it so.
                return result

    def _waits(self) -> float:
        """Seconds to wait; what is no such number is for the module to refuse."""
        arguments = self._task.args
        if self._task.check_mode or self._task.async_val or arguments.get("state", "held") != "held":
            return 0.0
        try:
            return check_seconds("wait", float(arguments.get("wait") or 0))
        except (DriftguardError, TypeError, ValueError):
            return 0.0

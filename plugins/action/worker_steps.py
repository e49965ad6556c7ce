# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs worker_steps in the playbook's own process, where it would run there anyhow, or beside its connection."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ansible.errors import AnsibleActionFail
from ansible_collections.driftguard.workers.plugins.modules.worker_steps import STEPS
from ansible_collections.driftguard.workers.plugins.plugin_utils.attended_action import (
    AttendedAction,
    Call,
    attended_options,
)
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import HostAction, NotPlain, plain

Values = Dict[str, Any]

MODULE = "driftguard.workers.worker_steps"
ROLLOUT = "worker_rollout"


class ActionModule(AttendedAction, HostAction):
    """Action of worker_steps tasks."""

    work = STEPS

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Values] = None) -> Values:
        """Attend the steps that have a rollout among them; do all others as any module's work."""
        steps = self._steps()
        rollout = next((step["options"] for step in steps if _rolls_out(step)), None)
        if rollout is None:
            return HostAction.run(self, tmp, task_vars)
        options = attended_options(rollout)
        self._task.args["steps"] = steps  # without the lease
        call = Call(
            MODULE, rollout, options,
            lambda directory: {"attendance": directory, "heartbeat": options["heartbeat"]},
            lambda directory: {"steps": _attended(steps, directory)}, {"by_step": {}})
        found = self.attend(call, task_vars or {})
        return HostAction.run(self, tmp, task_vars) if found is None else found

    def _steps(self) -> List[Values]:
        """The steps as data of this task's own; what isn't in their form is for the module to refuse."""
        try:
            steps = plain(self._task.args.get("steps"))
        except NotPlain as error:
            raise AnsibleActionFail(f"steps: expected plain data; found {error}") from error  # type: ignore[no-untyped-call]
        return steps if isinstance(steps, list) and all(isinstance(step, dict) for step in steps) else []


def _rolls_out(step: Mapping[str, Any]) -> bool:
    return (
        step.get("module") == ROLLOUT and isinstance(step.get("options"), dict) and not step.get("looks")
        and step["options"].get("state") not in ("settled", "kept"))


def _attended(steps: List[Values], directory: str) -> List[Values]:
    """The steps, of which the rollout knows where the controller is heard, and may tell of its progress."""
    return [
        {**step, "options": {**step["options"], "attendance": directory}} if _rolls_out(step) else step
        for step in steps]

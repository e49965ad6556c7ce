# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback for tests: a command is run, and waited for, when a playbook comes to a task of a name."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from ansible.plugins.callback import CallbackBase

__all__ = ["CallbackModule"]


class CallbackModule(CallbackBase):
    """``AT_TASK`` is the name, ``AT_TASK_RUN`` the command's words as JSON; it runs the first time."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "at_task"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._left = [os.environ["AT_TASK"]]

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """A task begins."""
        if self._left and str(task.get_name()).endswith(self._left[0]):
            self._left.clear()
            subprocess.run(json.loads(os.environ["AT_TASK_RUN"]), check=True)

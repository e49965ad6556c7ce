# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs worker_release in the playbook's own process, where that is where it would run anyhow; reads with a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import (
    ENV_FILE,
    FENCE_FILE,
    RECORD_FILE,
    fence,
    highest,
    host_record,
)
from ansible_collections.driftguard.workers.plugins.module_utils.names import FLEET_PATTERN, HOST_ROOT, guard_directory
from ansible_collections.driftguard.workers.plugins.module_utils.release_change import FLEET, READ, host_result
from ansible_collections.driftguard.workers.plugins.module_utils.work_release import RELEASE
from ansible_collections.driftguard.workers.plugins.plugin_utils.host_files_look import parsed_files, read_command
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import HostAction

Values = Dict[str, Any]


class ActionModule(HostAction):
    """Action of worker_release tasks."""

    work = RELEASE

    def elsewhere(self, tmp: Optional[str], task_vars: Values) -> Values:
        """On another host: what its record says takes no Python there, everything else is a module's work."""
        found = self._read() if self._only_reads() else None
        return super().elsewhere(tmp, task_vars) if found is None else found

    def _only_reads(self) -> bool:
        given = {name: value for name, value in self._task.args.items() if value is not None}
        return (
            given.get("scope", FLEET) == "host" and given.get("state", READ) == READ
            and set(given) <= {"fleet", "root", "scope", "state"} and not self._task.async_val
            and isinstance(given.get("fleet"), str) and FLEET_PATTERN.match(given["fleet"]) is not None
            and str(given.get("root", HOST_ROOT)).startswith("/"))

    def _read(self) -> Optional[Values]:
        """The module's result; None where it has to look itself, since something there is odd.

        :raises AnsibleConnectionFailure: the host can't be reached.
        """
        fleet = str(self._task.args["fleet"])
        directory = Path(str(self._task.args.get("root") or HOST_ROOT)) / fleet
        guard = Path(guard_directory(str(directory)))
        places = [guard / RECORD_FILE, guard / ENV_FILE, directory / "state" / FENCE_FILE]
        done = self._low_level_execute_command(read_command(places))  # type: ignore[no-untyped-call]
        contents = parsed_files(str(done["stdout"]), len(places)) if done["rc"] == 0 else None
        if contents is None:
            return None
        found = host_record(fleet, places[0], contents[0], contents[1])
        try:
            result = host_result(found, highest(fence(places[2], contents[2])[0], found))
        except DriftguardError:
            return None
        return {"changed": False, **result.values}

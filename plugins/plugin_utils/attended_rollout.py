# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stays with a rollout that works on a host until it has ended, whatever the connection does in between."""

from __future__ import annotations

import shlex
import time
from typing import Any, Callable, Mapping, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.driftguard.workers.plugins.module_utils.attendance import PREFIX
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_progress import Step, parsed

from .rollout_looks import DEAD, ENDED, GONE, LINES, RUNNING, STARTING, Look, look_command, parsed_look, stop_command

WAIT_SECONDS = 2.0
RETRY_SECONDS = 1.0
# A rollout notices at its next safe point that it isn't heard, and gives compose five seconds to end.
STOPPING_SECONDS = 8.0
# Between the end of a module and its result in the job file, or between its start and its first sign.
SETTLING_SECONDS = 15.0
MAX_STEPS = 2000

Command = Callable[[str], str]


class RolloutLost(Exception):
    """The host didn't answer until its rollout has certainly stopped by itself."""


class AttendedRollout:
    """One rollout on one host.

    :param directory: of the run, on the host.
    :param heartbeat: seconds that the rollout goes on without being looked at.
    :param command: runs a command on the host and returns what it wrote.
    :param heard: gets each step.
    :param keep: called before each look; returns whether the rollout may go on.
    """

    def __init__(
        self, directory: str, heartbeat: float, command: Command, heard: Callable[[Step], None],
        keep: Callable[[], bool],
    ) -> None:
        self._directory = shlex.quote(directory)
        self._patience = heartbeat + STOPPING_SECONDS
        self._command = command
        self._heard = heard
        self._keep = keep
        self._stopped = False
        self._looks = self._lines = self._steps = 0

    def await_end(self) -> str:
        """Look until it has ended; the name of its job file.

        :raises RolloutLost: the host can't be reached, and the rollout has stopped by now.
        :raises DriftguardError: it ended without a result.
        """
        failing_since: Optional[float] = None
        odd_since: Optional[float] = None
        while True:
            if not self._stopped and not self._keep():
                self.stop()
            # A look that fails may still have reached the host. Those that follow it mustn't keep the rollout going, or
            # it couldn't be known when it has stopped.
            look = self._look(touch=failing_since is None and not self._stopped)
            now = time.monotonic()
            if look is None:
                failing_since = now if failing_since is None else failing_since
                if now - failing_since > self._patience:
                    raise RolloutLost
                time.sleep(RETRY_SECONDS)
                continue
            failing_since = None
            self._show(look)
            if look.state == ENDED and len(look.lines) < LINES:
                return look.job
            odd_since = None if look.state in (RUNNING, ENDED) else now if odd_since is None else odd_since
            if odd_since is not None:
                self._refuse_oddness(look, now - odd_since)
                time.sleep(RETRY_SECONDS / 4)

    def stop(self) -> bool:
        """Tell it to stop at its next safe point; whether the host heard that."""
        self._stopped = True
        try:
            self._command(stop_command(self._directory))
        except AnsibleConnectionFailure:
            return False
        return True

    def stop_for_certain(self) -> None:
        """Return when it has stopped or been told to: for a start of which nobody knows whether it succeeded."""
        deadline = time.monotonic() + self._patience
        while not self.stop() and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)

    def remove(self) -> None:
        """Remove the run's directory; where that fails the next rollout does it."""
        try:
            self._command(f"rm -rf {self._directory}")
        except AnsibleConnectionFailure:
            return

    def _look(self, touch: bool) -> Optional[Look]:
        self._looks += 1
        wait = WAIT_SECONDS if touch or self._stopped else 0.0
        try:
            return parsed_look(self._command(look_command(self._directory, self._looks, self._lines, wait, touch)))
        except AnsibleConnectionFailure:
            return None

    def _show(self, look: Look) -> None:
        self._lines += len(look.lines)
        for line in look.lines:
            step = parsed(line)
            if step is not None and self._steps < MAX_STEPS:
                self._steps += 1
                self._heard(step)

    def _refuse_oddness(self, look: Look, seconds: float) -> None:
        if seconds < SETTLING_SECONDS:
            return
        found = {
            STARTING: "it hasn't started", GONE: "its directory is gone",
            DEAD: "its process ended without one, as if it was killed"}[look.state]
        self.stop()
        raise DriftguardError(
            "the rollout on this host", "a result", found,
            "see the host's log for what killed it, then run again: it heals what was left and converges")


def run_directory(options: Mapping[str, Any], token: str) -> Optional[str]:
    """Where a rollout's files are on its host, None when its options don't say it.

    :param token: what tells this run from others.
    """
    root, fleet = str(options.get("root", "")), str(options.get("fleet", ""))
    return f"{root.rstrip('/')}/{fleet}/state/{PREFIX}{token}" if root.startswith("/") else None

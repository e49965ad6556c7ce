# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of this machine, on which a lab's containers run."""

from __future__ import annotations

import subprocess
from typing import Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from tools.engine import docker

__all__ = ["Outer"]


class Outer:
    """Docker's client, through sudo where this user may not use the engine.

    :raises DriftguardError: no engine answers.
    """

    def __init__(self) -> None:
        self._command = docker()
        if not self._command:
            raise DriftguardError("Docker Engine", "one that answers on this machine", "none", "tools/setup lab")

    def __call__(self, *arguments: str, stdin: bytes = b"", timeout: float = 1800.0) -> str:
        """What a command says.

        :raises DriftguardError: it failed.
        """
        done = self.run(arguments, stdin, timeout)
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
            raise DriftguardError(
                f"docker {' '.join(arguments[:2])}", "exit status 0", said[-600:] or f"exit status {done.returncode}",
                "mend what it says and run it again")
        return done.stdout.decode("utf-8", "replace").strip()

    def says(self, *arguments: str) -> str:
        """What a command says; nothing where it fails."""
        done = self.run(arguments)
        return "" if done.returncode else done.stdout.decode("utf-8", "replace").strip()

    def run(
        self, arguments: Sequence[str], stdin: bytes = b"", timeout: float = 1800.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, whatever that is."""
        return subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, timeout=timeout, check=False)

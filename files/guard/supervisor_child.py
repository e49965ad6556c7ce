# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The supervised command and all that descends from it: started, signalled, reaped, ended to the last one."""

from __future__ import annotations

import os
import signal
import sys
import time

import supervisor_kernel as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Mapping, Optional, Sequence, Tuple

_END_SECONDS = 1.0
_LOOK_SECONDS = 0.01


class Family:
    """One command at a time. To be used by the main thread alone: the child ends with the thread that started it."""

    def __init__(self, command: Sequence[bytes], environment: Mapping[bytes, bytes]) -> None:
        self.pid = 0
        self.status: Optional[int] = None
        self.starts = 0
        self.left = False
        self.adopts = kernel.adopt_orphans()
        self._session = 0
        self._command = list(command)
        self._environment = dict(environment)
        self._shim = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor_exec.py")

    @property
    def alive(self) -> bool:
        """Whether the command or anything that descends from it is still there."""
        return bool(self.pid) or self.left

    def start(self) -> None:
        """Start the command; there must be nothing left of an earlier one."""
        python = sys.executable or os.readlink("/proc/self/exe")
        own = (python, "-IS", self._shim, str(os.getpid()), "--")
        arguments = [*map(os.fsencode, own), *self._command]
        self.status = None
        self.pid = self._session = os.posix_spawn(python, arguments, self._environment)
        self.starts += 1
        self.left = True

    def send(self, number: int) -> None:
        """Pass a signal on to the command, as an engine would send it."""
        if self.pid:
            kernel.send(self.pid, number)

    def terminate(self) -> None:
        """Ask the command to end; once it has ended, what is left of it.

        Not all of them at once: a worker that drains finishes jobs in its children.
        """
        if self.pid:
            kernel.send(self.pid, signal.SIGTERM)
            return
        for pid, _group in self._members():
            kernel.send(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill everything that descends from the command, by whole process groups, which nothing in them can outrun."""
        found = self._members()
        groups = {group for _pid, group in found if group not in (0, os.getpgrp())}
        for group in groups:
            kernel.send(group, signal.SIGKILL, group=True)
        for pid, _group in found:
            kernel.send(pid, signal.SIGKILL)

    def _members(self) -> List[Tuple[int, int]]:
        return kernel.descendants(os.getpid(), self._session)

    def end(self) -> None:
        """Kill everything, and wait a moment until it is gone."""
        until = time.monotonic() + _END_SECONDS
        while self.alive and time.monotonic() < until:
            self.kill()
            time.sleep(_LOOK_SECONDS)
            self.reap()

    def reap(self) -> bool:
        """Reap whatever has ended; whether the command itself has."""
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                # All orphans are this process's children, so there is nothing left; else only what it can find tells.
                self.left = not self.adopts and bool(self._members())
                return ended
            if pid == 0:
                return ended
            if pid == self.pid:
                self.pid, self.status, ended = 0, _exit_status(status), True


def _exit_status(status: int) -> int:
    """As shells tell it: 128 and the number of the signal that killed it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

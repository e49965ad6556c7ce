# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rollout on a host hears of its controller, and the controller of it: files in a directory of the run's own.

========  =======================  =====================================================================
file      written by               means
========  =======================  =====================================================================
beat      the controller's looks   changes with each look: somebody still wants this rollout
stop      the controller           stop at the next safe point
progress  the module               one line per step, see rollout_progress.py
pid       the module               its process, so that its end is noticed even when it leaves no result
========  =======================  =====================================================================

The beat's age is the time since its content was last seen to change, by this process's own monotonic clock: neither the
host's clock nor the controller's has a part in it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from .errors import DriftguardError
from .lease_owner import process_of
from .rollout_progress import Step, written
from .untrusted import check_seconds, digits

PREFIX = "attended-"
BEAT, STOP, PROGRESS, PID = "beat", "stop", "progress", "pid"
LEAST_HEARTBEAT = 5.0
ATTENDED_SPEC: dict[str, Any] = {
    "progress": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "heartbeat": {"type": "float", "default": 20.0},
    "lease": {
        "type": "dict",
        "options": {
            "token": {"type": "str", "required": True, "no_log": True},
            "seconds": {"type": "float", "required": True},
            "redis_url": {"type": "str", "required": True},
            "redis_password": {"type": "str", "no_log": True},
            "redis_ca_file": {"type": "path"},
        },
    },
}


class Heartbeat:
    """Whether the controller is still heard. Pure: contents and times are given.

    :param limit: seconds without a change after which it isn't.
    """

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._since = now
        self._last: Optional[str] = None

    def is_heard(self, content: Optional[str], now: float) -> bool:
        """Take in one look at the beat.

        :param content: None where there is none; it is then as old as it was.
        """
        if content is not None and content != self._last:
            self._last, self._since = content, now
        return now - self._since <= self.limit


class Attendance:
    """The module's side of a run's directory.

    :param directory: made by whoever started the module.
    :param limit: seconds, see :class:`Heartbeat`.
    :param subject: the fleet and host that a failure names.
    """

    def __init__(self, directory: Path, limit: float, subject: str) -> None:
        self._directory = directory
        self._heartbeat = Heartbeat(check_seconds("heartbeat", limit, LEAST_HEARTBEAT), time.monotonic())
        self._subject = subject
        with suppress(OSError):
            (directory / PID).write_text(f"{os.getpid()}\n", encoding="ascii")

    def check(self) -> None:
        """Go on only while the controller wants it.

        :raises DriftguardError: it was interrupted, or hasn't been heard for too long.
        """
        if (self._directory / STOP).exists():
            raise self._failure("that it was interrupted, or may go on no more")
        if not self._heartbeat.is_heard(_content(self._directory / BEAT), time.monotonic()):
            raise self._failure(f"nothing heard of it for {self._heartbeat.limit:g} s")

    def tell(self, step: Step) -> None:
        """Append a step to the progress file, in one write; progress is not worth a failure."""
        with suppress(OSError):
            handle = os.open(self._directory / PROGRESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, written(step).encode("utf-8"))
            finally:
                os.close(handle)

    def sweep(self) -> None:
        """Remove what runs left here that nobody came back for: their modules have ended."""
        for other in self._directory.parent.glob(f"{PREFIX}*"):
            pid = digits((_content(other / PID) or "").strip())
            if other != self._directory and pid is not None and process_of(pid) is None:
                _remove(other)

    def _failure(self, found: str) -> DriftguardError:
        return DriftguardError(
            f"rollout of {self._subject}", "a deploy that goes on", f"{found}; stopped at a safe point",
            "run it again: it heals what was left and converges")


class SafePoint:
    """Where a rollout may stop: called there, it raises when it must. It also hears of each step.

    :param checks: each raises :class:`DriftguardError` when this run may change nothing more.
    :param heard: gets each step.
    """

    def __init__(
        self, checks: Sequence[Callable[[], None]] = (), heard: Callable[[Step], None] = lambda _step: None
    ) -> None:
        self._checks = checks
        self._heard = heard
        self._began = time.monotonic()

    def __call__(self) -> None:
        """Go on only if no check raises."""
        for check in self._checks:
            check()

    def tell(self, event: str, service: str, container: str) -> None:
        """A container reached a step, see rollout_progress.py."""
        self._heard(Step(event, service, container, time.monotonic() - self._began))


def attendance_of(options: Mapping[str, Any], subject: str) -> Optional[Attendance]:
    """The attendance that a module's options ask for, None for a module that was started by itself."""
    directory = options.get("attendance")
    return Attendance(Path(directory), options["heartbeat"], subject) if directory else None


def _content(path: Path) -> Optional[str]:
    try:
        return path.read_bytes()[:200].decode("ascii", "replace")
    except OSError:
        return None


def _remove(directory: Path) -> None:
    with suppress(OSError):
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()

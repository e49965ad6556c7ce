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
private   the controller           what the module is told and mustn't lie about: it is read once, and removed
pid       the module               its process, so that its end is noticed even when it leaves no result
========  =======================  =====================================================================

The beat's age is the time since its content was last seen to change, by this process's own monotonic clock: neither the
host's clock nor the controller's has a part in it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import AbstractSet, Any, Callable, Mapping, Optional, Sequence

from .errors import DriftguardError
from .fleet_containers import Container
from .lease_owner import process_of
from .rollout_progress import Step, written
from .untrusted import check_seconds, digits

PREFIX = "attended-"
BEAT, STOP, PROGRESS, PID, PRIVATE = "beat", "stop", "progress", "pid", "private"
LEAST_HEARTBEAT = 5.0
LISTEN_SECONDS = 1.0
LONGEST_START_SECONDS = 600.0
DEFAULT_HEARTBEAT = 20.0
ATTENDED_SPEC: dict[str, Any] = {
    "progress": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "heartbeat": {"type": "float", "default": DEFAULT_HEARTBEAT},
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

    def teller(self, kept: AbstractSet[str]) -> Callable[[str, Container], None]:
        """Like :meth:`tell`, for containers as they are found.

        :param kept: ids of those that this rollout leaves alone, of which there is nothing to tell.
        """

        def tell(event: str, container: Container) -> None:
            if container.id not in kept:
                self.tell(event, container.service, container.name)

        return tell


class Attendance:
    """The module's side of a run's directory; does nothing for a module that was started without one.

    :param options: the module's; ``attendance`` is the directory, made by whoever started the module, and ``heartbeat``
        the seconds of :class:`Heartbeat`.
    :param subject: the fleet and host that a failure names.
    """

    def __init__(self, options: Mapping[str, Any], subject: str) -> None:
        directory = options.get("attendance")
        self._directory = Path(directory) if directory else None
        limit = check_seconds("heartbeat", options.get("heartbeat", DEFAULT_HEARTBEAT), LEAST_HEARTBEAT)
        self._heartbeat = Heartbeat(limit, time.monotonic())
        self._subject = subject
        if self._directory is not None:
            with suppress(OSError):
                (self._directory / PID).write_text(f"{os.getpid()}\n", encoding="ascii")

    def listen(self) -> None:
        """Look at the beat all the time from now on, so that one which ended unseen isn't taken for news later."""
        directory = self._directory
        if directory is None:
            return

        def look() -> None:
            while True:
                self._heartbeat.is_heard(_content(directory / BEAT), time.monotonic())
                time.sleep(LISTEN_SECONDS)

        Thread(target=look, daemon=True).start()

    def safe_point(self, check: Callable[[], None]) -> SafePoint:
        """The safe point of a rollout that begins, on a host that is locked for it.

        :param check: raises when this rollout may change nothing more, whoever attends it.
        """
        directory = self._directory
        if directory is None:
            return SafePoint([check])
        _sweep(directory)
        return SafePoint([partial(self._check, directory), check], partial(_tell, directory))

    def _check(self, directory: Path) -> None:
        if (directory / STOP).exists():
            raise self._failure("that it was interrupted, or may go on no more")
        if not self._heartbeat.is_heard(_content(directory / BEAT), time.monotonic()):
            raise self._failure(f"nothing heard of it for {self._heartbeat.limit:g} s")

    def _failure(self, found: str) -> DriftguardError:
        return DriftguardError(
            f"rollout of {self._subject}", "a deploy that goes on", f"{found}; stopped at a safe point",
            "run it again: it heals what was left and converges")


def take_private(directory: Path) -> str:
    """Read what the controller left for this run alone, and remove it.

    :raises DriftguardError: it isn't there.
    """
    path = directory / PRIVATE
    try:
        text = path.read_bytes().decode("utf-8")
        path.unlink()
    except (OSError, UnicodeDecodeError) as error:
        raise DriftguardError(
            str(path), "what this run is to do", str(error),
            "run again; if it stays, see what removes files there") from error
    return text


def _tell(directory: Path, step: Step) -> None:
    """Append a step to the progress file, in one write; progress is not worth a failure."""
    with suppress(OSError):
        handle = os.open(directory / PROGRESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, written(step).encode("utf-8"))
        finally:
            os.close(handle)


def _sweep(own: Path) -> None:
    """Remove what runs left beside this one that nobody came back for: their modules have ended, or never started."""
    for other in own.parent.glob(f"{PREFIX}*"):
        if other != own and not _is_wanted(other):
            _remove(other)


def _is_wanted(directory: Path) -> bool:
    """Whether somebody may still work with a run's directory, or look at it."""
    pid = digits((_content(directory / PID) or "").strip())
    if pid is not None:
        return process_of(pid) is not None
    # It may be about to start. If that takes so long it finds what it was to do gone, and says to run again.
    try:
        return time.time() - directory.stat().st_mtime < LONGEST_START_SECONDS
    except OSError:
        return False


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

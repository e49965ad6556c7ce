# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Lines of a log that nobody may be reading: a full pipe must not hold up the fence."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

import version_guard as guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

_LINES = 1000


class Log(threading.Thread):
    """Writes what it is given in a thread of its own; what finds no room is dropped."""

    def __init__(self) -> None:
        super().__init__(name="log", daemon=True)
        self._entries: queue.Queue[Tuple[int, Tuple[str, ...]]] = queue.Queue(_LINES)

    def run(self) -> None:
        """Write for as long as the process lives."""
        while True:
            descriptor, lines = self._entries.get()
            guard.say(descriptor, *lines)
            self._entries.task_done()

    def say(self, *lines: str) -> None:
        """To standard output, each line after "[version] "."""
        self._put(1, lines)

    def warn(self, *lines: str) -> None:
        """To standard error."""
        self._put(2, lines)

    def flush(self, seconds: float) -> None:
        """Wait until all is written, at most so long."""
        done = threading.Thread(target=self._entries.join, daemon=True)
        done.start()
        done.join(seconds)

    def _put(self, descriptor: int, lines: Tuple[str, ...]) -> None:
        with suppress(queue.Full):
            self._entries.put_nowait((descriptor, lines))

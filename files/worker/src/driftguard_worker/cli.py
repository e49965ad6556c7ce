# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The command ``driftguard-worker``: first the guard, then the worker.

Nothing outside the standard library is imported before the guard has passed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from . import guard
from .errors import ExitStatus

__all__ = ["main"]


def main() -> int:
    """Run one worker until it is told to stop.

    :returns: the exit status, one of :class:`ExitStatus`.
    :raises SystemExit: the guard refuses the start.
    """
    started = time.monotonic()
    _leave_on_signal()
    guard.run(os.environ)
    if len(sys.argv) > 1:
        return _refuse_arguments()
    try:
        from .process import run  # noqa: PLC0415 - the guard comes first
    except ImportError as error:
        print(f"driftguard-worker: expected an image with all its packages; found {error}; remedy: rebuild the image")
        return ExitStatus.INTERNAL
    return run(started)


def _leave_on_signal() -> None:
    # Until the event loop runs there is nothing to clean up; and without a handler of its own, process 1 of a
    # container ignores SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: Any) -> None:
    os._exit(ExitStatus.CLEAN)


def _refuse_arguments() -> int:
    print(
        f"driftguard-worker: expected no arguments; found {len(sys.argv) - 1}; remedy: configure it by environment"
        " variables, as docs/worker.md lists them",
        file=sys.stderr,
    )
    return ExitStatus.SETTINGS

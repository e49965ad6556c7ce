# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""How a worker starts, the command ``driftguard-worker`` and any other: first the guard, then the worker.

Nothing outside the standard library is imported before the guard has passed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NoReturn, Optional

from . import guard
from .errors import ExitStatus
from .jobs import Handlers

__all__ = ["become_another", "main", "start"]

# Set by a worker that replaced itself while it was parked. It can't be used to get around the guard: a worker that
# starts so takes no job, and starts anew without it when it may work again.
PARKED = "DRIFTGUARD_PARKED"


def main() -> int:
    """Run one worker of the reference fleet until it is told to stop.

    :returns: the exit status, one of :class:`ExitStatus`.
    :raises SystemExit: the guard refuses the start.
    """
    if len(sys.argv) > 1:
        return _refuse_arguments()
    return start(None)


def start(handlers: Optional[Handlers]) -> int:
    """Run one worker until it is told to stop.

    :param handlers: the application's; none for those of the reference fleet, by the service's name.

    :returns: the exit status, one of :class:`ExitStatus`.
    :raises SystemExit: the guard refuses the start.
    """
    started = time.monotonic()
    _leave_on_signal()
    parked = os.environ.pop(PARKED, "") == "1"
    if not parked:
        guard.run(os.environ)
    try:
        from .process import run  # noqa: PLC0415 - the guard comes first
    except ImportError as error:
        print(f"driftguard-worker: expected an image with all its packages; found {error}; remedy: rebuild the image")
        return ExitStatus.INTERNAL
    return run(started, handlers, parked)


def become_another(parked: bool) -> NoReturn:
    """Replace this process by a new one of the same worker, of the same process id; what runs in threads ends here."""
    environment = {**os.environ, **({PARKED: "1"} if parked else {})}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


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

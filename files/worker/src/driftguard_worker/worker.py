# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""A worker of one's own: declare handlers, then run it."""

from __future__ import annotations

from typing import Optional

from .cli import start
from .jobs import DECLARED, Handlers

__all__ = ["Worker"]


class Worker:
    """One worker process.

    :param handlers: those to run; all that were declared with :func:`handler` by default.
    """

    def __init__(self, handlers: Optional[Handlers] = None) -> None:
        self._handlers = DECLARED if handlers is None else handlers

    def run(self) -> int:
        """Pass the guard, register, and work until a signal asks to stop.

        :returns: the exit status, for ``sys.exit``; docs/worker.md lists them.
        :raises SystemExit: the guard refuses the start.
        """
        return start(self._handlers)

# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""SIGTERM and SIGINT: the first one asks to stop, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from . import logs

__all__ = ["StopSignal"]


class StopSignal:
    """Waits for the request to stop. Must be made in the running event loop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._log = logs.get("signals")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._receive, number)

    async def wait(self) -> None:
        """Return after the first signal."""
        await self._asked.wait()

    def _receive(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            self._log.warning("second signal, leaving at once", signal=number.name)
            sys.stdout.flush()
            # Not sys.exit: whatever still holds the process must not hold it any longer.
            os._exit(128 + number)
        self._log.info("stopping", signal=number.name)
        self._asked.set()

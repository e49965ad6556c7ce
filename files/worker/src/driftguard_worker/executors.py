# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Where handlers run: beside the worker's loop, never in it."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Optional

from .jobs import Function, Handler, Job

__all__ = ["Executors"]

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Executors:
    """Threads for functions, one more loop for coroutines, processes for functions that ask for one.

    :param concurrency: jobs at a time.
    :param processes: whether some handler asks for a process.
    """

    def __init__(self, concurrency: int, processes: bool) -> None:
        self._concurrency = concurrency
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="handler")
        self._processes = _processes(concurrency) if processes else None
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    async def run(self, handler: Handler, job: Job) -> Any:
        """Run a handler on a job; its result.

        :raises Exception: whatever the handler raises, or that its process died.
        """
        if inspect.iscoroutinefunction(handler.function):
            running = asyncio.run_coroutine_threadsafe(handler.function(job), self._coroutines())
            return await asyncio.wrap_future(running)
        loop = asyncio.get_running_loop()
        if handler.process:
            return await self._in_process(handler.function, job)
        return await loop.run_in_executor(self._threads, handler.function, job)

    def abandon(self) -> None:
        """Kill what can be killed. Threads can't: the caller has to end or to replace the process."""
        for child in multiprocessing.active_children():
            child.kill()

    def close(self) -> None:
        """Let go of everything, without waiting."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _in_process(self, function: Function, job: Job) -> Any:
        pool = self._processes
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(pool, function, job)
        except BrokenProcessPool:
            # One dead process breaks the whole pool; the jobs that come next need another.
            if self._processes is pool:
                self._processes = _processes(self._concurrency)
            raise

    def _coroutines(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="coroutines", daemon=True).start()
        return self._loop


def _processes(concurrency: int) -> ProcessPoolExecutor:
    # Not forked: a fork of a process with threads and connections inherits locks that nobody will release.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(concurrency, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Runs in a handler's process: a worker that was killed must leave nothing behind that works on.

    The kernel sees to it, since a handler may hold the interpreter for as long as it likes.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:
        os._exit(1)

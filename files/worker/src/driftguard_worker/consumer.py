# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Takes the jobs of one queue through their life: fetched, admitted by the fence, worked on, settled or handed back."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Awaitable, Callable, Optional
from uuid import uuid4

from redis.backoff import EqualJitterBackoff

from . import logs
from .bull import STALLED_SECONDS, UNANSWERED, BullJob, BullWorker, NotOurs, attempts_of, checked
from .fence import Admission, Fence
from .jobs import Queue, Unrecoverable
from .metrics import Metrics

__all__ = ["Conduct", "Consumer", "Letter"]

Conduct = Callable[[BullJob, Admission], Awaitable[Any]]
Letter = Callable[[BullJob, str], Awaitable[None]]

# A job that was fetched, and its admission if the fence has given it already.
_Next = Optional[tuple[BullJob, Optional[Admission]]]

_BACKOFF = EqualJitterBackoff(cap=1.0, base=0.05)
_STEPS = 8
_LONGEST_REASON = 2000


class Consumer:
    """Consumes one queue, with so many lanes as jobs may run at a time. Closed until :meth:`open`.

    A lane that settles a job takes the next one in the same step. While nothing is there one lane waits for all.

    :param conduct: works on one job; returns its result.
    :param letter: writes the dead letter of a job, or takes it back where the reason is empty.
    """

    def __init__(
        self,
        bull: BullWorker,
        queue: Queue,
        concurrency: int,
        fence: Fence,
        conduct: Conduct,
        letter: Letter,
        metrics: Metrics,
    ) -> None:
        self._bull = bull
        self._queue = queue
        self._lanes = concurrency
        self._fence = fence
        self._conduct = conduct
        self._letter = letter
        self._metrics = metrics
        self._log = logs.get("consumer")
        self._open = asyncio.Event()
        self._turn = asyncio.Lock()
        self._in_hand: dict[str, BullJob] = {}
        self._working: set[str] = set()
        self._abandoned: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._unreachable = False

    async def run(self) -> None:
        """Take jobs, while it is open, until cancelled."""
        self._bull.start()
        marks = [uuid4().hex for _lane in range(self._lanes)]
        try:
            await asyncio.gather(self._recover(), *(self._lane(mark) for mark in marks))
        finally:
            with suppress(*UNANSWERED):
                await self._bull.close()

    def open(self) -> None:
        """Take jobs from now on."""
        if not self._open.is_set():
            self._bull.resume()
            self._open.set()

    async def close(self) -> None:
        """Take no more; what is in hand goes on."""
        self._open.clear()
        await self._bull.pause()

    async def idle(self) -> None:
        """Wait until nothing is in hand."""
        await self._idle.wait()

    @property
    def working(self) -> bool:
        """Whether a handler runs. A job whose handler is through may still wait for Redis to hear of it."""
        return bool(self._working)

    async def abandon(self) -> int:
        """Hand back what handlers still run on, without counting an attempt; how many jobs that were.

        The handlers can't be stopped from here: the caller has to end, or to replace, the process at once.
        """
        running = {token: job for token, job in self._in_hand.items() if token in self._working - self._abandoned}
        self._abandoned |= set(running)
        await asyncio.gather(*(self._give_back(job, token) for token, job in running.items()))
        return len(running)

    async def _lane(self, token: str) -> None:
        following: _Next = None
        failures = 0
        while True:
            try:
                following = following or await self._next(token)
                failures = 0
            except UNANSWERED as error:
                failures = min(failures + 1, _STEPS)
                self._complain(error)
                await asyncio.sleep(_BACKOFF.compute(failures))
            if following is not None:
                following = await self._process(*following, token)

    async def _next(self, token: str) -> _Next:
        await self._open.wait()
        async with self._turn:
            if self._bull.limited:
                await asyncio.sleep(min(self._bull.limited, 1.0))
            job = await self._bull.take(token) if self._open.is_set() else None
        self._relieved()
        return None if job is None else (job, None)

    async def _process(self, job: BullJob, admission: Optional[Admission], token: str) -> _Next:
        self._in_hand[token] = job
        self._idle.clear()
        self._bull.hold(job, token)
        try:
            if job.deferredFailure:
                await self._failed(job, token, RuntimeError(job.deferredFailure), True)
                return None
            if self._open.is_set():
                admission = admission or await self._fence.admit()
            if admission is None or not self._open.is_set():
                await self._give_back(job, token)
                return None
            if admission.waited and not await self._settle(job, lambda: self._bull.still_ours(job, token)):
                return None
            return await self._work(job, token, admission)
        finally:
            self._bull.release(job)
            self._in_hand.pop(token, None)
            if not self._in_hand:
                self._idle.set()

    async def _work(self, job: BullJob, token: str, admission: Admission) -> _Next:
        begun = time.perf_counter()
        self._working.add(token)
        try:
            result = checked(await self._conduct(job, admission))
        except Exception as error:
            # Whatever an application's handler raises fails its job, not the worker.
            self._working.discard(token)
            if token not in self._abandoned:
                await self._failed(job, token, error, isinstance(error, Unrecoverable))
            return None
        finally:
            self._working.discard(token)
            self._metrics.job_seconds.labels(self._queue.name).observe(time.perf_counter() - begun)
        if token in self._abandoned:
            return None
        following: _Next = await self._settle(job, lambda: self._complete(job, result, token))
        if job.stalledCounter:
            await self._settle(job, lambda: self._letter(job, ""))
            # That may have taken a while: the next job is asked for anew.
            following = following and (following[0], None)
        self._count("completed")
        return following

    async def _complete(self, job: BullJob, result: Any, token: str) -> _Next:
        if not self._open.is_set():
            await self._bull.complete(job, result, token)
            return None
        following, answer = await self._bull.complete_and_take(job, result, token, self._fence.question)
        return None if following is None else (following, self._fence.confirm(answer))

    async def _failed(self, job: BullJob, token: str, error: Exception, final: bool) -> None:
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        final = final or job.attemptsMade + 1 >= attempts_of(job)
        self._log.warning(
            "job failed", queue=self._queue.name, job=job.id, attempt=job.attemptsMade + 1, reason=reason, final=final
        )
        if final:
            # First the letter: a worker that dies between the two leaves a letter too many, never one too few.
            await self._settle(job, lambda: self._letter(job, reason))
        await self._settle(job, lambda: self._bull.fail(job, RuntimeError(reason), token, final))
        self._count("dead" if final else "failed")

    async def _give_back(self, job: BullJob, token: str) -> None:
        if await self._settle(job, lambda: self._bull.give_back(job, token)):
            self._count("handed back")

    async def _settle(self, job: BullJob, step: Callable[[], Awaitable[Any]]) -> Any:
        """Take a step until Redis has answered; nothing if the job turns out to be no longer ours."""
        failures = 0
        while True:
            try:
                answer = await step()
            except UNANSWERED as error:
                failures = min(failures + 1, _STEPS)
                self._complain(error)
                await asyncio.sleep(_BACKOFF.compute(failures))
            except NotOurs as error:
                # After an answer that got lost this is its echo; else the lock ran out, and the job is another's.
                self._log.warning("job is no longer ours", job=job.id, found=str(error), unanswered=failures > 0)
                self._count("lost")
                return None
            else:
                self._relieved()
                return answer

    async def _recover(self) -> None:
        while True:
            await self._open.wait()
            await self._bull.recover()
            await asyncio.sleep(STALLED_SECONDS)

    def _count(self, outcome: str) -> None:
        self._metrics.jobs.labels(self._queue.name, outcome).inc()

    def _complain(self, error: Exception) -> None:
        if not self._unreachable:
            found = f"{type(error).__name__}: {error}"
            self._log.error("queue doesn't answer", queue=self._queue.name, found=found, remedy=_REMEDY)
        self._unreachable = True

    def _relieved(self) -> None:
        if self._unreachable:
            self._log.info("queue answers again", queue=self._queue.name)
        self._unreachable = False


_REMEDY = "start Redis, or grant the user what BullMQ needs; jobs stay where they are, and it keeps trying"

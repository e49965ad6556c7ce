# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""All that a worker consumes and produces: a consumer per queue, the handlers, the dead letters."""

from __future__ import annotations

import asyncio
from typing import Any, Coroutine, Optional, Union

from . import logs
from .bull import Bull, BullJob, BullQueue
from .consumer import Consumer
from .drainer import Drainer
from .executors import Executors
from .fence import Admission, Fence
from .jobs import Handlers, Job, Queue
from .metrics import Metrics
from .registration import timestamp

__all__ = ["Workshop"]

_ADD_SECONDS = 30.0


class Workshop:
    """Must be made in the running event loop.

    :param release: the worker's own, for the jobs and the dead letters.
    :param concurrency: jobs at a time, of each queue.
    """

    def __init__(
        self, bull: Bull, handlers: Handlers, release: str, concurrency: int, fence: Fence, metrics: Metrics
    ) -> None:
        self._bull = bull
        self._handlers = handlers
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._log = logs.get("workshop")
        self._executors = Executors(concurrency * max(1, len(handlers.queues)), handlers.processes)
        self._queues: dict[str, BullQueue] = {}
        self._consumers: list[Union[Consumer, Drainer]] = [
            self._consumer(queue, concurrency, fence, metrics) for queue in handlers.queues
        ]

    def add(self, drainer: Drainer) -> None:
        """Open, run and close a drainer with the consumers."""
        self._consumers.append(drainer)

    async def run(self) -> None:
        """Take jobs, while it is open, until cancelled."""
        try:
            await asyncio.gather(asyncio.Event().wait(), *(consumer.run() for consumer in self._consumers))
        finally:
            self._executors.close()
            for queue in self._queues.values():
                await queue.close()

    def open(self) -> None:
        """Take jobs from now on."""
        for consumer in self._consumers:
            consumer.open()

    async def close(self) -> None:
        """Take no more, and return when nothing is in hand any longer."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(*(consumer.idle() for consumer in self._consumers))

    @property
    def working(self) -> bool:
        """Whether any handler runs."""
        return any(consumer.working for consumer in self._consumers)

    async def abandon(self) -> int:
        """Hand back what still runs; how many jobs. Their handlers go on until the process is ended or replaced."""
        self._executors.abandon()
        return sum(await asyncio.gather(*(consumer.abandon() for consumer in self._consumers)))

    def _consumer(self, queue: Queue, concurrency: int, fence: Fence, metrics: Metrics) -> Consumer:
        worker = self._bull.worker(queue)

        async def conduct(job: BullJob, admission: Admission) -> Any:
            return await self._conduct(queue, job, admission)

        async def letter(job: BullJob, reason: str) -> None:
            await self._letter(queue, job, reason)

        return Consumer(worker, queue, concurrency, fence, conduct, letter, metrics)

    async def _conduct(self, queue: Queue, job: BullJob, admission: Admission) -> Any:
        handler = self._handlers.find(queue.name, job.name)
        if handler is None:
            raise LookupError(f"no handler for jobs named {job.name!r} in release {self._release}")
        given = Job(
            id=str(job.id),
            name=job.name,
            queue=queue.name,
            data=job.data,
            attempt=job.attemptsMade + 1,
            admitted_at=admission.at,
            release=self._release,
            _adds=None if handler.process else self._add,
        )
        return await self._executors.run(handler, given)

    def _add(self, queue: Queue, data: Any, name: Optional[str], job_id: Optional[str], delay: float) -> str:
        """Called in a handler's thread."""
        adding: Coroutine[Any, Any, str] = self._queue(queue).add(name or queue.name, data, job_id, delay)
        return asyncio.run_coroutine_threadsafe(adding, self._loop).result(_ADD_SECONDS)

    def _queue(self, queue: Queue) -> BullQueue:
        if queue.name not in self._queues:
            self._queues[queue.name] = self._bull.queue(queue)
        return self._queues[queue.name]

    async def _letter(self, queue: Queue, job: BullJob, reason: str) -> None:
        key = queue.dead_letters
        if key not in self._queues:
            self._queues[key] = self._bull.letters(queue)
        letter_id = f"{queue.name}-{job.id}"
        if not reason:
            await self._queues[key].remove(letter_id)
            return
        letter = {
            "queue": queue.name,
            "jobId": str(job.id),
            "name": job.name,
            "data": job.data,
            "reason": reason,
            "attemptsMade": job.attemptsMade + 1,
            "failedAt": timestamp(await self._bull.time()),
            "release": self._release,
        }
        await self._queues[key].add(job.name, letter, letter_id)

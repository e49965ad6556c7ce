# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The continuous drainer of the document pipeline: cycles of stages that pass evidence on.

It is the only place where it is decided whether evidence is classified.

pending → (ocr → ) fetched → classification → extraction, or, with the switch off, fetched → extraction.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from typing import Any, Callable
from uuid import uuid4

from . import logs
from .bull import UNANSWERED, Bull, BullWorker, NotOurs
from .fence import Fence
from .flags import Flags
from .jobs import Queue
from .metrics import Metrics

__all__ = ["CLASSIFICATION", "EXTRACTION", "FETCHED", "OCR", "PENDING", "Cycle", "Drainer"]

PENDING = Queue("pending")
OCR = Queue("ocr")
FETCHED = Queue("fetched")
CLASSIFICATION = Queue("classification")
EXTRACTION = Queue("extraction")

SWITCH = "classification"
_BATCH = 500
_IDLE_SECONDS = 1.0


@dataclass
class Cycle:
    """What one cycle did: jobs by where they went, and the switch as it was read for it."""

    classification: bool
    pending: int = 0
    ocr: int = 0
    classify: int = 0
    extract: int = 0

    @property
    def moved(self) -> int:
        """Jobs in all."""
        return self.pending + self.classify + self.extract


class Drainer:
    """Runs cycles while it is open. Closed until :meth:`open`.

    :param initial: the switch's value when it has never been set.
    """

    def __init__(self, bull: Bull, flags: Flags, initial: bool, fence: Fence, metrics: Metrics) -> None:
        self._flags = flags
        self._initial = initial
        self._fence = fence
        self._metrics = metrics
        self._log = logs.get("drainer")
        self._sources = {queue.name: bull.worker(queue) for queue in (PENDING, FETCHED)}
        self._targets = {queue.name: bull.queue(queue) for queue in (OCR, FETCHED, CLASSIFICATION, EXTRACTION)}
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._token = uuid4().hex

    working = False

    async def run(self) -> None:
        """Run cycles, while it is open, until cancelled."""
        for source in self._sources.values():
            source.start()
        try:
            while True:
                await self._open.wait()
                moved = await self._try_cycle()
                if not moved:
                    await asyncio.sleep(_IDLE_SECONDS)
        finally:
            for source in self._sources.values():
                await source.close()
            for target in self._targets.values():
                await target.close()

    def open(self) -> None:
        """Run cycles from now on."""
        self._open.set()

    async def close(self) -> None:
        """Take no more; the job in hand goes on."""
        self._open.clear()

    async def idle(self) -> None:
        """Wait until nothing is in hand."""
        await self._idle.wait()

    async def abandon(self) -> int:
        """Nothing of it outlives its process."""
        return 0

    async def cycle(self) -> Cycle:
        """One cycle, all stages; the switch is read once, at its beginning.

        :raises redis.exceptions.RedisError: Redis didn't answer; what was not passed on stays where it was.
        """
        done = Cycle(await self._flags.enabled(SWITCH, self._initial))

        def from_pending(evidence: Any) -> Queue:
            scanned = isinstance(evidence, dict) and bool(evidence.get("needsOcr"))
            done.pending += 1
            done.ocr += scanned
            return OCR if scanned else FETCHED

        def from_fetched(_evidence: Any) -> Queue:
            done.classify += done.classification
            done.extract += not done.classification
            return CLASSIFICATION if done.classification else EXTRACTION

        for source, route in ((PENDING, from_pending), (FETCHED, from_fetched)):
            await self._drain(self._sources[source.name], source, route)
        return done

    async def _try_cycle(self) -> int:
        self._idle.clear()
        try:
            done = await self.cycle()
        except UNANSWERED as error:
            found = f"{type(error).__name__}: {error}"
            self._log.error("cycle cut off", found=found, remedy="start Redis; evidence stays where it is")
            return 0
        finally:
            self._idle.set()
        self._metrics.cycles.inc()
        if done.moved:
            self._log.info("cycle", **dataclasses.asdict(done))
        return done.moved

    async def _drain(self, source: BullWorker, queue: Queue, route: Callable[[Any], Queue]) -> None:
        for _place in range(_BATCH):
            job = await source.take_now(self._token) if self._open.is_set() else None
            if job is None:
                return
            source.hold(job, self._token)
            try:
                if await self._fence.admit() is None:
                    await source.give_back(job, self._token)
                    return
                target = route(job.data)
                # Passed on first, under an id of its own: cut off between the two, it becomes the same job again.
                await self._targets[target.name].add(target.name, job.data, f"{queue.name}-{job.id}")
                await source.complete(job, target.name, self._token)
                self._metrics.jobs.labels(queue.name, "completed").inc()
            except NotOurs as error:
                self._log.warning("job is no longer ours", queue=queue.name, job=job.id, found=str(error))
            finally:
                source.release(job)

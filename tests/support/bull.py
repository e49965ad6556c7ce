# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real BullMQ jobs, made, worked and failed by BullMQ for Python."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, Iterable

from bullmq import FlowProducer, Queue, Worker
from support.redis_server import RedisServer

__all__ = ["FLEET", "Bull", "refuse"]

FLEET = "demo"
DEADLINE_SECONDS = 180.0


async def refuse(job: Any, token: str) -> None:
    """A handler that fails every job."""
    raise ValueError("no such invoice")


class Bull:
    """BullMQ on one Redis.

    :param prefix: of the queues' keys.
    """

    def __init__(self, server: RedisServer, prefix: str = FLEET) -> None:
        self._server = server
        self.options = {"prefix": prefix, "connection": server.url}

    def add(self, queue: str, *jobs: dict[str, Any]) -> list[str]:
        """Add jobs, each ``{name, data, opts}``, any of them left out.

        :returns: their ids.
        """
        async def work() -> list[str]:
            bull = Queue(queue, self.options)
            try:
                added = [
                    await bull.add(job.get("name", "send"), job.get("data", {}), job.get("opts", {})) for job in jobs]
                return [str(job.id) for job in added]
            finally:
                await bull.close()

        return asyncio.run(work())

    def flow(self, tree: dict[str, Any]) -> Any:
        """Add a job with its children."""
        async def work() -> Any:
            producer = FlowProducer(self._server.url, {"prefix": self.options["prefix"]})
            try:
                return await producer.add(tree, {"prefix": self.options["prefix"]})
            finally:
                await producer.close()

        return asyncio.run(work())

    def schedule(self, queue: str, name: str, every: int) -> None:
        """Add a job scheduler."""
        async def work() -> None:
            bull = Queue(queue, self.options)
            try:
                await bull.upsertJobScheduler(name, {"every": every}, "tick", {})
            finally:
                await bull.close()

        asyncio.run(work())

    def pause(self, queue: str) -> None:
        """Pause a queue."""
        async def work() -> None:
            bull = Queue(queue, self.options)
            try:
                await bull.pause()
            finally:
                await bull.close()

        asyncio.run(work())

    def work(self, queue: str, handler: Callable[..., Awaitable[Any]] | None, until: Callable[[], Any]) -> list[str]:
        """Run a worker until a condition holds.

        :param handler: what it does with a job; None to complete it.
        :returns: ids of the jobs that it processed.
        """
        done: list[str] = []

        async def handle(job: Any, token: str) -> Any:
            done.append(str(job.id))
            return await handler(job, token) if handler else "done"

        async def run() -> None:
            worker = Worker(queue, handle, self.options)
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    while not until():
                        await asyncio.sleep(0.01)
            finally:
                await worker.close()

        asyncio.run(run())
        return done

    def finish(self, raw: Any, queue: str, jobs: Iterable[dict[str, Any]], state: str = "failed") -> list[str]:
        """Add jobs and let a worker complete or fail them.

        :param raw: a client, to see when it is done.
        """
        ids = self.add(queue, *jobs)
        place = f"{self.options['prefix']}:{queue}:{state}"
        wanted = raw.zcard(place) + len(ids)
        self.work(queue, refuse if state == "failed" else None, lambda: raw.zcard(place) == wanted)
        return ids

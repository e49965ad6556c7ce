# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""One worker from its start to its end: serve, register, be admitted, work, park, drain, deregister."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from . import logs
from .bull import Bull
from .decision import Standing
from .drainer import Drainer
from .errors import ExitStatus
from .fence import Fence
from .flags import Flags
from .health import Health, application
from .heartbeat import Heartbeat
from .identity import Identity
from .jobs import Handlers
from .lifecycle import Lifecycle, State
from .metrics import Metrics
from .names import GUARD_DIRECTORY
from .records import HostRecord
from .redis_options import RedisOptions
from .registration import Registration
from .server import HttpServer
from .signals import StopSignal
from .workshop import Workshop

__all__ = ["Replacement", "Runtime", "Task"]

# Far below a heartbeat, so that a beat and its retry fit into one, and a stop isn't held up by a silent Redis.
_REDIS_TIMEOUT_SECONDS = 2.0
_LEAVE_SECONDS = 5.0


class Replacement(Exception):
    """This process has to be replaced by a new one of the same worker.

    :param parked: whether the new one starts parked. Handlers that outlive the drain time end with their process.
    """

    def __init__(self, parked: bool) -> None:
        super().__init__(parked)
        self.parked = parked


@dataclass(frozen=True)
class Task:
    """What a worker is there for, and how.

    :param prefix: of the queues' keys.
    :param concurrency: jobs at a time, of each queue.
    :param drain: seconds that running jobs have when the worker stops or parks.
    :param production: whether the fence binds where no host record is mounted.
    :param parked: never take a job: this process replaced one that had to be parked.
    :param drains: run the drainer of the document pipeline.
    :param classification: the first value of its switch.
    :param guard_directory: where the host's record is mounted.
    """

    handlers: Handlers
    prefix: str
    concurrency: int
    drain: float
    production: bool
    parked: bool = False
    drains: bool = False
    classification: bool = True
    guard_directory: Path = Path(GUARD_DIRECTORY)


class Runtime:
    """Puts the parts together. Must be made in the running event loop.

    :param listener: the bound socket for ``/health`` and ``/metrics``.
    :param started: ``time.monotonic()`` at the start of the process.
    """

    def __init__(
        self, identity: Identity, redis: RedisOptions, listener: socket.socket, started: float, task: Task
    ) -> None:
        self._identity = identity
        self._listener = listener
        self._started = started
        self._task = task
        self._log = logs.get("runtime")
        self._lifecycle = Lifecycle()
        self._metrics = Metrics(identity, self._uptime)
        self._lifecycle.listen(self._metrics.follow)
        name = f"{identity.fleet}:worker:{identity.worker_id}"
        limits: dict[str, Any] = {
            "client_name": name,
            "socket_connect_timeout": _REDIS_TIMEOUT_SECONDS,
            "socket_timeout": _REDIS_TIMEOUT_SECONDS,
            # Heartbeat and fence have their own rhythm of retries.
            "retry": Retry(NoBackoff(), 0),
        }
        # One for each, so that neither waits for the other. The fence asks before every job, always on one connection:
        # taking one out of a pool would cost as much as the question.
        self._clients = [redis.client(**limits), redis.client(single_connection_client=True, **limits)]
        self._registration = Registration(self._clients[0], identity)
        self._heartbeat = Heartbeat(self._registration, self._lifecycle, self._metrics, redis.where, started)
        host = HostRecord(task.guard_directory, identity.baked)
        enforced = task.production or host.mounted
        self._fence = Fence(
            self._clients[1], identity.fleet, identity.baked, host, enforced, self._metrics, task.parked
        )
        if task.parked:
            self._become_fenced()
        handlers = Handlers() if task.parked else task.handlers
        bull = Bull(redis, task.prefix, identity.worker_id)
        self._workshop = Workshop(bull, handlers, identity.release_id, task.concurrency, self._fence, self._metrics)
        if task.drains and not task.parked:
            flags = Flags(self._clients[1], identity.fleet)
            self._workshop.add(Drainer(bull, flags, task.classification, self._fence, self._metrics))
        self._server = HttpServer(application(self._health, self._metrics.registry))
        self.abandoned = 0

    async def run(self, asked: "asyncio.Task[None] | None" = None) -> ExitStatus:
        """Run until a signal asks to stop.

        :param asked: ends when the worker has to stop; the first SIGTERM or SIGINT by default.
        :returns: the exit status of a stop that was asked for. Where :attr:`abandoned` jobs are still being worked on,
            the process must end at once.
        :raises WorkerError: Redis refuses the credentials.
        :raises Replacement: the process has to be replaced.
        """
        asked = asked or asyncio.create_task(StopSignal().wait())
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        beating = asyncio.create_task(self._heartbeat.run())
        working = asyncio.create_task(self._workshop.run())
        parts = [asyncio.create_task(part) for part in (self._fence.run(), self._obey())]
        try:
            await _until(asked, serving, beating, working, *parts)
            for part in parts[1:]:
                part.cancel()
            await self._drain()
            return await self._leave(beating)
        finally:
            self._server.stop()
            for task in (asked, beating, working, *parts):
                task.cancel()
            await asyncio.gather(asked, serving, beating, working, *parts, return_exceptions=True)
            for client in self._clients:
                await client.aclose()
            self._log.info("stopped", uptime=round(self._uptime(), 3))

    async def _obey(self) -> None:
        """Do what the fence says."""
        await self._heartbeat.registered.wait()
        while True:
            standing = self._fence.standing
            if standing is Standing.PARK and self._lifecycle.state is not State.FENCED:
                await self._park()
            elif standing is Standing.RUN:
                self._go()
            await self._fence.leaves(standing)

    def _go(self) -> None:
        if self._task.parked:
            raise Replacement(parked=False)
        self._workshop.open()
        if self._lifecycle.state is not State.RUNNING:
            self._lifecycle.move(State.RUNNING)
            self._log.info("running", release=self._identity.release_id)

    async def _park(self) -> None:
        self._log.warning("release not allowed, parking", release=self._identity.release_id, drain=self._task.drain)
        closing = asyncio.ensure_future(self._workshop.close())
        lifted = asyncio.ensure_future(self._fence.leaves(Standing.PARK))
        try:
            done, _pending = await asyncio.wait({closing, lifted}, timeout=0)
            if not done and self._lifecycle.state is State.RUNNING:
                self._lifecycle.move(State.DRAINING)
            either = {closing, lifted}
            done, _pending = await asyncio.wait(either, timeout=self._task.drain, return_when=asyncio.FIRST_COMPLETED)
            if not done and not self._workshop.working:
                # Nothing stale runs any more; what is done only waits for Redis to hear of it.
                done, _pending = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            lifted.cancel()
        if not done:
            await self._abandon()
            raise Replacement(parked=True)
        if self._fence.standing is Standing.PARK and self._lifecycle.state is not State.FENCED:
            self._become_fenced()

    def _become_fenced(self) -> None:
        self._lifecycle.move(State.FENCED)
        self._log.warning("fenced", release=self._identity.release_id, remedy=_REMEDY_FENCED)

    async def _drain(self) -> None:
        if self._lifecycle.state is not State.DRAINING:
            self._lifecycle.move(State.DRAINING)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._workshop.close(), self._task.drain)
            return
        await self._abandon()

    async def _abandon(self) -> None:
        try:
            self.abandoned = max(1, await asyncio.wait_for(self._workshop.abandon(), _LEAVE_SECONDS))
        except asyncio.TimeoutError:
            # Without Redis nothing can be handed back; the locks run out, and others take the jobs.
            self.abandoned = 1
        self._log.warning("drain time is over, jobs handed back", jobs=self.abandoned, drain=self._task.drain)

    async def _leave(self, beating: "asyncio.Task[None]") -> ExitStatus:
        self._heartbeat.stop()
        if not self._heartbeat.registered.is_set():
            return ExitStatus.CLEAN
        try:
            await asyncio.wait_for(self._withdraw_after(beating), _LEAVE_SECONDS)
        except (RedisError, OSError, asyncio.TimeoutError) as error:
            self._log.warning("not deregistered, the registration expires by itself", found=type(error).__name__)
            return ExitStatus.NOT_DEREGISTERED
        return ExitStatus.CLEAN

    async def _withdraw_after(self, beating: "asyncio.Task[None]") -> None:
        # A beat that lands after the withdrawal would bring the registration back for its whole lifetime.
        await beating
        await Retry(NoBackoff(), 1).call_with_retry(self._registration.withdraw, _ignore)

    def _health(self) -> Health:
        return Health(
            identity=self._identity,
            state=self._lifecycle.state,
            registered=self._heartbeat.alive,
            connected=self._heartbeat.connected,
            heartbeat_age=self._heartbeat.age,
            uptime=self._uptime(),
            standing=self._fence.standing,
            problems=self._fence.problems,
        )

    def _uptime(self) -> float:
        return time.monotonic() - self._started


async def _until(asked: "asyncio.Task[None]", *parts: "asyncio.Task[None]") -> None:
    """Wait for ``asked``; the parts go on for as long as that takes, and the failure of one is passed on."""
    done, _pending = await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    if asked not in done:
        raise RuntimeError("a part of the worker ended by itself")


async def _ignore(_error: RedisError) -> None:
    return None


_REMEDY_FENCED = "deploy an allowed release in its place; a rollback to this release lets it go on"

# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""One worker from its start to its end: serve, register, run, drain, deregister."""

from __future__ import annotations

import asyncio
import socket
import time

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from . import logs
from .errors import ExitStatus
from .health import Health, application
from .heartbeat import Heartbeat
from .identity import Identity
from .lifecycle import Lifecycle, State
from .metrics import Metrics
from .redis_options import RedisOptions
from .registration import Registration
from .server import HttpServer
from .signals import StopSignal

__all__ = ["Runtime"]

# Far below a heartbeat, so that a beat and its retry fit into one, and a stop isn't held up by a silent Redis.
_REDIS_TIMEOUT_SECONDS = 2.0
_LEAVE_SECONDS = 5.0


class Runtime:
    """Puts the parts together. Must be made in the running event loop.

    :param listener: the bound socket for ``/health`` and ``/metrics``.
    :param started: ``time.monotonic()`` at the start of the process.
    """

    def __init__(self, identity: Identity, redis: RedisOptions, listener: socket.socket, started: float) -> None:
        self._identity = identity
        self._listener = listener
        self._started = started
        self._log = logs.get("runtime")
        self._lifecycle = Lifecycle()
        self._metrics = Metrics(identity, self._uptime)
        self._lifecycle.listen(self._metrics.follow)
        self._client = redis.client(
            client_name=f"{identity.fleet}:worker:{identity.worker_id}",
            socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
            socket_timeout=_REDIS_TIMEOUT_SECONDS,
            # The heartbeat has its own rhythm of retries.
            retry=Retry(NoBackoff(), 0),
        )
        self._registration = Registration(self._client, identity)
        self._heartbeat = Heartbeat(self._registration, self._lifecycle, self._metrics, redis.where, started)
        self._server = HttpServer(application(self._health, self._metrics.registry))

    async def run(self) -> ExitStatus:
        """Run until a signal asks to stop.

        :returns: the exit status of a stop that was asked for.
        :raises WorkerError: Redis refuses the credentials.
        """
        asked = asyncio.create_task(StopSignal().wait())
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        beating = asyncio.create_task(self._heartbeat.run())
        working = asyncio.create_task(self._work())
        try:
            await _until(asked, serving, beating, working)
            self._lifecycle.move(State.DRAINING)
            return await self._leave(beating)
        finally:
            self._server.stop()
            for task in (asked, beating, working):
                task.cancel()
            await asyncio.gather(asked, serving, beating, working, return_exceptions=True)
            await self._client.aclose()
            self._log.info("stopped", uptime=round(self._uptime(), 3))

    async def _work(self) -> None:
        await self._heartbeat.registered.wait()
        self._lifecycle.move(State.RUNNING)
        self._log.info("running", release=self._identity.release_id)
        # Without a queue there is nothing to do but to be there.
        await asyncio.Event().wait()

    async def _leave(self, beating: asyncio.Task[None]) -> ExitStatus:
        self._heartbeat.stop()
        if not self._heartbeat.registered.is_set():
            return ExitStatus.CLEAN
        try:
            await asyncio.wait_for(self._withdraw_after(beating), _LEAVE_SECONDS)
        except (RedisError, OSError, asyncio.TimeoutError) as error:
            self._log.warning("not deregistered, the registration expires by itself", found=type(error).__name__)
            return ExitStatus.NOT_DEREGISTERED
        return ExitStatus.CLEAN

    async def _withdraw_after(self, beating: asyncio.Task[None]) -> None:
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
        )

    def _uptime(self) -> float:
        return time.monotonic() - self._started


async def _until(asked: asyncio.Task[None], *parts: asyncio.Task[None]) -> None:
    """Wait for ``asked``; the parts go on for as long as that takes, and the failure of one is passed on."""
    done, _pending = await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    if asked not in done:
        raise RuntimeError("a part of the worker ended by itself")


async def _ignore(_error: RedisError) -> None:
    return None

# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Keeps the registration alive, and tells whether it is."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import Optional

from redis.backoff import EqualJitterBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from . import logs
from .errors import ExitStatus, WorkerError
from .lifecycle import Lifecycle, State
from .metrics import Metrics
from .names import HEARTBEAT_SECONDS, REGISTRATION_TTL_SECONDS
from .registration import Registration

__all__ = ["Heartbeat"]

_FIRST_RETRY_SECONDS = 0.25
_BACKOFF_STEPS = 16
_IN_TRANSACTION = re.compile(r"Command # \d+ \((\w+ [^\s)]+).*\) of pipeline caused error", re.DOTALL)


class Heartbeat:
    """Registers, then renews the registration every five seconds and at each change of state.

    While Redis can't be reached it tries again, at first quickly, then once per heartbeat, with jitter: all workers of
    a fleet lose the same Redis at the same moment.

    :param where: the server for messages, without user and password.
    :param started: ``time.monotonic()`` at the start of the process.
    """

    def __init__(
        self, registration: Registration, lifecycle: Lifecycle, metrics: Metrics, where: str, started: float
    ) -> None:
        self.registered = asyncio.Event()
        self._registration = registration
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._where = where
        self._started = started
        self._log = logs.get("heartbeat")
        self._backoff = EqualJitterBackoff(cap=HEARTBEAT_SECONDS, base=_FIRST_RETRY_SECONDS)
        self._failures = 0
        self._last_error = ""
        self._last_success: Optional[float] = None
        self._wake = asyncio.Event()
        self._stopping = False
        lifecycle.listen(self._on_move)

    @property
    def connected(self) -> bool:
        """Whether the last heartbeat reached Redis."""
        return self._last_success is not None and not self._failures

    @property
    def age(self) -> Optional[float]:
        """Seconds since Redis last confirmed a heartbeat; nothing before the first."""
        return None if self._last_success is None else time.monotonic() - self._last_success

    @property
    def alive(self) -> bool:
        """Whether the registration can't have expired."""
        return self.age is not None and self.age < REGISTRATION_TTL_SECONDS

    async def run(self) -> None:
        """Beat until :meth:`stop`, and end between two beats, so that none can follow a withdrawal.

        :raises WorkerError: Redis refuses the credentials before the first registration.
        """
        while not self._stopping:
            self._wake.clear()
            await self._sleep(await self._beat())

    def stop(self) -> None:
        """Let :meth:`run` end after the beat that is under way."""
        self._stopping = True
        self._wake.set()

    def _on_move(self, _state: State) -> None:
        self._wake.set()

    async def _beat(self) -> float:
        begun = time.monotonic()
        try:
            await self._write()
        except (RedisError, OSError) as error:
            return self._failed(error)
        self._succeeded()
        return max(0.0, HEARTBEAT_SECONDS - (time.monotonic() - begun))

    async def _write(self) -> None:
        if self.registered.is_set():
            await self._registration.renew(self._lifecycle.state)
        else:
            uptime = time.monotonic() - self._started
            self._metrics.started(await self._registration.announce(self._lifecycle.state, uptime))

    def _succeeded(self) -> None:
        age = self.age
        if age is not None:
            self._metrics.heartbeat_gap.observe(age)
        if self._failures:
            self._log.info("redis answers again", redis=self._where, failures=self._failures)
        self._last_success = time.monotonic()
        self._failures, self._last_error = 0, ""
        self._metrics.heartbeats.inc()
        self.registered.set()

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        self._metrics.redis_errors.labels(type(error).__name__).inc()
        found = _described(error)
        refused = isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError))
        if refused and not self.registered.is_set():
            raise WorkerError(ExitStatus.REFUSED, f"Redis at {self._where}", _ACCEPT, found, _REMEDY_REFUSED)
        if found != self._last_error:
            remedy = _REMEDY_REFUSED if refused else _REMEDY_UNREACHABLE
            self._log.error("redis doesn't answer", redis=self._where, expected=_ACCEPT, found=found, remedy=remedy)
        self._last_error = found
        # Beyond that the pause has long reached its cap, and redis-py's power of two would outgrow a float in an hour.
        return float(self._backoff.compute(min(self._failures, _BACKOFF_STEPS)))

    async def _sleep(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)


def _described(error: Exception) -> str:
    # redis-py names the command with its values, which change with each beat, and drops what Redis said.
    command = _IN_TRANSACTION.match(str(error))
    return f"{type(error).__name__} at {command[1]}" if command else f"{type(error).__name__}: {error}"


_ACCEPT = "it to accept the registration"
_REMEDY_REFUSED = "correct the user in REDIS_URL, the password in REDIS_PASSWORD_FILE, or the user's rules in Redis"
_REMEDY_UNREACHABLE = "start Redis or correct REDIS_URL; the worker keeps trying"

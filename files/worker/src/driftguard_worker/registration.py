# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What an instance says of itself in Redis, and how it takes it back."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import NamedTuple

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from . import names
from .identity import Identity
from .lifecycle import State

__all__ = ["Announced", "Registration", "timestamp"]


def timestamp(seconds: float) -> str:
    """ISO-8601 in UTC with milliseconds and ``Z``, as the runbook's readers expect it.

    :param seconds: since the epoch.
    """
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Announced(NamedTuple):
    """A start, as Redis knows it.

    :param at: Redis' time of the process's start, in seconds since the epoch.
    :param restarts: starts of this instance before, since it was last stopped on request.
    """

    at: float
    restarts: int


class Registration:
    """The record of one instance: a hash that expires, a member of the index, and the runbook's key per worker type.

    Times are Redis' own, so hosts whose clocks disagree can be compared.

    :param client: used by this registration alone.
    """

    def __init__(self, client: Redis, identity: Identity) -> None:
        self._client = client
        self._identity = identity
        self._started = 0.0
        self._key = names.version_key(identity.fleet, identity.service, identity.instance)
        self._starts = names.starts_key(identity.fleet, identity.service, identity.instance)
        self._index = names.index_key(identity.fleet)

    async def announce(self, state: State, uptime: float) -> Announced:
        """Register this start: the record anew, and the runbook's key.

        :param uptime: seconds since the process started, which may have waited long for Redis.
        :returns: what Redis knows of it.
        :raises redis.exceptions.RedisError: nothing, or everything, has been written.
        """
        now = await self._now()
        self._started = now - uptime
        async with self._client.pipeline(transaction=True) as pipe:
            # A restarted container keeps its id: nothing of the earlier process may show through.
            pipe.delete(self._key)
            self._write(pipe, state, now)
            self._write_legacy(pipe)
            pipe.zremrangebyscore(self._index, "-inf", f"({now - names.INDEX_RETENTION_SECONDS}")
            pipe.incr(self._starts)
            pipe.expire(self._starts, names.STARTS_TTL_SECONDS)
            *_others, starts, _kept = await pipe.execute()
        return Announced(self._started, int(starts) - 1)

    async def renew(self, state: State) -> None:
        """Write the whole record again, so that a Redis that lost its data has it back.

        :raises redis.exceptions.RedisError: nothing, or everything, has been written.
        """
        now = await self._now()
        async with self._client.pipeline(transaction=True) as pipe:
            self._write(pipe, state, now)
            await pipe.execute()

    async def withdraw(self) -> None:
        """Take back the record and the member of the index; the runbook's key expires by itself.

        :raises redis.exceptions.RedisError: the record is still there, until it expires.
        """
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.delete(self._key, self._starts)
            pipe.zrem(self._index, self._identity.worker_id)
            await pipe.execute()

    async def _now(self) -> float:
        seconds, microseconds = await self._client.time()
        return float(seconds) + float(microseconds) / 1_000_000

    def _write(self, pipe: Pipeline, state: State, now: float) -> None:
        pipe.hset(self._key, mapping=self._record(state, now))
        pipe.expire(self._key, names.REGISTRATION_TTL_SECONDS)
        pipe.zadd(self._index, {self._identity.worker_id: now})

    def _write_legacy(self, pipe: Pipeline) -> None:
        key = names.legacy_key(self._identity.fleet, self._identity.service)
        pipe.hset(key, mapping=self._version())
        pipe.expire(key, names.LEGACY_TTL_SECONDS)

    def _version(self) -> dict[str, str]:
        return {
            "gitSha": self._identity.git_sha,
            "buildDate": self._identity.build_date,
            "startedAt": timestamp(self._started),
            "pid": str(self._identity.pid),
        }

    def _record(self, state: State, now: float) -> dict[str, str]:
        return {
            **self._version(),
            "host": self._identity.host,
            "service": self._identity.service,
            "containerId": self._identity.container_id,
            "releaseId": self._identity.release_id,
            "state": state.value,
            "heartbeatAt": timestamp(now),
        }

# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The fence: keeps asking whether this worker's release may still work, and lets no job start without an answer."""

from __future__ import annotations

import asyncio
import hashlib
from typing import NamedTuple, Optional, Union

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.backoff import EqualJitterBackoff
from redis.exceptions import NoPermissionError, RedisError

from . import logs, names
from .decision import Standing, View, decide
from .errors import ExitStatus, WorkerError
from .metrics import Metrics
from .records import HostRecord, ReleaseKey, view_of

__all__ = ["Admission", "Fence", "Question"]

# Read on the server in one step: in its order of things a job was admitted before, or after, a publication.
_ASK = """
local now, record = redis.call('TIME'), redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])
if type(record) == 'table' then record = 'of another type' end
if ARGV[2] then record = redis.sha1hex(record) end
return now[1] .. string.format('%06d', now[2]) .. ' ' .. record
"""
_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 1.0
_RETRY_STEPS = 8


class Admission(NamedTuple):
    """Leave to start one job.

    :param at: Redis' time when its release was allowed, in microseconds since the epoch.
    :param waited: whether Redis could not be asked at first, so that the job's lock may be another's by now.
    """

    at: int
    waited: bool


class Question(NamedTuple):
    """The fence's question, for whoever puts it in one go with a command of its own.

    Its answer, ASCII, goes to :meth:`Fence.confirm`.
    """

    sha: str
    key: str
    arguments: tuple[Union[int, str], ...]


class Fence:
    """What this instance may do, from the fleet's record and the host's. Must be made in the running event loop.

    :param client: used by the fence alone, with time limits and without retries.
    :param own: the release of this worker.
    :param enforced: whether to obey; else it only reports.
    :param parked: whether it begins parked: what lifts the fence is then what lifts it for who was parked before.
    """

    def __init__(
        self,
        client: Redis,
        fleet: str,
        own: Optional[ReleaseKey],
        host: HostRecord,
        enforced: bool,
        metrics: Metrics,
        parked: bool = False,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._own = own
        self._host = host
        self._enforced = enforced
        self._metrics = metrics
        self._log = logs.get("fence")
        self._key = names.release_key(fleet)
        self._ask = client.register_script(_ASK)
        self._standing = Standing.PARK if parked else Standing.WAIT
        metrics.fence.state(self._standing.value)
        self._problems: tuple[str, ...] = ()
        self._fleet_view = View.UNREACHABLE
        self._seen: Optional[bytes] = None
        self._seen_view = View.MISSING
        self._seen_mark = ""
        self._admitted_at = 0
        self._moved = asyncio.Event()
        self._asking = asyncio.Lock()
        self._put = 0

    @property
    def standing(self) -> Standing:
        """What this instance may do now."""
        return self._standing

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the records, such as ``host record missing``."""
        return self._problems

    async def leaves(self, standing: Standing) -> None:
        """Wait until the standing is another one."""
        while self._standing is standing:
            await self._moved.wait()

    async def run(self) -> None:
        """Watch both records until cancelled."""
        await asyncio.gather(self._watch_fleet(), self._watch_host(), self._listen())

    async def admit(self) -> Optional[Admission]:
        """Ask whether one job may start; waits while Redis can't be asked.

        Both records are read after the call, whatever was known before.

        :returns: nothing where it may not: the job has to be handed back.
        """
        failures = 0
        while True:
            await self.refresh()
            if self._standing is Standing.RUN:
                return Admission(self._admitted_at, failures > 0)
            if self._standing is Standing.PARK:
                return None
            failures = min(failures + 1, _RETRY_STEPS)
            await asyncio.sleep(_pause(failures))

    @property
    def question(self) -> Question:
        """Asks only whether the fleet's record is the one that was read last."""
        return Question(self._ask.sha, self._key, (names.MAX_RECORD_BYTES, "sha1"))

    def confirm(self, answer: str) -> Optional[Admission]:
        """Leave to start the job that was fetched right before the question was put.

        :returns: nothing where the answer doesn't suffice: :meth:`admit` has to be asked.
        """
        microseconds, _space, mark = answer.partition(" ")
        if mark != self._seen_mark:
            return None
        self._decide()
        return Admission(int(microseconds), False) if self._standing is Standing.RUN else None

    async def refresh(self) -> None:
        """Read both records and decide.

        A question that was put after the call answers for all who waited for their turn meanwhile; one that was under
        way answers for nobody else, since it may have been read before they came.
        """
        put = self._put
        async with self._asking:
            if self._put == put:
                self._put += 1
                await self._put_question()

    async def _put_question(self) -> None:
        try:
            answer: bytes = await self._ask(keys=[self._key], args=[names.MAX_RECORD_BYTES])
        except (RedisError, OSError) as error:
            self._refused(error)
            self._fleet_view = View.UNREACHABLE
        else:
            microseconds, _space, content = answer.partition(b" ")
            self._fleet_view = self._read(content)
            self._admitted_at = int(microseconds)
        self._decide()

    def _refused(self, error: Exception) -> None:
        # Wrong credentials are the heartbeat's to say.
        if isinstance(error, NoPermissionError) and self._standing is Standing.WAIT:
            where = f"Redis, key {self._key}"
            raise WorkerError(ExitStatus.REFUSED, where, "leave to read it", f"{type(error).__name__}: {error}", _GRANT)

    def _read(self, content: bytes) -> View:
        if content != self._seen:
            self._seen, self._seen_view = content, view_of(content, self._own, self._fleet)
            self._seen_mark = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return self._seen_view

    def _decide(self) -> None:
        standing, problems = decide(self._standing, self._host.view(), self._fleet_view)
        if not self._enforced and standing is Standing.PARK:
            standing, problems = Standing.RUN, (*problems, "release not allowed (not enforced outside production)")
        if problems != self._problems:
            self._report(problems)
        if standing is not self._standing:
            self._log.info("fence moved", before=self._standing.value, now=standing.value, release=self._own)
            self._standing = standing
            self._metrics.fence.state(standing.value)
            self._moved.set()
            self._moved = asyncio.Event()

    def _report(self, problems: tuple[str, ...]) -> None:
        for problem in sorted({*problems} - {*self._problems}):
            self._log.warning("record in question", found=problem, remedy=_REMEDY)
        for problem in sorted({*self._problems} - {*problems}):
            self._log.info("record is right again", found=problem)
        self._metrics.fence_problems.set(len(problems))
        self._problems = problems

    async def _watch_fleet(self) -> None:
        failures = 0
        while True:
            await self.refresh()
            failures = failures + 1 if self._fleet_view is View.UNREACHABLE else 0
            await asyncio.sleep(_pause(failures) if failures else names.HEARTBEAT_SECONDS)

    async def _watch_host(self) -> None:
        # Nothing is asked of Redis here: a host's record has to count while Redis is away.
        while True:
            await asyncio.sleep(names.HOST_LOOK_SECONDS)
            self._decide()

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._client.pubsub() as events:
                    await events.subscribe(names.events_channel(self._fleet))
                    # What was announced before the subscription is in the record.
                    await self.refresh()
                    failures = 0
                    await self._follow(events)
            except NoPermissionError as error:
                if not failures:
                    self._log.warning("publications aren't heard", found=str(error), remedy=_CHANNELS)
            except (RedisError, OSError):
                # The heartbeat says that Redis is away.
                pass
            failures += 1
            await asyncio.sleep(_pause(min(failures, _RETRY_STEPS)))

    async def _follow(self, events: PubSub) -> None:
        while True:
            message = await events.get_message(ignore_subscribe_messages=True, timeout=names.HEARTBEAT_SECONDS)
            if message is not None:
                await self.refresh()


def _pause(failures: int) -> float:
    backoff = EqualJitterBackoff(cap=_LONGEST_RETRY_SECONDS, base=_FIRST_RETRY_SECONDS)
    return float(backoff.compute(min(failures, _RETRY_STEPS)))


_GRANT = "grant the user of REDIS_URL evalsha, script|load, getrange and time (docs/worker.md)"
_CHANNELS = "grant subscribe, unsubscribe and the fleet's channels; until then only each heartbeat asks"
_REMEDY = "deploy again: it writes both records anew; until then a verify run fails"

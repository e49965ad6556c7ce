# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The one file that knows BullMQ for Python: makes its queues and consumers, each with a connection of its own."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from typing import Any, Iterator, Optional

import bullmq
from bullmq.scripts import raw2NextJobData
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from .fence import Question
from .jobs import Queue
from .redis_options import RedisOptions

__all__ = [
    "STALLED_SECONDS",
    "UNANSWERED",
    "Bull",
    "BullJob",
    "BullQueue",
    "BullWorker",
    "NotOurs",
    "attempts_of",
    "checked",
]

# BullMQ's scripts aren't idempotent: whoever calls one decides what an answer that never came means.
UNANSWERED = (RedisError, OSError, asyncio.TimeoutError)

BullJob = Any  # bullmq.Job; the package has no types

_LOCK_MILLISECONDS = 30_000
_STALLED_MILLISECONDS = 15_000
_IDLE_SECONDS = 5
STALLED_SECONDS = _STALLED_MILLISECONDS / 1000


class NotOurs(Exception):
    """The job was given to another worker, settled, or removed."""


class BullQueue:
    """Adds jobs to one queue."""

    def __init__(self, queue: Any, options: Queue) -> None:
        self._queue = queue
        self._options = options

    async def add(self, name: str, data: Any, job_id: Optional[str] = None, delay: float = 0.0) -> str:
        """Add a job; its id. An id that is there already adds nothing."""
        options: dict[str, Any] = {} if job_id is None else {"jobId": job_id}
        if delay > 0:
            options["delay"] = round(delay * 1000)
        return str((await self._queue.add(name, data, options)).id)

    async def remove(self, job_id: str) -> None:
        """Remove a job, if it is there."""
        await self._queue.remove(job_id)

    async def close(self) -> None:
        """Close its connection."""
        await self._queue.close()


class BullWorker:
    """Takes jobs of one queue and settles them.

    BullMQ's own loop isn't used: it fetches while it is being paused, and it fails a job when Redis doesn't answer for
    the job's result.
    """

    def __init__(self, worker: Any, options: Queue) -> None:
        self._worker = worker
        self._options = options
        worker.on("error", _ignore)

    @property
    def limited(self) -> float:
        """Seconds until the queue's rate limit lets another job start; 0 without need."""
        return max(0.0, float(self._worker.limitUntil) / 1000)

    def start(self) -> None:
        """Begin to renew the locks of the jobs in hand."""
        self._worker.lockManager.start()

    async def pause(self) -> None:
        """Wake up whoever waits in :meth:`take`, with nothing."""
        await self._worker.pause(True)

    def resume(self) -> None:
        """Let :meth:`take` wait again."""
        self._worker.resume()

    async def take(self, token: str) -> Optional[BullJob]:
        """The next job, locked; waits a while for one."""
        return await self._worker.getNextJob(token)

    async def take_now(self, token: str) -> Optional[BullJob]:
        """The next job, locked, if there is one now."""
        return await self._worker.moveToActive(token)

    def hold(self, job: BullJob, token: str) -> None:
        """Keep a job's lock alive until :meth:`release`."""
        self._worker.lockManager.track_job(job.id, token, _now())

    def release(self, job: BullJob) -> None:
        """Let a job's lock expire."""
        self._worker.lockManager.untrack_job(job.id)

    async def still_ours(self, job: BullJob, token: str) -> bool:
        """Whether the lock is still this token's; renews it."""
        return bool(await self._worker.backend.extendLock(job.id, token, _LOCK_MILLISECONDS))

    async def complete(self, job: BullJob, result: Any, token: str) -> None:
        """Complete a job.

        :raises NotOurs: the job is no longer this token's.
        """
        with _ours():
            await self._worker.backend.moveToCompleted(job, result, self._keep(job), token, fetch_next=False)

    async def complete_and_take(
        self, job: BullJob, result: Any, token: str, question: Question
    ) -> tuple[Optional[BullJob], str]:
        """Complete a job, take the next one and put the fence's question, all in one go.

        :returns: the next job, of the same token, if there is one; and the answer, which Redis gave after the job was
            fetched, or nothing.
        :raises NotOurs: the job is no longer this token's.
        """
        scripts = self._worker.backend.scripts
        keys, arguments = scripts.moveToCompletedArgs(job, result, self._keep(job), token, True)
        pipe = self._worker.backend.conn.pipeline(transaction=False)
        pipe.evalsha(scripts.commands["moveToFinished"].sha, len(keys), *keys, *arguments)
        pipe.evalsha(question.sha, 1, question.key, *question.arguments)
        with _ours():
            done, answer = await pipe.execute(raise_on_error=False)
            if isinstance(done, NoScriptError):
                # As after a restart of Redis: this way loads the script. The answer is older than what it fetches.
                done, answer = await scripts.commands["moveToFinished"](keys=keys, args=arguments), None
            if isinstance(done, Exception):
                raise done
            if isinstance(done, int) and done < 0:
                raise TypeError(f"job {job.id}: code {done}")
        data, job_id, limit, delay = raw2NextJobData(done) or (None, None, None, None)
        following = await self._worker.nextJobFromJobData(data, job_id, limit or 0, delay or 0, token)
        return following, answer if isinstance(answer, str) else ""

    def _keep(self, job: BullJob) -> Any:
        return job.opts.get("removeOnComplete", {"count": self._options.keep_completed})

    async def fail(self, job: BullJob, error: Exception, token: str, final: bool) -> None:
        """Fail an attempt: the job is tried again after its backoff, or it has failed.

        :raises NotOurs: the job is no longer this token's.
        """
        job.opts.setdefault("removeOnFail", {"count": self._options.keep_failed})
        with _ours():
            await job.moveToFailed(bullmq.UnrecoverableError(str(error)) if final else error, token)

    async def give_back(self, job: BullJob, token: str) -> bool:
        """Return a job without counting an attempt; it may start at once elsewhere.

        :raises NotOurs: the job is no longer this token's.
        """
        with _ours():
            await job.moveToDelayed(_now(), token)
        return True

    async def recover(self) -> None:
        """Put jobs back whose workers are gone."""
        await self._worker.runStalledJobsCheck()

    async def close(self) -> None:
        """Close its connections."""
        await self._worker.close(force=True)


class Bull:
    """Makes queues and consumers: one prefix, and for each a connection of its own from the one set of options.

    :param name: of this worker, for the list of clients.
    """

    def __init__(self, redis: RedisOptions, prefix: str, name: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._name = name

    def queue(self, options: Queue) -> BullQueue:
        """A queue to add jobs to."""
        defaults = {
            "attempts": options.attempts,
            "backoff": {"type": "exponential", "delay": round(options.backoff * 1000)},
            "removeOnComplete": {"count": options.keep_completed},
            "removeOnFail": {"count": options.keep_failed},
        }
        return BullQueue(bullmq.Queue(options.name, {**self._common(), "defaultJobOptions": defaults}), options)

    def letters(self, options: Queue) -> BullQueue:
        """The queue of another one's dead letters: nothing of it is ever tried or dropped."""
        return BullQueue(bullmq.Queue(options.dead_letters, self._common()), options)

    def worker(self, options: Queue) -> BullWorker:
        """A consumer of a queue."""
        rate = options.rate
        limits = {"limiter": {"max": rate.jobs, "duration": round(rate.seconds * 1000)}} if rate else {}
        return BullWorker(
            bullmq.Worker(
                options.name,
                None,
                {
                    **self._common(),
                    "autorun": False,
                    "name": self._name,
                    "drainDelay": _IDLE_SECONDS,
                    "lockDuration": _LOCK_MILLISECONDS,
                    "stalledInterval": _STALLED_MILLISECONDS,
                    "maxStalledCount": options.stalls,
                    **limits,
                },
            ),
            options,
        )

    async def time(self) -> float:
        """Redis' time, in seconds since the epoch."""
        client = self._redis.client()
        try:
            seconds, microseconds = await client.time()
        finally:
            await client.aclose()
        return float(seconds) + float(microseconds) / 1_000_000

    def _common(self) -> dict[str, Any]:
        client = self._redis.client(
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )
        return {"connection": client, "prefix": self._prefix}


def attempts_of(job: BullJob) -> int:
    """How often a job is to be tried in all."""
    return int(job.opts.get("attempts") or 1)


def checked(result: Any) -> Any:
    """A handler's result, if JSON can hold it.

    :raises TypeError: it can't; also ValueError, for numbers like infinity.
    """
    json.dumps(result, allow_nan=False)
    return result


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        # What BullMQ raises for a script that found no lock, another's lock, or no job.
        raise NotOurs(str(error)) from None


def _now() -> int:
    return int(time.time() * 1000)


def _ignore(*_arguments: Any) -> None:
    return None

# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What an application's handlers see: queues, jobs, and how a handler is declared.

Loads nothing but the standard library, since the start guard comes before anything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, Protocol, TypeVar, Union

__all__ = ["Handler", "Handlers", "Job", "Queue", "RateLimit", "Unrecoverable", "handler"]

_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


class Unrecoverable(Exception):
    """Raised by a handler whose job can't succeed however often it is tried: it goes to the dead letters at once."""


@dataclass(frozen=True)
class RateLimit:
    """At most so many jobs of a queue are started in so many seconds, by all its workers together."""

    jobs: int
    seconds: float


@dataclass(frozen=True)
class Queue:
    """A queue, and what counts for its jobs unless a job says otherwise.

    :param attempts: how often a job is tried in all.
    :param backoff: seconds before the second attempt; they double with each further one.
    :param keep_completed: how many completed jobs are kept.
    :param keep_failed: how many failed jobs are kept; the dead letters are kept all.
    :param rate: limit for all workers of the queue together.
    :param stalls: how often a job may lose its worker (killed, cut off) before it counts as the cause.
    """

    name: str
    attempts: int = 3
    backoff: float = 1.0
    keep_completed: int = 1000
    keep_failed: int = 5000
    rate: Optional[RateLimit] = None
    stalls: int = 5

    def __post_init__(self) -> None:
        if not _QUEUE.match(self.name):
            raise ValueError(f"queue name: expected letters, digits and ._- (1 to 100); found {self.name!r}")

    @property
    def dead_letters(self) -> str:
        """Name of the queue that its dead letters are in."""
        return f"{self.name}-dead"


class _Adds(Protocol):
    def __call__(self, queue: Queue, data: Any, name: Optional[str], job_id: Optional[str], delay: float) -> str: ...


@dataclass(frozen=True)
class Job:
    """One job, as a handler gets it.

    :param attempt: 1 for the first.
    :param admitted_at: Redis' time when this release was allowed to start it, in microseconds since the epoch.
    :param release: the release that works on it.
    """

    id: str
    name: str
    queue: str
    data: Any
    attempt: int
    admitted_at: int
    release: str
    _adds: Optional[_Adds] = field(default=None, repr=False, compare=False)

    def add(
        self, queue: Queue, data: Any, name: Optional[str] = None, job_id: Optional[str] = None, delay: float = 0.0
    ) -> str:
        """Add a job to a queue, from the thread that the handler runs in.

        :param data: anything that JSON can hold.
        :param name: the job's name; the queue's by default.
        :param job_id: adding the same id twice adds one job, so that a handler that is tried again adds nothing twice.
        :param delay: seconds before it may start.
        :returns: the job's id.
        :raises RuntimeError: the handler runs in a process of its own, which has no connection.
        """
        if self._adds is None:
            raise RuntimeError("a handler with process=True can't add jobs: return what the next step needs instead")
        return self._adds(queue, data, name, job_id, delay)


Function = Callable[[Job], Any]
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Handler:
    """A function, and the jobs that are its.

    :param name: jobs of this name only; none for all that have no handler of their own.
    :param process: run it in a process of its own, for code that holds the interpreter for long.
    """

    queue: Queue
    function: Function
    name: Optional[str] = None
    process: bool = False


class Handlers:
    """Handlers by queue and name."""

    def __init__(self) -> None:
        self._found: dict[str, dict[Optional[str], Handler]] = {}
        self._queues: dict[str, Queue] = {}

    def add(self, new: Handler) -> None:
        """Take a handler in.

        :raises ValueError: there is one for these jobs, or the same queue was declared with other options.
        """
        known = self._queues.setdefault(new.queue.name, new.queue)
        if known != new.queue:
            raise ValueError(f"queue {new.queue.name}: expected one declaration; found two that differ")
        of_queue = self._found.setdefault(new.queue.name, {})
        if new.name in of_queue:
            raise ValueError(f"queue {new.queue.name}: expected one handler for {new.name or 'all jobs'}; found two")
        of_queue[new.name] = new

    @property
    def queues(self) -> list[Queue]:
        """The queues that have handlers, by name."""
        return [self._queues[name] for name in sorted(self._queues)]

    @property
    def processes(self) -> bool:
        """Whether any handler wants a process of its own."""
        return any(found.process for of_queue in self._found.values() for found in of_queue.values())

    def find(self, queue: str, name: str) -> Optional[Handler]:
        """The handler of a job."""
        of_queue: Mapping[Optional[str], Handler] = self._found.get(queue, {})
        return of_queue.get(name) or of_queue.get(None)


DECLARED = Handlers()


def handler(queue: Union[Queue, str], name: Optional[str] = None, process: bool = False) -> Callable[[_F], _F]:
    """Declare a function, or a coroutine function, as the handler of a queue's jobs.

    It runs beside the worker's own loop, in a thread, a loop for coroutines or a process: however long it takes, locks
    and registration are kept alive and signals and the fence are heard. What it returns, JSON, is the job's result;
    what it raises fails the attempt.

    :param queue: the queue, or its name for a queue with the usual options.
    :param name: only the jobs of this name; one handler without a name takes all others.
    :param process: run it in a process of its own.
    """

    def declare(function: _F) -> _F:
        DECLARED.add(Handler(Queue(queue) if isinstance(queue, str) else queue, function, name, process))
        return function

    return declare

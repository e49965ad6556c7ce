# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs for a fleet of the ledger while it is deployed, and what became of them, in the order of Redis's own clock."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import threading
import time
from typing import Any, Callable, Iterable, NamedTuple

import bullmq
import redis as redis_py

from .fleet import LabFleet

__all__ = ["Publication", "Start", "Traffic", "stale"]

BATCH = 250
#: Entries that wait, at least, as long as the deployments go on: no worker is ever idle.
BACKLOG = 1000
#: Seconds that an entry takes. One in a hundred takes longer than a worker has for draining.
SHORT, LONG, SELDOM = 0.4, 8.0, 100
# The record with Redis's time, read in one step: in Redis's order of things it was so then.
LOOK = """
local now = redis.call('TIME')
return {now[1] .. string.format('%06d', now[2]), redis.call('GET', KEYS[1]) or ''}
"""


class Publication(NamedTuple):
    """A record of the fleet, as it was seen in Redis. Times are Redis's own, in microseconds.

    :param after: when the one before was seen for the last time.
    :param at: when it was seen first; it was published in between.
    :param allowed: ids of the releases that may start a job.
    """

    after: int
    at: int
    allowed: frozenset[str]


class Start(NamedTuple):
    """A release that began to work on an entry, and Redis's time when it was let."""

    at: int
    entry: str
    release: str


def stale(starts: Iterable[Start], publications: list[Publication]) -> list[Start]:
    """What was started by a release that the record of that time didn't allow.

    Between the last look at a record and the first one at its successor either may have been the one.
    """
    firsts = [published.at for published in publications]
    found = []
    for start in starts:
        number = bisect.bisect_right(firsts, start.at) - 1
        possible = publications[max(number, 0):number + 1]
        possible += [published for published in publications[number + 1:] if published.after <= start.at]
        if not any(start.release in published.allowed for published in possible):
            found.append(start)
    return found


class Traffic:
    """Adds entries, watches the record, what is done, and how workers drain.

    :param least: entries that are added at once; then more, so that there is always something to do.
    """

    def __init__(self, fleet: LabFleet, least: int) -> None:
        self.added: set[str] = set()
        self.publications: list[Publication] = []
        self.booked: list[tuple[float, int]] = []
        self.drains: list[float] = []
        self.marks: list[tuple[str, float]] = []
        self._fleet = fleet
        self._least = least
        self._enough, self._over = threading.Event(), threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), daemon=True)
            for run in (lambda: asyncio.run(self._add()), self._watch, self._count)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop_adding()
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # a thread that fell over must not look like one that saw nothing
            self._failed.append(error)
            raise

    def _key(self, *parts: str) -> str:
        return ":".join((self._fleet.name, *parts))

    async def _add(self) -> None:
        place = self._fleet.redis.client.get_connection_kwargs()
        connection = {key: place[key] for key in ("host", "username", "password", "ssl_ca_certs")}
        queue = bullmq.Queue("entries", {"connection": {**connection, "ssl": True}, "prefix": self._fleet.name})
        client = self._fleet.redis.client
        while not self._over.is_set() and not (self._enough.is_set() and len(self.added) >= self._least):
            if len(self.added) >= self._least and not await asyncio.to_thread(self._runs_dry, client):
                await asyncio.sleep(0.2)
                continue
            await self._add_batch(queue)
        await queue.close()

    def _runs_dry(self, client: Any) -> bool:
        try:
            return int(client.llen(self._key("entries", "wait"))) < BACKLOG
        except redis_py.RedisError:
            return False

    async def _add_batch(self, queue: Any) -> None:
        first = len(self.added)
        numbers = range(first, first + BATCH)
        jobs = [{"name": "entry", "data": {"seconds": SHORT if number % SELDOM else LONG},
                 "opts": {"attempts": 5, "jobId": f"entry-{number}", "removeOnComplete": False}} for number in numbers]
        while not self._over.is_set():
            try:
                await queue.addBulk(jobs)
            except (redis_py.RedisError, OSError):
                await asyncio.sleep(0.2)  # the same ids again: what had arrived is not added twice
            else:
                self.added.update(f"entry-{number}" for number in numbers)
                return

    def _watch(self) -> None:
        look = self._fleet.redis.client.register_script(LOOK)
        last, text = 0, None
        while not self._over.wait(0.01):
            try:
                moment, found = look(keys=[self._key("release")])
            except redis_py.RedisError:
                continue
            if found != text:
                record = json.loads(found) if found else {"allowed": []}
                allowed = frozenset(release["releaseId"] for release in record["allowed"])
                self.publications.append(Publication(last, int(moment), allowed))
            last, text = int(moment), found

    def _count(self) -> None:
        client = self._fleet.redis.client
        draining: dict[str, float] = {}
        while not self._over.wait(0.2):
            try:
                done = int(client.llen(self._key("booked", "wait")))
                states = self._states(client)
            except redis_py.RedisError:
                continue
            now = time.time()
            self.booked.append((now, done))
            for member in states:
                if states[member] == "draining":
                    draining.setdefault(member, now)
            self.drains += [now - draining.pop(member) for member in set(draining) if states.get(member) != "draining"]

    def _states(self, client: Any) -> dict[str, str]:
        members = client.zrange(self._key("workers"), 0, -1)
        with client.pipeline(transaction=False) as pipe:
            for member in members:
                pipe.hget(self._key("worker", member, "version"), "state")
            return dict(zip(members, pipe.execute(), strict=True))

    def mark(self, name: str) -> None:
        """Note that a part of what befalls the fleet begins now."""
        self.marks.append((name, time.time()))

    def stop_adding(self) -> None:
        """Add no more than the least."""
        self._enough.set()
        self._threads[0].join(300)
        assert not self._threads[0].is_alive()
        assert not self._failed, self._failed

    def done(self) -> int:
        """How many entries are booked."""
        return int(self._fleet.redis.client.llen(self._key("booked", "wait")))

    def left(self) -> dict[str, int]:
        """Entries that are anywhere but through, and dead letters."""
        client = self._fleet.redis.client
        found = {name: client.llen(self._key("entries", name)) for name in ("wait", "active", "paused")}
        found.update({name: client.zcard(self._key("entries", name)) for name in ("delayed", "failed", "prioritized")})
        found["dead"] = client.llen(self._key("entries-dead", "wait"))
        return {name: int(number) for name, number in found.items() if number}

    def completed(self) -> list[str]:
        """Ids of the entries that are through, as the queue has it."""
        return [str(one) for one in self._fleet.redis.client.zrange(self._key("entries", "completed"), 0, -1)]

    def starts(self) -> list[Start]:
        """Each time that a worker began to work on an entry."""
        return self._told("started")

    def bookings(self) -> list[Start]:
        """What the sink has."""
        return self._told("booked")

    def _told(self, queue: str) -> list[Start]:
        client = self._fleet.redis.client
        with client.pipeline(transaction=False) as pipe:
            for job in client.lrange(self._key(queue, "wait"), 0, -1):
                pipe.hget(self._key(queue, job), "data")
            rows = [json.loads(row) for row in pipe.execute()]
        return [Start(row["admittedAt"], row["entry"], row["release"]) for row in rows]

    def rates(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Entries booked a second, each over about two seconds."""
        every = [one for one in self.booked if since <= one[0] <= until][::10]
        return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(every)]

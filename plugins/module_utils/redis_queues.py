# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BullMQ's queues in Redis: finding, counting, reading and taking out jobs. Builds on :class:`RedisGateway`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional, Sequence

from .errors import DriftguardError
from .queue_scripts import INSPECT, REMOVE
from .queues import LISTS, SETS, Queue, is_marker
from .redis_gateway import RedisGateway

MAX_QUEUES = 1000
MAX_SCANS = 5000
KEYS_PER_SCAN = 1000
QUEUES_PER_PASS = 50
IDS_PER_PASS = 1000
JOBS_PER_SCRIPT = 100
#: How many entries at either end of a waiting list are looked at for the oldest, and how many active jobs for a lock.
ENDS = 10
ACTIVE = 1000
#: How much deeper in a list than a job was it is looked for, when others were put behind it meanwhile.
SLACK = 10_000
_META = ("paused", "max", "opts.maxLenEvents", "version")


@dataclass
class Depths:
    """What one queue holds.

    :param counts: jobs by BullMQ's own name of the place; None where the key is none of BullMQ's.
    :param meta: of its fields ``paused``, ``max``, ``opts.maxLenEvents`` and ``version`` those that are there.
    :param limiter: jobs counted in the current rate-limit window, and milliseconds until it ends.
    :param waiting: ids at both ends of the waiting lists; active: ids of (the first 1000) active jobs.
    :param stamps: their time as stored, by id; unlocked: how many of the active have no lock.
    :param problems: what could not be read.
    """

    counts: dict[str, Optional[int]] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)
    limiter: tuple[Any, int] = (None, -2)
    waiting: list[bytes] = field(default_factory=list)
    active: list[bytes] = field(default_factory=list)
    stamps: list[Any] = field(default_factory=list)
    unlocked: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """A job's id in one of a queue's lists or sets.

    :param depth: how far from the old end of the list.
    :param score: of a set.
    :param fields: of its hash, those that were asked for; None when that is no hash.
    """

    id: bytes
    depth: int
    score: Optional[float]
    fields: Optional[Mapping[str, Any]]


@dataclass(frozen=True)
class Inspected:
    """A job with all that hangs on it, or why it has to stay.

    :param reason: empty when it may go.
    :param mark: digest of all of it.
    :param contents: score, hash, logs, processed, failed, unsuccessful, and the milliseconds that its deduplication key
        has left.
    """

    entry: Entry
    reason: str
    mark: bytes = b""
    contents: Sequence[Any] = ()


class RedisQueues:
    """The queues below one prefix."""

    def __init__(self, redis: RedisGateway, prefix: bytes) -> None:
        self._redis = redis
        self.place = redis.place
        self._prefix = prefix

    def now(self) -> int:
        """Redis's time, in milliseconds since 1970."""
        return int(self._redis.time() * 1000)

    def find(self) -> list[Queue]:
        """All queues, by their ``meta`` keys, sorted. SCAN, never KEYS.

        :raises DriftguardError: more than a thousand, or more keys in the database than can be looked through.
        """
        start, end = self._prefix + b":", b":meta"
        names: set[bytes] = set()
        cursor: Any = 0
        for _scan in range(MAX_SCANS):
            answer = self._redis.ask([("SCAN", cursor, "MATCH", _literal(start) + b"*" + end, "COUNT", KEYS_PER_SCAN)])
            cursor, keys = answer[0]
            names.update(key[len(start):-len(end)] for key in keys if len(key) > len(start) + len(end))
            if int(cursor) == 0 and len(names) <= MAX_QUEUES:
                return [Queue(self._prefix, name) for name in sorted(names)]
            if len(names) > MAX_QUEUES:
                break
        raise DriftguardError(
            f"Redis {self.place}, keys {self._prefix.decode()}:*:meta",
            f"at most {MAX_QUEUES} queues among {MAX_SCANS * KEYS_PER_SCAN} keys", "more",
            "name the queues in the option queues")

    def depths(self, queues: Sequence[Queue]) -> list[Depths]:
        """What the queues hold, in two passes for every 50 of them."""
        found: list[Depths] = []
        for start in range(0, len(queues), QUEUES_PER_PASS):
            found += self._depths(queues[start:start + QUEUES_PER_PASS])
        return found

    def count(self, queue: Queue, places: Sequence[str]) -> int:
        """How many jobs are in these places."""
        return sum(self._whole(answer) for answer in self._redis.ask([_count(queue, place) for place in places]))

    def entries(self, queue: Queue, place: str, fields: Sequence[str], until: Optional[int] = None) -> Iterator[Entry]:
        """The jobs of one place, the oldest first where it has an order by age.

        :param fields: of the jobs' hashes, to read with them.
        :param until: only scores up to this, for sets that are ordered by time.
        :raises DriftguardError: the place isn't a list or set of BullMQ's.
        """
        seen: set[bytes] = set()
        depth = 0
        while True:
            ids = self._ids(queue, place, depth, until)
            fresh = [pair for pair in ids if pair[0] not in seen and not is_marker(pair[0])]
            seen.update(job_id for job_id, _score in fresh)
            yield from self._with_fields(queue, fresh, depth, fields)
            depth += len(ids)
            if len(ids) < IDS_PER_PASS:
                return

    def inspect(self, queue: Queue, place: str, entries: Sequence[Entry], contents: bool) -> Iterator[Inspected]:
        """Whether the jobs may go, a hundred in one step.

        :param contents: whether to read all that a copy needs.
        """
        for start in range(0, len(entries), JOBS_PER_SCRIPT):
            batch = entries[start:start + JOBS_PER_SCRIPT]
            rows = self._script(INSPECT, queue, [place, int(contents), *(entry.id for entry in batch)])
            for entry, row in zip(batch, rows):
                reason = row[0].decode()
                yield Inspected(entry, reason) if reason else Inspected(entry, "", row[1], row[2:])

    def remove(self, queue: Queue, place: str, jobs: Sequence[tuple[Entry, bytes]]) -> Iterator[list[str]]:
        """Take jobs out that are still as they were, a hundred in one step.

        :param jobs: each with its mark.
        :returns: for each batch one answer per job: empty when it was removed, else why it wasn't.
        """
        for start in range(0, len(jobs), JOBS_PER_SCRIPT):
            batch = jobs[start:start + JOBS_PER_SCRIPT]
            depth = max(entry.depth for entry, _mark in batch) + SLACK
            pairs = [word for entry, mark in batch for word in (entry.id, mark)]
            answers = self._script(REMOVE, queue, [place, f"removed:{uuid.uuid4().hex}", depth, *pairs])
            yield [answer.decode() for answer in answers]

    def _script(self, lua: str, queue: Queue, arguments: Sequence[Any]) -> Any:
        return self._redis.raw_script(f"a script over the jobs of queue {queue.shown}", lua, [queue.base], arguments)

    def _ids(self, queue: Queue, place: str, depth: int, until: Optional[int]) -> list[tuple[bytes, Optional[float]]]:
        key = queue.key(place)
        if place in LISTS:
            answer = self._one("LRANGE", key, -depth - IDS_PER_PASS, -depth - 1)
            return [(job_id, None) for job_id in reversed(answer)]
        if until is None:
            answer = self._one("ZRANGE", key, depth, depth + IDS_PER_PASS - 1, "WITHSCORES")
        else:
            answer = self._one("ZRANGEBYSCORE", key, "-inf", until, "WITHSCORES", "LIMIT", depth, IDS_PER_PASS)
        # Pairs already, where the library speaks RESP3.
        flat = [word for part in answer for word in (part if isinstance(part, (list, tuple)) else (part,))]
        return [(flat[at], float(flat[at + 1])) for at in range(0, len(flat), 2)]

    def _with_fields(
        self, queue: Queue, ids: Sequence[tuple[bytes, Optional[float]]], depth: int, fields: Sequence[str],
    ) -> Iterator[Entry]:
        answers = self._redis.ask([("HMGET", queue.base + job_id, *fields) for job_id, _score in ids]) if ids else []
        for more, ((job_id, score), answer) in enumerate(zip(ids, answers)):
            known = None if isinstance(answer, DriftguardError) else dict(zip(fields, answer))
            yield Entry(job_id, depth + more, score, known)

    def _depths(self, queues: Sequence[Queue]) -> list[Depths]:
        asked = [command for queue in queues for command in _looks(queue)]
        answers = iter(self._redis.ask(asked))
        found = [self._first_look([next(answers) for _command in _looks(queue)]) for queue in queues]
        again = [
            command for queue, one in zip(queues, found) for command in (
                *(("HGET", queue.base + job_id, "timestamp") for job_id in one.waiting),
                *(("EXISTS", queue.base + job_id + b":lock") for job_id in one.active))]
        answers = iter(self._redis.ask(again) if again else [])
        for one in found:
            one.stamps = [next(answers) for _id in one.waiting]
            one.unlocked = sum(next(answers) == 0 for _id in one.active)
        return found

    def _first_look(self, answers: list[Any]) -> Depths:
        problems = [f"{one.subject}: {one.found}" for one in answers if isinstance(one, DriftguardError)]
        known = [None if isinstance(one, DriftguardError) else one for one in answers]
        counted = len(LISTS) + len(SETS)
        counts, (meta, ttl, used), ids = known[:counted], known[counted:counted + 3], known[counted + 3:]
        places = dict(zip((*LISTS, *SETS), counts))
        waiting = [job_id for some in ids[:-1] for job_id in some or ()]
        for place, old_end in (("wait", ids[0]), ("paused", ids[2])):
            places[place] = _without_marker(places[place], old_end)
        return Depths(
            places, {name: value for name, value in zip(_META, meta or ()) if value is not None}, (used, ttl or -2),
            [job_id for job_id in dict.fromkeys(waiting) if not is_marker(job_id)], ids[-1] or [], problems=problems)

    def _one(self, *command: Any) -> Any:
        (answer,) = self._redis.ask([command])
        return self._sound(answer)

    def _whole(self, answer: Any) -> int:
        return int(self._sound(answer))

    def _sound(self, answer: Any) -> Any:
        if isinstance(answer, DriftguardError):
            raise answer
        return answer


def _looks(queue: Queue) -> list[tuple[Any, ...]]:
    return [
        *(_count(queue, place) for place in (*LISTS, *SETS)),
        ("HMGET", queue.key("meta"), *_META), ("PTTL", queue.key("limiter")), ("GET", queue.key("limiter")),
        ("LRANGE", queue.key("wait"), -ENDS, -1), ("LRANGE", queue.key("wait"), 0, ENDS - 1),
        ("LRANGE", queue.key("paused"), -ENDS, -1), ("LRANGE", queue.key("paused"), 0, ENDS - 1),
        ("LRANGE", queue.key("active"), 0, ACTIVE - 1)]


def _count(queue: Queue, place: str) -> tuple[Any, ...]:
    return ("LLEN" if place in LISTS else "ZCARD", queue.key(place))


def _without_marker(count: Optional[int], old_end: Optional[Sequence[bytes]]) -> Optional[int]:
    return count - 1 if count and old_end and is_marker(old_end[-1]) else count


def _literal(text: bytes) -> bytes:
    """As a part of a Redis pattern that stands for itself."""
    return b"".join(b"\\" + text[place:place + 1] if text[place:place + 1] in b"*?[]^\\" else text[place:place + 1]
                    for place in range(len(text)))

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_queue_info does: counts what the queues of a fleet hold, and judges nothing."""

from __future__ import annotations

import base64
from fnmatch import fnmatchcase
from typing import Any, Mapping, Optional, Sequence

from .module_base import Result
from .queues import DEAD_SUFFIX, PLACES, Queue, checked_name, milliseconds, prefix_of
from .redis_gateway import Client, gateway_of
from .redis_queues import Depths, RedisQueues
from .untrusted import clean, decode

MAX_CELL = 60
# By the column's title, what of a row is in it.
_COLUMNS = {
    "QUEUE": "name", "WAITING": "waiting", "PAUSED": "paused", "PRIORITIZED": "prioritized", "DELAYED": "delayed",
    "CHILDREN": "waiting_children", "ACTIVE": "active", "STALLED": "stalled", "COMPLETED": "completed",
    "FAILED": "failed", "DEAD": "dead", "OLDEST": "oldest_seconds", "WORKERS": "workers", "": "note"}


def run_queue_info(module: Any) -> Result:
    """Count what the module's options ask for.

    :raises DriftguardError: Redis doesn't answer or refuses, or an option can't be meant.
    """
    options = module.params
    prefix = prefix_of(options["fleet"], options["prefix"])
    asked = [checked_name("queues", name) for name in options["queues"] or ["*"]]
    redis = gateway_of(module)
    queues = RedisQueues(redis, prefix)
    patterns = [name for name in asked if _is_pattern(name)]
    named = list(dict.fromkeys(Queue(prefix, name) for name in asked if not _is_pattern(name)))
    found = [queue for queue in queues.find() if queue not in named] if patterns else []
    matching = [queue for queue in found if any(_matches(queue, pattern) for pattern in patterns)]
    # Dead letters are read for all, so that one pass shows them with their queue.
    looked = [*named, *matching]
    depths = queues.depths([*looked, *(queue.dead for queue in looked)])
    seen = {queue: one for queue, one in zip(looked, depths) if queue in named or _is_queue(queue, one)}
    shown = seen if options["dead"] else _without_letterboxes(seen, named, set(found))
    letters = dict(zip(looked, depths[len(looked):]))
    now, clients = queues.now(), redis.clients()
    rows = [row(queue, shown[queue], letters[queue], now, clients) for queue in sorted(shown, key=lambda one: one.name)]
    return Result(False, {"queues": rows, "table": table(rows)})


def row(
    queue: Queue, depths: Depths, letters: Depths, now: int, clients: Optional[Sequence[Client]],
) -> dict[str, Any]:
    """The facts of one queue, as the module returns them.

    :param letters: what the queue of its dead letters holds.
    :param now: Redis's time in milliseconds.
    :param clients: who is connected; None when that can't be known.
    """
    counts = {place.replace("-", "_"): count for place, count in depths.counts.items()}
    ages = [now - stamp for stamp in map(milliseconds, depths.stamps) if stamp is not None]
    return {
        "name": queue.shown,
        "exists": bool(depths.meta or any(counts.values())),
        "waiting": counts.pop("wait"),
        **counts,
        "dead": _sum([letters.counts[place] for place in PLACES["dead"]]),
        "stalled": depths.unlocked,
        "oldest_seconds": max(0, max(ages) // 1000) if ages else None,
        "is_paused": "paused" in depths.meta,
        "rate_limit_ttl": _limited_for(depths),
        "workers": None if clients is None else workers(queue, clients),
        "problems": [clean(problem) for problem in depths.problems + letters.problems],
    }


def workers(queue: Queue, clients: Sequence[Client]) -> int:
    """How many BullMQ workers are connected to a queue, by the names that they give their connections.

    Node's name one connection, ``prefix:base64(queue)``; Python's name two, ``prefix:queue``. Either may have ``:w:``
    and a name of its own behind it.
    """
    node = decode(queue.prefix + b":" + base64.b64encode(queue.name))
    python = decode(queue.prefix + b":" + queue.name)
    of_node = sum(_is_worker(client.name, node) for client in clients)
    of_python = sum(_is_worker(client.name, python) for client in clients)
    return of_node + (of_python + 1) // 2


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as lines for people."""
    lines = [list(_COLUMNS)]
    for one in rows:
        cells = {**one, "oldest_seconds": _age(one["oldest_seconds"]), "note": _note(one)}
        lines.append([clean("?" if cells[key] is None else str(cells[key]), MAX_CELL) for key in _COLUMNS.values()])
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    return ["  ".join(_cell(line, widths, place) for place in range(len(line))).rstrip() for line in lines]


def _cell(line: Sequence[str], widths: Sequence[int], place: int) -> str:
    text = line[place]
    return text.rjust(widths[place]) if 0 < place < len(widths) - 1 else text.ljust(widths[place])


def _age(seconds: Optional[int]) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _note(one: Mapping[str, Any]) -> str:
    notes = [
        "paused" if one["is_paused"] else "",
        f"rate limited for {one['rate_limit_ttl']:g} s" if one["rate_limit_ttl"] else "",
        "" if one["exists"] else "no such queue",
        "keys of wrong types" if one["problems"] else ""]
    return ", ".join(note for note in notes if note)


def _is_pattern(name: bytes) -> bool:
    return any(sign in name for sign in b"*?[")


def _matches(queue: Queue, pattern: bytes) -> bool:
    return fnmatchcase(queue.name.decode("latin-1"), pattern.decode("latin-1"))


def _is_queue(queue: Queue, depths: Depths) -> bool:
    """Whether a key that ends in ``:meta`` is a queue's: BullMQ's names have no colon, other keys' have."""
    return b":" not in queue.name or bool({"opts.maxLenEvents", "version"} & depths.meta.keys())


def _without_letterboxes(
    seen: Mapping[Queue, Depths], named: Sequence[Queue], found: set[Queue],
) -> dict[Queue, Depths]:
    """Queues of dead letters go, since they are shown with their queue; but not where that queue isn't there."""
    def is_letterbox(queue: Queue) -> bool:
        of = Queue(queue.prefix, queue.name[:-len(DEAD_SUFFIX)])
        return queue.name.endswith(DEAD_SUFFIX) and (of in found or of in named)

    return {queue: one for queue, one in seen.items() if queue in named or not is_letterbox(queue)}


def _sum(counts: Sequence[Optional[int]]) -> Optional[int]:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _limited_for(depths: Depths) -> float:
    """Seconds until a rate-limited queue goes on; 0 when jobs may start."""
    used, ttl = depths.limiter
    most = milliseconds(depths.meta.get("max"))
    count = milliseconds(used)
    if ttl <= 0 or (most is not None and count is not None and count < most):
        return 0.0
    return round(ttl / 1000, 3)


def _is_worker(name: str, of: str) -> bool:
    return name == of or name.startswith(f"{of}:w:")

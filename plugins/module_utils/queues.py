# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of BullMQ's keys, and what its values mean. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

from .errors import DriftguardError
from .untrusted import check_fleet, clean, decode, digits

MAX_NAME = 256
DEAD_SUFFIX = b"-dead"
LISTS = ("wait", "active", "paused")
SETS = ("delayed", "prioritized", "completed", "failed", "waiting-children")
FINISHED = ("completed", "failed")
#: Where the jobs are that a person calls by this word. A paused queue keeps its jobs in wait, or, with older BullMQ, in
#: paused.
PLACES = {
    "waiting": ("wait", "paused"),
    "delayed": ("delayed",),
    "prioritized": ("prioritized",),
    "completed": ("completed",),
    "failed": ("failed",),
    "dead": ("wait", "paused", "delayed", "prioritized"),
}


@dataclass(frozen=True)
class Queue:
    """A queue; in bytes, since whoever named it may have used any.

    :param prefix: of its keys, ``demo``.
    :param name: ``mail``.
    """

    prefix: bytes
    name: bytes

    @property
    def base(self) -> bytes:
        """What all its keys begin with."""
        return self.prefix + b":" + self.name + b":"

    @property
    def dead(self) -> Queue:
        """The queue that its dead letters are moved to."""
        return Queue(self.prefix, self.name + DEAD_SUFFIX)

    @property
    def shown(self) -> str:
        """Its name for people."""
        return clean(decode(self.name))

    def key(self, part: str) -> bytes:
        """A key of the queue: of its lists and sets, or its ``meta``, ``limiter`` …"""
        return self.base + part.encode()


def prefix_of(fleet: str, prefix: Optional[str]) -> bytes:
    """The prefix of a fleet's queues.

    :param prefix: where it isn't the fleet's name.
    :raises DriftguardError: the fleet's name or the prefix can't be one.
    """
    check_fleet(fleet)
    return checked_name("prefix", fleet if prefix is None else prefix)


def checked_name(option: str, name: str) -> bytes:
    """A prefix or a queue's name as a person gives it.

    :raises DriftguardError: it is empty, longer than 256 characters, or has characters that can't be seen.
    """
    if 0 < len(name) <= MAX_NAME and name.isprintable():
        return name.encode()
    raise DriftguardError(
        f"option {option}", f"1 to {MAX_NAME} printable characters", repr(clean(name)),
        "give the name as the workers have it")


def milliseconds(value: Any) -> Optional[int]:
    """A time that BullMQ wrote, in milliseconds since 1970; None for anything else."""
    return digits(decode(value)) if isinstance(value, bytes) and len(value) <= 15 else None


def data_of(value: Any) -> Any:
    """A job's data as BullMQ stores it, JSON; None for what can't be read."""
    try:
        return json.loads(value) if isinstance(value, bytes) else None
    except (ValueError, RecursionError):
        return None


def is_marker(job_id: bytes) -> bool:
    """Whether an entry of a waiting list is no job but what older BullMQ wakes its workers with."""
    return job_id[:2] == b"0:"

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that removed jobs are written to first: one JSON object a line, without loss. Pure.

What isn't UTF-8 is an object ``{"base64": …}`` in the place of a text. Hashes are lists of pairs, since a field's name
may be any bytes too.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Dict, Optional, Sequence, Union

from .queues import Queue
from .redis_queues import Inspected

Text = Union[str, Dict[str, str]]


def backup_line(queue: Queue, place: str, job: Inspected) -> bytes:
    """A job as one line, with everything that puts it back.

    :param place: the queue's list or set that it is in, by BullMQ's name.
    """
    score, fields, logs, processed, failed, unsuccessful, left = job.contents
    record = {
        "key": text(queue.base + job.entry.id),
        "prefix": text(queue.prefix),
        "queue": text(queue.name),
        "id": text(job.entry.id),
        "state": place,
        "score": exact(score),
        "hash": pairs(fields),
        "logs": [text(entry) for entry in logs],
        "processed": pairs(processed),
        "failed": pairs(failed),
        "unsuccessful": pairs(unsuccessful),
        "deduplication_ttl_ms": int(left) if left else None,
    }
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def text(value: bytes) -> Text:
    """Bytes as a text, or as base64 where they are none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def exact(score: bytes) -> Optional[str]:
    """A score as Redis writes it; None for a list's entry. Text, since JSON readers round large numbers."""
    return score.decode() if score else None


def pairs(flat: Sequence[Any]) -> list[list[Text]]:
    """A hash's fields and values, or a set's members and scores, two by two."""
    return [[text(flat[place]), text(flat[place + 1])] for place in range(0, len(flat), 2)]

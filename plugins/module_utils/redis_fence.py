# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads in Redis what a fence is planned from, and publishes it. Builds on RedisGateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .audit import audit_arguments, audit_key
from .fence_plan import FencePlan
from .record import Record, render_compact
from .redis_gateway import HISTORY_LENGTH, RedisGateway
from .redis_scripts import PUBLISH
from .release_history import HistoryEntry
from .untrusted import check_fleet

MAX_SHOWN_RELEASES = 400


@dataclass(frozen=True)
class Before:
    """What a fence is planned from.

    :param text: the record as it is stored, empty for none.
    :param highest: the highest deployment number that Redis knows.
    :param history: newest first.
    """

    text: str
    record: Optional[Record]
    highest: int
    history: list[HistoryEntry]


def read_before(gateway: RedisGateway, fleet: str) -> Before:
    """Read it. What changes in between is found when it is published.

    :raises DriftguardError: Redis doesn't answer, or the record is none.
    """
    text = gateway.text(f"{check_fleet(fleet)}:release") or ""
    history, _unreadable = gateway.history(fleet)
    return Before(text, gateway.record(fleet) if text else None, gateway.generation(fleet), history)


def publish_fence(gateway: RedisGateway, before: Before, plan: FencePlan, said: tuple[str, str, str]) -> Optional[int]:
    """Publish the record without the bad releases, and note who did it, in one step; needs no deployment lease.

    :param said: by whom, why, in which run.
    :returns: how many subscribers heard of it, -1 when this user may not publish on the channel; None when something
        was published since ``before`` was read, and nothing was changed.
    :raises DriftguardError: Redis doesn't answer, or refuses.
    """
    fleet = plan.record.fleet
    names = ("release", "generation", "releases", "lock:deploy", "lock:deploy:last")
    keys = [f"{check_fleet(fleet)}:{name}" for name in names]
    text = before.text if plan.record == before.record else render_compact(plan.record)
    was = ",".join(release.release_id for release in before.record.allowed) if before.record else ""
    verdict, detail = gateway.script(f"publishing {keys[0]}", PUBLISH, [*keys, audit_key(fleet)], [
        plan.number, text, "\n".join(entry.as_json() for entry in plan.entries), "", HISTORY_LENGTH,
        f"{fleet}:release:events", before.text, before.highest, ",".join(one.release_id for one in plan.bad),
        was[:MAX_SHOWN_RELEASES], plan.record.target.release_id, *audit_arguments(*said)])
    return int(detail) if verdict == "published" else None

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_version_info does: reads the registrations and says what they claim, without judging."""

from __future__ import annotations

from typing import Any

from .module_base import Result
from .redis_gateway import RedisGateway
from .registrations import Registration


def list_versions(fleet: str, redis: RedisGateway) -> Result:
    """All registrations of a fleet, its record and its history.

    :raises DriftguardError: Redis doesn't answer, or what it holds is no record.
    """
    snapshot = redis.registrations(fleet)
    record = redis.record(fleet)
    history, _unreadable = redis.history(fleet)
    return Result(
        False,
        {
            "registrations": [_plain(registration) for registration in snapshot.registrations],
            "dead": list(snapshot.dead),
            "malformed": list(snapshot.malformed),
            "versions": _count(snapshot.registrations),
            "record": record.as_result() if record else None,
            "history": [entry.as_result() for entry in history],
        },
    )


def _plain(registration: Registration) -> dict[str, Any]:
    return {
        "service": registration.service,
        "instance": registration.instance,
        "host": registration.host,
        "sha": registration.git_sha,
        "release_id": registration.release_id,
        "state": registration.state,
        "container_id": registration.container_id,
        "build_date": registration.build_date,
        "started_at": registration.started_at,
        "heartbeat_at": registration.heartbeat_at,
        "pid": registration.pid,
        "expires_in": round(registration.ttl_ms / 1000, 1) if registration.ttl_ms >= 0 else None,
        "problems": list(registration.problems),
    }


def _count(registrations: list[Registration]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for registration in registrations:
        sha = registration.git_sha or "unknown"
        counts[sha] = counts.get(sha, 0) + 1
    return counts

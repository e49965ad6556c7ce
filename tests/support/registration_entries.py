# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy and the workers write to Redis, for tests."""

from __future__ import annotations

from typing import Any

from ansible_collections.driftguard.workers.plugins.module_utils.release_history import HistoryEntry
from support.releases import release

A = release("a")


def entry(generation: int) -> HistoryEntry:
    """A history entry of release A."""
    return HistoryEntry(generation, A, "2026-01-02T03:04:05Z", "me", (("host1", str(generation)),))


def register(
    raw: Any, service: str, instance: str, ttl_ms: int = 15_000, *, fleet: str = "demo", **changes: Any,
) -> None:
    """Register an instance of a fleet, well formed but for the changes."""
    fields = {
        "gitSha": A.sha,
        "buildDate": "2026-01-02T03:04:05Z",
        "startedAt": "2026-01-02T03:04:05Z",
        "pid": "1",
        "host": "host1",
        "service": service,
        "containerId": instance.ljust(64, "c"),
        "releaseId": A.release_id,
        "state": "running",
        "heartbeatAt": "2026-01-02T03:04:05Z",
        **changes,
    }
    key = f"{fleet}:worker:{service}:{instance}:version"
    raw.hset(key, mapping=fields)
    raw.pexpire(key, ttl_ms)
    raw.zadd(f"{fleet}:workers", {f"{service}:{instance}": 1.5})

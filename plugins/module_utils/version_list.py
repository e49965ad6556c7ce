# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_version_info does: reads the registrations and says what they claim, without judging."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import Any, Mapping, Optional, Sequence

from .errors import DriftguardError
from .module_base import Result
from .names import compose_project
from .redis_gateway import RedisGateway
from .registrations import Registration
from .untrusted import check_seconds, clean

FENCED = "fenced"
MOST_TOLD = 10
POLL_SECONDS = 0.5


def list_versions(
    fleet: str, redis: RedisGateway, hosts: Optional[Sequence[str]] = None, wait: float = 0, refuse: bool = False,
    singletons: Mapping[str, str] = MappingProxyType({}),
) -> Result:
    """All registrations of a fleet, its record and its history.

    :param hosts: all hosts of the fleet, None when nobody asks for strangers.
    :param wait: seconds to give those of workers that were stopped a moment ago to expire.
    :param refuse: whether registrations from others are an error.
    :param singletons: service → the one of ``hosts`` that may run it; from another of them it is an error.
    :raises DriftguardError: Redis doesn't answer, what it holds is no record, or there are such registrations.
    """
    check_seconds("wait", wait)
    end = time.monotonic() + wait
    snapshot = redis.registrations(fleet)
    while time.monotonic() < end and (
            strangers(snapshot.registrations, hosts) or doubles(snapshot.registrations, hosts, singletons)):
        time.sleep(POLL_SECONDS)
        snapshot = redis.registrations(fleet)
    _refuse_doubles(fleet, doubles(snapshot.registrations, hosts, singletons), singletons)
    if refuse and strangers(snapshot.registrations, hosts):
        raise DriftguardError(
            f"fleet {fleet}", "registrations from hosts of the inventory alone",
            told(strangers(snapshot.registrations, hosts)),
            f"stop them there (docker compose -p {compose_project(fleet)} down), or put the host back into the "
            "inventory; where it can't be reached, -e worker_prune=true publishes all the same, which fences those of "
            "another release, and the run fails naming them; nothing was touched")
    record = redis.record(fleet)
    history, _unreadable = redis.history(fleet)
    return Result(
        False,
        {
            "registrations": [_plain(registration) for registration in snapshot.registrations],
            "dead": list(snapshot.dead),
            "malformed": list(snapshot.malformed),
            "homeless": [one.member for one in snapshot.registrations if not one.host],
            "strangers": [_plain(one) for one in strangers(snapshot.registrations, hosts)],
            "strangers_told": told(strangers(snapshot.registrations, hosts)),
            "versions": _count(snapshot.registrations),
            "record": record.as_result() if record else None,
            "history": [entry.as_result() for entry in history],
        },
    )


def strangers(registrations: Sequence[Registration], hosts: Optional[Sequence[str]]) -> list[Registration]:
    """Registrations from hosts that are none of the fleet's, such as one that was taken out of the inventory. Pure.

    One without a host is for the proof to judge: it may be of a container that is known.
    """
    return [] if hosts is None else [one for one in registrations if one.host and one.host not in hosts]


def doubles(
    registrations: Sequence[Registration], hosts: Optional[Sequence[str]], singletons: Mapping[str, str],
) -> list[Registration]:
    """Registrations of singletons at work on another host of the fleet than theirs. Pure."""
    return [
        one for one in registrations
        if one.host in (hosts or ()) and one.state != FENCED and one.host != singletons.get(one.service, one.host)]


def _refuse_doubles(fleet: str, found: Sequence[Registration], singletons: Mapping[str, str]) -> None:
    if found:
        service = found[0].service
        own = clean(str(singletons[service]))
        raise DriftguardError(
            f"fleet {fleet}, service {service}", f"it on {own} alone, since it is a singleton", told(found),
            f"stop it there first (docker compose -p {compose_project(fleet)} rm --stop --force {service}), then run "
            "again; nothing was touched")


def told(found: Sequence[Registration]) -> str:
    """Who they are, in a line: host, service and instance, release, state. Pure."""
    named = [
        f"{clean(one.host)}: service {one.service}, {one.member}, commit {one.git_sha[:7] or 'unknown'}, {one.state}"
        for one in found[:MOST_TOLD]]
    return "; ".join(named) + (f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else "")


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

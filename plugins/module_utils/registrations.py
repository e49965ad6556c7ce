# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What workers say of themselves in Redis, as plain data. Pure; redis_gateway.py reads it.

A registration is a claim by whoever can write to Redis: each field is checked for its form here, and whether
it is true is for the caller to find out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence

from .names import RELEASE_PATTERN, SERVICE_PATTERN, SHA_PATTERN
from .untrusted import clean

FIELDS = (
    "gitSha", "buildDate", "startedAt", "pid", "host", "service", "containerId", "releaseId", "state", "heartbeatAt",
)
STATES = frozenset({"starting", "running", "draining", "fenced"})
INSTANCE_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
CONTAINER_PATTERN = re.compile(r"^[0-9a-f]{64}\Z")
PID_PATTERN = re.compile(r"^[0-9]{1,15}\Z")
TIME_PATTERN = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z\Z", re.ASCII)
INSTANCE_LENGTH = 12


@dataclass
class Registration:
    """One live instance, as it registered itself; a missing or malformed field is empty and named in ``problems``.

    :param service: kind of worker, and :param instance: its own name, both from the index.
    :param host: inventory name of its host.
    :param container_id: 64 hex digits, empty outside a container.
    :param started_at: ISO-8601 UTC, Redis's time; likewise ``heartbeat_at``; ``build_date`` is the image's.
    :param ttl_ms: milliseconds until it counts as gone; negative: it never does, and proves no life.
    :param problems: what is wrong with its form, for a person; empty for a good one.
    """

    service: str
    instance: str
    git_sha: str
    release_id: str
    state: str
    host: str
    container_id: str
    started_at: str
    heartbeat_at: str
    build_date: str
    pid: Optional[int]
    ttl_ms: int
    problems: tuple[str, ...]

    @property
    def member(self) -> str:
        """Its name in the index."""
        return f"{self.service}:{self.instance}"


@dataclass
class Snapshot:
    """All registrations of a fleet at one time.

    :param at: when, in seconds of Redis's own time.
    :param registrations: the live ones, by service and instance.
    :param dead: index members without a registration: gone, crashed or cut off for longer than the TTL.
    :param malformed: index members, or what they point to, that aren't registrations; each with the reason.
    """

    at: float
    registrations: list[Registration] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)

    def take(self, service: str, instance: str, row: Any) -> None:
        """Sort in what Redis holds of an instance: False, why it can't be read, or values and a time to live."""
        if row is False:
            self.dead.append(f"{service}:{instance}")
        elif isinstance(row, str):
            self.malformed.append(f"{service}:{instance}: {clean(row)}")
        else:
            self.registrations.append(parse_registration(service, instance, row[:-1], int(row[-1])))


def split_member(member: str) -> Optional[tuple[str, str]]:
    """Service and instance of an index member, None when it isn't one."""
    service, _colon, instance = member.partition(":")
    if SERVICE_PATTERN.match(service) and INSTANCE_PATTERN.match(instance):
        return service, instance
    return None


def parse_registration(service: str, instance: str, values: Sequence[Any], ttl_ms: int) -> Registration:
    """A registration from the values of :data:`FIELDS`, in that order; anything but text counts as missing."""
    problems: list[str] = []
    parsed = {
        name: value if isinstance(value, str) and _FORMS[name](value) else _reject(name, value, problems)
        for name, value in zip(FIELDS, values)
    }
    if ttl_ms < 0:
        problems.append("it has no time to live, so it proves no life")
    if parsed["service"] and parsed["service"] != service:
        problems.append(f"service is {parsed['service']}, the index says {service}")
    if parsed["containerId"] and parsed["containerId"][:INSTANCE_LENGTH] != instance:
        problems.append(f"containerId starts with {parsed['containerId'][:INSTANCE_LENGTH]}, the index says {instance}")
    return Registration(
        service, instance, parsed["gitSha"], parsed["releaseId"], parsed["state"], parsed["host"],
        parsed["containerId"], parsed["startedAt"], parsed["heartbeatAt"], parsed["buildDate"],
        int(parsed["pid"]) if parsed["pid"] else None, ttl_ms, tuple(problems))


def _reject(name: str, value: Any, problems: list[str]) -> str:
    if name == "containerId" and value in ("", None, False):
        return ""  # a worker outside a container has none
    problems.append(f"{name} is {clean(value)!r}" if isinstance(value, str) and value else f"{name} is missing")
    return ""


def _is_name(value: str) -> bool:
    return 0 < len(value) <= 253 and value.isprintable()


# Each answers something true for a well-formed value; bare methods, since this runs ten times per registration.
_FORMS: dict[str, Callable[[str], object]] = {
    "gitSha": SHA_PATTERN.match,
    "buildDate": TIME_PATTERN.match,
    "startedAt": TIME_PATTERN.match,
    "pid": PID_PATTERN.match,
    "host": _is_name,
    "service": SERVICE_PATTERN.match,
    "containerId": CONTAINER_PATTERN.match,
    "releaseId": RELEASE_PATTERN.match,
    "state": STATES.__contains__,
    "heartbeatAt": TIME_PATTERN.match,
}

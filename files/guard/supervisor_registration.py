# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Who this instance is, and what it says of itself in Redis; names, fields and times are those of contract.json."""

from __future__ import annotations

import os
import re
import socket
from datetime import datetime, timezone

from supervisor_resp import RedisFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List

    from supervisor_resp import Client, Word

HEARTBEAT_SECONDS = 5
TTL_SECONDS = 15
LEGACY_TTL_SECONDS = 86400
INDEX_RETENTION_SECONDS = 86400
LEGACY_FIELDS = ("gitSha", "buildDate", "startedAt", "pid")
UNKNOWN = "unknown"
_LONGEST_HOSTNAME = 64
_INSTANCE_LENGTH = 12
# An engine mounts these files from the container's own directory, whatever the network; the hostname may be anything.
_OWN_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_MOUNTED = re.compile(r"/(?:overlay-)?containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf)\Z")
_GROUP = re.compile(r"(?:[a-z][a-z-]*-)?([0-9a-f]{64})(?:\.scope)?\Z")


def container_of(mountinfo: str, cgroup: str) -> str:
    """A container's id (64 hex digits) from what proc(5) says of a process; empty outside of one."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        found = _MOUNTED.search(fields[3]) if len(fields) > 5 and fields[4] in _OWN_FILES else None
        if found:
            return found.group(1)
    for line in cgroup.splitlines():
        # From the inside out: an engine in a container has the outer container's id first.
        for part in reversed(line.split(":", 2)[-1].split("/")):
            found = _GROUP.match(part)
            if found:
                return found.group(1)
    return ""


def own_container() -> str:
    """This process's container."""
    return container_of(_text("/proc/self/mountinfo"), _text("/proc/self/cgroup"))


def instance_of(container: str, hostname: str, pid: int) -> str:
    """An instance's name: the beginning of the container's id, ``<hostname>-<pid>`` outside of one."""
    if container:
        return container[:_INSTANCE_LENGTH]
    name = re.sub(r"[^A-Za-z0-9.-]", "-", hostname).lstrip(".-") or UNKNOWN
    return name[:_LONGEST_HOSTNAME] + "-" + str(pid)


class Identity:
    """Everything in a registration that stays as it is.

    :param release: release id of the image, ``unknown`` without one.
    """

    def __init__(self, fleet: str, service: str, host: str, sha: str, build_date: str, release: str) -> None:
        hostname = socket.gethostname()
        self.fleet, self.service, self.host = fleet, service, host or hostname
        self.sha, self.build_date, self.release = sha or UNKNOWN, build_date or UNKNOWN, release
        self.pid = os.getpid()
        self.container = own_container()
        self.instance = instance_of(self.container, hostname, self.pid)

    @property
    def worker(self) -> str:
        """Name in the index and in messages."""
        return self.service + ":" + self.instance

    @property
    def connection(self) -> str:
        """Name of its connections."""
        return self.fleet + ":worker:" + self.worker


class Registration:
    """An instance's record in Redis. All times are Redis's own, so that hosts with other clocks can be compared."""

    def __init__(self, client: Client, identity: Identity) -> None:
        self._client = client
        self._is = identity
        self._started = 0.0
        self._key = identity.connection + ":version"
        self._legacy = identity.fleet + ":worker:" + identity.service + ":version"
        self._index = identity.fleet + ":workers"

    def announce(self, state: str, uptime: float) -> None:
        """Register this start, also under the key per worker type that older readers know.

        :param uptime: seconds since the process started. :raises RedisFault: nothing or everything was written.
        """
        now = self._now()
        self._started = now - uptime
        self._client.transaction([
            ("DEL", self._key),  # a restarted container keeps its id, and nothing of before may show through
            *self._record(state, now),
            ("HSET", self._legacy, *self._fields(LEGACY_FIELDS, state, now)),
            ("EXPIRE", self._legacy, str(LEGACY_TTL_SECONDS)),
            ("ZREMRANGEBYSCORE", self._index, "-inf", "(" + repr(now - INDEX_RETENTION_SECONDS)),
        ])

    def renew(self, state: str) -> None:
        """Write the whole record again: a Redis that lost its data has it back. :raises RedisFault: as announce."""
        self._client.transaction(self._record(state, self._now()))

    def withdraw(self) -> None:
        """Take it back; the older key expires by itself. :raises RedisFault: it is still there, until it expires."""
        self._client.transaction([("DEL", self._key), ("ZREM", self._index, self._is.worker)])

    def _now(self) -> float:
        parts = self._client.call("TIME")
        if not (isinstance(parts, list) and len(parts) == 2 and all(_is_number(part) for part in parts)):
            raise RedisFault("a time that is none")
        return int(parts[0]) + int(parts[1]) / 1000000

    def _record(self, state: str, now: float) -> List[List[Word]]:
        return [
            ["HSET", self._key, *self._fields(self._values(state, now), state, now)],
            ["EXPIRE", self._key, str(TTL_SECONDS)],
            ["ZADD", self._index, repr(now), self._is.worker],
        ]

    def _fields(self, names: object, state: str, now: float) -> List[str]:
        values = self._values(state, now)
        return [part for name in values if name in names for part in (name, values[name])]  # type: ignore[operator]

    def _values(self, state: str, now: float) -> Dict[str, str]:
        return {
            "gitSha": self._is.sha, "buildDate": self._is.build_date, "startedAt": timestamp(self._started),
            "pid": str(self._is.pid), "host": self._is.host, "service": self._is.service,
            "containerId": self._is.container, "releaseId": self._is.release, "state": state,
            "heartbeatAt": timestamp(now),
        }


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds and Z, of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_number(part: object) -> bool:
    return isinstance(part, bytes) and part.isdigit() and len(part) <= 11


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

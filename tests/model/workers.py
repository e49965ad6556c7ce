# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated workers: each registers, asks the fence before every job, and decides with the worker's own code."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Optional

from model.engine import Clock, SimContainer

from driftguard_worker.decision import Standing, View, decide
from driftguard_worker.records import ReleaseKey, view_of

__all__ = ["Job", "Workers"]

REGISTERS_AFTER = 1.0
HEARTBEAT = 5.0
LIFETIME = 15.0
LIE = "f" * 40


@dataclass(frozen=True)
class Job:
    """A job that a worker started: when, on which release and host."""

    at: float
    release: str
    host: str


@dataclass
class _Registration:
    fields: dict[str, str]
    expires: float
    written: bool = False


@dataclass
class _Life:
    started: float
    standing: Standing = Standing.WAIT
    beat: float = 0.0


@dataclass
class Workers:
    """All workers of the fleet, on all hosts.

    :param fleet: its name.
    :param roots: host → its directory that stands for /opt/driftguard.
    """

    fleet: str
    clock: Clock
    roots: dict[str, Path]
    jobs: list[Job] = field(default_factory=list)
    judged: list[Job] = field(default_factory=list)  # those before, which were held to what was published
    known: dict[str, _Registration] = field(default_factory=dict)
    lives: dict[str, _Life] = field(default_factory=dict)
    records: dict[str, Optional[bytes]] = field(default_factory=dict)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def live(self, containers: list[SimContainer], record: Optional[bytes], deaf: Container[str] = ()) -> None:
        """What the workers in running containers do by now.

        :param record: the fleet's record in Redis, None where there is none.
        :param deaf: hosts whose workers don't reach Redis.
        """
        for host in self.roots:
            self.read(host)
        now = self.clock.now
        running = {one.id: one for one in containers if one.running and now - one.started >= REGISTERS_AFTER}
        for gone in set(self.lives) - set(running):
            del self.lives[gone]
        for one in running.values():
            self._live(one, record, one.host not in deaf, now)
        for key in [key for key, registration in self.known.items() if registration.expires <= now]:
            del self.known[key]

    def _live(self, one: SimContainer, record: Optional[bytes], reachable: bool, now: float) -> None:
        life = self.lives.get(one.id)
        if life is None or life.started != one.started:
            life = self.lives[one.id] = _Life(one.started)
        own = ReleaseKey(one.image.release_id, one.image.sha)
        fleet = _view(record, own, self.fleet) if reachable else View.UNREACHABLE
        host = _view(self.records.get(one.host), own, self.fleet)
        life.standing = decide(life.standing, host, fleet).standing
        if life.standing is Standing.RUN:
            self.jobs.append(Job(now, one.image.release_id, one.host))
        if one.badness != "silent" and reachable and life.standing is not Standing.WAIT:
            self._register(one, life, now)

    def read(self, host: str) -> None:
        """A host's guard.json may be another one: workers watch it."""
        path = f"{self.roots[host]}/{self.fleet}/guard/guard.json"
        try:
            found = os.stat(path)
        except FileNotFoundError:
            self.records[host], self._seen[host] = None, (0, 0)
            return
        seen = found.st_ino, found.st_mtime_ns
        if self._seen.get(host) != seen:
            self.records[host], self._seen[host] = Path(path).read_bytes(), seen

    def admits(self, one: SimContainer) -> bool:
        """Whether the guard lets a container start."""
        self.read(one.host)
        own = ReleaseKey(one.image.release_id, one.image.sha)
        return _view(self.records.get(one.host), own, self.fleet) is View.ALLOWED

    def left(self, container_id: str) -> None:
        """A worker that is stopped in order takes its registration back."""
        self.known = {key: one for key, one in self.known.items() if one.fields["containerId"] != container_id}

    def _register(self, one: SimContainer, life: _Life, now: float) -> None:
        sha = LIE if one.badness == "liar" else one.image.sha
        release = f"{sha[:12]}.{one.image.release_id[13:]}"
        state = "fenced" if life.standing is Standing.PARK else "running"
        fields = {
            "gitSha": sha, "buildDate": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:00Z", "pid": "1",
            "host": one.host, "service": one.service, "containerId": one.id, "releaseId": release, "state": state,
            "heartbeatAt": "2026-01-01T00:00:00Z"}
        key = f"{one.service}:{one.id[:12]}"
        known = self.known.get(key)
        if known is None or known.fields != fields:
            self.known[key] = _Registration(fields, now + LIFETIME)
        else:
            known.expires = now + LIFETIME

    def lost(self) -> None:
        """Redis lost its data: heartbeats write the registrations of the living anew."""
        for registration in self.known.values():
            registration.written = False


@lru_cache(maxsize=4096)
def _view(content: Optional[bytes], own: ReleaseKey, fleet: str) -> View:
    return view_of(content, own, fleet)



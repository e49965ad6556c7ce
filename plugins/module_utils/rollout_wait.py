# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until the containers of a rollout are healthy and stay up; says at once when one doesn't."""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Callable, Iterable, Optional

from .engine import End, Engine
from .errors import DriftguardError
from .fleet_containers import RUNNING, Container, container_of, uptime
from .rollout_progress import HEALTHY, STARTING, VERIFIED

RESTARTING = "restarting"
POLL_SECONDS = 0.25
PROBE_SECONDS = 1.0
PROBE_PATIENCE = 10.0
LOG_LINES = 20
EVENTS_SECONDS = 3600
PROBES_AT_ONCE = 4


@dataclass(frozen=True)
class Failure:
    """One container that didn't make it: why, with its exit status and the last lines it wrote.

    Of one that was restarted: the lines before that, which say more of why than its next start.
    """

    service: str
    container: str
    reason: str
    exit_code: int
    log: list[str]


@dataclass
class _Watched:
    container: Container
    since: float
    ready: bool = False
    forgiven: bool = False
    failed: bool = False  # was restarted, and isn't forgiven
    stable: bool = False


@dataclass
class _Probe:
    """One try of a health check, asked for at a time; ``passed`` is None until it is through."""

    container: Container
    asked: float
    passed: Optional[bool] = None


class _Worker(Thread):
    """Runs one try after the other until none is waiting.

    Not of a pool: Python would wait at its end for a health check that hangs.
    """

    def __init__(self, engine: Engine, waiting: SimpleQueue[_Probe]) -> None:
        super().__init__(daemon=True)
        self.since = time.monotonic()
        self._engine = engine
        self._waiting = waiting

    def run(self) -> None:
        while True:
            try:
                probe = self._waiting.get_nowait()
            except Empty:
                return
            self.since = time.monotonic()
            kind, *rest = probe.container.healthcheck
            command = ["/bin/sh", "-c", *rest] if kind == "CMD-SHELL" else rest
            try:
                probe.passed = self._engine.execute(probe.container.id, command)[0] == 0
            except DriftguardError:
                # The container went away between two looks; the next look says so.
                probe.passed = False


class Prober:
    """Runs the containers' own health checks on engines that would only do so after a whole interval.

    Engines before 25 have no start interval: a container with the usual 30 s interval is ``starting`` for 30 s. The
    same command, run the same way (as the container's user, exit status 0), proves the same sooner.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._probes: dict[str, _Probe] = {}
        self._waiting: SimpleQueue[_Probe] = SimpleQueue()
        self._workers: list[_Worker] = []

    def passed(self, container: Container, now: float) -> bool:
        """Whether the health check of a starting container has passed; asks for another try when it hasn't."""
        probe = self._probes.get(container.id)
        if probe is not None and probe.passed:
            return True
        if probe is None or (probe.passed is False and now - probe.asked >= PROBE_SECONDS):
            self._probes[container.id] = probe = _Probe(container, now)
            self._waiting.put(probe)
        if not self._waiting.empty():
            self._staff(now)
        return False

    def forget(self, container: Container) -> None:
        """What a container passed before it was restarted says nothing of it now."""
        self._probes.pop(container.id, None)

    def _staff(self, now: float) -> None:
        self._workers = [worker for worker in self._workers if worker.is_alive()]
        # One that hangs, until the engine's answer is given up, keeps no other container from its try.
        if sum(now - worker.since < PROBE_PATIENCE for worker in self._workers) < PROBES_AT_ONCE:
            self._workers.append(_Worker(self._engine, self._waiting))
            self._workers[-1].start()


class Watch:
    """Watches the instances of a rollout.

    :param expected: service → number of instances.
    :param stabilize: seconds each instance must have been up without a restart.
    :param safe_point: called at each look; raises when this deployment must stop.
    :param tell: hears of each step of a container, see rollout_progress.py.
    """

    def __init__(
        self,
        engine: Engine,
        expected: dict[str, int],
        list_ids: Callable[[], Iterable[str]],
        wait_timeout: float,
        stabilize: float,
        safe_point: Callable[[], None],
        tell: Callable[[str, Container], None] = lambda _event, _container: None,
    ) -> None:
        self._engine = engine
        self._expected = expected
        self._list_ids = list_ids
        self._wait_timeout = wait_timeout
        self._stabilize = stabilize
        self._safe_point = safe_point
        self._tell = tell
        self._prober = Prober(engine)
        self._watched: dict[str, _Watched] = {}
        self.seen: list[Container] = []
        self.forgives = 0  # how many restarts are no failure
        self.restarts = 0

    def wait(self) -> list[Failure]:
        """Wait until all are healthy and stable; returns the failures, empty for none."""
        started = time.monotonic()
        while True:
            self._safe_point()
            now = time.monotonic()
            containers = self._look()
            failures = self._failures(containers, now)
            if not failures and now - started > self._wait_timeout:
                failures = self._late(containers)
            if failures or self._all_stable(containers, now):
                return failures
            time.sleep(POLL_SECONDS)  # the engine offers no way to await a health state

    def look(self) -> list[Failure]:
        """Look once more at what was waited for; returns the failures, empty for none."""
        self._safe_point()
        return self._failures(self._look(), time.monotonic())

    def _look(self) -> list[Container]:
        found = (self._engine.container(container_id) for container_id in self._list_ids())
        containers = [container_of(facts, None) for facts in found if facts is not None]
        self.seen = [container for container in containers if container.service in self._expected]
        return self.seen

    def _failures(self, containers: list[Container], now: float) -> list[Failure]:
        failures = []
        for container in containers:
            reason = self._observe(container, now)
            if reason:
                failures.append(self._failure(container, reason))
        gone = set(self._watched) - {container.id for container in containers}
        failures += [
            self._failure(self._watched[container_id].container, "was removed during the rollout")
            for container_id in sorted(gone)
        ]
        return failures

    def _observe(self, container: Container, now: float) -> str:
        watched = self._watched.get(container.id)
        if watched is None:
            watched = self._watched[container.id] = _Watched(container, now - uptime(container))
            self._tell(STARTING, container)
        first = watched.container
        again = container.restart_count != first.restart_count or container.started_at != first.started_at
        watched.failed = again and not self._forgive(watched, container, now)
        if watched.failed:
            return f"restarted (exit status {self._exit_status(container)})"
        if container.status == RESTARTING and watched.forgiven:
            return ""
        if container.status != RUNNING:
            memory = ", out of memory" if container.oom_killed else ""
            return f"{container.status} with exit status {container.exit_code}{memory}"
        if container.health == "unhealthy":
            return "its health check fails"
        self._take_in(watched, container, now)
        return ""

    def _forgive(self, watched: _Watched, container: Container, now: float) -> bool:
        """Count an instance's restarts against what is forgiven; it has to become ready again then."""
        # One that is due is counted by the engine; when it has come, only the start time is another.
        due = watched.forgiven and watched.container.status == RESTARTING
        again = container.restart_count - watched.container.restart_count
        restarts = again if due and again >= 0 else max(again, 1)
        self.restarts += restarts
        watched.forgiven = self.restarts <= self.forgives
        watched.container, watched.since = container, now - uptime(container)
        watched.ready = watched.stable = False
        self._prober.forget(container)
        return watched.forgiven

    def _take_in(self, watched: _Watched, container: Container, now: float) -> None:
        """Note how far a container has come that runs as it should."""
        if not watched.ready and self._is_ready(container, now):
            watched.ready = True
            self._tell(HEALTHY, container)
        if watched.ready and not watched.stable and now - watched.since >= self._stabilize:
            watched.stable = True
            self._tell(VERIFIED, container)

    def _is_ready(self, container: Container, now: float) -> bool:
        if container.health == "starting" and container.healthcheck and not self._engine.has_start_interval:
            return self._prober.passed(container, now)
        return container.health in ("healthy", "none")

    def _all_stable(self, containers: list[Container], now: float) -> bool:
        counts = dict.fromkeys(self._expected, 0)
        for container in containers:
            watched = self._watched[container.id]
            if not watched.stable:
                return False
            counts[container.service] += 1
        return counts == self._expected

    def _late(self, containers: list[Container]) -> list[Failure]:
        """Who is still not healthy when the time is up; none when they are and only have to stay up."""
        failures = [
            self._failure(container, f"not healthy within {self._wait_timeout:g} s (still {container.health})")
            for container in containers
            if not self._watched[container.id].ready
        ]
        for service, count in self._expected.items():
            running = sum(container.service == service for container in containers)
            if running != count:
                failures.append(
                    Failure(service, service, f"{running} of {count} instances within {self._wait_timeout:g} s", 0, [])
                )
        return failures

    def _failure(self, container: Container, reason: str) -> Failure:
        watched = self._watched.get(container.id)
        # One that rests now may run again, and say so, before its log is read.
        ended = container.status != RUNNING or (watched is not None and watched.failed)
        log = self._engine.logs(container.id, LOG_LINES, self._end(container) if ended else None)
        return Failure(container.service, container.name, reason, self._exit_status(container), log)

    def _exit_status(self, container: Container) -> int:
        # One that runs again says 0 of itself.
        end = self._end(container) if container.status == RUNNING else None
        return container.exit_code if end is None else end.status

    def _end(self, container: Container) -> Optional[End]:
        """Its last one, from the engine's events; None when it never ended."""
        return self._engine.last_end(container.id, EVENTS_SECONDS)

# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Metrics of one worker, in Prometheus' format."""

from __future__ import annotations

from datetime import datetime
from typing import Callable, Optional

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, ProcessCollector

from .decision import Standing
from .identity import Identity
from .lifecycle import State
from .names import HEARTBEAT_SECONDS, REGISTRATION_TTL_SECONDS
from .registration import Announced

__all__ = ["Metrics"]

_PREFIX = "driftguard_worker"
# From "on time" over "one, two beats lost" to "the registration had expired", in seconds.
_GAP_BUCKETS = (HEARTBEAT_SECONDS + 0.5, 2 * HEARTBEAT_SECONDS, REGISTRATION_TTL_SECONDS, 30, 60, 300)


class Metrics:
    """The worker's metrics in a registry of their own, so that no two workers of one process share any.

    :param uptime: seconds since the start of the process.
    """

    def __init__(self, identity: Identity, uptime: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._build(identity)
        Gauge(f"{_PREFIX}_uptime_seconds", "Seconds since the start", registry=self.registry).set_function(uptime)
        self.heartbeats = Counter(f"{_PREFIX}_heartbeats", "Heartbeats that Redis confirmed", registry=self.registry)
        self.redis_errors = Counter(
            f"{_PREFIX}_redis_errors", "Heartbeats that failed, by kind of error", ["error"], registry=self.registry
        )
        self.heartbeat_gap = Histogram(
            f"{_PREFIX}_heartbeat_gap_seconds",
            "Time between two confirmed heartbeats",
            buckets=_GAP_BUCKETS,
            registry=self.registry,
        )
        self.jobs = Counter(
            f"{_PREFIX}_jobs", "Jobs by queue and what became of them", ["queue", "outcome"], registry=self.registry
        )
        self.job_seconds = Histogram(
            f"{_PREFIX}_job_seconds", "Time that handlers took", ["queue"], registry=self.registry
        )
        self.cycles = Counter(f"{_PREFIX}_drain_cycles", "Cycles of the drainer", registry=self.registry)
        self.fence = Enum(
            f"{_PREFIX}_fence",
            "What the release records allow this worker",
            states=[standing.value for standing in Standing],
            registry=self.registry,
        )
        self.fence_problems = Gauge(
            f"{_PREFIX}_fence_problems", "Release records that are missing or wrong", registry=self.registry
        )
        self._restarts = Gauge(
            f"{_PREFIX}_restarts", "Starts before this one that no stop was asked for", registry=self.registry
        )
        self._lag = Gauge(
            f"{_PREFIX}_deployment_lag_seconds", "From the build of the image to this start", registry=self.registry
        )
        self._built = _seconds(identity.build_date)
        self._state = Enum(
            f"{_PREFIX}_state", "State of the worker", states=[state.value for state in State], registry=self.registry
        )

    def started(self, announced: Announced) -> None:
        """Take in what Redis knows of this start."""
        self._restarts.set(announced.restarts)
        if self._built is not None:
            self._lag.set(announced.at - self._built)

    def follow(self, state: State) -> None:
        """Show another state; a listener of the lifecycle."""
        self._state.state(state.value)

    def _build(self, identity: Identity) -> None:
        Info(f"{_PREFIX}_build", "What runs here", registry=self.registry).info(
            {
                "worker": identity.worker_id,
                "service": identity.service,
                "sha": identity.git_sha,
                "release": identity.release_id,
                "build_date": identity.build_date,
            }
        )


def _seconds(moment: str) -> Optional[float]:
    try:
        return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None

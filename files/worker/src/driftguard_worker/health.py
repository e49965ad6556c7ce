# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""``/health`` and ``/metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .decision import Standing
from .identity import Identity
from .lifecycle import State

__all__ = ["Health", "application"]


@dataclass(frozen=True)
class Health:
    """What the worker answers about itself at one moment.

    :param registered: whether Redis holds a registration of this worker that can't have expired.
    :param connected: whether the last heartbeat reached Redis.
    :param heartbeat_age: seconds since the last confirmed heartbeat.
    :param uptime: seconds since the start.
    :param standing: what the release records allow.
    :param problems: what is wrong with them.
    """

    identity: Identity
    state: State
    registered: bool
    connected: bool
    heartbeat_age: Optional[float]
    uptime: float
    standing: Standing
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether this worker does what it was deployed for: it runs, and the fleet can see it."""
        return self.state is State.RUNNING and self.registered

    def as_json(self) -> dict[str, Any]:
        """The answer's body; times in seconds."""
        return {
            "status": "ok" if self.ok else "unavailable",
            "workerId": self.identity.worker_id,
            "state": self.state.value,
            "version": {
                "sha": self.identity.git_sha,
                "release": self.identity.release_id,
                "buildDate": self.identity.build_date,
            },
            "uptime": round(self.uptime, 3),
            "fence": {"standing": self.standing.value, "problems": list(self.problems)},
            "redis": {
                "connected": self.connected,
                "heartbeatAge": None if self.heartbeat_age is None else round(self.heartbeat_age, 3),
            },
        }


def application(health: Callable[[], Health], registry: CollectorRegistry) -> Starlette:
    """The HTTP application.

    :param health: asked at each request.
    :param registry: the metrics to show.
    """

    async def show_health(_request: Request) -> Response:
        now = health()
        return JSONResponse(now.as_json(), status_code=200 if now.ok else 503)

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/health", show_health), Route("/metrics", show_metrics)])

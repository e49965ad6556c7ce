# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``/health`` and ``/metrics`` answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.types import Message

from driftguard_worker.decision import Standing
from driftguard_worker.health import Health, application
from driftguard_worker.identity import Identity
from driftguard_worker.lifecycle import State
from driftguard_worker.metrics import Metrics

IDENTITY = Identity(
    fleet="demo",
    service="ocr",
    instance="ab12ab12ab12",
    container_id="ab12" * 16,
    host="host1",
    pid=7,
    git_sha="a" * 40,
    build_date="2026-01-02T03:04:05Z",
    release_id="0123456789ab.89abcdef0123",
)
WELL = Health(
    IDENTITY,
    State.RUNNING,
    registered=True,
    connected=True,
    heartbeat_age=0.12345,
    uptime=60.98765,
    standing=Standing.RUN,
    problems=(),
)


def get(path: str, health: Health = WELL, registry: CollectorRegistry | None = None) -> tuple[int, str, bytes]:
    """Status, content type and body, without a server."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    asyncio.run(application(lambda: health, registry or CollectorRegistry())(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers.get("content-type", ""), b"".join(part.get("body", b"") for part in sent[1:])


def test_healthy() -> None:
    status, kind, body = get("/health")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "status": "ok",
        "workerId": "ocr:ab12ab12ab12",
        "state": "running",
        "version": {
            "sha": "a" * 40,
            "release": "0123456789ab.89abcdef0123",
            "buildDate": "2026-01-02T03:04:05Z",
        },
        "uptime": 60.988,
        "fence": {"standing": "run", "problems": []},
        "redis": {"connected": True, "heartbeatAge": 0.123},
    }


@pytest.mark.parametrize("state", [state for state in State if state is not State.RUNNING])
def test_only_running_is_healthy(state: State) -> None:
    status, _, body = get("/health", replace(WELL, state=state))
    assert (status, json.loads(body)["status"], json.loads(body)["state"]) == (503, "unavailable", state.value)


def test_unregistered_is_unhealthy() -> None:
    unregistered = replace(WELL, registered=False, heartbeat_age=None, connected=False)
    status, _, body = get("/health", unregistered)
    assert (status, json.loads(body)["redis"]) == (503, {"connected": False, "heartbeatAge": None})


def test_a_lost_heartbeat_alone_is_still_healthy() -> None:
    status, _, body = get("/health", replace(WELL, connected=False, heartbeat_age=7.0))
    assert (status, json.loads(body)["redis"]["connected"]) == (200, False)


def test_metrics() -> None:
    metrics = Metrics(IDENTITY, lambda: 12.5)
    metrics.follow(State.RUNNING)
    metrics.redis_errors.labels("TimeoutError").inc()
    metrics.heartbeat_gap.observe(16)
    status, kind, body = get("/metrics", registry=metrics.registry)
    assert status == 200
    assert kind.startswith("text/plain")
    found = body.decode().splitlines()
    for line in (
        "driftguard_worker_uptime_seconds 12.5",
        'driftguard_worker_redis_errors_total{error="TimeoutError"} 1.0',
        'driftguard_worker_heartbeat_gap_seconds_bucket{le="15.0"} 0.0',
        'driftguard_worker_heartbeat_gap_seconds_bucket{le="30.0"} 1.0',
        'driftguard_worker_state{driftguard_worker_state="running"} 1.0',
        'driftguard_worker_state{driftguard_worker_state="starting"} 0.0',
    ):
        assert line in found
    (build,) = [line for line in found if line.startswith("driftguard_worker_build_info{")]
    assert 'sha="' + "a" * 40 in build


def test_metrics_are_asked_for_at_each_request() -> None:
    registry = CollectorRegistry()
    values = iter((1.0, 2.0))
    Gauge("ticks", "ticks", registry=registry).set_function(lambda: next(values))
    assert b"ticks 1.0" in get("/metrics", registry=registry)[2]
    assert b"ticks 2.0" in get("/metrics", registry=registry)[2]


def test_other_paths_are_not_found() -> None:
    assert get("/")[0] == 404

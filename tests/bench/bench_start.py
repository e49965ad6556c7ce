# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a start of the reference worker costs, against the same image that only loads the libraries it needs.

Processor time of the whole container, as the engine counts it: a fleet starts all its workers at once.
"""

from __future__ import annotations

import statistics
from typing import Any, Iterator
from uuid import uuid4

import docker
import pytest
from support.redis_server import RedisServer, wait_until

ROUNDS = 7
LABEL = "io.driftguard.test"
LIBRARIES = """
import bullmq, pydantic_settings, starlette.applications, structlog, time, uvicorn
print("loaded", flush=True)
time.sleep(600)
"""


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}=bench-start"}):
        container.remove(force=True, v=True)
    client.close()


def processor_seconds(engine: docker.DockerClient, image: str, said: bytes, **more: Any) -> float:
    """Until its log says that."""
    container = engine.containers.run(image, detach=True, labels={LABEL: "bench-start"}, **more)
    wait_until(lambda: said in container.logs(), said.decode(), 60)
    stats: Any = container.stats(stream=False)
    container.remove(force=True, v=True)
    return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


def test_start_of_a_worker(engine: docker.DockerClient, reference_image: str, redis_on_bridge: RedisServer) -> None:
    environment = {"WORKER_TYPE": "bench", "WORKER_FLEET": f"bench-{uuid4().hex[:8]}", "WORKER_HOST": "host1",
                   "WORKER_ENV": "development", "REDIS_URL": redis_on_bridge.url}
    bare: list[float] = []
    worker: list[float] = []
    for _round in range(ROUNDS):
        bare.append(processor_seconds(
            engine, reference_image, b"loaded", entrypoint=["/opt/venv/bin/python", "-c", LIBRARIES], command=[]))
        worker.append(processor_seconds(engine, reference_image, b'"running"', environment=environment))
    sides = {"its libraries loaded": statistics.median(bare), "the worker, until it runs": statistics.median(worker)}
    print("\nProcessor time of a container's start")
    for name, taken in sides.items():
        print(f"  {name:<36} {taken:6.2f} s  {taken / statistics.median(bare):5.2f} x")

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading all registrations of a large fleet, against the loop over ``KEYS`` that it replaces.

Rounds alternate, so that a busy machine slows all sides alike; the ratio of the medians is what counts.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.redis_server import RedisServer, running_redis
from support.releases import release

LOOP = "KEYS + HGETALL loop"
OURS = "this collection"
ROUNDS = 7
GOAL_SECONDS = 0.5
RELEASE = release("a")


def fill(server: RedisServer, count: int) -> None:
    """Register that many instances, as workers do."""
    with server.client() as client:
        client.flushall()
        pipeline = client.pipeline(transaction=False)
        for number in range(count):
            instance = f"{number:012x}"
            key = f"demo:worker:extractor:{instance}:version"
            pipeline.hset(key, mapping=fields(instance))
            pipeline.pexpire(key, 3_600_000)
            pipeline.zadd("demo:workers", {f"extractor:{instance}": 1.0})
        pipeline.execute()


def fields(instance: str) -> dict[str, str]:
    """What a worker says of itself."""
    now = "2026-01-02T03:04:05Z"
    return {
        "gitSha": RELEASE.sha,
        "buildDate": now,
        "startedAt": now,
        "pid": "1",
        "host": "host1",
        "service": "extractor",
        "containerId": instance.ljust(64, "c"),
        "releaseId": RELEASE.release_id,
        "state": "running",
        "heartbeatAt": now,
    }


def with_keys(client: Any) -> int:
    """The loop that scripts of this kind have: KEYS, then a round trip for each."""
    return sum(1 for key in client.keys("demo:worker:*:version") if client.hgetall(key)["gitSha"] == RELEASE.sha)


def with_pipeline(client: Any) -> int:
    """The usual improvement: the index, then HGETALL and PTTL in one pipeline."""
    members = client.zrange("demo:workers", 0, -1)
    pipeline = client.pipeline(transaction=False)
    for member in members:
        pipeline.hgetall(f"demo:worker:{member}:version")
        pipeline.pttl(f"demo:worker:{member}:version")
    answers = pipeline.execute()
    return sum(1 for found in answers[::2] if found["gitSha"] == RELEASE.sha)


def with_gateway(gateway: RedisGateway) -> int:
    """What the modules do, parsing and checking every field."""
    found = gateway.registrations("demo").registrations
    return sum(1 for one in found if one.git_sha == RELEASE.sha and not one.problems)


def seconds(work: Callable[[], int], count: int) -> float:
    """How long it takes; it must find all."""
    start = time.perf_counter()
    assert work() == count
    return time.perf_counter() - start


def rounds(server: RedisServer, count: int) -> dict[str, list[float]]:
    """Seconds by name, of rounds that take turns."""
    fill(server, count)
    client, gateway = server.client(), RedisGateway.connect(server.url)
    ways: dict[str, Callable[[], int]] = {
        LOOP: lambda: with_keys(client),
        "index + pipeline": lambda: with_pipeline(client),
        OURS: lambda: with_gateway(gateway),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _round in range(ROUNDS):
        for name, work in ways.items():
            times[name].append(seconds(work, count))
    return times


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_registrations_are_read_faster_than_by_the_loop(count: int) -> None:
    with running_redis() as server:
        times = rounds(server, count)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print()
    for name, taken in medians.items():
        print(f"{count:>6} registrations  {name:<20} {taken * 1000:8.1f} ms  {taken / medians[OURS]:5.1f} x")
    assert medians[OURS] < medians[LOOP]
    # The best round: what else the machine does is not the gateway's time.
    assert min(times[OURS]) < GOAL_SECONDS

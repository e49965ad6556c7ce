# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs a second of the worker runtime, with fence, admission and handlers in threads, against a bare BullMQ worker.

Both are processes of their own that work on jobs which do nothing, or wait for a thousandth of a second, on the same
Redis. Rounds alternate and medians are compared.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import bullmq
import pytest
from support.crew import OLD, Site
from support.redis_server import running_redis, wait_until

ROUNDS = 5
JOBS = 3000
GOAL = 0.9
BARE = """
import asyncio, json, sys, bullmq
asked = json.loads(sys.argv[1])
async def main():
    async def work(job, token):
        if asked["seconds"]:
            await asyncio.sleep(asked["seconds"])
    options = {"connection": asked["url"], "prefix": "crews", "concurrency": asked["concurrency"]}
    worker = bullmq.Worker("work", work, options)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def _pause(url: str, pause: bool) -> None:
    queue = bullmq.Queue("work", {"connection": url, "prefix": "crews"})
    await (queue.pause() if pause else queue.resume())
    await queue.close()


def _rate(site: Site) -> float:
    """Queue jobs for whoever is there; how many a second are worked off."""
    client = site.client()
    asyncio.run(_pause(site.redis.url, True))
    site.forget()
    site.add(range(JOBS))
    asyncio.run(_pause(site.redis.url, False))
    begun = time.perf_counter()
    wait_until(lambda: not client.exists("crews:work:wait", "crews:work:active"), "all jobs to be done", 120)
    return JOBS / (time.perf_counter() - begun)


@contextmanager
def _bare(site: Site, asked: dict[str, Any]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", BARE, json.dumps({**asked, "url": site.redis.url})])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _ours(site: Site, asked: dict[str, Any]) -> Iterator[None]:
    crew = site.crew(OLD, 1, sink="", **asked)
    try:
        yield
    finally:
        crew.kill()


@pytest.mark.parametrize(("concurrency", "seconds"), [(1, 0.0), (10, 0.0), (1, 0.005), (10, 0.005)])
def test_throughput(tmp_path: Path, concurrency: int, seconds: float) -> None:
    asked = {"concurrency": concurrency, "seconds": seconds}
    rates: dict[Any, list[float]] = {_bare: [], _ours: []}
    with running_redis() as redis:
        site = Site(tmp_path, redis, redis)
        site.write_host(OLD)
        site.publish(OLD)
        for _round in range(ROUNDS):
            for worker, found in rates.items():
                with worker(site, asked):
                    # Both connect, and are at work, before it counts.
                    _rate(site)
                    found.append(_rate(site))
    bare, ours = (statistics.median(found) for found in rates.values())
    print(
        f"{concurrency:>2} at a time, jobs of {seconds * 1000:g} ms: runtime {ours:.0f}, bare {bare:.0f} a second,"
        f" {ours / bare:.2f} x (goal {GOAL:g} x) {'ok' if ours / bare >= GOAL else 'MISSED'}"
    )
    assert ours > 0

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several workers in one process, each a whole runtime; crew.py starts it."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import redis as redis_py

from driftguard_worker import logs, redis_options
from driftguard_worker.identity import Identity
from driftguard_worker.jobs import Handler, Handlers, Job, Queue
from driftguard_worker.records import ReleaseKey
from driftguard_worker.runtime import Replacement, Runtime, Task
from driftguard_worker.server import listen
from driftguard_worker.settings import Settings
from driftguard_worker.signals import StopSignal

ASKED: dict[str, Any] = json.loads(sys.argv[1])
SINK = redis_py.Redis.from_url(ASKED["sink"], decode_responses=True) if ASKED["sink"] else None


def work(job: Job) -> str:
    """Tell the sink of the start, take a while, have an effect that is the same however often it is had."""
    if SINK is None:
        if ASKED["seconds"]:
            time.sleep(ASKED["seconds"])
        return job.id
    SINK.rpush("starts", json.dumps({"id": job.id, "at": job.admitted_at, "release": job.release}))
    time.sleep(ASKED["seconds"] * random.random() * 2)
    SINK.hincrby("effects", str(job.data["number"]), 1)
    return job.id


def settings() -> Settings:
    """As the environment would give them."""
    return Settings(WORKER_TYPE=ASKED["service"], WORKER_FLEET=ASKED["fleet"], REDIS_URL=ASKED["url"])


def identity(number: int) -> Identity:
    """Of one of the workers."""
    release, sha = ASKED["release"]
    return Identity(
        fleet=ASKED["fleet"],
        service=ASKED["service"],
        instance=f"{ASKED['name']}-{number}",
        container_id="",
        host=ASKED["host"],
        pid=number,
        git_sha=sha,
        build_date="2026-01-02T03:04:05Z",
        release_id=release,
        baked=ReleaseKey(release, sha),
    )


def task() -> Task:
    """What each of them does."""
    handlers = Handlers()
    handlers.add(Handler(Queue("work", keep_completed=100_000, stalls=50), work))
    return Task(
        handlers=handlers,
        prefix=ASKED["fleet"],
        concurrency=ASKED["concurrency"],
        drain=ASKED["drain"],
        production=True,
        guard_directory=Path(ASKED["guard"]),
    )


async def main() -> None:
    """Run them all until a signal."""
    logs.configure(ASKED["log"], {"crew": ASKED["name"]})
    options = redis_options.from_settings(settings())
    stop = asyncio.create_task(StopSignal().wait())

    async def stopped() -> None:
        await asyncio.shield(stop)

    workers = [
        Runtime(identity(number), options, listen("127.0.0.1", 0), time.monotonic(), task())
        for number in range(ASKED["count"])
    ]
    try:
        await asyncio.gather(*(worker.run(asyncio.create_task(stopped())) for worker in workers))
    except Replacement:
        print("replacement asked for", flush=True)
        raise


if __name__ == "__main__":
    asyncio.run(main())

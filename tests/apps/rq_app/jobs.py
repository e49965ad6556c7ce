# SPDX-License-Identifier: MIT
"""An RQ application: one job that takes a while and leaves a mark in Redis."""

from __future__ import annotations

import os
import time
from pathlib import Path

from redis import Redis
from rq import Queue

FLEET = os.environ["WORKER_FLEET"]
CONNECTION = Redis.from_url(
    os.environ["REDIS_URL"], password=Path(os.environ["REDIS_PASSWORD_FILE"]).read_text().strip())
QUEUE = Queue(f"{FLEET}:jobs", connection=CONNECTION)


def work(name: str, seconds: float = 0.0) -> None:
    """Leave marks when it begins and when it is done."""
    CONNECTION.rpush(f"{FLEET}:begun", name)
    time.sleep(seconds)
    CONNECTION.rpush(f"{FLEET}:done", name)

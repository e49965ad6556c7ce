# SPDX-License-Identifier: MIT
"""A Celery application: one task that takes a while and leaves a mark in Redis."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import quote

import redis
from celery import Celery

FLEET = os.environ["WORKER_FLEET"]
PASSWORD = Path(os.environ["REDIS_PASSWORD_FILE"]).read_text().strip()
URL = os.environ["REDIS_URL"].replace("://", f"://:{quote(PASSWORD, safe='')}@")

app = Celery(broker=URL)
app.conf.update(
    broker_transport_options={"global_keyprefix": f"{FLEET}:"},
    broker_connection_retry_on_startup=True,
    task_default_queue="jobs",
    worker_prefetch_multiplier=1,
)


@app.task  # type: ignore[untyped-decorator]
def work(name: str, seconds: float = 0.0) -> None:
    """Leave marks when it begins and when it is done."""
    marks = redis.Redis.from_url(URL)
    marks.rpush(f"{FLEET}:begun", name)
    time.sleep(seconds)
    marks.rpush(f"{FLEET}:done", name)

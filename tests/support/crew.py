# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crews of real workers with a real queue, a release record to publish, and a sink that sees every start and effect."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, Iterable, Optional
from uuid import uuid4

import bullmq
import redis as redis_py
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, ReleaseRef, render_json
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.redis_server import RedisServer, wait_until

__all__ = ["NEW", "OLD", "Crew", "ReleaseRef", "Site"]

PROGRAM = Path(__file__).with_name("crew_program.py")
SOURCE = Path(__file__).parents[2] / "files" / "worker" / "src"
OLD = ReleaseRef("0" * 12 + "." + "1" * 12, "0" * 40)
NEW = ReleaseRef("a" * 12 + "." + "2" * 12, "a" * 40)


class Crew:
    """Workers of one release, in one process."""

    def __init__(self, asked: dict[str, Any], log: Path) -> None:
        self.release = ReleaseRef(*asked["release"])
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(asked)],
                env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


class Site:
    """A fleet named ``crews``: its Redis, its host's record, a queue ``work``; and a sink in a Redis of its own."""

    def __init__(self, directory: Path, redis: RedisServer, sink: RedisServer) -> None:
        self.directory = directory
        self.redis = redis
        self.sink = sink
        self.guard = directory / "guard"
        self.guard.mkdir()
        self.crews: list[Crew] = []
        self._generation = 0
        self._round = 0

    def crew(self, release: ReleaseRef, count: int, **asked: Any) -> Crew:
        """Start so many workers."""
        name = uuid4().hex[:8]
        values = {
            "name": name, "fleet": "crews", "service": "worker", "host": "here", "url": self.redis.url,
            "log": "warning", "sink": self.sink.url, "release": [release.release_id, release.sha],
            "count": count, "concurrency": 2,
            "drain": 20.0, "seconds": 0.0, "guard": str(self.guard), **asked,
        }
        crew = Crew(values, self.directory / f"{name}.log")
        self.crews.append(crew)
        return crew

    def publish(self, target: ReleaseRef, *beside: ReleaseRef, quietly: bool = False) -> float:
        """Change the fleet's record as a deploy does; Redis' time right after, in seconds.

        :param quietly: as a Redis user who may not tell anybody.
        """
        gateway = RedisGateway.connect(self._mute_url() if quietly else self.redis.url)
        heard = gateway.publish_record(self._record(target, beside))
        assert heard < 0 if quietly else heard >= 0
        return gateway.time()

    def _mute_url(self) -> str:
        client = self.client()
        client.acl_setuser("mute", enabled=True, passwords=["+mute"], keys=["*"], categories=["+@all"])
        return self.redis.url_for("mute", "mute")

    def write_host(self, target: ReleaseRef, *beside: ReleaseRef) -> None:
        """Change the host's record as a deploy does: by rename."""
        draft = self.guard / "guard.json.tmp"
        draft.write_text(render_json(self._record(target, beside)))
        draft.replace(self.guard / "guard.json")

    def _record(self, target: ReleaseRef, beside: tuple[ReleaseRef, ...]) -> Record:
        self._generation += 1
        return Record("crews", self._generation, "rolling" if beside else "settled", target, (*beside, target))

    def add(self, numbers: Iterable[int]) -> None:
        """Queue jobs; one that is there already isn't added again."""

        async def add() -> None:
            queue = bullmq.Queue("work", {"connection": self.redis.url, "prefix": "crews"})
            jobs = [
                {
                    "name": "job",
                    "data": {"number": number},
                    "opts": {
                        "jobId": f"job-{self._round}-{number}", "attempts": 3, "removeOnComplete": True,
                    },
                }
                for number in numbers
            ]
            for start in range(0, len(jobs), 500):
                await queue.addBulk(jobs[start : start + 500])
            await queue.close()

        asyncio.run(add())

    def states(self, release: Optional[ReleaseRef] = None) -> Counter[str]:
        """How many registered workers of a release say what of themselves."""
        client = self.client()
        with client.pipeline(transaction=False) as pipe:
            for member in client.zrange("crews:workers", 0, -1):
                pipe.hmget(f"crews:worker:{member}:version", "state", "releaseId")
            rows = pipe.execute()
        return Counter(state for state, of in rows if state and release in (None, self._release(of)))

    def _release(self, release_id: str) -> Optional[ReleaseRef]:
        return next((known for known in (OLD, NEW) if known.release_id == release_id), None)

    def client(self) -> Any:
        """The fleet's Redis."""
        return redis_py.Redis.from_url(self.redis.url, decode_responses=True)

    @property
    def effects(self) -> dict[str, int]:
        """Job number to how often its effect was had."""
        rows: Any = redis_py.Redis.from_url(self.sink.url, decode_responses=True).hgetall("effects")
        return {number: int(times) for number, times in rows.items()}

    def fenced_at(self, release: ReleaseRef) -> list[float]:
        """When each worker of a release was fenced, every time, in seconds since the epoch."""
        logs = [crew.log.read_text() for crew in self.crews if crew.release == release]
        lines = [json.loads(line) for log in logs for line in log.splitlines()]
        return sorted(_seconds(line["timestamp"]) for line in lines if line["event"] == "fenced")

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Every start of a job: id, release, and Redis' time of its admission in microseconds."""
        rows: Any = redis_py.Redis.from_url(self.sink.url, decode_responses=True).lrange("starts", 0, -1)
        return [json.loads(row) for row in rows]

    def forget(self) -> None:
        """Begin anew, with an empty sink and other jobs of the same numbers."""
        self._round += 1
        client = self.client()
        # What a restart has to read again would grow with each round.
        client.bgrewriteaof()
        wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, "the log to be rewritten", 30)
        redis_py.Redis.from_url(self.sink.url).flushall()

    def close(self) -> None:
        """Kill what is left."""
        for crew in self.crews:
            crew.kill()


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()

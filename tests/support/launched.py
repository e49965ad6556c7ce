# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker with handlers as a real process, guarded and fenced as in a container, with a real Redis."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Callable

import bullmq
import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, ReleaseRef, render_json
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.redis_server import RedisServer, wait_until
from support.worker_process import WorkerProcess, running_worker

__all__ = ["NEW", "OLD", "Launch", "launch"]

PROGRAM = Path(__file__).with_name("launched_worker.py")
GUARD = Path(__file__).parents[2] / "files" / "guard" / "version_guard.py"
OLD = ReleaseRef("0" * 12 + "." + "1" * 12, "0" * 40)
NEW = ReleaseRef("a" * 12 + "." + "2" * 12, "a" * 40)


class Launch:
    """A host with a guard directory, an image of release OLD, and a queue ``work`` in fleet ``demo``."""

    def __init__(self, place: Path, redis: RedisServer) -> None:
        self.place = place
        self.redis = redis
        self._generation = 0
        (place / "guard").mkdir()
        source = GUARD.read_text()
        for constant, path in {"IMAGE_FILE": place / "image.json", "GUARD_MOUNT": place / "guard"}.items():
            before, _equals, _rest = source.partition(f'\n{constant} = "')
            assert _equals
            source = f'{before}\n{constant} = "{path}"\n' + _rest.partition('"\n')[2]
        (place / "guard" / "version_guard.py").write_text(source)
        image = {
            "schema": "1", "fleet": "demo", "variant": "base", "release": OLD.release_id, "revision": OLD.sha,
            "created": "2026-01-02T03:04:05Z", "baseName": "base", "baseDigest": "none",
        }
        lines = ",\n".join(f'  "{key}": "{value}"' for key, value in image.items())
        (place / "image.json").write_text("{\n" + lines + "\n}\n")
        self.write_host(OLD)

    def record(self, *allowed: ReleaseRef) -> Record:
        """A record that allows these, the last one its target."""
        self._generation += 1
        return Record("demo", self._generation, "rolling" if len(allowed) > 1 else "settled", allowed[-1], allowed)

    def write_host(self, *allowed: ReleaseRef) -> None:
        """Change the host's record, by rename."""
        draft = self.place / "draft"
        draft.write_text(render_json(self.record(*allowed)))
        draft.replace(self.place / "guard" / "guard.json")

    def publish(self, *allowed: ReleaseRef) -> None:
        """Change the fleet's record."""
        RedisGateway.connect(self.redis.url).publish_record(self.record(*allowed))

    def worker(self, **environment: str) -> AbstractContextManager[WorkerProcess]:
        """A started worker of release OLD."""
        values = {"REDIS_URL": self.redis.url, "GIT_SHA": OLD.sha, "WORKER_ENV": "production", **environment}
        return running_worker(values, [str(PROGRAM), str(self.place)])

    def queue(self, use: Callable[[Any], Any], name: str = "work") -> Any:
        """Use a BullMQ queue; what the coroutine returns."""

        async def opened() -> Any:
            queue = bullmq.Queue(name, {"connection": self.redis.url, "prefix": "demo"})
            try:
                return await use(queue)
            finally:
                await queue.close()

        return asyncio.run(opened())

    def add(self, data: dict[str, Any], name: str = "job", **options: Any) -> str:
        """Add a job; its id."""

        async def add(queue: Any) -> str:
            return str((await queue.add(name, data, options)).id)

        return str(self.queue(add))

    def job(self, job_id: str, queue: str = "work") -> dict[str, str]:
        """What Redis holds of a job."""
        with self.redis.client() as client:
            found: Any = client.hgetall(f"demo:{queue}:{job_id}")
            return dict(found)

    def count(self, state: str, queue: str = "work") -> int:
        """How many jobs are in a state."""
        return int(self.queue(lambda opened: opened.getJobCounts(state), queue)[state])

    def finished(self, job_id: str, seconds: float = 20) -> dict[str, str]:
        """Wait until a job is done or has failed; what Redis holds of it."""
        wait_until(lambda: "finishedOn" in self.job(job_id), f"job {job_id} to be finished", seconds)
        return self.job(job_id)

    def result(self, job_id: str) -> Any:
        """Wait until a job is done; its result."""
        return json.loads(self.finished(job_id)["returnvalue"])

    def active(self, job_id: str) -> bool:
        """Whether a job is being worked on."""
        with self.redis.client() as client:
            found: Any = client.lrange("demo:work:active", 0, -1)
            return job_id in found

    def state(self) -> str:
        """What the one registered worker says of itself; nothing without one."""
        with self.redis.client() as client:
            keys = list(client.scan_iter("demo:worker:*:*:version"))
            assert len(keys) <= 1
            found: Any = client.hget(str(keys[0]), "state") if keys else ""
            return str(found)

    def until(self, state: str) -> None:
        """Wait until the worker says so of itself."""
        wait_until(lambda: self.state() == state, f"the worker to be {state}, it is {self.state()}", 20)


@pytest.fixture
def launch(tmp_path: Path, redis_server: RedisServer) -> Launch:
    """A host whose fleet's record allows release OLD."""
    made = Launch(tmp_path, redis_server)
    made.publish(OLD)
    return made

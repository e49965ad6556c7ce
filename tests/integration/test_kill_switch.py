# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill switch is read by the drainer alone, once a cycle, and evidence follows it in mid-stream."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, Iterator

import pytest
from support.launched import Launch
from support.modules import run_module
from support.redis_server import wait_until
from support.worker_process import WorkerProcess, running_worker

SERVICES = ("continuous-drainer", "ocr", "classifier", "extractor", "orchestrator")


class Pipeline:
    """The reference fleet's services as processes; not in production, so that they need no guard."""

    def __init__(self, launch: Launch, stack: ExitStack) -> None:
        self.launch = launch
        self._stack = stack
        self._added = 0

    def start(self, service: str, **environment: str) -> WorkerProcess:
        values = {"WORKER_TYPE": service, "REDIS_URL": self.launch.redis.url, **environment}
        worker = self._stack.enter_context(running_worker(values))
        worker.event("running")
        return worker

    def add(self, count: int, **evidence: Any) -> None:
        async def add(queue: Any) -> None:
            jobs = [{"name": "evidence", "data": {"number": self._added + n, **evidence}} for n in range(count)]
            await queue.addBulk(jobs)

        self.launch.queue(add, "pending")
        self._added += count

    def waiting(self, queue: str) -> int:
        return self.launch.count("waiting", queue)

    def switch(self, value: str) -> Any:
        return run_module(
            "worker_flag", fleet="demo", name="classification", value=value, reason="test",
            redis_url=self.launch.redis.url,
        ).must_pass()

    def flag(self) -> str | None:
        with self.launch.redis.client() as client:
            found: Any = client.hget("demo:flags", "classification")
            return None if found is None else str(found)


@pytest.fixture
def pipeline(launch: Launch) -> Iterator[Pipeline]:
    with ExitStack() as stack:
        yield Pipeline(launch, stack)


@pytest.mark.parametrize(("variable", "queue", "flag"), [
    ({}, "classification", "true"),
    ({"CLASSIFICATION_ENABLED": "true"}, "classification", "true"),
    ({"CLASSIFICATION_ENABLED": "no"}, "classification", "true"),
    ({"CLASSIFICATION_ENABLED": "false"}, "extraction", "false"),
])
def test_where_it_starts_from(pipeline: Pipeline, variable: dict[str, str], queue: str, flag: str) -> None:
    pipeline.start("continuous-drainer", **variable)
    pipeline.add(3)
    wait_until(lambda: pipeline.waiting(queue) == 3, f"three jobs in {queue}")
    assert pipeline.flag() == flag


def test_what_was_set_counts_more_than_the_variable(pipeline: Pipeline) -> None:
    pipeline.switch("false")
    pipeline.start("continuous-drainer", CLASSIFICATION_ENABLED="true")
    pipeline.add(3)
    wait_until(lambda: pipeline.waiting("extraction") == 3, "three jobs in extraction")
    assert pipeline.flag() == "false"


def test_off_and_on_in_mid_stream(pipeline: Pipeline) -> None:
    """What is there when it is switched is passed on by the old way or the new one, what comes later by the new one."""
    drainer = pipeline.start("continuous-drainer")
    for queue, value in (("classification", "true"), ("extraction", "false"), ("classification", "true")):
        pipeline.switch(value)
        seen = cycles(drainer)
        # The cycle that may have begun before the switch, and the first that must have seen it.
        wait_until(lambda seen=seen: cycles(drainer) >= seen + 2, "two cycles")
        before = pipeline.waiting(queue)
        pipeline.add(20)
        wait_until(lambda queue=queue, before=before: pipeline.waiting(queue) == before + 20, f"20 more in {queue}")
    assert (pipeline.waiting("classification"), pipeline.waiting("extraction")) == (40, 20)
    logged = [line for line in drainer.lines if line["event"] == "cycle"]
    assert sum(line["classify"] for line in logged) == 40
    assert sum(line["extract"] for line in logged) == 20
    assert sum(line["pending"] for line in logged) == 60
    assert not [line for line in logged if line["classify"] and line["extract"]]


def cycles(drainer: WorkerProcess) -> float:
    lines = drainer.get("/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith("driftguard_worker_drain_cycles_total")).split()[1])


def test_a_value_that_is_none_counts_as_the_first_one(pipeline: Pipeline) -> None:
    with pipeline.launch.redis.client() as client:
        client.hset("demo:flags", "classification", "maybe")
    drainer = pipeline.start("continuous-drainer", CLASSIFICATION_ENABLED="false")
    pipeline.add(3)
    wait_until(lambda: pipeline.waiting("extraction") == 3, "three jobs in extraction")
    assert drainer.event("flag not understood")["found"] == "b'maybe'"


def test_only_the_drainer_reads_it(pipeline: Pipeline) -> None:
    """Watched on the server, while evidence goes the whole way."""
    redis = pipeline.launch.redis
    seen: list[dict[str, Any]] = []
    watching, over = threading.Event(), threading.Event()

    def watch() -> None:
        with redis.client() as client, client.monitor() as monitor:
            watching.set()
            while not over.is_set():
                seen.append(monitor.next_command())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    watching.wait()
    for service in SERVICES:
        pipeline.start(service)
    pipeline.add(5)
    pipeline.add(5, needsOcr=True)
    wait_until(lambda: pipeline.launch.count("completed", "extraction") == 10, "ten extracted", 30)
    with redis.client() as client:
        names = {row["addr"]: row["name"] for row in client.client_list()}
        over.set()
        client.ping()
    watcher.join(10)
    readers = {
        names[f"{command['client_address']}:{command['client_port']}"]
        for command in seen if "demo:flags" in command["command"]
    }
    assert len(readers) == 1
    assert readers.pop().startswith("demo:worker:continuous-drainer:")
    assert {name.split(":")[2] for name in names.values() if name.startswith("demo:worker:")} == set(SERVICES)

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of a real worker: done, failed, dead, drained, handed back."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.launched import Launch
from support.processes import alive
from support.redis_server import next_heartbeat, wait_until


@pytest.mark.parametrize(("name", "data", "result"), [
    ("anything", {"number": 1}, {"did": {"number": 1}, "attempt": 1}),
    ("coroutine", {}, "awaited"),
    ("process", {"number": 4}, 6),
])
def test_done(launch: Launch, name: str, data: dict[str, int], result: object) -> None:
    with launch.worker() as worker:
        done = launch.finished(launch.add(data, name))
        assert json.loads(done["returnvalue"]) == result
        assert worker.stop() == 0


def test_what_fails_is_tried_again_and_then_a_dead_letter(launch: Launch) -> None:
    with launch.worker() as worker:
        job = launch.add({"seconds": "many"}, attempts=2, backoff={"type": "exponential", "delay": 50})
        failed = launch.finished(job)
        assert failed["atm"] == "2"
        assert failed["failedReason"].startswith("TypeError: ")
        letter = launch.job(f"work-{job}", "work-dead")
        told = json.loads(letter["data"])
        assert (told["queue"], told["jobId"], told["name"], told["data"]) == ("work", job, "job", {"seconds": "many"})
        assert told["reason"].startswith("TypeError: ")
        assert (told["attemptsMade"], told["release"]) == (2, "000000000000.111111111111")
        assert launch.count("waiting", "work-dead") == 1
        metrics = worker.get("/metrics")[1]
        assert 'driftguard_worker_jobs_total{outcome="failed",queue="work"} 1.0' in metrics
        assert 'driftguard_worker_jobs_total{outcome="dead",queue="work"} 1.0' in metrics


@pytest.mark.parametrize(("name", "data", "reason"), [
    ("hopeless", {}, "Unrecoverable: it can't be done"),
])
def test_what_can_not_succeed_is_a_dead_letter_at_once(
    launch: Launch, name: str, data: dict[str, object], reason: str
) -> None:
    with launch.worker():
        job = launch.add(data, name, attempts=5)
        assert launch.finished(job)["atm"] == "1"
        assert json.loads(launch.job(f"work-{job}", "work-dead")["data"])["reason"] == reason


def test_a_handler_that_blocks_blocks_neither_heartbeat_nor_health_nor_its_lock(launch: Launch) -> None:
    with launch.worker() as worker:
        job = launch.add({"seconds": 6})
        wait_until(lambda: launch.active(job), "the job to be active")
        with launch.redis.client() as client:
            next_heartbeat(client, worker.key)
        assert worker.health()[0] == 200
        assert launch.active(job)
        assert launch.result(job)["attempt"] == 1


def test_a_stop_lets_running_jobs_finish_and_starts_no_other(launch: Launch) -> None:
    with launch.worker() as worker:
        first, second = launch.add({"seconds": 5}), launch.add({"seconds": 5})
        wait_until(lambda: launch.active(first), "the first job to be active")
        worker.send(signal.SIGTERM)
        launch.until("draining")
        assert worker.health()[0] == 503
        assert worker.ended() == 0
        assert "returnvalue" in launch.job(first)
        assert "processedOn" not in launch.job(second)
        assert launch.state() == ""


def test_what_outlives_the_drain_time_is_handed_back_without_counting_an_attempt(launch: Launch) -> None:
    with launch.worker(WORKER_DRAIN_SECONDS="1") as worker:
        job = launch.add({"seconds": 60}, attempts=1)
        wait_until(lambda: launch.active(job), "the job to be active")
        begun = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begun < 30, "the handler takes a minute"
    assert not launch.active(job), "handed back, not left to its lock"
    assert launch.job(job).get("atm", "0") == "0"
    with launch.worker():
        wait_until(lambda: launch.active(job), "another worker to take it")


def test_a_worker_that_is_killed_loses_no_job(launch: Launch) -> None:
    with launch.worker(WORKER_CONCURRENCY="2") as worker:
        jobs = [launch.add({"seconds": 1}) for _ in range(3)]
        wait_until(lambda: launch.active(jobs[1]), "two jobs to be active")
        worker.process.kill()
    # As when their half a minute is over.
    with launch.redis.client() as client:
        for job in jobs:
            client.delete(f"demo:work:{job}:lock")
    with launch.worker():
        assert [launch.finished(job, 60)["returnvalue"] for job in jobs]
        assert launch.count("completed") == 3


def test_a_process_that_dies_fails_its_job_alone(launch: Launch) -> None:
    with launch.worker() as worker:
        job = launch.add({"number": 10**11}, "process", attempts=1)
        wait_until(lambda: launch.active(job), "the job to be active")
        wait_until(lambda: len(children(worker.process.pid)) > 1, "its process")
        for child in children(worker.process.pid):
            os.kill(child, signal.SIGKILL)
        assert launch.finished(job)["failedReason"].startswith("BrokenProcessPool: ")
        assert launch.result(launch.add({"number": 4}, "process")) == 6


def test_a_worker_that_is_killed_leaves_no_process_at_work(launch: Launch) -> None:
    with launch.worker() as worker:
        launch.add({"number": 10**11}, "process")
        # More than a start takes: it is at work, and holds its interpreter.
        wait_until(lambda: any(ticks(pid) > 200 for pid in children(worker.process.pid)), "its process to be at work")
        left = children(worker.process.pid)
        worker.process.kill()
        wait_until(lambda: not [pid for pid in left if alive(pid)], "its processes to end")


def ticks(pid: int) -> int:
    """Processor time in hundredths of a second."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    tasks = Path("/proc") / str(pid) / "task"
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def metric(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def test_restarts_and_deployment_lag_are_told(launch: Launch) -> None:
    """A restart is a start after an end that nobody asked for, of the same instance: here, by its process id."""
    with launch.worker(BUILD_DATE="2026-01-02T03:04:05Z") as worker:
        launch.until("running")
        text = worker.get("/metrics")[1]
        assert metric(text, "driftguard_worker_restarts") == 0
        assert metric(text, "driftguard_worker_deployment_lag_seconds") > 0
        starts = worker.key.replace(":version", ":starts")
        with launch.redis.client() as client:
            assert client.get(starts) == "1"
            assert 0 < int(client.ttl(starts)) <= 7 * 86_400
        worker.stop()
        with launch.redis.client() as client:
            assert not client.exists(starts)

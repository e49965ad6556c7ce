# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each row of the fence's table, with a real worker process: what it says, and whether it takes a job."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from support.launched import NEW, OLD, Launch
from support.redis_server import next_heartbeat, wait_until
from support.worker_process import WorkerProcess


def fleet_missing(launch: Launch) -> None:
    with launch.redis.client() as client:
        client.delete("demo:release")


def fleet_malformed(launch: Launch) -> None:
    with launch.redis.client() as client:
        client.set("demo:release", "{")


def fleet_of_another_type(launch: Launch) -> None:
    with launch.redis.client() as client:
        client.delete("demo:release")
        client.rpush("demo:release", "x")


def fleet_of_another_fleet(launch: Launch) -> None:
    with launch.redis.client() as client:
        client.set("demo:release", client.get("demo:release").replace('"demo"', '"other"'))


def host_missing(launch: Launch) -> None:
    (launch.place / "guard" / "guard.json").unlink()


def host_malformed(launch: Launch) -> None:
    (launch.place / "guard" / "guard.json").write_text("{")


FLEET = [fleet_missing, fleet_malformed, fleet_of_another_type, fleet_of_another_fleet]
HOST = [host_missing, host_malformed]
PROBLEM: dict[Callable[[Launch], None], str] = {
    fleet_missing: "fleet record missing",
    host_missing: "host record missing",
    host_malformed: "host record unreadable",
}


def works(launch: Launch) -> None:
    assert launch.result(launch.add({"number": 1}))["did"] == {"number": 1}


def takes_no_job(launch: Launch, worker: WorkerProcess) -> None:
    """A job stays, through a heartbeat and more."""
    job = launch.add({"number": 1})
    with launch.redis.client() as client:
        next_heartbeat(client, worker.key)
    assert "processedOn" not in launch.job(job)


def is_parked(launch: Launch, worker: WorkerProcess) -> None:
    launch.until("fenced")
    status, health = worker.health()
    assert (status, health["state"], health["fence"]["standing"]) == (503, "fenced", "park")
    assert 'driftguard_worker_fence{driftguard_worker_fence="park"} 1.0' in worker.get("/metrics")[1]
    takes_no_job(launch, worker)
    assert worker.process.poll() is None


def reports(worker: WorkerProcess, damage: Callable[[Launch], None]) -> None:
    problem = PROBLEM.get(damage, "fleet record unreadable")
    wait_until(lambda: worker.health()[1]["fence"]["problems"] == [problem], f"{problem} to be reported")
    assert worker.health()[0] == 200
    assert worker.event("record in question")["found"] == problem
    assert "driftguard_worker_fence_problems 1.0" in worker.get("/metrics")[1]


def test_allowed(launch: Launch) -> None:
    with launch.worker() as worker:
        works(launch)
        assert worker.health()[1]["fence"] == {"standing": "run", "problems": []}


@pytest.mark.parametrize("allowed", [(OLD, NEW), (NEW, OLD)])
def test_rolling(launch: Launch, allowed: Any) -> None:
    launch.publish(*allowed)
    launch.write_host(*allowed)
    with launch.worker():
        works(launch)


def test_host_does_not_allow_at_the_start(launch: Launch) -> None:
    launch.write_host(NEW)
    with launch.worker() as worker:
        assert worker.ended() == 1
        assert "[version] FATAL: This host does not allow this release!" in worker.text


@pytest.mark.parametrize("damage", HOST)
def test_host_record_is_damaged_at_the_start(launch: Launch, damage: Callable[[Launch], None]) -> None:
    damage(launch)
    with launch.worker() as worker:
        assert worker.ended() == 1
        assert "[version] FATAL: Host record is " in worker.text


def test_host_no_longer_allows(launch: Launch) -> None:
    with launch.worker() as worker:
        works(launch)
        launch.write_host(NEW)
        is_parked(launch, worker)


def test_host_no_longer_allows_while_redis_is_away(launch: Launch) -> None:
    with launch.worker() as worker:
        launch.until("running")
        launch.redis.stop()
        launch.write_host(NEW)
        wait_until(lambda: worker.health()[1]["state"] == "fenced", "the worker to park")
        launch.redis.start()
        is_parked(launch, worker)


@pytest.mark.parametrize("damage", HOST)
def test_host_record_is_damaged_while_running(launch: Launch, damage: Callable[[Launch], None]) -> None:
    with launch.worker() as worker:
        works(launch)
        damage(launch)
        reports(worker, damage)
        works(launch)


def test_guard_directory_vanishes_while_running(launch: Launch) -> None:
    with launch.worker() as worker:
        works(launch)
        shutil.rmtree(launch.place / "guard")
        reports(worker, host_missing)
        works(launch)


def test_fleet_does_not_allow_at_the_start_nor_after_a_restart(launch: Launch) -> None:
    launch.publish(NEW)
    for _start in range(2):
        with launch.worker() as worker:
            is_parked(launch, worker)
            assert worker.stop() == 0
    assert launch.state() == ""


def test_fleet_no_longer_allows_and_then_does_again(launch: Launch) -> None:
    with launch.worker() as worker:
        works(launch)
        launch.publish(NEW)
        is_parked(launch, worker)
        launch.publish(NEW, OLD)
        launch.until("running")
        works(launch)
        assert worker.health()[0] == 200


@pytest.mark.parametrize("damage", FLEET)
def test_fleet_record_is_damaged_at_the_start(launch: Launch, damage: Callable[[Launch], None]) -> None:
    damage(launch)
    with launch.worker() as worker:
        works(launch)
        reports(worker, damage)


@pytest.mark.parametrize("damage", FLEET)
def test_fleet_record_is_damaged_while_running(launch: Launch, damage: Callable[[Launch], None]) -> None:
    with launch.worker() as worker:
        works(launch)
        damage(launch)
        works(launch)
        reports(worker, damage)


@pytest.mark.parametrize("damage", FLEET)
def test_a_record_that_is_gone_lifts_no_fence(launch: Launch, damage: Callable[[Launch], None]) -> None:
    with launch.worker() as worker:
        works(launch)
        launch.publish(NEW)
        launch.until("fenced")
        damage(launch)
        takes_no_job(launch, worker)
        launch.until("fenced")


@pytest.mark.parametrize("damage", FLEET)
def test_nor_that_of_a_process_that_was_replaced(launch: Launch, damage: Callable[[Launch], None]) -> None:
    """Its record is damaged before the new process asks for the first time."""
    with launch.worker(WORKER_DRAIN_SECONDS="1") as worker:
        launch.until("running")
        job = launch.add({"seconds": 600})
        wait_until(lambda: launch.active(job), "the job to be active")
        launch.publish(NEW)
        worker.event("release not allowed, parking")
        damage(launch)
        worker.event("starting", 2)
        launch.until("fenced")
        takes_no_job(launch, worker)
        assert (launch.state(), worker.health()[1]["fence"]["standing"]) == ("fenced", "park")
        assert 'driftguard_worker_fence{driftguard_worker_fence="park"} 1.0' in worker.get("/metrics")[1]
        fleet_missing(launch)  # a key of another type can't be published over
        launch.publish(OLD)
        launch.until("running")


def test_redis_is_away_at_the_start(launch: Launch) -> None:
    launch.redis.stop()
    with launch.worker() as worker:
        assert worker.event("redis doesn't answer")
        assert worker.health()[1]["fence"] == {"standing": "wait", "problems": ["fleet record unreachable"]}
        launch.redis.start()
        launch.until("running")
        works(launch)


def test_redis_goes_away_while_running(launch: Launch) -> None:
    """What it has is finished; what was published meanwhile counts before the next."""
    with launch.worker() as worker:
        job = launch.add({"seconds": 2})
        wait_until(lambda: launch.active(job), "the job to be active")
        launch.redis.stop()
        wait_until(lambda: worker.health()[1]["fence"]["standing"] == "hold", "the worker to hold")
        assert worker.health()[1]["fence"]["problems"] == ["fleet record unreachable"]
        launch.redis.start()
        assert launch.result(job)["attempt"] == 1
        launch.until("running")
        launch.redis.stop()
        wait_until(lambda: worker.health()[1]["fence"]["standing"] == "hold", "the worker to hold")
        launch.redis.start()
        launch.publish(NEW)
        is_parked(launch, worker)


def threads(worker: WorkerProcess) -> int:
    """How many a worker has."""
    return len(list(Path(f"/proc/{worker.process.pid}/task").iterdir()))


def test_a_handler_that_outlives_the_drain_time_ends_with_its_process(launch: Launch) -> None:
    with launch.worker(WORKER_DRAIN_SECONDS="1") as worker:
        job = launch.add({"seconds": 600}, attempts=1)
        wait_until(lambda: launch.active(job) and threads(worker) > 1, "the job's handler to run in its thread")
        busy = threads(worker)
        launch.publish(NEW)
        launch.until("fenced")
        assert worker.process.poll() is None
        assert worker.event("starting", 2)["worker"] == worker.event("starting")["worker"], "the same process id"
        assert threads(worker) < busy
        assert not launch.active(job)
        assert launch.job(job).get("atm", "0") == "0"
        launch.publish(OLD)
        wait_until(lambda: launch.active(job), "the worker to take it again", 20)
        assert "Version check passed" in "".join(worker.output[-40:])


def test_outside_production_it_only_warns(launch: Launch) -> None:
    launch.publish(NEW)
    shutil.rmtree(launch.place / "guard")
    with launch.worker(WORKER_ENV="development") as worker:
        works(launch)
        found = "release not allowed (not enforced outside production)"
        assert worker.event("record in question")["found"] == found


def test_a_hundred_flips_end_in_the_right_state(launch: Launch) -> None:
    with launch.worker() as worker:
        works(launch)
        for _flip in range(50):
            launch.publish(NEW)
            launch.publish(OLD)
        works(launch)
        launch.until("running")
        for _flip in range(50):
            launch.publish(OLD)
            launch.publish(NEW)
        is_parked(launch, worker)

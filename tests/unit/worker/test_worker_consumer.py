# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to a job between two steps: fetched while closing, ended without an answer, locked by another since."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Awaitable, Callable, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from driftguard_worker import consumer as module
from driftguard_worker.bull import BullWorker, NotOurs
from driftguard_worker.consumer import Consumer
from driftguard_worker.fence import Admission, Fence
from driftguard_worker.jobs import Queue
from driftguard_worker.metrics import Metrics

from .test_worker_health import IDENTITY


class ScriptedBull:
    """Gives out jobs and takes down what becomes of them."""

    limited = 0.0

    def __init__(self, jobs: list[Any]) -> None:
        self.jobs = jobs
        self.did: list[str] = []
        self.failures: dict[str, list[Exception]] = {}
        self.ours = True
        self.after_end: Callable[[], Awaitable[None]] = self.pause
        self.fetching = asyncio.Event()
        self.deliver = asyncio.Event()
        self.deliver.set()

    def start(self) -> None:
        self.did.append("start")

    def resume(self) -> None:
        self.did.append("resume")

    async def pause(self) -> None:
        self.did.append("pause")

    async def take(self, _token: str) -> Any:
        self.fetching.set()
        await self.deliver.wait()
        if not self.jobs:
            await asyncio.Event().wait()
        return self.jobs.pop(0)

    def hold(self, job: Any, _token: str) -> None:
        self.did.append(f"hold {job.id}")

    def release(self, job: Any) -> None:
        self.did.append(f"release {job.id}")

    async def still_ours(self, _job: Any, _token: str) -> bool:
        return self.ours

    async def complete(self, job: Any, _result: Any, _token: str) -> None:
        self._do("complete", job)

    async def complete_and_take(self, job: Any, _result: Any, _token: str, _question: Any) -> tuple[Any, str]:
        self._do("complete", job)
        await self.after_end()
        return (self.jobs.pop(0), "answer") if self.jobs else (None, "")

    async def fail(self, job: Any, _error: Exception, _token: str, final: bool) -> None:
        self._do("bury" if final else "fail", job)

    async def give_back(self, job: Any, _token: str) -> bool:
        self._do("give back", job)
        return True

    async def recover(self) -> None:
        return None

    async def close(self) -> None:
        self.did.append("close")

    def _do(self, what: str, job: Any) -> None:
        if self.failures.get(what):
            raise self.failures[what].pop(0)
        self.did.append(f"{what} {job.id}")


AT_ONCE = Admission(1, False)


class ScriptedFence:
    """Admits as told."""

    question = None

    def __init__(self, admission: Admission | None) -> None:
        self.admission = admission
        self.confirmed: Admission | None = None
        self.asked = 0

    async def admit(self) -> Admission | None:
        self.asked += 1
        return self.admission

    def confirm(self, _answer: str) -> Admission | None:
        return self.confirmed


def job(job_id: str, **facts: Any) -> Any:
    values = {"attemptsMade": 0, "opts": {}, "deferredFailure": None, "stalledCounter": 0, **facts}
    return SimpleNamespace(id=job_id, **values)


class Bench:
    def __init__(self, jobs: list[Any], fence: ScriptedFence) -> None:
        self.bull = ScriptedBull(jobs)
        self.fence = fence
        self.worked: list[str] = []
        self.letters: list[tuple[str, str]] = []
        metrics = Metrics(IDENTITY, lambda: 0.0)
        bull, gate = cast(BullWorker, self.bull), cast(Fence, self.fence)
        self.consumer = Consumer(bull, Queue("q"), 1, gate, self.conduct, self.letter, metrics)

    async def conduct(self, job: Any, _admission: Admission) -> str:
        self.worked.append(job.id)
        if job.id.startswith("bad"):
            raise ZeroDivisionError("no")
        return "done"

    async def letter(self, job: Any, reason: str) -> None:
        self.letters.append((job.id, reason))

    async def until(self, done: str) -> None:
        while done not in self.bull.did:
            await asyncio.sleep(0)


def run(jobs: list[Any], act: Callable[[Bench], Awaitable[None]], fence: ScriptedFence | None = None) -> Bench:
    async def go() -> Bench:
        bench = Bench(jobs, fence or ScriptedFence(AT_ONCE))
        running = asyncio.create_task(bench.consumer.run())
        await asyncio.wait_for(act(bench), 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return bench

    return asyncio.run(go())


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKOFF", SimpleNamespace(compute=lambda _failures: 0))


def test_what_was_being_fetched_when_it_closed_is_handed_back() -> None:
    async def act(bench: Bench) -> None:
        bench.bull.deliver.clear()
        bench.consumer.open()
        await bench.bull.fetching.wait()
        await bench.consumer.close()
        bench.bull.deliver.set()
        await bench.until("release 1")
        await bench.consumer.idle()

    bench = run([job("1")], act)
    assert bench.worked == []
    assert "give back 1" in bench.bull.did


def test_what_came_with_the_last_ones_end_is_handed_back_when_it_closed_meanwhile() -> None:
    """Admitted and fetched in one go, and closed before it began."""
    fence = ScriptedFence(AT_ONCE)
    fence.confirmed = Admission(1, False)

    async def act(bench: Bench) -> None:
        bench.bull.after_end = bench.consumer.close
        bench.consumer.open()
        await bench.until("release 2")

    bench = run([job("1"), job("2")], act, fence)
    assert bench.worked == ["1"]
    assert "give back 2" in bench.bull.did


def test_what_is_not_admitted_is_handed_back() -> None:
    async def act(bench: Bench) -> None:
        bench.consumer.open()
        await bench.until("release 1")

    bench = run([job("1")], act, ScriptedFence(None))
    assert bench.worked == []
    assert "give back 1" in bench.bull.did


@pytest.mark.parametrize(("confirmed", "asked"), [(Admission(1, False), 1), (None, 2)])
def test_the_next_one_is_asked_for_where_the_answer_did_not_suffice(confirmed: Admission | None, asked: int) -> None:
    fence = ScriptedFence(AT_ONCE)
    fence.confirmed = confirmed

    async def act(bench: Bench) -> None:
        bench.consumer.open()
        await bench.until("complete 2")

    assert run([job("1"), job("2")], act, fence).fence.asked == asked


@pytest.mark.parametrize(("ours", "worked"), [(True, ["1"]), (False, [])])
def test_after_a_wait_the_lock_has_to_be_ours_still(ours: bool, worked: list[str]) -> None:
    async def act(bench: Bench) -> None:
        bench.bull.ours = ours
        bench.consumer.open()
        await bench.until("release 1")

    assert run([job("1")], act, ScriptedFence(Admission(1, True))).worked == worked


def test_an_end_that_redis_did_not_confirm_is_told_again_and_fails_nothing() -> None:
    async def act(bench: Bench) -> None:
        bench.bull.failures["complete"] = [RedisConnectionError("gone"), OSError("gone"), RedisConnectionError("gone")]
        bench.consumer.open()
        await bench.until("complete 1")

    bench = run([job("1")], act)
    assert bench.worked == ["1"]
    assert not {"fail 1", "bury 1"} & set(bench.bull.did)


def test_an_end_of_a_job_that_is_no_longer_ours_fails_nothing_either() -> None:
    async def act(bench: Bench) -> None:
        bench.bull.failures["complete"] = [NotOurs("lock")]
        bench.consumer.open()
        await bench.until("release 1")

    bench = run([job("1")], act)
    assert not {"fail 1", "bury 1", "complete 1"} & set(bench.bull.did)


def test_the_letter_is_there_before_the_job_has_failed_for_good() -> None:
    async def act(bench: Bench) -> None:
        bench.bull.failures["bury"] = [NotOurs("killed here")]
        bench.consumer.open()
        await bench.until("release bad")

    assert run([job("bad")], act).letters == [("bad", "ZeroDivisionError: no")]


def test_a_failure_with_attempts_left_writes_no_letter() -> None:
    async def act(bench: Bench) -> None:
        bench.consumer.open()
        await bench.until("fail bad")

    assert run([job("bad", opts={"attempts": 2})], act).letters == []


def test_a_letter_of_an_attempt_that_lost_its_worker_is_taken_back() -> None:
    async def act(bench: Bench) -> None:
        bench.consumer.open()
        await bench.until("release 1")

    assert run([job("1", stalledCounter=1)], act).letters == [("1", "")]


def test_a_job_that_lost_its_workers_too_often_is_a_dead_letter_without_being_tried() -> None:
    async def act(bench: Bench) -> None:
        bench.consumer.open()
        await bench.until("bury 1")

    bench = run([job("1", deferredFailure="stalled")], act)
    assert bench.worked == []
    assert bench.letters == [("1", "RuntimeError: stalled")]

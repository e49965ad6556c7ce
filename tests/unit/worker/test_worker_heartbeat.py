# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The heartbeat's rhythm and what it makes of failures, with a Redis that does as it is told."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from driftguard_worker import heartbeat, logs
from driftguard_worker.errors import ExitStatus, WorkerError
from driftguard_worker.heartbeat import Heartbeat
from driftguard_worker.lifecycle import Lifecycle, State
from driftguard_worker.metrics import Metrics
from driftguard_worker.registration import Announced, Registration

from .test_worker_health import IDENTITY

Capture = pytest.CaptureFixture[str]
REFUSED = RedisConnectionError("Connection refused")


class ScriptedRegistration(Registration):
    """Takes down what it is asked to write; fails as scripted, then succeeds."""

    def __init__(self, *failures: Exception | None) -> None:
        self.calls: list[tuple[str, State]] = []
        self._failures = list(failures)

    async def announce(self, state: State, uptime: float) -> Announced:
        self._take("announce", state)
        return Announced(1_800_000_000.0, 2)

    async def renew(self, state: State) -> None:
        self._take("renew", state)

    def _take(self, call: str, state: State) -> None:
        self.calls.append((call, state))
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure


class Fixture:
    def __init__(self, *failures: Exception | None) -> None:
        logs.configure("info", {})
        self.lifecycle = Lifecycle()
        self.registration = ScriptedRegistration(*failures)
        self.metrics = Metrics(IDENTITY, lambda: 0.0)
        self.heartbeat = Heartbeat(self.registration, self.lifecycle, self.metrics, "redis://redis:6379/0", 0.0)

    def metric(self, name: str, **labels: str) -> float | None:
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value(f"driftguard_worker_{name}", labels)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "_FIRST_RETRY_SECONDS", 0.001)


def during_run(act: Callable[[Fixture], Awaitable[None]], *failures: Exception | None) -> Fixture:
    """Run a heartbeat while ``act`` looks at it; then stop it in order."""

    async def run() -> Fixture:
        fixture = Fixture(*failures)
        running = asyncio.create_task(fixture.heartbeat.run())
        try:
            await asyncio.wait_for(act(fixture), 5)
        finally:
            fixture.heartbeat.stop()
            await asyncio.wait_for(running, 5)
        return fixture

    return asyncio.run(run())


async def calls(fixture: Fixture, number: int) -> None:
    while len(fixture.registration.calls) < number:
        await asyncio.sleep(0.001)


def test_announces_once_then_renews() -> None:
    async def act(fixture: Fixture) -> None:
        await calls(fixture, 3)

    fixture = during_run(act)
    assert [call for call, _ in fixture.registration.calls[:3]] == ["announce", "renew", "renew"]
    assert fixture.metric("heartbeats_total") == len(fixture.registration.calls)
    assert fixture.metric("heartbeat_gap_seconds_count") == len(fixture.registration.calls) - 1


def test_beats_keep_their_distance() -> None:
    async def act(fixture: Fixture) -> None:
        await asyncio.sleep(0.1)

    assert 3 <= len(during_run(act).registration.calls) <= 7


def test_a_change_of_state_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 60)

    async def act(fixture: Fixture) -> None:
        await fixture.heartbeat.registered.wait()
        fixture.lifecycle.move(State.RUNNING)
        await calls(fixture, 2)

    assert during_run(act).registration.calls == [("announce", State.STARTING), ("renew", State.RUNNING)]


def test_stop_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 60)

    async def act(fixture: Fixture) -> None:
        await fixture.heartbeat.registered.wait()

    during_run(act)  # waits at most five seconds for the end


def test_failing_to_announce_is_tried_again(capsys: Capture) -> None:
    async def act(fixture: Fixture) -> None:
        assert not fixture.heartbeat.alive
        await fixture.heartbeat.registered.wait()
        assert fixture.heartbeat.connected
        assert fixture.heartbeat.alive

    fixture = during_run(act, REFUSED, REFUSED, OSError("no route"))
    assert [call for call, _ in fixture.registration.calls[:4]] == ["announce"] * 4
    assert fixture.metric("redis_errors_total", error="ConnectionError") == 2
    assert fixture.metric("redis_errors_total", error="OSError") == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # One line for each different failure, not one for each attempt.
    assert [line["event"] for line in found] == ["redis doesn't answer", "redis doesn't answer", "redis answers again"]
    assert found[0]["found"] == "ConnectionError: Connection refused"
    assert found[0]["expected"]
    assert found[0]["remedy"]
    assert found[2]["failures"] == 3


def test_the_same_failure_of_a_transaction_is_told_once(capsys: Capture) -> None:
    text = "Command # 3 (ZADD demo:workers {} ocr:ab12) of pipeline caused error: {{exception.args}}"

    async def act(fixture: Fixture) -> None:
        await calls(fixture, 4)

    during_run(act, None, ResponseError(text.format(1.5)), ResponseError(text.format(2.5)))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [line["found"] for line in found if line["event"] == "redis doesn't answer"]
    assert told == ["ResponseError at ZADD demo:workers"]


def test_connected_and_alive_while_beats_fail() -> None:
    async def act(fixture: Fixture) -> None:
        await calls(fixture, 2)
        await asyncio.sleep(0)
        assert not fixture.heartbeat.connected
        assert fixture.heartbeat.alive
        await calls(fixture, 3)

    during_run(act, None, REFUSED)


def test_not_alive_after_the_lifetime_of_a_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "REGISTRATION_TTL_SECONDS", 0.01)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 60)

    async def act(fixture: Fixture) -> None:
        await fixture.heartbeat.registered.wait()
        await asyncio.sleep(0.02)
        assert not fixture.heartbeat.alive

    during_run(act)


@pytest.mark.parametrize("error", [AuthenticationError("WRONGPASS"), NoPermissionError("NOPERM")])
def test_refused_credentials_end_a_start(error: RedisError) -> None:
    async def act(fixture: Fixture) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        await Fixture(REFUSED, error).heartbeat.run()

    with pytest.raises(WorkerError) as caught:
        asyncio.run(asyncio.wait_for(run(), 5))
    assert caught.value.status is ExitStatus.REFUSED
    assert "redis://redis:6379/0" in str(caught.value)
    assert "REDIS_PASSWORD_FILE" in caught.value.remedy


def test_refused_credentials_do_not_end_a_running_worker() -> None:
    async def act(fixture: Fixture) -> None:
        await calls(fixture, 3)

    assert len(during_run(act, None, AuthenticationError("WRONGPASS")).registration.calls) >= 3


def test_nothing_is_written_after_stop() -> None:
    async def act(fixture: Fixture) -> None:
        await fixture.heartbeat.registered.wait()

    async def run() -> None:
        fixture = Fixture()
        running = asyncio.create_task(fixture.heartbeat.run())
        await fixture.heartbeat.registered.wait()
        fixture.heartbeat.stop()
        await running
        written = len(fixture.registration.calls)
        fixture.lifecycle.move(State.DRAINING)
        await asyncio.sleep(0.05)
        assert len(fixture.registration.calls) == written

    asyncio.run(run())


def test_pauses_between_attempts_grow_to_one_heartbeat() -> None:
    async def run() -> list[float]:
        fixture = Fixture()
        return [fixture.heartbeat._failed(REFUSED) for _ in range(2000)]

    pauses = asyncio.run(run())
    assert max(pauses) <= 0.02
    assert min(pauses[20:]) > max(pauses[:2])
    assert len(set(pauses)) > 1000, "without jitter all workers would come back at the same moment"


def test_restarts_and_lag_are_what_redis_told() -> None:
    async def run() -> Fixture:
        fixture = Fixture()
        beating = asyncio.create_task(fixture.heartbeat.run())
        await fixture.heartbeat.registered.wait()
        fixture.heartbeat.stop()
        await beating
        return fixture

    fixture = asyncio.run(run())
    assert fixture.metric("restarts") == 2
    built = datetime.fromisoformat(IDENTITY.build_date).timestamp()
    assert fixture.metric("deployment_lag_seconds") == 1_800_000_000.0 - built

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real worker writes to a real Redis, and when."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any, Awaitable, Callable, Iterator

import pytest
from support.redis_server import RedisServer, wait_until
from support.worker_process import SHA, WorkerProcess, running_worker

from driftguard_worker import names, redis_options
from driftguard_worker.identity import Identity
from driftguard_worker.lifecycle import State
from driftguard_worker.registration import Registration
from driftguard_worker.settings import Settings

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# docs/worker.md names these as all that a worker's Redis user needs.
COMMANDS = (
    *("multi", "exec", "time", "hset", "del", "expire", "zadd", "zrem", "zremrangebyscore", "client|setname"),
    *("incrby", "evalsha", "script|load", "getrange", "subscribe", "unsubscribe"),
)
ONE_BEAT = 7.0  # five seconds, and time for a busy machine


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def worker(redis_server: RedisServer) -> Iterator[WorkerProcess]:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        yield worker


def running_record(client: Any, worker: WorkerProcess) -> dict[str, str]:
    """The record once it says that the worker runs."""

    def found() -> Any:
        record = client.hgetall(worker.key)
        return record if record.get("state") == "running" else None

    record: dict[str, str] = wait_until(found, "a registration in state running")
    return record


def test_record(redis_client: Any, worker: WorkerProcess) -> None:
    record = running_record(redis_client, worker)
    assert TIME.fullmatch(record.pop("startedAt"))
    assert TIME.fullmatch(record.pop("heartbeatAt"))
    assert record == {
        "gitSha": SHA,
        "buildDate": "2026-01-02T03:04:05Z",
        "pid": str(worker.process.pid),
        "host": "host1",
        "service": "extractor",
        "containerId": "",
        "releaseId": "unknown",
        "state": "running",
    }
    assert worker.member == f"extractor:{socket.gethostname()}-{worker.process.pid}"
    assert 13_000 <= redis_client.pttl(worker.key) <= 15_000


def test_index_and_runbook_key(redis_client: Any, worker: WorkerProcess) -> None:
    ((member, score),) = redis_client.zrange("demo:workers", 0, -1, withscores=True)
    assert member == worker.member
    seconds, microseconds = redis_client.time()
    assert 0 <= seconds + microseconds / 1e6 - score < 5
    legacy = redis_client.hgetall("demo:worker:extractor:version")
    assert set(legacy) == {"gitSha", "buildDate", "startedAt", "pid"}
    assert 86_300 < redis_client.ttl("demo:worker:extractor:version") <= 86_400


def test_connections_carry_the_worker_s_name(redis_client: Any, worker: WorkerProcess) -> None:
    assert f"demo:worker:{worker.member}" in {client["name"] for client in redis_client.client_list()}


def test_heartbeat_renews(redis_client: Any, worker: WorkerProcess) -> None:
    before = running_record(redis_client, worker)

    def renewed() -> bool:
        return bool(redis_client.hget(worker.key, "heartbeatAt") != before["heartbeatAt"])

    wait_until(renewed, "a heartbeat", ONE_BEAT)
    after = redis_client.hgetall(worker.key)
    assert after["startedAt"] == before["startedAt"]
    assert redis_client.pttl(worker.key) > 12_000
    assert "driftguard_worker_heartbeats_total 3.0" in worker.get("/metrics")[1]


def test_lost_data_come_back_in_full_with_the_next_heartbeat(
    redis_server: RedisServer, redis_client: Any, worker: WorkerProcess
) -> None:
    before = running_record(redis_client, worker)
    redis_server.restart(lose_data=True)
    assert not redis_client.keys()
    after = wait_until(lambda: redis_client.hgetall(worker.key), "the registration", 2 * ONE_BEAT)
    assert {**after, "heartbeatAt": ""} == {**before, "heartbeatAt": ""}
    assert redis_client.zrange("demo:workers", 0, -1) == [worker.member]
    assert redis_client.ttl(worker.key) > 0


def test_replicas_register_side_by_side(redis_server: RedisServer, redis_client: Any, worker: WorkerProcess) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as other:
        other.event("running")
        assert set(redis_client.zrange("demo:workers", 0, -1)) == {worker.member, other.member}
        assert redis_client.exists(worker.key, other.key) == 2
        other.stop()
        assert redis_client.zrange("demo:workers", 0, -1) == [worker.member]


def test_start_forgets_index_members_of_long_ago(redis_server: RedisServer, redis_client: Any) -> None:
    now = redis_client.time()[0]
    redis_client.zadd("demo:workers", {"extractor:old": now - 86_500, "extractor:young": now - 80_000})
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        assert set(redis_client.zrange("demo:workers", 0, -1)) == {"extractor:young", worker.member}


def test_started_at_is_the_start_and_not_the_first_contact(redis_server: RedisServer, redis_client: Any) -> None:
    redis_server.pause()
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("redis doesn't answer")
        redis_server.resume()
        record = running_record(redis_client, worker)
    assert record["startedAt"] < record["heartbeatAt"]
    assert worker.event("running")["timestamp"] > record["startedAt"]
    # The first attempt alone took two seconds.
    assert _seconds(record["heartbeatAt"]) - _seconds(record["startedAt"]) >= 2


def test_withdrawn_on_stop_but_for_the_runbook_key(redis_client: Any, worker: WorkerProcess) -> None:
    running_record(redis_client, worker)
    assert worker.stop() == 0
    assert redis_client.keys("demo:worker*") == ["demo:worker:extractor:version"]


def test_database_and_user_of_the_url_count(redis_server: RedisServer, redis_client: Any) -> None:
    redis_client.acl_setuser(
        "worker",
        enabled=True,
        passwords=["+w0rker-pass"],
        keys=["demo:*"],
        commands=[f"+{command}" for command in COMMANDS],
    )
    url = redis_server.url_for("worker", "w0rker-pass", database=0)
    # A service without a queue: BullMQ's own needs are not among these.
    with running_worker({"REDIS_URL": url, "WORKER_TYPE": "sentinel"}) as worker:
        worker.event("running")
        assert {client["user"] for client in redis_client.client_list() if "sentinel" in client["name"]} == {"worker"}
    other = {"REDIS_URL": redis_server.url_for("", redis_server.password, 3), "WORKER_TYPE": "sentinel"}
    with running_worker(other) as worker:
        worker.event("running")
        assert redis_client.info("keyspace")["db3"]["keys"] == 4


IDENTITY = Identity(
    fleet="demo",
    service="ocr",
    instance="ab12ab12ab12",
    container_id="ab12" * 16,
    host="host1",
    pid=7,
    git_sha=SHA,
    build_date="2026-01-02T03:04:05Z",
    release_id="0123456789ab.89abcdef0123",
)
KEY = "demo:worker:ocr:ab12ab12ab12:version"


def with_registration(server: RedisServer, act: Callable[[Registration], Awaitable[None]]) -> None:
    """Use a registration of :data:`IDENTITY` outside of a worker."""

    async def run() -> None:
        settings = Settings(WORKER_TYPE="ocr", WORKER_FLEET="demo", REDIS_URL=server.url)
        client = redis_options.from_settings(settings).client()
        await act(Registration(client, IDENTITY))
        await client.aclose()

    asyncio.run(run())


def test_restarted_container_shows_nothing_of_its_former_process(redis_server: RedisServer, redis_client: Any) -> None:
    redis_client.hset(KEY, mapping={"pid": "6", "fromAnOlderVersion": "x"})

    async def act(registration: Registration) -> None:
        await registration.announce(State.STARTING, 0)

    with_registration(redis_server, act)
    assert set(redis_client.hgetall(KEY)) == set(names.FIELDS)
    assert redis_client.hget(KEY, "pid") == "7"


def test_renewal_leaves_the_runbook_key_alone(redis_server: RedisServer, redis_client: Any) -> None:
    async def act(registration: Registration) -> None:
        await registration.announce(State.STARTING, 0)
        redis_client.delete("demo:worker:ocr:version")
        await registration.renew(State.RUNNING)

    with_registration(redis_server, act)
    assert set(redis_client.keys()) == {KEY, KEY.replace(":version", ":starts"), "demo:workers"}


def test_all_or_nothing_is_written(redis_server: RedisServer, redis_client: Any) -> None:
    commands = [f"+{command}" for command in COMMANDS if command != "zadd"]
    redis_client.acl_setuser("worker", enabled=True, passwords=["+w0rker-pass"], keys=["demo:*"], commands=commands)
    with running_worker({"REDIS_URL": redis_server.url_for("worker", "w0rker-pass")}) as worker:
        assert worker.ended() == 77
        assert worker.lines[-1]["found"] == "NoPermissionError at ZADD demo:workers"
    assert redis_client.keys() == []


def _seconds(time: str) -> float:
    hours, minutes, seconds = time[11:-1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)

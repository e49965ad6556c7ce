# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every row of the fence's table against the supervisor as a real process, with a real Redis and a real child."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from contract.fence_cases import DECISIONS, FENCE, RECORDS, UNREADABLE, Decision
from redis.exceptions import RedisError
from support.redis_server import RedisServer, running_redis, wait_until
from support.supervisor_process import KEYS, Supervised, supervised

ALLOWED, REFUSED = RECORDS["allowed"] or "", RECORDS["not allowed"] or ""
# At the start these don't get past the guard: the host's record has to allow.
STARTS = [row for row in DECISIONS if row.before == "starting" and row.host in ("not mounted", "allowed")]
LATER = [row for row in DECISIONS if row.before != "starting"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as started:
        yield started


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    server.flush()
    publish(server, ALLOWED)
    yield server
    if not answers(server):
        server.kill()
        server.start()


def answers(server: RedisServer) -> bool:
    try:
        with server.client(socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except RedisError:
        return False


def publish(server: RedisServer, record: str | bytes | None, message: bool = True) -> None:
    """What worker_release does: the record, then a message."""
    with server.client() as client:
        if record is None:
            client.delete(KEYS["release"])
        else:
            client.set(KEYS["release"], record)
        if message:
            client.publish(KEYS["events"], "changed")


def bring(redis: RedisServer, worker: Supervised, host: str, fleet: str) -> None:
    """Change both records to what a row says; the host's first, where there is one."""
    if host != "not mounted":
        worker.write_record(RECORDS[host] or "")
    if fleet == "unreachable":
        redis.kill()
    else:
        publish(redis, RECORDS[fleet])


def problems_of(worker: Supervised) -> list[str]:
    return list(worker.health()[1]["fence"]["problems"])


def holds(worker: Supervised, row: Decision) -> bool:
    """Whether it does, says and reports what the row asks for."""
    status, content = worker.health()
    alive = bool(worker.children)
    return (
        content["fence"] == {"decision": row.then, "problems": list(row.problems)}
        and content["state"] == row.registered
        and (status == 200) == (row.then in ("run", "hold"))
        and alive == (row.then in ("run", "hold")))


@pytest.mark.parametrize("row", STARTS, ids=lambda row: row.name)
def test_at_the_start(redis: RedisServer, tmp_path: Path, row: Decision) -> None:
    if row.fleet == "unreachable":
        redis.kill()
    else:
        publish(redis, RECORDS[row.fleet])
    record = None if row.host == "not mounted" else RECORDS[row.host]
    with supervised(tmp_path, {"REDIS_URL": redis.url}, record=record) as worker:
        wait_until(lambda: holds(worker, row), f"{row}; it said:\n{worker.text}")
        assert "at work" not in worker.text or row.then == "run"
        assert ("unreachable" in worker.text) == (row.fleet == "unreachable"), "nothing is said before Redis was asked"
        if row.fleet == "unreachable":
            redis.start()
        if row.then == "park":
            assert worker.registers(redis, "fenced")
        else:
            worker.said("at work")
            assert worker.registers(redis, "running")


@pytest.mark.parametrize("row", LATER, ids=lambda row: row.name)
def test_while_running_and_while_fenced(redis: RedisServer, tmp_path: Path, row: Decision) -> None:
    with supervised(
        tmp_path, {"REDIS_URL": redis.url}, record=None if row.host == "not mounted" else ALLOWED
    ) as worker:
        worker.said("at work")
        if row.before == "fenced":
            publish(redis, REFUSED)
            worker.registers(redis, "fenced")
        bring(redis, worker, row.host, row.fleet)
        wait_until(lambda: holds(worker, row), f"{row}; {worker.health()}; it said:\n{worker.text}")
        if row.fleet != "unreachable":
            worker.registers(redis, row.registered)
        assert holds(worker, row)


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_record_is_reported_and_fences_nobody(redis: RedisServer, tmp_path: Path, name: str) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url}) as worker:
        worker.said("at work")
        publish(redis, UNREADABLE[name].encode("utf-8", "surrogateescape"))
        wait_until(lambda: problems_of(worker) == ["fleet record unreadable"], worker.text)
        publish(redis, REFUSED)
        worker.becomes("fenced")
        publish(redis, UNREADABLE[name].encode("utf-8", "surrogateescape"))
        wait_until(lambda: problems_of(worker) == ["fleet record unreadable"], worker.text)
        assert (worker.children, worker.health()[1]["state"]) == ([], "fenced")


def test_a_record_of_another_kind_is_unreadable(redis: RedisServer, tmp_path: Path) -> None:
    with redis.client() as client:
        client.delete(KEYS["release"])
        client.rpush(KEYS["release"], "x")
    with supervised(tmp_path, {"REDIS_URL": redis.url}) as worker:
        worker.said("at work")
        assert problems_of(worker) == ["fleet record unreadable"]


def test_a_message_is_only_a_hint(redis: RedisServer, tmp_path: Path) -> None:
    """What it says counts for nothing; and without one the change is seen at the next heartbeat."""
    with supervised(tmp_path, {"REDIS_URL": redis.url}) as worker:
        worker.said("at work")
        with redis.client() as client:
            for _ in range(2000):
                client.publish(KEYS["events"], REFUSED)
        assert worker.registers(redis, "running")
        publish(redis, REFUSED, message=False)
        worker.becomes("fenced")


def test_time_from_publication_to_fenced(redis: RedisServer, tmp_path: Path) -> None:
    times: dict[str, list[float]] = {"message": [], "host record": []}
    with supervised(tmp_path, {"REDIS_URL": redis.url}, record=ALLOWED) as worker, redis.client() as client:
        for source, taken in times.items():
            for _ in range(5):
                worker.registers(redis, "running")
                begin = time.monotonic()
                if source == "message":
                    publish(redis, REFUSED)
                else:
                    worker.write_record(REFUSED)
                wait_until(lambda: client.hget(worker.key, "state") == "fenced", worker.text)
                taken.append(time.monotonic() - begin)
                publish(redis, ALLOWED)
                worker.write_record(ALLOWED)
    for source, taken in times.items():
        print(f"fenced after a {source}: median {sorted(taken)[2]:.3f} s, worst {max(taken):.3f} s")
    assert all(times.values())


def test_nobody_is_fenced_outside_production(redis: RedisServer, tmp_path: Path) -> None:
    publish(redis, REFUSED)
    with supervised(tmp_path, {"REDIS_URL": redis.url, "WORKER_ENV": "development"}) as worker:
        worker.said("at work")
        worker.said("WARNING: not enforced: park")
        assert worker.registers(redis, "running")


def test_a_variable_switches_nothing_off_where_a_host_record_is_mounted(redis: RedisServer, tmp_path: Path) -> None:
    publish(redis, REFUSED)
    development: dict[str, str | None] = {"REDIS_URL": redis.url, "WORKER_ENV": "development"}
    with supervised(tmp_path, development, record=ALLOWED) as worker:
        worker.becomes("fenced")
        assert "at work" not in worker.text


def test_a_parked_worker_that_is_restarted_parks_again_without_starting_its_child(
    redis: RedisServer, tmp_path: Path,
) -> None:
    """What an engine does after a power cut, on a host whose own record still allows the release."""
    for _ in range(2):
        with supervised(tmp_path, {"REDIS_URL": redis.url}, record=ALLOWED) as worker:
            publish(redis, REFUSED)
            worker.registers(redis, "fenced")
            worker.process.kill()
            worker.ended()
    with supervised(tmp_path, {"REDIS_URL": redis.url}, record=ALLOWED) as worker:
        worker.registers(redis, "fenced")
        assert "at work" not in worker.text
        assert worker.stop() == 0
    with redis.client() as client:
        assert not client.exists(worker.key)


def test_a_hundred_quick_changes_end_in_the_right_state(redis: RedisServer, tmp_path: Path) -> None:
    chance = random.Random(3)
    for last, state in ((REFUSED, "fenced"), (ALLOWED, "running")):
        publish(redis, ALLOWED)
        with supervised(tmp_path, {"REDIS_URL": redis.url}) as worker:
            worker.said("at work")
            for turn in range(100):
                publish(redis, (REFUSED, ALLOWED)[turn % 2], message=chance.random() < 0.8)
                time.sleep(chance.random() / 100)  # the disturbance itself, not a wait for anything
            publish(redis, last)
            worker.registers(redis, state)
            wait_until(lambda state=state: worker.health()[1]["state"] == state, worker.text)
            assert bool(worker.children) == (state == "running")


def other_places(record: Path) -> dict[str, Any]:
    """What becomes of a host record besides being replaced."""
    def directory() -> None:
        record.unlink()
        record.mkdir()

    def pipe() -> None:
        record.unlink()
        os.mkfifo(record)

    def dangling() -> None:
        record.unlink()
        record.symlink_to("nowhere")

    def gone() -> None:
        record.unlink()
        record.parent.rmdir()

    return {"a directory": directory, "a pipe": pipe, "a link to nowhere": dangling, "gone with its directory": gone}


@pytest.mark.parametrize(("what", "problem"), [
    ("a directory", "unreadable"), ("a pipe", "unreadable"), ("a link to nowhere", "unreadable"),
    ("gone with its directory", "missing"),
])
def test_a_host_record_that_is_no_file_any_more(
    redis: RedisServer, tmp_path: Path, what: str, problem: str,
) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url}, record=ALLOWED) as worker:
        worker.said("at work")
        other_places(worker.record)[what]()
        wait_until(lambda: problems_of(worker) == [f"host record {problem}"], worker.text)
        assert worker.registers(redis, "running")
        assert f'fence_problem{{problem="host record {problem}"}} 1' in worker.get("/metrics")[1]


def test_the_host_record_is_looked_at_twice_a_second_though_redis_is_silent(
    redis: RedisServer, tmp_path: Path,
) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url}, record=ALLOWED) as worker:
        worker.said("at work")
        redis.pause()
        worker.write_record(REFUSED)
        worker.becomes("fenced", seconds=FENCE["hostLookSeconds"] * 4)
        assert worker.children == []

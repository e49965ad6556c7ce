# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_queue_clean while others work: workers, kills, files that can't be written, families of jobs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator, Sequence

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import queue_clean
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult, Result
from ansible_collections.driftguard.workers.plugins.module_utils.redis_queues import Entry, RedisQueues
from bullmq import Worker
from integration.test_queue_clean import Clean, contents, saved
from support.bull import Bull
from support.modules import PROJECT
from support.redis_server import RedisServer

MANY = 100_000
OPTIONS: dict[str, Any] = {
    "fleet": "demo", "prefix": None, "queue": "mail", "state": "waiting", "older_than": "0s", "job_name": None,
    "job_id": None, "job_ids": None, "job_ids_file": None, "evidence": None, "limit": 1_000_000, "confirm": True,
    "redis_ca_file": None, "redis_timeout": 5.0}


@pytest.fixture
def clean(server: RedisServer, tmp_path: Path) -> Clean:
    return Clean(server, tmp_path)


@pytest.fixture
def bull(server: RedisServer) -> Bull:
    return Bull(server)


class Module:
    """What the module's work sees of AnsibleModule; in this process, so that a test can step in between."""

    check_mode = False

    def __init__(self, server: RedisServer, dest: Path, **options: Any) -> None:
        self.no_log_values: set[str] = set()
        self.params = {**OPTIONS, "redis_url": server.bare_url, "redis_password": server.password, "dest": str(dest),
                       **options}

    def run(self) -> Result:
        return queue_clean.run_queue_clean(self)


@pytest.fixture
def before_removal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Functions to call once the file is written and nothing is removed yet."""
    steps: list[Any] = []
    real = RedisQueues.remove

    def remove(self: RedisQueues, queue: Any, place: str, jobs: Sequence[tuple[Entry, bytes]]) -> Iterator[list[str]]:
        while steps:
            steps.pop(0)()
        yield from real(self, queue, place, jobs)

    monkeypatch.setattr(RedisQueues, "remove", remove)
    yield steps
    assert steps == []


# what happens meanwhile

def test_jobs_that_a_worker_takes_meanwhile_stay(
    bull: Bull, server: RedisServer, raw: Any, tmp_path: Path, before_removal: list[Any],
) -> None:
    """A real worker processes half of the jobs and holds one, after the look and before the removal."""
    ids = bull.add("mail", *[{}] * 40)
    done: list[str] = []
    release, holding = threading.Event(), threading.Event()

    async def handle(job: Any, token: str) -> str:
        if len(done) == 20:
            holding.set()
            await asyncio.to_thread(release.wait, 30)
        done.append(str(job.id))
        return "done"

    async def work() -> None:
        worker = Worker("mail", handle, bull.options)
        while raw.zcard("demo:mail:completed") != 21:
            await asyncio.sleep(0.01)
        await worker.pause()
        await worker.close()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    before_removal += [thread.start, lambda: holding.wait(30)]
    result = Module(server, tmp_path / "removed").run()
    assert raw.lrange("demo:mail:active", 0, -1) == [ids[20]]
    release.set()
    thread.join(30)
    assert (result.values["removed"], result.values["kept"]) == (19, {"moved": 21})
    assert done == ids[:21]
    assert raw.zcard("demo:mail:completed") == 21
    assert not [job for job in ids[21:] if raw.exists(f"demo:mail:{job}")]


@pytest.mark.parametrize(("change", "reason"), [
    (lambda raw: raw.hset("demo:mail:1", "progress", "50"), "changed"),
    (lambda raw: raw.rpush("demo:mail:1:logs", "more"), "changed"),
    (lambda raw: raw.set("demo:mail:1:lock", "token"), "locked"),
    (lambda raw: raw.lpush("demo:mail:active", "1"), "active"),
    (lambda raw: raw.sadd("demo:mail:1:dependencies", "demo:kids:7"), "parent"),
    (lambda raw: (raw.zrem("demo:mail:failed", "1"), raw.lpush("demo:mail:wait", "1")), "moved"),
    (lambda raw: raw.zadd("demo:mail:failed", {"1": 5}), "changed"),
    (lambda raw: raw.delete("demo:mail:1"), "changed"),
    (lambda raw: (raw.delete("demo:mail:1"), raw.set("demo:mail:1", "x")), "foreign"),
])
def test_a_job_that_changed_meanwhile_stays(
    bull: Bull, server: RedisServer, raw: Any, tmp_path: Path, before_removal: list[Any], change: Any, reason: str,
) -> None:
    bull.finish(raw, "mail", [{}, {}], "failed")
    before_removal.append(lambda: change(raw))
    kept: dict[str, Any] = {}
    before_removal.append(lambda: kept.update(contents(raw)))
    result = Module(server, tmp_path / "removed", state="failed").run()
    assert (result.values["removed"], result.values["kept"]) == (1, {reason: 1})
    del kept["demo:mail:2"]
    kept["demo:mail:failed"] = [pair for pair in kept.get("demo:mail:failed", []) if pair[0] != "2"]
    assert {**contents(raw), "demo:mail:failed": raw.zrange("demo:mail:failed", 0, -1, withscores=True)} == kept


def test_entries_pushed_and_taken_at_both_ends_meanwhile(
    bull: Bull, server: RedisServer, raw: Any, tmp_path: Path, before_removal: list[Any],
) -> None:
    ids = bull.add("mail", *({"name": "a" if number % 2 else "b"} for number in range(20)))
    before_removal.append(lambda: raw.rpop("demo:mail:wait", 3))
    before_removal.append(lambda: bull.add("mail", {}, {"opts": {"lifo": True}}))
    result = Module(server, tmp_path / "removed", job_name="a").run()
    assert (result.values["removed"], result.values["kept"]) == (9, {"moved": 1})
    assert raw.lrange("demo:mail:wait", 0, -1) == ["21", *[job for job in ids[:2:-1] if int(job) % 2], "22"]


def test_redis_that_dies_in_mid_removal(
    bull: Bull, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    with redis_server.client() as raw:
        ids = Bull(redis_server).add("mail", *[{}] * 250)
        real = RedisQueues.remove

        def remove(self: RedisQueues, *arguments: Any) -> Iterator[list[str]]:
            for number, answers in enumerate(real(self, *arguments)):
                yield answers
                if number == 0:
                    redis_server.kill()

        monkeypatch.setattr(RedisQueues, "remove", remove)
        first = Module(redis_server, tmp_path / "first", redis_timeout=1.0)
        with pytest.raises(FailedResult, match="100 jobs were removed before") as caught:
            first.run()
        assert (caught.value.values["removed"], caught.value.changed) == (100, True)
        assert len((tmp_path / "first").read_text().splitlines()) == 250
        monkeypatch.undo()
        redis_server.start()
        left = raw.llen("demo:mail:wait")
        again = Module(redis_server, tmp_path / "second").run()
        assert again.values["removed"] == left >= 150
        both = [json.loads(line)["id"] for name in ("first", "second")
                for line in (tmp_path / name).read_text().splitlines()]
        assert set(both) == set(ids)
        assert raw.llen("demo:mail:wait") == 0


KILLED = """
import json, os, signal, sys
from ansible_collections.driftguard.workers.plugins.module_utils import queue_clean
from ansible_collections.driftguard.workers.plugins.module_utils.redis_queues import RedisQueues

class Module:
    check_mode = False
    no_log_values = set()
    params = json.loads(sys.argv[1])

real = RedisQueues.remove
def remove(self, *arguments):
    if os.environ["WHEN"] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    for answers in real(self, *arguments):
        yield answers
        os.kill(os.getpid(), signal.SIGKILL)

RedisQueues.remove = remove
queue_clean.run_queue_clean(Module())
"""


@pytest.mark.parametrize(("when", "left"), [("before", 250), ("after the first batch", 150)])
def test_killed_between_file_and_removal_the_next_run_converges(
    clean: Clean, bull: Bull, server: RedisServer, raw: Any, tmp_path: Path, when: str, left: int,
) -> None:
    ids = bull.add("mail", *[{}] * 250)
    first = tmp_path / "killed.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(Module(server, first).params)], check=False,
        env={"PYTHONPATH": str(PROJECT / ".collections"), "WHEN": when})
    assert done.returncode == -signal.SIGKILL
    assert [json.loads(line)["id"] for line in first.read_text().splitlines()] == ids
    assert raw.llen("demo:mail:wait") == left
    clean.remove("mail", "waiting", older_than="0s", dest=str(first)).must_fail("isn't there yet")
    run = clean.remove("mail", "waiting", older_than="0s").must_pass()
    assert (run["removed"], raw.llen("demo:mail:wait")) == (left, 0)
    assert [job["id"] for job in saved(run)] == ids[250 - left:]
    assert list(raw.scan_iter("demo:mail:[0-9]*")) == []


# files that can't be written

def test_where_the_file_cant_be_written_nothing_goes(clean: Clean, bull: Bull, raw: Any, tmp_path: Path) -> None:
    bull.add("mail", {})
    before = contents(raw)
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in ("there", "link", "missing/file", "there/file", ".", "x" * 300):
        for check in (True, False):
            clean.remove("mail", "waiting", older_than="0s", check=check, dest=str(tmp_path / place)).must_fail()
    clean.remove("mail", "waiting", older_than="0s", dest="/proc/removed").must_fail("/proc/removed")
    assert (contents(raw), (tmp_path / "there").read_text()) == (before, "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


def test_a_disk_that_fills_up_costs_no_job(
    bull: Bull, server: RedisServer, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    bull.add("mail", *[{}] * 150)
    before = contents(raw)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DriftguardError, match="No space left"):
        Module(server, tmp_path / "removed").run()
    assert (contents(raw), list(tmp_path.iterdir())) == (before, [])


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(
    bull: Bull, server: RedisServer, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    bull.add("mail", {})
    dest = tmp_path / "removed"
    real = RedisQueues.inspect

    def inspect(self: RedisQueues, *arguments: Any, **options: Any) -> Any:
        dest.write_text("another's")
        return real(self, *arguments, **options)

    monkeypatch.setattr(RedisQueues, "inspect", inspect)
    with pytest.raises(DriftguardError, match="isn't there yet"):
        Module(server, dest).run()
    assert (dest.read_text(), raw.llen("demo:mail:wait")) == ("another's", 1)


# relations between jobs

def test_children_parents_schedulers_and_successors_stay(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.flow({"name": "p", "queueName": "books", "data": {}, "children": [
        {"name": "c1", "queueName": "pages", "data": {}}, {"name": "c2", "queueName": "pages", "data": {}}]})
    bull.schedule("clock", "tick", 60_000)
    bull.add("mail", {"opts": {"deduplication": {"id": "once"}}})
    raw.hset("demo:mail:dn:once", mapping={"name": "next", "data": "{}", "opts": "{}"})
    before = contents(raw)
    for queue, reason in (
        ("pages", {"child": 2}), ("clock", {"scheduled": 1}), ("mail", {"successor": 1})):
        run = clean.remove(queue, "waiting", older_than="0s").must_pass()
        assert (run["removed"], run["kept"], run["file"]) == (0, reason, None)
    assert contents(raw) == before


def test_a_family_goes_when_it_is_finished(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.flow({"name": "p", "queueName": "books", "data": {}, "children": [
        {"name": "c1", "queueName": "pages", "data": {}}, {"name": "c2", "queueName": "pages", "data": {}}]})
    bull.work("pages", None, lambda: raw.zcard("demo:pages:completed") == 1 or raw.zcard("demo:pages:completed") == 2)
    if raw.zcard("demo:pages:completed") == 1:
        assert clean.remove("pages", "completed", older_than="0s")["kept"] == {"child": 1}
        bull.work("pages", None, lambda: raw.zcard("demo:pages:completed") == 2)
    assert clean.remove("pages", "completed", older_than="0s")["kept"] == {"child": 2}
    bull.work("books", None, lambda: raw.zcard("demo:books:completed") == 1)
    assert clean.remove("pages", "completed", older_than="0s")["removed"] == 2
    run = clean.remove("books", "completed", older_than="0s").must_pass()
    assert len(saved(run)[0]["processed"]) == 2
    assert [key for key in raw.scan_iter("demo:*") if len(key.split(":")[-1]) >= 32] == []


def test_a_failed_child_that_its_parent_waits_for_stays(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.flow({"name": "p", "queueName": "books", "data": {}, "children": [
        {"name": "c", "queueName": "pages", "data": {}}]})

    async def fail(job: Any, token: str) -> None:
        raise ValueError("torn page")

    bull.work("pages", fail, lambda: raw.zcard("demo:pages:failed") == 1)
    assert clean.remove("pages", "failed", older_than="0s")["kept"] == {"child": 1}
    assert raw.zcard("demo:books:waiting-children") == 1
    # Nor does it go when the parent has failed meanwhile, and still counts on it should it be retried.
    (parent,) = raw.zpopmin("demo:books:waiting-children")
    raw.zadd("demo:books:failed", {parent[0]: 5})
    assert clean.remove("pages", "failed", older_than="0s")["kept"] == {"child": 1}


def test_a_hundred_thousand_jobs_go_in_bounded_steps(server: RedisServer, bull: Bull, raw: Any, tmp_path: Path) -> None:
    bull.add("mail", {"data": {"to": "x" * 100}})
    fields = raw.hgetall("demo:mail:1")
    pipeline = raw.pipeline(transaction=False)
    for number in range(2, MANY + 1):
        pipeline.hset(f"demo:mail:{number}", mapping={**fields, "name": "send" if number % 4 == 0 else "keep"})
        pipeline.lpush("demo:mail:wait", number)
        if number % 5000 == 0:
            pipeline.execute()
    raw.config_resetstat()
    result = Module(server, tmp_path / "removed", job_name="send").run()
    assert (result.values["removed"], raw.llen("demo:mail:wait")) == (MANY // 4 + 1, MANY * 3 // 4 - 1)
    # A hundred to a step, once to write them down and once to remove them; and no list is walked for each job.
    used = raw.info("commandstats")
    steps = MANY // 400 + 1
    assert used["cmdstat_eval"]["calls"] == 2 * steps
    assert used["cmdstat_lrem"]["calls"] <= 2 * steps
    with (tmp_path / "removed").open() as file:
        assert sum(1 for _line in file) == MANY // 4 + 1

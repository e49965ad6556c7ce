# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node guard around applications: BullMQ's jobs, and applications that don't cooperate."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from support.node_worker import (
    NEW,
    OLD,
    NodeWorker,
    node_modules,  # noqa: F401 - a fixture
    produce,
    record,
    running_node,
)
from support.redis_server import RedisServer, next_heartbeat, wait_until
from support.shared_redis import raw, server, shared_server  # noqa: F401 - fixtures

KEY, EVENTS = "demo:release", "demo:release:events"
BULLMQ = """
{imports}
const connection = new Redis(process.env.TEST_REDIS_URL, {{ maxRetriesPerRequest: null }});
const other = new Redis(process.env.TEST_REDIS_URL);
const worker = new Worker("jobs", async (job) => {{
  await other.rpush("started", job.id);
  {handler}
}}, {{ connection, prefix: "demo", concurrency: 2 }});
worker.on("error", () => undefined);
worker.on("ready", () => console.log("application ready"));
process.on("SIGTERM", () => worker.close().then(() => process.exit(0)));
"""
IMPORTS = {
    "app.cjs": 'const { Worker } = require("bullmq"); const { Redis } = require("ioredis");',
    "app.mjs": 'import { Worker } from "bullmq"; import { Redis } from "ioredis";',
}
BUSY = 'require("fs").writeSync(1, "busy from here\\n"); for (;;) { }'
# Works every 20 ms, through a connection of its own, whatever anybody tells it.
TICKS = """
const { Redis } = require("ioredis");
const redis = new Redis(process.env.TEST_REDIS_URL, { connectionName: "application" });
setInterval(() => redis.incr("ticks"), 20);
redis.duplicate().brpop("popped", 0);
console.log("application ready");
"""


def publish(raw: Any, allowed: dict[str, Any]) -> None:  # noqa: F811
    """What a deployment does: the record, then the announcement."""
    raw.set(KEY, record(allowed))
    raw.publish(EVENTS, "changed")


class Stand:
    """A Redis, and applications that find BullMQ."""

    def __init__(self, place: Path, modules: Path, server: RedisServer, raw: Any) -> None:  # noqa: F811
        self.place, self.modules, self.server, self.raw = place, modules, server, raw
        self.server_url = server.url
        place.mkdir()
        (place / "node_modules").symlink_to(modules / "node_modules")

    def start(self, program: str, name: str = "app.cjs", **environment: str) -> Any:
        """Start an application on the allowed release."""
        self.raw.set(KEY, record(NEW))
        variables: dict[str, str | None] = {
            "REDIS_URL": self.server.bare_url, "REDIS_PASSWORD_FILE": str(self.server.password_file),
            "TEST_REDIS_URL": self.server_url, **environment}
        return running_node(self.place, program, variables, name=name)

    def produce(self, count: int) -> list[str]:
        """Add jobs with the numbers from 0; what is there of earlier ones has to be completed."""
        for key in self.raw.keys("demo:jobs:job-*"):
            self.raw.delete(key)
        return produce(self.modules, self.server_url, "demo", "jobs", count)

    def started(self) -> list[str]:
        """The jobs that were started, in their order."""
        return list(self.raw.lrange("started", 0, -1))


@pytest.fixture
def stand(tmp_path: Path, node_modules: Path, server: RedisServer, raw: Any) -> Stand:  # noqa: F811
    return Stand(tmp_path / "app", node_modules, server, raw)


def bull(handler: str, name: str = "app.cjs") -> str:
    return BULLMQ.format(imports=IMPORTS[name], handler=handler)


@pytest.mark.parametrize("name", IMPORTS)
def test_no_job_starts_on_a_fenced_release_and_all_do_when_it_is_lifted(stand: Stand, name: str) -> None:
    with stand.start(bull("return 1;", name), name) as worker:
        worker.said("application ready")
        stand.produce(3)
        wait_until(lambda: stand.raw.zcard("demo:jobs:completed") == 3, "three jobs")
        # Without an announcement: what asks before each job finds it all the same.
        stand.raw.set(KEY, record(OLD))
        stand.produce(5)
        worker.becomes("fenced")
        assert len(stand.started()) == 3
        jobs = wait_until(lambda: _waiting(stand, 5), "all jobs to wait again")
        assert all(stand.raw.hget(f"demo:jobs:{job}", "atm") in (None, "0") for job in jobs)
        publish(stand.raw, NEW)
        wait_until(lambda: len(stand.started()) == 8, "the jobs that waited")
        worker.becomes("running")


def _waiting(stand: Stand, count: int) -> list[str]:
    waiting = [*stand.raw.lrange("demo:jobs:wait", 0, -1), *stand.raw.zrange("demo:jobs:delayed", 0, -1)]
    return waiting if len(waiting) == count and not stand.raw.llen("demo:jobs:active") else []


def test_what_runs_is_finished_within_the_drain_time(stand: Stand) -> None:
    handler = 'await new Promise((done) => setTimeout(done, 4000)); await other.rpush("finished", job.id);'
    with stand.start(bull(handler), WORKER_DRAIN_SECONDS="10") as worker:
        worker.said("application ready")
        stand.produce(4)
        wait_until(lambda: len(stand.started()) == 2, "two jobs")
        publish(stand.raw, OLD)
        worker.becomes("draining")
        worker.becomes("fenced")
        assert stand.raw.llen("finished") == 2
        assert len(stand.started()) == 2


def test_what_outlasts_the_drain_time_is_handed_back_without_counting(stand: Stand) -> None:
    with stand.start(bull("await new Promise(() => undefined);"), WORKER_DRAIN_SECONDS="1") as worker:
        worker.said("application ready")
        stand.produce(2)
        wait_until(lambda: len(stand.started()) == 2, "two jobs")
        publish(stand.raw, OLD)
        worker.becomes("fenced")
        jobs = wait_until(lambda: _waiting(stand, 2), "both jobs to wait again", 30)
        assert all(stand.raw.hget(f"demo:jobs:{job}", "atm") in (None, "0") for job in jobs)
        assert all("stc" not in stand.raw.hgetall(f"demo:jobs:{job}") for job in jobs)
        assert worker.process.poll() is None


def test_a_handler_that_waits_for_a_child_is_frozen(stand: Stand) -> None:
    command = '"sh", ["-c", "echo child: at work; sleep 300"], { stdio: "inherit" }'
    handler = f'require("child_process").spawnSync({command});'
    with stand.start(bull(handler), WORKER_DRAIN_SECONDS="1") as worker:
        worker.said("application ready")
        stand.produce(4)
        worker.said("child: at work")
        before = stand.started()  # both of its two, or the one that was first
        publish(stand.raw, OLD)
        worker.becomes("fenced")
        assert stand.started() == before
        assert worker.process.poll() is None


def test_a_handler_that_never_yields_is_frozen_and_lifting_ends_the_process(stand: Stand) -> None:
    with stand.start(bull(BUSY), WORKER_DRAIN_SECONDS="1") as worker:
        worker.said("application ready")
        stand.produce(3)
        worker.said("busy from here")
        before = len(stand.started())
        publish(stand.raw, OLD)
        worker.becomes("fenced")
        own = worker.key.removesuffix(":version")
        wait_until(lambda: _connections(stand) == {own}, "the application's connections to go")
        assert len(stand.started()) == before
        publish(stand.raw, NEW)
        assert worker.ended() == 80
        assert not stand.raw.exists(worker.key)


def _connections(stand: Stand) -> set[str]:
    own = str(stand.raw.client_id())
    return {client["name"] for client in stand.raw.client_list() if client["id"] != own}


HANDLERS = {
    "swallows": "process.on('SIGTERM', () => undefined);",
    "exits": "process.on('SIGTERM', () => process.exit(0));",
    "throws": "process.on('SIGTERM', () => { throw new Error('odd'); });",
    "has none": "",
    "kills itself": "process.on('SIGTERM', () => process.kill(process.pid, 'SIGKILL'));",
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
def test_an_application_that_nobody_knows_is_stopped_and_stays(stand: Stand, handler: str) -> None:
    with stand.start(handler + TICKS) as worker:
        worker.said("application ready")
        wait_until(lambda: int(stand.raw.get("ticks") or 0) > 5, "it to work")
        publish(stand.raw, OLD)
        worker.becomes("fenced")
        own = worker.key.removesuffix(":version")
        wait_until(lambda: _connections(stand) == {own}, "the application's connections to go")
        # What would have been lost to a connection that nobody reads any more.
        stand.raw.lpush("popped", "item")
        ticks = stand.raw.get("ticks")
        assert next_heartbeat(stand.raw, worker.key)
        assert (stand.raw.get("ticks"), stand.raw.llen("popped")) == (ticks, 1)
        assert stand.raw.hget(worker.key, "state") == "fenced"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended(3) == -signal.SIGTERM
        assert not stand.raw.exists(worker.key)


@pytest.mark.parametrize("last", [NEW, OLD], ids=["lifted", "fenced"])
def test_a_hundred_changes_of_mind_end_right(stand: Stand, last: dict[str, Any]) -> None:
    with stand.start(bull("return 1;")) as worker:
        worker.said("application ready")
        for number in range(100):
            publish(stand.raw, NEW if number % 2 else OLD)
        publish(stand.raw, last)
        worker.becomes("running" if last is NEW else "fenced")
        stand.produce(3)
        if last is OLD:
            assert next_heartbeat(stand.raw, worker.key)
            assert stand.started() == []
            publish(stand.raw, NEW)
        wait_until(lambda: sorted(stand.started()) == ["job-0", "job-1", "job-2"], "the jobs")
        assert worker.process.poll() is None


def test_a_handler_that_blocks_the_loop_blocks_neither_heartbeat_nor_fence(stand: Stand) -> None:
    busy = "for (const end = Date.now() + 7000; Date.now() < end; ) { }"
    with stand.start(bull(busy), WORKER_DRAIN_SECONDS="30") as worker:
        worker.said("application ready")
        stand.produce(3)
        wait_until(stand.started, "a job")
        publish(stand.raw, OLD)
        worker.becomes("draining")
        assert next_heartbeat(stand.raw, worker.key)
        started = len(stand.started())
        worker.becomes("fenced")
        assert len(stand.started()) == started
        assert worker.process.poll() is None


CHILD = """
const { fork, spawn } = require("child_process");
const { Worker, isMainThread } = require("worker_threads");
const { Redis } = require("ioredis");
const work = (name) => {
  const redis = new Redis(process.env.TEST_REDIS_URL);
  setInterval(() => redis.incr(name), 20);
};
if (!isMainThread) {
  work("thread");
} else if (process.send) {
  work("child");
} else {
  fork(__filename);
  new Worker(__filename);
  spawn("sh", ["-c", "sleep 300 & wait"], { detached: true });
  process.on("SIGTERM", () => undefined);
  console.log("application ready");
}
"""


def test_children_and_threads_are_stopped_too_and_register_once(stand: Stand) -> None:
    with stand.start(CHILD) as worker:
        worker.said("application ready")
        for name in ("child", "thread"):
            wait_until(lambda counted=name: int(stand.raw.get(counted) or 0) > 5, f"the {name} to work")
        assert worker.text.count("Registered: ") == 1
        assert len(stand.raw.keys("demo:worker:extractor:*:version")) == 1
        assert _children(worker) >= 3
        publish(stand.raw, OLD)
        worker.becomes("fenced")
        counts = stand.raw.mget("child", "thread")
        wait_until(lambda: _children(worker) == 0, "its children to go")
        assert next_heartbeat(stand.raw, worker.key)
        assert stand.raw.mget("child", "thread")[1] == counts[1]


def _children(worker: NodeWorker) -> int:
    found, parents = {worker.process.pid}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[int(path.parent.name)] = int(parent)
    for _ in range(4):
        found |= {pid for pid, parent in parents.items() if parent in found}
    return len(found) - 1


@pytest.mark.parametrize(("ending", "status"), [
    ("process.exit(3)", 3), ("throw new Error('boom')", 1), ("undefined", 0),
    ("process.kill(process.pid, 'SIGTERM')", -15),
])
def test_however_it_ends_the_registration_goes(stand: Stand, ending: str, status: int) -> None:
    program = f"console.log('application ready'); setTimeout(() => {{ {ending}; }}, 1500);"
    with stand.start(program) as worker:
        key = worker.key
        assert stand.raw.exists(key)
        assert worker.ended() == status
        assert not stand.raw.exists(key)


def test_sigterm_is_the_applications_own_to_handle(stand: Stand) -> None:
    done = stand.place / "done"
    program = (
        f"const finish = () => setInterval(() => require('fs').existsSync('{done}') && process.exit(7), 50);"
        "process.on('SIGTERM', finish); setInterval(() => {}, 1000); console.log('application ready');")
    with stand.start(program) as worker:
        worker.said("application ready")
        worker.becomes("running")
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: stand.raw.hget(worker.key, "state") == "draining", "the registration to say draining")
        done.touch()
        assert worker.ended() == 7
        assert not stand.raw.exists(worker.key)

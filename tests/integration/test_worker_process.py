# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real worker from its start to its end: waiting, signals, exit statuses, what it writes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.certificates import make_certificates
from support.redis_server import RedisServer, running_redis, wait_until
from support.worker_process import SOURCE, running_worker

from driftguard_worker import redis_options, runtime
from driftguard_worker.errors import ExitStatus
from driftguard_worker.identity import Identity
from driftguard_worker.jobs import Handlers
from driftguard_worker.server import listen
from driftguard_worker.settings import Settings

NOTHING = runtime.Task(handlers=Handlers(), prefix="demo", concurrency=1, drain=1, production=False)
SECRET = "hunter2-hunter2"
# Half a second on an idle machine; what waits for Redis takes five.
QUICKLY = 4.0


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_serves_while_it_waits_for_redis_and_goes_on_when_it_is_there(redis_server: RedisServer) -> None:
    redis_server.stop()
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("redis doesn't answer")
        assert worker.event("starting")["address"].startswith("127.0.0.1:"), (
            "nobody else's business outside a container"
        )
        status, body = worker.health()
        assert (status, body["status"], body["state"]) == (503, "unavailable", "starting")
        assert body["redis"] == {"connected": False, "heartbeatAge": None}
        redis_server.start()
        worker.event("running")
        status, body = worker.health()
        assert (status, body["state"], body["workerId"]) == (200, "running", worker.member)
        assert 'driftguard_worker_state{driftguard_worker_state="running"} 1.0' in worker.get("/metrics")[1]
        assert worker.stop() == 0


def test_waiting_worker_stops_at_once(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": f"redis://127.0.0.1:{closed_port()}"}) as worker:
        worker.event("redis doesn't answer")
        begun = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begun < QUICKLY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_running_worker_quickly(redis_server: RedisServer, number: signal.Signals) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        begun = time.monotonic()
        worker.send(number)
        assert worker.ended() == 0
        assert time.monotonic() - begun < QUICKLY
        assert worker.event("stopping")["signal"] == number.name


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_ends_it_at_once(redis_server: RedisServer, number: signal.Signals, status: int) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        redis_server.pause()  # so that taking the registration back hangs
        worker.send(signal.SIGTERM)
        worker.event("stopping")
        worker.send(number)
        assert worker.ended(1.5) == status


def test_draining_is_shown(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        redis_server.pause()
        worker.send(signal.SIGTERM)
        worker.event("stopping")
        status, body = worker.health()
        assert (status, body["state"]) == (503, "draining")


def test_stop_without_redis_says_that_the_registration_stays(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        redis_server.pause()
        begun = time.monotonic()
        assert worker.stop() == 75
        assert time.monotonic() - begun < 8, "the usual grace time is ten seconds"
        assert worker.event("not deregistered, the registration expires by itself")["found"] == "TimeoutError"


def test_a_stop_never_takes_longer_than_its_limit(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime, "_LEAVE_SECONDS", 0.2)
    values = Settings(WORKER_TYPE="ocr", WORKER_FLEET="demo", REDIS_URL=redis_server.url)

    async def run() -> tuple[ExitStatus, float]:
        identity = Identity.of_this_process(values, tmp_path / "none")
        options = redis_options.from_settings(values)
        worker = runtime.Runtime(identity, options, listen("127.0.0.1", 0), time.monotonic(), NOTHING)
        running = asyncio.create_task(worker.run())
        with redis_server.client() as client:
            while not client.exists("demo:workers"):
                await asyncio.sleep(0.02)
        redis_server.pause()
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        return await running, time.monotonic() - begun

    status, seconds = asyncio.run(run())
    assert status is ExitStatus.NOT_DEREGISTERED
    assert seconds < 2, "Redis alone would hold it up for two seconds and more"


@pytest.mark.parametrize(
    ("part", "method", "fault", "told"),
    [
        ("registration import Registration", "announce", "fail", "ZeroDivisionError: sabotaged"),
        ("registration import Registration", "announce", "tell", "ZeroDivisionError: ***"),
        ("server import HttpServer", "serve", "end", "RuntimeError: a part of the worker ended by itself"),
    ],
)
def test_a_mistake_in_a_part_ends_the_worker_in_one_line(
    redis_server: RedisServer, part: str, method: str, fault: str, told: str
) -> None:
    script = f"""
import sys
async def fail(*_, **__): raise ZeroDivisionError("sabotaged")
async def tell(self, *_): raise ZeroDivisionError(self._client.connection_pool.connection_kwargs["password"])
async def end(*_, **__): return None
from driftguard_worker.{part} as part
part.{method} = {fault}
from driftguard_worker.cli import main
sys.exit(main())
"""
    values = {"REDIS_URL": redis_server.url, "PYTHONPATH": str(SOURCE), "HEALTH_PORT": "0"}
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**values, "WORKER_TYPE": "ocr", "WORKER_FLEET": "demo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (found.returncode, found.stderr) == (70, "")
    line = json.loads(found.stdout.splitlines()[-1])
    assert (line["event"], line["exit_status"], line["error"]) == ("internal error", 70, told)
    assert_clean(found.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_loop_runs_is_a_clean_end(number: signal.Signals) -> None:
    script = f"""
import importlib.abc, os, sys
class SignalAtImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "driftguard_worker.process":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, SignalAtImport())
from driftguard_worker.cli import main
print("not stopped", main())
"""
    found = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "not stopped" not in found.stdout


def test_pause_of_redis_shorter_than_the_lifetime_changes_nothing(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        redis_server.pause()
        line = worker.event("redis doesn't answer")
        assert line["found"].startswith("TimeoutError: ")
        status, body = worker.health()
        assert (status, body["redis"]["connected"]) == (200, False)
        redis_server.resume()
        worker.event("redis answers again")
        assert worker.health()[1]["redis"]["connected"] is True
        assert 'driftguard_worker_redis_errors_total{error="TimeoutError"}' in worker.get("/metrics")[1]


def test_unhealthy_once_the_registration_may_have_expired(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        redis_server.kill()
        wait_until(lambda: worker.health()[0] == 503, "/health to answer 503", 20)
        assert worker.health()[1]["redis"]["heartbeatAge"] >= 15
        redis_server.start()
        wait_until(lambda: worker.health()[0] == 200, "/health to answer 200", 12)


def test_idle_worker_sleeps(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        worker.health()
        before = context_switches(worker.process.pid)
        time.sleep(3)  # the measure itself: what happens in three seconds without any reason
        assert context_switches(worker.process.pid) - before < 15


def context_switches(pid: int) -> int:
    """How often a process has gone to sleep."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_health_check_agrees(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url}) as worker:
        worker.event("running")
        port = worker.event("starting")["address"].rpartition(":")[2]
        assert health_check(port).returncode == 0
        worker.stop()
        assert health_check(port).returncode == 1


def health_check(port: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "driftguard_worker.healthcheck"],
        env={"HEALTH_PORT": port, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_password_from_a_file(redis_server: RedisServer) -> None:
    values = {"REDIS_URL": redis_server.bare_url, "REDIS_PASSWORD_FILE": str(redis_server.password_file)}
    with running_worker(values) as worker:
        worker.event("running")


@pytest.mark.parametrize("password", [None, SECRET])
def test_refused_password_ends_the_start(redis_server: RedisServer, password: str | None) -> None:
    with running_worker({"REDIS_URL": redis_server.url_for(password=password or "")}) as worker:
        assert worker.ended() == 77
    assert worker.lines[-1]["exit_status"] == 77
    assert "REDIS_PASSWORD_FILE" in worker.text
    assert_clean(worker.text)


def test_tls_verifies_the_server(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    with running_redis(tls=tmp_path) as server:
        with running_worker({"REDIS_URL": server.url, "REDIS_CA_FILE": str(tmp_path / "ca.crt")}) as worker:
            worker.event("running")
            assert worker.event("starting")["redis"].startswith("rediss://")
            assert worker.stop() == 0
        with running_worker({"REDIS_URL": server.url}) as worker:
            assert "certificate verify failed" in worker.event("redis doesn't answer")["found"]
            assert worker.stop() == 0


def test_wrong_settings_are_all_named() -> None:
    values: dict[str, Any] = {"REDIS_URL": f"redis://:{SECRET}@[", "WORKER_CONCURRENCY": "0", "WORKER_FLEET": None}
    with running_worker(values) as worker:
        assert worker.ended() == 2
    assert [line["subject"] for line in worker.lines] == ["WORKER_FLEET", "WORKER_CONCURRENCY"]
    assert all(line["exit_status"] == 2 and line["remedy"] for line in worker.lines)
    assert_clean(worker.text)


def test_url_that_can_not_be_parsed() -> None:
    with running_worker({"REDIS_URL": f"redis://:{SECRET}@["}) as worker:
        assert worker.ended() == 2
    assert [line["subject"] for line in worker.lines] == ["REDIS_URL"]
    assert_clean(worker.text)


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running_worker({"REDIS_URL": "redis://127.0.0.1", "HEALTH_PORT": port}) as worker:
            assert worker.ended() == 69
    assert worker.lines[-1]["found"] == "Address already in use"
    assert_clean(worker.text)


def test_arguments_are_refused() -> None:
    command = [sys.executable, "-m", "driftguard_worker", "--verbose"]
    found = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "expected no arguments; found 1; remedy: " in found.stderr


def test_production_without_the_guard_opens_nothing() -> None:
    with running_worker({"REDIS_URL": "redis://127.0.0.1", "NODE_ENV": "production"}) as worker:
        assert worker.ended() == 1
    assert worker.text.startswith("[version] FATAL: no guard at /opt/driftguard/guard/version_guard.py")
    assert worker.lines == []


def test_nothing_secret_is_written_even_when_everything_is(redis_server: RedisServer) -> None:
    with running_worker({"REDIS_URL": redis_server.url, "LOG_LEVEL": "debug"}) as worker:
        worker.event("running")
        shown = worker.get("/health")[1] + worker.get("/metrics")[1]
        redis_server.stop()
        worker.event("redis doesn't answer")
        worker.stop()
    for text in (shown, worker.text):
        assert redis_server.password not in text
        assert "t3st%2Fpass" not in text
    assert {line["sha"] for line in worker.lines if "sha" in line} == {json.loads(worker.output[1])["sha"]}
    assert all(line["service"] == "extractor" and line["worker"] == worker.member for line in worker.lines)


def assert_clean(text: str) -> None:
    assert SECRET not in text
    assert "Traceback" not in text

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a supervised command may do, and what is done to it: signals, statuses, forks, and ends of every kind."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Mapping

import pytest
from contract.fence_cases import RECORDS
from contract.guard_programs import Guard, all_guards
from support.processes import processes_of
from support.redis_server import RedisServer, wait_until
from support.supervisor_process import KEYS, PYTHON, Supervised, supervised

ALLOWED, REFUSED = RECORDS["allowed"] or "", RECORDS["not allowed"] or ""


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    publish(server, ALLOWED)
    return server


def publish(server: RedisServer, record: str) -> None:
    with server.client() as client:
        client.set(KEYS["release"], record)
        client.publish(KEYS["events"], "changed")


def python(text: str) -> tuple[str, ...]:
    """A command that is a Python program."""
    return (PYTHON, "-ISu", "-c", text)


def gone(worker: Supervised, redis: RedisServer) -> bool:
    with redis.client() as client:
        return not client.exists(worker.key) and not client.zrank(KEYS["workers"], worker.member)


@pytest.mark.parametrize("guard", [guard for guard in all_guards() if guard.is_python], ids=lambda guard: guard.name)
def test_under_every_python(redis: RedisServer, tmp_path: Path, guard: Guard) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url}, python=guard.interpreter[0]) as worker:
        worker.said("at work")
        publish(redis, REFUSED)
        worker.registers(redis, "fenced")
        publish(redis, ALLOWED)
        worker.said("at work", 2)
        assert worker.stop() == 0
        assert gone(worker, redis)


@pytest.mark.parametrize(("text", "status"), [
    ("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137),
    ("kill -SEGV $$", 139),
])
def test_its_exit_status_is_passed_on_and_the_registration_withdrawn(
    redis: RedisServer, tmp_path: Path, text: str, status: int,
) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=("sh", "-c", text)) as worker:
        assert worker.ended() == status
        assert gone(worker, redis)


@pytest.mark.parametrize(("command", "status", "said"), [
    (("nowhere-to-be-found",), 127, "version_guard: nowhere-to-be-found: not found"),
    (("/etc/passwd",), 126, "version_guard: /etc/passwd: Permission denied"),
])
def test_a_command_that_cant_be_started(
    redis: RedisServer, tmp_path: Path, command: tuple[str, ...], status: int, said: str,
) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=command) as worker:
        assert worker.ended() == status
        assert said in worker.text


def test_it_sees_what_it_would_see_without_a_supervisor(redis: RedisServer, tmp_path: Path) -> None:
    text = """
import json, os, signal, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
ignored = [number for number in range(1, 32) if signal.getsignal(number) is signal.SIG_IGN]
files = sorted(os.listdir("/proc/self/fd"))
environ = open("/proc/self/environ", "rb").read().decode("latin-1")
print("SEEN", json.dumps([sys.argv, sorted(environ.split("\\0")), list(blocked), ignored, files, os.getcwd()]))
"""
    odd = {"TEST_MARK": "same", "ODD-name": "x", "LATIN": "\udce9", "PYTHONPATH": "/nowhere", "EMPTY": ""}
    command = (*python(text), "two words", "", "*", "$(id)", "a\nb")

    def seen(options: Mapping[str, Any]) -> Any:
        with supervised(tmp_path, {"REDIS_URL": redis.url, **odd}, command=command, **options) as worker:
            line = worker.said("SEEN ")
            return json.loads(line.partition("SEEN ")[2])

    assert seen({}) == seen({"options": ()})


@pytest.mark.parametrize("number", [
    signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
    signal.SIGALRM, signal.SIGTTIN, signal.SIGRTMIN,
])
def test_signals_reach_it(redis: RedisServer, tmp_path: Path, number: signal.Signals) -> None:
    text = f"""
import signal, time
signal.signal({int(number)}, lambda *_: print("GOT IT"))
print("at work")
for _ in range(1000):
    time.sleep(0.05)
"""
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=python(text)) as worker:
        worker.said("at work")
        worker.send(number)
        worker.said("GOT IT")
        worker.send(number)
        worker.said("GOT IT", 2)


def test_stop_is_graceful_and_takes_as_long_as_the_command_needs(redis: RedisServer, tmp_path: Path) -> None:
    """Its engine's grace time bounds it, not the drain time."""
    text = 'trap "sleep 4; echo drained; exit 7" TERM; echo at work; while :; do sleep 0.05; done'
    environment = {"REDIS_URL": redis.url, "WORKER_DRAIN_SECONDS": "0"}
    with supervised(tmp_path, environment, command=("sh", "-c", text)) as worker:
        worker.said("at work")
        worker.send(signal.SIGTERM)
        assert worker.registers(redis, "draining")
        assert worker.health()[0] == 503
        assert worker.ended() == 7
        assert "drained" in worker.text
        assert gone(worker, redis)


def test_what_a_stopped_command_leaves_behind_is_ended_too(redis: RedisServer, tmp_path: Path) -> None:
    text = "(trap 'echo told; exit 0' TERM; while :; do sleep 0.05; done) & echo at work; exec sleep 1000"
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=("sh", "-c", text)) as worker:
        worker.said("at work")
        assert len(worker.relatives) >= 2
        assert worker.stop() == 143
        assert "told" in worker.text
        assert worker.relatives == []


@pytest.mark.parametrize("environment", [{}, {"REDIS_URL": "redis://127.0.0.1:1/0"}], ids=["parked", "waiting"])
def test_sigterm_without_a_child(redis: RedisServer, tmp_path: Path, environment: dict[str, str]) -> None:
    publish(redis, REFUSED)
    with supervised(tmp_path, {"REDIS_URL": redis.url, **environment}) as worker:
        if environment:
            worker.said("WARNING: fleet record unreachable")
        else:
            worker.registers(redis, "fenced")
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH):
            worker.send(number)
        assert worker.health()[0] == 503
        begin = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - begin < 10, "the usual grace time"
        assert gone(worker, redis)


def test_sigterm_during_admission(redis: RedisServer, tmp_path: Path) -> None:
    """At any moment of the start: the end is clean, and nothing is left."""
    for step in range(12):
        with supervised(tmp_path / str(step), {"REDIS_URL": redis.url}) as worker:
            time.sleep(step * 0.02)
            worker.send(signal.SIGTERM)
            assert worker.ended() in (0, 143, -signal.SIGTERM)
            assert worker.children == []
    with redis.client() as client:
        assert client.zrange(KEYS["workers"], 0, -1) == []


CHILDREN = {
    "ignores SIGTERM": 'trap "" TERM; echo at work; while :; do sleep 0.05; done',
    "ignores everything": (
        'trap "" TERM INT HUP QUIT USR1 USR2; echo at work; (while :; do sleep 0.05; done) & '
        "while :; do sleep 0.05; done"),
    "forks": 'for n in 1 2 3; do sleep 1000 & done; echo at work; wait',
    "forks children that ignore SIGTERM": (
        '(trap "" TERM; while :; do sleep 0.05; done) & echo at work; while :; do sleep 0.05; done'),
    "is stopped": 'echo at work; kill -STOP $$; sleep 1000',
    "closes its output": 'echo at work; exec >&- 2>&- <&-; while :; do sleep 0.05; done',
}
PROGRAMS = {
    "has a child in a session of its own": """
import os, signal, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: time.sleep(0.05)
print("at work")
while True: time.sleep(0.05)
""",
    "has a daemon": """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.chdir("/")
    while True: time.sleep(0.05)
os.wait()
print("at work")
while True: time.sleep(0.05)
""",
    "hops from process to process": """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end = time.monotonic() + 30  # should a test miss it, it isn't there for ever
if os.fork() == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
    os._exit(0)
print("at work")
while True: time.sleep(0.05)
""",
    "leaves a storm of zombies": """
import os, time
for number in range(300):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(number / 2000)
        os._exit(0)
print("at work")
while True: time.sleep(0.05)
""",
}
COMMANDS = {
    **{name: ("sh", "-c", text) for name, text in CHILDREN.items()},
    **{name: python(text) for name, text in PROGRAMS.items()}}


@pytest.mark.parametrize("name", COMMANDS)
def test_fenced_whatever_it_does(redis: RedisServer, tmp_path: Path, name: str) -> None:
    """Nothing that it started is there when it says fenced, and it works again when it may."""
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=COMMANDS[name]) as worker:
        worker.said("at work")
        publish(redis, REFUSED)
        worker.registers(redis, "fenced")
        assert worker.relatives == []
        assert worker.health()[0] == 503
        publish(redis, ALLOWED)
        worker.said("at work", 2)
        assert worker.registers(redis, "running")
        assert "driftguard_worker_child_restarts_total 1" in worker.get("/metrics")[1]


def test_draining_is_said_before_fenced_and_lasts_no_longer_than_the_drain_time(
    redis: RedisServer, tmp_path: Path,
) -> None:
    command = ("sh", "-c", CHILDREN["ignores SIGTERM"])
    with supervised(tmp_path, {"REDIS_URL": redis.url, "WORKER_DRAIN_SECONDS": "5"}, command=command) as worker:
        worker.said("at work")
        publish(redis, REFUSED)
        worker.registers(redis, "draining")
        begin = time.monotonic()
        assert worker.children
        worker.registers(redis, "fenced")
        assert 3 < time.monotonic() - begin < 15


def test_jobs_in_its_children_are_finished_within_the_drain_time(redis: RedisServer, tmp_path: Path) -> None:
    """A worker that drains needs its children: only it is told, as an engine would tell it."""
    text = 'sh -c "sleep 0.7; echo job done" & job=$!; trap "wait $job; exit 0" TERM; echo at work; wait; wait'
    environment = {"REDIS_URL": redis.url, "WORKER_DRAIN_SECONDS": "10"}
    with supervised(tmp_path, environment, command=("sh", "-c", text)) as worker:
        worker.said("at work")
        publish(redis, REFUSED)
        worker.registers(redis, "fenced")
        assert "job done" in worker.text


def test_a_worker_that_is_fenced_is_not_told_twice_by_its_stop(redis: RedisServer, tmp_path: Path) -> None:
    text = 'n=0; trap "n=$((n+1)); echo told" TERM; echo at work; for x in $(seq 40); do sleep 0.05; done; exit 5'
    environment = {"REDIS_URL": redis.url, "WORKER_DRAIN_SECONDS": "10"}
    with supervised(tmp_path, environment, command=("sh", "-c", text)) as worker:
        worker.said("at work")
        publish(redis, REFUSED)
        worker.said("told")
        assert worker.stop() == 5
        assert worker.text.count("told") == 1


def test_a_second_sigterm_is_the_commands_own_matter(redis: RedisServer, tmp_path: Path) -> None:
    text = 'trap "trap \'exit 9\' TERM; echo once" TERM; echo at work; while :; do sleep 0.05; done'
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=("sh", "-c", text)) as worker:
        worker.said("at work")
        worker.send(signal.SIGTERM)
        worker.said("once")
        assert worker.stop() == 9


def test_a_daemon_ends_with_the_command_that_left_it(redis: RedisServer, tmp_path: Path) -> None:
    text = "(setsid sleep 1000 &) ; sleep 0.3; exit 4"
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=("sh", "-c", text)) as worker:
        wait_until(lambda: len(worker.relatives) >= 2, "the daemon")
        assert worker.ended() == 4
        assert worker.relatives == []


def test_a_killed_supervisor_takes_its_command_along(redis: RedisServer, tmp_path: Path) -> None:
    for moment in (0.0, 0.05, 0.1, 0.3):
        with supervised(tmp_path / str(moment), {"REDIS_URL": redis.url}) as worker:
            worker.said("Admitted")
            time.sleep(moment)
            left = worker.children
            worker.process.kill()
            worker.process.wait()
            wait_until(lambda left=left: not any(_runs(pid) for pid in left), f"the end of {left}")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(os.getuid() != 0, reason="not on this machine: a pid namespace takes root")
def test_as_pid_1_it_reaps_what_is_orphaned(redis: RedisServer, tmp_path: Path) -> None:
    wrapper = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    command = ("sh", "-c", 'for n in 1 2 3 4 5; do (sleep 0.1 &); done; echo at work; while :; do sleep 0.05; done')
    with supervised(tmp_path, {"REDIS_URL": redis.url}, command=command, wrapper=wrapper) as worker:
        worker.said("at work")
        assert worker.registers(redis, "running")["pid"] == "1"
        wait_until(lambda: not _zombies(worker.process.pid), "all zombies to be reaped")
        publish(redis, REFUSED)
        worker.registers(redis, "fenced")
        [supervisor] = worker.children
        os.kill(supervisor, signal.SIGTERM)
        assert worker.ended() == 0


def _zombies(ancestor: int) -> list[str]:
    supervisor = processes_of(ancestor)[0]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == supervisor:
            found.append(stat.parent.name)
    return found


def test_a_log_that_nobody_reads_holds_nothing_up(redis: RedisServer, tmp_path: Path) -> None:
    """A stopped engine leaves a full pipe behind: signals and the fence go on all the same."""
    read, write = os.pipe()
    with supervised(tmp_path, {"REDIS_URL": redis.url}, output=write) as worker, redis.client() as client:
        said = b""
        while b"at work" not in said:
            said += os.read(read, 65536)
        os.set_blocking(write, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write, b"x")
        # The test's end of the pipe has no mode of its own.
        os.set_blocking(write, True)
        [member] = client.zrange(KEYS["workers"], 0, -1)
        key = KEYS["registration"].replace("<service>:<instance>", member)
        for record, state in ((REFUSED, "fenced"), (ALLOWED, "running"), (REFUSED, "fenced")):
            publish(redis, record)
            wait_until(lambda state=state: client.hget(key, "state") == state, state)
        assert worker.stop() == 0
    os.close(read)
    os.close(write)

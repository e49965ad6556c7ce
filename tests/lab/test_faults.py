# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each fault is one: what it breaks doesn't work while it lasts, and works again when it is undone."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Callable, Iterator

import pytest
import redis as redis_py
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from redis.backoff import NoBackoff
from redis.retry import Retry
from support.modules import PROJECT
from support.redis_server import wait_until

from lab.faults import FAULTS, Asked
from lab.machines import CA_FILE
from lab.outer import Outer
from lab.reach import connect
from lab.state import Lab

Fault = Callable[..., str]
UNDONE_BY = {
    "kill-engine": "start-engine", "cut": "mend", "slow": "fast", "fill": "empty", "skew": "skew",
    "stop-redis": "start-redis", "pause-registry": "resume-registry"}
ENGINE = ("sudo", "docker", "version", "--format", "{{.Server.Version}}")


@pytest.fixture
def fault(lab: Lab) -> Iterator[Fault]:
    """Makes a fault; in the end none is left."""
    outer = Outer()
    made: set[tuple[str, str]] = set()

    def make(name: str, host: str = "", **more: Any) -> str:
        made.add((name, host))
        return FAULTS[name].does(outer, lab, Asked(host=host, **more))

    yield make
    for name, host in sorted(made):
        if name in UNDONE_BY:
            with suppress(DriftguardError):  # the test undid it
                FAULTS[UNDONE_BY[name]].does(outer, lab, Asked(host=host))


def status(lab: Lab, host: str, *command: str) -> int:
    """Exit status of a command on a host; 255 when it can't be reached."""
    return connect(lab, lab.host(host), *command).returncode


def client(lab: Lab, user: str = "workers") -> Any:
    """A client of the lab's Redis."""
    return redis_py.Redis(
        host=f"{lab.subnet}.2", ssl=True, ssl_ca_certs=str(lab.directory / "ca.crt"), username=user,
        password=lab.secret(f"redis-{user}"), decode_responses=True, socket_timeout=10,
        retry=Retry(NoBackoff(), 0))


@pytest.mark.parametrize("host", ["host1", "host2", "host3"])
def test_a_killed_engine_is_dead_until_it_is_started(lab: Lab, fault: Fault, host: str) -> None:
    fault("kill-engine", host)
    assert status(lab, host, *ENGINE) == 1
    with pytest.raises(DriftguardError, match="an engine that runs"):
        fault("kill-engine", host)
    fault("start-engine", host)
    assert status(lab, host, *ENGINE) == 0


def test_a_cut_host_is_reached_by_nobody_and_reaches_nobody(lab: Lab, fault: Fault) -> None:
    outer = Outer()
    ask = f"timeout 2 bash -c '</dev/tcp/{lab.subnet}.2/6379'"
    fault("cut", "host1")
    fault("cut", "host1")
    assert status(lab, "host1", "true") == 255
    assert outer.run(["exec", lab.container("host1"), "sh", "-c", ask]).returncode != 0
    fault("mend", "host1")
    assert status(lab, "host1", "sh", "-c", ask) == 0


def test_a_host_without_ssh_still_reaches_redis(lab: Lab, fault: Fault) -> None:
    outer = Outer()
    ask = f"timeout 5 bash -c '</dev/tcp/{lab.subnet}.2/6379'"
    fault("cut", "host2", ssh_only=True)
    assert status(lab, "host2", "true") == 255
    assert outer.run(["exec", lab.container("host2"), "sh", "-c", ask]).returncode == 0
    fault("mend", "host2")
    assert status(lab, "host2", "true") == 0


def test_slow_ssh_is_slow_and_a_broken_one_breaks(lab: Lab, fault: Fault) -> None:
    fault("slow", "host1", milliseconds=500)
    before = time.monotonic()
    assert status(lab, "host1", "true") == 0
    assert time.monotonic() - before >= 3.0  # a connection and a command are several ways there and back
    fault("slow", "host1", milliseconds=0, break_after=50_000)
    assert status(lab, "host1", "head", "-c", "1000000", "/dev/zero") == 255
    assert status(lab, "host2", "head", "-c", "1000000", "/dev/zero") == 0
    fault("fast", "host1")
    assert status(lab, "host1", "head", "-c", "1000000", "/dev/zero") == 0


@pytest.mark.parametrize(("disk", "place"), [("docker", "/var/lib/docker"), ("opt", "/opt")])
def test_a_full_disk_takes_nothing_more(lab: Lab, fault: Fault, disk: str, place: str) -> None:
    script = f"head -c 1000000 /dev/zero >{place}/lab-test; status=$?; rm {place}/lab-test; exit $status"
    write = ("sudo", "sh", "-c", script)
    assert status(lab, "host3", *write) == 0
    fault("fill", "host3", disk=disk)
    fault("fill", "host3", disk=disk)
    assert status(lab, "host3", *write) == 1
    other = "opt" if disk == "docker" else "docker"
    with pytest.raises(DriftguardError, match="no full disk yet"):
        fault("fill", "host3", disk=other)
    fault("empty", "host3")
    assert status(lab, "host3", *write) == 0


@pytest.mark.parametrize("host", ["host1", "host3"])
@pytest.mark.parametrize("seconds", [600, -600])
def test_a_skewed_clock_is_that_of_what_ansible_runs(lab: Lab, fault: Fault, host: str, seconds: int) -> None:
    def off() -> float:
        said = connect(lab, lab.host(host), "/usr/local/bin/lab-python", "-c", "import time; print(time.time())")
        return float(said.stdout) - time.time()

    fault("skew", host, seconds=seconds)
    assert abs(off() - seconds) < 60
    fault("skew", host, seconds=0)
    assert abs(off()) < 60


def test_redis_keeps_what_it_held_until_it_is_emptied(lab: Lab, fault: Fault) -> None:
    with client(lab) as connected, connected.pipeline(transaction=True) as whole:  # as BullMQ writes, and scripts do
        whole.set("lab-test-other", "kept").set("lab-test", "kept").execute()
    fault("stop-redis")
    with pytest.raises((redis_py.ConnectionError, redis_py.TimeoutError)):  # no route is told late, or too late
        client(lab).ping()
    fault("start-redis")
    wait_until(lambda: _has(lab, "kept"), "Redis with what it held")
    fault("empty-redis")
    assert not client(lab).exists("lab-test")


def _has(lab: Lab, value: str) -> bool:
    try:
        return bool(client(lab).get("lab-test") == value)
    except redis_py.RedisError:
        return False


def test_workers_may_not_empty_redis_and_nobody_is_let_in_without_a_password(lab: Lab) -> None:
    with pytest.raises(redis_py.exceptions.NoPermissionError):
        client(lab).flushall()
    with pytest.raises(redis_py.exceptions.AuthenticationError):
        redis_py.Redis(host=f"{lab.subnet}.2", ssl=True, ssl_ca_certs=str(lab.directory / "ca.crt")).ping()


def test_a_paused_registry_never_answers(lab: Lab, fault: Fault) -> None:
    ask = (
        "import ssl, sys, urllib.request, urllib.error\n"
        f"try: urllib.request.urlopen('https://{lab.registry}/v2/', timeout=4,\n"
        f"    context=ssl.create_default_context(cafile='{CA_FILE}'))\n"
        "except urllib.error.HTTPError as error: sys.exit(error.code != 401)\n"
        "except OSError: sys.exit(3)\n"
        "sys.exit(4)\n")
    assert status(lab, "host1", "python3", "-c", ask) == 0  # it is there, and wants a password
    fault("pause-registry")
    assert status(lab, "host1", "python3", "-c", ask) == 3
    fault("resume-registry")
    assert status(lab, "host1", "python3", "-c", ask) == 0


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    return subprocess.run(
        [sys.executable, "-m", "tests.lab", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", FAULTS)
def test_every_command_has_help_with_an_example_and_says_when_there_is_no_lab(name: str) -> None:
    said = cli(name, "--help")
    assert (said.returncode, "example: " in said.stdout) == (0, True)
    values = {"host": "host1", "milliseconds": "1", "seconds": "1"}
    done = cli("--name", "nolab", name, *(values[one] for one in FAULTS[name].takes if one in values))
    assert (done.returncode, done.stdout) == (1, "")
    for part in ("expected  to be up", "found     no such lab", "remedy    make lab"):
        assert part in done.stderr


def test_status_names_hosts_services_and_faults(lab: Lab, fault: Fault) -> None:
    fault("skew", "host2", seconds=-600)
    fault("slow", "host1", milliseconds=1)
    rows = cli("--name", lab.name, "status").stdout.splitlines()
    named = {row.split()[0]: row for row in rows}
    assert sorted(named) == ["PART", "host1", "host2", "host3", "redis", "registry"]
    assert named["host1"].endswith("SSH slowed")
    assert named["host2"].endswith("clock off by -600 s")
    assert named["host3"].endswith("none")

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_lock as playbooks use it: one deploy at a time, killed and suspended ones, a check mode that takes nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
from support.modules import PROJECT, ModuleRun, run_module
from support.processes import alive, processes_of
from support.redis_server import RedisServer, wait_until
from support.releases import release


class Lock:
    """The module with the connection's options filled in."""

    def __init__(self, server: RedisServer, raw: Any) -> None:
        self.redis = {"redis_url": server.bare_url, "redis_password": server.password}
        self._raw = raw

    def run(self, state: str = "held", **options: Any) -> ModuleRun:
        return run_module("worker_lock", **{"fleet": "demo", "state": state, **self.redis, **options})

    def contents(self) -> dict[str, Any]:
        return {key: self._raw.get(key) for key in self._raw.scan_iter()}

    def expire(self) -> None:
        self._raw.pexpire("demo:lock:deploy", 1)
        wait_until(lambda: not self._raw.exists("demo:lock:deploy"), "the lease to run out")


@pytest.fixture
def lock(server: RedisServer, raw: Any) -> Lock:
    return Lock(server, raw)


def test_take_keep_and_give_back(lock: Lock, raw: Any) -> None:
    taken = lock.run(owner="alice", run="run1", floor=6).must_pass()
    assert (taken.changed, taken["held"], taken["generation"], taken["how"]) == (True, True, 7, "taken")
    assert taken["lease"]["owner"] == "alice"
    assert taken["diff"]["before"] == "free\n"
    renewed = lock.run("renewed", token=taken["token"], owner="alice", run="run1").must_pass()
    assert (renewed.changed, renewed["generation"], renewed["how"]) == (True, 7, "renewed")
    assert renewed["lease"]["started_at"] == taken["lease"]["started_at"]
    read = lock.run("read").must_pass()
    assert (read.changed, read["held"], read["generation"], read["generation_next"]) == (False, True, 7, 8)
    assert (read["lease"]["owner"], read["lease"]["run"]) == ("alice", "run1")
    assert 890 < read["expires_in"] <= 900
    assert taken["token"] not in read.output
    released = lock.run("released", token=taken["token"]).must_pass()
    assert (released.changed, released["held"]) == (True, False)
    assert not lock.run("released", token=taken["token"]).must_pass().changed
    read = lock.run("read").must_pass()
    assert (read["held"], read["lease"], read["last"]["owner"]) == (False, None, "alice")
    assert lock.run().must_pass()["took_over_from"] is None


def test_the_second_fails_at_once_naming_the_first(lock: Lock) -> None:
    first = lock.run(owner="alice@ci1", run="run1").must_pass()
    before = lock.contents()
    for check in (True, False):
        run = lock.run(owner="bob", check=check).must_fail(
            "alice@ci1", "run run1", first["lease"]["started_at"], "expires in"
        )
        assert first["token"] not in run.output
    assert lock.contents() == before


def test_the_second_waits_when_asked(lock: Lock) -> None:
    first = lock.run(owner="alice").must_pass()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock.run, owner="bob", wait=30)
        assert lock.run("released", token=first["token"]).changed
        second = waiting.result(60).must_pass()
    assert (second["lease"]["owner"], second["generation"]) == ("bob", 2)


def test_one_who_chose_the_token_takes_it_twice(lock: Lock) -> None:
    """As when the connection broke after the first time."""
    token = "ab" * 16
    first, again = lock.run(token=token, owner="alice").must_pass(), lock.run(token=token, owner="alice").must_pass()
    assert (first["how"], again["how"]) == ("taken", "renewed")
    assert (again["generation"], again["token"]) == (first["generation"], token)
    lock.run(token="cd" * 16, owner="bob").must_fail("alice")


def test_the_second_gives_up_waiting(lock: Lock) -> None:
    lock.run(owner="alice").must_pass()
    lock.run(owner="bob", wait=0.1).must_fail("alice")


def test_check_mode_takes_nothing_and_predicts(lock: Lock, raw: Any) -> None:
    foretold = lock.run(check=True, floor=3).must_pass()
    assert (foretold.changed, foretold["held"], foretold["generation"], foretold["token"]) == (True, False, 4, "")
    assert lock.contents() == {}
    # What a playbook in check mode does with the token that it didn't get.
    assert lock.run("renewed", check=True, token=foretold["token"]).must_pass().changed
    assert not lock.run("released", check=True, token=foretold["token"]).must_pass().changed
    taken = lock.run(floor=3).must_pass()
    assert taken["generation"] == 4
    before = lock.contents()
    again = lock.run(check=True, token=taken["token"]).must_pass()
    assert (again["generation"], again["took_over_from"]) == (4, None)
    assert lock.run("renewed", check=True, token=taken["token"]).must_pass()["generation"] == 4
    assert lock.run("released", check=True, token=taken["token"]).must_pass().changed
    lock.run("renewed", check=True, token="another").must_fail("to be ours still")
    waiting = lock.run(check=True, wait=5).must_pass()
    assert (waiting.changed, waiting["generation"]) == (True, 5)
    assert lock.contents() == before
    lock.expire()
    assert lock.run(check=True).must_pass()["took_over_from"]["number"] == 4


def test_one_that_ran_out_is_taken_over_by_name(lock: Lock) -> None:
    first = lock.run(owner="alice").must_pass()
    lock.expire()
    second = lock.run(owner="bob").must_pass()
    assert second["took_over_from"]["owner"] == "alice"
    lock.run("renewed", token=first["token"], generation=first["generation"]).must_fail("went to bob")
    assert not lock.run("released", token=first["token"]).must_pass().changed
    assert lock.run("read")["lease"]["owner"] == "bob"


def test_with_redis_emptied_the_holder_goes_on_with_its_number(lock: Lock, raw: Any) -> None:
    first = lock.run(floor=6).must_pass()
    raw.flushall()
    regained = lock.run("renewed", token=first["token"], generation=first["generation"]).must_pass()
    assert (regained["how"], regained["generation"]) == ("regained", 7)


def test_a_short_lease_runs_out(lock: Lock) -> None:
    lock.run(lease=1).must_pass()
    wait_until(lambda: lock.run("read")["held"] is False, "the lease to run out")


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 0},
        {"lease": -1},
        {"lease": "nan"},
        {"lease": "inf"},
        {"wait": -1},
        {"wait": "nan"},
        {"wait": 10**9},
        {"fleet": "Demo"},
        {"redis_url": "http://x"},
        {"redis_timeout": 0},
    ],
)
def test_impossible_options(lock: Lock, options: dict[str, Any]) -> None:
    lock.run(**options).must_fail("option ")
    assert lock.contents() == {}


@pytest.mark.parametrize("state", ["renewed", "released"])
def test_a_token_is_needed(lock: Lock, state: str) -> None:
    run = lock.run(state)
    assert run["failed"]
    assert "token" in run["msg"]


@pytest.mark.parametrize("value", ["x", '{"token": 1}', "\x1b[2J", "[" * 9999])
def test_a_key_that_is_no_lease(lock: Lock, raw: Any, value: str) -> None:
    raw.set("demo:lock:deploy", value)
    lock.run().must_fail("DEL demo:lock:deploy", "never expires")
    read = lock.run("read").must_pass()
    assert (read["held"], read["lease"], read["expires_in"]) == (True, None, None)


def test_no_password_is_ever_shown(lock: Lock, server: RedisServer) -> None:
    for options in ({}, {"redis_url": server.url, "redis_password": None}, {"redis_password": "wrong-but-secret"}):
        output = lock.run(**options).output
        assert not [secret for secret in (server.password, "t3st%2F", "wrong-but-secret") if secret in output]


def test_a_redis_that_evicts_gives_no_lease(lock: Lock, raw: Any) -> None:
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        for check in (True, False):
            lock.run(check=check).must_fail("noeviction", "allkeys-lru")
        assert lock.contents() == {}
        assert lock.run("read").must_pass()["held"] is False
    finally:
        raw.config_set("maxmemory-policy", "noeviction")


def test_numbers_from_here_order_publications(lock: Lock, raw: Any) -> None:
    """A deploy that is suspended past the end of its lease changes nothing when it comes back."""
    first = lock.run(owner="alice").must_pass()
    lock.expire()
    second = lock.run(owner="bob").must_pass()
    options: dict[str, Any] = {"fleet": "demo", "state": "settled", "target": release("a").as_result(), **lock.redis}
    late = run_module("worker_release", generation=first["generation"], token=first["token"], **options)
    late.must_fail("overtaken")
    assert not raw.exists("demo:release")
    run_module("worker_release", generation=second["generation"], token=second["token"], **options).must_pass()


# real playbooks

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Take it
      driftguard.workers.worker_lock: "{{ lock_options }}"
      register: lease
    - name: Say so
      ansible.builtin.copy:
        dest: "{{ note }}"
        content: "{{ lease | to_json }}"
        mode: "0600"
    - name: Work
      ansible.builtin.wait_for:
        path: "{{ note }}.go"
        timeout: 120
"""


class Playbook:
    """A playbook that takes the lease, leaves a note of what it got, and works until it is told to go on."""

    def __init__(self, directory: Path, lock: Lock, name: str, **options: Any) -> None:
        self.log = directory / f"{name}.log"
        self.note = directory / f"{name}.json"
        playbook = directory / f"{name}.yml"
        playbook.write_text(textwrap.dedent(PLAYBOOK))
        options = {"fleet": "demo", "owner": name, **lock.redis, **options}
        variables = directory / f"{name}.vars.json"
        variables.write_text(json.dumps({"note": str(self.note), "lock_options": options}))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "-e", f"@{variables}", "-e", f"ansible_python_interpreter={sys.executable}", str(playbook)],
                cwd=PROJECT,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def started(self) -> ModuleRun:
        """What the module returned, once it has."""
        wait_until(lambda: self.note.exists() or self.process.poll() is not None, "the playbook to take the lease", 60)
        assert self.note.exists(), self.output()
        text = wait_until(self.note.read_text, "the note")
        return ModuleRun(text, json.loads(text))

    def output(self) -> str:
        self.process.wait(600)
        return self.log.read_text()

    def waits(self, holder: str) -> None:
        """Until it has said for whose lease it waits."""
        wait_until(
            lambda: f": held by {holder} " in self.log.read_text() or self.process.poll() is not None, "it to wait", 60)
        assert self.process.poll() is None, self.log.read_text()
        assert "waiting up to 120 s, deployment lease of fleet demo" in self.log.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def playing(directory: Path, lock: Lock, name: str, **options: Any) -> Iterator[Playbook]:
    playbook = Playbook(directory, lock, name, **options)
    try:
        yield playbook
    finally:
        playbook.end()


def test_a_playbook_killed_hard_is_replaced_at_once_and_a_live_one_is_not(lock: Lock, tmp_path: Path) -> None:
    with playing(tmp_path, lock, "alice") as first:
        taken = first.started()
        assert taken["lease"]["pid"] == first.process.pid
        lock.run(owner="bob").must_fail("alice", f"pid {first.process.pid}")
        first.process.send_signal(signal.SIGSTOP)
        lock.run(owner="bob").must_fail("alice")
        first.process.kill()
        first.process.wait()
        second = lock.run(owner="bob").must_pass()
    assert second["took_over_from"]["pid"] == first.process.pid
    assert second["generation"] == taken["generation"] + 1


def test_a_playbook_waits_when_asked_and_says_for_whom(lock: Lock, tmp_path: Path) -> None:
    first = lock.run(owner="alice").must_pass()
    with playing(tmp_path, lock, "bob", wait=120) as waiting:
        waiting.waits("alice")
        lock.run("released", token=first["token"]).must_pass()
        assert waiting.started()["lease"]["owner"] == "bob"


def test_a_playbook_killed_while_it_waits_leaves_nobody_to_take_the_lease(lock: Lock, tmp_path: Path) -> None:
    first = lock.run(owner="alice").must_pass()
    with playing(tmp_path, lock, "bob", wait=120) as waiting:
        waiting.waits("alice")
        left = processes_of(waiting.process.pid)
        assert left
        waiting.process.kill()
        waiting.process.wait()
        lock.run("released", token=first["token"]).must_pass()
        wait_until(lambda: not any(alive(pid) for pid in left), "what it had started to end", 60)
        assert not lock.run("read").must_pass()["held"]


def test_who_takes_over_is_told_from_whom(lock: Lock, tmp_path: Path) -> None:
    lock.run(owner="alice", run="run1").must_pass()
    lock.expire()
    with playing(tmp_path, lock, "bob") as second:
        second.started()
        said = " ".join(second.log.read_text().split())
        assert re.search(r"WARNING.* taken over from alice \(host \S+, pid \S+, run run1\)", said), said


def test_of_two_playbooks_started_together_one_stops_before_its_next_task(lock: Lock, tmp_path: Path) -> None:
    with playing(tmp_path, lock, "alice") as first, playing(tmp_path, lock, "bob") as second:
        both = {"alice": first, "bob": second}
        wait_until(lambda: any(one.process.poll() is not None for one in both.values()), "one to stop", 60)
        loser = next(name for name, one in both.items() if one.process.poll() is not None)
        winner = next(name for name in both if name != loser)
        output = both[loser].output()
        assert both[loser].process.returncode != 0
        assert re.search(rf"held by {winner} \(host \S+, pid {both[winner].process.pid}, ", output), output
        assert not both[loser].note.exists()
        assert both[winner].started()["held"]

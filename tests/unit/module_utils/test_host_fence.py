# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's lock and highest deployment number keep overtaken deploys out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords, file_lock
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    rolling,
    settled,
)
from support.redis_server import wait_until
from support.releases import release

A, B, C = (release(letter) for letter in "abc")
OLD = settled(None, "demo", A, 1)
NEW = rolling(OLD, "demo", B, 2)


@pytest.fixture
def host(tmp_path: Path) -> HostRecords:
    return HostRecords(tmp_path, "demo")


# the number


def test_a_lower_number_is_refused_from_then_on(host: HostRecords) -> None:
    assert host.highest() == 0
    host.enter(7, "run-a")
    assert host.highest() == 7
    host.enter(7, "run-a")
    host.enter(9, "run-b")
    with pytest.raises(DriftguardError, match="number 9 was there"):
        host.enter(8, "run-a")
    assert host.highest() == 9


def test_the_record_s_generation_counts_too(host: HostRecords) -> None:
    host.write(NEW)
    assert host.highest() == NEW.generation
    with pytest.raises(DriftguardError):
        host.enter(NEW.generation - 1, "run-a")


def test_another_run_with_the_same_number_is_refused(host: HostRecords) -> None:
    host.enter(7, "run-a")
    with pytest.raises(DriftguardError, match="run-a"):
        host.enter(7, "run-b")
    host.enter(8, "run-b")


def test_a_check_writes_nothing(tmp_path: Path, host: HostRecords) -> None:
    host.check(7, "run-a")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("content", ["", "x", "-1 run", "1e9", "9" * 20, "\n7"])
def test_a_damaged_number_stops_the_deploy(tmp_path: Path, host: HostRecords, content: str) -> None:
    host.enter(7, "run-a")
    (tmp_path / "demo" / "state" / "fence").write_text(content)
    with pytest.raises(DriftguardError, match="fence"):
        host.enter(8, "run-b")


@pytest.mark.parametrize("run", ["", "a b  c", "a\nb\x1b[0m", "r" * 1000])
def test_a_run_of_any_name_can_come_back(host: HostRecords, run: str) -> None:
    host.enter(7, run)
    host.enter(7, run)
    assert host.highest() == 7


def test_racing_deploys_leave_the_highest_number(host: HostRecords) -> None:
    barrier = threading.Barrier(8)

    def enter(number: int) -> bool:
        barrier.wait()
        try:
            host.enter(number, f"run-{number}")
        except DriftguardError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for start in range(1, 40, 8):
            numbers = range(start, start + 8)
            entered = dict(zip(numbers, pool.map(enter, numbers), strict=True))
            assert host.highest() == max(numbers)
            assert entered[max(numbers)]


# the lock


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the host's lock until it is killed."""
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
        with HostRecords(Path(sys.argv[1]), "demo").lock("run-a", 5):
            print("held", flush=True)
            time.sleep(600)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it(host: HostRecords, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(DriftguardError) as caught, host.lock("run-b", 0.2):
        pass
    assert f"pid {holder.pid}, run run-a" in caught.value.found


def test_the_lock_goes_with_its_process(host: HostRecords, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    with host.lock("run-b", 5):
        pass


def test_a_child_that_inherits_the_lock_outlives_its_parent_with_it(tmp_path: Path, host: HostRecords) -> None:
    with host.lock("run-a", 0) as handle:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[handle])
    try:
        with pytest.raises(DriftguardError, match="run run-a"), host.lock("run-b", 0):
            pass
    finally:
        child.kill()
        child.wait()
    with host.lock("run-b", 0):
        pass


def test_the_second_waits_as_long_as_it_may(host: HostRecords, holder: subprocess.Popen[str]) -> None:
    entered = threading.Event()

    def wait() -> None:
        with host.lock("run-b", 30):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not entered.wait(0.3)
    holder.kill()
    wait_until(entered.is_set, "the lock to go to the one that waits")
    thread.join()


@pytest.mark.parametrize("wait", [-1.0, float("nan"), float("inf")])
def test_a_wait_that_would_not_end_is_refused(host: HostRecords, wait: float) -> None:
    with pytest.raises(DriftguardError, match="lock_wait"), host.lock("run", wait):
        pass


def test_a_lock_file_that_cannot_be_opened_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DriftguardError, match="remedy"), file_lock(tmp_path / "none" / "lock", "run", 0):
        pass


def test_a_note_of_any_bytes_is_shown_as_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock(path, "a\nb", 0):
        assert path.read_text() == f"pid {os.getpid()}, run a\ufffdb\n"
        path.write_bytes(b"\xff\x00\x1b[2J" * 200)
        with pytest.raises(DriftguardError) as caught, file_lock(path, "other", 0):
            pass
    assert caught.value.found.isprintable()

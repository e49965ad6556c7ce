# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout hears of its controller by files: a beat that changes, a stop; no clock but the process's own counts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import processes, side_by_side
from ansible_collections.driftguard.workers.plugins.module_utils.attendance import Attendance, Heartbeat
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_progress import parsed
from support.containers import container

SUBJECT = "fleet demo on web1"


def attended(directory: Path, heartbeat: float = 20.0) -> Attendance:
    return Attendance({"attendance": str(directory), "heartbeat": heartbeat}, SUBJECT)


def nothing() -> None:
    """What has nothing against going on."""


@pytest.mark.parametrize(("contents", "heard"), [
    (["1", "2", "3", "4"], True),
    (["1", "1", "1", "1"], False),
    (["1", "2", None, None], True),
    (["1", "2", None, None, None], False),
    ([None, None, None, None], False),
    ([None, None, "1", "2"], True),
    (["1", "2", "2", "3"], True),
    (["1", "2", "2", "2"], True),
    (["1", "2", "2", "2", "2"], False),
])
def test_a_beat_is_heard_as_long_as_it_changes(contents: list[Any], heard: bool) -> None:
    """One look in 8 s, and a limit of 20 s."""
    beat = Heartbeat(20, 100)
    assert [beat.is_heard(content, 108 + 8 * number) for number, content in enumerate(contents)][-1] is heard


def test_a_jump_of_the_hosts_clock_is_neither_a_beat_nor_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten minutes forth and back: what counts is that the content changes, by the clock that never jumps."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the clock on the wall was asked"))
    safe_point = attended(tmp_path).safe_point(nothing)
    beat = tmp_path / "beat"
    for number, jump in enumerate((0, 600, -600, 600)):
        beat.write_text(f"{number}\n")
        os.utime(beat, (5000 + jump, 5000 + jump))
        now[0] += 19
        safe_point()
    os.utime(beat, (9000, 9000))
    now[0] += 21
    with pytest.raises(DriftguardError, match="nothing heard of it for 20 s"):
        safe_point()


def test_a_beat_that_ended_while_nobody_looked_is_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step took long, and whoever attended it was gone soon after it had begun."""
    now, looks = [1000.0], threading.Semaphore(0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _seconds: looks.release())
    (tmp_path / "beat").write_text("1\n")
    attendance = attended(tmp_path)
    attendance.listen()
    for _ in range(2):
        assert looks.acquire(timeout=10)
    now[0] += 21
    with pytest.raises(DriftguardError, match="nothing heard of it for 20 s"):
        attendance.safe_point(nothing)()


def test_a_stop_is_heard_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    safe_point = attended(tmp_path).safe_point(nothing)
    safe_point()
    (tmp_path / "stop").touch()
    with pytest.raises(DriftguardError, match=r"fleet demo on web1: expected a deploy that goes on; .* run it"):
        safe_point()


def test_a_directory_that_is_gone_is_silence_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_point = attended(tmp_path / "missing").safe_point(nothing)
    safe_point.tell("stopping", "extractor", "demo-extractor-1")
    safe_point()
    late = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: late)
    with pytest.raises(DriftguardError, match="nothing heard"):
        safe_point()


def test_a_module_that_nobody_attends_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_point = Attendance({"attendance": None}, SUBJECT).safe_point(nothing)
    late = time.monotonic() + 9000
    monkeypatch.setattr(time, "monotonic", lambda: late)
    safe_point()
    safe_point.tell("stopping", "extractor", "demo-extractor-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0, 4.9, -1, float("nan"), float("inf"), 10 ** 6])
def test_an_impossible_heartbeat_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(DriftguardError, match="option heartbeat"):
        attended(tmp_path, seconds)


def test_steps_are_appended_line_by_line_whoever_writes(tmp_path: Path) -> None:
    safe_point = attended(tmp_path).safe_point(nothing)
    threads = [
        threading.Thread(target=safe_point.tell, args=("healthy", f"w{number}", "x" * 90)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [parsed(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert sorted(step.service for step in steps if step) == sorted(f"w{number}" for number in range(40))


def test_what_stays_as_it_is_is_not_told_of(tmp_path: Path) -> None:
    tell = attended(tmp_path).safe_point(nothing).teller({container("a").id})
    tell("healthy", container("a"))
    assert not (tmp_path / "progress").exists()
    tell("healthy", container("b"))
    assert "healthy\textractor" in (tmp_path / "progress").read_text()


def test_what_dead_runs_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name, pid in {"dead": ended.pid, "alive": os.getppid()}.items():
        (tmp_path / f"attended-{name}").mkdir()
        (tmp_path / f"attended-{name}" / "pid").write_text(f"{pid}\n")
    for name in ("attended-own", "attended-starting", "attended-never-started", "attended-odd", "history"):
        (tmp_path / name).mkdir()
    (tmp_path / "attended-never-started" / "private").write_text("secrets\n")
    os.utime(tmp_path / "attended-never-started", (time.time() - 700, time.time() - 700))
    (tmp_path / "attended-odd" / "pid").write_text("../../etc\n")
    attended(tmp_path / "attended-own").safe_point(nothing)
    assert {path.name for path in tmp_path.iterdir()} == {
        "attended-own", "attended-alive", "attended-starting", "attended-odd", "history"}


# work that is under way when a rollout has to stop


def failing_from(call: int) -> Callable[[], None]:
    """What allows it until that call."""
    calls = iter(range(1, 10 ** 6))

    def check() -> None:
        if next(calls) >= call:
            raise DriftguardError("rollout", "a deploy that goes on", "a stop", "run it again")

    return check


def test_a_program_is_told_to_end_and_may_do_so_in_order(tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = f"trap 'echo orderly > {note}; exit 3' TERM; touch {note}.ready; while :; do sleep 0.1; done"
    ready = Path(f"{note}.ready")

    def check() -> None:
        if ready.exists():
            raise DriftguardError("rollout", "a deploy that goes on", "a stop", "run it again")

    with pytest.raises(DriftguardError, match="a stop"):
        processes.run(["/bin/sh", "-c", script], meanwhile=check)
    assert note.read_text() == "orderly\n"


def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ORDERLY_SECONDS", 0.2)
    before = set(processes._running)
    with pytest.raises(DriftguardError, match="a stop"):
        processes.run(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], meanwhile=failing_from(1))
    assert processes._running == before


@pytest.mark.parametrize("fed", [b"", b"x" * 300_000])
def test_what_is_fed_to_a_program_arrives_whatever_is_asked_meanwhile(
    monkeypatch: pytest.MonkeyPatch, fed: bytes,
) -> None:
    monkeypatch.setattr(processes, "MEANWHILE_SECONDS", 0.01)
    done = processes.run(["/bin/sh", "-c", "sleep 0.2; cat"], stdin=fed, meanwhile=nothing, timeout=60)
    assert done.stdout == fed.decode()


def test_a_time_limit_counts_whatever_is_asked_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MEANWHILE_SECONDS", 0.01)
    with pytest.raises(DriftguardError, match=r"an end within 0\.2 s"):
        processes.run(["sleep", "60"], timeout=0.2, meanwhile=nothing)


def test_all_work_is_done_and_the_first_failure_is_told() -> None:
    done: list[int] = []

    def piece(number: int) -> Callable[[], None]:
        def work() -> None:
            done.append(number)
            if number in (3, 5):
                raise DriftguardError("piece", "no failure", f"number {number}", "none")

        return work

    with pytest.raises(DriftguardError, match="number 3"):
        side_by_side.side_by_side([piece(number) for number in range(9)], 2, nothing)
    assert sorted(done) == list(range(9))
    side_by_side.side_by_side([], 2, nothing)


def test_work_that_hangs_is_left_and_nothing_more_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "POLL_SECONDS", 0.01)
    release, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        release.wait(60)

    with pytest.raises(DriftguardError, match="a stop"):
        side_by_side.side_by_side([hang] * 5, 2, failing_from(3))
    release.set()
    assert len(begun) <= 2


def test_work_that_breaks_off_is_not_taken_for_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: None)

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(DriftguardError, match="broke off"):
        side_by_side.side_by_side([broken], 1, nothing)

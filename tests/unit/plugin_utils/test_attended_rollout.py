# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side: looks as a shell runs them, connections that break, a host that says odd things."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_progress import Step
from ansible_collections.driftguard.workers.plugins.plugin_utils import attended_rollout
from ansible_collections.driftguard.workers.plugins.plugin_utils.attended_rollout import (
    AttendedRollout,
    RolloutLost,
    run_directory,
)
from ansible_collections.driftguard.workers.plugins.plugin_utils.lease_clock import LeaseClock
from ansible_collections.driftguard.workers.plugins.plugin_utils.rollout_looks import (
    LINES,
    look_command,
    parsed_look,
    stop_command,
)

JOB = "j123456.789"
LINE = "healthy\textractor\tdemo-1\t1.0\n"


def shell(command: str) -> str:
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False).stdout


class Place:
    """The directory of a run, with spaces and quotes in its name."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "it's a run"
        self.quoted = shlex.quote(str(self.path))
        self.path.mkdir()

    def running(self, pid: int | None = None) -> Place:
        (self.path / JOB).write_text('{"started": true, "finished": false, "ansible_job_id": "x"}')
        (self.path / "pid").write_text(f"{os.getpid() if pid is None else pid}\n")
        return self

    def ended(self) -> Place:
        (self.path / JOB).write_text('{"changed": true, "msg": "{\\"started\\": 1}"}')
        return self

    def progress(self, text: str) -> Place:
        (self.path / "progress").write_text(text)
        return self

    def look(self, line: int = 0, wait: float = 0.0, touch: bool = True) -> Any:
        look = parsed_look(shell(look_command(self.quoted, 7, line, wait, touch)))
        assert look is not None
        return look


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_look_says_how_far_it_is_and_keeps_it_going(place: Place) -> None:
    assert place.look(touch=False).state == "starting"
    assert not (place.path / "beat").exists()
    look = place.running().progress(LINE * 2).look()
    assert (look.state, look.job, look.lines) == ("running", JOB, [LINE.strip()] * 2)
    assert (place.path / "beat").read_text() == "7\n"
    assert place.look(line=2).lines == []
    (place.path / f"{JOB}.tmp").write_text("{}")
    assert place.ended().look(line=1, wait=60).lines == [LINE.strip()]
    assert (place.look().state, place.look().job) == ("ended", JOB)


def test_a_process_that_is_no_more_is_noticed(place: Place) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert place.running(gone.pid).look(wait=60).state == "dead"


def test_a_directory_that_is_not_there_is_not_made_by_a_look(tmp_path: Path) -> None:
    look = parsed_look(shell(look_command(str(tmp_path / "missing"), 1, 0, 60)))
    assert look is not None
    assert look.state == "gone"
    assert list(tmp_path.iterdir()) == []


def test_a_look_waits_for_news_and_no_longer(place: Place) -> None:
    command = look_command(place.running().quoted, 1, 0, 60)
    process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True)
    place.progress(LINE)
    assert LINE in process.communicate(timeout=60)[0]


def test_what_a_host_sends_at_once_is_bounded(place: Place) -> None:
    place.running().progress((LINE * 5000) + "x" * 100_000)
    output = shell(look_command(place.quoted, 1, 0, 0))
    assert len(output) < LINES * 301
    assert len(place.look().lines) == LINES


def test_a_stop_reaches_a_run_that_has_no_directory_yet(place: Place) -> None:
    place.path.rmdir()
    shell(stop_command(place.quoted))
    assert (place.path / "stop").exists()
    assert place.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("output", ["", "sudo: a password is required\n", "driftguard-look\n", "driftguard-look x\n"])
def test_what_is_no_answer_is_none(output: str) -> None:
    assert parsed_look(output) is None


@pytest.mark.parametrize("job", ["../../etc/passwd", "j1", "j1.2;rm", "-rf"])
def test_a_job_file_has_a_plain_name(job: str) -> None:
    look = parsed_look(f"banner\ndriftguard-look ended {job}\n")
    assert look is not None
    assert look.job == ""


# a whole rollout


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(attended_rollout, "time", made)
    return made


class Told:
    """A host that answers as it is told; each answer takes a second."""

    def __init__(self, clock: Clock, answers: Iterator[str | None], keep: Callable[[], bool] = lambda: True) -> None:
        self.commands: list[str] = []
        self.steps: list[Step] = []
        self.touched: list[float] = []
        self._clock = clock
        self._answers = answers
        self.rollout = AttendedRollout("/run dir", 20.0, self._command, self.steps.append, keep)

    def _command(self, command: str) -> str:
        self.commands.append(command)
        self._clock.now += 1
        if "> beat" in command:
            self.touched.append(self._clock.now)
        answer = next(self._answers)
        if answer is None:
            raise AnsibleConnectionFailure("broken")
        return answer


def look(state: str, *lines: str) -> str:
    return f"driftguard-look {state} {JOB}\n" + "".join(lines)


def test_steps_are_shown_once_and_in_order(clock: Clock) -> None:
    second = LINE.replace("healthy", "verified")
    host = Told(clock, iter([look("running", LINE), look("running"), look("ended", second, "nonsense\n")]))
    assert host.rollout.await_end() == JOB
    assert [step.event for step in host.steps] == ["healthy", "verified"]


def test_a_host_that_tells_no_end_of_steps_is_cut_off(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attended_rollout, "MAX_STEPS", 5)
    host = Told(clock, iter([look("running", LINE * 4), look("running", LINE * 4), look("ended")]))
    host.rollout.await_end()
    assert len(host.steps) == 5


def test_a_connection_that_breaks_for_a_while_is_borne(clock: Clock) -> None:
    broken: list[str | None] = [None] * 8
    host = Told(clock, iter([look("running"), *broken, look("running"), *broken, look("running"), look("ended")]))
    assert host.rollout.await_end() == JOB


def test_a_host_that_stays_away_is_given_up_when_its_rollout_has_certainly_stopped(clock: Clock) -> None:
    """A look that fails may have reached the host all the same, so the first one counts as heard."""
    host = Told(clock, iter([look("running"), *[None] * 100]))
    with pytest.raises(RolloutLost):
        host.rollout.await_end()
    assert clock.now - host.touched[-1] > 20 + 5
    assert len(host.touched) == 2


def test_an_answer_that_is_none_counts_as_a_broken_connection(clock: Clock) -> None:
    host = Told(clock, iter(["sudo: no\n"] * 100))
    with pytest.raises(RolloutLost):
        host.rollout.await_end()


def test_a_rollout_that_may_not_go_on_is_stopped_and_awaited(clock: Clock) -> None:
    host = Told(clock, iter([look("running"), "", look("running"), look("ended")]), iter([True, False]).__next__)
    assert host.rollout.await_end() == JOB
    assert "/stop" in host.commands[1]
    assert not any("> beat" in command for command in host.commands[1:])


@pytest.mark.parametrize(("state", "said"), [
    ("dead", "as if it was killed"), ("gone", "its directory is gone"), ("starting", "hasn't started")])
def test_a_rollout_that_leaves_no_result_is_not_awaited_for_ever(clock: Clock, state: str, said: str) -> None:
    host = Told(clock, iter([look(state)] * 1000))
    with pytest.raises(DriftguardError, match=said):
        host.rollout.await_end()
    assert "/stop" in host.commands[-1]


def test_a_result_that_comes_after_the_end_of_its_process_is_taken(clock: Clock) -> None:
    host = Told(clock, iter([look("dead"), look("dead"), look("ended")]))
    assert host.rollout.await_end() == JOB


def test_a_start_of_which_nobody_knows_is_stopped_for_certain(clock: Clock) -> None:
    Told(clock, iter([None, None, ""])).rollout.stop_for_certain()
    began = clock.now
    Told(clock, iter([None] * 100)).rollout.stop_for_certain()
    assert clock.now - began > 25


@pytest.mark.parametrize(("root", "directory"), [
    ("/opt/driftguard", "/opt/driftguard/demo/state/attended-x"),
    ("/opt/driftguard/", "/opt/driftguard/demo/state/attended-x"),
    ("~/fleets", None), ("relative", None), ("", None), (None, None),
])
def test_where_a_run_has_its_files(root: Any, directory: str | None) -> None:
    assert run_directory({"root": root, "fleet": "demo"}, "x") == directory


def test_a_lease_is_renewed_every_third_of_its_time() -> None:
    clock = LeaseClock(90, 1000)
    assert clock.is_due(1000)
    clock.renewed(1000)
    assert [clock.is_due(now) for now in (1029, 1030)] == [False, True]


def test_a_lease_that_cannot_be_renewed_lasts_its_time() -> None:
    clock = LeaseClock(90, 1000)
    clock.renewed(1000)
    tries = 0
    for now in range(1000, 1090):
        assert not clock.is_over(now)
        if clock.is_due(now):
            tries += 1
            clock.failed(now)
    assert clock.is_over(1090)
    assert tries == 4
    clock.renewed(1090)
    assert not clock.is_over(1179)

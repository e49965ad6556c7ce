# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up runs what is due and nothing else; programs end when they are told to."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from tools import processes, steps
from tools.processes import OUT_OF_TIME, end_of, output_of, run_logged, side_by_side, started
from tools.steps import Step, digest, run_steps

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stamps and logs in a directory of the test's own."""
    monkeypatch.setattr(steps, "STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(steps, "LOGS", tmp_path / "logs")
    return tmp_path


class Recorded:
    """A step that counts its runs."""

    def __init__(self, fails: bool = False) -> None:
        self.inputs = "1"
        self.present = True
        self.runs = 0
        self.fails = fails

    def action(self, log: IO[bytes]) -> None:
        """Count, write, and fail if told to."""
        self.runs += 1
        log.write(b"first\nlast words\n")
        if self.fails:
            raise DriftguardError("a", "b", "c", "d")

    @property
    def step(self) -> Step:
        """The step."""
        return Step("one", "One thing", lambda: self.inputs, lambda: self.present, self.action)


def test_a_step_runs_once(places: Path) -> None:
    recorded = Recorded()
    run_steps([recorded.step])
    run_steps([recorded.step])
    assert recorded.runs == 1


def test_it_runs_again_when_its_inputs_changed_or_its_result_is_gone(places: Path) -> None:
    recorded = Recorded()
    run_steps([recorded.step])
    recorded.inputs = "2"
    run_steps([recorded.step])
    recorded.present = False
    run_steps([recorded.step])
    assert recorded.runs == 3


def test_without_inputs_only_presence_counts(places: Path) -> None:
    recorded = Recorded()
    recorded.inputs = ""
    run_steps([recorded.step])
    assert recorded.runs == 0
    recorded.present = False
    run_steps([recorded.step])
    assert recorded.runs == 1


def test_it_is_silent_when_nothing_is_due(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_steps([Recorded().step])
    assert "One thing … " in capsys.readouterr().out
    run_steps([Recorded().step])
    assert capsys.readouterr().out == ""


def test_a_failure_shows_its_log_and_is_tried_again(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = Recorded(fails=True)
    for _attempt in range(2):
        with pytest.raises(DriftguardError):
            run_steps([recorded.step])
    assert recorded.runs == 2
    assert "    | last words\n" in capsys.readouterr().out


def test_later_steps_wait_for_a_failed_one(places: Path) -> None:
    later = Recorded()
    with pytest.raises(DriftguardError):
        run_steps([Recorded(fails=True).step, Step("two", "Two", lambda: "", lambda: False, later.action)])
    assert later.runs == 0


def test_the_digest_follows_names_contents_and_absence(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    seen = {digest([tmp_path / "d"])}
    for name, content in (("a", "1"), ("a", "2"), ("b", "2")):
        (tmp_path / "d" / name).write_text(content)
        seen.add(digest([tmp_path / "d"]))
    seen |= {digest([tmp_path / "gone"]), digest([]), digest([], "x")}
    assert len(seen) == 6  # an empty directory is nothing


def test_a_program_out_of_time_is_ended(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        before = time.monotonic()
        assert run_logged(SLEEP, log, timeout=0.3) == OUT_OF_TIME
    assert time.monotonic() - before < 10
    assert "stopped after 0.3 s" in (tmp_path / "log").read_text()


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        f"import subprocess, time; p = subprocess.Popen({SLEEP!r})\n"
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)")
    with (tmp_path / "log").open("wb") as log, started([sys.executable, "-c", code], log):
        deadline = time.monotonic() + 20
        while not (child.exists() and child.read_text()):
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    # It is told to end at once; how soon a busy machine lets it is another matter.
    deadline = time.monotonic() + 20
    while _runs(int(child.read_text())):
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_that_is_missing_is_a_failure_with_a_remedy(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, pytest.raises(DriftguardError) as caught:
        run_logged(["no-such-program"], log)
    assert "no-such-program" in str(caught.value)


def test_a_name_that_means_nothing_is_refused() -> None:
    steps.require_known("stage", ["a"], ["a", "b"])
    with pytest.raises(DriftguardError, match="one of a, b; found c"):
        steps.require_known("stage", ["a", "c"], ["a", "b"])


def test_questions_without_an_answer() -> None:
    assert output_of(["no-such-program"]) is None
    assert output_of([sys.executable, "-c", "import sys; print('x'); sys.exit(3)"]) is None
    assert output_of(SLEEP, timeout=0.2) is None
    assert output_of([sys.executable, "-c", "print('yes')"]) == "yes"


def test_jobs_run_side_by_side_and_keep_their_order() -> None:
    barrier = threading.Barrier(2, timeout=20)

    def job(name: str) -> str:
        barrier.wait()
        return name

    assert side_by_side([lambda: job("a"), lambda: job("b")], 2) == ["a", "b"]


def test_a_failed_job_stops_the_others_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(processes, "STOPPING", threading.Event())
    running = threading.Event()

    def waits() -> object:
        with log.open("wb") as stream, started(SLEEP, stream) as process:
            running.set()
            return end_of(process, 60)

    def fails() -> object:
        assert running.wait(20)
        raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side([fails, waits], 2)
    assert time.monotonic() - before < 15


def test_termination_unwinds_like_an_interrupt() -> None:
    def terminated() -> None:
        with processes.termination_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        terminated()


def test_a_second_termination_does_not_cut_the_clean_up_short() -> None:
    cleaned = []

    def terminated_twice() -> None:
        with processes.termination_as_interrupt():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        terminated_twice()
    assert cleaned

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stage of make test, from its command to its counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import stages, test_runner
from tools.junit import Case
from tools.paths import ROOT
from tools.stages import Stage
from tools.steps import TAIL_LINES
from tools.summary import Outcome

REPORT = "import sys; from tools import junit; from pathlib import Path; junit.write(Path(sys.argv[1]), 's', [{}]); {}"
PASSED = "junit.Case('a', 'passed')"
FAILED = "junit.Case('b', 'failed', 0.0, 'why')"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs and molecule's state in a directory of the test's own."""
    monkeypatch.setattr(test_runner, "LOGS", tmp_path)
    monkeypatch.setattr(stages, "MOLECULE_STATE", tmp_path / "state")
    return tmp_path


def outcomes(code: str, counted: str = "", time_limit: float = 30.0) -> list[tuple[str, str]]:
    """Name and outcome of each case of a stage that runs some Python."""
    stage = Stage("s", (sys.executable, "-c", code, "{results}"), time_limit, counted=counted)
    return [(case.name.rpartition("::")[2], case.outcome) for case in test_runner.run(stage).cases]


def test_what_it_reports_is_counted() -> None:
    assert outcomes(REPORT.format(f"{PASSED}, {FAILED}", "sys.exit(1)")) == [("a", "passed"), ("b", "failed")]
    assert outcomes(REPORT.format(PASSED, "")) == [("a", "passed")]


def test_a_bad_exit_status_is_never_lost() -> None:
    assert outcomes(REPORT.format(PASSED, "sys.exit(3)")) == [("a", "passed"), ("exit status", "failed")]
    assert outcomes("import sys; sys.exit(5)") == [("exit status", "failed")]


def test_a_stage_without_a_test_has_failed() -> None:
    assert outcomes("pass") == [("s", "failed")]


def test_a_stage_out_of_time_has_failed() -> None:
    assert outcomes("import time; time.sleep(60)", time_limit=0.5) == [("exit status", "failed")]


def test_an_exit_status_may_be_a_test() -> None:
    assert outcomes(REPORT.format(PASSED, ""), counted="all of it") == [("a", "passed"), ("all of it", "passed")]


def test_a_report_of_an_earlier_run_does_not_count(place: Path) -> None:
    outcomes(REPORT.format(PASSED, ""))
    assert (place / "test-s.xml").exists()
    assert outcomes("pass") == [("s", "failed")]


def test_the_first_error_of_ansible_is_shown_rather_than_the_cleaning_up(place: Path) -> None:
    log = place / "x.log"
    log.write_text("\n".join(["ok"] * 50 + ["[ERROR]: this is why"] + ["cleaning up"] * 50))
    assert test_runner._telling(log)[0] == "[ERROR]: this is why"
    log.write_text("\n".join(str(number) for number in range(100)))
    assert test_runner._telling(log) == [str(number) for number in range(100 - TAIL_LINES, 100)]


def test_every_stage_is_in_one_lane() -> None:
    lanes = [name for group in stages.GROUPS for lane in group for name in lane]
    assert sorted(lanes) == sorted(stages.STAGES)


def test_what_make_test_leaves_out_make_test_long_has() -> None:
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "DRIFTGUARD_LAB_POINTS=" in line)
    named = line.partition("$(RUN_STAGES)")[2].split()
    assert sorted(named) == sorted(name for name, stage in stages.STAGES.items() if stage.on_request)


def test_the_model_goes_deep_in_a_stage_of_its_own(place: Path) -> None:
    examples = {
        name: stages.prepared(stages.STAGES[name], place)[1].get("DRIFTGUARD_MODEL_EXAMPLES")
        for name in ("model", "deep")}
    assert examples == {"model": None, "deep": "5000"}


def test_a_failed_stage_does_not_keep_later_ones_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        name: Stage(name, (sys.executable, "-c", REPORT.format(case, ""), "{results}"), 30.0)
        for name, case in (("first", FAILED), ("second", PASSED))}
    monkeypatch.setattr(test_runner, "STAGES", made)
    monkeypatch.setattr(test_runner, "GROUPS", ((("first",),), (("second",),)))
    done: list[Outcome] = []
    test_runner._run_groups(["first", "second"], done)
    assert [(outcome.name, outcome.count("passed"), outcome.count("failed")) for outcome in done] == [
        ("first", 0, 1), ("second", 1, 0)]
    assert all(isinstance(case, Case) for outcome in done for case in outcome.cases)


def test_a_run_that_is_stopped_says_what_had_failed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(_wanted: object, ended: list[Outcome]) -> None:
        ended.append(Outcome("s", [Case("b", "failed", 0.0, "why it failed")], 1.0, place / "x.log"))
        raise KeyboardInterrupt

    monkeypatch.setattr(test_runner, "_run_groups", stopped)
    monkeypatch.setattr(test_runner, "STAGES", {"s": Stage("s", (), 1.0)})
    monkeypatch.setattr(sys, "argv", ["run", "s"])
    assert test_runner.main() == test_runner.INTERRUPTED
    assert "why it failed" in capsys.readouterr().out

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a stage, and the one summary of all."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from tools import junit
from tools.junit import Case
from tools.summary import MOST_FAILURES, Outcome, failures, table

REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="a.b" name="good" time="0.5"/>
<testcase classname="a.b" name="bad"><failure message="short">long
text</failure></testcase>
<testcase classname="a.b" name="broken"><error message="no fixture"/></testcase>
<testcase classname="a.b" name="left_out"><skipped type="pytest.skip" message="later"/></testcase>
<testcase classname="a.b" name="expected"><skipped type="pytest.xfail" message="known"/></testcase>
<testcase classname="a.b" name="absent"><skipped message="not on this machine: python3.8"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, Case]:
    """The cases of the report by name."""
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    return {case.name.rpartition("::")[2]: case for case in junit.read(path)}


def test_outcomes_are_read(cases: dict[str, Case]) -> None:
    assert {name: case.outcome for name, case in cases.items()} == {
        "good": "passed", "bad": "failed", "broken": "failed", "left_out": "failed", "expected": "failed",
        "absent": "skipped"}


def test_messages_are_kept(cases: dict[str, Case]) -> None:
    assert cases["bad"].message == "long\ntext"
    assert cases["broken"].message == "no fixture"
    assert cases["left_out"].message == "skipped, which proves nothing: later"
    assert cases["absent"].message == "not on this machine: python3.8"


def test_a_report_that_was_never_written_has_no_case(tmp_path: Path) -> None:
    assert junit.read(tmp_path / "none.xml") == []


def test_a_damaged_report_is_a_failure_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text("<testsuites><testcase")
    with pytest.raises(DriftguardError) as caught:
        junit.read(path)
    assert caught.value.remedy


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = [
        Case("x", "passed", 1.5), Case("y", "failed", 0.0, "bad \x1b[31mcolour"),
        Case("z", "skipped", 0.0, junit.ALLOWED_SKIP)]
    junit.write(tmp_path / "a" / "report.xml", "lint", written)
    read = junit.read(tmp_path / "a" / "report.xml")
    assert [(case.name, case.outcome, case.seconds) for case in read] == [
        ("lint::x", "passed", 1.5), ("lint::y", "failed", 0.0), ("lint::z", "skipped", 0.0)]
    assert read[1].message == "bad ?[31mcolour"


def outcome(name: str, passed: int = 0, failed: int = 0, skipped: int = 0) -> Outcome:
    """A stage with so many cases."""
    counts = {"passed": passed, "failed": failed, "skipped": skipped}
    cases = [
        Case(f"{kind}{number}", kind, 0.0, f"why {kind}") for kind, count in counts.items() for number in range(count)]
    return Outcome(name, cases, 2.0, Path("/log"))


def test_the_last_line_has_the_totals() -> None:
    assert list(table([outcome("a", 3), outcome("b", 2, 1)], 9.0))[-1] == "5 passed, 1 failed"
    assert list(table([outcome("a", 3, 0, 2)], 9.0))[-1] == "3 passed, 0 failed, 2 skipped"


def test_the_table_has_a_row_for_each_stage_and_one_for_all() -> None:
    rows = [line.split() for line in table([outcome("a", 3), outcome("b", 2, 1, 4)], 3.5)]
    assert rows[1:4] == [["a", "3", "0", "0", "2.0"], ["b", "2", "1", "4", "2.0"], ["all", "5", "1", "4", "3.5"]]


def test_failures_are_told_with_what_they_said_and_skips_with_their_reason() -> None:
    told = list(failures([outcome("a", 1, 1, 1)]))
    assert told == ["SKIPPED a skipped0: why skipped", "\nFAILED a failed0", "    | why failed", "(whole log: /log)"]


def test_a_flood_of_failures_is_cut() -> None:
    told = list(failures([outcome("a", 0, MOST_FAILURES + 5)]))
    assert sum(line.startswith("\nFAILED") for line in told) == MOST_FAILURES
    assert told[-1] == "(and 5 more; whole log: /log)"

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads after ``make test``: the failures, a table of the stages, and one line with the totals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

from .junit import Case
from .paths import shown

MOST_FAILURES = 25
MOST_LINES = 30


@dataclass(frozen=True)
class Outcome:
    """How a stage went: its tests, wall-clock seconds and log."""

    name: str
    cases: Sequence[Case]
    seconds: float
    log: Path

    def count(self, outcome: str) -> int:
        """How many tests ended in one way (``passed``, ``failed``, ``skipped``)."""
        return sum(case.outcome == outcome for case in self.cases)


def failures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lines on each test that did not pass: skipped ones with the reason, failed ones with their last lines."""
    for outcome in outcomes:
        for case in outcome.cases:
            if case.outcome == "skipped":
                yield f"SKIPPED {outcome.name} {case.name}: {case.message}"
        failed = [case for case in outcome.cases if case.outcome == "failed"]
        for case in failed[:MOST_FAILURES]:
            yield f"\nFAILED {outcome.name} {case.name}"
            yield from (f"    | {line}" for line in case.message.splitlines()[-MOST_LINES:])
        if failed:
            more = f"and {len(failed) - MOST_FAILURES} more; " if len(failed) > MOST_FAILURES else ""
            yield f"({more}whole log: {shown(outcome.log)})"


def table(outcomes: Sequence[Outcome], seconds: float) -> Iterator[str]:
    """The table, and at its end a line with the totals.

    :param seconds: wall-clock time of the whole run; less than the stages' sum when some ran side by side.
    """
    yield f"{'stage':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>10}"
    for outcome in outcomes:
        yield _row(outcome.name, *_counts([outcome]), outcome.seconds)
    passed, failed, skipped = _counts(outcomes)
    yield _row("all", passed, failed, skipped, seconds)
    yield ""
    yield f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def _counts(outcomes: Sequence[Outcome]) -> tuple[int, int, int]:
    passed, failed, skipped = (
        sum(outcome.count(kind) for outcome in outcomes) for kind in ("passed", "failed", "skipped"))
    return passed, failed, skipped


def _row(name: str, passed: int, failed: int, skipped: int, seconds: float) -> str:
    return f"{name:<14}{passed:>8}{failed:>8}{skipped:>9}{seconds:>10.1f}"

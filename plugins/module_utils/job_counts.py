# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many jobs a worker finished, from its metrics in Prometheus' text form; and the judgement of a rate. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import Optional

from .names import JOBS_DONE, JOBS_FAILED, METRIC_JOBS
from .untrusted import MAX_NUMBER

_SERIES = re.compile(
    rf"^{METRIC_JOBS}\{{([^\n]*)\}}[ \t]+([0-9.eE+]{{1,24}})(?:[ \t]+-?\d{{1,18}})?[ \t\r]*$", re.MULTILINE)
_KNOWN = re.compile(rf"^(?:# (?:TYPE|HELP) )?{METRIC_JOBS}(?:[ {{]|$)", re.MULTILINE)
_OUTCOME = re.compile(r'(?:^|,)[ \t]*outcome="([a-z]{1,20})"')


@dataclass(frozen=True)
class Counts:
    """Jobs that ended: well, and otherwise (an attempt that failed counts, also when the job is tried again)."""

    done: int = 0
    failed: int = 0

    @property
    def jobs(self) -> int:
        """Both."""
        return self.done + self.failed

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.done + other.done, self.failed + other.failed)

    def since(self, before: Counts) -> Counts:
        """What came since an earlier look; a counter that went back began anew with its worker."""
        if self.done < before.done or self.failed < before.failed:
            return self
        return Counts(self.done - before.done, self.failed - before.failed)


def read_counts(text: str) -> Optional[Counts]:
    """The counts in a worker's metrics, None when they don't have any.

    :param text: untrusted, of bounded length.
    """
    if not _KNOWN.search(text):
        return None
    found = dict.fromkeys((*JOBS_DONE, *JOBS_FAILED), 0)
    for labels, value in _SERIES.findall(text):
        outcome = _OUTCOME.search(labels)
        if outcome is None or outcome[1] not in found:
            continue
        number = _number(value)
        if number is None:
            return None
        found[outcome[1]] += number
    return Counts(sum(found[name] for name in JOBS_DONE), sum(found[name] for name in JOBS_FAILED))


def _number(value: str) -> Optional[int]:
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if isfinite(number) and 0 <= number <= MAX_NUMBER else None


@dataclass
class Tally:
    """What each instance finished since it was first looked at.

    :param silent: names of instances that gave no counts at the last look.
    """

    total: dict[str, Counts] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    _last: dict[str, Counts] = field(default_factory=dict)

    def take(self, name: str, text: Optional[str]) -> None:
        """Take in an instance's metrics; None when it didn't answer."""
        counts = None if text is None else read_counts(text)
        if counts is None:
            self.silent.add(name)
            return
        self.silent.discard(name)
        self.total[name] = self.total.get(name, Counts()) + counts.since(self._last.get(name, counts))
        self._last[name] = counts

    @property
    def sum(self) -> Counts:
        """Of all instances."""
        return sum(self.total.values(), Counts())


def unjudged(counts: Counts, instances: int, most: Optional[float], least: int) -> str:
    """Why the rate of failed jobs isn't judged, empty when it can be.

    :param instances: how many gave counts.
    :param most: highest rate that is fine, None when nobody asked.
    :param least: jobs that a judgement takes.
    """
    if most is None:
        return "no rate was asked for"
    if not instances:
        return "no instance has metrics of its jobs"
    return f"{counts.jobs} jobs ended, fewer than {least}" if counts.jobs < least else ""

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bakes a rollout: watches instances that are healthy and stable for longer, and judges their restarts and jobs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from . import metrics_gateway
from .bake_limits import Limits
from .errors import DriftguardError
from .job_counts import Counts, Tally, unjudged
from .module_base import FailedResult
from .names import HEALTH_PORT
from .rollout_wait import Failure, Watch
from .untrusted import clean

POLL_SECONDS = 0.25
ASK_SECONDS = 5.0
SHOWN = 5
ROUNDING = 1e-6  # 0.29 * 100 is less than 29


class Bake:
    """One host's bake.

    :param watch: what its instances were waited for with; they are healthy and stable.
    :param subject: fleet and host, for messages.

    ``values`` is the documented return value, as far as it has come.
    """

    def __init__(self, watch: Watch, limits: Limits, subject: str) -> None:
        self._watch = watch
        self._limits = limits
        self._subject = subject
        self._tally = Tally()
        self._begun = time.monotonic()
        self.values: dict[str, Any] = {}

    def run(self) -> None:
        """Watch for the whole time, then judge.

        :raises FailedResult: an instance failed or was restarted too often, or too many jobs failed.
        """
        self._watch.forgives, self._watch.restarts = self._limits.max_restarts, 0
        self._begun, asked = time.monotonic(), float("-inf")
        try:
            while self._since(self._begun) < self._limits.seconds:
                self._expect_none(self._watch.look())
                if self._since(asked) >= ASK_SECONDS:
                    asked = time.monotonic()
                    self._ask()
                time.sleep(POLL_SECONDS)  # neither the engine nor a worker's metrics tell of a change by themselves
            self._expect_none(self._watch.look())
            self._ask()
            # Who was restarted, and forgiven, has to stand again.
            self._expect_none(self._watch.wait())
        finally:
            self._watch.forgives = 0
            self.values = self._report()
        self._judge()

    @staticmethod
    def _since(moment: float) -> float:
        return time.monotonic() - moment

    def _ask(self) -> None:
        # A worker that is being restarted isn't one without metrics.
        places = {one.name: one.addresses for one in self._watch.seen if one.addresses}
        answers = metrics_gateway.fetch_all(places, HEALTH_PORT, "/metrics")
        for container in self._watch.seen:
            self._tally.take(container.name, answers.get(container.name))

    def _expect_none(self, failures: list[Failure]) -> None:
        if failures:
            first = failures[0]
            said = f"; it said: {' | '.join(first.log[-SHOWN:])}" if first.log else ""
            raise FailedResult(
                DriftguardError(
                    f"{self._subject}, service {first.service}, container {first.container}",
                    f"healthy and at most {self._limits.max_restarts} restarts on this host while it is watched for "
                    f"{self._limits.seconds:g} s",
                    f"{first.reason} after {self._since(self._begun):.0f} s{said}",
                    "mend the worker; the log lines are in 'failures' and in the run's evidence"),
                {"failures": [asdict(failure) for failure in failures]})

    def _report(self) -> dict[str, Any]:
        counts, silent = self._tally.sum, sorted(set(self._tally.silent) - set(self._tally.total))
        why = unjudged(counts, len(self._tally.total), self._limits.max_failed_jobs, self._limits.min_jobs)
        return {
            "seconds": round(self._since(self._begun), 3), "instances": len(self._watch.seen),
            "restarts": self._watch.restarts, "jobs": counts.jobs, "failed": counts.failed, "judged": not why,
            "not_judged": why, "without_metrics": silent,
        }

    def _judge(self) -> None:
        """:raises DriftguardError: too many of the jobs failed."""
        counts, most = self._tally.sum, self._limits.max_failed_jobs
        if most is None or not self.values["judged"] or counts.failed <= most * counts.jobs + ROUNDING:
            return
        worst = sorted(self._tally.total.items(), key=lambda item: -item[1].failed)
        raise DriftguardError(
            f"{self._subject}, jobs of the release",
            f"at most {most:.1%} failed within {self._limits.seconds:g} s",
            f"{counts.failed} of {counts.jobs} failed ({counts.failed / counts.jobs:.1%}): {_each(worst)}",
            "read these workers' logs and the queues' failed jobs; mend the release, or raise max_failed_jobs")


def _each(worst: list[tuple[str, Counts]]) -> str:
    return ", ".join(f"{clean(name)} {one.failed} of {one.jobs}" for name, one in worst[:SHOWN] if one.failed)

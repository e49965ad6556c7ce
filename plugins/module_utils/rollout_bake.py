# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bakes a rollout: watches instances that are healthy and stable for longer, and judges their restarts and jobs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Mapping, Optional

from . import metrics_gateway
from .errors import DriftguardError
from .job_counts import Counts, Tally, unjudged
from .module_base import FailedResult
from .names import HEALTH_PORT
from .rollout_wait import Failure, Watch
from .untrusted import MAX_NUMBER, check_seconds, clean

POLL_SECONDS = 0.25
ASK_SECONDS = 5.0
SHOWN = 5
ROUNDING = 1e-6  # 0.29 * 100 is less than 29


@dataclass(frozen=True)
class Limits:
    """What is asked of instances while they bake.

    :param seconds: how long; 0 for not at all.
    :param max_restarts: restarts of all instances of the host together that are fine.
    :param max_failed_jobs: highest rate of failed jobs that is fine, None for any.
    :param min_jobs: jobs that have to end before the rate is judged.
    """

    seconds: float = 0.0
    max_restarts: int = 0
    max_failed_jobs: Optional[float] = None
    min_jobs: int = 20

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Limits:
        """From the module's options.

        :raises DriftguardError: one is out of its range, or a rate is asked for and no time to see one.
        """
        limits = cls(
            check_seconds("bake", options["bake"]), options["max_restarts"], options["max_failed_jobs"],
            options["min_jobs"])
        for name, least in (("max_restarts", 0), ("min_jobs", 1)):
            value = getattr(limits, name)
            if not least <= value <= MAX_NUMBER:
                raise DriftguardError(f"option {name}", f"a whole number from {least}", str(value), f"mend {name}")
        rate = limits.max_failed_jobs
        if rate is not None and not 0 <= rate <= 1:
            raise DriftguardError(
                "option max_failed_jobs", "a rate from 0 to 1, such as 0.05 for 5 %", f"{rate:g}", "mend the rate")
        if rate is not None and not limits.seconds:
            raise DriftguardError(
                "option max_failed_jobs", "a bake time in which jobs can be counted", "bake is 0",
                "set bake (worker_canary.bake) to the seconds in which enough jobs end, or drop max_failed_jobs")
        return limits


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

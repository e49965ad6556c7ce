# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of instances while they bake, as options say it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional

from .errors import DriftguardError
from .untrusted import MAX_NUMBER, check_seconds

LIMITS_SPEC: dict[str, Any] = {
    "bake": {"type": "float", "default": 0.0},
    "max_restarts": {"type": "int", "default": 0},
    "max_failed_jobs": {"type": "float"},
    "min_jobs": {"type": "int", "default": 20},
}


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

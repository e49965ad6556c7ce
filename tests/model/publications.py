# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was published when, written down where Redis takes it: no worker and no module has a part in it."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.redis_scripts import PUBLISH
from model.engine import Clock

__all__ = ["Publications", "Silence"]

Allowed = Optional[frozenset[str]]  # None where there is no record: then nothing is forbidden


@dataclass(frozen=True)
class Silence:
    """A time in which workers of a host didn't reach Redis."""

    host: str
    begin: float
    end: float


@dataclass
class Publications:
    """The moments from which releases alone may start jobs, and those in which workers can't know.

    :param silences: of hosts, in any order.
    """

    clock: Clock
    silences: list[Silence] = field(default_factory=list)
    _moments: list[float] = field(default_factory=list)
    _allowed: list[Allowed] = field(default_factory=list)

    def asked(self, script: str, arguments: Sequence[Any], answer: Any) -> bool:
        """A script ran in Redis; whether it published.

        What is settled allows its target alone, whatever else the record lists.
        """
        if script != PUBLISH or answer[0] != "published":
            return False
        record = json.loads(arguments[1])
        allowed = [record["target"]] if record["phase"] == "settled" else record["allowed"]
        self.note(frozenset(release["releaseId"] for release in allowed))
        return True

    def note(self, allowed: Allowed) -> None:
        """This holds from now on."""
        self._moments.append(self.clock.now)
        self._allowed.append(allowed)

    def all_hear(self) -> None:
        """Every worker reaches Redis from now on."""
        self.silences = [replace(one, end=min(one.end, self.clock.now)) for one in self.silences]

    def flaw(self, at: float, release: str, host: str) -> str:
        """What is wrong with a job that a worker of a release started on a host; empty for nothing."""
        known = bisect_left(self._moments, at)
        allowed = self._allowed[known - 1] if known else None
        if allowed is not None and release not in allowed:
            return f"{sorted(allowed)} had been published {at - self._moments[known - 1]:g} s before"
        if any(one.host == host and one.begin < at < one.end for one in self.silences):
            return "it couldn't ask Redis"
        return ""

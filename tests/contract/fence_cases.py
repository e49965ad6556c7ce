# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence of files/guard/contract.json as test cases, for every side that decides by it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from contract.guard_cases import CONTRACT, FIXTURES, render_json

FENCE: dict[str, Any] = CONTRACT["fence"]
RUNNING_STATES = {"run": "running", "hold": "running", "wait": "starting", "park": "fenced"}


@dataclass(frozen=True)
class Decision:
    """One row of the decision table.

    :param before: starting, running or fenced. :param host: of its record: not mounted, allowed, not allowed, missing,
        unreadable. :param fleet: of its record: likewise, and unreachable. :param then: run, park, wait or hold.
    """

    before: str
    host: str
    fleet: str
    then: str
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.before}, host {self.host}, fleet {self.fleet}"

    @property
    def registered(self) -> str:
        """The state that the registration says in the end."""
        return RUNNING_STATES[self.then]


DECISIONS = [
    Decision(before, host, fleet, then, tuple(problems)) for before, host, fleet, then, problems in FENCE["decisions"]]
NEW, OLD = "settled on new", "settled on old"
# What a record holds so that an instance of the new release finds it so; None: there is no such file or key.
RECORDS: dict[str, str | None] = {
    "allowed": render_json(FIXTURES["records"][NEW]),
    "not allowed": render_json(FIXTURES["records"][OLD]),
    "missing": None,
    "unreadable": "{",
}
ROLLING = render_json(FIXTURES["records"]["rolling from old to new"])
# Records that nobody can read, each in another way.
UNREADABLE: dict[str, str] = {
    "empty": "",
    "not JSON": "{",
    "another form": '{"allowed": []}',
    "of another fleet": render_json({**FIXTURES["records"][NEW], "fleet": "sibling"}),
    "too long": render_json(FIXTURES["records"][NEW]) + " " * 65536,
    "just too long": render_json(FIXTURES["records"][NEW]).ljust(65537),
    "deeply nested": "[" * 60000,
    "a key twice": json.dumps(FIXTURES["records"][NEW])[:-1] + ', "schema": 1}',
    "bytes": "\udcff",
}

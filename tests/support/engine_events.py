# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine did with a fleet's containers, in order."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import docker

from .fleet import Fleet, wait_for

__all__ = ["Recording"]


class Recording:
    """The engine's events of a project's containers between entering and leaving, as they come.

    An engine remembers its last 256 events only, and others work on it too.

    ``events``: action and container id, in the order in which they came.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._client = docker.from_env(timeout=600)
        self.events: list[tuple[str, str]] = []

    def __enter__(self) -> Recording:
        filters = {"label": f"com.docker.compose.project={self._fleet.project}", "type": "container"}
        self._stream = self._client.events(filters=filters, decode=True)
        threading.Thread(target=self._follow, daemon=True).start()
        self._await_mark()
        return self

    def __exit__(self, *_: Any) -> None:
        self._await_mark()
        self._stream.close()
        self._client.close()

    def _follow(self) -> None:
        for event in self._stream:
            self.events.append((event["Action"], event["Actor"]["ID"]))

    def _await_mark(self) -> None:
        """Do something that the engine tells of; what it told before has come by then."""
        mark = uuid4().hex
        self._fleet.containers()[0].exec_run(["true", mark])
        wait_for(lambda: any(mark in action for action, _who in list(self.events)), "the engine's events", 60)

    def of(self, action: str, ids: set[str]) -> list[int]:
        """Where in the order an action was done to one of some containers."""
        return [place for place, (what, who) in enumerate(self.events) if what == action and who in ids]

    def signals(self, ids: set[str]) -> list[tuple[str, str]]:
        """What told one of some containers to stop, or ended it."""
        return [(what, who) for what, who in self.events if who in ids and what in ("kill", "stop", "die", "destroy")]

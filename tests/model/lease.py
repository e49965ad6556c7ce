# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployment lease in the world's time: it runs out by that clock, and whoever attends a rollout renews it."""

from __future__ import annotations

import json
from typing import Any, Callable, Optional, Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.attendance import DEFAULT_HEARTBEAT
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.redis_scripts import ACQUIRE, RENEW
from ansible_collections.driftguard.workers.plugins.plugin_utils.attended_lease import Lease
from model.engine import Clock

__all__ = ["Attended", "LeaseTime", "rollout_of"]

Values = dict[str, Any]


class LeaseTime:
    """Lets the lease run out by the world's clock: Redis has one of its own.

    :param key: the lease's.
    """

    def __init__(self, redis: Any, clock: Clock, key: str) -> None:
        self._redis, self._clock, self._key = redis, clock, key
        self._ends = float("inf")
        self.lapsed: list[str] = []
        """The runs whose lease ran out while they had it."""

    def asked(self, script: str, arguments: Sequence[Any], answer: Any) -> None:
        """A script ran in Redis: it may have taken the lease, or renewed it."""
        if script in (ACQUIRE, RENEW) and answer[0] in ("taken", "renewed", "regained"):
            self._ends = self._clock.now + arguments[2] / 1000

    def pass_by(self) -> None:
        """Take the lease away if its time is up."""
        if self._clock.now >= self._ends:
            self._ends = float("inf")
            held = self._redis.getdel(self._key)
            if held is not None:
                self.lapsed.append(json.loads(held)["runId"])

    @property
    def left(self) -> float:
        """Seconds until it runs out, 0 when nobody has it."""
        self.pass_by()
        return self._ends - self._clock.now if self._redis.exists(self._key) else 0.0


    def given_back_since(self, number: int) -> bool:
        """Whether a run with a higher number than this gave it back last."""
        last = json.loads(self._redis.get(f"{self._key}:last") or "{}")
        return bool(last.get("released")) and last["number"] > number


class Attended:
    """The controller's part of a rollout, as the collection's action plugins have it: no lease, no rollout.

    :param call: runs a module on the host.
    :param interrupted: raises when the run was.
    """

    def __init__(
        self, rollout: Values, call: Callable[[str, Values], Values], interrupted: Callable[[], None],
    ) -> None:
        self._interrupted = interrupted
        options = {"heartbeat": rollout.get("heartbeat") or DEFAULT_HEARTBEAT, "lease": rollout.pop("lease", None)}
        self._lease = Lease(
            lambda module, arguments: call(module.rpartition(".")[2], arguments), lambda _text: None, rollout, options)

    def run(self, work: Callable[[], Values]) -> Values:
        """Do the work if the lease is there; the result says who has it now if it isn't."""
        if not self._lease.keep():
            return {"changed": False, "by_step": {}, **self._lease.refusal}
        result = work()
        if result.get("failed"):
            self._lease.keep()
        return {**result, **self._lease.refusal}

    def go_on(self) -> None:
        """Called while the rollout waits.

        :raises DriftguardError: it must stop.
        """
        self._interrupted()
        if not self._lease.keep():
            raise DriftguardError(
                "rollout", "a deploy that goes on", "that it may go on no more; it stopped", "run it again")


def rollout_of(name: str, arguments: Values, check_mode: bool) -> Optional[Values]:
    """The options of the rollout that a module call has in it, where somebody attends it."""
    if name != "worker_steps" or check_mode:
        return None
    return next((
        step["options"] for step in arguments["steps"]
        if step["module"] == "worker_rollout" and not step.get("looks")
        and step["options"].get("state") not in ("settled", "kept")), None)

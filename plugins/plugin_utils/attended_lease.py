# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the deployment lease while a rollout is attended."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict

from ansible.errors import AnsibleConnectionFailure

from .lease_clock import LeaseClock

Values = Dict[str, Any]

LOCK = "driftguard.workers.worker_lock"


class Lease:
    """The deployment lease, as far as a rollout has to keep it.

    :param execute: runs a module on the host.
    :param warn: tells a person.
    :param rollout: the options of the rollout; options: what the controller needs of them.
    """

    def __init__(
        self, execute: Callable[[str, Values], Values], warn: Callable[[str], None], rollout: Values, options: Values,
    ) -> None:
        lease = options.get("lease") or {}
        self.refusal: Values = {}
        self._execute = execute
        self._warn = warn
        self._clock = LeaseClock(lease["seconds"], time.monotonic()) if lease.get("token") else None
        self._options: Values = {
            "state": "renewed", "fleet": rollout["fleet"], "generation": rollout.get("generation"),
            "run": rollout.get("run", ""), "lease": lease.get("seconds"),
            # No look is taken while Redis is waited for.
            "redis_timeout": options["heartbeat"] / 8,
            **{name: lease.get(name) for name in ("token", "redis_url", "redis_password", "redis_ca_file")},
        }

    def keep(self) -> bool:
        """Renew it when it is time to; whether the rollout may go on. If not, ``refusal`` says why, as a result."""
        asked = time.monotonic()
        if self._clock is None or not self._clock.is_due(asked):
            return not self.refusal
        try:
            answer = self._execute(LOCK, dict(self._options))
        except AnsibleConnectionFailure as error:
            answer = {"failed": True, "msg": str(error)}
        if not answer.get("failed"):
            self._clock.renewed(asked)
            return True
        self._clock.failed(asked)
        if answer.get("lost") or self._clock.is_over(time.monotonic()):
            kept = ("msg", "subject", "expected", "found", "remedy")
            self.refusal = {"failed": True, **{name: answer[name] for name in kept if name in answer}}
            return False
        self._warn(f"the deployment lease couldn't be renewed and will be tried again: {answer.get('msg', '')}")
        return True

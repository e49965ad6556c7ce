# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves new instances by what they registered, while the old ones that they are to replace still work.

The engine knows which image a container was made of; only its registration says which commit works in it. The proof of
the whole host comes after the old instances are gone, when it is too late to let them work on.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Collection, Mapping, Optional, Sequence

from .errors import DriftguardError
from .fleet_containers import Container
from .module_base import REDIS_SPEC
from .proof import Row, Scene, is_proved, may_pass, prove
from .proof_gather import failing
from .redis_gateway import RedisGateway, gateway_for
from .untrusted import check_seconds
from .verdicts import Wanted

POLL_SECONDS = 0.5
PROOF_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {**REDIS_SPEC, "timeout": {"type": "float", "default": 20.0}},
}
# Options with secrets: of a rollout that is started beside its connection they come in a file that is read once.
PRIVATE_OPTIONS = ("proof",)


class NewInstances:
    """Asks for the registrations of new instances until they are those of the revision.

    :param options: Redis's and ``timeout``, as :data:`PROOF_SPEC` has them; None where nobody is asked.
    :param host: its name in the inventory; project: the fleet's on its engine.
    :param safe_point: called between two looks; raises when this deployment must stop.
    :param connect: gives the connection that the options say.
    """

    def __init__(
        self, options: Optional[Mapping[str, Any]], fleet: str, host: str, project: str,
        safe_point: Callable[[], None], connect: Callable[[Mapping[str, Any]], RedisGateway] = gateway_for,
    ) -> None:
        self._options = options
        self._fleet = fleet
        self._host = host
        self._project = project
        self._safe_point = safe_point
        self._connect = connect
        if options is not None:
            check_seconds("timeout", options["timeout"])

    def prove(
        self, wanted: Mapping[str, Wanted], look: Callable[[], Sequence[Container]], old: Collection[str],
    ) -> None:
        """Wait until all new instances of some services are registered as they should be.

        :param wanted: those services; look: gives the fleet's containers; old: ids of those that don't count.
        :raises DriftguardError: one isn't, names it and what it registered; or Redis doesn't answer.
        """
        if self._options is None:
            return
        redis = self._connect(self._options)
        deadline = time.monotonic() + self._options["timeout"]
        while True:
            rows = self._rows(redis, wanted, look, old)
            if is_proved(rows):
                return
            if not may_pass(rows) or time.monotonic() >= deadline:
                raise self._failure(failing(rows))
            self._safe_point()
            time.sleep(POLL_SECONDS)  # registrations appear by heartbeats, which Redis doesn't announce

    def _rows(
        self, redis: RedisGateway, wanted: Mapping[str, Wanted], look: Callable[[], Sequence[Container]],
        old: Collection[str],
    ) -> list[Row]:
        new = [one for one in look() if one.id not in old and one.service in wanted and one.project == self._project]
        ids = {one.id for one in new}
        known = [one for one in redis.registrations(self._fleet).registrations if one.container_id in ids]
        return prove(Scene(self._host, self._project, wanted, new, known))

    def _failure(self, wrong: Sequence[Row]) -> DriftguardError:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return DriftguardError(
            f"service {wrong[0].service} on {self._host}, {wrong[0].instance}",
            "new instances registered as the revision's before the old ones are stopped",
            f"[{wrong[0].verdict}] {wrong[0].found}{more}", wrong[0].remedy)

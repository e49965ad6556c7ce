# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings one host from its containers to a plan's end: replaces, waits, bakes, and lets old ones go that stayed.

A service with order start-first has its new instances next to the old ones until those are proved. Killed there:

=============================  =====================================  ===============================================
killed while                   leaves                                 the next plan says
=============================  =====================================  ===============================================
compose scales up              old ones; new ones made or missing     remove what doesn't run, create what is missing
waiting or baking              old and new ones, all running          keep the new; the old go once these stand
old ones drain                 new ones; old ones on their way out    keep the new, stop and remove the old
new ones are taken back        old ones, some new ones                going back: keep the old, remove the new;
                                                                      going on: as while scaling up
the engine comes back          the same, started again                as above; who was restarted has to stand anew
=============================  =====================================  ===============================================

Instances are counted, their numbers mean nothing: new ones go on from the old ones' numbers.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, Mapping, Optional, Sequence

from .attendance import SafePoint
from .bake_limits import Limits
from .engine import Engine
from .errors import DriftguardError
from .fleet_containers import Container
from .module_base import FailedResult
from .names import LABEL_COMPOSE_PROJECT
from .rollout_bake import Bake
from .rollout_plan import Plan
from .rollout_proof import NewInstances
from .rollout_run import carry_out, remove_containers
from .rollout_wait import Failure, Watch
from .verdicts import Wanted

Times = Dict[str, float]


@contextmanager
def timed(times: Times, name: str) -> Iterator[None]:
    """Note how many seconds something took, also when it fails."""
    started = time.monotonic()
    try:
        yield
    finally:
        times[name] = round(time.monotonic() - started, 3)


@dataclass(frozen=True)
class Place:
    """Where a change is made, and by whom.

    :param host: its name in the inventory.
    :param note: file that names the containers that are being stopped, see ``remove_containers``.
    :param safe_point: raises when this deployment must stop; lock: descriptor of the host's lock.
    :param times: phase → seconds, filled here.
    """

    engine: Engine
    fleet: str
    host: str
    project: str
    note: Path
    safe_point: SafePoint
    lock: int
    times: Times

    def project_ids(self) -> list[str]:
        """Ids of all containers of the fleet's project."""
        return self.engine.container_ids([f"{LABEL_COMPOSE_PROJECT}={self.project}"])


class Change:
    """One change of one host.

    :param plan: its steps.
    :param services: of the revision; wanted: what their instances should be.
    :param look: gives the fleet's containers as they are now.
    :param plan_for: plans for containers, as the plan was made, without services that were forced.
    :param new: proves what replaces instances that still work.
    """

    def __init__(
        self,
        place: Place,
        plan: Plan,
        services: Mapping[str, Mapping[str, Any]],
        wanted: Mapping[str, Wanted],
        look: Callable[[], Sequence[Container]],
        plan_for: Callable[[Sequence[Container]], Plan],
        new: NewInstances,
    ) -> None:
        self._place = place
        self._plan = plan
        self._graces = {name: int(service["grace"]) for name, service in services.items()}
        self._wanted = wanted
        self._look = look
        self._plan_for = plan_for
        self._new = new
        self._old = {container.id for container in plan.leaving(late=True)}
        self._known = set(place.project_ids())
        self.baked: Optional[dict[str, Any]] = None

    def make(self, compose_file: Path, wait_timeout: float, stabilize: float, limits: Optional[Limits]) -> None:
        """Carry the plan out and wait until the host stands.

        :param limits: how it is baked, None for not at all; ``baked`` is what came of it.
        :raises DriftguardError: what failed, with its log; the old instances of start-first services work on then.
        """
        place = self._place
        try:
            with timed(place.times, "recreate"):
                carry_out(
                    place.engine, self._plan, place.project, compose_file, self._graces, place.safe_point, place.lock,
                    place.note)
            watch = self._watch(wait_timeout, stabilize)
            self._stand(watch, stabilize, limits)
            self._prove_new()
        except DriftguardError:
            self._take_back()
            raise
        if self._old:
            with timed(place.times, "drain"):
                remove_containers(
                    place.engine, self._plan.leaving(late=True), self._graces, place.safe_point, place.note)
                # It goes on from what it saw: who was restarted while the old ones drained is found.
                self._expect_none(watch.wait(), stabilize)

    def _watch(self, wait_timeout: float, stabilize: float) -> Watch:
        return Watch(
            self._place.engine,
            {name: service.replicas for name, service in self._wanted.items()},
            lambda: [one for one in self._place.project_ids() if one not in self._old],
            wait_timeout,
            stabilize,
            self._place.safe_point,
            self._place.safe_point.teller(self._known),
        )

    def _stand(self, watch: Watch, stabilize: float, limits: Optional[Limits]) -> None:
        with timed(self._place.times, "stabilize"):
            self._expect_none(watch.wait(), stabilize)
        if limits is None:
            return
        bake = Bake(watch, limits, f"fleet {self._place.fleet} on {self._place.host}")
        with timed(self._place.times, "bake"):
            try:
                bake.run()
            finally:
                self.baked = bake.values

    def _prove_new(self) -> None:
        """Before old instances go, the new ones have to be what the revision says, by the engine and by themselves.

        :raises DriftguardError: one isn't.
        """
        replaced = self._plan.replaced()
        if not replaced:
            return
        again = self._plan_for([one for one in self._look() if one.id not in self._old])
        wrong = [step for step in again.changes if step.service in replaced]
        if wrong:
            raise DriftguardError(
                f"service {wrong[0].service} on {self._place.host}, container {wrong[0].name}",
                "new instances that are the revision's before the old ones are stopped",
                f"{wrong[0].action} ({wrong[0].reason})",
                "find out what changes containers of this host besides this run, then deploy again")
        with timed(self._place.times, "prove"):
            self._new.prove({name: self._wanted[name] for name in sorted(replaced)}, self._look, self._old)

    def _take_back(self) -> None:
        """Remove the new instances of services whose old ones still work, unless this deployment must stop."""
        replaced = self._plan.replaced()
        if not replaced:
            return
        try:
            # Before anything is noted as leaving: a deployment that took over may want these.
            self._place.safe_point()
            new = [one for one in self._look() if self._is_new(one, replaced)]
            remove_containers(self._place.engine, new, self._graces, self._place.safe_point, self._place.note)
        except DriftguardError:
            # Why the rollout failed says more; the next plan sees what is left.
            return

    def _is_new(self, container: Container, replaced: Collection[str]) -> bool:
        own = container.project == self._place.project and container.service in replaced and not container.one_off
        return own and container.id not in self._known

    def _expect_none(self, failures: Sequence[Failure], stabilize: float) -> None:
        if failures:
            values = {"failures": [asdict(failure) for failure in failures]}
            raise FailedResult(self._failure(failures, stabilize), values)

    def _failure(self, failures: Sequence[Failure], stabilize: float) -> DriftguardError:
        first = failures[0]
        said = f"; it said: {' | '.join(first.log[-5:])}" if first.log else ""
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return DriftguardError(
            f"service {first.service} on {self._place.host}, container {first.container}",
            f"healthy and without a restart for {stabilize:g} s",
            f"{first.reason}{more}{said}",
            "mend the worker; the log lines are in 'failures' and in the run's evidence",
        )

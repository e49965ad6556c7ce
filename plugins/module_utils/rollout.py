# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_rollout does: brings one host to a revision, or takes the fleet off it.

A host is always in one of these states, and every one of them is a fine place for the next run to start from:

=============================  ==================================  ===========================================
killed while                   leaves                              the next plan says
=============================  ==================================  ===========================================
planning                       nothing                             the same plan
stopping and removing          old ones stopping, stopped or gone  recreate those, create the missing
compose creates                created, half-named or missing      recreate what doesn't run, create the rest
waiting                        all new, maybe bad                  keep the right ones, recreate the crashing; bad
                                                                   ones go back, though nothing is left to change
publishing, before settling    published, ``current`` is older     first settle what was published
settling                       history says it, the link doesn't   the same
=============================  ==================================  ===========================================

The table of instances that are replaced start-first is in ``rollout_change.py``.

``current`` moves only when the whole fleet is proved, so it names what a rollback goes back to.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

from .attendance import Attendance, SafePoint
from .bake_limits import Limits
from .engine import Engine
from .errors import DriftguardError
from .fleet_containers import RUNNING, Container, fleet_containers
from .guard_command import EXEC, NODE, entrypoint_of
from .host_files import read_text
from .host_record import HostRecords
from .host_secrets import HostSecrets
from .module_base import FailedResult, Result
from .names import LABEL_COMPOSE_PROJECT, compose_project, guard_directory, repository_of
from .release_info import Release
from .revisions import Revision, Revisions
from .rollout_change import Change, Place, Times, timed
from .rollout_order import start_first_services
from .rollout_plan import REMOVE, Plan, Step, plan_rollout
from .rollout_proof import NewInstances
from .rollout_refuse import check_needs, refuse_extras, refuse_others
from .rollout_run import masked, remove_containers, remove_project, secret_values
from .rollout_target import named_revision, prediction
from .untrusted import check_seconds
from .verdicts import Wanted

LEAVING = "being stopped"
KEPT = "kept"
NO_LOCK = -1  # check mode looks without holding anything


class Rollout:
    """One host's rollout.

    :param options: the module's options.
    :param may_go_on: raises where nobody waits any more for what this is a part of.
    """

    def __init__(
        self, engine: Engine, options: Mapping[str, Any], check_mode: bool,
        may_go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._may_go_on = may_go_on
        self._options = options
        self._check_mode = check_mode
        self._fleet: str = options["fleet"]
        self._project = compose_project(self._fleet)
        self._root = Path(options["root"]) / self._fleet
        self._revisions = Revisions(self._root)
        self._subject = f"fleet {self._fleet} on {options['host']}"
        self._leaving = self._root / "state" / "leaving"
        self._times: Times = {}
        self._limits = Limits()

    def run(self) -> Result:
        """Do what ``state`` asks.

        :raises DriftguardError: what failed, on which container, with its log.
        """
        for option in ("wait_timeout", "stabilize"):
            check_seconds(option, self._options[option])
        self._limits = Limits.of(self._options)
        attendance = Attendance(self._options, self._subject)
        action = {
            "present": self._present, KEPT: self._present, "absent": self._absent, "settled": self._settled,
        }[self._options["state"]]
        if self._check_mode:
            return action(SafePoint(), NO_LOCK)
        attendance.listen()
        generation, run = self._options["generation"], self._options["run"]
        here = HostRecords(Path(self._options["root"]), self._fleet)
        here.enter(generation, run)

        def check() -> None:
            self._may_go_on()
            here.check(generation, run)

        with here.lock(run, self._options["lock_wait"]) as lock:
            return action(attendance.safe_point(check), lock)

    def _present(self, safe_point: SafePoint, lock: int) -> Result:
        number, release, services, compose_file = self._target()
        wanted = self._wanted(release, services)

        def planned(containers: Sequence[Container], forced: Sequence[str] = ()) -> Plan:
            return plan_rollout(
                self._project, wanted, containers, forced, self._options["prune"], start_first_services(services))

        plan = planned(self._containers(release), self._options["services"])
        refuse_extras(self._subject, plan)
        refuse_others(self._subject, plan, self._options["services"])
        check_needs(self._subject, services, self._engine.network_names(), self._engine.volume_names())
        values = self._values(number, release, plan)
        if not self._check_mode and not (plan.changes and self._options["state"] == KEPT):
            place = Place(
                self._engine, self._fleet, self._options["host"], self._project, self._leaving, safe_point, lock,
                self._times)
            new = NewInstances(
                self._options["proof"], self._fleet, self._options["host"], self._project, safe_point)
            change = Change(place, plan, services, wanted, lambda: self._containers(release), planned, new)
            with self._reporting(values, bool(plan.changes)):
                try:
                    change.make(
                        compose_file, self._options["wait_timeout"], self._options["stabilize"],
                        self._bake(number, plan))
                finally:
                    values.update({"bake": change.baked} if change.baked is not None else {})
        return self._result(plan, values)

    def _absent(self, safe_point: SafePoint, lock: int) -> Result:
        steps = tuple(
            Step(REMOVE, c.service, "asked for", c) for c in self._containers(None) if c.project == self._project
        )
        plan = Plan(steps)
        values = self._values(None, None, plan)
        own = f"{LABEL_COMPOSE_PROJECT}={self._project}"
        # A compose that failed with its first container has made the network all the same.
        if not self._check_mode and (steps or self._engine.network_names([own])):
            with self._reporting(values, True):
                with timed(self._times, "recreate"):
                    remove_containers(
                        self._engine, [s.container for s in steps if s.container], {}, safe_point, self._leaving
                    )
                safe_point()
                remove_project(self._project, (lock,), safe_point)
        return self._result(plan, values)

    def _settled(self, safe_point: SafePoint, lock: int) -> Result:
        published = self._options["published"]
        if published is not None and not self._is_news(published):
            return Result(False, {"revision": self._revisions.current(), "previous": self._revisions.current()})
        number, release, _services, _file = self._target()
        changed = self._revisions.current() != number
        values = {"revision": number, "previous": self._revisions.current(), "release": _named(release)}
        if changed and not self._check_mode:
            safe_point()
            self._revisions.settle(self._revisions.load(number), published or self._options["generation"])
        if not self._check_mode:
            HostSecrets(self._root).sweep(self._revisions)
        return Result(
            changed,
            values,
            f"current: {self._revisions.current()}\n" if changed and self._check_mode else "",
            f"current: {number}\n",
        )

    def _is_news(self, published: int) -> bool:
        """Whether nothing was settled here since a revision was published, and it is kept here.

        The same number: a run that was killed in between wrote the history and didn't move the link.
        """
        kept = self._options["revision"] in {str(number) for number in self._revisions.numbers()}
        return kept and published >= self._revisions.settled_by()

    def _target(self) -> tuple[int, Optional[Release], dict[str, dict[str, Any]], Path]:
        """The revision to go to; in check mode perhaps one that is only predicted and not on disk yet."""
        if self._check_mode and self._options["desired"]:
            return (*prediction(self._fleet, self._options["revision"], self._options["desired"]), self._root)
        here = HostRecords(Path(self._options["root"]), self._fleet)
        number = named_revision(self._revisions, here, self._options["revision"], self._options["fenced"])
        revision: Revision = self._revisions.load(number)
        return number, revision.release, revision.services, revision.compose_file

    def _wanted(self, release: Optional[Release], services: Mapping[str, Mapping[str, Any]]) -> dict[str, Wanted]:
        ids = {}
        for variant in {str(service["variant"]) for service in services.values()}:
            image = release.variants.get(variant) if release else None
            facts = self._engine.image(image.image) if image else None
            if image and facts is None and self._check_mode and image.digest:
                # It will be pulled. An engine that has it under another name calls it what it will then.
                facts = self._engine.image(image.id)
            elif release and facts is None:
                raise DriftguardError(
                    f"fleet {self._fleet}, variant {variant} of release {release.release_id}",
                    "its image on this host's engine",
                    "no such image",
                    "deploy with the build, or pull it from the registry (worker_image_pull)",
                )
            ids[variant] = str(facts["Id"]) if facts else None
        return {
            name: Wanted(
                name,
                int(service["replicas"]),
                str(service["variant"]),
                ids[str(service["variant"])],
                release.sha if release else "",
                release.release_id if release else "",
                memory=int(service["memory"]),
                spec=service["spec"],
                guard=guard_directory(str(self._root)),
                # Revisions from before the key know only one way.
                entrypoint=entrypoint_of(release, str(service["variant"]), str(service.get("guard", EXEC))),
                node=service.get("guard") == NODE,
            )
            for name, service in services.items()
        }

    def _containers(self, release: Optional[Release]) -> list[Container]:
        own = {repository_of(f"{self._fleet}-worker", "base")}
        found = fleet_containers(
            self._engine,
            self._fleet,
            own | {image.repository for image in release.variants.values()} if release else own,
        )
        # The engine calls a container running until its grace period is over, also after whoever stopped it was killed.
        leaving = set((read_text(self._leaving) or "").split())
        return [replace(one, status=LEAVING) if one.id in leaving and one.status == RUNNING else one for one in found]

    def _bake(self, number: int, plan: Plan) -> Optional[Limits]:
        """How the host is baked; not again when nothing changes and the revision is the proved one."""
        news = bool(plan.changes) or self._revisions.current() != number
        return self._limits if news and self._limits.seconds else None

    @contextmanager
    def _reporting(self, values: dict[str, Any], changed: bool) -> Iterator[None]:
        """Give a failure what was planned and done so far, without secrets that a log line may hold."""
        try:
            yield
        except DriftguardError as error:
            secrets = secret_values(self._root)
            parts = (masked(part, secrets) for part in (error.subject, error.expected, error.found, error.remedy))
            own = error.values if isinstance(error, FailedResult) else {}
            raise FailedResult(
                DriftguardError(*parts), masked({**values, "durations": self._times, **own}, secrets), changed
            ) from error

    def _values(self, number: Optional[int], release: Optional[Release], plan: Plan) -> dict[str, Any]:
        return {
            "revision": number,
            "previous": self._revisions.current(),
            "release": _named(release),
            "steps": [step.to_dict() for step in plan.steps],
            "extras": [step.to_dict() for step in plan.extras],
            "moved": bool(plan.changes),
            "durations": self._times,
        }

    def _result(self, plan: Plan, values: dict[str, Any]) -> Result:
        return Result(
            changed=bool(plan.changes),
            values=values,
            before="" if not plan.changes else "".join(f"{step.name}\n" for step in plan.changes if step.container),
            after=plan.text(),
            header=f"containers of fleet {self._fleet} on {self._options['host']}",
        )


def _named(release: Optional[Release]) -> Optional[dict[str, str]]:
    return {"release_id": release.release_id, "sha": release.sha} if release else None

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the rollout of one host: (wanted, there) → keep, create, recreate or remove, each with its reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Collection, Iterable, Mapping, Optional, Sequence

from .fleet_containers import RUNNING, Container
from .verdicts import STALE, Wanted, container_problem

KEEP = "keep"
CREATE = "create"
RECREATE = "recreate"
REMOVE = "remove"
PRUNE_NONE = "none"
PRUNE_PROJECT = "project"
PRUNE_ALL = "all"


@dataclass(frozen=True)
class Step:
    """What happens to one instance, and why. ``container`` is None for one to create."""

    action: str
    service: str
    reason: str
    container: Optional[Container] = None

    @property
    def name(self) -> str:
        """Name for a person: the container's, or the service's for one that isn't there yet."""
        return self.container.name if self.container else self.service

    def to_dict(self) -> dict[str, str]:
        """As a documented return value."""
        return {
            "action": self.action, "service": self.service, "reason": self.reason,
            "container": self.container.name if self.container else "",
            "id": self.container.id[:12] if self.container else "",
        }


@dataclass(frozen=True)
class Plan:
    """The steps of one host. ``extras`` are containers of the fleet that the inventory doesn't ask for.

    :param late: ids of containers that go only once the new ones are proved, of services with order start-first.
    """

    steps: tuple[Step, ...]
    extras: tuple[Step, ...] = field(default=())
    late: frozenset[str] = frozenset()

    @property
    def changes(self) -> list[Step]:
        """The steps that change something."""
        return [step for step in self.steps if step.action != KEEP]

    def services_to_start(self) -> list[str]:
        """Services that lack instances once the removals are done."""
        return sorted({step.service for step in self.steps if step.action in (CREATE, RECREATE)})

    def leaving(self, late: bool = False) -> list[Container]:
        """Containers that go before anything new comes, or late: after the new ones are proved."""
        going = [step.container for step in self.steps if step.action in (RECREATE, REMOVE) and step.container]
        return [container for container in going if (container.id in self.late) == late]

    def replaced(self) -> frozenset[str]:
        """Services of which old instances work until the new ones are proved."""
        return frozenset(container.service for container in self.leaving(late=True))

    def scales(self) -> dict[str, int]:
        """How many instances compose has to bring such a service to, so that new ones come next to the old ones.

        Numbers of replicas say nothing here: after a start-first they go on from the old ones'.
        """
        return {
            service: sum(step.service == service and step.action in (KEEP, CREATE, RECREATE) for step in self.steps)
            + sum(container.service == service for container in self.leaving(late=True))
            for service in self.services_to_start() if service in self.replaced()
        }

    def text(self) -> str:
        """The plan as lines for a diff."""
        return "".join(f"{step.name}: {step.action} ({step.reason})\n" for step in (*self.changes, *self.extras))


def plan_rollout(
    project: str, wanted: Mapping[str, Wanted], containers: Sequence[Container], forced: Iterable[str] = (),
    prune: str = PRUNE_NONE, start_first: Collection[str] = (),
) -> Plan:
    """Plan one host.

    :param project: the fleet's compose project.
    :param wanted: service → what its instances should be.
    :param containers: all containers of the fleet on this host, running or not.
    :param forced: services to recreate although nothing differs.
    :param prune: which containers that the revision doesn't ask for are removed instead of reported: none, those of the
        fleet's own project, or all.
    :param start_first: services whose new instances come before the old ones go.
    """
    steps: list[Step] = []
    pruned: list[Step] = []
    extras: list[Step] = []
    for container in containers:
        if container.project != project or container.one_off or container.service not in wanted:
            goes = prune == PRUNE_ALL or (prune == PRUNE_PROJECT and container.project == project)
            step = Step(REMOVE, container.service, _extra_reason(container, project), container)
            (pruned if goes else extras).append(step)
    for service in sorted(wanted):
        own = [c for c in containers if c.project == project and c.service == service and not c.one_off]
        steps.extend(_plan_service(wanted[service], own, service in set(forced)))
    late = frozenset(
        step.container.id for step in steps
        if step.action in (RECREATE, REMOVE) and step.service in start_first and step.container
        and _may_wait(step.container))
    return Plan(tuple(steps + pruned), tuple(extras), late)


def _plan_service(wanted: Wanted, own: Sequence[Container], forced: bool) -> list[Step]:
    reasons = {container.id: _reason(container, wanted, forced) for container in own}
    right = sorted((c for c in own if not reasons[c.id]), key=lambda c: (c.number, c.name))
    wrong = sorted((c for c in own if reasons[c.id]), key=lambda c: (c.number, c.name))
    lacking = max(wanted.replicas - len(right), 0)
    steps = [Step(KEEP, wanted.service, "as wanted", container) for container in right[: wanted.replicas]]
    too_many = f"more than {wanted.replicas} replicas"
    steps += [Step(REMOVE, wanted.service, too_many, container) for container in right[wanted.replicas:]]
    steps += [Step(RECREATE, wanted.service, reasons[container.id], container) for container in wrong[:lacking]]
    steps += [Step(REMOVE, wanted.service, reasons[container.id], container) for container in wrong[lacking:]]
    steps += [Step(CREATE, wanted.service, "missing")] * (lacking - len(wrong[:lacking]))
    return steps


def _may_wait(container: Container) -> bool:
    """Whether a container that has to go can work until the new ones are proved.

    One that doesn't run, or is being stopped, does no work; and compose would start it again when it scales up.
    """
    return container.status == RUNNING and not container.half_made


def _reason(container: Container, wanted: Wanted, forced: bool) -> str:
    """Why a container of the project has to go; empty when it may stay."""
    problem = container_problem(container, wanted)
    if problem is not None and wanted.image_id is None:
        return f"{STALE}: new release, not built yet"
    if problem is not None:
        return f"{problem.verdict}: {problem.found}"
    if wanted.spec is not None and container.spec != wanted.spec:
        return "configuration changed"
    if wanted.memory is not None and container.memory != wanted.memory:
        return f"memory limit is {container.memory} bytes, not {wanted.memory}"
    if container.restart_policy != "always":
        return f"restart policy is {container.restart_policy}, not always"
    return "asked for" if forced else ""


def _extra_reason(container: Container, project: str) -> str:
    if container.one_off:
        return "made by docker compose run"
    if container.project != project:
        return f"of project {container.project}" if container.project else "started by hand"
    return "its service isn't placed on this host"

# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the keys of one service must be together, and how a fleet spec's problems become one error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from . import fleet_values as values
from .errors import DriftguardError
from .names import RESERVED_ENVIRONMENT
from .rollout_order import START_FIRST, STOP_FIRST

if TYPE_CHECKING:
    from .fleet_spec import Service

# What the renderer sets itself; a second source for one of these would make the proof ambiguous.
OWN_ENVIRONMENT = (
    "EXPECTED_GIT_SHA", "NODE_ENV", "REDIS_PASSWORD_FILE", "REDIS_URL", "WORKER_CONCURRENCY", "WORKER_DRAIN_SECONDS",
    "WORKER_ENV", "WORKER_FLEET", "WORKER_HOST", "WORKER_TYPE",
)
SHOWN_PROBLEMS = 20


class Problems:
    """Collects what is wrong, so that a person mends an inventory in one go."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str, str, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, subject: str, expected: str, found: str, remedy: str) -> None:
        """Note one, as :class:`DriftguardError` takes it."""
        self._found.append((subject, expected, found, remedy))

    def raise_any(self) -> None:
        """Raise what was noted.

        :raises DriftguardError: one problem as it is, several in one error with a remedy for each kind.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            raise DriftguardError(*self._found[0])
        listed = self._found[:SHOWN_PROBLEMS]
        rest = "; ".join(f"{row[0]}: expected {row[1]}; found {row[2]}" for row in listed)
        more = f"; and {len(self._found) - len(listed)} more" if len(self._found) > len(listed) else ""
        raise DriftguardError(
            f"fleet spec, {len(self._found)} problems", "a valid fleet spec", rest + more,
            "; ".join(dict.fromkeys(row[3] for row in listed)))


def check_service(subject: str, service: Service, problems: Problems) -> None:
    """Note what doesn't fit together in one service.

    :param subject: the service, for messages.
    """
    if not service.memory:
        problems.add(
            f"{subject}, key memory", "a memory limit", "none",
            "set memory here or in worker_service_defaults: a worker without a limit can take the host down")
    if service.stop_grace_period < service.drain_time:
        problems.add(
            f"{subject}, key stop_grace_period", f"at least the drain time ({service.drain_time} s)",
            f"{service.stop_grace_period} s",
            "raise stop_grace_period or lower drain_time: else the engine kills workers that still hand jobs back")
    if service.singleton and service.replicas != 1:
        problems.add(
            f"{subject}, key replicas", "1, since the service is a singleton", str(service.replicas),
            "drop replicas or singleton")
    if service.singleton and service.order == START_FIRST:
        problems.add(
            f"{subject}, key order", f"{STOP_FIRST}, since the service is a singleton", START_FIRST,
            f"set order: {STOP_FIRST} for this service: with {START_FIRST} two of it would run side by side")
    _check_reservations(subject, service, problems)
    _check_targets(subject, service, problems)
    for name in service.environment:
        _check_variable(subject, name, problems)


def check_volumes(subject: str, services: Iterable[Service], problems: Problems) -> None:
    """Note volumes that one service takes for the fleet's own and another for somebody else's: those are two."""
    mounts = [mount for service in services for mount in service.volumes if mount.kind == "volume"]
    external = {mount.source for mount in mounts if mount.external}
    for name in sorted(external & {mount.source for mount in mounts if not mount.external}):
        problems.add(
            f"{subject}, volume {name}", "external in each service that mounts it, or in none", "in some",
            "write external for all of them, or rename one of the two volumes")


def _check_reservations(subject: str, service: Service, problems: Problems) -> None:
    if service.memory and service.reserved_memory is not None and service.reserved_memory > service.memory:
        problems.add(
            f"{subject}, key reservations", "at most the memory limit", values.size_text(service.reserved_memory),
            "lower the reservation or raise memory")
    if service.cpus is not None and service.reserved_cpus is not None and service.reserved_cpus > service.cpus:
        problems.add(
            f"{subject}, key reservations", "at most the limit of CPUs", str(service.reserved_cpus),
            "lower the reservation or raise cpus")


def _check_targets(subject: str, service: Service, problems: Problems) -> None:
    """Compose silently keeps the last of two mounts; others the engine refuses once the old containers are gone."""
    targets = [mount.target for mount in service.volumes] + list(service.tmpfs)
    for target in sorted({target for target in targets if targets.count(target) > 1}):
        problems.add(
            f"{subject}, mount {target}", "one volume or tmpfs for each place in the container", "more than one",
            "drop all but one of them (tmpfs has /tmp unless it is set)")


def _check_variable(subject: str, name: str, problems: Problems) -> None:
    if name in RESERVED_ENVIRONMENT:
        problems.add(
            f"{subject}, environment {name}", "the version from the image alone", "a value set at deploy time",
            f"remove {name}: set at deploy time it makes a stale image look current")
    elif name in OWN_ENVIRONMENT:
        problems.add(
            f"{subject}, environment {name}", "no variable that the collection sets", "a second value for it",
            f"remove {name}; see docs/inventory.md for the variable that decides it")

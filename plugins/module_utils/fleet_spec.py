# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet spec: what an inventory may say of a service, read into one value, every problem named at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, Sequence

from . import fleet_values as values
from .errors import DriftguardError
from .fleet_values import Unfit
from .fleet_volumes import Mount, mount, tmpfs_path
from .names import FLEET_PATTERN, RESERVED_ENVIRONMENT, SERVICE_PATTERN, VARIANT_PATTERN

# What the renderer sets itself; a second source for one of these would make the proof ambiguous.
OWN_ENVIRONMENT = (
    "EXPECTED_GIT_SHA", "NODE_ENV", "REDIS_PASSWORD_FILE", "REDIS_URL", "WORKER_CONCURRENCY", "WORKER_ENV",
    "WORKER_FLEET", "WORKER_HOST", "WORKER_TYPE",
)
MAX_REPLICAS = 100
MIN_SECRET_LENGTH = 8


@dataclass(frozen=True)
class Healthcheck:
    """A health check as compose knows it; times in seconds. An empty test means the image's own."""

    test: tuple[str, ...] = ()
    interval: int = 30
    timeout: int = 10
    retries: int = 3
    start_period: int = 30


@dataclass(frozen=True)
class Service:
    """One kind of worker, every default filled in. Sizes in bytes, times in seconds."""

    name: str
    variant: str = "base"
    command: tuple[str, ...] = ()
    replicas: int = 1
    concurrency: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    memory: int = 0
    cpus: Optional[float] = None
    pids: int = 256
    reserved_memory: Optional[int] = None
    reserved_cpus: Optional[float] = None
    healthcheck: Optional[Healthcheck] = Healthcheck()
    stop_grace_period: int = 30
    drain_time: int = 20
    volumes: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ("/tmp",)
    networks: tuple[str, ...] = ()
    read_only: bool = True
    singleton: bool = False


class _Problems:
    """Collects what is wrong, so that a person mends an inventory in one go."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str, str, str]] = []

    def add(self, subject: str, expected: str, found: str, remedy: str) -> None:
        self._found.append((subject, expected, found, remedy))

    def raise_any(self) -> None:
        if not self._found:
            return
        first = self._found[0]
        if len(self._found) == 1:
            raise DriftguardError(*first)
        rest = "; ".join(f"{subject}: expected {expected}; found {found}" for subject, expected, found, _remedy in self._found)
        raise DriftguardError(
            f"fleet spec, {len(self._found)} problems", "a valid fleet spec", rest, "; ".join(dict.fromkeys(row[3] for row in self._found)))


def _healthcheck(value: Any) -> Optional[Healthcheck]:
    if value is False:
        return None
    readers: dict[str, Callable[[Any], Any]] = {
        "test": values.command, "interval": values.positive_duration, "timeout": values.positive_duration,
        "retries": values.whole(1, 100), "start_period": values.duration,
    }
    if not isinstance(value, dict) or not set(value) <= set(readers):
        raise Unfit(f"false, or a dictionary of {', '.join(readers)}")
    return Healthcheck(**{key: readers[key](content) for key, content in value.items()})


def _reservations(value: Any) -> dict[str, Any]:
    readers: dict[str, Callable[[Any], Any]] = {"memory": values.size, "cpus": values.cpus}
    if not isinstance(value, dict) or not set(value) <= set(readers):
        raise Unfit("a dictionary of memory and cpus")
    return {key: readers[key](content) for key, content in value.items()}


_name = values.name_like(SERVICE_PATTERN)


def _names(value: Any) -> tuple[str, ...]:
    return tuple(sorted({_plain_name(element) for element in values.texts(value)}))


def _plain_name(value: str) -> str:
    if not value or len(value) > 100 or not all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in value) or value[0] in "-.":
        raise Unfit("names of letters, digits, '-', '_' and '.'")
    return value


def _each(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Unfit("a list")
        return tuple(reader(element) for element in value)

    return read


READERS: dict[str, Callable[[Any], Any]] = {
    "variant": values.name_like(VARIANT_PATTERN),
    "command": values.command,
    "replicas": values.whole(1, MAX_REPLICAS),
    "concurrency": values.whole(1, 10000),
    "environment": values.environment,
    "secrets": _names,
    "memory": values.size,
    "cpus": values.cpus,
    "pids": values.whole(1, 100000),
    "reservations": _reservations,
    "healthcheck": _healthcheck,
    "stop_grace_period": values.positive_duration,
    "drain_time": values.duration,
    "volumes": _each(mount),
    "tmpfs": _each(tmpfs_path),
    "networks": _names,
    "read_only": values.boolean,
    "singleton": values.boolean,
}


def read_services(fleet: Any, services: Any, defaults: Any) -> dict[str, Service]:
    """Read and check a fleet spec.

    :param services: service name → dictionary of the keys in :data:`READERS`; nothing (None) for all defaults.
    :param defaults: the same keys, for every service that doesn't say otherwise; environments are merged.
    :returns: service name → :class:`Service`, in the order of names.
    :raises DriftguardError: names fleet, service and key of every problem.
    """
    problems = _Problems()
    if not isinstance(fleet, str) or not FLEET_PATTERN.match(fleet):
        problems.add("worker_fleet", f"a name that matches {FLEET_PATTERN.pattern}", _shown(fleet), "rename the fleet")
    if not isinstance(services, dict) or not services:
        problems.add(f"fleet {fleet}, worker_fleet_services", "a dictionary of at least one service", _shown(services),
                     "describe the services in the inventory (README, 'Your own application')")
        services = {}
    common = _read_keys(f"fleet {fleet}, worker_service_defaults", defaults or {}, problems)
    found = {}
    for name in sorted(services, key=str):
        service = _read_service(f"fleet {fleet}, service {_shown(name)}", name, services[name], common, problems)
        if service is not None:
            found[service.name] = service
    problems.raise_any()
    return found


def _read_service(subject: str, name: Any, raw: Any, common: dict[str, Any], problems: _Problems) -> Optional[Service]:
    if not isinstance(name, str) or not SERVICE_PATTERN.match(name):
        problems.add(subject, f"a name that matches {SERVICE_PATTERN.pattern}", _shown(name), "rename the service")
        return None
    own = _read_keys(subject, {} if raw is None else raw, problems)
    merged = {**common, **own}
    merged["environment"] = {**common.get("environment", {}), **own.get("environment", {})}
    reserved = merged.pop("reservations", {})
    service = Service(
        name=name, reserved_memory=reserved.get("memory"), reserved_cpus=reserved.get("cpus"), **merged)
    _check_together(subject, service, problems)
    return service


def _read_keys(subject: str, raw: Any, problems: _Problems) -> dict[str, Any]:
    if not isinstance(raw, dict):
        problems.add(subject, "a dictionary", _shown(raw), "write the service as keys and values")
        return {}
    found = {}
    for key in sorted(raw, key=str):
        reader = READERS.get(key) if isinstance(key, str) else None
        if reader is None:
            problems.add(f"{subject}, key {_shown(key)}", f"one of {', '.join(READERS)}", "an unknown key", "remove the key or mend its spelling")
            continue
        try:
            found[key] = reader(raw[key])
        except Unfit as error:
            secret = key == "environment"
            problems.add(f"{subject}, key {key}", str(error), "something else" if secret else _shown(raw[key]), f"mend {key} in the inventory")
    return found


def _check_together(subject: str, service: Service, problems: _Problems) -> None:
    if not service.memory:
        problems.add(f"{subject}, key memory", "a memory limit", "none", "set memory here or in worker_service_defaults: a worker without a limit can take the host down")
    if service.stop_grace_period < service.drain_time:
        problems.add(
            f"{subject}, key stop_grace_period", f"at least the drain time ({service.drain_time} s)", f"{service.stop_grace_period} s",
            "raise stop_grace_period or lower drain_time: else the engine kills workers that still hand their jobs back")
    if service.singleton and service.replicas != 1:
        problems.add(f"{subject}, key replicas", "1, since the service is a singleton", str(service.replicas), "drop replicas or singleton")
    if service.reserved_memory is not None and service.reserved_memory > service.memory:
        problems.add(f"{subject}, key reservations", "at most the memory limit", values.size_text(service.reserved_memory), "lower the reservation or raise memory")
    for name in service.environment:
        _check_variable(subject, name, problems)


def _check_variable(subject: str, name: str, problems: _Problems) -> None:
    if name in RESERVED_ENVIRONMENT:
        problems.add(
            f"{subject}, environment {name}", "the version to come from the image alone", "a value set at deploy time",
            f"remove {name}: set at deploy time it makes a stale image look current")
    elif name in OWN_ENVIRONMENT:
        problems.add(
            f"{subject}, environment {name}", "a variable that the collection doesn't set itself", "a second value for it",
            f"remove {name}; see docs/inventory.md for the variable that decides it")


def placed(fleet: str, services: Mapping[str, Service], placement: Optional[Sequence[Any]]) -> dict[str, Service]:
    """The services that run on one host.

    :param placement: names of services, None for all of them.
    :raises DriftguardError: a name that is no service of the fleet.
    """
    if placement is None:
        return dict(services)
    if not isinstance(placement, (list, tuple)):
        raise DriftguardError(f"fleet {fleet}, worker_placement", "a list of service names", _shown(placement), "write a list")
    unknown = [name for name in placement if name not in services]
    if unknown:
        raise DriftguardError(
            f"fleet {fleet}, worker_placement", f"services of the fleet ({', '.join(services)})",
            ", ".join(_shown(name) for name in unknown), "mend the name, or describe the service in worker_fleet_services")
    return {name: services[name] for name in services if name in placement}


def _shown(value: Any) -> str:
    return repr(value)[:120] if not isinstance(value, str) else repr(str(value)[:120])
